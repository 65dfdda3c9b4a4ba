"""What a record means: the one place that interprets the history. Pure; it decides nothing about rights or disks.

`apply(state, record, topology)` takes a state one record further. Records say what happened, not what follows from it:
that a message joins another, waits for the user or is reopened is decided here, by `TRANSITIONS` and the limits that
the history's first record carries, so that a replay always comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from .errors import DamageError, UnknownRecordError
from .messages import (
    PRIORITIES,
    TRANSITIONS,
    USER,
    DocumentState,
    Draft,
    Epoch,
    Event,
    Limits,
    Message,
    Question,
    Report,
    State,
    Status,
    report_key,
)
from .topology import Topology

VERSION = 1
MOST_HEARD = 64  # saves remembered per document, to see what a stale buffer takes back
MOST_BASES = 64  # base texts per document that can be found without a replay
JOINABLE = frozenset({Status.OPEN, Status.CLAIMED, Status.BLOCKED})
_IN_PROGRESS = frozenset({Status.CLAIMED, Status.BLOCKED, Status.QUARANTINED})  # what a WRITE document shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the history. `epoch` is 0 where no worker wrote it; `data` is what the kind needs (JSON values)."""

    n: int
    at: str
    by: str
    epoch: int
    kind: str
    data: Mapping[str, Any]
    prev: str
    hash: str
    v: int = VERSION


def apply(state: State, record: Record, topology: Topology) -> None:
    """Take the state, which is at record n - 1, to record n. Raises before changing anything for an unknown kind."""
    if record.n != state.n + 1:
        raise DamageError(f"it follows record {state.n}", n=record.n)
    handler = _HANDLERS.get(record.kind)
    if handler is None:
        known = ", ".join(_HANDLERS)
        raise UnknownRecordError(
            f"record {record.n} is of the kind {record.kind!r}, which this version does not know (it knows {known}): "
            "a newer version wrote it; use that one"
        )
    step = _Step(state, record, _names(topology))
    try:
        handler(step)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DamageError(f"its {record.kind} cannot be applied ({error!r})", n=record.n) from error
    state.n, state.hash, state.at = record.n, record.hash, record.at
    for name in step.touched:
        state.documents[name] = replace(
            state.documents.get(name, DocumentState()), n=record.n, hash=record.hash, at=record.at, by=record.by
        )


def entry(draft: Draft, id: str, thread: str) -> dict[str, Any]:  # noqa: A002  (the field's name)
    """A draft as records carry it."""
    return {
        "id": id,
        "to": draft.to,
        "kind": draft.kind,
        "text": draft.text,
        "priority": draft.priority,
        "section": draft.section,
        "thread": thread,
        "re": draft.re,
        "data": dict(draft.data),
    }


def base_in(record: Record, name: str) -> str | None:
    """The base text of the document that this record sets; None if it sets none."""
    texts: Mapping[str, Any]
    match record.kind:
        case "documents":
            texts = record.data["bases"]
        case "finish":
            texts = record.data["strategic"]
        case "import" if record.data["document"] == name:
            texts = {name: record.data["base"]}
        case _:
            return None
    text = texts.get(name)
    return text if isinstance(text, str) else None


def is_spent(state: State, thread: str) -> bool:
    """Whether the thread has had more messages than its budget allows."""
    most = state.limits.hops
    return len(state.threads.get(thread, ())) > most and hops(state, thread) > most


def hops(state: State, thread: str) -> int:
    """How many messages the thread had since its budget was last renewed, joined ones too."""
    since = state.renewed.get(thread, 0)
    count = 0
    for id in reversed(state.threads.get(thread, ())):  # noqa: A001
        if state.messages[id].n <= since:
            break
        count += 1
    return count


def open_in(state: State, to: str, thread: str) -> Message | None:
    """The first task of that receiver and thread which a later message joins."""
    for id in state.threads.get(thread, ()):  # noqa: A001
        message = state.messages[id]
        if message.to == to and message.status in JOINABLE and message.section == "tasks":
            return message
    return None


