"""What the history adds up to, kept on disk beside it, so that opening does not read all of it again.

A snapshot holds what every process needs at once (epochs, documents, who has what to do); messages, threads and
reports lie beside it row by row and are fetched when asked for. Everything here can be rebuilt from the history and is:
a missing, damaged or foreign archive costs time, never an answer. `save` is for the holder of the store's lock.

A row is a value as of some record; the newest one not after a state's base is that state's. So a process with an older
state reads right while others save newer ones, and a snapshot of long ago still finds its rows.
"""

from __future__ import annotations

import gc
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from .errors import DamageError
from .history import Head, Position
from .messages import (
    DocumentState,
    Epoch,
    Limits,
    Message,
    Question,
    Report,
    State,
)
from .queues import Queue, Recent

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

FORMAT = 1
KEEP_ONE_IN = 4096  # records: of older snapshots one is kept in so many, for questions about the past
_TABLES = """
create table marks (n integer primary key, hash text, segment integer, offset integer, crc integer,
                                  core blob);
create table rows (id integer primary key, space integer, key text, n integer, crc integer, value blob,
                                 unique (space, key, n));
"""
_SPACES: Mapping[str, tuple[int, Any]] = {
    "messages": (0, Message),
    "threads": (1, list[str]),
    "finished": (2, Report),
    "renewed": (3, int),
}


_PASSING = frozenset({5, 6, 7, 8, 10, 13, 14})  # SQLite: busy, locked, no memory, read-only, I/O, full, cannot open


class _BrokenError(Exception):
    """The archive cannot be used as it is."""


class Source:
    """The rows as of one record, shared by the tables of one state; on any trouble it turns to `rebuild` for good."""

    def __init__(self, path: Path, n: int, rebuild: Callable[[], State]) -> None:
        self.n = n
        self._rebuild = rebuild
        self._rebuilt: State | None = None
        self._mutex = threading.Lock()
        self._connection = _connect(path, must_exist=True)
        weakref.finalize(self, self._connection.close)

    def has(self, n: int, hash_: str) -> bool:
        """Whether a state was saved as of that record."""
        found = self._connection.execute("select 1 from marks where n = ? and hash = ?", (n, hash_)).fetchone()
        return found is not None

    @property
    def is_broken(self) -> bool:
        """Whether the archive turned out to be of no use."""
        return self._rebuilt is not None

    def get(self, name: str, key: str) -> Any:
        """The value of that key, or None."""
        with self._mutex:
            return self._either(
                lambda: self._row(name, key),
                lambda state: getattr(state, name).get(key),
            )

    def all(self, name: str) -> dict[str, Any]:
        """Every key and value, in order of their first appearance."""
        with self._mutex:
            found: dict[str, Any] = self._either(lambda: self._rows(name), lambda state: dict(getattr(state, name)))
            return found

    def _either(self, read: Callable[[], Any], otherwise: Callable[[State], Any]) -> Any:
        if self._rebuilt is None:
            try:
                return read()
            except _troubles():
                self._rebuilt = self._rebuild()
                self._connection.close()  # Windows removes no file that somebody has open
        return otherwise(self._rebuilt)

    def _row(self, name: str, key: str) -> Any:
        space, _ = _SPACES[name]
        found = self._connection.execute(
            "select crc, value from rows where space = ? and key = ? and n <= ? order by n desc limit 1",
            (space, key, self.n),
        ).fetchone()
        return None if found is None else _checked(_decoders()[name], *found)

    def _rows(self, name: str) -> dict[str, Any]:
        space, _ = _SPACES[name]
        decoder, blobs = _decoders()[name], {}
        for key, crc, value in self._connection.execute(
            "select key, crc, value from rows where space = ? and n <= ? order by id", (space, self.n)
        ):
            blobs[key] = crc, value  # later rows are newer, and an earlier one has its place
        with _not_collecting():
            return {key: _checked(decoder, *blob) for key, blob in blobs.items()}


