"""What a service manager hears, word by word, over a real socket."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.notify import Notifier

pytestmark = pytest.mark.only_on("posix", reason="systemd's protocol is of Unix")


class Manager:
    """The listening end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory() as folder:  # short: such a path has 107 bytes
        made = Manager(Path(folder) / "n")
        with made.socket:
            yield made


def test_ready_is_said_once_and_again_after_a_reload(manager: Manager) -> None:
    """RELOADING carries the monotonic time, without which systemd does not count it."""
    notifier = Notifier(str(manager.path))
    notifier.ready("4 phases\nare ready")
    notifier.ready("4 phases are ready")
    assert manager.heard() == [["READY=1", "STATUS=4 phases are ready"]]
    notifier.reloading()
    notifier.ready("again")
    reloading, ready = manager.heard()
    assert reloading[0] == "RELOADING=1"
    assert int(reloading[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert ready == ["READY=1", "STATUS=again"]


def test_the_watchdog_hears_of_us_twice_in_a_period(manager: Manager) -> None:
    """However often the loop turns."""
    notifier = Notifier(str(manager.path), watchdog=10.0)
    for tenth in range(301):
        notifier.beat(tenth / 10)
    assert manager.heard() == [["WATCHDOG=1"]] * 7


def test_stopping_asks_for_its_time(manager: Manager) -> None:
    """In microseconds; so does a slow start."""
    notifier = Notifier(str(manager.path))
    notifier.extend(2.5, "reading files")
    notifier.stopping(20.0)
    assert manager.heard() == [
        ["EXTEND_TIMEOUT_USEC=2500000", "STATUS=reading files"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=20000000", "STATUS=stopping the crew"],
    ]


def test_the_environment_is_not_handed_on() -> None:
    """A worker must not be able to speak in our name; a watchdog meant for another process is not ours."""
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7", "HOME": "/"}
    ours = Notifier.from_environ(dict(environ), pid=7)
    assert (ours.address, ours.watchdog) == ("/run/x", 30.0)
    other = Notifier.from_environ(environ, pid=8)
    assert (other.address, other.watchdog) == ("/run/x", None)
    assert environ == {"HOME": "/"}
    assert Notifier.from_environ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}).watchdog is None


def test_nobody_listening_costs_one_line(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """And without a socket nothing is tried at all."""
    notifier = Notifier(str(tmp_path / "gone"), watchdog=1.0)
    with caplog.at_level(logging.WARNING):
        notifier.ready("x")
        notifier.beat(1.0)
        notifier.stopping(1.0)
        Notifier().ready("x")
    assert len(caplog.records) == 1


@pytest.mark.only_on("linux", reason="abstract names are Linux's")
def test_an_abstract_name_is_reached() -> None:
    """`@name` is a socket without a file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0phase-supervisor-test")
        Notifier("@phase-supervisor-test").ready("x")
        assert listener.recv(100).startswith(b"READY=1")