def unfinished(state: State, to: str | None = None) -> Iterator[Message]:
    """Messages that are not closed, of one receiver or of all. Costs what there is of them, not of the history."""
    for receiver in (to,) if to is not None else tuple(state.index.unfinished):
        for id in tuple(state.index.unfinished.get(receiver, ())):  # noqa: A001
            yield state.messages[id]


def at_work(state: State, to: str | None = None) -> list[Message]:
    """Tasks that are claimed or wait for a person, of one receiver or of all, oldest first."""
    receivers = (to,) if to is not None else tuple(state.index.at_work)
    found = [state.messages[id] for receiver in receivers for id in state.index.at_work.get(receiver, ())]  # noqa: A001
    return sorted(found, key=lambda message: (message.n, message.order))


def held(state: State, phase: str) -> Message | None:
    """The task that an epoch of the phase has claimed."""
    return next((m for m in at_work(state, phase) if m.status is Status.CLAIMED), None)


def next_task(state: State, phase: str) -> Message | None:
    """What the phase should claim: by priority, with ageing, oldest first within a level."""
    best: tuple[int, int, int] | None = None
    chosen = None
    for id in state.index.first_open(phase):  # noqa: A001
        message = state.messages[id]
        aged = (state.n - message.n) // state.limits.ageing
        level = max(0, PRIORITIES.index(message.priority) - aged)
        if best is None or (level, message.n, message.order) < best:
            best, chosen = (level, message.n, message.order), message
    return chosen


def refused_fixes(state: State, thread: str) -> int:
    """How often in a row a fix of this thread was reported and refused since its budget was last renewed."""
    since = state.renewed.get(thread, 0)
    fixed = refused = 0
    for id in state.threads.get(thread, ()):  # noqa: A001
        message = state.messages[id]
        if message.n <= since:
            continue
        if message.kind in ("Fixed", "Verify"):
            fixed = 1
        elif message.kind in ("Issue", "Fix") and fixed:
            refused, fixed = refused + 1, 0
    return refused


class Waiting(NamedTuple):
    """What only a person can move on."""

    blocked: tuple[Message, ...]
    quarantined: tuple[Message, ...]
    questions: tuple[Question, ...]

    def __bool__(self) -> bool:
        return any(self[:])


def waiting_for_user(state: State) -> Waiting:
    """Blocked and quarantined messages and open questions, oldest first: what `inbox` shows."""
    waiting = at_work(state)
    return Waiting(
        blocked=tuple(m for m in waiting if m.status is Status.BLOCKED),
        quarantined=tuple(m for m in waiting if m.status is Status.QUARANTINED),
        questions=tuple(q for q in state.questions.values() if not q.answered),
    )


# --- One record -------------------------------------------------------------------------------------------------------


class _Files(NamedTuple):
    read: str
    write: str


@cache
def _names(topology: Topology) -> Mapping[str, _Files]:
    return {p.key: _Files(f"{p.prefix}_READ", f"{p.prefix}_WRITE") for p in topology.phases}


