"""Tells systemd (or whoever gave us NOTIFY_SOCKET) how we are: ready, reloading, alive, stopping, in need of time.

The protocol is a datagram of `NAME=value` lines, so no library of theirs is needed. Without a socket every call does
nothing. When to say what is the crew's; a message that cannot be sent is worth a line in the log, never an error.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

MOST_STATUS = 200  # characters


class Notifier:
    """One service manager's ear. `watchdog` is the period (seconds) in which it wants to hear of us, or None."""

    def __init__(self, address: str = "", *, watchdog: float | None = None) -> None:
        self.address = address
        self.watchdog = watchdog
        self.is_ready = False
        self._beat_at = float("-inf")
        self._failed = False

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str] = os.environ, *, pid: int | None = None) -> Notifier:
        """Take the variables out of the environment: what we start must not speak in our name."""
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "")
        is_ours = not whose or whose == str(pid if pid is not None else os.getpid())
        wanted = address and is_ours and period.isdecimal() and int(period) > 0
        return cls(address, watchdog=int(period) / 1e6 if wanted else None)

    def ready(self, status: str) -> None:
        """Everybody is ready; said once, and again after each `reloading`."""
        if not self.is_ready:
            self.is_ready = True
            self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends it."""
        self.is_ready = False
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def beat(self, now: float) -> None:
        """Called by the owner's loop whenever it is alive; passed on twice in each period of the watchdog."""
        if self.watchdog is not None and now - self._beat_at >= self.watchdog / 2:
            self._beat_at = now
            self._send("WATCHDOG=1")

    def extend(self, seconds: float, status: str = "") -> None:
        """What is under way (starting, stopping) may take so much longer from now."""
        words = [f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"]
        self._send(*words, *([f"STATUS={_line(status)}"] if status else []))

    def stopping(self, within: float) -> None:
        """The orderly end has begun and may take so many seconds."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}", "STATUS=stopping the crew")

    def _send(self, *lines: str) -> None:
        if not self.address or sys.platform == "win32":
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode("utf-8"), address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                log.warning("the service manager cannot be told anything (NOTIFY_SOCKET=%s): %s", self.address, error)


def _line(text: str) -> str:
    return " ".join(text.split())[:MOST_STATUS]
