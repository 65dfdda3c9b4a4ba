"""Critical events on disk until they are durable elsewhere: one folder per epoch, owned by whoever holds its lock.

Append-only segments of records (length, CRC-32, seq, prev, event), written to mapped memory of the file, so that a
record survives the death of its process once `append` returned; not power loss: nothing is synced. No system call is
made, which would hand the interpreter to another thread. A segment's room is allocated before it is mapped, since a
full disk must be an error and not a signal; what of it is unused reads as zeros. `last` is a mapped counter of the last
seq given, `lock` a file lock that children do not inherit. A torn or damaged record ends only its segment.
What the records mean is for `ipc.sequence`; when a folder goes is for the supervisor.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from .errors import SpoolFullError, SpoolLockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HEAD = struct.Struct("<II")  # length of what follows, its CRC-32
_NAME = struct.Struct("<QQ")  # seq, prev
_LAST = struct.Struct("=Q")
_SUFFIX = ".seg"
FORMAT = 2  # of a segment; `.supervisor/format.json` names it for all spools of a workspace. 1 had no zeros at its end
SEGMENT = 128 * 1024  # bytes after which the next segment begins
QUOTA = 64 * 1024 * 1024  # bytes of a whole spool


class Record(NamedTuple):
    """A critical event as it lies in the spool."""

    seq: int
    prev: int
    event: bytes


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """A segment whose rest cannot be read. `torn` is the end of an interrupted write; otherwise bytes have changed."""

    path: Path
    offset: int
    torn: bool


class SpoolLock:
    """The lock of an epoch's folder; taken by the worker for its life, by the supervisor once that is over."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> SpoolLock:
        """Take it or raise SpoolLockedError at once: held by another process, or the folder is gone."""
        try:
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            raise SpoolLockedError(f"the spool folder {folder} is gone: this epoch is over") from None
        try:
            # A record lock, not flock: it dies with this process even where a forked child lives on.
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            # Windows has one reason to refuse, and not every C runtime there (Wine's) sets errno for it.
            if sys.platform == "win32" or error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise SpoolLockedError(f"another process holds the lock of {folder}") from None
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Give it back; harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def create_folder(folder: Path) -> None:
    """Make an epoch's folder with what its worker expects there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "last").write_bytes(_LAST.pack(0))


class Spool:
    """The writing end. Locks the folder; `append` and `trim` need the caller's own lock around them."""

    def __init__(self, folder: Path, lock: SpoolLock, *, quota: int = QUOTA, segment: int = SEGMENT) -> None:
        self._folder = folder
        self._lock = lock
        self._quota = quota
        self._segment = segment
        self._closed_segments: list[tuple[int, int, Path]] = []  # last seq, bytes, path
        self._number = 0
        self._map: mmap.mmap | None = None  # of the segment being written
        self._room = 0
        self._size = 0
        self._total = 0
        self._end = 0
        self.last = _LastSeq(folder)

    @classmethod
    def open(cls, folder: Path, *, quota: int = QUOTA, segment: int = SEGMENT) -> Spool:
        """Lock an epoch's folder and begin. SpoolLockedError if it is gone or taken: the caller must not emit."""
        lock = SpoolLock.take(folder)
        try:
            return cls(folder, lock, quota=quota, segment=segment)
        except BaseException:
            lock.release()
            raise

    @property
    def size(self) -> int:
        """Bytes of the records that are kept."""
        return self._total

    def append(self, seq: int, prev: int, event: bytes) -> None:
        """Write one record; it survives this process when this returns. SpoolFullError: nothing was taken."""
        body = _NAME.pack(seq, prev) + event
        size = _HEAD.size + len(body)
        if self._total + size > self._quota:
            raise SpoolFullError(
                f"the spool {self._folder} holds {self._total:,} bytes of at most {self._quota:,}: "
                "the supervisor has not taken any for a while"
            )
        memory = self._map
        if memory is None or self._size + size > self._room:
            memory = self._next_segment(size)
        at = self._size
        memory[at + _HEAD.size : at + size] = body
        memory[at : at + _HEAD.size] = _HEAD.pack(len(body), zlib.crc32(body))  # last, and in one piece: now it counts
        self._size = at + size
        self._total += size
        self._end = seq

    def trim(self, durable: int) -> None:
        """Remove the segments whose events are all durable elsewhere."""
        while self._closed_segments and self._closed_segments[0][0] <= durable:
            _, size, path = self._closed_segments.pop(0)
            with suppress(FileNotFoundError):  # gone is what we want
                path.unlink()
            self._total -= size

    def close(self) -> None:
        """Close files and give the lock back; what is there stays."""
        self._finish_segment()
        self.last.close()
        self._lock.release()

    def _next_segment(self, least: int) -> mmap.mmap:
        self._finish_segment()
        self._number += 1
        path = self._path()
        room = max(self._segment, least)
        try:
            self._map = _mapped(path, room)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise SpoolFullError(f"no room left for the spool segment {path}: {error.strerror}") from error
        self._room, self._size = room, 0
        return self._map

    def _finish_segment(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
            with suppress(OSError):  # zeros at its end do no harm
                os.truncate(self._path(), self._size)
            self._closed_segments.append((self._end, self._size, self._path()))

    def _path(self) -> Path:
        return self._folder / f"{self._number:08}{_SUFFIX}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mapped(path: Path, size: int) -> mmap.mmap:
    """A new file of so many zeros that are there already, as memory. OSError where there is no room."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        _allocate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    if sys.platform == "linux":
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        else:
            return
    if sys.platform != "win32":  # where mapping a file allocates it
        zeros = memoryview(bytes(size))
        while zeros:
            zeros = zeros[os.write(descriptor, zeros) :]


class _LastSeq:
    """The last seq given, in a page that outlives its process. `cell[0]` is stored in one piece."""

    def __init__(self, folder: Path) -> None:
        path = folder / "last"
        with path.open("r+b" if path.exists() else "w+b") as file:
            if path.stat().st_size < _LAST.size:
                file.write(_LAST.pack(0))
                file.flush()
            self._map = mmap.mmap(file.fileno(), _LAST.size)
        self._view = memoryview(self._map)
        self.cell = self._view.cast("Q")

    def close(self) -> None:
        self.cell.release()
        self._view.release()
        self._map.close()


def read_last(folder: Path) -> int:
    """The last seq given in an epoch, 0 if nothing tells."""
    try:
        found = (folder / "last").read_bytes()
    except OSError:
        return 0
    return int(_LAST.unpack_from(found)[0]) if len(found) >= _LAST.size else 0


def read_spool(folder: Path) -> Iterator[Record | DamagedSegment]:
    """What a folder holds, oldest first; a segment that cannot be read to its end says so and ends there."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        yield from _read_segment(path)


def _read_segment(path: Path) -> Iterator[Record | DamagedSegment]:
    try:
        data = path.read_bytes()
    except OSError:
        yield DamagedSegment(path, 0, torn=False)
        return
    used = len(data.rstrip(b"\0"))  # what follows was never written, or belongs to the record that ends there
    at = 0
    while at < used:
        body = at + _HEAD.size
        if body > len(data):
            yield DamagedSegment(path, at, torn=True)
            return
        length, crc = _HEAD.unpack_from(data, at)
        end = body + length
        if end > len(data) or length < _NAME.size:
            yield DamagedSegment(path, at, torn=end > len(data) or not (length or crc))
            return
        if zlib.crc32(data[body:end]) != crc:
            yield DamagedSegment(path, at, torn=False)
            return
        seq, prev = _NAME.unpack_from(data, body)
        yield Record(seq, prev, data[body + _NAME.size : end])
        at = end
