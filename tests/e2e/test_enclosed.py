"""Supervisor and workers killed in one moment: what they started is still found, whatever it has made of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ipc import cgroup
from supervisor.enclosure import named_in
from tests.e2e.conftest import Shop, living
from tests.systems import SIGKILL

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.only_on("linux", reason="control groups"),
    pytest.mark.skipif(cgroup.ours() is None, reason="no control group here that is ours to write"),
]


def test_all_killed_at_once_and_what_had_left_everything_is_ended_by_the_next_start(shop: Shop) -> None:
    """No mark, no session, no parent of theirs: only the control group knows whose it is."""
    shop.say("start")
    supervisor = psutil.Process(shop.ask("status")["pid"])
    (group,) = named_in(shop.root / ".supervisor" / "cgroup")
    everybody = [supervisor.pid, *(worker.pid for worker in shop.workers())]
    assert len(everybody) >= 5
    assert set(everybody) <= set(group.pids())
    nap = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(nap, env={}, start_new_session=True) as daemon:
        group.join(daemon.pid)  # as if it had been started in there
        supervisor.suspend()  # it would see the others die
        for pid in reversed(everybody):
            psutil.Process(pid).send_signal(SIGKILL)
        psutil.wait_procs([supervisor], 10)
        assert daemon.poll() is None

        shop.say("start")
        assert daemon.wait(10) == -SIGKILL
    assert living(everybody) == []
    orphans = [event["detail"] for event in shop.events() if event["step"] == "orphan"]
    assert f"ended process {daemon.pid} of an earlier run" in orphans
    assert not group.path.exists()

    (present,) = named_in(shop.root / ".supervisor" / "cgroup")
    shop.say("stop")
    assert not present.path.exists()
    assert not Path(shop.root / ".supervisor" / "cgroup").exists()
