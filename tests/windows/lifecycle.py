"""A service's whole life with the service control manager, as `make test-windows` runs it under Wine.

On Windows itself: `python -m tests.windows.lifecycle`, as administrator. Prints each step; ends at the first failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pywintypes
import win32service

from supervisor.service.definition import default_name
from supervisor.service.hosting import ACCEPTED, Control, recovery

WITHIN = 120.0  # seconds for each wait
NOT_KEPT = (50, 120, 124)  # not supported here: Wine, or an old system
FILES = {
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\n',
    "shop/__init__.py": '"""A small shop."""\n',
    "shop/cart.py": '"""What is in the cart."""\n\n\ndef total(prices: list[int]) -> int:\n    return sum(prices)\n',
    "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n",
}


class Life:
    """One workspace and the `supervisor` command in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def say(self, *words: str, code: int = 0) -> str:
        """Run a command that must end with `code`; its output."""
        command = [sys.executable, "-m", "supervisor", "-C", str(self.root), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False)
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert done.returncode == code, (words, done.returncode, text, self.logs())
        return text

    def state(self) -> str:
        command = [sys.executable, "-m", "supervisor", "-C", str(self.root), "service", "status", "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False)
        return str(json.loads(done.stdout)["state"])

    def logs(self) -> str:
        log = self.root / ".supervisor" / "logs" / "service.log"
        return log.read_text("utf-8", "replace") if log.exists() else "(no service.log)"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """The service as its manager knows it."""
        manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
        handle = win32service.OpenService(manager, default_name(self.root), win32service.SERVICE_ALL_ACCESS)
        try:
            yield handle
        finally:
            win32service.CloseServiceHandle(handle)
            win32service.CloseServiceHandle(manager)

    def check_recovery(self, handle: Any) -> None:
        """The pauses before each restart, as the manager gives them back; said aloud where it keeps none."""
        try:
            said = win32service.QueryServiceConfig2(handle, win32service.SERVICE_CONFIG_FAILURE_ACTIONS)
        except pywintypes.error as error:
            if error.winerror not in NOT_KEPT:
                raise
            sys.stdout.write(f"service: this manager keeps no recovery actions (error {error.winerror})\n")
            return
        assert {kind for kind, _ in said["Actions"]} == {win32service.SC_ACTION_RESTART}, said
        step("recovery actions are set", str([pause for _, pause in said["Actions"]]), str(recovery()))

    def crew(self) -> list[int]:
        """Whoever of the crew lives: the supervisor and its workers."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "actors.worker" in words or (str(self.root) in words and "run" in words):
                found.append(process.pid)
        return found

    def kill_the_host(self) -> None:
        """TerminateProcess, as a crash is; returns when nobody of the crew is left, or with a failure."""
        with self.opened() as handle:
            host = win32service.QueryServiceStatusEx(handle)["ProcessId"]
        assert len(self.crew()) >= 5, self.crew()  # a supervisor and four workers
        psutil.Process(host).kill()
        until = time.monotonic() + WITHIN
        while self.crew():
            assert time.monotonic() < until, self.crew()
            time.sleep(0.2)

    def forget(self) -> None:
        """Take away what has no host any more, whether or not the manager has noticed (Wine's does not)."""
        sys.stdout.write(f"service: after that this manager calls it {self.state()}\n")
        with self.opened() as handle:
            win32service.DeleteService(handle)

    def preshutdown(self) -> None:
        """What Windows sends at a shutdown, where a program may send it."""
        try:
            with self.opened() as handle:
                win32service.ControlService(handle, Control.PRESHUTDOWN)
        except pywintypes.error as error:
            sys.stdout.write(f"service: this manager passes no PRESHUTDOWN on from a program ({error.winerror})\n")
            return
        until = time.monotonic() + WITHIN
        while self.state() != "stopped":
            assert time.monotonic() < until, (self.state(), self.logs())
            time.sleep(0.2)
        step("a PRESHUTDOWN is an orderly end", self.state(), "stopped")


def main() -> None:
    """Install, start, see the crew work, stop, check the documents, uninstall."""
    with tempfile.TemporaryDirectory(prefix="service ü ") as folder:  # a blank and a letter beyond ASCII
        root = Path(folder) / "my shop"
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        life = Life(root)
        life.say("init")
        assert life.state() == "not installed"
        life.say("service", "start", code=3)
        life.say("service", "install")
        step("installed", life.state(), "stopped")
        try:
            follow(life)
        finally:
            life.say("service", "uninstall")
        step("uninstalled", life.state(), "not installed")
        life.say("service", "install")
        life.say("service", "start")
        step("a second one", life.state(), "running")
        life.kill_the_host()
        step("its host was killed, and everything with it", str(life.crew()), "[]")
        life.say("docs", "verify")
        life.forget()


def follow(life: Life) -> None:
    life.say("service", "start")
    step("started", life.state(), "running")
    until = time.monotonic() + WITHIN
    while "Approved:" not in (life.root / "crew" / "PLANNING_READ.md").read_text("utf-8"):
        assert time.monotonic() < until, ("the crew has not worked", life.logs())
        time.sleep(0.5)
    step("the crew has worked", life.state(), "running")
    with life.opened() as handle:
        accepted = win32service.QueryServiceStatusEx(handle)["ControlsAccepted"]
        step("it takes STOP, SHUTDOWN and PRESHUTDOWN", hex(accepted & ACCEPTED), hex(ACCEPTED))
        life.check_recovery(handle)
    life.preshutdown()
    life.say("service", "stop")
    step("stopped", life.state(), "stopped")
    life.say("docs", "verify")
    life.say("status", code=3)
    ends = [event for line in life.say("events", "--json").splitlines() if (event := json.loads(line))["step"] == "end"]
    assert len(ends) == 1, ends
    assert str(life.root) in life.logs()  # in UTF-8, whatever this system's own encoding
    step("an orderly end, documents intact", "", "")

    (life.root / "supervisor.toml").write_text("[nonsense\n", encoding="utf-8")
    life.say("service", "start", code=1)
    step("a wrong configuration is no failure to recover from", life.state(), "stopped")
    (life.root / "supervisor.toml").write_text("", encoding="utf-8")


def step(what: str, state: str, wanted: str) -> None:
    assert state == wanted, (what, state, wanted)
    sys.stdout.write(f"service: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.pop("PYTEST_ADDOPTS", None)
    main()
