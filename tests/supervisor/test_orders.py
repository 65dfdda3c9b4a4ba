"""People's commands to a crew: what is refused, what is touched, and that each gets one reply."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest

from docs_store.store import Store
from docs_store.topology import DEFAULT
from supervisor.commands import (
    STOPPING,
    AnswerIt,
    GiveTask,
    Hold,
    Pending,
    Reload,
    Reply,
    RestartAll,
    RestartPhase,
    draft_of,
)
from supervisor.config import Config, ConfigError, Mistake, PhaseConfig, ProjectConfig, parse
from supervisor.exits import UsageError
from supervisor.orders import carry_out, needs_restart
from supervisor.seat import Seat
from supervisor.workspace import Workspace

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeWorkspace(Workspace):
    """Reads what the test says."""

    __slots__ = ()
    config_read: Config | Exception = Config()

    def read_config(self) -> Config:
        if isinstance(self.config_read, Exception):
            raise self.config_read
        return self.config_read


class FakeChild:
    """A process that is there."""

    pid = 4711
    gets_ready = True


class FakeCrew:
    """A crew whose workers are names only; `restarted` are the seats that got a new one."""

    def __init__(self, folder: Path) -> None:
        self.workspace = FakeWorkspace(folder)
        self.config = self.begun = Config()
        self.seats = {phase.key: Seat(phase=phase, config=PhaseConfig(key=phase.key)) for phase in DEFAULT.phases}
        for seat in self.seats.values():
            seat.child, seat.state = FakeChild(), "ready"  # type: ignore[assignment]
        self.documents = type("Documents", (), {"store": Store.open(folder / "crew")})()
        self.restarted: list[str] = []
        self.limits: list[int] = []
        self.epoch = 10
        self.lane = anyio.Lock()
        self.standby = self
        self.refreshed = 0
        self.gate: anyio.Event | None = None  # a restart waits for it

    async def refresh(self) -> None:
        self.refreshed += 1

    async def restart(self, seat: Seat, reason: str) -> None:
        self.restarted.append(seat.key)
        if self.gate is not None:
            await self.gate.wait()
        self.epoch += 1
        seat.epoch, seat.detail = self.epoch, reason

    async def ready(self, seat: Seat) -> bool:
        return seat.child is not None and seat.child.gets_ready  # type: ignore[attr-defined]

    async def at_desk(self, work: Any) -> Any:
        return work()

    async def look(self) -> None: ...

    def reconfigure(self, config: Config) -> None:
        self.config = config

    async def apply_limits(self) -> None:
        self.limits.append(self.config.restart.deaths)


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCrew:
    (tmp_path / "crew").mkdir()
    monkeypatch.setattr("supervisor.bootstrap.require_trust", lambda *_: None)
    FakeWorkspace.config_read = Config()
    return FakeCrew(tmp_path)


async def ask(crew: FakeCrew, command: Any) -> Reply:
    return await carry_out(crew, command)  # type: ignore[arg-type]


async def test_a_restart_says_who_works_now(crew: FakeCrew) -> None:
    """Process and epoch."""
    reply = await ask(crew, RestartPhase(phase="qa"))
    assert reply == Reply(
        ok=True, text="qa has a new worker: process 4711, epoch 11", data={"phase": "qa", "pid": 4711, "epoch": 11}
    )


async def test_a_second_restart_of_the_same_phase_is_refused_while_the_first_is_under_way(crew: FakeCrew) -> None:
    """With a sentence, and nothing is done twice."""
    crew.seats["qa"].moving = True
    reply = await ask(crew, RestartPhase(phase="qa"))
    assert (reply.ok, reply.text, crew.restarted) == (False, "qa is being restarted already", [])


async def test_whoever_waits_for_its_delay_is_hurried(crew: FakeCrew) -> None:
    """A person need not wait for a back-off."""
    seat = crew.seats["qa"]
    seat.moving, seat.state = True, "backoff"
    assert (await ask(crew, RestartPhase(phase="qa"))).ok
    assert seat.hurry.is_set()
    assert crew.restarted == []


async def test_unknown_phases_are_named_beside_the_known(crew: FakeCrew) -> None:
    """For each command that takes one; nothing is paused in part."""
    for command in (RestartPhase(phase="nobody"), Hold(phases=("qa", "nobody"), paused=True)):
        reply = await ask(crew, command)
        assert not reply.ok
        assert "planning, developer, qa, debugging" in reply.text
    assert not any(epoch.paused for epoch in crew.documents.store.state.epochs.values())


async def test_all_are_restarted_one_after_the_other(crew: FakeCrew) -> None:
    """In the order of the phases, as far as each gets ready."""
    reply = await ask(crew, RestartAll())
    assert reply.ok
    assert crew.restarted == list(crew.seats) == reply.data["restarted"]


async def test_one_that_has_ended_is_left_so(crew: FakeCrew) -> None:
    """New workers for all are for those that have one; `restart PHASE` is how it comes back."""
    crew.seats["qa"].vacate("ended", "it had finished")
    reply = await ask(crew, RestartAll())
    assert reply.ok
    assert crew.restarted == ["planning", "developer", "debugging"]
    assert "qa had ended, and stays so" in reply.text
    assert (await ask(crew, RestartPhase(phase="qa"))).ok
    assert crew.restarted[-1] == "qa"


@pytest.mark.parametrize("why", ["not ready", "moving"])
async def test_one_that_does_not_get_ready_saves_the_others(crew: FakeCrew, why: str) -> None:
    """What would end the next one, too, is not tried on it; the reply says who has a new worker."""
    crew.seats["developer"].moving = why == "moving"
    crew.seats["developer"].child.gets_ready = why != "not ready"  # type: ignore[union-attr]
    reply = await ask(crew, RestartAll())
    assert not reply.ok
    assert reply.data == {"restarted": ["planning"], "failed": "developer", "left": ["qa", "debugging"]}
    assert "Restarted: planning; left as they are: qa, debugging" in reply.text
    assert [key for key in crew.restarted if key != "developer"] == ["planning"]


@pytest.mark.parametrize(
    ("toml", "restarted"),
    [
        ("", []),
        ("[restart]\nrestarts = 9\n", []),
        ("[phases.qa]\ntask_time = 9\nmemory_mb = 9\ninterval = 9\n", []),
        ('[phases.qa]\npermanence = "transient"\nfinal_exit_codes = [3]\n[phases.qa.restart]\nrestarts = 9\n', []),
        ('[phases.qa.probe]\ncommand = ["true"]\n', []),
        ("[phases.qa]\noptions = {a = 1}\n", ["qa"]),
        ("[project]\nhang = 5\n", ["planning", "developer", "qa", "debugging"]),
    ],
)
async def test_a_reload_touches_only_what_changed(crew: FakeCrew, toml: str, restarted: list[str]) -> None:
    """Limits and policies are taken over as they are; a worker is replaced where it was told otherwise at its start."""
    FakeWorkspace.config_read = parse(toml)
    reply = await ask(crew, Reload())
    assert reply.ok
    assert crew.restarted == restarted == list(reply.data["restarted"])
    assert crew.config == parse(toml)
    assert ("nothing was touched" in reply.text) == (toml == "")


async def test_commands_that_go_through_the_crew_wait_for_each_other(crew: FakeCrew) -> None:
    """A reload that comes while all get new workers touches nobody before they have."""
    FakeWorkspace.config_read = parse("[project]\nhang = 5\n")
    crew.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(ask, crew, RestartAll())
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ask, crew, Reload())
        await anyio.wait_all_tasks_blocked()
        assert crew.restarted == ["planning"]
        crew.gate.set()
    assert crew.restarted == [*crew.seats, *crew.seats]


async def test_new_workers_for_all_are_no_old_spares(crew: FakeCrew) -> None:
    """What was installed since a spare was started is what the new workers run."""
    await ask(crew, RestartAll())
    assert crew.refreshed == 1
    FakeWorkspace.config_read = parse("[restart]\nrestarts = 9\n")
    await ask(crew, Reload())
    assert crew.refreshed == 1
    FakeWorkspace.config_read = parse("[project]\nhang = 5\n")
    await ask(crew, Reload())
    assert crew.refreshed == 2


async def test_a_reload_says_what_it_left_and_why(crew: FakeCrew) -> None:
    """One that is being restarted, and one that was given up, are not called restarted."""
    FakeWorkspace.config_read = parse("[project]\nhang = 5\n")
    crew.seats["qa"].moving = True
    crew.seats["debugging"].child, crew.seats["debugging"].state = None, "quarantined"
    reply = await ask(crew, Reload())
    assert reply.ok
    assert list(reply.data["restarted"]) == crew.restarted == ["planning", "developer"]
    assert "qa was being restarted just then" in reply.text
    assert "debugging has no worker (quarantined)" in reply.text


async def test_a_file_with_mistakes_or_other_phases_changes_nothing(crew: FakeCrew) -> None:
    """The mistakes are the reply."""
    before = crew.config
    FakeWorkspace.config_read = ConfigError("supervisor.toml", [Mistake(3, "restart.x", "is not known here")])
    reply = await ask(crew, Reload())
    assert not reply.ok
    assert "line 3: restart.x" in reply.text
    assert reply.data == {"code": "configuration"}
    FakeWorkspace.config_read = parse('[phases.security]\nactor = "a:B"\n')
    reply = await ask(crew, Reload())
    assert not reply.ok
    assert "start it again" in reply.text
    assert (crew.config, crew.restarted) == (before, [])


async def test_an_actor_that_cannot_be_used_changes_nothing(crew: FakeCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at before the phase's worker is touched."""
    before = crew.config
    monkeypatch.setattr("supervisor.bootstrap.require_trust", lambda *_: None)
    crew.workspace.config.write_text('[phases.qa]\nactor = "nowhere:Mine"\n')
    FakeWorkspace.config_read = parse(crew.workspace.config.read_text())
    reply = await ask(crew, Reload())
    assert not reply.ok
    assert "line 2: phases.qa.actor: there is no module 'nowhere'" in reply.text
    assert (crew.config, crew.restarted) == (before, [])


