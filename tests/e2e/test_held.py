"""Processes of a crew at work that somebody stops (SIGSTOP): a worker, and the supervisor itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.conftest import LIMIT, Gates, Shop, living
from tests.e2e.test_kills import check_once
from tests.systems import SIGKILL, hold, let_go

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.05)


def test_a_worker_that_was_stopped_is_told_apart_and_in_the_end_replaced(shop: Shop) -> None:
    """A word first; when nobody lets it go on it is ended, its processes with it, and its successor does the task."""
    gates = Gates(shop)
    gates.close("qa")
    shop.write("supervisor.toml", "[liveness]\nsilence = 2.0\nsuspended = 5.0\n")
    with shop.watch() as run:
        pids = gates.inside("qa")
        stopped = run.pid("qa")
        hold(stopped)
        warned = run.until(lambda e: e["step"] == "verdict" and e["phase"] == "qa")
        assert warned["summary"]["verdict"] == "suspended"
        assert warned["summary"]["action"] == "warn"
        assert stopped in {worker.pid for worker in shop.workers()}
        ended = run.until(lambda e: e["step"] == "verdict" and e["phase"] == "qa" and e["summary"]["action"] != "warn")
        assert (ended["summary"]["verdict"], ended["summary"]["action"]) == ("suspended", "restart")
        again = gates.inside("qa", but=pids)
        assert living([stopped, *pids]) == []
        assert len(living(again)) == len(again)
        gates.open("qa")
        assert run.wait() == 0, run.told()
        assert "suspended" in shop.say("why", "qa")
    assert gates.overlap == ""
    check_once(shop)


def test_a_worker_that_goes_on_in_time_keeps_its_task(shop: Shop) -> None:
    """Who stopped it and let it go on has cost nothing but time."""
    gates = Gates(shop)
    gates.close("qa")
    shop.write("supervisor.toml", "[liveness]\nsilence = 2.0\nsuspended = 0\n")
    with shop.watch() as run:
        gates.inside("qa")
        stopped = run.pid("qa")
        hold(stopped)
        run.until(lambda e: e["step"] == "verdict" and e["phase"] == "qa")
        let_go(stopped)
        gates.open("qa")
        assert run.wait() == 0, run.told()
        assert run.deaths == []
    claims = [record for record in shop.records("claim") if record["data"]["id"] == "assess.r1.qa"]
    assert len(claims) == 1
    check_once(shop)


def test_while_the_supervisor_is_stopped_work_goes_on(shop: Shop) -> None:
    """Workers finish what they have; after it all arrives once, in order, and nobody was called dead for it."""
    gates = Gates(shop)
    gates.close("qa")
    shop.write("supervisor.toml", "[liveness]\nsilence = 2.0\n")
    with shop.watch() as run:
        gates.inside("qa")
        pids = {phase: run.pid(phase) for phase in ("planning", "developer", "qa", "debugging")}
        before = len(shop.records("finish"))
        hold(run.process.pid)
        gates.open("qa")
        until(lambda: len(shop.records("finish")) > before, "a cycle that ends without a supervisor")
        time.sleep(4)  # what is tested is that nobody is judged for this
        let_go(run.process.pid)
        assert run.wait() == 0, run.told()
        assert {phase: run.pid(phase) for phase in pids} == pids
        assert not [e for e in run.events if e["step"] in {"verdict", "limit"} and e["summary"]["action"] == "restart"]
        assert [e for e in run.events if e["step"] == "stall"]
    check_once(shop)


def test_a_worker_that_slept_through_its_supervisor_s_death_does_not_work_beside_the_next(shop: Shop) -> None:
    """It cannot hear the pipe's end while it is stopped: the next supervisor ends it, and all that it had started."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        pids = gates.inside("qa")
        asleep = run.pid("qa")
        hold(asleep)
        workers = shop.workers()
        os.kill(run.process.pid, SIGKILL)
        if sys.platform == "win32":  # the supervisor's job ends everybody, awake or not
            assert psutil.wait_procs(workers, timeout=LIMIT)[1] == []
        else:
            assert psutil.wait_procs([one for one in workers if one.pid != asleep], timeout=LIMIT)[1] == []
            assert asleep in {worker.pid for worker in shop.workers()}
    with shop.watch() as run:
        again = gates.inside("qa", but=pids)
        assert living([asleep, *pids]) == []
        assert len(living(again)) == len(again)
        gates.open("qa")
        assert run.wait() == 0, run.told()
    assert gates.overlap == ""
    check_once(shop)