@dataclass(slots=True)
class _Step:
    state: State
    record: Record
    names: Mapping[str, _Files]
    touched: dict[str, None] = field(default_factory=dict)
    posted: int = 0  # messages so far

    def touch_read(self, phase: str) -> None:
        if phase in self.names:
            self.touched[self.names[phase].read] = None

    def touch_write(self, phase: str) -> None:
        if phase in self.names:
            self.touched[self.names[phase].write] = None

    def put(self, message: Message) -> Message:
        """Store a message's new value; its receiver's documents have changed where they show it."""
        before = self.state.messages.get(message.id)
        message = replace(message, changed=self.record.n)
        self.state.messages[message.id] = message
        self.state.index.moved(before, message)
        claimed_only = before is not None and {before.status, message.status} == {Status.OPEN, Status.CLAIMED}
        if not claimed_only:
            self.touch_read(message.to)
        if before is not None and before.priority != message.priority:
            self.touch_write(message.by)
        if message.kind == "Blocker" and (before is None or before.status is not message.status):
            self.touch_write(message.by)  # it stands among the blockers of who told of it, too
        if message.status in _IN_PROGRESS or (before is not None and before.status in _IN_PROGRESS):
            self.touch_write(message.to)
        return message

    def move(self, message: Message, event: Event, **values: Any) -> Message:
        return self.put(replace(message, status=TRANSITIONS[message.status][event], **values))

    def reopen(self, message: Message, event: Event) -> Message:
        """A new round, from the beginning; what a person reopens has its budget renewed."""
        self.state.renewed[message.thread] = self.record.n
        values: dict[str, Any] = {"round": message.round + 1, "holder": 0, "closer": 0, "attempts": 0, "deaths": 0}
        known: tuple[str, ...] = ()
        if event in (Event.ANSWER, Event.APPROVE):  # only what is new is the work
            known = tuple(part for part in message.parts if part in message.heard or part in message.settled)
        return self.move(message, event, settled=(), heard=known, **values)

    def post(self, item: Mapping[str, Any], by: str) -> None:
        """One message, once; an open task of the same receiver and thread takes it in."""
        state, n = self.state, self.record.n
        if item["id"] in state.messages:
            return
        message = Message(
            id=item["id"],
            to=item["to"],
            by=by,
            kind=item["kind"],
            text=item["text"],
            priority=item["priority"],
            section=item["section"],
            thread=item["thread"],
            re=item["re"],
            data=item["data"],
            n=n,
            order=self.posted,
            at=self.record.at,
            parts=(item["id"],),
        )
        if message.kind == "Approved":
            state.renewed[message.thread] = n
        first = open_in(state, message.to, message.thread) if message.section == "tasks" else None
        self.enter(message)
        self.touch_write(by)
        if first is not None:
            self.join(message, first)
        elif message.section == "tasks" and is_spent(state, message.thread):
            self.put(replace(message, status=Status.BLOCKED, detail=self.spent()))
        else:
            self.put(message)

    def enter(self, message: Message) -> None:
        """A new message is in its thread; `put` then says where it stands."""
        self.posted += 1
        state = self.state
        state.threads[message.thread] = [*state.threads.get(message.thread, ()), message.id]
        state.messages[message.id] = replace(message, status=Status.JOINED)
        state.index.posted(message)

    def join(self, message: Message, first: Message) -> None:
        self.put(replace(message, status=Status.JOINED, joined=first.id))
        priority = min(first.priority, message.priority, key=PRIORITIES.index)
        first = self.put(replace(first, priority=priority, parts=(*first.parts, message.id)))
        if message.kind == "Approved" and first.status is Status.BLOCKED:
            self.reopen(first, Event.APPROVE)  # what it waited for has come about without an answer

    def spent(self) -> str:
        return f"{self.state.limits.hops} messages went back and forth about this without an approval"

    def close(self, message: Message, event: Event, seen: Sequence[str], **values: Any) -> Message:
        """Close what the author saw. What joined later stays open: after a report as the next round."""
        known = {*seen, *message.settled, *(message.heard if event is Event.REPORT_DONE else ())}
        left = [part for part in message.parts if part not in known]
        settled = tuple(part for part in message.parts if part not in left)
        if not left:
            return self.move(message, event, holder=0, **values)
        if event is not Event.REPORT_DONE:  # a person's save; whoever holds the message goes on with it
            return self.put(replace(message, settled=settled)) if settled != message.settled else message
        spent = is_spent(self.state, message.thread)
        return self.put(
            replace(
                message,
                status=Status.BLOCKED if spent else Status.OPEN,
                round=message.round + 1,
                holder=0,
                attempts=0,
                settled=settled,
                detail=self.spent() if spent else str(values.get("detail", "")),
            )
        )

    def block(self, message: Message, seen: Sequence[str], detail: str) -> None:
        """It waits for the user, unless what it waits for has joined it while its author was at work."""
        heard = tuple(id for id in message.parts if id in seen or id in message.heard)  # noqa: A001
        message = self.move(message, Event.REPORT_BLOCKED, holder=0, detail=detail, heard=heard)
        for part in (self.state.messages[id] for id in message.parts if id not in {*heard, *message.settled}):  # noqa: A001
            if part.kind == "Approved":
                self.reopen(message, Event.APPROVE)
                return
            if (part.kind, part.by) == ("Answer", USER):
                self.reopen(message, Event.ANSWER)
                return

    def end_claims(self, phase: str, *, died: bool) -> None:
        """The phase's epoch is over: its claims end, a death counts, one too many quarantines the message."""
        for message in at_work(self.state, phase):
            if message.status is not Status.CLAIMED:
                continue
            deaths = message.deaths + died
            over = died and deaths >= self.state.limits.deaths
            event = Event.DIED_TOO_OFTEN if over else Event.EPOCH_ENDED
            self.move(message, event, holder=0, deaths=deaths)

    def rebase(self, name: str, base: str) -> None:
        document = self.state.documents.get(name, DocumentState())
        bases = (*document.bases, self.record.n)[-MOST_BASES:]
        self.state.documents[name] = replace(document, base=base, bases=bases)
        self.touched[name] = None