async def test_what_takes_effect_later_is_said(crew: FakeCrew) -> None:
    """The log's format; nobody is restarted for it."""
    FakeWorkspace.config_read = parse('[log]\nformat = "json"\n')
    reply = await ask(crew, Reload())
    assert reply.data == {"restarted": [], "later": ["[log]"]}


async def test_what_is_not_in_force_yet_is_said_each_time(crew: FakeCrew) -> None:
    """Compared with what this supervisor began with: until it is started again, or the file says the old again."""
    FakeWorkspace.config_read = parse("[journal]\nmax_mb = 5\n")
    assert (await ask(crew, Reload())).data["later"] == ["[journal]"]
    again = await ask(crew, Reload())
    assert again.data["later"] == ["[journal]"]
    assert "[journal] takes effect when the supervisor is started again" in again.text
    FakeWorkspace.config_read = parse("")
    assert (await ask(crew, Reload())).data["later"] == []


async def test_deaths_are_handed_to_the_history(crew: FakeCrew) -> None:
    """Which counts them."""
    FakeWorkspace.config_read = parse("[restart]\ndeaths = 7\n")
    await ask(crew, Reload())
    assert crew.limits == [7]


async def test_pause_tasks_and_answers_are_on_record(crew: FakeCrew) -> None:
    """All phases where none is named; a refusal of the store is a reply."""
    assert (await ask(crew, Hold(paused=True))).data["phases"] == list(crew.seats)
    store: Store = crew.documents.store
    assert all(store.state.epochs[key].paused for key in crew.seats)
    given = await ask(crew, GiveTask(draft=draft_of("qa", "Review: look at this")))
    assert given.data["document"] == "crew/QA_READ.md"
    assert store.state.messages[given.data["id"]].by == "user"
    refused = await ask(crew, AnswerIt(id="nothing", text="yes"))
    assert not refused.ok
    assert "nothing" in refused.text


