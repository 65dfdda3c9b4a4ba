"""Files that are whole or not there: durable replacement, and a swap that keeps what it displaced. The shell of views.

`durable_replace` writes a file that only we write. `prepare` and `exchange` put a file in the place of one that people
write too: the new text is complete and synced under a temp name, takes its swap name, changes places with the file, and
what was in the file is then under the swap name, for `reconcile` to read before it goes. A crash at any step leaves
the old or the new file at the path, and nothing that only the swap name holds is ever swept away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

TEMP = ".tmp~"  # ends the name of a file that may be incomplete
SWAP = ".swap~"  # ends the name of a file that is complete: a view that waits, or what it displaced
BACKUP = ".back~"  # Windows: what ReplaceFile displaced, until it takes the swap name
_AT_FDCWD = -100
_EXCHANGE = 2  # of renameat2 on Linux and of renamex_np on macOS
_BUSY = (5, 32, 33)  # Windows: access denied, sharing and lock violation: somebody has the file open
_WAITS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.2)  # seconds between tries on Windows, half a second in all
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}

How = Literal["exchanged", "moved away", "linked"]


def durable_replace(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, wholly or not at all; it survives a power loss once this returns.

    What was there is gone. An error (full disk, failed sync) leaves the old file as it was and no temp behind.
    """
    temp = _write_temp(path, data)
    try:
        patiently(lambda: temp.replace(path))
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def prepare(path: Path, data: bytes) -> Path:
    """Write what shall take the place of `path`; returned is its swap name, complete and synced."""
    temp = _write_temp(path, data)
    swap = path.with_name(path.name + SWAP)
    try:
        _link_new(temp, swap)
    finally:
        temp.unlink(missing_ok=True)
    return swap


def exchange(swap: Path, path: Path) -> How:
    """Let the prepared file and the one at `path` change places; the swap name then holds what was displaced.

    Where the system has no exchange, the file is renamed away first, and the new one takes the name only if nobody
    else did; then both are in the folder, and the one at `path` is not ours. FileNotFoundError if `path` is missing.
    """
    if sys.platform == "win32":
        _replace_file(swap, path)
        return "exchanged"
    if _exchange(swap, path):
        sync_folder(path.parent)
        return "exchanged"
    away = path.with_name(path.name + BACKUP)
    path.rename(away)
    free = link_if_free(swap, path)
    if free:  # the swap name is a second name of the new file
        away.replace(swap)
    else:  # an editor has put its own file there: that one stays, the view is rendered anew later
        swap.unlink()
        away.rename(swap)
    sync_folder(path.parent)
    return "linked" if free else "moved away"


def link_if_free(source: Path, path: Path) -> bool:
    """Give a complete file the name `path` too, if nothing has it; False if something does. Never replaces."""
    if sys.platform == "win32":  # rename refuses an existing name there; the source keeps a copy of its own
        copy = _write_temp(path, source.read_bytes())
        try:
            copy.rename(path)
        except FileExistsError:
            copy.unlink(missing_ok=True)
            return False
        return True
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_EXCHANGE | {errno.EMLINK}:
            raise
        return _create_new(path, source.read_bytes())  # a file system without links
    return True


def restore(path: Path, data: bytes) -> bool:
    """Create a missing file, whole; False if the name was taken meanwhile, and then nothing is touched."""
    temp = _write_temp(path, data)
    try:
        made = link_if_free(temp, path)
    finally:
        temp.unlink(missing_ok=True)
    sync_folder(path.parent)
    return made


def left_overs(folder: Path, names: Iterator[str] | tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """What earlier runs left of the files of these names: temps (may be incomplete), and complete swap files."""
    temps, swaps = [], []
    known = tuple(names)
    with os.scandir(folder) as entries:
        for entry in entries:
            for name in known:
                if entry.name.startswith(name) and entry.name.endswith(TEMP):
                    temps.append(Path(entry.path))
                elif entry.name in (name + SWAP, name + BACKUP):
                    swaps.append(Path(entry.path))
    return sorted(temps), sorted(swaps)


def remove(path: Path) -> None:
    """Remove a file of ours; on Windows with patience for whoever has it open."""
    with suppress(FileNotFoundError):
        patiently(path.unlink)


def sync_file(fd: int) -> None:
    """Bring a file to the disk itself. An error means that it may not be there: write it anew, do not sync again."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # not every file system knows it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Windows has no such call and does it with the file."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- Steps ------------------------------------------------------------------------------------------------------------


def _write_temp(path: Path, data: bytes) -> Path:
    """A synced file of that content beside `path`, under a name of this process and thread."""
    temp = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}{TEMP}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(temp, flags, 0o666)
    try:
        with _closing(fd):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            with suppress(OSError):  # no such file yet, or modes mean nothing here
                if hasattr(os, "fchmod"):
                    os.fchmod(fd, path.stat().st_mode & 0o777)
            sync_file(fd)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


def _link_new(temp: Path, swap: Path) -> None:
    """Rename to the swap name, which must be free: what it holds was not read yet."""
    if sys.platform == "win32":
        patiently(lambda: temp.rename(swap))
    elif not link_if_free(temp, swap):
        raise FileExistsError(errno.EEXIST, "holds what an earlier swap displaced and was not read yet", str(swap))


def _create_new(path: Path, data: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with _closing(fd):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        sync_file(fd)
    return True


def patiently(act: Callable[[], T]) -> T:
    """Do it, and on Windows try again for half a second while somebody has the file open."""
    if sys.platform == "win32":
        for wait in _WAITS:
            try:
                return act()
            except OSError as error:
                if error.winerror not in _BUSY:
                    raise
            time.sleep(wait)
    return act()


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False if this system or file system cannot."""
    call = _rename_call()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _rename_call() -> Callable[[bytes, bytes], int] | None:
    """The C library's exchanging rename, or None where it has none."""
    if sys.platform == "win32":
        return None
    library: Any = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        swap: Any = getattr(library, "renamex_np", None)
        return swap and (lambda one, other: int(swap(one, other, ctypes.c_uint(_EXCHANGE))))
    rename = getattr(library, "renameat2", None)
    if rename is None:
        return None
    return lambda one, other: int(rename(_AT_FDCWD, one, _AT_FDCWD, other, ctypes.c_uint(_EXCHANGE)))


def _replace_file(swap: Path, path: Path) -> None:
    """Windows: ReplaceFileW keeps what it displaces under a backup name, which then takes the swap name."""
    if sys.platform == "win32":
        back = path.with_name(path.name + BACKUP)
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)

        def replace() -> None:
            # 1: REPLACEFILE_WRITE_THROUGH; 2 | 4: ignore errors of merging attributes and ACLs
            if not kernel.ReplaceFileW(str(path), str(swap), str(back), 1 | 2 | 4, None, None):
                raise ctypes.WinError(ctypes.get_last_error())

        patiently(replace)
        patiently(lambda: back.rename(swap))
