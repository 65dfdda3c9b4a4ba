"""Folders for sockets: each for its owner alone, locked as long as that lives, and removed after it.

A killed owner cannot remove its folder: whoever makes the next one beside it does (`sweep`). A folder whose lock is
held, or that has no lock yet, belongs to somebody. Named pipes of Windows need no folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = "psv-"
_LOCK = "lock"


class SocketFolder:
    """A folder that is there until `remove`, or until its owner has died and somebody else has swept."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, base: str) -> SocketFolder:
        """Make one in `base`, which only we may enter; OSError where that is impossible."""
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _take(lock) and _is_there(path / _LOCK, lock):
                    return cls(path, lock)
            except OSError:  # no locks in this file system: then nobody sweeps it
                (path / _LOCK).unlink(missing_ok=True)
                os.close(lock)
                return cls(path, None)
            os.close(lock)  # somebody swept before it was ours

    def remove(self) -> None:
        """Remove it and what is in it; idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def sweep(base: str) -> int:
    """Remove our folders in `base` whose owners are gone; how many those were."""
    removed = 0
    if sys.platform == "win32":
        return removed
    with suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX):
                continue
            with suppress(OSError):  # it went meanwhile, or has no lock yet
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_mode & 0o777 == 0o700:
                    removed += _remove_if_left(entry.path)
    return removed


def _remove_if_left(path: str) -> bool:
    lock = os.open(Path(path, _LOCK), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if not _take(lock):
            return False
        shutil.rmtree(path, ignore_errors=True)  # with the lock held: its maker may be about to ask for it
        return True
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    """Whether the lock is ours now.

    It is flock's: a record lock would be ours a second time where we look at a folder of this very process.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
