"""One lock file, held by one thread of one process at a time; the system releases it when its holder dies.

Waiting is a blocking `flock` / `LockFileEx`, never a poll: the next holder starts the moment the last one lets go.
What is done under the lock, and what a busy lock means, is left to the caller.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LockBusyError, StoreUnavailableError

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _EXCLUSIVE = 0x2
    _FAIL_IMMEDIATELY = 0x1
    _LOCK_VIOLATION = 33
    # The locked byte lies far behind the pid, which others must be able to read: Windows locks are mandatory.
    _OFFSET = 1 << 30

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )

    def _lock(fd: int, *, wait: bool) -> bool:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.LockFileEx.argtypes = (
            wintypes.HANDLE,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            ctypes.POINTER(_Overlapped),
        )
        kernel.LockFileEx.restype = wintypes.BOOL
        flags = _EXCLUSIVE if wait else _EXCLUSIVE | _FAIL_IMMEDIATELY
        where = _Overlapped(offset=_OFFSET)
        if kernel.LockFileEx(msvcrt.get_osfhandle(fd), flags, 0, 1, 0, ctypes.byref(where)):
            return True
        error = ctypes.get_last_error()
        if not wait and error == _LOCK_VIOLATION:
            return False
        raise ctypes.WinError(error)

    def _unlock(fd: int) -> None:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.UnlockFileEx.argtypes = (
            wintypes.HANDLE,
            wintypes.DWORD,
            wintypes.DWORD,
            wintypes.DWORD,
            ctypes.POINTER(_Overlapped),
        )
        where = _Overlapped(offset=_OFFSET)
        if not kernel.UnlockFileEx(msvcrt.get_osfhandle(fd), 0, 1, 0, ctypes.byref(where)):
            raise ctypes.WinError(ctypes.get_last_error())

else:
    import fcntl

    def _lock(fd: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        # Explicit, because closing is not enough while a child between fork and exec has a copy of the descriptor.
        fcntl.flock(fd, fcntl.LOCK_UN)


class Lock:
    """An exclusive lock on `path`, between threads and between processes; the thread that holds it may enter again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: int | None = None

    @contextmanager
    def hold(self, deadline: float = 10.0) -> Iterator[None]:
        """Hold the lock; LockBusyError names the holder when `deadline` seconds of waiting were not enough."""
        if self._owner == threading.get_ident():
            yield
            return
        fd = self._acquire(deadline)
        self._owner = threading.get_ident()
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, f"{os.getpid():<20}\n".encode())
            yield
        finally:
            self._owner = None
            _unlock(fd)
            os.close(fd)

    def holder(self) -> int:
        """The pid that the lock file names; 0 if there is none. It may have let go already."""
        try:
            return int(self.path.read_bytes()[:20] or b"0")
        except (OSError, ValueError):
            return 0

    def _acquire(self, deadline: float) -> int:
        fd = self._open()
        try:
            if _lock(fd, wait=False):
                return fd
        except BaseException:
            os.close(fd)
            raise
        wait = _Wait(fd)
        if wait.done.wait(deadline) or not wait.abandon():
            if wait.error is not None:
                os.close(fd)
                raise wait.error
            return fd
        raise LockBusyError(self.path, deadline, self.holder())

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT
        if sys.platform != "win32":
            flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.path, flags, 0o644)
        except OSError as error:
            raise StoreUnavailableError(
                f"the lock {self.path} cannot be opened: {error.strerror}. Make the folder writable for this user"
            ) from error


class _Wait:
    """A blocking lock call in a thread of its own: the only way to wait without polling and yet with a deadline."""

    def __init__(self, fd: int) -> None:
        self.done = threading.Event()
        self.error: OSError | None = None
        self._fd = fd
        self._abandoned = False
        self._deciding = threading.Lock()
        threading.Thread(target=self._run, name="lock-wait", daemon=True).start()

    def abandon(self) -> bool:
        """Leave the descriptor to the thread, which lets go of it at once when it gets the lock; False: too late."""
        with self._deciding:
            if self.done.is_set():
                return False
            self._abandoned = True
            return True

    def _run(self) -> None:
        try:
            _lock(self._fd, wait=True)
        except OSError as error:
            self.error = error
        with self._deciding:
            if self._abandoned:
                with contextlib.suppress(OSError):  # nobody is left to hear of it, and closing releases it anyway
                    _unlock(self._fd)
                os.close(self._fd)
            else:
                self.done.set()
