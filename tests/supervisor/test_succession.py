"""What the restart policy becomes of `supervisor.toml`; whole successions are in `tests/e2e`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from ipc import control
from supervisor.config import parse
from supervisor.desk import Desk
from supervisor.letters import Mailbox, Moved
from supervisor.restart import Exit, GiveUp, History, LeaveEnded, StartAgain, after_exit
from supervisor.seat import Seat
from supervisor.succession import Succession, policies
from supervisor.workspace import Workspace

OWN = '[phases.p{0}]\nactor = "own.place:Actor"\n'


@pytest.mark.parametrize("own", [0, 60])
def test_a_crew_may_need_what_its_phases_may(own: int) -> None:
    """Every phase may use up its own restarts together: a large crew is not given up sooner than a small one."""
    config = parse("".join(OWN.format(number) for number in range(own)) + "[restart]\nrestarts = 2\nwithin = 30.0\n")
    its, crew = policies(config)
    order = tuple(phase.key for phase in config.topology.phases)
    history = History()
    for turn in range(3):
        for key in order:
            exit_ = Exit(child=key, code=-9, ready=True, ran_for=100.0)
            decision = after_exit(
                exit_, history=history, policy=its[key], crew=crew, order=order, now=20.0 + turn, jitter=0.0
            )
            history = decision.history
            assert isinstance(decision, StartAgain if turn < 2 else GiveUp), decision.reason


def test_the_crew_s_own_limit_is_the_one_that_was_set() -> None:
    """`crew_restarts` binds before the phases' own limits do."""
    config = parse("[restart]\nrestarts = 5\ncrew_restarts = 6\nwithin = 30.0\n")
    its, crew = policies(config)
    history = History()
    order = tuple(phase.key for phase in config.topology.phases)
    decisions = []
    for turn in range(7):
        exit_ = Exit(child=order[turn % 4], code=-9, ready=True, ran_for=100.0)
        decisions.append(
            after_exit(
                exit_,
                history=history,
                policy=its[exit_.child],
                crew=crew,
                order=order,
                now=20.0 + turn,
                jitter=0.0,
            )
        )
        history = decisions[-1].history
    assert all(isinstance(decision, StartAgain) for decision in decisions[:6])
    assert isinstance(decisions[6], GiveUp)
    assert (decisions[6].scope, decisions[6].inputs["crew_restarts_allowed"]) == ("crew", 6)


