"""The prober: whom it asks and when, what it puts on record, and the command itself with real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import psutil
import pytest

from docs_store.topology import DEFAULT
from ipc import control
from supervisor.config import PhaseConfig, ProbeConfig
from supervisor.letters import Mailbox, ProbeAnswered
from supervisor.liveness import Verdict
from supervisor.prober import Prober, ask
from supervisor.probes import Answer
from supervisor.seat import Seat

pytestmark = pytest.mark.anyio

CONFIG = ProbeConfig(command=("check",), every=10.0, timeout=5.0, failures=2, start_grace=0.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    """A prober over two phases; `asked` are the probes that would run, `noted` what went on record."""

    def __init__(self, config: ProbeConfig = CONFIG) -> None:
        self.asked: list[tuple[str, int]] = []
        self.noted: list[tuple[str, str, str]] = []
        self.condemned: list[tuple[str, Verdict]] = []
        self.mailbox = Mailbox()
        phases = {phase.key: phase for phase in DEFAULT.phases if phase.key in ("qa", "planning")}
        self.seats = {
            key: Seat(phase=phase, config=PhaseConfig(key=key, probe=config if key == "qa" else ProbeConfig()))
            for key, phase in phases.items()
        }
        plane: Any = SimpleNamespace(record=self._record)
        self.prober = Prober(
            seats=self.seats,
            plane=plane,
            mailbox=self.mailbox,
            folder=Path(),
            marks={},
            start=lambda _work, key, _child, number, _config: self.asked.append((key, number)),
            condemn=lambda seat, verdict: self.condemned.append((seat.key, verdict)),
        )
        for seat in self.seats.values():
            self.seat(seat)

    def _record(self, type_: str, *, phase: str, step: str, detail: str, summary: Any = None) -> None:
        assert phase == "qa"
        assert summary is None or json.dumps(summary)
        self.noted.append((type_, step, detail))

    @property
    def qa(self) -> Seat:
        return self.seats["qa"]

    def seat(self, seat: Seat, *, now: float = 100.0) -> Any:
        child: Any = SimpleNamespace(phase=seat.key, exited=None, pid=7)
        seat.seated(child, 1, "queue", "", now=now)
        seat.moving = False
        seat.hear(control.Ready(pid=7, epoch=1), now)
        return child

    def answer(self, code: int = 0, **more: Any) -> None:
        """What the running one says."""
        _key, number = self.asked[-1]
        self.prober._running.discard("qa")
        self.prober.heard(ProbeAnswered(cast("Any", self.qa.child), Answer(number=number, code=code, **more)))


def test_only_phases_with_a_probe_are_asked_and_one_at_a_time() -> None:
    """A probe that takes longer than its turn is waited for."""
    place = Place()
    place.prober.look(100.0)
    assert place.asked == [("qa", 1)]
    place.prober.look(111.0)
    assert place.asked == [("qa", 1)], "it runs still"
    place.answer()
    place.prober.look(112.0)
    assert place.asked == [("qa", 1), ("qa", 2)]


@pytest.mark.parametrize("why", ["paused", "moving", "condemned", "exited", "gone", "starting"])
def test_who_cannot_answer_is_not_asked(why: str) -> None:
    """Paused, between two workers, given up, or not ready yet."""
    place = Place()
    match why:
        case "paused":
            place.qa.paused = True
        case "moving":
            place.qa.moving = True
        case "condemned":
            place.qa.condemned = "no progress"
        case "exited":
            cast("Any", place.qa.child).exited = "it has"
        case "gone":
            place.qa.vacate("quarantined", "too often")
        case _:
            place.qa.seated(cast("Any", place.qa.child), 2, "queue", "", now=100.0)
            place.qa.moving = False
    place.prober.look(500.0)
    assert place.asked == []


def test_failures_in_a_row_condemn_the_worker() -> None:
    """The first is on record, the last one is the verdict."""
    place = Place()
    for now, code in ((100.0, 1), (110.0, 0), (120.0, 1), (130.0, 1)):
        place.prober.look(now)
        place.answer(code, said="it is cold")
    ((key, verdict),) = place.condemned
    assert (key, verdict.state, verdict.action) == ("qa", "unhealthy", "restart")
    assert [step for _, step, _ in place.noted] == ["probe", "probe"]
    assert "failed once, at 2 it counts; the last: it exited with code 1: it is cold" in place.noted[0][2]


def test_a_warning_is_said_once_and_taken_back() -> None:
    """The status says it as long as it holds; nobody is ended."""
    place = Place(ProbeConfig(command=("check",), failures=2, start_grace=0.0, on_failure="warn"))
    for now in (100.0, 110.0, 120.0, 130.0):
        place.prober.look(now)
        place.answer(1)
    assert [step for _, step, _ in place.noted] == ["probe", "verdict"]
    assert place.noted[1][2].startswith("unhealthy: its probe (check) has failed 2 times in a row")
    assert place.qa.status().detail == place.qa.unwell == place.noted[1][2]
    assert place.qa.state == "ready"
    place.prober.look(140.0)
    place.answer(0)
    assert place.qa.status().detail == ""
    assert place.noted[-1][1:] == ("probe", "well again: its probe says that it is well")
    assert place.condemned == []


def test_a_probe_of_one_that_died_meanwhile_counts_for_nothing() -> None:
    """Its successor begins with none against it, and is asked when that one is over."""
    place = Place()
    place.prober.look(100.0)
    place.answer(1)
    place.prober.look(110.0)
    old = cast("Any", place.qa.child)
    place.seat(place.qa, now=112.0)
    place.prober.look(113.0)
    assert place.asked == [("qa", 1), ("qa", 2)], "the old one runs still"
    place.prober._running.discard("qa")
    place.qa.probes = place.qa.probes.anew().anew()  # the number says nothing about whose it is
    place.prober.heard(ProbeAnswered(old, Answer(number=2, code=1)))
    assert (place.qa.probes.failures, place.condemned) == (0, [])
    place.prober.look(114.0)
    assert place.asked[-1] == ("qa", 3)


def test_a_pause_and_a_stall_of_ours_make_what_runs_count_for_nothing() -> None:
    """The stall keeps what was found before; the pause does not."""
    place = Place()
    place.prober.look(100.0)
    place.answer(1)
    place.prober.look(110.0)
    place.qa.after_stall(150.0, 40.0)
    place.answer(1)
    assert (place.qa.probes.failures, place.condemned) == (1, [])
    place.prober.look(159.0)
    assert len(place.asked) == 2
    place.prober.look(160.0)
    assert len(place.asked) == 3
    place.qa.paused = True
    place.answer(1)
    assert (place.qa.probes.failures, place.condemned) == (1, [])
    place.prober.look(161.0)
    place.answer(1)
    assert (place.qa.probes.failures, place.condemned) == (0, [])


def test_a_command_that_cannot_be_started_is_said_once() -> None:
    """It says nothing about the phase."""
    place = Place()
    for now in (100.0, 110.0, 120.0):
        place.prober.look(now)
        place.answer(problem="there is no check")
    assert place.noted == [("phase_error", "probe", "there is no check; it says nothing")]
    assert place.condemned == []


# --- the command itself


def python(code: str, **more: Any) -> ProbeConfig:
    return ProbeConfig(command=(sys.executable, "-c", code), **more)


async def test_the_command_runs_in_the_workspace_with_what_a_tool_may_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output's last lines are kept; secrets of our environment are not for it."""
    monkeypatch.setenv("API_KEY", "hidden")
    code = (
        "import os, sys; print('first'); print(os.path.basename(os.getcwd())); print(os.environ['PROBED_PHASE']);"
        "print(os.environ.get('API_KEY'), file=sys.stderr); sys.exit(3)"
    )
    answer = await ask(python(code), 5, folder=tmp_path, environ={"PROBED_PHASE": "qa"})
    assert (answer.number, answer.code, answer.timed_out, answer.is_healthy) == (5, 3, False, False)
    assert answer.said == f"{tmp_path.name} / qa / None"
    assert (await ask(python("pass"), 6, folder=tmp_path, environ={})).is_healthy


