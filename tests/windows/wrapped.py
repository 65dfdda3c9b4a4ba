r"""A service's life under NSSM, by the very commands that `service print --wrapper nssm` gives; in `make test-windows`.

On Windows itself: `python -m tests.windows.wrapped C:\tools\nssm.exe`, as administrator. Prints each step; ends at the
first failure.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.windows.lifecycle import FILES, WITHIN, Life, step

assert sys.platform == "win32"
WRONG = "[nonsense\n"  # a configuration that ends with 78


class Nssm:
    """NSSM's command for one service."""

    def __init__(self, program: Path, name: str) -> None:
        self._program = program
        self._name = name

    def say(self, *words: str) -> str:
        """One of its commands; what it says, which is UTF-16."""
        done = subprocess.run(
            [self._program, words[0], self._name, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WITHIN,
            check=False,
        )
        return (done.stdout + done.stderr).decode("utf-16-le", "replace").strip()

    def status(self) -> str:
        return self.say("status")


def main(program: Path) -> None:
    """Type what is printed; see the crew work, come back after a crash, end on request, and rest after a mistake."""
    with tempfile.TemporaryDirectory(prefix="wrapped ü ", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "my shop"
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        life = Life(root)
        life.say("init")
        printed = json.loads(life.say("service", "print", "--wrapper", "nssm", "--json"))
        nssm = Nssm(program, printed["name"])
        try:
            typed(printed["text"], Path(folder), program)
            step("NSSM has it, by the commands that were printed", nssm.status(), "SERVICE_RUNNING")
            follow(life, nssm)
        finally:
            nssm.say("stop")
            nssm.say("remove", "confirm")


def typed(commands: str, folder: Path, program: Path) -> None:
    """Have cmd.exe take the commands as if a person had pasted them: in the code page of its console."""
    batch = folder / "commands.bat"
    batch.write_bytes("\r\n".join(commands.splitlines()).encode(f"cp{ctypes.windll.kernel32.GetOEMCP()}") + b"\r\n")
    environ = {**os.environ, "PATH": f"{program.parent};{os.environ['PATH']}"}
    shell = ["cmd.exe", "/d", "/c", str(batch)]
    done = subprocess.run(
        shell, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)


def follow(life: Life, nssm: Nssm) -> None:
    report = life.root / "crew" / "PLANNING_READ.md"
    wait(lambda: "Approved:" in report.read_text("utf-8"), life)
    step("the crew has worked", nssm.status(), "SERVICE_RUNNING")

    (first,) = supervisors(life)
    psutil.Process(first).kill()
    wait(lambda: supervisors(life) not in ([], [first]), life)
    wait(lambda: len(life.crew()) >= 5, life)
    step("its supervisor was killed, and another one is there", nssm.status(), "SERVICE_RUNNING")

    nssm.say("stop")
    wait(lambda: nssm.status() == "SERVICE_STOPPED", life)
    step("stopped, and nobody is left", str(life.crew()), "[]")
    life.say("docs", "verify")
    ends = [event for line in life.say("events", "--json").splitlines() if (event := json.loads(line))["step"] == "end"]
    step("that was an orderly end", str(len(ends)), "1")

    (life.root / "supervisor.toml").write_text(WRONG, encoding="utf-8")
    nssm.say("start")
    wait(lambda: "not valid TOML" in life.logs(), life)
    wait(lambda: nssm.status() == "SERVICE_STOPPED", life)  # before another start it would be SERVICE_PAUSED
    step("a wrong configuration is not tried again", str(life.logs().count("not valid TOML")), "1")


def supervisors(life: Life) -> list[int]:
    found = []
    for pid in life.crew():
        try:
            if "run" in psutil.Process(pid).cmdline():
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def wait(until: Callable[[], bool], life: Life) -> None:
    last = time.monotonic() + WITHIN
    while not until():
        assert time.monotonic() < last, (life.crew(), life.logs())
        time.sleep(0.5)


if __name__ == "__main__":
    os.environ.pop("PYTEST_ADDOPTS", None)
    main(Path(sys.argv[1]))
