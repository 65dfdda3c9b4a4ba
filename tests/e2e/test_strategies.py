"""Who is restarted together with whom, in a real crew: also when several die at once, and nobody twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import LIMIT, Shop
from tests.systems import SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

SETTINGS = '[restart]\nstrategy = "{}"\nrestarts = {}\nfirst_delay = 0.01\nlongest_delay = 0.01\nstable_after = 0.5\n'


@pytest.fixture
def started(shop: Shop) -> Iterator[Shop]:
    """Stopped in the end, whatever happens."""
    yield shop
    shop.tries("stop")


def begin(shop: Shop, strategy: str, *, restarts: int = 20) -> dict[str, Any]:
    """Start the crew; its phases once all are at rest."""
    shop.write("supervisor.toml", SETTINGS.format(strategy, restarts))
    shop.say("start")
    return at_rest(shop, {})


def at_rest(shop: Shop, before: dict[str, Any], *, but: str = "") -> dict[str, Any]:
    """The phases, when each is ready with nothing to do and of a later epoch than before."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        phases: dict[str, Any] = shop.ask("status", check=False)["phases"]
        rest = {key: phase for key, phase in phases.items() if key != but}
        if all(
            phase["state"] == "ready" and not phase["task"] and phase["epoch"] > before.get(key, {"epoch": 0})["epoch"]
            for key, phase in rest.items()
        ):
            return phases
        time.sleep(0.1)
    raise AssertionError(shop.ask("status", check=False))


def workers(shop: Shop) -> set[int]:
    """The pids of all that the supervisor has started and that live."""
    supervisor = psutil.Process(shop.ask("status")["pid"])
    return {child.pid for child in supervisor.children() if child.status() != psutil.STATUS_ZOMBIE}


def gone(pid: int) -> None:
    """Return once that process has ended; its parent need not have noticed."""
    deadline = time.monotonic() + LIMIT
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_deaths_at_once_seat_each_phase_once(started: Shop) -> None:
    """one_for_all: all are new, no worker is left over from the two decisions, and the crew can be stopped."""
    before = begin(started, "one_for_all")
    supervisor = psutil.Process(started.ask("status")["pid"])
    supervisor.suspend()  # it learns of both in the same moment: the second death is no part of the first one's restart
    try:
        for key in ("planning", "developer"):
            os.kill(before[key]["pid"], SIGKILL)
            gone(before[key]["pid"])
    finally:
        supervisor.resume()
    after = at_rest(started, before)
    seated = {phase["pid"] for phase in after.values()}
    deadline = time.monotonic() + LIMIT
    while len(extra := workers(started) - seated) != 1 and time.monotonic() < deadline:
        time.sleep(0.1)  # one that was replaced is on its way out, or the spare on its way in
    assert len(extra) == 1, extra
    assert seated.isdisjoint(phase["pid"] for phase in before.values())
    ended = [event["phase"] for event in started.events() if event["step"] == "exit"]
    assert sorted(ended) == ["debugging", "developer", "planning", "qa"]
    assert {key: phase["restarts"] for key, phase in after.items()} == dict.fromkeys(before, 1)
    started.say("stop")
    assert not any(psutil.pid_exists(pid) for pid in seated | extra)


def test_those_that_began_later_go_with_the_dead_one(started: Shop) -> None:
    """rest_for_one: who was started before it keeps its worker."""
    before = begin(started, "rest_for_one")
    os.kill(before["qa"]["pid"], SIGKILL)
    kept = {key: {"epoch": before[key]["epoch"] - 1} for key in ("planning", "developer")}
    after = at_rest(started, {**before, **kept})
    assert {key: after[key]["pid"] == before[key]["pid"] for key in before} == {
        "planning": True,
        "developer": True,
        "qa": False,
        "debugging": False,
    }


def test_a_phase_that_was_given_up_is_not_brought_back_by_another_s_death(started: Shop) -> None:
    """one_for_all: it stays with the person who is to look at it, until `restart` says otherwise."""
    before = begin(started, "one_for_all", restarts=1)
    for _ in range(2):
        os.kill(before["qa"]["pid"], SIGKILL)
        deadline = time.monotonic() + LIMIT
        while (phase := started.ask("status")["phases"]["qa"])["pid"] == before["qa"]["pid"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if phase["state"] != "quarantined":
            before = at_rest(started, before)
    assert started.ask("status", check=False)["phases"]["qa"]["state"] == "quarantined"
    before = at_rest(started, {}, but="qa")
    os.kill(before["debugging"]["pid"], SIGKILL)
    after = at_rest(started, {key: phase for key, phase in before.items() if key != "qa"}, but="qa")
    assert after["qa"]["state"] == "quarantined"
    started.say("restart", "qa")
    assert at_rest(started, {})["qa"]["pid"]


@pytest.mark.only_on("posix", reason="nobody can be stopped by a signal")
def test_workers_that_hear_nothing_are_stopped_within_one_budget(started: Shop) -> None:
    """However many there are: what is left when the time is over is ended at once."""
    own = "".join(f'[phases.p{n}]\nactor = "actors.testing:ProbeDriver"\nassess = false\n' for n in range(8))
    started.write("supervisor.toml", own)
    started.say("trust")
    started.say("start")
    phases = at_rest(started, {})
    assert len(phases) == 12
    pids = [phase["pid"] for phase in phases.values()]
    if sys.platform != "win32":
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    started.say("stop")
    assert time.monotonic() - began < 35  # asked one after the other each would have five seconds
    assert not any(psutil.pid_exists(pid) for pid in pids)
