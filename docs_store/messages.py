"""What the history adds up to: messages, their states and transitions, reports, documents. Values only.

`replay.apply(state, record)` computes the next `State` from a record; `views.render(state, document)` shows one as
Markdown; `merge` reads a person's edit of such a view. None of them knows a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, overload

from .queues import Queue, Recent

USER = "user"
SUPERVISOR = "supervisor"

Kind = Literal[
    "Issue",
    "Fix",
    "Fixed",
    "Verify",
    "Implement",
    "Implemented",
    "Review",
    "Approved",
    "Blocker",
    "Resolved",
    "Question",
    "Answer",
    "Alert",
    "Assess",
]
KINDS: tuple[Kind, ...] = (
    "Issue",
    "Fix",
    "Fixed",
    "Verify",
    "Implement",
    "Implemented",
    "Review",
    "Approved",
    "Blocker",
    "Resolved",
    "Question",
    "Answer",
    "Alert",
    "Assess",
)
Priority = Literal["HIGH", "MEDIUM", "LOW"]
PRIORITIES: tuple[Priority, ...] = ("HIGH", "MEDIUM", "LOW")
Section = Literal["tasks", "context", "requirements", "notes"]
SECTIONS: Mapping[Section, str] = {
    "tasks": "Priority Tasks",
    "context": "Context",
    "requirements": "Requirements",
    "notes": "Notes",
}

MOST_TEXT = 64 * 1024  # bytes of one message's text, in UTF-8
MOST_SHOWN_OPEN = 50
MOST_SHOWN_CLOSED = 20
MOST_RECENT = 64  # ids at hand of what was closed, posted and reported last


class Status(StrEnum):
    """Where a message is. Only `open` ones are work; `blocked` and `quarantined` ones wait for a person."""

    OPEN = "open"
    CLAIMED = "claimed"
    DONE = "done"
    BLOCKED = "blocked"
    QUARANTINED = "quarantined"
    WITHDRAWN = "withdrawn"
    JOINED = "joined"  # it was about the same as an open one of the same receiver, and is part of that now


class Event(StrEnum):
    """What may happen to a message."""

    CLAIM = "claim"
    REPORT_DONE = "report done"
    REPORT_BLOCKED = "report blocked"
    EPOCH_ENDED = "epoch ended"
    DIED_TOO_OFTEN = "died too often"
    TICK = "tick"
    UNTICK = "untick"
    DELETE = "delete"
    RESTORE = "restore"
    ANSWER = "answer"
    APPROVE = "approve"  # QA approved what the blocked task is about: its phase looks again


TRANSITIONS: Mapping[Status, Mapping[Event, Status]] = {
    Status.OPEN: {
        Event.CLAIM: Status.CLAIMED,
        Event.TICK: Status.DONE,
        Event.DELETE: Status.WITHDRAWN,
    },
    Status.CLAIMED: {
        Event.REPORT_DONE: Status.DONE,
        Event.REPORT_BLOCKED: Status.BLOCKED,
        Event.EPOCH_ENDED: Status.OPEN,
        Event.DIED_TOO_OFTEN: Status.QUARANTINED,
        Event.TICK: Status.DONE,
        Event.DELETE: Status.WITHDRAWN,
    },
    Status.DONE: {Event.UNTICK: Status.OPEN},
    Status.BLOCKED: {
        Event.ANSWER: Status.OPEN,
        Event.APPROVE: Status.OPEN,
        Event.TICK: Status.DONE,
        Event.DELETE: Status.WITHDRAWN,
    },
    Status.QUARANTINED: {
        Event.ANSWER: Status.OPEN,
        Event.TICK: Status.DONE,
        Event.DELETE: Status.WITHDRAWN,
    },
    Status.WITHDRAWN: {Event.RESTORE: Status.OPEN},
    Status.JOINED: {},
}

WAITING = frozenset({Status.BLOCKED, Status.QUARANTINED})  # for a person
AT_WORK = WAITING | {Status.CLAIMED}
UNFINISHED = AT_WORK | {Status.OPEN}
_SECTION_RANK: Mapping[str, str] = {section: str(rank) for rank, section in enumerate(SECTIONS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it is posted. `thread` is a finding's fingerprint; None inherits the task's, or begins one.

    `data` is what machines need of it (JSON values): a finding's file and line, a commit, the phase that asked.
    `re` names the message that this one answers.
    """

    to: str
    kind: Kind
    text: str
    priority: Priority = "MEDIUM"
    section: Section = "tasks"
    thread: str | None = None
    re: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A posted message, as the history has it now. Items of sections other than `tasks` are never claimed."""

    id: str
    to: str
    by: str
    kind: Kind
    text: str
    priority: Priority = "MEDIUM"
    section: Section = "tasks"
    thread: str
    re: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    n: int  # the record that posted it
    order: int = 0  # its place among the messages of that record
    at: str  # UTC, ISO 8601
    status: Status = Status.OPEN
    round: int = 0  # how often it was opened again
    parts: tuple[str, ...] = ()  # itself, and what joined it while it was unfinished (ids)
    settled: tuple[str, ...] = ()  # those of them that a report or a person closed while later ones stayed open
    heard: tuple[str, ...] = ()  # parts that a report which ended blocked has heard: after an answer they are no news
    joined: str | None = None  # the message that this one is part of
    holder: int = 0  # the epoch that claimed it
    closer: int = 0  # the epoch whose report closed this round; 0 if a person did
    attempts: int = 0  # claims in this round
    deaths: int = 0
    detail: str = ""  # what the last report said about it
    changed: int = 0  # the last record that touched it


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A claimed message with what had joined it by then, and the attempt (1 for the first) in this round.

    `parts` are the messages to act on: the message itself and what joined it, less what is settled already.
    """

    message: Message
    parts: tuple[Message, ...]
    epoch: int
    attempt: int
    head: int  # the history's last record when it was claimed

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def round(self) -> int:
        return self.message.round

    @property
    def thread(self) -> str:
        return self.message.thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that a cycle writes: one record. `detail` is the line shown in Completed or Blockers.

    `report` lines replace `## Status` of the phase's WRITE document. `strategic` maps documents to their new whole
    text; the store merges it three-way against `read` (record number per document that the cycle read), so what a
    person wrote meanwhile stays. `tree` is the new head of the work branch, if the cycle changed it; `data` is kept
    with the report for machines (`{"approved": …}`, `{"commit": …}`).
    """

    result: Literal["done", "blocked"]
    detail: str
    report: tuple[str, ...] = ()
    posts: tuple[Draft, ...] = ()
    strategic: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, int] = field(default_factory=dict)
    tree: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One finished cycle, as the phase's WRITE document and `changes` show it."""

    n: int
    at: str
    phase: str
    epoch: int
    task: str
    round: int
    result: Literal["done", "blocked"]
    late: bool  # it came from an older round or after a person closed the task: the task was left alone
    detail: str
    posts: tuple[str, ...]  # ids
    tree: str | None
    data: Mapping[str, Any]
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The present epoch of a phase; `given_up` once the supervisor stopped restarting it (`paused` is different)."""

    number: int = 0
    given_up: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentState:
    """One document: its last record, and the text around what the store owns.

    `base` is the whole text of the last import or rewrite, with the owned item lines and the trailer as they were in
    it: rendering splices today's into it and leaves every other byte alone. For strategic documents it is the text.
    `heard` maps a view's record number to the text last imported from it (to see what a stale buffer takes back).
    """

    n: int = 0
    hash: str = ""
    at: str = ""
    by: str = SUPERVISOR
    base: str = ""
    heard: Mapping[int, str] = field(default_factory=dict)
    bases: tuple[int, ...] = ()  # the last records that set `base`


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a history counts by; on record in its first record, so that a replay never changes its mind."""

    hops: int = 20  # messages of a thread before it waits for the user
    deaths: int = 3  # of workers on one message before it is quarantined
    ageing: int = 100  # records that a message waits for one more level of priority


