"""The actor's loop: claim, work, one write, a bell; and what it does with orders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from actors import actor as actor_module
from actors.actor import Actor, load_driver, main
from actors.driver import Context
from actors.phases import DEVELOPER, OutOfPolicyError
from actors.testing import ProbeDriver, RecordingLine
from actors.trees_process import GitHangsError, GitProcessError
from docs_store.mailbox import AsyncMailbox, Mailbox
from docs_store.messages import Draft, Outcome, Status, Task
from docs_store.store import Store
from docs_store.topology import DEFAULT, as_data
from ipc.control import Assignment, Bell, Claimed, Finished, Hold, Idle, Ready, Stop, Trouble, Turn, TurnDone, WantTurn

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "crew")
    made.start_epoch("developer", 7, died=False)
    return made


def assignment(tmp_path: Path, *, lockstep: bool = False) -> Assignment:
    return Assignment(
        phase="developer",
        epoch=7,
        nonce="n",
        workspace=str(tmp_path),
        crew=str(tmp_path / "crew"),
        state=str(tmp_path / ".supervisor"),
        spool="",
        log="",
        lockstep=lockstep,
    )


@asynccontextmanager
async def working(
    tmp_path: Path, store: Store, driver: ProbeDriver, *, lockstep: bool = False, epoch: int = 7
) -> AsyncIterator[RecordingLine]:
    """An actor at work, stopped in good order at the end."""
    line = RecordingLine()
    actor = Actor(
        policy=DEVELOPER,
        driver=driver,
        mailbox=AsyncMailbox(Mailbox(Store.open(tmp_path / "crew", create=False), "developer", epoch)),
        line=line,
        assignment=replace(assignment(tmp_path, lockstep=lockstep), epoch=epoch),
        topology=DEFAULT,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(actor.run)
        await line.heard(Ready)
        yield line
        line.tell(Stop(grace=1.0))


async def test_it_works_what_is_open_and_then_reports_idle_at_the_head_it_looked_at(
    tmp_path: Path, store: Store
) -> None:
    """One task: claimed, performed, finished in one record, then idle at exactly that record."""
    task = store.post("user", Draft(to="developer", kind="Implement", text="build it")).id
    driver = ProbeDriver()
    async with working(tmp_path, store, driver) as line:
        idle = await line.heard(Idle)
    state = store.refresh()
    assert state.messages[task].status is Status.DONE
    assert isinstance(idle, Idle)
    assert idle.head == state.n
    kinds = [type(report) for report in line.reports]
    assert kinds == [Ready, Claimed, Finished, Idle]


@pytest.mark.parametrize("place", ["crew", "another"])
async def test_documents_that_are_open_already_are_used_if_they_are_those_of_the_assignment(
    tmp_path: Path, store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was recorded since, the epoch above all, is read before anything else."""
    prepared = Store.open(tmp_path / place)
    store.post("user", Draft(to="developer", kind="Implement", text="build it"))
    opened: list[str] = []

    def open_store(crew: str, *_: object) -> Store:
        opened.append(crew)
        return Store.open(crew)

    monkeypatch.setattr(actor_module, "open_store", open_store)
    line, order = RecordingLine(), replace(assignment(tmp_path), topology=as_data(DEFAULT), lockstep=True)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(main, line, order, store=prepared))
        wanted = await line.heard(WantTurn)
        line.tell(Stop(grace=1.0))
    assert isinstance(wanted, WantTurn)
    assert wanted.head == store.head
    assert opened == ([] if place == "crew" else [str(tmp_path / "crew")])


async def test_its_events_follow_the_commit_and_name_the_message(tmp_path: Path, store: Store) -> None:
    """The completing event carries message, attempt and record number, so that it can be told from a second one."""
    task = store.post("user", Draft(to="developer", kind="Implement", text="build it")).id
    async with working(tmp_path, store, ProbeDriver()) as line:
        await line.heard(Idle)
    complete = [event for event in line.emitter.events if event["type"] == "phase_complete"]
    assert [event["summary"]["message"] for event in complete] == [task]
    assert complete[0]["summary"]["attempt"] == 1
    assert complete[0]["summary"]["n"] == store.refresh().reports[-1].n


async def test_a_bell_wakes_it(tmp_path: Path, store: Store) -> None:
    """What is posted while it sleeps is worked after the bell."""
    driver = ProbeDriver()
    async with working(tmp_path, store, driver) as line:
        await line.heard(Idle)
        store.post("user", Draft(to="developer", kind="Fix", text="mend it"))
        line.tell(Bell(head=store.head))
        await line.heard(Finished)
    assert [task.message.text for task in driver.tasks] == ["mend it"]