async def test_a_pending_command_is_answered_once() -> None:
    """The first reply counts; whoever asks later gets the same."""
    pending = Pending(Reload())
    async with anyio.create_task_group() as group:
        got: list[Reply] = []

        async def wait() -> None:
            got.append(await pending.reply())

        group.start_soon(wait)
        group.start_soon(wait)
        pending.answer(Reply(ok=True, text="first"))
        pending.answer(STOPPING)
    assert [reply.text for reply in got] == ["first", "first"]


def test_only_what_a_worker_was_told_matters_to_it() -> None:
    """Its driver, actor and options, and the project; not its limits."""
    old = Config()

    def with_qa(**changes: Any) -> Config:
        return replace(old, phases=MappingProxyType({**old.phases, "qa": PhaseConfig(key="qa", **changes)}))

    assert needs_restart(old, with_qa(options={"a": 1}), "qa")
    assert needs_restart(old, with_qa(actor="a:b"), "qa")
    assert not needs_restart(old, with_qa(options={"a": 1}), "planning")
    assert not needs_restart(old, with_qa(task_time=1.0, memory_mb=5, interval=3.0), "qa")
    assert needs_restart(old, replace(old, project=ProjectConfig(hang=1.0)), "planning")


def test_a_task_needs_words_and_a_known_priority() -> None:
    """Otherwise nothing is posted."""
    for text, priority in (("", "MEDIUM"), ("Issue:  ", "MEDIUM"), ("x", "URGENT")):
        with pytest.raises(UsageError):
            draft_of("qa", text, priority)
