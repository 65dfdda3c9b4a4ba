"""Workers that are asked from outside whether they are well: ended, or only warned about, in a real crew."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import LIMIT, Shop, living
from tests.systems import SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ACTOR = """
    import anyio

    from actors import Context, Outcome, PhaseActor, Task


    class Sleeper(PhaseActor):
        async def perform(self, task: Task, context: Context) -> Outcome:
            await anyio.sleep(600)
            return Outcome(result="done", detail="slept")
"""
TOML = """
[restart]
first_delay = 0.01
longest_delay = 0.01
deaths = 1

[phases.own]
actor = "mine:Sleeper"
assess = false

[phases.own.probe]
command = [{python}, "-I", "-S", "-c", {code}]
every = {every}
timeout = {every}
failures = 2
start_grace = 0.0
on_failure = "{on_failure}"
"""
CODE = "import os, sys; sick = os.path.exists({sick!r}); print('cold' if sick else 'warm'); sys.exit(3 * sick)"


class Place:
    """A crew with a phase that a probe asks about; it is well unless `sick` is there."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.sick = shop.root.parent / "sick"

    def write(self, on_failure: str = "restart", *, code: str = "", every: float = 3.0) -> None:
        code = code or CODE.format(sick=str(self.sick))
        python = json.dumps(sys.executable)
        toml = TOML.format(python=python, code=json.dumps(code), every=every, on_failure=on_failure)
        self.shop.write("supervisor.toml", toml)

    def own(self) -> dict[str, Any]:
        phase: dict[str, Any] = self.shop.ask("status", check=False)["phases"]["own"]
        return phase

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            own = self.own()
            if holds(own):
                return own
            time.sleep(0.1)
        raise AssertionError((self.own(), self.shop.say("why", "own", check=False)))

    def judged(self) -> list[str]:
        events = [event for event in self.shop.events() if event["phase"] == "own"]
        return [event["summary"]["action"] for event in events if event["step"] == "verdict"]


@pytest.fixture
def place(shop: Shop) -> Iterator[Place]:
    """Started; stopped in the end, whatever happens."""
    shop.write("mine.py", ACTOR)
    made = Place(shop)
    made.write()
    code, said = shop.tries("start")
    assert code == 78, "a command of the file's own needs trust"
    assert "phases.own.probe.command" in said
    shop.say("trust")
    shop.say("start")
    yield made
    shop.tries("stop")


def test_a_probe_that_fails_so_often_in_a_row_ends_the_worker(place: Place) -> None:
    """A verdict with its reason, a death that counts on the task in hand, a restart; well again, nothing more."""
    before = place.until(lambda own: own["state"] == "ready")
    task = place.shop.ask("task", "Review: sleep", "--to", "own")
    place.until(lambda own: own["state"] == "working")
    place.sick.touch()
    after = place.until(lambda own: own["epoch"] > before["epoch"])
    place.sick.unlink()
    assert after["restarts"] == 1
    waiting = place.shop.ask("inbox")
    assert [(item["what"], item["id"]) for item in waiting] == [("quarantined", task["id"])]
    why = place.shop.say("why", "own")
    assert "unhealthy: its probe (" in why
    assert "has failed 2 times in a row, at 2 it counts; the last: it exited with code 3: cold; it is ended" in why
    assert place.judged() == ["restart"]
    probes = [event for event in place.shop.events() if event["step"] == "probe"]
    assert probes[0]["summary"]["failures"] == 1
    assert "failed once" in probes[0]["detail"]
    place.until(lambda own: own["state"] == "ready")
    assert place.own()["epoch"] == after["epoch"]


def test_a_probe_may_only_warn_and_a_reload_changes_it_without_a_new_worker(place: Place) -> None:
    """The status says it while it lasts; the worker goes on."""
    before = place.until(lambda own: own["state"] == "ready")
    place.write("warn")
    assert "no worker had to be restarted" in place.shop.say("reload")
    place.sick.touch()
    warned = place.until(lambda own: "unhealthy" in own["detail"])
    assert (warned["pid"], warned["state"]) == (before["pid"], "ready")
    place.sick.unlink()
    place.until(lambda own: not own["detail"])
    assert place.own()["pid"] == before["pid"]
    assert place.judged() == ["warn"]
    assert "well again" in place.shop.say("why", "own")


def noted_in(path: Path) -> str:
    """A probe that notes whom it is about and who it is, and hangs."""
    return (
        f"import os, time; note = open({str(path)!r}, 'a');"
        "print(os.environ['PROBED_PHASE'], os.environ['PROBED_PID'], os.getpid(), file=note, flush=True);"
        "time.sleep(600)"
    )


def test_a_probe_ends_with_a_killed_supervisor(place: Place) -> None:
    """Nobody is left who would end it at its limit, but the worker that it asks about ends its tree and itself."""
    place.until(lambda own: own["state"] == "ready")
    noted = place.shop.root.parent / "probed"
    place.write(code=noted_in(noted), every=10.0)
    place.shop.say("trust")
    place.shop.say("reload")
    supervisor = place.shop.ask("status")["pid"]
    deadline = time.monotonic() + LIMIT
    while not noted.exists() or not noted.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    _, worker, probe = map(int, ["0", *noted.read_text().split()[1:]])
    both = [psutil.Process(pid) for pid in (worker, probe)]
    os.kill(supervisor, SIGKILL)
    _, alive = psutil.wait_procs(both, timeout=15)
    for one in alive:
        one.kill()
    assert alive == []


def test_a_probe_that_hangs_is_a_failure_and_leaves_nothing_running(place: Place) -> None:
    """Ended at its limit; what it was told is whom it is about."""
    before = place.until(lambda own: own["state"] == "ready")
    noted = place.shop.root.parent / "probed"
    place.write(code=noted_in(noted))
    place.shop.say("trust")
    place.shop.say("reload")
    place.until(lambda own: own["epoch"] > before["epoch"])
    place.shop.say("stop")
    lines = [line.split() for line in noted.read_text().splitlines()]
    assert lines[0][:2] == ["own", str(before["pid"])]
    assert living(int(pid) for _, _, pid in lines) == []
    assert "it had not ended after 3." in place.shop.say("why", "own")
