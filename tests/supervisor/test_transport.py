"""How a running crew obeys the rollout: terms, rollbacks at once, the alarm, and what goes on record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from ipc import control
from supervisor.config import Config, IpcConfig
from supervisor.exits import UserError
from supervisor.plane import EventPlane
from supervisor.rollout import Progress, advance, roll_back, start
from supervisor.rollout_state import change, load
from supervisor.transport import Transport, Wishes
from supervisor.turns import Turns
from supervisor.workspace import Workspace

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Plane:
    """Records, and a queue that can be served or not."""

    def __init__(self, *, serves: bool = True) -> None:
        self.serves = serves
        self.tries = 0
        self.records: list[tuple[str, str, str, Mapping[str, Any]]] = []

    def serve(self) -> bool:
        self.tries += 1
        return self.serves

    def record(
        self,
        type: str,  # noqa: A002 - the event's own word
        *,
        phase: str = "supervisor",
        step: str = "",
        detail: str = "",
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        self.records.append((type, phase, step, {"detail": detail, **(summary or {})}))

    def steps(self, step: str) -> list[Mapping[str, Any]]:
        return [said for _, _, known, said in self.records if known == step]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.make_folders()
    return made


def transport(workspace: Workspace, plane: Plane, *, fallback: str = "auto", **wishes: Any) -> Transport:
    config = Config(ipc=IpcConfig(rollout=1.0, fallback=cast("Any", fallback)))
    made = Transport(workspace, config, cast("EventPlane", plane), Wishes(**{"environ": {}, **wishes}))
    made.begin()
    return made


def claimed(task: str = "m1") -> control.Claimed:
    return control.Claimed(task=task, attempt=1, text="t", mode="queue", reason="drew 0.1", drawn=0.1)


async def told(made: Transport) -> control.Modes:
    """Let it keep watch until it has something to say."""
    heard: list[control.Modes] = []
    with anyio.fail_after(15), anyio.CancelScope() as scope:

        def tell(modes: control.Modes) -> None:
            heard.append(modes)
            scope.cancel()

        await made.keep(tell)
    return heard[0]


async def test_a_rollback_on_disk_is_obeyed_at_once_and_beats_the_flag_of_this_run(workspace: Workspace) -> None:
    """Whoever asks for the queue by a flag is rolled back too; the audit under way is a fallback on record."""
    plane = Plane()
    made = transport(workspace, plane, queue=True)
    assert made.first == "queue"
    made.heard("qa", 4, claimed())
    change(workspace, time.time(), lambda p: roll_back(p, time.time(), "it fails", by="user"))
    heard = await told(made)
    assert (heard.forced, heard.at_once) == ("stdout", True)
    (moved,) = plane.steps("fallback")
    assert (moved["rollback"], moved["message"]) == (True, "m1")
    assert "it fails" in made.note


async def test_a_new_stage_reaches_running_workers_for_their_next_cycle(workspace: Workspace) -> None:
    """The rate changes, and nothing moves at once."""
    made = transport(workspace, Plane())
    change(workspace, 1.0, lambda p: advance(start(p, 1.0), 1.0, force=True))
    heard = await told(made)
    assert (heard.forced, heard.rate, heard.at_once) == ("", 0.25, False)
    assert heard.source == "stage 2 of the rollout"


def fail(made: Transport, monkeypatch: pytest.MonkeyPatch, times: int = 3) -> None:
    made.heard("qa", 4, claimed())
    for n in range(1, times + 1):
        monkeypatch.setattr(time, "time", lambda n=n: 1000.0 + 60 * n)
        made.heard("qa", 4, control.Beat(lag=0, events={"fallbacks": n}))
        made.heard("qa", 4, control.Beat(lag=0, events={"fallbacks": n}))


async def test_a_queue_that_keeps_failing_is_left_until_a_person_says_otherwise(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alarm on record, stdout for all, kept on disk as the supervisor's doing; each fallback counted once."""
    plane = Plane()
    made = transport(workspace, plane)
    fail(made, monkeypatch)
    heard = await told(made)
    assert heard.forced == "stdout"
    assert [type_ for type_, _, step, _ in plane.records if step == "rollout"] == ["phase_error"]
    assert len([said for said in plane.steps("fallback") if "rollback" not in said]) == 3
    assert load(workspace).history[-1].by == "supervisor"
    assert transport(workspace, Plane()).first == "stdout"


async def test_where_falling_back_is_retired_nothing_is_rolled_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fallback = "never"`: stdout is no way any more."""
    plane = Plane()
    made = transport(workspace, plane, fallback="never")
    fail(made, monkeypatch, 9)
    assert plane.steps("rollout") == []
    assert made.modes.forced == ""
    assert load(workspace) == Progress()


async def test_a_damaged_state_is_the_safe_side(workspace: Workspace) -> None:
    """Everything by stdout and a word on record; a flag still has its way, since the run must start."""
    workspace.rollout.write_text("[]")
    plane = Plane()
    made = transport(workspace, plane)
    assert made.first == "stdout"
    assert "rollout.json" in plane.steps("rollout")[0]["detail"]
    assert transport(workspace, Plane(), queue=True).first == "queue"


async def test_a_queue_that_cannot_be_served_is_not_asked_for(workspace: Workspace) -> None:
    """Tried once; every cycle goes by stdout, with that reason."""
    plane = Plane(serves=False)
    made = transport(workspace, plane, queue=True)
    assert (made.first, made.reason, plane.tries) == ("stdout", "the queue cannot be served here", 1)
    assert transport(workspace, Plane(), stdout=True).plane.tries == 0  # type: ignore[attr-defined]


async def test_a_bad_variable_stops_the_start(workspace: Workspace) -> None:
    """Before anything is drawn, and although a flag would have decided."""
    with pytest.raises(UserError, match="QUEUE_IPC_ROLLOUT"):
        transport(workspace, Plane(), queue=True, environ={"QUEUE_IPC_ROLLOUT": "2"})


async def test_a_validation_counts_and_obeys_nothing(workspace: Workspace) -> None:
    """A copy's run looks at no rollout, even where one is rolled back."""
    change(workspace, 1.0, lambda p: roll_back(p, 1.0, "it fails", by="user"))
    assert transport(workspace, Plane(), queue=True, still=True).progress == Progress()


async def test_turns_go_to_one_at_a_time() -> None:
    """Who has one is working until it is done or gone; whoever left does not wait any more."""
    turns = Turns()
    turns.wanted("qa")
    assert turns.waits("qa")
    assert turns.grant("qa") == 1
    assert turns.working("qa")
    assert not turns.waits("qa")
    turns.gone("qa")
    assert not turns.working("qa")
    async with anyio.create_task_group() as group:
        group.start_soon(turns.until, lambda: turns.waits("developer"))
        turns.wanted("developer")