APPLY, LEAVE = "apply", "leave"  # the options of a question about what a save did to items


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something only the user can decide; shown by `inbox`, answered by `answer ID`.

    One about items (`data["items"]`: what the save says of each) is answered by `APPLY` or `LEAVE`.
    """

    id: str
    n: int
    at: str
    about: str  # a message id, or a document name
    text: str
    options: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    answered: bool = False
    answer: str = ""


@dataclass(slots=True)
class Index:
    """Which messages are where, so that nobody has to go over all of them. It follows from the messages alone.

    Kept by `replay`: `moved` for each new value of a message, `posted` and `reported` once for each. `closed` has the
    ticked items of "receiver section", `received` what was posted to a phase, `sent` what "author receiver" posted.
    """

    unfinished: dict[str, Queue] = field(default_factory=dict)  # receiver → by section, priority, age
    at_work: dict[str, dict[str, None]] = field(default_factory=dict)  # receiver → ids of tasks held or waiting
    blockers: dict[str, dict[str, None]] = field(default_factory=dict)  # author → ids of unfinished Blockers
    closed: dict[str, Recent] = field(default_factory=dict)
    received: dict[str, Recent] = field(default_factory=dict)
    sent: dict[str, Recent] = field(default_factory=dict)
    reports: dict[str, Recent] = field(default_factory=dict)  # phase → keys of `State.finished`
    completed: dict[str, Recent] = field(default_factory=dict)  # the same, of those with the result done

    def posted(self, message: Message) -> None:
        self.received.setdefault(message.to, Recent()).add(message.id, MOST_RECENT)
        if message.by != message.to:
            self.sent.setdefault(f"{message.by} {message.to}", Recent()).add(message.id, MOST_RECENT)

    def reported(self, report: Report) -> None:
        key = report_key(report.task, report.round)
        self.reports.setdefault(report.phase, Recent()).add(key, MOST_RECENT)
        if report.result == "done":
            self.completed.setdefault(report.phase, Recent()).add(key, MOST_RECENT)

    def moved(self, before: Message | None, message: Message) -> None:
        id, to = message.id, message.to  # noqa: A001
        if before is not None and before.status in UNFINISHED:
            self.unfinished[to].discard(_rank(before), id)
        if message.status in UNFINISHED:
            self.unfinished.setdefault(to, Queue()).add(_rank(message), id)
        if before is not None and before.status is Status.DONE and message.status is not Status.DONE:
            self.closed[f"{to} {message.section}"].discard(id)
        if message.status is Status.DONE and (before is None or before.status is not Status.DONE):
            self.closed.setdefault(f"{to} {message.section}", Recent()).add(id, MOST_RECENT)
        _member(self.at_work, to, id, there=message.status in AT_WORK and message.section == "tasks")
        if message.kind == "Blocker" and message.section == "tasks":
            _member(self.blockers, message.by, id, there=message.status in UNFINISHED)

    def first_open(self, to: str) -> Iterator[str]:
        """The oldest open task of each priority, the highest first: nothing else can be next."""
        queue = self.unfinished.get(to, Queue())
        for priority in range(len(PRIORITIES)):
            start, end = queue.bounds(f"{_SECTION_RANK['tasks']}{priority}")
            for at in range(start, end):
                rank, _, id = queue.entries[at].partition(" ")  # noqa: A001
                if rank.endswith(Status.OPEN[0]):
                    yield id
                    break


def _rank(message: Message) -> str:
    """The place of an unfinished message in its receiver's queue; it ends with the first letter of its status."""
    section, priority = _SECTION_RANK[message.section], PRIORITIES.index(message.priority)
    return f"{section}{priority}{message.n:010}{message.order:04}{message.status[0]}"


