"""The history on disk: hash-chained JSON Lines in append-only segments, and the head outside that guards them.

It decides what is a torn line (repaired by the next holder of the lock), what is damage (reported, never repaired) and
when a record counts as written (after its fsync). What records mean, and who may write, is left to others. `append` and
`repair` are for the holder of the store's lock; reading needs no lock.

    crew/.history/0000000001.jsonl    records 1 … ; the next segment is named by its first record
                  archive.db          what they add up to, see `archive`: it can be removed at any time
                  lock                see `lock`

A line is `{"v":1,"n":…,"at":…,"by":…,"epoch":…,"kind":…,"data":{…},"prev":"…","hash":"…"}`; its hash is the
SHA-256 of all bytes before `,"hash"`, and `prev` is the hash of the line before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DamageError, InvalidMessageError, NewerFormatError, StoreError, StoreUnavailableError
from .replay import VERSION, Record

GENESIS = "0" * 64
SEGMENT_BYTES = 4 * 1024 * 1024
MOST_RECORD = 16 * 1024 * 1024
_TAIL = len(',"hash":""}') + 64  # bytes of a line behind what its hash covers

if sys.platform == "darwin":
    import fcntl

    def sync(fd: int) -> None:
        """Flush to the drive itself; plain fsync does not do that here."""
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

elif sys.platform == "win32":

    def sync(fd: int) -> None:
        """Flush to the drive."""
        os.fsync(fd)

else:

    def sync(fd: int) -> None:
        """Flush the data, and of its metadata what finding it needs."""
        os.fdatasync(fd)


@dataclass(frozen=True, slots=True)
class Head:
    """The last record's number and hash; of an empty history (0, 64 zeros)."""

    n: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on: the segment (by its first record) and the offset in it, and the head up to there."""

    segment: int
    offset: int
    head: Head


START = Position(1, 0, Head())


class History:
    """One folder of segments, and how far it has been read."""

    def __init__(self, folder: Path, *, head_file: Path | None = None, segment_bytes: int | None = None) -> None:
        self.folder = folder
        self.head_file = head_file
        self.position = START
        self._segment_bytes = SEGMENT_BYTES if segment_bytes is None else segment_bytes

    @property
    def head(self) -> Head:
        return self.position.head

    def exists(self) -> bool:
        return _is_file(self._segment(1))

    def rewind(self, position: Position = START) -> None:
        """Read again from there."""
        self.position = position

    # --- reading ---

    def read(self) -> Iterator[Record]:
        """The complete records behind the position, moving it along. A last line without its newline is left alone."""
        while True:
            position = self.position
            path = self._segment(position.segment)
            size = _size(path)
            if size is None and position.head.n == 0:
                return
            if size is None or size < position.offset:
                raise DamageError(
                    f"record {position.head.n} was there and is not any more: the history was cut or taken away",
                    n=position.head.n,
                    file=path,
                )
            if size > position.offset:
                yield from self._lines(path, position)
            if self.position.segment == position.segment:
                following = self.position.head.n + 1
                if following == position.segment or not _is_file(self._segment(following)):
                    return
                if (_size(path) or 0) > self.position.offset:
                    raise DamageError("bytes behind it belong to no record", n=self.position.head.n, file=path)
                self.position = Position(following, 0, self.position.head)

    def _lines(self, path: Path, start: Position) -> Iterator[Record]:
        with _open_for_reading(path) as file:
            file.seek(start.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position = self.position
                record = parse(line, position.head, path)
                self.position = Position(position.segment, position.offset + len(line), Head(record.n, record.hash))
                yield record

    def records(self, since: int = 0) -> Iterator[Record]:
        """Records with n > since, checked, from the files; the position stays where it is."""
        other = History(self.folder)
        starts = [first for first in self.segments() if first <= since + 1]
        if starts and starts[-1] > 1:
            first = starts[-1]
            path = self._segment(first)
            with _open_for_reading(path) as file:
                line = file.readline()
            prev = _loads(line, first, path).get("prev") if line.endswith(b"\n") else None
            if prev is None:
                return
            other.rewind(Position(first, 0, Head(first - 1, str(prev))))
        for record in other.read():
            if record.n > since:
                yield record

    def record(self, n: int) -> Record:
        """One record by its number; DamageError if it is not there."""
        for record in self.records(n - 1):
            return record
        raise DamageError("it is missing", n=n)

    def segments(self) -> list[int]:
        """The first records of the segments, in order."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name[:10]) for name in names if name.endswith(".jsonl") and name[:10].isdigit())

    def stranded(self) -> int:
        """The first record of a segment that reading cannot reach because one before it is missing; 0 if there is none.

        Without the lock, ask again after reading: others may have begun a segment meanwhile.
        """
        return next((first for first in self.segments() if first > self.head.n + 1), 0)

    # --- writing, under the lock ---

    def repair(self) -> None:
        """Under the lock, after reading: cut a torn last line, or end it if only its newline is missing."""
        position = self.position
        path = self._segment(position.segment)
        size = _size(path)
        if size is None or size <= position.offset:
            return
        with _open_for_reading(path) as file:
            file.seek(position.offset)
            tail = file.read()
        whole = _is_whole(tail + b"\n", position.head, path)
        outside = self.outside_head()
        if outside is not None and outside.n > position.head.n + whole:
            raise DamageError(
                f"it was written whole (the head kept in {self.head_file} says so) and is torn now",
                n=position.head.n + 1,
                file=path,
            )
        with self._changing(path) as fd:
            if whole:
                os.lseek(fd, 0, os.SEEK_END)
                os.write(fd, b"\n")
            else:
                os.ftruncate(fd, position.offset)
            sync(fd)

    def append(self, *, at: str, by: str, epoch: int, kind: str, data: Mapping[str, Any]) -> Record:
        """Under the lock, with everything read and repaired: one more record, on the disk when this returns.

        StoreUnavailableError if the disk did not take it; then nothing has changed, as far as the disk lets us.
        InvalidMessageError if it is no JSON, or too large.
        """
        position = self.position
        try:
            line = encode(position.head, at=at, by=by, epoch=epoch, kind=kind, data=data)
        except (TypeError, ValueError) as error:
            raise InvalidMessageError(f"this cannot be put on record: {error}") from error
        if len(line) > MOST_RECORD:
            raise InvalidMessageError(f"a record of {len(line)} bytes is too large; at most {MOST_RECORD} are taken")
        record = parse(line, position.head, None)
        full = position.offset >= self._segment_bytes
        segment, offset = (record.n, 0) if full else (position.segment, position.offset)
        path = self._segment(segment)
        fresh = offset == 0
        with self._changing(path) as fd:
            try:
                os.lseek(fd, offset, os.SEEK_SET)
                written = os.write(fd, line)
                _require_all(written, len(line), path)
                sync(fd)
            except OSError:
                # What is left of it, if this fails too, is a torn line for the next holder, or an unsure record.
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, offset)
                raise
        if fresh:
            self._sync_folder()
        self.position = Position(segment, offset + len(line), Head(record.n, record.hash))
        self._write_outside_head()
        return record

    @contextlib.contextmanager
    def _changing(self, path: Path) -> Iterator[int]:
        """A descriptor of the segment to write with, closed at the end; OSErrors come out as StoreUnavailableError."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK | _BINARY, 0o644)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreError(f"{path} is a symbolic link; the history never follows one") from error
            raise StoreUnavailableError(
                f"{path} did not take a record ({error.strerror or error}); nothing was changed. "
                "Make room or repair the disk; work goes on by itself then"
            ) from error

    def _sync_folder(self) -> None:
        if sys.platform == "win32":
            return  # NTFS journals names itself, and a folder cannot be opened for this
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError as error:
            raise StoreUnavailableError(f"{self.folder} cannot be synced ({error.strerror})") from error
        finally:
            os.close(fd)

    def set_aside(self, n: int, name: str) -> Path:
        """Under the lock: everything behind record n goes into a folder of that name; returns it.

        Copied and synced first, then cut: after a crash it is still damaged, and can be set aside again.
        """
        place = self._place(n)
        aside = self.folder / name
        for again in range(1, 1000):
            if not aside.exists():
                break
            aside = self.folder / f"{name}.{again}"
        path = self._segment(place.segment)
        try:
            aside.mkdir()
            if _is_file(path):
                shutil.copyfile(path, aside / path.name)
                with (aside / path.name).open("r+b") as copy:
                    sync(copy.fileno())
            for first in self.segments():
                if first > place.segment:
                    self._segment(first).replace(aside / self._segment(first).name)
        except OSError as error:
            raise StoreUnavailableError(f"nothing could be set aside in {aside}: {error.strerror}") from error
        if n == 0:
            path.unlink(missing_ok=True)
        else:
            with self._changing(path) as fd:
                os.ftruncate(fd, place.offset)
                sync(fd)
        self._sync_folder()
        self.rewind()
        return aside

    def _place(self, n: int) -> Position:
        """Where record n ends."""
        other = History(self.folder)
        while other.head.n < n:
            next(other.read())
        return other.position

    # --- the head outside ---

    def outside_head(self) -> Head | None:
        """The head kept outside the folder; None if none is kept or it cannot be read (after a power loss)."""
        if self.head_file is None:
            return None
        try:
            words = self.head_file.read_bytes().decode("ascii").split()
        except (OSError, UnicodeDecodeError):
            return None
        if len(words) != 3 or words[2] != f"{zlib.crc32(' '.join(words[:2]).encode()):08x}" or not words[0].isdigit():
            return None
        return Head(int(words[0]), words[1])

    def _write_outside_head(self) -> None:
        """Written in place in one call, not synced: a power loss may leave it older than the history, never newer."""
        if self.head_file is None:
            return
        body = f"{self.head.n:020d} {self.head.hash}"
        line = f"{body} {zlib.crc32(body.encode()):08x}\n".encode()
        with contextlib.suppress(OSError):  # a guard, not the truth: the record stands, the next one writes it again
            fd = os.open(self.head_file, os.O_WRONLY | os.O_CREAT | _BINARY, 0o644)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)

    def check_outside_head(self, outside: Head | None) -> None:
        """DamageError if the head read *before* the history says that there was more, or other, than there is."""
        if outside is None or outside == self.head or outside.n == 0:
            return
        tell = f"delete {self.head_file} if you restored an older history on purpose"
        if outside.n > self.head.n:
            raise DamageError(
                f"it was there, and the history ends at record {self.head.n}: it was wiped or cut; {tell}",
                n=self.head.n + 1,
                file=self._segment(self.position.segment),
            )
        if self.record(outside.n).hash != outside.hash:
            raise DamageError(f"its hash is not the one kept in {self.head_file}: another history; {tell}", n=outside.n)

    # --- places ---

    def holds(self, position: Position) -> bool:
        """Whether the record of that head ends there. DamageError if it was there and is not any more."""
        path = self._segment(position.segment)
        head = position.head
        if (_size(path) or 0) < position.offset:
            raise DamageError("it was there and is not any more: the history was wiped or cut", n=head.n, file=path)
        with _open_for_reading(path) as file:
            file.seek(max(0, position.offset - _TAIL - 1))
            end = file.read(_TAIL + 1)
        if not end.endswith(f'"hash":"{head.hash}"}}\n'.encode()):
            raise DamageError("it is not the record that was written there", n=head.n, file=path)
        return True

    def _segment(self, first: int) -> Path:
        return self.folder / f"{first:010d}.jsonl"


# --- One line ---------------------------------------------------------------------------------------------------------


def encode(head: Head, *, at: str, by: str, epoch: int, kind: str, data: Mapping[str, Any]) -> bytes:
    """The line of the record after `head`. ValueError or TypeError if `data` is not JSON."""
    fields = {"v": VERSION, "n": head.n + 1, "at": at, "by": by, "epoch": epoch, "kind": kind, "data": data}
    fields["prev"] = head.hash
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return b'%b,"hash":"%b"}\n' % (body, hashlib.sha256(body).hexdigest().encode())


def parse(line: bytes, head: Head, file: Path | None) -> Record:
    """The record on a complete line that follows `head`; DamageError says what is wrong with it."""
    n = head.n + 1
    body, tail = line[: -_TAIL - 1], line[-_TAIL - 1 :]
    digest = hashlib.sha256(body).hexdigest()
    if tail != b',"hash":"%b"}\n' % digest.encode():
        raise DamageError("its hash is not that of its bytes: it was changed after it was written", n=n, file=file)
    fields = _loads(line, n, file)
    version = fields.get("v")
    if isinstance(version, int) and version > VERSION:  # newer formats keep the line's frame: see the hash above
        raise NewerFormatError(
            f"record {n}{f' in {file}' if file else ''} has format {version}, this version knows {VERSION}; "
            "use the newer version that wrote it"
        )
    if fields.get("prev") != head.hash or fields.get("n") != n:
        raise DamageError(f"it does not follow record {head.n}: records are missing or were put in", n=n, file=file)
    try:
        return Record(**fields)
    except TypeError as error:
        raise DamageError(f"it is no record ({error})", n=n, file=file) from error


def _loads(line: bytes, n: int, file: Path | None) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise DamageError("it is not JSON: it was changed after it was written", n=n, file=file) from error
    if not isinstance(fields, dict):
        raise DamageError("it is no record", n=n, file=file)
    return fields


def _is_whole(line: bytes, head: Head, file: Path) -> bool:
    try:
        parse(line, head, file)
    except DamageError:
        return False
    return True


# --- Files ------------------------------------------------------------------------------------------------------------

_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would turn line ends about


def _open_for_reading(path: Path) -> Any:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | _NO_LINK | _BINARY), "rb")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path} is a symbolic link; the history never follows one") from error
        raise StoreUnavailableError(f"{path} cannot be read: {error.strerror}") from error


def _require_all(written: int, wanted: int, path: Path) -> None:
    if written != wanted:
        raise OSError(errno.ENOSPC, f"only {written} of {wanted} bytes were written", str(path))


def _size(path: Path) -> int | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"{path} is a symbolic link; the history never follows one")
    return status.st_size


def _is_file(path: Path) -> bool:
    return _size(path) is not None
