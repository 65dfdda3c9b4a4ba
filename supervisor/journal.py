"""The record of every event and of every decision of the supervisor's: one SQLite file, written by one thread.

A row is a whole frame, its events left encoded; the (worker, epoch) table that says what was accepted is updated in
the same transaction and outlives retention. A cursor is (store id, n): n numbers events in the order of their commits
and is never given twice; the store id changes when power may have been lost. What is accepted is decided elsewhere
(`ipc.sequence`); here it is kept. It is read back by `journal_reader`, in the words of `rows`.
"""

from __future__ import annotations

import logging
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from ipc.errors import FrameError
from ipc.frames import decode_fields, fields_of, join
from ipc.sequence import Marks

from .boot import is_same_boot, this_boot
from .journal_reader import ENTRIES, FORMAT, JournalReader, check_format, entry_of
from .rows import (
    ClosedRow,
    Committed,
    Cursor,
    CursorGoneError,
    EpochEntry,
    FrameRow,
    JournalError,
    NewerFormatError,
    OpenedRow,
    OwnRow,
    Row,
    StoredEvent,
)

__all__ = [
    "SUPERVISOR",
    "ClosedRow",
    "Committed",
    "Cursor",
    "CursorGoneError",
    "EpochEntry",
    "FrameRow",
    "Journal",
    "JournalError",
    "JournalReader",
    "NewerFormatError",
    "OpenedRow",
    "OwnRow",
    "Row",
    "StoredEvent",
]

T = TypeVar("T")