class Place:
    """A crew's succession with everything around it noting what it is asked for, in order."""

    def __init__(self, folder: Path, start: Callable[..., Any]) -> None:
        self.done: list[str] = []
        self.settled = anyio.Event()
        self.mailbox = Mailbox()
        self.config = parse("")
        self.seats = {
            phase.key: Seat(phase=phase, config=self.config.phases[phase.key]) for phase in self.config.topology.phases
        }
        self.child = SimpleNamespace(
            pid=7,
            epoch=2,
            phase="qa",
            identity=None,
            exited=None,
            prepare=partial(self._note, "prepare"),
            assign=partial(self._note, "assign"),
            recheck_markers=lambda: None,
            drain_markers=None,
            close=lambda: None,
            wait_ready=self.settled.wait,
        )
        plane: Any = SimpleNamespace(
            opening=self._opening,
            open_epoch=self._opened,
            close_epoch=self._closed,
            endpoint=lambda: ("", ""),
            record=lambda *_args, **_more: None,
        )
        self.succession = Succession(
            seats=self.seats,
            workspace=Workspace(folder),
            config=self.config,
            documents=cast(
                "Any",
                SimpleNamespace(
                    store=SimpleNamespace(start_epoch=lambda *_args, **_more: self.done.append("history")),
                    reports_of=lambda *_args: (),
                    head=lambda: 9,
                ),
            ),
            desk=Desk(plane),
            plane=plane,
            standby=cast("Any", SimpleNamespace(take=self._take)),
            epochs=cast("Any", SimpleNamespace(take=lambda: 2)),
            transport=cast("Any", SimpleNamespace(first="queue", reason="", modes=None, config=self.config)),
            mailbox=self.mailbox,
            lockstep=False,
            start=start,
            look=self._nothing,
            gone=lambda fact: self.done.append(f"gone {fact.child.phase}"),
        )

    def _note(self, what: str, message: control.Down) -> None:
        assert isinstance(message, control.Prepare if what == "prepare" else control.Assignment)
        self.done.append(what)

    def _opening(self, *_of: object) -> Future[Path]:
        self.done.append("journal and folder")
        opened: Future[Path] = Future()
        opened.set_result(Path("folder"))
        return opened

    async def _opened(self, _phase: str, _epoch: int, _nonce: str, opening: Future[Path]) -> Path:
        return opening.result()

    async def _closed(self, *_of: object) -> None:
        self.done.append("closed")

    async def _take(self, _tell: object) -> Any:
        return self.child

    async def _nothing(self) -> None:
        pass


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - a thread makes it so
        await anyio.sleep(0.001)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, the successor goes first."""
    monkeypatch.setattr("supervisor.succession.SUCCESSOR_FIRST", 60.0)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("patient")
async def test_a_spare_opens_the_documents_while_its_epoch_is_recorded_and_works_when_that_is_done(
    tmp_path: Path,
) -> None:
    """History, journal and folder, tree, assignment: nobody has an epoch before it is on record."""
    async with anyio.create_task_group() as group:
        place = Place(tmp_path, group.start_soon)
        tree = anyio.Event()
        group.start_soon(partial(place.succession.seat, place.seats["qa"], died=True, reason="died", tree=tree))
        await anyio.wait_all_tasks_blocked()
        await until(lambda: "journal and folder" in place.done)
        await anyio.wait_all_tasks_blocked()
        assert place.done == ["prepare", "history", "journal and folder"]
        tree.set()
        await anyio.wait_all_tasks_blocked()
        assert place.done == ["prepare", "history", "journal and folder", "assign"]
        place.settled.set()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("patient")
async def test_nobody_is_woken_and_nothing_closed_before_the_successor_is_ready(tmp_path: Path) -> None:
    """Bells and the closing of the dead epoch would have the processor that it needs."""
    async with anyio.create_task_group() as group:
        place = Place(tmp_path, group.start_soon)
        dead = SimpleNamespace(**{**vars(place.child), "epoch": 1})
        seated = anyio.Event()
        group.start_soon(place.succession.bury, place.seats["qa"], cast("Any", dead), seated)
        await place.succession.seat(place.seats["qa"], died=True, reason="died")
        seated.set()
        await anyio.wait_all_tasks_blocked()
        assert not place.mailbox.letters
        assert "closed" not in place.done
        place.settled.set()
        await until(lambda: "closed" in place.done and Moved(9) in place.mailbox.letters)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reload_gives_no_worker_another_fallback_than_the_others_have(tmp_path: Path) -> None:
    """`[ipc]` takes effect when the supervisor is started again, as the reload says: for a new worker, too."""
    given: list[control.Assignment] = []
    async with anyio.create_task_group() as group:
        place = Place(tmp_path, group.start_soon)
        place.child.assign = given.append
        place.succession.reconfigure(parse('[ipc]\nfallback = "never"\n'))
        await place.succession.seat(place.seats["qa"], died=True, reason="died")
        place.settled.set()
    assert [assignment.fallback for assignment in given] == [True]


def test_failed_starts_in_a_row_are_limited_as_the_configuration_says() -> None:
    """None allowed: the first one is giving up."""
    config = parse("[restart]\nstart_failures = 0\n")
    its, crew = policies(config)
    exit_ = Exit(child="qa", code=69, ready=False, ran_for=0.1)
    order = tuple(phase.key for phase in config.topology.phases)
    decision = after_exit(exit_, history=History(), policy=its["qa"], crew=crew, order=order, now=1.0, jitter=0.0)
    assert isinstance(decision, GiveUp)


def test_a_phase_may_have_limits_of_its_own() -> None:
    """What `[phases.X.restart]` does not say is what [restart] says; the crew's limit is what all may need together."""
    toml = """
[restart]
restarts = 4
within = 30.0
[phases.qa]
permanence = "transient"
final_exit_codes = [78]
[phases.qa.restart]
restarts = 1
within = 10.0
first_delay = 40.0
longest_delay = 50.0
"""
    config = parse(toml)
    its, crew = policies(config)
    assert (its["qa"].restarts, its["qa"].within, its["qa"].first_delay, its["qa"].longest_delay) == (1, 10.0, 40.0, 50)
    assert (its["qa"].start_failures, its["qa"].permanence, its["qa"].final_exit_codes) == (3, "transient", (78,))
    others = {key: policy for key, policy in its.items() if key != "qa"}
    assert {(policy.restarts, policy.within, policy.permanence) for policy in others.values()} == {
        (4, 30.0, "permanent")
    }
    assert crew.restarts == 3 * 4 + 1 * 3, "qa may be restarted once in each ten of the crew's thirty seconds"
    order = tuple(its)
    history, decisions = History(), {}
    for key in ("qa", "planning"):
        for now in (100.0, 101.0):
            exit_ = Exit(child=key, code=-9, ready=True, ran_for=100.0)
            decisions[key] = after_exit(
                exit_, history=history, policy=its[key], crew=crew, order=order, now=now, jitter=0.0
            )
            history = decisions[key].history
    assert isinstance(decisions["qa"], GiveUp)
    assert isinstance(decisions["planning"], StartAgain)
    ended = Exit(child="qa", code=0, ready=True, ran_for=1.0)
    done = after_exit(ended, history=history, policy=its["qa"], crew=crew, order=order, now=102.0, jitter=0.0)
    assert isinstance(done, LeaveEnded)
