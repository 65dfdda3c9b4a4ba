"""A terminal that is closed: the run in it ends in good order, wherever its standard input came from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from supervisor.exits import Exit
from tests.e2e.conftest import LIMIT, Shop, end, living

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.only_on("posix", reason="terminals that hang up"),
]

# Takes the terminal on its stdin for its own, as a login does, and becomes the command; stdin is as told then.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] != "tty":
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def in_terminal(shop: Shop, stdin: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run in a terminal of its own, and our end of that."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, stdin, *shop.command("run", "--quiet")],
        cwd=shop.root,
        env=shop.environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        text=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        end(process)


def until_ready(shop: Shop, process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert process.poll() is None
        said = shop.ask("status", check=False)
        if said["pid"] == process.pid and all(
            phase["state"] in {"ready", "working"} for phase in said["phases"].values()
        ):
            return shop.workers()
        time.sleep(0.2)
    raise AssertionError("not ready")


@pytest.mark.parametrize("stdin", ["tty", "null"])
def test_a_closed_terminal_leaves_nothing_running(shop: Shop, stdin: str) -> None:
    """The hangup ends the run like Ctrl-C, also where its input is redirected; no worker is left."""
    with in_terminal(shop, stdin) as (process, ours):
        workers = until_ready(shop, process)
        assert len(workers) >= 4
        os.close(ours)
        assert process.wait(LIMIT) == Exit.INTERRUPTED
        assert living(worker.pid for worker in workers) == []
    shop.say("docs", "verify")


def test_without_a_terminal_a_hangup_is_no_end(shop: Shop) -> None:
    """Control: what `nohup`, a service manager or `supervisor start` runs has no terminal, and goes on."""
    process = subprocess.Popen(
        shop.command("run", "--quiet"),
        cwd=shop.root,
        env=shop.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        until_ready(shop, process)
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + LIMIT
        while not [e for e in shop.events() if e["step"] == "command"]:
            assert time.monotonic() < deadline, "no reload on record"
            time.sleep(0.2)
        assert process.poll() is None
    finally:
        end(process)