def _created(step: _Step) -> None:
    data = step.record.data
    step.state.store_id = data["store"]
    step.state.limits = Limits(**data["limits"])


def _limits(step: _Step) -> None:
    step.state.limits = replace(step.state.limits, deaths=step.record.data["deaths"])


def _documents(step: _Step) -> None:
    for name, base in step.record.data["bases"].items():
        step.rebase(name, base)


def _post(step: _Step) -> None:
    for item in step.record.data["posts"]:
        step.post(item, step.record.by)


def _epoch(step: _Step) -> None:
    data = step.record.data
    phase = data["phase"]
    before = step.state.epochs.get(phase, Epoch())
    step.state.epochs[phase] = replace(before, number=data["epoch"], given_up=False)
    step.end_claims(phase, died=data["died"])
    _post(step)


def _gave_up(step: _Step) -> None:
    data = step.record.data
    phase = data["phase"]
    step.state.epochs[phase] = replace(step.state.epochs.get(phase, Epoch()), given_up=True)
    step.end_claims(phase, died=data["died"])
    step.touch_write(phase)
    _post(step)


def _pause(step: _Step) -> None:
    phase = step.record.data["phase"]
    before = step.state.epochs.get(phase, Epoch())
    step.state.epochs[phase] = replace(before, paused=step.record.data["paused"])


def _claim(step: _Step) -> None:
    message = step.state.messages[step.record.data["id"]]
    step.move(message, Event.CLAIM, holder=step.record.epoch, attempts=message.attempts + 1)


def _finish(step: _Step) -> None:
    state, record, data = step.state, step.record, step.record.data
    phase, message = data["phase"], state.messages[data["task"]]
    mine = message.status is Status.CLAIMED and (message.round, message.holder) == (data["round"], record.epoch)
    for item in data["posts"]:
        step.post(item, phase)
    message = state.messages[data["task"]]
    if mine and data["result"] == "blocked":
        step.block(message, data["seen"], data["detail"])
    elif mine:
        step.close(message, Event.REPORT_DONE, data["seen"], closer=record.epoch, detail=data["detail"])
    report = Report(
        n=record.n,
        at=record.at,
        phase=phase,
        epoch=record.epoch,
        task=data["task"],
        round=data["round"],
        attempt=data["attempt"],
        result=data["result"],
        late=not mine,
        detail=data["detail"],
        posts=tuple(item["id"] for item in data["posts"]),
        tree=data["tree"],
        data=data["data"],
    )
    state.finished[report_key(report.task, report.round)] = report
    state.index.reported(report)
    if data["report"]:
        state.status_lines[phase] = tuple(data["report"])
    if data["tree"] is not None:
        state.tree = data["tree"]
    for name, text in data["strategic"].items():
        step.rebase(name, text)
    step.touch_write(phase)