class Table(MutableMapping[str, T], Generic[T]):
    """A dict of which not all is in memory: fetched by key, loaded as a whole only when gone through or counted.

    What was neither asked for nor changed between two calls of `let_go` is fetched again when somebody wants it.
    """

    __slots__ = ("_absent", "_before", "_known", "_name", "_source", "changed")

    def __init__(self, name: str, source: Source | None) -> None:
        self._name = name
        self._source = source  # None: all is in memory
        self._known: dict[str, T] = {}  # what was fetched, and all that changed since
        self._before: dict[str, T] = {}  # what was known when `let_go` was last called
        self._absent: set[str] = set()  # keys that were asked for in vain
        self.changed: dict[str, None] = {}  # keys that changed since `forget_changes`

    def __getitem__(self, key: str) -> T:
        if key not in self._known:
            if key in self._absent or self._source is None:
                raise KeyError(key)
            found = self._before.pop(key, None)
            if found is None:
                found = self._source.get(self._name, key)
            if found is None:
                self._absent.add(key)
                raise KeyError(key)
            self._known[key] = found
        return self._known[key]

    def __setitem__(self, key: str, value: T) -> None:
        self._known[key] = value
        self._absent.discard(key)
        self.changed[key] = None

    def __delitem__(self, key: str) -> None:
        raise TypeError("the history forgets nothing")

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Table):
            return self._all() == other._all()
        return self._all() == other

    __hash__ = None  # type: ignore[assignment]  # as a dict

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()

    def keys(self) -> Any:
        return self._all().keys()

    def _all(self) -> dict[str, T]:
        if self._source is not None:
            loaded = self._source.all(self._name)
            loaded.update(self._known)
            self._known, self._before, self._source = loaded, {}, None
        return self._known

    def held(self) -> int:
        """How many values are in memory."""
        return len(self._known) + len(self._before)

    def let_go(self, source: Source) -> None:
        """All is in the rows of `source`: what is not wanted until the next such call need not be kept."""
        self._before, self._known, self._absent, self._source = self._known, {}, set(), source

    def known(self, key: str) -> T:
        """The value of a changed key."""
        return self[key]

    def forget_changes(self) -> None:
        self.changed = {}


def empty_state() -> State:
    """A state before the first record, of which an archive can be made."""
    tables: dict[str, Any] = {name: Table(name, None) for name in _SPACES}
    return State(**tables)


class Archive:
    """The file. `saved` is where the tables' changes begin: everything before is in the rows, if it has that mark."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = Head()
        self._source: Source | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def load(
        self, sound: Callable[[Position], bool], rebuild: Callable[[int], State], at_most: int | None = None
    ) -> tuple[Position, State] | None:
        """The newest state that is of this history (`sound`), not after `at_most`; None if there is none."""
        self._saved = Head()
        if not self.exists():
            return None
        try:
            with closing(_connect(self.path, must_exist=True)) as connection:
                marks = connection.execute(
                    "select segment, offset, n, hash, crc, core from marks where core is not null and n <= ? "
                    "order by n desc limit 2",
                    (at_most if at_most is not None else 1 << 62,),
                ).fetchall()
            for segment, offset, n, hash_, crc, core in marks:
                position = Position(segment, offset, Head(n, hash_))
                if zlib.crc32(core) != crc or not sound(position):
                    continue
                source = Source(self.path, n, lambda n=n: rebuild(n))  # type: ignore[misc]
                state = _unpacked(core, source)
                if (state.n, state.hash) == (n, hash_):
                    self._saved, self._source = position.head, source
                    return position, state
        except _troubles():
            return None  # another version's, or damaged: the history itself is read
        return None

    def save(self, position: Position, state: State, sound: Callable[[Position], bool]) -> bool:
        """Keep the state; False if that did not work: the next one is then read from further back."""
        try:
            if self._source is not None and self._source.is_broken:
                remove(self.path)
                self._saved, self._source = Head(), None
            try:
                self._save(position, state, sound)
            except _troubles() as error:
                if _passes(error):
                    return False
                remove(self.path)
                self._save(position, state, sound)
        except _troubles():
            return False
        for table in _tables(state).values():
            table.forget_changes()
        self._saved = position.head
        return True

    def lighten(self, state: State, rebuild: Callable[[int], State]) -> None:
        """Right after a `save`: keep of the tables what was wanted of late. If that cannot be, all stays in memory."""
        try:
            source = Source(self.path, state.n, lambda n=state.n: rebuild(n))  # type: ignore[misc]
            if not source.has(state.n, state.hash):
                return  # somebody has begun the file anew
        except _troubles():
            return
        for table in _tables(state).values():
            table.let_go(source)
        self._source = source

    def _save(self, position: Position, state: State, sound: Callable[[Position], bool]) -> None:
        head = position.head
        encode = msgspec.msgpack.Encoder().encode
        with closing(_connect(self.path)) as connection:
            if connection.execute("select 1 from sqlite_master where name = 'marks'").fetchone() is None:
                connection.executescript(_TABLES)
            connection.execute("begin immediate")
            with connection:
                marked = (
                    self._saved.n
                    and connection.execute(
                        "select 1 from marks where n = ? and hash = ?", (self._saved.n, self._saved.hash)
                    ).fetchone()
                )
                if not marked:  # somebody began the file anew: all of it is missing, not only what changed
                    self._require_ours(connection, head, sound)
                for name, table in _tables(state).items():
                    space, _ = _SPACES[name]
                    rows = ((key, encode(table.known(key))) for key in (table.changed if marked else table))
                    connection.executemany(
                        "insert or replace into rows (space, key, n, crc, value) values (?, ?, ?, ?, ?)",
                        ((space, key, head.n, zlib.crc32(value), value) for key, value in rows),
                    )
                core = _packed(state)
                connection.execute(
                    "insert or replace into marks values (?, ?, ?, ?, ?, ?)",
                    (head.n, head.hash, position.segment, position.offset, zlib.crc32(core), core),
                )
                connection.execute(
                    "update marks set core = null where core is not null "
                    "and n not in (select n from marks order by n desc limit 2) "
                    "and n not in (select min(n) from marks where core is not null group by n / ?)",
                    (KEEP_ONE_IN,),
                )

    @staticmethod
    def _require_ours(connection: sqlite3.Connection, head: Head, sound: Callable[[Position], bool]) -> None:
        newest = connection.execute("select segment, offset, n, hash from marks order by n desc limit 1").fetchone()
        if newest is None:
            return
        segment, offset, n, hash_ = newest
        try:
            ours = n <= head.n and sound(Position(segment, offset, Head(n, hash_)))
        except DamageError:
            ours = False
        if not ours:
            raise _BrokenError("it is of another history")


def remove(path: Path) -> None:
    """Remove an archive with what the database keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def held(state: State) -> int:
    """How many messages, threads and reports of the state are in memory."""
    return sum(table.held() for table in _tables(state).values())


