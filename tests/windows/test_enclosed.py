"""A supervisor that is killed takes along what it has only just begun to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.only_on("windows", reason="job objects")

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, subprocess, sys
from contextlib import nullcontext
from supervisor.enclosure import in_a_job

with in_a_job() if sys.argv[1] == "enclosed" else nullcontext():
    nap = [sys.executable, "-c", "import time; time.sleep(600)"]
    print(subprocess.Popen(nap, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid, flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "killed":
        os._exit(9)
"""


@pytest.mark.parametrize(
    ("enclosed", "end", "lives"), [("enclosed", "killed", False), ("enclosed", "ended", True), ("not", "killed", True)]
)
def test_what_is_in_no_job_of_its_own_yet(enclosed: str, end: str, lives: bool) -> None:  # noqa: FBT001
    """It goes with a supervisor that is killed; at an orderly end whoever is left is nobody of the crew's."""
    command = [sys.executable, "-c", SCRIPT, enclosed, end]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        started = psutil.Process(int(starter.stdout.readline()))
        starter.communicate("\n", timeout=30)
        _, alive = psutil.wait_procs([started], 10 if not lives else 1)
        try:
            assert [process.pid for process in alive] == ([started.pid] if lives else [])
        finally:
            for process in alive:
                process.kill()