async def test_a_missing_program_is_no_answer(tmp_path: Path) -> None:
    """Its name is in the problem."""
    answer = await ask(ProbeConfig(command=("no-such-program",)), 1, folder=tmp_path, environ={})
    assert "no-such-program" in answer.problem
    assert not answer.is_healthy


async def test_at_its_limit_the_whole_tree_is_ended(tmp_path: Path) -> None:
    """What it has started in a session of its own, too."""
    code = (
        "import subprocess, sys, time; quiet = subprocess.DEVNULL\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True,"
        " stdin=quiet, stdout=quiet, stderr=quiet)\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    answer = await ask(python(code, timeout=2.0), 1, folder=tmp_path, environ={})
    assert answer.timed_out
    assert answer.said.isdecimal(), answer
    with anyio.fail_after(10):
        while psutil.pid_exists(int(answer.said)):
            if psutil.Process(int(answer.said)).status() == psutil.STATUS_ZOMBIE:
                break
            await anyio.sleep(0.01)


async def test_several_run_side_by_side(tmp_path: Path) -> None:
    """One that hangs is not in the way of another, and takes nobody with it when it is ended."""
    answers: list[Answer] = []

    async def run(config: ProbeConfig, number: int) -> None:
        answers.append(await ask(config, number, folder=tmp_path, environ={}))

    async with anyio.create_task_group() as group:
        group.start_soon(run, python("import time; time.sleep(600)", timeout=1.0), 1)
        group.start_soon(run, python("import time; time.sleep(2)", timeout=15.0), 2)
    assert [(answer.number, answer.timed_out, answer.is_healthy) for answer in answers] == [
        (1, True, False),
        (2, False, True),
    ]