async def test_a_bell_that_rings_while_it_looks_is_not_lost(tmp_path: Path, store: Store) -> None:
    """A bell during a cycle makes it look again before it sleeps."""

    async def post_another(task: Task, context: Context) -> Outcome:
        if task.message.text == "first":
            store.post("user", Draft(to="developer", kind="Fix", text="second"))
            line.tell(Bell(head=store.head))
        return Outcome(result="done", detail="done")

    store.post("user", Draft(to="developer", kind="Fix", text="first"))
    driver = ProbeDriver(post_another)
    async with working(tmp_path, store, driver) as line:
        await line.heard(Finished, times=2)
    assert [task.message.text for task in driver.tasks] == ["first", "second"]


async def test_stop_cancels_what_is_in_hand_and_nothing_of_it_is_written(tmp_path: Path, store: Store) -> None:
    """A cycle that is stopped has written nothing; the message is still there for the next epoch."""
    task = store.post("user", Draft(to="developer", kind="Fix", text="long")).id
    head = store.head

    async def never(_task: Task, _context: Context) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(10):
        async with working(tmp_path, store, ProbeDriver(never)) as line:
            await line.heard(Claimed)
    state = store.refresh()
    assert state.n == head + 1  # the claim
    assert state.messages[task].status is Status.CLAIMED
    store.start_epoch("developer", 8, died=False)
    assert store.refresh().messages[task].status is Status.OPEN


async def test_paused_it_claims_nothing_until_resumed(tmp_path: Path, store: Store) -> None:
    """Paused means: nothing is taken up, also not at a bell."""
    driver = ProbeDriver()
    async with working(tmp_path, store, driver) as line:
        await line.heard(Idle)
        line.tell(Hold(paused=True))
        store.post("user", Draft(to="developer", kind="Fix", text="later"))
        line.tell(Bell(head=store.head))
        await anyio.wait_all_tasks_blocked()
        assert driver.tasks == []
        line.tell(Hold(paused=False))
        await line.heard(Finished)
    assert len(driver.tasks) == 1


async def test_in_lock_step_each_claim_needs_a_turn(tmp_path: Path, store: Store) -> None:
    """Without a turn nothing is claimed; a turn allows one claim, and says whether it was used."""
    store.post("user", Draft(to="developer", kind="Fix", text="one"))
    driver = ProbeDriver()
    async with working(tmp_path, store, driver, lockstep=True) as line:
        await line.heard(WantTurn)
        await anyio.wait_all_tasks_blocked()
        assert driver.tasks == []
        line.tell(Turn(number=1))
        first = await line.heard(TurnDone)
        line.tell(Turn(number=2))
        second = await line.heard(TurnDone, times=2)
    assert isinstance(first, TurnDone)
    assert isinstance(second, TurnDone)
    assert (first.number, first.worked, second.number, second.worked) == (1, True, 2, False)


async def test_what_policy_forbids_ends_the_worker_and_writes_nothing(tmp_path: Path, store: Store) -> None:
    """A driver that writes to its own READ document is an error of ours to see, not a record."""
    store.post("user", Draft(to="developer", kind="Fix", text="one"))
    head = store.head

    async def to_itself(_task: Task, _context: Context) -> Outcome:
        return Outcome(result="done", detail="", posts=(Draft(to="developer", kind="Fix", text="again"),))

    with pytest.raises(ExceptionGroup) as caught:
        async with working(tmp_path, store, ProbeDriver(to_itself)) as line:
            await line.heard(Finished)
    assert caught.group_contains(OutOfPolicyError)
    assert store.refresh().n == head + 1  # the claim


@pytest.mark.parametrize("lockstep", [False, True])
async def test_one_that_retires_finishes_its_task_and_ends(
    tmp_path: Path,
    store: Store,
    lockstep: bool,  # noqa: FBT001 - a table
) -> None:
    """Its outcome is written, nothing more is claimed, and the loop is over without having been told to stop."""
    one = store.post("user", Draft(to="developer", kind="Fix", text="one"))
    two = store.post("user", Draft(to="developer", kind="Fix", text="two"))

    async def last(_task: Task, context: Context) -> Outcome:
        context.retire()
        return Outcome(result="done", detail="that was all")

    line = RecordingLine()
    actor = Actor(
        policy=DEVELOPER,
        driver=ProbeDriver(last),
        mailbox=AsyncMailbox(Mailbox(Store.open(tmp_path / "crew", create=False), "developer", 7)),
        line=line,
        assignment=assignment(tmp_path, lockstep=lockstep),
        topology=DEFAULT,
    )
    line.tell(Turn(number=1))
    with anyio.fail_after(10):
        await actor.run()
    state = store.refresh()
    assert [state.messages[posted.id].status for posted in (one, two)] == [Status.DONE, Status.OPEN]
    kinds = [type(report) for report in line.reports]
    assert kinds.count(Finished) == 1
    assert kinds.count(TurnDone) == lockstep