def _tables(state: State) -> dict[str, Table[Any]]:
    return {name: table for name in _SPACES if isinstance(table := getattr(state, name), Table)}


# --- The core of a state ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    """A state without its tables. Queues are joined to one text each: that is quickest to take apart."""

    format: int
    store_id: str
    limits: Limits
    n: int
    hash: str
    at: str
    status_lines: dict[str, tuple[str, ...]]
    epochs: dict[str, Epoch]
    documents: dict[str, DocumentState]
    questions: dict[str, Question]
    tree: str | None
    snapshot: str | None
    deliveries: list[dict[str, Any]]
    unfinished: dict[str, str]
    at_work: dict[str, list[str]]
    blockers: dict[str, list[str]]
    recent: dict[str, dict[str, Recent]]


_PLAIN = tuple(
    field.name
    for field in fields(_Core)
    if field.name not in ("format", "deliveries", "unfinished", "at_work", "blockers", "recent")
)
_RECENT = ("closed", "received", "sent", "reports", "completed")


def _packed(state: State) -> bytes:
    index = state.index
    core = _Core(
        format=FORMAT,
        deliveries=[dict(delivery) for delivery in state.deliveries],
        unfinished={to: "\n".join(queue.entries) for to, queue in index.unfinished.items()},
        at_work={to: list(ids) for to, ids in index.at_work.items()},
        blockers={by: list(ids) for by, ids in index.blockers.items()},
        recent={name: getattr(index, name) for name in _RECENT},
        **{name: getattr(state, name) for name in _PLAIN},
    )
    return msgspec.msgpack.encode(core)


def _unpacked(body: bytes, source: Source) -> State:
    with _not_collecting():
        core = msgspec.msgpack.decode(body, type=_Core)
        if core.format != FORMAT:
            raise ValueError(f"format {core.format}")
        tables: dict[str, Any] = {name: Table(name, source) for name in _SPACES}
        state = State(deliveries=list(core.deliveries), **tables, **{name: getattr(core, name) for name in _PLAIN})
        index = state.index
        index.unfinished = {to: Queue(text.split("\n") if text else []) for to, text in core.unfinished.items()}
        index.at_work = {to: dict.fromkeys(ids) for to, ids in core.at_work.items()}
        index.blockers = {by: dict.fromkeys(ids) for by, ids in core.blockers.items()}
        for name in _RECENT:
            setattr(index, name, core.recent[name])
        return state


@contextmanager
def _not_collecting() -> Iterator[None]:
    """Nothing of what is made here is garbage, and looking for some takes longer than the rest."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


# --- The database -----------------------------------------------------------------------------------------------------


def _connect(path: Path, *, must_exist: bool = False) -> sqlite3.Connection:
    """Autocommit, shared by threads (its users lock), durable against kills; after a power loss rows may be missing."""
    import sqlite3  # only where there is an archive: small crews never need it

    if path.is_symlink():
        raise _BrokenError("it is a symbolic link; the history never follows one")
    if must_exist and not path.exists():
        raise sqlite3.OperationalError(f"{path} is not there")
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode = wal").fetchone()
        connection.execute("pragma synchronous = normal")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _troubles() -> tuple[type[BaseException], ...]:
    """What tells that an archive is damaged, of another version, or out of reach."""
    import sqlite3

    known = (msgspec.DecodeError, ValueError, TypeError, AttributeError, LookupError)
    return (_BrokenError, sqlite3.Error, OSError, *known)


def _passes(error: BaseException) -> bool:
    """Whether it is the disk's or another's doing, and the archive itself is as good as it was."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # what is above says more about the same
    return isinstance(error, OSError) or code in _PASSING


@cache
def _decoders() -> Mapping[str, Any]:
    return {name: msgspec.msgpack.Decoder(type_) for name, (_, type_) in _SPACES.items()}


def _checked(decoder: Any, crc: int, value: bytes) -> Any:
    if zlib.crc32(value) != crc:
        raise _BrokenError("a row is not what was written")
    return decoder.decode(value)