def _import(step: _Step) -> None:
    data = step.record.data
    name, by = data["document"], step.record.by
    for effect in data["effects"]:
        _effect(step, effect, by)
    for question in data["questions"]:
        _ask(step, question)
    if data["base"] is not None:
        step.rebase(name, data["base"])
    if data["heard"] is not None and data["rev"] is not None:
        document = step.state.documents.get(name, DocumentState())
        heard = {rev: text for rev, text in document.heard.items() if rev != data["rev"]}
        heard[data["rev"]] = data["heard"]
        kept = dict(list(heard.items())[-MOST_HEARD:])
        step.state.documents[name] = replace(document, heard=kept)
    step.touched[name] = None


def _effect(step: _Step, effect: Mapping[str, Any], by: str) -> None:
    what, message = effect["what"], step.state.messages.get(effect["id"])
    if what == "add":
        if message is None:
            item = {**effect["draft"], "id": effect["id"]}
            step.post(item, by)
            if effect["done"]:
                step.move(step.state.messages[effect["id"]], Event.TICK)
        return
    if message is None:
        return
    match what:
        case "tick" | "delete":
            event = Event.TICK if what == "tick" else Event.DELETE
            if event in TRANSITIONS[message.status]:
                step.close(message, event, effect["seen"] or (message.id,), closer=0)
        case "untick" if message.status is Status.DONE and message.round == effect["round"]:
            step.reopen(message, Event.UNTICK)
        case "restore" if message.status is Status.WITHDRAWN:
            step.reopen(message, Event.RESTORE)
        case _:
            pass  # what the save asked for is so already, or was of another round


def _ask(step: _Step, question: Mapping[str, Any]) -> None:
    if question["id"] not in step.state.questions:
        step.state.questions[question["id"]] = Question(
            id=question["id"],
            n=step.record.n,
            at=step.record.at,
            about=question["about"],
            text=question["text"],
            options=tuple(question["options"]),
            data=question["data"],
        )


def _question(step: _Step) -> None:
    _ask(step, step.record.data)


def _answer(step: _Step) -> None:
    data = step.record.data
    question = step.state.questions.get(data["id"])
    if question is not None:
        step.state.questions[question.id] = replace(question, answered=True, answer=data["text"])
        for effect in data.get("effects", ()):
            _effect(step, effect, step.record.by)
        return
    message = step.state.messages[data["id"]]
    if Event.ANSWER in TRANSITIONS[message.status]:
        message = step.reopen(message, Event.ANSWER)
    else:
        step.state.renewed[message.thread] = step.record.n
    part = Message(
        id=data["part"],
        to=message.to,
        by=step.record.by,
        kind="Answer",
        text=data["text"],
        thread=message.thread,
        re=message.id,
        n=step.record.n,
        at=step.record.at,
        parts=(data["part"],),
        priority="LOW",  # an answer alone raises nothing
    )
    step.enter(part)
    step.join(part, message)


def _tree(step: _Step) -> None:
    data = step.record.data
    if data["head"] is not None:
        step.state.tree = data["head"]
    if data["snapshot"] is not None:
        step.state.snapshot = data["snapshot"]


def _delivery(step: _Step) -> None:
    step.state.deliveries.append({**step.record.data, "n": step.record.n, "at": step.record.at})


_HANDLERS: Mapping[str, Callable[[_Step], None]] = {
    "created": _created,
    "documents": _documents,
    "post": _post,
    "epoch": _epoch,
    "gave up": _gave_up,
    "pause": _pause,
    "limits": _limits,
    "claim": _claim,
    "finish": _finish,
    "import": _import,
    "question": _question,
    "answer": _answer,
    "tree": _tree,
    "delivery": _delivery,
    "set aside": _post,
}