def _member(index: dict[str, dict[str, None]], key: str, id: str, *, there: bool) -> None:  # noqa: A002
    if there:
        index.setdefault(key, {})[id] = None
    elif id in (ids := index.get(key, {})):
        del ids[id]


def report_key(task: str, round: int) -> str:  # noqa: A002  (the field's name)
    """The key of `State.finished`."""
    return f"{task}.{round}"


@dataclass(slots=True)
class State:
    """The replay of a history up to record `n`. Owned by one `Store`; treated as read-only by everybody else.

    The mappings may be `archive.Table`s, which fetch what they are asked for and load all only if gone through.
    """

    store_id: str = ""
    limits: Limits = field(default_factory=Limits)
    n: int = 0
    hash: str = ""
    at: str = ""
    messages: MutableMapping[str, Message] = field(default_factory=dict)  # in order of posting
    threads: MutableMapping[str, list[str]] = field(default_factory=dict)  # thread → ids of its messages, in order
    renewed: MutableMapping[str, int] = field(default_factory=dict)  # thread → record since which its budget counts
    finished: MutableMapping[str, Report] = field(default_factory=dict)  # "task id.round" → the report of that round
    status_lines: dict[str, tuple[str, ...]] = field(default_factory=dict)  # phase → lines of ## Status
    epochs: dict[str, Epoch] = field(default_factory=dict)
    documents: dict[str, DocumentState] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    tree: str | None = None  # head of the work branch
    snapshot: str | None = None  # the last snapshot of the user's files
    deliveries: list[Mapping[str, Any]] = field(default_factory=list)
    index: Index = field(default_factory=Index, init=False)

    def __post_init__(self) -> None:
        """A state made from messages (not by a replay) gets its index."""
        if isinstance(self.messages, dict):
            for message in self.messages.values():
                self.index.posted(message)
            for message in sorted(self.messages.values(), key=lambda message: message.changed):
                self.index.moved(None, message)
            for report in self.finished.values():
                self.index.reported(report)

    @property
    def reports(self) -> Reports:
        """All reports, in the order of the history."""
        return Reports(self.finished, self.index)


