"""Whole runs that people interrupt, and runs that begin where they must not."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from supervisor.exits import Exit
from supervisor.service.definition import is_retried
from tests.e2e.conftest import Gates, Shop, living

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

AT_ONCE = 4.0 if sys.platform != "win32" else 20.0  # seconds, on a busy machine, and under Wine
no_sigterm = pytest.mark.only_on("posix", reason="SIGTERM cannot be sent from outside: it is TerminateProcess")


@pytest.mark.parametrize("number", ["SIGINT", pytest.param("SIGTERM", marks=no_sigterm)])
def test_an_interrupted_run_ends_in_order_and_the_next_goes_on(shop: Shop, number: str) -> None:
    """130, nothing left running, documents that verify; the next run finishes the work that was in hand."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        pids = gates.inside("qa")
        workers = shop.workers()
        if number == "SIGINT":
            run.interrupt()
        else:
            run.process.send_signal(signal.SIGTERM)
        assert run.wait() == Exit.INTERRUPTED, run.told()
        assert living([*pids, *(worker.pid for worker in workers)]) == []
    shop.say("docs", "verify")
    before = len(shop.records("finish"))
    gates.open("qa")
    assert shop.run() == 0, shop.output
    assert len(shop.records("finish")) > before
    assert {f["data"]["task"] for f in shop.records("finish")} >= {"assess.r1.qa", "assess.r1.planning"}
    claims = [c["epoch"] for c in shop.records("claim") if c["data"]["id"] == "assess.r1.qa"]
    assert len(claims) == len(set(claims)) == 2  # the interrupted cycle has written nothing, and was done anew


def test_a_commanded_stop_is_no_failure(shop: Shop) -> None:
    """`supervisor stop` with work left ends the run with 130, which no service manager takes for a failure."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        pids = gates.inside("qa")
        workers = shop.workers()
        shop.say("stop")
        assert run.wait() == Exit.INTERRUPTED, run.told()
        assert living([*pids, *(worker.pid for worker in workers)]) == []
    assert run.events[-1]["summary"]["exit"] == Exit.INTERRUPTED
    assert not is_retried(Exit.INTERRUPTED)


def test_a_second_interrupt_ends_the_run_at_once(shop: Shop) -> None:
    """A worker that does not react holds the orderly end; the second Ctrl-C does not wait for it."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        deaf = psutil.Process(run.pid("planning"))  # is stopped last
        workers = shop.workers()
        before = psutil.Process(run.pid("developer"))
        deaf.suspend()
        try:
            run.interrupt()
            assert psutil.wait_procs([before], timeout=30.0)[1] == []  # the first one was heard
            assert run.process.poll() is None
            run.interrupt()
            assert run.process.wait(AT_ONCE) == Exit.INTERRUPTED
        finally:
            with suppress(psutil.NoSuchProcess):  # on Windows it went with its job
                deaf.resume()
        _, alive = psutil.wait_procs(workers, timeout=AT_ONCE)
        assert alive == []
    gates.open("qa")
    shop.say("docs", "verify")


def test_a_second_supervisor_is_refused(shop: Shop) -> None:
    """One workspace has one supervisor: 75, and the pid of the one that is there."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        assert shop.run() == Exit.WORKSPACE_BUSY
        assert str(run.process.pid) in shop.output
        assert "Traceback" not in shop.output
        gates.open("qa")
        assert run.wait() == 0, run.told()


def test_a_newer_workspace_is_refused(shop: Shop) -> None:
    """A workspace of a newer release is refused by name, and left as it is."""
    (shop.root / ".supervisor/format.json").write_text('{"format": 99}')
    assert shop.run() == Exit.CONFIGURATION
    assert "newer release" in shop.output
    assert "Traceback" not in shop.output
    assert json.loads(shop.read(".supervisor/format.json")) == {"format": 99}


def test_every_mistake_of_the_configuration_is_named(shop: Shop) -> None:
    """Three mistakes, three lines, exit 78; nothing was started."""
    shop.write(
        "supervisor.toml",
        """
        [project]
        pyton = "python3"
        hang = -1

        [restart]
        restarts = "many"
        """,
    )
    assert shop.run() == Exit.CONFIGURATION
    for word in ("3 mistakes", "line 2", "pyton", "line 3", "hang", "line 6", "restarts"):
        assert word in shop.output
    assert "Traceback" not in shop.output
    assert not (shop.root / ".supervisor/journal.db").exists()


def test_a_task_that_kills_its_worker_every_time_is_set_aside(shop: Shop) -> None:
    """After three deaths it is quarantined, Planning is told, the rest of the crew goes on: exit 1."""
    shop.write(
        "tests/conftest.py",
        """
        import os
        import signal
        from pathlib import Path

        import psutil

        if "qa" in Path(__file__).parts:
            parents = psutil.Process().parents()
            worker = next(one for one in parents if "actors.worker" in one.cmdline())
            os.kill(worker.pid, 9)
        """,
    )
    assert shop.run() == Exit.WORK_REMAINS, shop.output
    claims = [c for c in shop.records("claim") if c["data"]["id"] == "assess.r1.qa"]
    assert len(claims) == 3
    alerts = shop.posts("Alert")
    assert [alert["to"] for alert in alerts] == ["planning"]
    assert "3" in alerts[0]["text"]
    assert "Alert:" in shop.read("crew/PLANNING_READ.md")
    finished = {f["by"] for f in shop.records("finish")}
    assert "planning" in finished
    assert "qa" not in finished
    assert any("assess.r1.qa" in json.dumps(waiting) for waiting in shop.ask("inbox"))
    shop.say("docs", "verify")


def test_a_run_in_a_folder_that_is_no_workspace(tmp_path: Path, shop: Shop) -> None:
    """Where nobody has said `init`, the error says so."""
    empty = tmp_path / "empty"
    empty.mkdir()
    said = Shop(empty, shop.environ)
    assert said.run() == Exit.CONFIGURATION
    assert "supervisor init" in said.output