async def test_a_newer_epoch_ends_it_quietly(tmp_path: Path, store: Store) -> None:
    """Once another epoch has taken over, the old worker's claim is refused and it leaves."""
    line = RecordingLine()
    actor = Actor(
        policy=DEVELOPER,
        driver=ProbeDriver(),
        mailbox=AsyncMailbox(Mailbox(Store.open(tmp_path / "crew", create=False), "developer", 7)),
        line=line,
        assignment=assignment(tmp_path),
        topology=DEFAULT,
    )
    store.start_epoch("developer", 8, died=True)
    with anyio.fail_after(10):
        await actor.run()


async def test_a_cycle_reads_what_the_phase_always_reads(tmp_path: Path, store: Store) -> None:
    """The driver gets every document of the policy, as of the claim."""
    store.post("user", Draft(to="developer", kind="Fix", text="one"))
    driver = ProbeDriver()
    async with working(tmp_path, store, driver) as line:
        await line.heard(Finished)
    assert tuple(driver.contexts[0].documents) == DEVELOPER.reads


async def test_a_cycle_is_told_what_others_reported_since_the_last_one(tmp_path: Path, store: Store) -> None:
    """QA's report is news for the next cycle, the same after a kill and for a new worker, and not for the one after."""
    news: list[list[str]] = []
    begun = anyio.Event()

    async def look(task: Task, context: Context) -> Outcome:
        assert set(context.news) == {"QA_WRITE", "DEBUG_WRITE"}
        news.append([report.detail for report in context.news["QA_WRITE"].reports])
        if task.message.text == "killed once" and task.attempt == 1:
            begun.set()
            await anyio.sleep_forever()
        return Outcome(result="done", detail="done")

    def reported(what: str) -> None:
        store.post("user", Draft(to="qa", kind="Review", text=what))
        task = store.claim("qa", 1)
        assert task is not None
        store.finish("qa", 1, task, Outcome(result="done", detail=what))

    def asked(what: str) -> None:
        store.post("user", Draft(to="developer", kind="Fix", text=what))

    store.start_epoch("qa", 1, died=False)
    reported("the parser is fine")
    asked("one")
    async with working(tmp_path, store, ProbeDriver(look)) as line:
        await line.heard(Idle)
    assert [e["detail"] for e in line.emitter.events if e["step"] == "reading"] == [
        "8 documents; new reports: 1 in QA_WRITE"
    ]
    reported("the lexer is not")
    asked("killed once")
    async with working(tmp_path, store, ProbeDriver(look)):
        await begun.wait()
    store.start_epoch("developer", 8, died=True)
    store.start_epoch("developer", 9, died=False)
    asked("another")
    async with working(tmp_path, store, ProbeDriver(look), epoch=9) as line:
        await line.heard(Idle)
    assert news == [["the parser is fine"], ["the lexer is not"], ["the lexer is not"], []]


def test_a_driver_is_found_by_its_dotted_path() -> None:
    """`package.module:Class` gives an instance; anything else says what is expected."""
    assert isinstance(load_driver("actors.testing:ProbeDriver", "qa"), ProbeDriver)
    with pytest.raises(LookupError, match=r"package\.module:Name"):
        load_driver("nonsense", "qa")


@pytest.mark.parametrize(
    ("error", "attempts"), [(GitProcessError("git died\nof it"), 2), (GitHangsError("git died"), 1)]
)
async def test_what_git_cannot_do_waits_for_the_user(
    tmp_path: Path, store: Store, error: GitProcessError, attempts: int
) -> None:
    """A lost process of git's is tried again once, one that hangs is not; the task is blocked, and the worker lives."""

    async def lose(_task: Task, _context: Context) -> Outcome:
        raise error

    posted = store.post("user", Draft(to="developer", kind="Fix", text="one")).id
    driver = ProbeDriver(lose)
    async with working(tmp_path, store, driver) as line:
        await line.heard(Idle)
    told = [one.text for one in line.reports if isinstance(one, Trouble)]
    assert len(driver.tasks) == len(told) == attempts
    assert set(told) == {str(error)}
    message = store.refresh().messages[posted]
    assert message.status is Status.BLOCKED
    assert next(report for report in store.state.reports if report.task == posted).detail == "git died"
