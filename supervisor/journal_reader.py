"""Reading the journal: from any thread or process, by cursor, while another writes.

A row is decoded here, and one that cannot be read becomes events that say so. What is in the file is `journal`'s.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ipc.errors import FrameError
from ipc.frames import Fields, decode_fields
from ipc.sequence import Marks

from .rows import Cursor, CursorGoneError, EpochEntry, JournalError, NewerFormatError, StoredEvent

FORMAT = 1
ENTRIES = "SELECT worker, epoch, pid, created, closed IS NOT NULL, critical, seq, missed, stored FROM epochs"
_READ_BYTES = 8 * 1024 * 1024  # of rows read in one go


class JournalReader:
    """Reads a journal, from any thread or process, while another writes. JournalError if there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise JournalError(f"there is no journal at {path}: nothing has run here yet")
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                check_same_thread=False,
                timeout=5.0,
                isolation_level=None,
            )
        except sqlite3.Error as error:
            raise JournalError(f"the journal {path} cannot be read: {error}") from error
        try:
            check_format(self._connection, path)
        except sqlite3.Error as error:
            self._connection.close()
            raise JournalError(f"the journal {path} cannot be read: {error}") from error
        except BaseException:
            self._connection.close()
            raise

    def head(self) -> Cursor:
        """The last event's place; n is 0 before the first."""
        with self._lock:
            try:
                return Cursor(str(self._meta("store")), int(self._meta("next")) - 1)
            except sqlite3.Error as error:
                raise self._error(error) from error

    def oldest(self) -> Cursor | None:
        """The first event that retention has left."""
        with self._lock:
            try:
                row = self._connection.execute("SELECT min(first_cursor) FROM frames").fetchone()
                return None if row[0] is None else Cursor(str(self._meta("store")), int(row[0]))
            except sqlite3.Error as error:
                raise self._error(error) from error

    def read(
        self,
        after: Cursor | None = None,
        limit: int = 1000,
        phase: str | None = None,
        type: str | None = None,  # noqa: A002 - the event's own word
    ) -> list[StoredEvent]:
        """The next events after a cursor (None: from the oldest), at most `limit`.

        CursorGoneError: the cursor is of another store, or retention has removed what followed it.
        """
        return self.read_up_to(after, limit, phase, type)[0]

    def read_up_to(
        self,
        after: Cursor | None,
        limit: int,
        phase: str | None = None,
        type: str | None = None,  # noqa: A002 - as above
        *,
        whole_rows: bool = False,
    ) -> tuple[list[StoredEvent], Cursor]:
        """As `read`, and the cursor to go on from, which a filter may have moved further than the last event.

        With `whole_rows` the row that reaches the limit is read to its end, so that none is decoded twice; and no more
        rows than make up some megabytes.
        """
        with self._lock:
            try:
                return self._read(after, limit, phase, type, whole_rows=whole_rows)
            except sqlite3.Error as error:
                raise self._error(error) from error

    def epochs(self) -> list[EpochEntry]:
        """The (worker, epoch) table, oldest first per worker."""
        with self._lock:
            try:
                rows = self._connection.execute(ENTRIES + " ORDER BY worker, epoch").fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return [entry_of(row) for row in rows]

    def types(self) -> frozenset[str]:
        """Every type of event that is on record."""
        with self._lock:
            try:
                return frozenset(row[0] for row in self._connection.execute("SELECT DISTINCT type FROM tags"))
            except sqlite3.Error as error:
                raise self._error(error) from error

    def latencies(self, transport: str, most: int = 2000) -> list[float]:
        """Seconds from the newest event of a frame to its commit, of the last frames that came by this transport."""
        with self._lock:
            try:
                rows = self._connection.execute(
                    "SELECT at, blob, n, worker FROM frames WHERE transport = ? ORDER BY first_cursor DESC LIMIT ?",
                    (transport, most),
                ).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error
        return [max(0.0, at - list(_decode(blob, n, worker))[-1][7]) for at, blob, n, worker in rows]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _read(
        self, after: Cursor | None, limit: int, phase: str | None, type_: str | None, *, whole_rows: bool = False
    ) -> tuple[list[StoredEvent], Cursor]:
        store = str(self._meta("store"))
        position = 0
        if after is not None:
            head = int(self._meta("next")) - 1
            if after.store != store or after.n > head:
                raise CursorGoneError(
                    f"cursor {after} is of another journal than this one ({store}): read it from the beginning",
                    self._first(store),
                )
            position = after.n
            kept = int(self._meta("removed"))
            if position < kept:
                raise CursorGoneError(
                    f"the events after cursor {after} were removed by retention, up to {kept}", self._first(store)
                )
        out: list[StoredEvent] = []
        at = position
        size = 0
        for row in self._frames(position, phase, type_):
            first, n, first_seq, worker, epoch, transport, seqs, blob = row
            size += len(blob)
            if whole_rows and (len(out) >= limit or size > _READ_BYTES) and at > position:
                return out, Cursor(store, at)
            numbers = msgspec.msgpack.decode(seqs) if seqs is not None else range(first_seq, first_seq + n)
            events = _decode(blob, n, worker)
            if whole_rows and first > position and phase is None and type_ is None:
                places = enumerate(zip(numbers, events, strict=True), first)
                out += [StoredEvent(store, here, worker, epoch, seq, transport, *f) for here, (seq, f) in places]
                at = first + n - 1
                continue
            for offset, (seq, fields) in enumerate(zip(numbers, events, strict=True)):
                if first + offset <= position:
                    continue
                if len(out) >= limit and not whole_rows:
                    return out, Cursor(store, at)
                at = first + offset
                if (phase is None or fields[1] == phase) and (type_ is None or fields[0] == type_):
                    out.append(StoredEvent(store, at, worker, epoch, seq, transport, *fields))
        if len(out) < limit:
            at = max(at, self._seen_head)
        return out, Cursor(store, at)

    def _frames(self, position: int, phase: str | None, type_: str | None) -> Iterable[tuple[Any, ...]]:
        """Frames that may hold something after this place, a few at a time so that a large limit costs no memory."""
        columns = "f.first_cursor, f.n, f.first_seq, f.worker, f.epoch, f.transport, f.seqs, f.blob"
        # What is committed during the reading must not be skipped by the cursor that we hand back.
        self._seen_head = int(self._meta("next")) - 1
        row = self._connection.execute(
            "SELECT first_cursor FROM frames WHERE first_cursor <= ? ORDER BY first_cursor DESC LIMIT 1",
            (position + 1,),
        ).fetchone()
        start = row[0] if row is not None else position + 1
        wanted = {"phase": phase, "type": type_}
        conditions = " AND ".join(f"t.{name} = :{name}" for name, value in wanted.items() if value is not None)
        if conditions:
            statement = (
                f"SELECT DISTINCT {columns} FROM tags t CROSS JOIN frames f ON f.first_cursor = t.first_cursor"  # noqa: S608 - no input in it
                f" WHERE {conditions} AND t.first_cursor >= :start AND t.first_cursor <= :head ORDER BY t.first_cursor"
            )
        else:
            statement = f"SELECT {columns} FROM frames f WHERE first_cursor >= :start AND first_cursor <= :head ORDER BY first_cursor"  # noqa: S608, E501 - the same
        cursor = self._connection.execute(statement, {**wanted, "start": start, "head": self._seen_head})
        try:
            while rows := cursor.fetchmany(16):
                yield from rows
        finally:
            cursor.close()

    def _first(self, store: str) -> Cursor | None:
        row = self._connection.execute("SELECT min(first_cursor) FROM frames").fetchone()
        return None if row[0] is None else Cursor(store, int(row[0]))

    def _meta(self, key: str) -> Any:
        return self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]

    def _error(self, error: sqlite3.Error) -> JournalError:
        return JournalError(f"the journal {self.path} cannot be read: {error}")

    _seen_head: int = 0


def _decode(blob: bytes, n: int, worker: str) -> list[Fields]:
    """The events of a row; one that cannot be read becomes n events that say so, never an error for other readers."""
    try:
        events = decode_fields(blob)
        if len(events) == n:
            return events
        reason = f"{len(events)} events instead of {n}"
    except FrameError as error:
        reason = str(error)
    return [("damaged", "", "", 0, f"an event of {worker} cannot be read: {reason}", {}, None, 0.0)] * n


def entry_of(row: Sequence[Any]) -> EpochEntry:
    worker, epoch, pid, created, closed, critical, seq, missed, stored = row
    return EpochEntry(
        worker=worker,
        epoch=epoch,
        pid=pid,
        created=created,
        closed=bool(closed),
        marks=Marks(critical, seq, missed),
        stored=stored,
    )


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        raise NewerFormatError(
            f"the journal {path} has format {found}; this program knows {FORMAT}: use the newer program that wrote it"
        )
