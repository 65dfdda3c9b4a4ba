"""Keeps the Markdown files and the history in step: imports what people saved, then brings each view up to date.

It decides when a file may be read (once it has been still for a moment) and in which order things happen, so that a
crash or a save at any instant loses nothing: what a swap displaced is read before the file itself, a view is written
only after the file was read, and never over anything unread. What a text means is for `merge`, what a file should hold
for `views`, how bytes get to the disk for `files`. One reconciler per folder; that is the caller's duty.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from . import files
from .errors import StoreError
from .merge import read_edit
from .messages import DocumentState, Edit, State
from .topology import Document, Topology
from .views import render, template

STILL = 0.25  # seconds without a change before a file is read
STILL_SHORT = 2.0  # the same for an empty file, or one of less than half the length: an editor may be at it
REREAD = 60.0  # seconds after which a file is read again although its times and size are the same
MOST_BYTES = 4 * 1024 * 1024  # of one document

Clock = Callable[[], float]


class Documents(Protocol):
    """What the reconciler needs of the store."""

    @property
    def state(self) -> State: ...
    @property
    def topology(self) -> Topology: ...
    def refresh(self) -> State: ...
    def state_at(self, n: int, /) -> State: ...
    def create_documents(self, templates: Mapping[str, str], /) -> tuple[str, ...]: ...
    def import_edit(self, document: str, decide: Callable[[State], Edit | None], /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be brought in or written, and what to do about it. Nothing of it was lost."""

    file: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: files imported and views written (names), files it waits for, and problems as they are now."""

    imported: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.imported or self.written or self.waiting)


class _Look(NamedTuple):
    """What tells one content of a file from another without reading it."""

    inode: int
    size: int
    modified: int
    changed: int


@dataclass(slots=True)
class _File:
    """What is known of one path: its last look, since when it has been that, and what it held when read."""

    look: _Look | None = None
    since: float = 0.0
    length: int = 0  # when last in step
    clean: _Look | None = None  # the look of the file as it was in step with `revision`
    revision: tuple[int, str] = (0, "")
    read_at: float = 0.0
    stuck: _Look | None = None  # the look of a file that only a person can put right
    wrong: str = ""  # what is wrong with that one
    digest: bytes = b""  # of its content when last in step
    displaced: bytes = b""  # digest of what was read and imported before the last swap


@dataclass(slots=True)
class _Doing:
    imported: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def done(self) -> Step:
        return Step(tuple(self.imported), tuple(self.written), tuple(self.waiting), tuple(self.problems))


class _StuckError(Exception):
    """A file that is no document as it is; the text says why and what to do."""


class Reconciler:
    """Call `start` once, then `step` whenever the history or the folder may have changed, and every so often."""

    def __init__(self, store: Documents, folder: Path, clock: Clock = time.monotonic, wall: Clock = time.time) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._wall = wall
        self._files: dict[str, _File] = {}

    def start(self) -> Step:
        """Put missing documents on record, remove unfinished temps, and take a first step."""
        documents = self._store.topology.documents
        known = self._store.state.documents
        if missing := {d.name: template(d) for d in documents if d.name not in known}:
            self._store.create_documents(missing)
        temps, _ = files.left_overs(self._folder, tuple(document.file for document in documents))
        for temp in temps:
            files.remove(temp)
        return self.step()

    def step(self, now: float | None = None) -> Step:
        """Import what is still and changed, write what is behind. Cheap when nothing changed: one look per file."""
        now = self._clock() if now is None else now
        doing = _Doing()
        self._store.refresh()
        try:
            names = {path.name for path in self._folder.iterdir()}
        except OSError as error:
            return Step(problems=(Problem(str(self._folder), f"the documents' folder cannot be read: {error}"),))
        for document in self._store.topology.documents:
            try:
                self._reconcile(document, names, now, doing)
            except _StuckError as error:
                doing.problems.append(Problem(document.file, f"{document.file} {error}"))
            except (OSError, StoreError) as error:
                text = f"{document.file} could not be brought in step, and is tried again: {error}"
                doing.problems.append(Problem(document.file, text))
                doing.waiting.append(document.file)
        return doing.done()

    def settle(self, within: float = 5.0, pause: Callable[[float], None] = time.sleep) -> Step:
        """Step until nothing has to wait any more, at most so many seconds: for a command that ends afterwards."""
        until = self._clock() + within
        doing = _Doing()
        while True:
            step = self.step()
            doing.imported += step.imported
            doing.written += step.written
            if not step.waiting or self._clock() >= until:
                return Step(tuple(doing.imported), tuple(doing.written), step.waiting, step.problems)
            pause(STILL / 4)

    def clean(self) -> bool:
        """Whether all views are as last rendered for the store's state, nothing lies about and nothing is in motion.

        Look under the store's lock. A file that only a person can put right is not waited for.
        """
        try:
            names = {path.name for path in self._folder.iterdir()}
        except OSError:
            return False
        state = self._store.state
        for document in self._store.topology.documents:
            if names & {document.file + files.SWAP, document.file + files.BACKUP}:
                return False
            known = self._files.get(document.file, _File())
            look = _look(self._folder / document.file)
            if look is not None and look == known.stuck:
                continue
            if look is None or look != known.clean or known.revision != _revision(state, document):
                return False
        return True

    # One document.

    def _reconcile(self, document: Document, names: set[str], now: float, doing: _Doing) -> None:
        for name in (document.file + files.BACKUP, document.file + files.SWAP):
            if name in names and not self._take_displaced(document, self._folder / name, now, doing):
                return
        path = self._folder / document.file
        known = self._files.setdefault(document.file, _File())
        look = _look(path)
        if look is None:
            self._restore(document, path, known, now, doing)
            return
        revision = _revision(self._store.state, document)
        if look == known.clean and revision == known.revision and now - known.read_at < REREAD:
            return
        if look != known.clean and not self._is_still(known, look, now):
            doing.waiting.append(document.file)
            return
        if look == known.stuck:
            raise _StuckError(known.wrong)
        data = self._read(path, known, look)
        if data is None:  # it changed while it was read
            doing.waiting.append(document.file)
            return
        known.stuck, known.read_at = None, now
        text = data.decode()
        view = render(self._store.topology, document, self._store.state)
        digest = sha256(data).digest()
        if text != view and digest != known.digest:  # else it is a view of ours, and only the history moved on
            if self._import(document, text):
                doing.imported.append(document.file)
            revision = _revision(self._store.state, document)
            view = render(self._store.topology, document, self._store.state)
        if text == view:
            known.clean, known.revision, known.length, known.digest = look, revision, look.size, digest
            return
        known.displaced = digest
        self._swap(document, path, known, doing)

    def _take_displaced(self, document: Document, path: Path, now: float, doing: _Doing) -> bool:
        """Read what a swap displaced, once it is still, and remove it. False if that has to wait."""
        known = self._files.setdefault(path.name, _File())
        look = _look(path)
        if look is None:
            return True
        known.length = self._files.setdefault(document.file, _File()).length
        if not self._is_still(known, look, now):
            doing.waiting.append(document.file)
            return False
        data = self._read(path, known, look)
        if data is None:
            doing.waiting.append(document.file)
            return False
        # Mostly it is what was read before the swap; asking the history about its old revision would be dear.
        known_already = sha256(data).digest() == self._files[document.file].displaced
        if not known_already and self._import(document, data.decode()):
            doing.imported.append(document.file)
        if _look(path) != look:  # somebody still writes into it
            doing.waiting.append(document.file)
            return False
        files.remove(path)
        files.sync_folder(self._folder)
        del self._files[path.name]
        return True

    def _restore(self, document: Document, path: Path, known: _File, now: float, doing: _Doing) -> None:
        """A missing file is not a deletion: its view is put back, unless the name was taken meanwhile."""
        view = render(self._store.topology, document, self._store.state)
        data = view.encode()
        if not files.restore(path, data):
            doing.waiting.append(document.file)
            return
        doing.written.append(document.file)
        self._remember(path, known, data, _revision(self._store.state, document), now)

    def _swap(self, document: Document, path: Path, known: _File, doing: _Doing) -> None:
        """Put the present view in place of a file that was just read."""
        data = render(self._store.topology, document, self._store.state).encode()
        revision = _revision(self._store.state, document)
        swap = files.prepare(path, data)
        ours = swap.stat().st_ino
        try:
            how = files.exchange(swap, path)
        except FileNotFoundError:  # an editor has moved it away a moment ago; the next step sees what it puts there
            files.remove(swap)
            doing.waiting.append(document.file)
            return
        doing.waiting.append(document.file)  # what was displaced has to be looked at
        known.look = None
        if how == "moved away":
            return
        doing.written.append(document.file)
        if (look := _look(path)) is not None and (look.inode == ours or how == "linked"):
            self._remember(path, known, data, revision, known.read_at)

    def _remember(self, path: Path, known: _File, data: bytes, revision: tuple[int, str], now: float) -> None:
        """The file holds the view that was just put there, if it still does."""
        look = _look(path)
        with_view = look is not None and look.size == len(data) and path.read_bytes() == data and _look(path) == look
        known.clean, known.look = (look, look) if with_view else (None, look)
        known.revision, known.length, known.read_at, known.since = revision, len(data), now, now
        known.digest = sha256(data).digest()

    def _import(self, document: Document, text: str) -> bool:
        def decide(state: State) -> Edit | None:
            return read_edit(self._store.topology, document, text, state, self._state_at)

        return self._store.import_edit(document.name, decide) is not None

    def _state_at(self, n: int) -> State | None:
        try:
            return self._store.state_at(n)
        except StoreError:  # the history has no such record: the text is of another one
            return None

    def _is_still(self, known: _File, look: _Look, now: float) -> bool:
        """Whether the file has looked like this for long enough to be read.

        At the first look its times may tell that; of an empty or much shorter file they need not.
        """
        short = look.size == 0 or look.size * 2 < known.length
        if look != known.look:
            known.look, known.since = look, now
            age = self._wall() - max(look.modified, look.changed) / 1e9
            return not short and age > STILL_SHORT
        return now - known.since >= (STILL_SHORT if short else STILL)

    def _read(self, path: Path, known: _File, look: _Look) -> bytes | None:
        """The bytes of a still file, valid UTF-8; None if it changed meanwhile."""
        try:
            mode = path.lstat().st_mode
            data = path.read_bytes() if stat.S_ISREG(mode) and look.size <= MOST_BYTES else b""
        except FileNotFoundError:
            return None
        if _look(path) != look:
            return None
        if wrong := _wrong(mode, look.size, data):
            known.stuck, known.wrong = look, wrong
            raise _StuckError(wrong)
        return data


def _wrong(mode: int, size: int, data: bytes) -> str:
    """Why this is no document, and what to do about it; empty if it is one."""
    if stat.S_ISLNK(mode):
        return "is a symbolic link and is left alone: put the file itself into the folder"
    if not stat.S_ISREG(mode):
        return "is no file and is left alone: move it out of the way, the document then comes back"
    if size > MOST_BYTES:
        return f"has {size} bytes, at most {MOST_BYTES} are read; it is left alone: shorten it"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 from byte {error.start} on and is left alone: save it as UTF-8"
    return ""


def _look(path: Path) -> _Look | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return _Look(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _revision(state: State, document: Document) -> tuple[int, str]:
    known = state.documents.get(document.name, DocumentState())
    return known.n, known.hash
