"""A service's whole life with the service control manager, as `make test-windows` runs it under Wine.

On Windows itself: `python -m tests.windows.lifecycle`, as administrator. Prints each step; ends at the first failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WITHIN = 120.0  # seconds for each wait
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


def follow(life: Life) -> None:
    life.say("service", "start")
    step("started", life.state(), "running")
    until = time.monotonic() + WITHIN
    while "Approved:" not in (life.root / "crew" / "PLANNING_READ.md").read_text("utf-8"):
        assert time.monotonic() < until, ("the crew has not worked", life.logs())
        time.sleep(0.5)
    step("the crew has worked", life.state(), "running")
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
