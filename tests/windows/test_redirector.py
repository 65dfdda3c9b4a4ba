"""A virtual environment on Windows: its python.exe only starts the real one, which our workers are at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.only_on("windows", reason="only there is a venv's python.exe another program")

# Runs as the virtual environment's Python; starts a child as workers are started, and says who both are.
INSIDE = """
import json, os, subprocess, sys
from ipc.process import python_command
start, extra = python_command()
who = "import json, os, sys; print(json.dumps([os.getpid(), sys.prefix, sys.executable]))"
child = subprocess.Popen([*start, "-c", who], env={**os.environ, **extra}, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, text=True)
told = json.loads(child.communicate()[0])
print(json.dumps({"start": start, "extra": extra, "pid": child.pid, "told": told, "prefix": sys.prefix}))
"""


def test_a_worker_of_a_virtual_environment_is_no_grandchild(tmp_path: Path) -> None:
    """The real Python is started, told which environment it is; its pid is the one that we wait for and kill."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    folder = tmp_path / "my venv"
    (folder / "Scripts").mkdir(parents=True)
    launcher = folder / "Scripts" / "python.exe"
    launcher.write_bytes(b"")  # the redirector itself is not run: this is what it does
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = true\nversion = 3.11\n")
    done = subprocess.run(
        [str(base), "-c", INSIDE],
        env={**os.environ, "__PYVENV_LAUNCHER__": str(launcher)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert Path(said["prefix"]) == folder
    assert [Path(word) for word in said["start"]] == [base]
    assert said["extra"] == {"__PYVENV_LAUNCHER__": str(launcher)}
    pid, prefix, executable = said["told"]
    assert pid == said["pid"]
    assert (Path(prefix), Path(executable)) == (folder, launcher)