class Reports(Sequence[Report]):
    """The reports of a state as a sequence: a round of a task has one, so they are those of `State.finished`."""

    __slots__ = ("_finished", "_index")

    def __init__(self, finished: MutableMapping[str, Report], index: Index) -> None:
        self._finished = finished
        self._index = index

    def since(self, n: int) -> list[Report]:
        """Those of records after n, oldest first; quick if they are among the last ones, whatever there is in all."""
        found: list[Report] = []
        for recent in self._index.reports.values():
            last = [self._finished[key] for key in recent.ids]
            new = [report for report in last if report.n > n]
            if len(new) == len(recent.ids) < recent.count:
                return [report for report in self if report.n > n]
            found += new
        return sorted(found, key=lambda report: report.n)

    def append(self, report: Report) -> None:
        self._finished[report_key(report.task, report.round)] = report
        self._index.reported(report)

    def __len__(self) -> int:
        return len(self._finished)

    def __iter__(self) -> Iterator[Report]:
        return iter(self._finished.values())

    @overload
    def __getitem__(self, at: int) -> Report: ...
    @overload
    def __getitem__(self, at: slice) -> list[Report]: ...
    def __getitem__(self, at: int | slice) -> Report | list[Report]:
        return list(self._finished.values())[at]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One thing that a person's save did to one document.

    `tick`, `untick`, `delete` and `restore` name the message and what of it the saved view showed (`seen` part ids,
    `round`): what joined later stays open. `add` brings a new item with the fields of a draft (`done` if it was
    typed ticked). What cannot be decided is no effect but a question.
    """

    what: Literal["tick", "untick", "delete", "restore", "add"]
    id: str
    seen: tuple[str, ...] = ()
    round: int = 0
    kind: Kind | None = None
    text: str = ""
    section: Section = "tasks"
    priority: Priority = "MEDIUM"
    done: bool = False
    re: str | None = None  # the item whose text a person changed: this joins it


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A person's save of one document, read against the view that it began as (`rev`; None where that is unknown)."""

    document: str
    rev: int | None
    effects: tuple[Effect, ...] = ()
    questions: tuple[Question, ...] = ()
    base: str | None = None  # the new text around the owned lines; None if that did not change
    heard: str | None = None  # the saved text itself, for seeing later what another save of the same rev takes back
