"""The one door to the documents' truth: who may do what, in one hold of the lock per operation.

Each operation takes the lock, reads what others appended, checks rights and epochs, decides, appends one record and has
it on the disk when it returns. What a record means is decided in `replay`, how a state looks as Markdown in `views`.
A `Store` is for one process; its threads may share it. `state` is live: another thread that operates on the same
Store changes it under your eyes; hold `reading()` while looking, or open a Store of your own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from .archive import Archive, empty_state, held, remove
from .errors import (
    AlreadyReportedError,
    DamageError,
    FencedError,
    InvalidMessageError,
    NotAllowedError,
    StoreError,
    StoreUnavailableError,
    UnknownNameError,
)
from .files import patiently
from .history import Head, History
from .lock import Lock
from .messages import (
    APPLY,
    KINDS,
    MOST_TEXT,
    PRIORITIES,
    SECTIONS,
    SUPERVISOR,
    TRANSITIONS,
    USER,
    DocumentState,
    Draft,
    Edit,
    Effect,
    Epoch,
    Event,
    Limits,
    Message,
    Outcome,
    Question,
    Report,
    State,
    Status,
    Task,
    report_key,
)
from .queues import Recent
from .replay import (
    MOST_BASES,
    Record,
    Waiting,
    apply,
    at_work,
    base_in,
    entry,
    next_task,
    open_in,
    waiting_for_user,
)
from .replay import (
    held as held_by,
)
from .topology import DEFAULT, MASTER_PLAN, Document, Operation, Phase, Topology

V = TypeVar("V", Message, Report)

FOLDER = ".history"
MOST_DOCUMENT = 4 * 1024 * 1024  # bytes of one document
ENOUGH = 0.95  # completion of PRIMARY and SECONDARY from which on MASTER_PLAN may be updated
DEADLINE = 10.0  # seconds that an operation waits for the lock
ARCHIVE = "archive.db"
SNAPSHOT_EVERY = 200  # records, and one more for this many unfinished messages:
UNFINISHED_PER_RECORD = 1000
MOST_HELD = 10_000  # values in memory; beyond that, those that nobody wants of late are left to the archive
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+~/-]{0,127}")


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a post: its id, the task that it joined (None: it is one itself), and whether it is new."""

    id: str
    joined: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class FinishResult:
    """The record of a cycle; `late` if the task had moved on and was left alone; the ids of its posts, in order."""

    n: int
    late: bool
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: the last good record, and what is wrong with the one after it, where anything is."""

    n: int
    problem: str = ""
    bad: int = 0
    file: Path | None = None

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True)
class SetAside:
    """What became of a damaged history: its last good record, what was wrong with the next one, where the rest is."""

    n: int
    problem: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Unread:
    """What a document got since its reader last looked: messages posted into it, reports made in it, or a new text.

    `since` is the record up to which it had been read; 0 for a reader that never looked.
    """

    messages: tuple[Message, ...] = ()
    reports: tuple[Report, ...] = ()
    changed: bool = False
    since: int = 0

    def __bool__(self) -> bool:
        return self.changed


class Store:
    """The documents of one folder. Make it with `Store.open`."""

    def __init__(
        self,
        folder: Path,
        history: History,
        topology: Topology,
        clock: Callable[[], float],
        deadline: float,
    ) -> None:
        self.folder = folder
        self.topology = topology
        self._history = history
        self._clock = clock
        self._deadline = deadline
        self._lock = Lock(history.folder / "lock")
        self._mutex = threading.RLock()
        self._state = State()
        self._archive = Archive(history.folder / ARCHIVE)
        self._certain = Head()  # the head that this process has seen on the disk under the lock
        self._doubt = "nothing was read yet"  # why memory and disk may differ: the next operation clears it up
        self._damage: DamageError | None = None
        self._frozen = False  # opened although damaged
        self._snapshot_n = 0
        self._light_n = 0  # the record at which `refresh` last made room

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        topology: Topology = DEFAULT,
        head_file: Path | str | None = None,
        clock: Callable[[], float] = time.time,
        create: bool = True,
        limits: Limits | None = None,
        store_id: str | None = None,
        deadline: float = DEADLINE,
        damaged: bool = False,
    ) -> Store:
        """Open the history in `folder`/.history, or begin one.

        `head_file` keeps the head outside the folder, so that a wiped or cut history is noticed. `limits` and
        `store_id` count for a new history only. DamageError if the history is not sound (`verify` says more);
        with `damaged`, it is opened for reading up to the last good record, and `damage` says what is wrong.
        StoreError if there is none and `create` is false, or where symbolic links lead elsewhere.
        """
        place = Path(folder)
        inside = place / FOLDER
        outside = Path(head_file) if head_file is not None else None
        if inside.is_symlink():
            raise StoreError(f"{inside} is a symbolic link; the history never follows one. Put a folder there")
        history = History(inside, head_file=outside)
        if not history.exists():
            try:
                _require_none(history)
            except DamageError as error:
                if not damaged:
                    raise
                store = cls(place, history, topology, clock, deadline)
                store._give_in(error)
                return store
            if not create:
                raise StoreError(f"there is no history in {place}; begin one with `supervisor init`")
            _make_folder(inside)
        store = cls(place, history, topology, clock, deadline)
        try:
            store._begin(limits or Limits(), store_id, create=create)
        except DamageError as error:
            if not damaged:
                raise
            store._give_in(error)
        return store

    def _give_in(self, error: DamageError) -> None:
        """Be what the good records add up to, from now on: nothing is written, nothing read again."""
        self._damage, self._frozen = error, True
        if self._state.n == 0:  # not even the archive's place could be found: from the first record on
            self._state = empty_state()
            self._history.rewind()
            with suppress(DamageError):
                self._take_in()
        self._doubt = ""

    def _begin(self, limits: Limits, store_id: str | None, *, create: bool) -> None:
        before = self._history.outside_head()
        self.refresh()
        if self._state.n == 0:
            if not create:
                raise StoreError(f"the history in {self.folder} is empty; begin one with `supervisor init`")
            with self.hold(self._deadline):
                if self._state.n == 0:
                    data = {"store": store_id or uuid.uuid4().hex, "limits": asdict(limits)}
                    self._append(SUPERVISOR, "created", data)
            return
        self._history.check_outside_head(before)
        if self._history.stranded():
            self.refresh()
            _no_gap(self._history)

    # --- looking ---

    @property
    def state(self) -> State:
        """The replay up to the last operation or `refresh()`. Read only, and live: see the module."""
        return self._state

    @property
    def head(self) -> int:
        """The number of the last record known to this Store."""
        return self._state.n

    @property
    def damage(self) -> DamageError | None:
        """What was found wrong with the history; the store is read-only then."""
        return self._damage

    def refresh(self) -> State:
        """Read what others have appended, without the lock. Two `stat` calls if there is nothing."""
        with self._mutex:
            if self._frozen:
                return self._state
            if self._doubt:
                self._reload()
                return self._state
            try:
                self._take_in()
                self._lighten()
            except DamageError:
                # Read without the lock, a record may since have been taken back: its fsync failed. Then all is fine.
                self._reload()
            return self._state

    @contextmanager
    def reading(self) -> Iterator[State]:
        """The state, not changed by other threads of this process meanwhile. Keep it short; do not wait inside."""
        with self._mutex:
            yield self._state

    @contextmanager
    def hold(self, deadline: float = DEADLINE) -> Iterator[State]:
        """The lock and the state at the true head; nobody appends meanwhile. Operations of this thread still work."""
        if not self._history.folder.is_dir():
            raise DamageError("it is missing", n=1, file=self._history.folder)
        with self._lock.hold(deadline), self._mutex:
            self._ready()
            yield self._state

    def text(self, document: str) -> str:
        """The whole Markdown text of the document, as its view shows it."""
        from .views import render

        with self._mutex:
            return render(self.topology, self._document(document), self._state)

    def state_at(self, n: int) -> State:
        """The state as of record n, replayed from a snapshot before it or from the beginning."""
        with self._mutex:
            if n == self._state.n:
                return self._state
        other = History(self._history.folder)
        state = _restored(other, Archive(self._archive.path), self.topology, at_most=n)
        for record in other.read():
            if record.n > n:
                break
            apply(state, record, self.topology)
        if state.n != n:
            raise StoreError(f"the history has no record {n}; its last one is {state.n}")
        return state

    def records(self, since: int = 0) -> Iterator[Record]:
        """The records with n > since, from the disk, each checked."""
        return self._history.records(since)

    def waiting_for_user(self) -> Waiting:
        """What only a person can move on: blocked and quarantined messages, open questions."""
        with self._mutex:
            return waiting_for_user(self._state)

    @staticmethod
    def examine(folder: Path | str, *, topology: Topology = DEFAULT, head_file: Path | str | None = None) -> Verdict:
        """Check every record from the first, and the head outside, also of a history too damaged to open."""
        outside = Path(head_file) if head_file is not None else None
        return _verdict(History(Path(folder) / FOLDER, head_file=outside), topology, Head())

    def verify(self) -> Verdict:
        """The same for this store; a good verdict makes one writable again that was found damaged."""
        history = History(self._history.folder, head_file=self._history.head_file)
        verdict = _verdict(history, self.topology, self._certain)
        if verdict.ok and not self._frozen:
            with self._mutex:
                if self._damage is not None:
                    self._damage = None
                    self._doubt = "it was damaged"
        return verdict

    @classmethod
    def set_aside(
        cls, folder: Path | str, *, topology: Topology = DEFAULT, head_file: Path | str | None = None
    ) -> SetAside | None:
        """Move the first bad record of a damaged history, and all after it, out of the way; None if it is sound.

        A person's decision, never taken by itself: what the records said is in the documents' views only then. They
        are read as edits of unknown origin: what they have more is added, the rest is asked. That it was done is on
        record, with an alert to planning.
        """
        place, outside = Path(folder), Path(head_file) if head_file is not None else None
        history = History(place / FOLDER, head_file=outside)
        if not history.folder.is_dir():
            raise StoreError(f"there is no history in {place}, nothing can be set aside")
        with Lock(history.folder / "lock").hold(DEADLINE):
            verdict = _verdict(history, topology, Head())
            if verdict.ok:
                return None
            try:
                remove(history.folder / ARCHIVE)  # first: it tells of records that are about to go
            except OSError as error:
                raise StoreUnavailableError(
                    f"{history.folder / ARCHIVE} cannot be removed ({error.strerror}); nothing was set aside. "
                    "End what has it open and try again"
                ) from error
            aside = history.set_aside(verdict.n, f"aside-{verdict.n + 1:010d}")
            if outside is not None:
                outside.unlink(missing_ok=True)
        done = SetAside(verdict.n, verdict.problem, aside)
        cls.open(place, topology=topology, head_file=head_file)._tell_aside(done)  # noqa: SLF001  (our own)
        return done

    def _tell_aside(self, done: SetAside) -> None:
        text = (
            f"The history was damaged at record {done.n + 1} ({done.problem}). That record and all after it were set "
            f"aside in {done.folder.relative_to(self.folder).as_posix()}; their messages count only as far as the "
            "documents still show them. Look through the documents."
        )
        with self.hold() as state:
            data = {"bad": done.n + 1, "problem": done.problem, "folder": done.folder.name}
            alert = self._alert(_derived("set aside", state.store_id, str(state.n)), text, data)
            self._append(USER, "set aside", {**data, "posts": [alert]})

    # --- documents and messages ---

    def create_documents(self, templates: Mapping[str, str]) -> tuple[str, ...]:
        """Put the first text of documents on record; those that have one already stay. Returns the new ones' names."""
        with self.hold(self._deadline) as state:
            bases = {}
            for name, text in templates.items():
                document = self._document(name)
                known = state.documents.get(document.name)
                if known is None or not known.bases:
                    bases[document.name] = _text(f"the template of {document.name}", text, most=MOST_DOCUMENT)
            if bases:
                self._append(SUPERVISOR, "documents", {"bases": bases})
            return tuple(bases)

    def post(self, by: str, draft: Draft, *, id: str | None = None, epoch: int | None = None) -> Posted:  # noqa: A002
        """One message into its receiver's READ document, once: an id that is there already changes nothing.

        Without an id it gets a new one. NotAllowedError if `by` may not post there; InvalidMessageError for a text over
        64 KiB and the like; FencedError if `by` is a phase and `epoch` is not its present one.
        """
        _check_draft(draft)
        with self.hold(self._deadline) as state:
            self._check_post(by, draft)
            if epoch is not None:
                self._check_epoch(by, epoch)
            known = state.messages.get(id) if id is not None else None
            if known is None:
                chosen = _checked_id(id) if id is not None else self._new_id(0)
                item = entry(draft, chosen, self._thread(draft, None, chosen))
                self._append(by, "post", {"posts": [item]}, epoch or 0)
                return Posted(chosen, state.messages[chosen].joined, new=True)
            return Posted(known.id, known.joined, new=False)

    def answer(self, id: str, text: str, by: str = USER, *, part: str | None = None) -> int:  # noqa: A002
        """Answer a question, or a message that waits for a person: that opens again, with the text joined to it.

        One about items of a document does what it asks about if the answer is `APPLY`, and nothing if it is `LEAVE`.
        `id` may be of a part. An open message takes the answer in; a closed one cannot be answered, nor a quarantined
        one while another task of its thread is open. Returns the record.
        """
        if by != USER:
            raise NotAllowedError(f"{by} may not answer in the user's place")
        _text("the answer", text)
        with self.hold(self._deadline) as state:
            if part is not None and part in state.messages:
                return state.messages[part].n
            question = state.questions.get(id)
            if question is not None and question.answered:
                raise StoreError(f"{id} was answered already: {question.answer}")
            target, effects = id, []
            if question is None:
                message = self._message(id)
                message = self._message(message.joined) if message.joined is not None else message
                if Event.ANSWER not in TRANSITIONS[message.status] and message.status not in (
                    Status.OPEN,
                    Status.CLAIMED,
                ):
                    raise StoreError(
                        f"{message.id} is {message.status} and takes no answer; "
                        "untick or restore it in its document, or post a new task"
                    )
                beside = open_in(state, message.to, message.thread)
                if message.status is Status.QUARANTINED and beside is not None:
                    raise StoreError(
                        f"{message.id} has ended its workers, and meanwhile its thread goes on as {beside.id}: "
                        "answer that one, or this one when that is closed"
                    )
                target = message.id
            elif question.data.get("items") and question.options:
                text = text.strip().casefold()
                if text not in question.options:
                    raise InvalidMessageError(f"the answer to {id} is one of: {', '.join(question.options)}")
                effects = [self._wanted(item) for item in question.data["items"]] if text == APPLY else []
            chosen = _checked_id(part) if part is not None else self._new_id(0)
            return self._append(by, "answer", {"id": target, "text": text, "part": chosen, "effects": effects}).n

    def _wanted(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """What a save says of an item that the user was asked about, as the effect that it has now."""
        message = self._message(item["id"])
        undo = "untick" if message.status is Status.DONE else "restore"
        what = {True: "tick", False: undo, None: "delete"}[item["says"]]
        return {"what": what, "id": message.id, "seen": list(item["seen"]), "round": item["round"]}

    def ask(self, question: Question) -> int:
        """Put a question to the user; one with a known id is there already."""
        with self.hold(self._deadline) as state:
            known = state.questions.get(question.id)
            if known is not None:
                return known.n
            return self._append(SUPERVISOR, "question", _question(question)).n

    def import_edit(self, document: str, decide: Callable[[State], Edit | None]) -> int | None:
        """What a person's save did, as one record, decided under the lock; None if it did nothing."""
        target = self._document(document)
        with self.hold(self._deadline) as state:
            edit = decide(state)
            if edit is None or not (edit.effects or edit.questions or edit.base is not None):
                return None
            if edit.document.removesuffix(".md") != target.name:
                raise StoreError(f"an edit of {edit.document} was decided for {target.name}")
            if not self.topology.allows(USER, target, Operation.EDIT):
                raise NotAllowedError(f"{USER} may not edit {target.file}")
            data = {
                "document": target.name,
                "rev": edit.rev,
                "effects": [self._effect(target, effect) for effect in edit.effects],
                "questions": [_question(question) for question in edit.questions],
                "base": edit.base,
                "heard": edit.heard,
            }
            return self._append(USER, "import", data).n

    # --- phases and epochs ---

    def start_epoch(self, phase: str, epoch: int, *, died: bool, reason: str = "") -> int:
        """A new epoch, in one record: the old one is fenced, its claims end, a death counts (if `died`).

        The message that killed its worker once too often is quarantined, with its alert to the planning phase in the
        same record. An epoch that is the present one already is the same start, seen twice: then the head is returned.
        """
        self._phase(phase)
        with self.hold(self._deadline) as state:
            now = state.epochs.get(phase, Epoch())
            if now.number == epoch and not now.given_up:
                return state.n
            if epoch <= now.number:
                raise FencedError(f"epoch {epoch} of {phase} is not newer than its present one, {now.number}")
            posts = self._alerts(phase, died=died, reason=reason)
            data = {"phase": phase, "epoch": epoch, "died": died, "reason": reason, "posts": posts}
            return self._append(SUPERVISOR, "epoch", data, epoch).n

    def give_up(self, phase: str, *, died: bool, reason: str) -> int:
        """The supervisor stops restarting the phase: its epoch is fenced, its claims end, planning is told."""
        title = self._phase(phase).title
        with self.hold(self._deadline) as state:
            now = state.epochs.get(phase, Epoch())
            if now.given_up:
                return state.n
            id = gave_up_id(state, phase)  # noqa: A001
            alert = self._alert(id, f"{title} is not started again: {reason}", {"phase": phase, "reason": reason})
            posts = [*self._alerts(phase, died=died, reason=reason), alert]
            data = {"phase": phase, "died": died, "reason": reason, "posts": posts}
            return self._append(SUPERVISOR, "gave up", data, now.number).n

    def pause(self, phase: str, paused: bool, by: str = USER) -> int:  # noqa: FBT001  (the brief's own word)
        """Pause or resume a phase: a paused one claims nothing. Returns the record, or the head if it is so already."""
        self._phase(phase)
        with self.hold(self._deadline) as state:
            if state.epochs.get(phase, Epoch()).paused == paused:
                return state.n
            return self._append(by, "pause", {"phase": phase, "paused": paused}).n

    def set_limits(self, *, deaths: int) -> int:
        """From here on so many deaths quarantine a message. Returns the record, or the head if it is so already."""
        if deaths < 1:
            raise InvalidMessageError(f"a message is quarantined after one death at least, not {deaths}")
        with self.hold(self._deadline) as state:
            if state.limits.deaths == deaths:
                return state.n
            return self._append(SUPERVISOR, "limits", {"deaths": deaths}).n

    def claim(self, phase: str, epoch: int) -> Task | None:
        """The next task of the phase, claimed for this epoch; the one that it holds already, if it does.

        None if nothing is open or the phase is paused. FencedError if the epoch is not the present one.
        """
        self._phase(phase)
        with self.hold(self._deadline) as state:
            self._check_epoch(phase, epoch)
            task = held_by(state, phase)
            if task is None:
                chosen = None if state.epochs[phase].paused else next_task(state, phase)
                if chosen is None:
                    return None
                self._append(phase, "claim", {"phase": phase, "id": chosen.id}, epoch)
                task = state.messages[chosen.id]
            acting = tuple(
                state.messages[part] for part in task.parts if part not in task.settled and part not in task.heard
            )
            return Task(message=task, parts=acting, epoch=epoch, attempt=task.attempts, head=state.n)

    def finish(self, phase: str, epoch: int, task: Task, outcome: Outcome) -> FinishResult:
        """A cycle's completion, posts, report, strategic texts and tree, as ONE record.

        Said twice (after an error that hid a commit), it is the same record. If the task moved on meanwhile (a person
        ticked it, its round is over), it is left alone and the rest stands: `late`. Refused as a whole: NotAllowedError
        for a post or document the phase has no right to, FencedError, InvalidMessageError, AlreadyReportedError.
        """
        _check_outcome(outcome)
        with self.hold(self._deadline) as state:
            self._check_epoch(phase, epoch)
            message = self._message(task.id)
            if message.to != phase:
                raise NotAllowedError(f"{task.id} is a task of {message.to}, not of {phase}")
            known = state.finished.get(report_key(task.id, task.round))
            if known is not None:
                if (known.epoch, known.attempt) == (epoch, task.attempt):
                    return FinishResult(known.n, known.late, known.posts)
                raise AlreadyReportedError(
                    f"round {task.round} of {task.id} was reported in record {known.n} "
                    f"by epoch {known.epoch}, attempt {known.attempt}"
                )
            if not self.topology.allows(phase, self.topology.write_document(phase), Operation.REPORT):
                raise NotAllowedError(f"{phase} may not report")
            posts = []
            for ordinal, draft in enumerate(outcome.posts):
                self._check_post(phase, draft)
                id = _derived("post", task.id, str(task.round), str(ordinal))  # noqa: A001
                posts.append(entry(draft, id, self._thread(draft, task, id)))
            data = {
                "phase": phase,
                "task": task.id,
                "round": task.round,
                "attempt": task.attempt,
                "seen": list(task.message.parts),
                "result": outcome.result,
                "detail": outcome.detail,
                "report": list(outcome.report),
                "posts": posts,
                "strategic": self._strategic(phase, outcome),
                "tree": outcome.tree,
                "data": dict(outcome.data),
            }
            n = self._append(phase, "finish", data, epoch).n
            report = state.finished[report_key(task.id, task.round)]
            return FinishResult(n, report.late, report.posts)

    # --- what the supervisor puts on record ---

    def record_tree(self, head: str | None = None, snapshot: str | None = None, note: str = "") -> int:
        """The work branch's new head, or a new snapshot of the user's files; None leaves it as it is."""
        with self.hold(self._deadline):
            return self._append(SUPERVISOR, "tree", {"head": head, "snapshot": snapshot, "note": note}).n

    def record_delivery(self, delivery: Mapping[str, Any]) -> int:
        """What was written into the user's files, taken back, or left for a conflict (JSON values)."""
        with self.hold(self._deadline):
            return self._append(SUPERVISOR, "delivery", dict(delivery)).n

    # --- cursors ---

    def unread(self, reader: str, document: str) -> Unread:
        """What the document got since `mark_read`; cheap however long the history."""
        target = self._document(document)
        since = self._cursors(reader).get(target.name, 0)
        with self._mutex:
            state = self._state
            if state.documents.get(target.name, DocumentState()).n <= since:
                return Unread(since=since)
            messages: list[Message] = []
            reports: list[Report] = []
            if target.role == "read":
                messages = _since(state.index.received.get(target.phase or ""), state.messages, since)
            elif target.role == "write":
                reports = _since(state.index.reports.get(target.phase or ""), state.finished, since)
            return Unread(tuple(messages), tuple(reports), changed=True, since=since)

    def mark_read(self, reader: str, document: str, n: int | None = None) -> None:
        """The reader has seen the document up to record n (the head). Kept beside the history, not in it."""
        target = self._document(document)
        cursors = {**self._cursors(reader), target.name: self._state.n if n is None else n}
        path = self._cursor_file(reader)
        if path.parent.is_symlink():
            raise StoreError(f"{path.parent} is a symbolic link; the history never follows one. Remove it")
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(cursors), "utf-8")
            patiently(lambda: temporary.replace(path))
        except OSError as error:
            raise StoreUnavailableError(f"{path} cannot be written ({error.strerror}); all stays unread") from error

    def _cursors(self, reader: str) -> dict[str, int]:
        try:
            known = json.loads(self._cursor_file(reader).read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # never read, or lost: then everything is new
        return {str(k): v for k, v in known.items() if isinstance(v, int)} if isinstance(known, dict) else {}

    def _cursor_file(self, reader: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_-]{1,64}", reader):
            raise UnknownNameError(f"{reader!r} cannot be a reader's name")
        return self._history.folder / "cursors" / f"{reader}.json"

    # --- checks ---

    def _document(self, name: str) -> Document:
        try:
            return self.topology.document(name)
        except KeyError as error:
            raise UnknownNameError(error.args[0]) from None

    def _phase(self, key: str) -> Phase:
        try:
            return self.topology.phase(key)
        except KeyError as error:
            raise UnknownNameError(error.args[0]) from None

    def _message(self, id: str) -> Message:  # noqa: A002
        message = self._state.messages.get(id)
        if message is None:
            raise UnknownNameError(f"no message or question has the id {id!r}; `supervisor inbox` lists what waits")
        return message

    def _check_epoch(self, phase: str, epoch: int) -> None:
        now = self._state.epochs.get(phase, Epoch())
        if now.given_up:
            raise FencedError(f"{phase} was given up; epoch {epoch} of it writes nothing any more")
        if now.number != epoch or epoch == 0:
            raise FencedError(f"epoch {epoch} of {phase} writes nothing; its present epoch is {now.number}")

    def _check_post(self, by: str, draft: Draft) -> None:
        self._phase(draft.to)
        document = self.topology.read_document(draft.to)
        if not self.topology.allows(by, document, Operation.POST):
            raise NotAllowedError(f"{by} may not post into {document.file}")

    def _thread(self, draft: Draft, task: Task | None, id: str) -> str:  # noqa: A002
        if draft.thread is not None:
            return draft.thread
        answered = self._state.messages.get(draft.re) if draft.re is not None else None
        if answered is not None:
            return answered.thread
        return task.thread if task is not None else id

    def _strategic(self, phase: str, outcome: Outcome) -> dict[str, str]:
        """The new whole texts, merged with what came since the cycle read; those that change nothing are left out."""
        if not outcome.strategic:
            return {}
        from .merge import merge_text
        from .views import completion, render

        texts: dict[str, str] = {}
        for name, mine in outcome.strategic.items():
            document = self._document(name)
            if not self.topology.allows(phase, document, Operation.REWRITE):
                raise NotAllowedError(f"{phase} may not rewrite {document.file}")
            if document.name not in outcome.read and name not in outcome.read:
                raise InvalidMessageError(f"the outcome rewrites {document.file} without saying which revision it read")
            read = outcome.read.get(document.name, outcome.read.get(name, 0))
            before = render(self.topology, document, self._document_at(document.name, read))
            if mine == before:
                continue
            now = render(self.topology, document, self._state)
            merged = mine if now == before else merge_text(before, mine, now)
            if merged != now:
                texts[document.name] = merged
        if MASTER_PLAN in texts:
            ahead = dict(self._state.documents)
            for name, text in texts.items():
                ahead[name] = replace(ahead.get(name, DocumentState()), base=text)
            done = completion(State(documents=ahead))
            if done < ENOUGH:
                raise NotAllowedError(
                    f"{phase} may update {MASTER_PLAN}.md from {ENOUGH:.0%} completion of the primary and secondary "
                    f"objectives on; it is {done:.1%}"
                )
        return texts

    def _document_at(self, name: str, n: int) -> State:
        """A state that holds just this document as it was after record n."""
        now = self._state.documents.get(name, DocumentState())
        if now.n <= n:
            return State(documents={name: now})
        if n == 0:
            return State()
        bases = [base for base in now.bases if base <= n]
        if not bases and len(now.bases) >= MOST_BASES:
            return self.state_at(n)
        base = ""
        if bases:
            base = base_in(self._history.record(bases[-1]), name) or ""
        record = self._history.record(n)
        old = DocumentState(n=n, hash=record.hash, at=record.at, by=record.by, base=base, bases=tuple(bases))
        return State(documents={name: old})

    def _effect(self, document: Document, effect: Effect) -> dict[str, Any]:
        data: dict[str, Any] = {
            "what": effect.what,
            "id": _checked_id(effect.id),
            "seen": list(effect.seen),
            "round": effect.round,
            "done": effect.done,
        }
        if effect.what == "add":
            if document.phase is None or effect.kind is None:
                raise InvalidMessageError(f"an edit of {document.file} adds a message without a receiver or kind")
            draft = Draft(
                to=document.phase,
                kind=effect.kind,
                text=effect.text,
                priority=effect.priority,
                section=effect.section,
                re=effect.re,
            )
            _check_draft(draft)
            about = self._state.messages.get(effect.re) if effect.re else None
            data["draft"] = entry(draft, effect.id, about.thread if about is not None else effect.id)
        return data

    def _alerts(self, phase: str, *, died: bool, reason: str) -> list[dict[str, Any]]:
        """The alert for each message that this death quarantines."""
        if not died:
            return []
        alerts = []
        for message in at_work(self._state, phase):
            if message.status is not Status.CLAIMED or message.deaths + 1 < self._state.limits.deaths:
                continue
            id = _derived("quarantine", message.id, str(message.round))  # noqa: A001
            text = (
                f"{message.kind} {message.id} of {self._phase(phase).title} is quarantined: its worker died "
                f"{message.deaths + 1} times while at it{f' ({reason})' if reason else ''}. "
                f'It waits for the user: supervisor answer {message.id} "…"'
            )
            alerts.append(self._alert(id, text, {"phase": phase, "quarantined": message.id, "reason": reason}))
        return alerts

    def _alert(self, id: str, text: str, data: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
        planner = next((p.key for p in self.topology.phases if p.plans), self.topology.phases[0].key)
        draft = Draft(to=planner, kind="Alert", text=_shortened(text), priority="HIGH", data=data)
        return entry(draft, id, id)

    def _new_id(self, ordinal: int) -> str:
        """Under the lock: unique, because the number of the record to come is; the same in a replayed run."""
        return _derived("new", self._state.store_id, str(self._state.n + 1), str(ordinal))

    # --- reading and writing ---

    def _ready(self) -> None:
        """Under the lock: memory is what the disk says, the tail is sound, and the last trouble is over."""
        if self._damage is not None:
            raise self._damage
        try:
            if self._doubt:
                self._reload()
            else:
                try:
                    self._take_in()
                except DamageError:
                    self._reload()
            self._history.repair()
            self._take_in()
        except DamageError as error:
            self._damage = error
            raise
        self._certain = self._history.head

    def _take_in(self) -> None:
        doubt, self._doubt = self._doubt, "a record could not be applied"
        for record in self._history.read():
            apply(self._state, record, self.topology)
        self._doubt = doubt

    def _reload(self) -> None:
        """Forget what is in memory and read the disk: the snapshot, if there is a sound one, and what follows it."""
        self._doubt = "the history could not be read"
        self._state = _restored(self._history, self._archive, self.topology)
        self._snapshot_n = self._state.n
        self._take_in()
        self._doubt = "the history was replaced"
        _require_same(self._history, self._certain)
        self._doubt = ""

    def _append(self, by: str, kind: str, data: Mapping[str, Any], epoch: int = 0) -> Record:
        """Under the lock: one record, on the disk and in the state when this returns."""
        at = _iso(self._clock())
        try:
            record = self._history.append(at=at, by=by, epoch=epoch, kind=kind, data=data)
        except StoreUnavailableError:
            self._doubt = "the disk did not take a record"
            raise
        self._certain = self._history.head
        self._doubt = "a record could not be applied"
        apply(self._state, record, self.topology)
        self._doubt = ""
        queues = self._state.index.unfinished.values()
        if record.n - self._snapshot_n >= SNAPSHOT_EVERY + sum(map(len, queues)) // UNFINISHED_PER_RECORD:
            saved = self._archive.save(self._history.position, self._state, self._history.holds)
            self._snapshot_n = record.n  # if it fails, opening takes longer
            if saved and held(self._state) > MOST_HELD:
                self._archive.lighten(self._state, lambda n: _rebuilt(self._history.folder, self.topology, n))
        return record

    def _lighten(self) -> None:
        """Who only looks saves nothing: forget all and begin from what others have saved."""
        if self._state.n - self._light_n >= 10 * SNAPSHOT_EVERY and held(self._state) > MOST_HELD:
            self._reload()
            self._light_n = self._state.n


# --- Values -----------------------------------------------------------------------------------------------------------


def _verdict(history: History, topology: Topology, certain: Head) -> Verdict:
    before = history.outside_head()
    state = State()
    try:
        _require_there(history)
        for record in history.read():
            apply(state, record, topology)
        if history.stranded():  # begun by somebody else while we read, or behind a gap
            for record in history.read():
                apply(state, record, topology)
            _no_gap(history)
        history.check_outside_head(before)
        _require_same(history, certain)
    except DamageError as error:
        return Verdict(state.n, error.what, error.n, error.file)
    return Verdict(state.n)


def _require_none(history: History) -> None:
    """Where the first segment is missing, nothing tells of a history that was there."""
    if history.segments() or (history.folder / ARCHIVE).exists():
        raise DamageError("it is missing, although other parts of the history are there", n=1, file=history.folder)
    head = history.outside_head()
    if head is not None and head.n:
        history.check_outside_head(head)


def _require_there(history: History) -> None:
    if not history.exists():
        raise DamageError("it is missing", n=1, file=history.folder)


def _require_same(history: History, certain: Head) -> None:
    """What was on the disk for certain still is."""
    if certain.n > history.head.n:
        raise DamageError(
            f"it was there, and the history ends at record {history.head.n}: it was cut",
            n=certain.n,
            file=history.folder,
        )
    if certain.n and certain != history.head and history.record(certain.n).hash != certain.hash:
        raise DamageError("it is not the record that was there: the history was replaced", n=certain.n)


def _no_gap(history: History) -> None:
    if (first := history.stranded()) > 0:
        raise DamageError(
            f"it is missing, although a segment beginning with record {first} is there",
            n=history.head.n + 1,
            file=history.folder,
        )


def _make_folder(inside: Path) -> None:
    try:
        inside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"{inside} cannot be made: {error.strerror}") from error


def _restored(history: History, archive: Archive, topology: Topology, at_most: int | None = None) -> State:
    """The newest archived state, with the history's position behind it; else an empty one, from the beginning."""
    history.rewind()

    found = archive.load(history.holds, lambda n: _rebuilt(history.folder, topology, n), at_most)
    if found is None:
        return empty_state()
    position, state = found
    history.rewind(position)
    return state


def _rebuilt(folder: Path, topology: Topology, n: int) -> State:
    """The state as of record n, without an archive."""
    state = State()
    for record in History(folder).read():
        apply(state, record, topology)
        if record.n == n:
            break
    return state


def _since(recent: Recent | None, values: Mapping[str, V], since: int) -> list[V]:
    """Those of the values that came after record `since`, oldest first; `recent` has the last ones' keys."""
    if recent is None:
        return []
    found: list[V] = []
    for key in reversed(recent.ids):
        value = values[key]
        if value.n <= since:
            return found[::-1]
        found.append(value)
    if len(recent.ids) == recent.count:
        return found[::-1]
    who = found[0]
    return [value for value in values.values() if value.n > since and _same_place(value, who)]


def _same_place(one: Message | Report, other: Message | Report) -> bool:
    """Posted to the same receiver, or reported by the same phase."""
    if isinstance(one, Message):
        return isinstance(other, Message) and one.to == other.to
    return isinstance(other, Report) and one.phase == other.phase


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def gave_up_id(state: State, phase: str) -> str:
    """The id of the alert that tells planning that the phase's present epoch is the last one for now."""
    return _derived("gave up", state.store_id, phase, str(state.epochs.get(phase, Epoch()).number))


def _derived(*words: str) -> str:
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return base64.b32encode(digest[:10]).decode().lower()[:12]


def _checked_id(id: str) -> str:  # noqa: A002
    if not _ID.fullmatch(id) or "--" in id:
        raise InvalidMessageError(
            f"{id!r} cannot be an id: at most 128 letters, digits and . _ : @ + ~ / -, beginning with a letter or digit"
        )
    return id


def _text(what: str, text: str, *, most: int = MOST_TEXT) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidMessageError(f"{what} is not valid Unicode: {error}") from error
    if size > most:
        raise InvalidMessageError(f"{what} has {size} bytes; at most {most} are taken. Shorten it or point to a file")
    if not text.strip():
        raise InvalidMessageError(f"{what} is empty")
    return text


def _shortened(text: str) -> str:
    return text.encode()[: MOST_TEXT - 4].decode(errors="ignore") if len(text.encode()) > MOST_TEXT else text


def _check_draft(draft: Draft) -> None:
    _text(f"the text of the {draft.kind} to {draft.to}", draft.text)
    for what, value, known in (
        ("kind", draft.kind, KINDS),
        ("priority", draft.priority, PRIORITIES),
        ("section", draft.section, tuple(SECTIONS)),
    ):
        if value not in known:
            raise InvalidMessageError(f"{value!r} is no {what}; there are: {', '.join(known)}")
    if draft.thread is not None and (not 0 < len(draft.thread) <= 256 or not draft.thread.isprintable()):
        raise InvalidMessageError(f"{draft.thread!r} cannot name a thread: 1 to 256 printable characters can")


def _check_outcome(outcome: Outcome) -> None:
    if outcome.result not in ("done", "blocked"):
        raise InvalidMessageError(f"{outcome.result!r} is no result; there are: done, blocked")
    _text("the outcome's detail", outcome.detail)
    for line in outcome.report:
        _text("a line of the report", line or " -")
    for draft in outcome.posts:
        _check_draft(draft)
    for name, text in outcome.strategic.items():
        _text(f"the new text of {name}", text, most=MOST_DOCUMENT)


def _question(question: Question) -> dict[str, Any]:
    _text("the question", question.text)
    return {
        "id": _checked_id(question.id),
        "about": question.about,
        "text": question.text,
        "options": list(question.options),
        "data": dict(question.data),
    }
