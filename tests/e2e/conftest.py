"""Whole runs with real processes: a small project, and the `supervisor` command as people type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

LIMIT = 150.0  # seconds for one run on a busy machine; a quiet one needs about ten

FILES: Mapping[str, str] = {
    "pyproject.toml": """
        [project]
        name = "shop"
        version = "1"

        [tool.pytest.ini_options]
        testpaths = ["tests"]
    """,
    "shop/__init__.py": '"""A small shop."""\n',
    "shop/cart.py": '''
        """What is in the cart, and what it costs."""


        def total(prices: list[int]) -> int:
            return sum(prices)
    ''',
    "tests/test_cart.py": """
        from shop.cart import total


        def test_total():
            assert total([1, 2]) == 3
    """,
}


@dataclass(frozen=True)
class Shop:
    """A workspace made of a small project, and what the command line says about it."""

    root: Path
    environ: Mapping[str, str]

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "supervisor", *arguments]

    def say(self, *arguments: str, check: bool = True) -> str:
        """Run a command that ends by itself; its standard output."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert not check or done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def ask(self, *arguments: str, check: bool = True) -> Any:
        """The same, as JSON."""
        return json.loads(self.say(*arguments, "--json", check=check))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `supervisor run`; its output goes to files beside the workspace."""
        with (self.root.parent / f"{self.root.name}.out").open("a") as out:
            return subprocess.Popen(
                self.command("run", "--plain", *arguments),
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, *arguments: str) -> int:
        """A whole run until idle; its exit code."""
        process = self.start("--until-idle", *arguments)
        try:
            return process.wait(LIMIT)
        finally:
            end(process)

    @property
    def output(self) -> str:
        return (self.root.parent / f"{self.root.name}.out").read_text()

    def events(self) -> list[dict[str, Any]]:
        """Everything in the journal."""
        return [json.loads(line) for line in self.say("events", "--json").splitlines()]

    def message(self, kind: str) -> list[dict[str, Any]]:
        """All posted messages of that kind, from the history."""
        found = []
        for segment in sorted((self.root / "crew" / ".history").glob("*.jsonl")):
            for line in segment.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                items = [*record.get("posts", ()), *([record["item"]] if record.get("item") else [])]
                found += [item for item in items if item.get("kind") == kind]
        return found

    def workers(self) -> list[psutil.Process]:
        """Every process of this workspace's crew, found by its command and its assignment's folder."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            cmdline = process.info["cmdline"] or []
            if "actors.worker" in cmdline:
                try:
                    if process.environ().get("SHOP") == str(self.root):
                        found.append(process)
                except psutil.Error:
                    continue
        return found


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing running, however the test went."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A project without faults, initialised as a workspace."""
    root = tmp_path / "shop"
    made = make_shop(root)
    yield made
    assert made.workers() == []


def make_shop(root: Path, files: Mapping[str, str] = FILES) -> Shop:
    state = root.parent / "home"
    environ = {**os.environ, "SHOP": str(root), "XDG_STATE_HOME": str(state), "XDG_RUNTIME_DIR": str(state)}
    for name in ("QUEUE_IPC_MODE", "QUEUE_IPC_ROLLOUT", "PYTEST_ADDOPTS"):
        environ.pop(name, None)
    state.mkdir(parents=True, mode=0o700, exist_ok=True)
    made = Shop(root, environ)
    for name, text in files.items():
        made.write(name, text)
    made.say("init")
    return made


@pytest.fixture
def new_shop(tmp_path: Path) -> Callable[[str], Shop]:
    """More of them, by name."""
    return lambda name: make_shop(tmp_path / name)