SUPERVISOR = "supervisor"
_SYNC_WITHIN = 0.8  # seconds after a commit
_log = logging.getLogger("supervisor.journal")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE frames (
  first_cursor INTEGER PRIMARY KEY, n INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  worker TEXT NOT NULL, epoch INTEGER NOT NULL, transport TEXT NOT NULL, at REAL NOT NULL, seqs BLOB, blob BLOB NOT NULL
);
CREATE TABLE tags (
  phase TEXT NOT NULL, type TEXT NOT NULL, first_cursor INTEGER NOT NULL, PRIMARY KEY (phase, type, first_cursor)
) WITHOUT ROWID;
CREATE INDEX tags_by_type ON tags (type, first_cursor);
CREATE INDEX tags_by_cursor ON tags (first_cursor);
CREATE TABLE epochs (
  worker TEXT NOT NULL, epoch INTEGER NOT NULL, pid INTEGER, created REAL, opened REAL, closed REAL,
  critical INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, missed INTEGER NOT NULL DEFAULT 0,
  stored INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (worker, epoch)
) WITHOUT ROWID;
"""
# Which finish events of open epochs retention has removed; an older program does without it.
_FINISHED = """
CREATE TABLE IF NOT EXISTS finished (
  worker TEXT NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (worker, epoch, key)
) WITHOUT ROWID
"""
_FINISH_TYPE = "phase_complete"  # what an event about a finish record is, for retention


class Journal:
    """The writing end: one connection on one thread. `alarm` is called with a text when a file had to be set aside."""

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str | None = None,
        now: Callable[[], float] = time.time,
        alarm: Callable[[str], None] | None = None,
    ) -> None:
        self.path = path
        self._now = now
        self._boot_id = boot_id if boot_id is not None else this_boot()
        self._alarm = alarm
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._db: sqlite3.Connection
        self._next = 1
        self._unsynced_since: float | None = None
        self._is_refused = False  # a newer program's: nothing of ours goes into it
        self._failures: list[tuple[Exception, bool]] = []
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        boot_id: str | None = None,
        now: Callable[[], float] = time.time,
        alarm: Callable[[str], None] | None = None,
    ) -> Journal:
        """Open or create. A damaged file is set aside, with an alarm; NewerFormatError for one of a newer program."""
        journal = cls(path, boot_id=boot_id, now=now, alarm=alarm)
        journal._thread.start()
        try:
            journal._do(journal._open).result()
        except BaseException:
            journal._jobs.put(None)
            raise
        journal.reader = JournalReader(path)
        return journal

    reader: JournalReader

    def commit(self, rows: Sequence[Row]) -> Future[Committed]:
        """Commit these rows in one transaction, on the journal's thread; the future may hold a JournalError."""
        return self._do(lambda: self._commit(rows))

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Run something on the journal's thread, after all that was asked before."""
        return self._do(work)

    def entry(self, worker: str, epoch: int) -> Future[EpochEntry | None]:
        """What the table says about one epoch, read by the writing connection."""
        return self._do(lambda: self._entry(worker, epoch))

    def entries(self) -> list[EpochEntry]:
        """The whole table, by the writing connection: only within `run`."""
        return [entry_of(row) for row in self._db.execute(ENTRIES)]

    def read(
        self,
        after: Cursor | None = None,
        limit: int = 1000,
        phase: str | None = None,
        type: str | None = None,  # noqa: A002 - the event's own word
    ) -> list[StoredEvent]:
        """As `JournalReader.read`."""
        return self.reader.read(after, limit, phase, type)

    def retain(self, *, most_bytes: int | None = None, most_age: float | None = None) -> Future[int]:
        """Remove the oldest frames beyond a size or an age in seconds; how many events went.

        What the table says about epochs, and what is known of the finish events of open ones, stays.
        """
        return self._do(lambda: self._retain(most_bytes, most_age))

    def fail_next(self, error: Exception, *, times: int = 1, stored: bool = False) -> None:
        """Make the next commits fail, or (`stored`) only seem to, for tests of what follows from that."""
        self._failures.extend([(error, stored)] * times)

    def close(self) -> None:
        """Commit what was asked, sync, close. Idempotent."""
        if not self._thread.is_alive():
            return
        self._jobs.put(None)
        self._thread.join()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread

    def _do(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except sqlite3.Error as error:
                future.set_exception(JournalError(f"the journal {self.path} could not be written: {error}"))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                future.set_exception(error)
            else:
                future.set_result(result)

        if self._thread.is_alive():
            self._jobs.put(job)
        else:
            future.set_exception(JournalError(f"the journal {self.path} is closed"))
        return future

    def _run(self) -> None:
        while True:
            timeout = None
            if self._unsynced_since is not None:
                timeout = max(self._unsynced_since + _SYNC_WITHIN - time.monotonic(), 0)
            try:
                job = self._jobs.get(timeout=timeout) if timeout != 0 else self._jobs.get_nowait()
            except queue.Empty:
                self._sync()
                continue
            if job is None:
                self._finish()
                return
            job()
            if self._unsynced_since is not None and time.monotonic() - self._unsynced_since > _SYNC_WITHIN:
                self._sync()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connect()
        except NewerFormatError:
            self._db.close()
            self._is_refused = True
            raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise JournalError(f"the journal {self.path} cannot be opened: {error}") from error
            with suppress(sqlite3.Error):
                self._db.close()
            self._set_aside(str(error))
            self._connect()

    def _connect(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=10.0)
        check_format(self._db, self.path)
        new = not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if new:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA fullfsync = ON")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        if new:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            first = {"store": secrets.token_hex(4), "next": 1, "removed": 0, "boot": self._boot_id, "clean": 0}
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", first.items())
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute("COMMIT")
        self._db.execute(_FINISHED)
        meta = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        if not is_same_boot(str(meta["boot"]), self._boot_id) and not meta["clean"]:
            # The last seconds may be gone: a cursor that was shown could come to mean another event.
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            self._set_meta(store=secrets.token_hex(4))
            _log.warning("power may have been lost: cursors of the journal %s begin anew", self.path)
        self._set_meta(boot=self._boot_id, clean=0)
        self._reread_next()
        self._sync()

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_name(
            f"{self.path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(self._now()))}"
        )
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).replace(aside.with_name(aside.name + suffix))
        text = f"the journal {self.path} is damaged ({reason}): it was set aside as {aside.name}, a new one begins"
        _log.error("%s", text)
        if self._alarm is not None:
            self._alarm(text)

    def _reread_next(self) -> None:
        self._next = int(self._db.execute("SELECT value FROM meta WHERE key = 'next'").fetchone()[0])

    def _set_meta(self, **values: Any) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _sync(self) -> None:
        """A transaction of its own with full syncing carries everything before it to the disk."""
        self._unsynced_since = None
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            self._set_meta(synced=self._next)
        except sqlite3.Error:
            _log.exception("the journal %s could not be synced", self.path)
        finally:
            with suppress(sqlite3.Error):  # then the next statement says so
                self._db.execute("PRAGMA synchronous = NORMAL")

    def _finish(self) -> None:
        if self._is_refused:
            return
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            self._set_meta(clean=1)
            self._db.close()
        except sqlite3.Error:
            _log.exception("the journal %s could not be closed in order", self.path)

    def _commit(self, rows: Sequence[Row]) -> Committed:
        before = self._next
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for row in rows:
                match row:
                    case FrameRow():
                        self._insert_frame(row)
                    case OwnRow():
                        self._insert_own(row)
                    case OpenedRow():
                        self._db.execute(
                            "INSERT INTO epochs (worker, epoch, pid, created, opened) VALUES (?, ?, ?, ?, ?)"
                            " ON CONFLICT DO UPDATE SET pid = coalesce(excluded.pid, pid),"
                            " created = coalesce(excluded.created, created)",
                            (row.worker, row.epoch, row.pid, row.created, self._now()),
                        )
                    case ClosedRow():
                        self._close_epoch(row)
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'next'", (self._next,))
            self._fail_as_told(stored=False)
            self._db.execute("COMMIT")
            self._fail_as_told(stored=True)
        except BaseException:
            with suppress(sqlite3.Error):  # there may be no transaction any more
                self._db.execute("ROLLBACK")
            self._next = before
            with suppress(sqlite3.Error):
                self._reread_next()
            raise
        if self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        return Committed(self._next - 1, self._next - before)

    def _fail_as_told(self, *, stored: bool) -> None:
        if self._failures and self._failures[0][1] is stored:
            raise self._failures.pop(0)[0]

    def _insert_frame(self, row: FrameRow) -> None:
        first_seq, last_seq, n = row.seqs[0], row.seqs[-1], len(row.seqs)
        seqs = None if last_seq - first_seq + 1 == n else msgspec.msgpack.encode(list(row.seqs))
        self._db.execute(
            "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._next, n, first_seq, last_seq, row.worker, row.epoch, row.transport, self._now(), seqs, row.blob),
        )
        self._db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", [(p, t, self._next) for p, t in row.tags])
        if row.marks is not None:
            self._db.execute(
                "INSERT INTO epochs (worker, epoch, critical, seq, missed, stored) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET critical = excluded.critical, seq = excluded.seq,"
                " missed = excluded.missed, stored = stored + excluded.stored",
                (row.worker, row.epoch, row.marks.critical, row.marks.seq, row.marks.missed, n),
            )
        self._next += n

    def _insert_own(self, row: OwnRow) -> None:
        known = self._entry(SUPERVISOR, 0)
        if known is not None and row.seq <= known.marks.seq:
            return  # a commit that seemed to fail had stored it
        self._insert_frame(
            FrameRow(
                worker=SUPERVISOR,
                epoch=0,
                transport=SUPERVISOR,
                seqs=(row.seq,),
                tags=((row.event.phase, row.event.type),),
                blob=join([fields_of(row.event)]),
                marks=Marks(row.seq, row.seq),
            )
        )

    def _close_epoch(self, row: ClosedRow) -> None:
        known = self._entry(row.worker, row.epoch)
        if known is not None and known.closed:
            return
        reported = self._finishes(row) if row.finishes else set()
        for finish in row.finishes:
            key = _finish_key(finish.event.type, finish.event.summary)
            if key not in reported:
                reported.add(key)
                self._insert_own(finish)
        self._db.execute(
            "INSERT INTO epochs (worker, epoch, opened, closed, missed) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET closed = excluded.closed, missed = excluded.missed",
            (row.worker, row.epoch, self._now(), self._now(), row.missed),
        )
        self._db.execute("DELETE FROM finished WHERE worker = ? AND epoch = ?", (row.worker, row.epoch))

    def _finishes(self, row: ClosedRow) -> set[tuple[str, ...]]:
        """Which finish events of this epoch the journal has, or had before retention."""
        types = {finish.event.type for finish in row.finishes}
        gone = self._db.execute("SELECT key FROM finished WHERE worker = ? AND epoch = ?", (row.worker, row.epoch))
        found: set[tuple[str, ...]] = {tuple(msgspec.msgpack.decode(key)) for (key,) in gone}
        for type_ in types:
            rows = self._db.execute(
                "SELECT DISTINCT f.blob FROM tags t JOIN frames f ON f.first_cursor = t.first_cursor"
                " WHERE t.type = ? AND f.worker = ? AND f.epoch = ?",
                (type_, row.worker, row.epoch),
            )
            for (blob,) in rows:
                with suppress(FrameError):  # it is no finish event then
                    found |= {_finish_key(fields[0], fields[5]) for fields in decode_fields(blob)}
        return found

    def _entry(self, worker: str, epoch: int) -> EpochEntry | None:
        row = self._db.execute(
            ENTRIES + " WHERE worker = ? AND epoch = ?",
            (worker, epoch),
        ).fetchone()
        return None if row is None else entry_of(row)

    def _retain(self, most_bytes: int | None, most_age: float | None) -> int:
        removed = 0
        if most_age is not None:
            removed += self._remove("at < ?", self._now() - most_age)
        while most_bytes is not None and self._bytes() > most_bytes:
            last = self._db.execute(
                "SELECT first_cursor FROM frames ORDER BY first_cursor LIMIT 1 OFFSET 63"
            ).fetchone()
            if last is None:
                break
            removed += self._remove("first_cursor <= ?", last[0])
        self._db.execute("PRAGMA incremental_vacuum(1000)").fetchall()
        return removed

    def _remove(self, condition: str, value: float) -> int:
        """Remove the oldest frames for which this holds, but no hole among them."""
        kept = " ".join(("SELECT min(first_cursor) FROM frames WHERE NOT", f"({condition})"))
        first = self._db.execute(kept, (value,)).fetchone()[0]
        bound = first if first is not None else self._next
        removed = self._db.execute(
            "SELECT coalesce(sum(n), 0) FROM frames WHERE first_cursor < ?", (bound,)
        ).fetchone()[0]
        if removed:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._keep_finishes(bound)
                self._db.execute("DELETE FROM tags WHERE first_cursor < ?", (bound,))
                self._db.execute("DELETE FROM frames WHERE first_cursor < ?", (bound,))
                self._set_meta(removed=bound - 1)
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # there may be no transaction any more
                    self._db.execute("ROLLBACK")
                raise
        return int(removed)

    def _keep_finishes(self, bound: int) -> None:
        """Remember which finish events go of epochs still open, so that their closing does not add them again."""
        rows = self._db.execute(
            "SELECT DISTINCT f.first_cursor, f.worker, f.epoch, f.blob FROM tags t"
            " JOIN frames f ON f.first_cursor = t.first_cursor"
            " JOIN epochs e ON e.worker = f.worker AND e.epoch = f.epoch"
            " WHERE t.type = ? AND t.first_cursor < ? AND e.closed IS NULL AND e.worker <> ?",
            (_FINISH_TYPE, bound, SUPERVISOR),
        ).fetchall()
        for _, worker, epoch, blob in rows:
            with suppress(FrameError):  # it is no finish event then
                keys = {_finish_key(f[0], f[5]) for f in decode_fields(blob) if f[0] == _FINISH_TYPE}
                found = [(worker, epoch, msgspec.msgpack.encode(key)) for key in keys]
                self._db.executemany("INSERT OR IGNORE INTO finished VALUES (?, ?, ?)", found)

    def _bytes(self) -> int:
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def _finish_key(type_: str, summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes an event about a finish record one: attempts are counted anew in each round of a message."""
    return (type_, *(str(summary.get(name, "")) for name in ("message", "round", "attempt")))
