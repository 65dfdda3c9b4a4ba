"""What is shown to people about a running crew, and about what came of a run: frozen values, and how they are computed.

Pure but for the two functions that keep the last status in a file for `supervisor status`. How it looks is `console`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

from docs_store.messages import WAITING, Message, State, Status
from docs_store.replay import at_work, unfinished
from docs_store.store import gave_up_id
from docs_store.topology import DEFAULT, Topology

from .exits import Exit
from .workspace import NewerFormatError, Workspace, write_text

PhaseState = Literal[
    "starting", "ready", "working", "backoff", "paused", "blocked", "stopping", "stopped", "ended", "quarantined"
]
FORMAT = 1  # of the file that keeps the last status
PHASE_STATES: tuple[PhaseState, ...] = get_args(PhaseState)


class ShownEvent(Protocol):
    """An event of the journal, as far as it is shown (`supervisor.journal.StoredEvent` is one)."""

    @property
    def type(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def pct(self) -> int: ...
    @property
    def detail(self) -> str: ...
    @property
    def timestamp(self) -> float: ...

    def as_json(self) -> Mapping[str, Any]:
        """SPEC §6's keys of `events --json`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStatus:
    """One phase now. `task` is the id of what it works on and `text` that message's first line; both may be empty.

    `pct` is 0–100, `epoch` the number of its worker (0: none yet), `mode` "queue", "stdout", "spool" or "".
    `mode_reason` says why it is that; `detail` says why, where the state needs a reason.
    """

    title: str
    pid: int | None = None
    epoch: int = 0
    state: PhaseState = "stopped"
    task: str = ""
    text: str = ""
    pct: int = 0
    restarts: int = 0
    mode: str = ""
    mode_reason: str = ""
    step: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewStatus:
    """The crew now. `pid` is None when no supervisor runs; `head` is the history's last record.

    `workers` is for each worker what `counters` is in all; `latency` counts its rows in the journal, by upper bounds in
    seconds, from their newest event to the commit.
    """

    workspace: str
    pid: int | None = None
    phases: Mapping[str, PhaseStatus] = field(default_factory=dict)
    queue_depth: int = 0
    queue_capacity: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    workers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    latency: Mapping[str, Mapping[float, int]] = field(default_factory=dict)
    head: int = 0
    notes: tuple[str, ...] = ()  # what is out of the ordinary, in sentences
    dirty: tuple[str, ...] = ()  # documents whose files lag behind the history

    def as_json(self) -> dict[str, Any]:
        """The object of `supervisor status --json` (SPEC §6)."""
        return {
            "pid": self.pid,
            "workspace": self.workspace,
            "phases": {key: {**asdict(phase), "task": phase.task or None} for key, phase in self.phases.items()},
            "queue": {"depth": self.queue_depth, "capacity": self.queue_capacity},
            "counters": dict(self.counters),
            "workers": {worker: dict(counts) for worker, counts in self.workers.items()},
            "latency": {worker: {f"{le:g}": n for le, n in rows.items()} for worker, rows in self.latency.items()},
            "latency_total": {f"{le:g}": n for le, n in self.latency_total().items()},
            "head": self.head,
            "notes": list(self.notes),
            "dirty": list(self.dirty),
        }

    def latency_total(self) -> dict[float, int]:
        """`latency` over all workers."""
        bounds = sorted({le for rows in self.latency.values() for le in rows})
        return {le: sum(rows.get(le, 0) for rows in self.latency.values()) for le in bounds}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> CrewStatus:
        """The reverse of `as_json`; raises KeyError, TypeError or ValueError for anything else."""
        phases = {}
        for key, phase in said["phases"].items():
            if phase["state"] not in PHASE_STATES:
                raise ValueError(f"no phase is {phase['state']!r}")
            known = {name: phase[name] for name in PhaseStatus.__dataclass_fields__ if name in phase}
            phases[key] = PhaseStatus(**{**known, "task": phase["task"] or ""})  # a newer one may say more
        return cls(
            pid=said["pid"],
            workspace=said["workspace"],
            phases=phases,
            queue_depth=said["queue"]["depth"],
            queue_capacity=said["queue"]["capacity"],
            counters=said["counters"],
            workers=said.get("workers", {}),
            latency={
                worker: {float(le): n for le, n in rows.items()} for worker, rows in said.get("latency", {}).items()
            },
            head=said.get("head", 0),
            notes=tuple(said.get("notes", ())),
            dirty=tuple(said.get("dirty", ())),
        )


def at_rest(workspace: str, topology: Topology, state: State | None, *, pid: int | None = None) -> CrewStatus:
    """The status of a crew that nobody supervises, or whose supervisor (`pid`) has not said anything yet."""
    phases = {}
    for phase in topology.phases:
        epoch = state.epochs.get(phase.key) if state else None
        phases[phase.key] = PhaseStatus(
            title=phase.title,
            epoch=epoch.number if epoch else 0,
            state="quarantined"
            if epoch and epoch.given_up
            else "paused"
            if epoch and epoch.paused
            else "starting"
            if pid
            else "stopped",
        )
    return CrewStatus(workspace=workspace, pid=pid, phases=phases, head=state.n if state else 0)


def save_status(workspace: Workspace, status: CrewStatus) -> None:
    """Leave the status where `supervisor status` finds it. Raises OSError; nothing depends on it but what is shown."""
    write_text(workspace.status, json.dumps({"format": FORMAT, **status.as_json()}) + "\n")


def load_status(workspace: Workspace) -> CrewStatus | None:
    """What was saved last; None if nothing (readable) was. Compare its pid with the lock's holder.

    Raises `NewerFormatError` for what a newer release saved.
    """
    try:
        said = json.loads(workspace.status.read_bytes())
        if said.get("format", FORMAT) <= FORMAT:
            return CrewStatus.from_json(said)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    raise NewerFormatError(
        f"{workspace.status} was written by a newer release (format {said['format']}; this one knows {FORMAT}): "
        "ask with the `supervisor` command of that release"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One thing that waits for the user: a blocked or quarantined message, a question, a phase that was given up.

    `id` is what `answer` takes, or `restart` for a phase; `phase` whose task it is ("" for a question about a
    document); `request` is what is asked of the user, as the crew said it.
    """

    id: str
    what: Literal["blocked", "quarantined", "question", "given up"]
    phase: str
    kind: str
    priority: str
    text: str
    request: str
    since: str
    about: str = ""
    options: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def waiting(state: State) -> tuple[Waiting, ...]:
    """All that waits for an answer of the user, oldest first."""
    found = [
        (
            message.n,
            Waiting(
                id=message.id,
                what="blocked" if message.status is Status.BLOCKED else "quarantined",
                phase=message.to,
                kind=message.kind,
                priority=message.priority,
                text=message.text,
                request=message.detail,
                since=message.at,
                about=message.thread,
            ),
        )
        for message in at_work(state)
        if message.status in WAITING
    ]
    found += [
        (
            question.n,
            Waiting(
                id=question.id,
                what="question",
                phase=_receiver(state, question.about),
                kind="Question",
                priority="MEDIUM",
                text=question.text,
                request="",
                since=question.at,
                about=question.about,
                options=question.options,
            ),
        )
        for question in state.questions.values()
        if not question.answered
    ]
    return tuple(item for _, item in sorted(found, key=lambda pair: pair[0]))


def inbox(state: State) -> tuple[Waiting, ...]:
    """What waits for the user, then the phases that were given up and not started again since."""
    return (*waiting(state), *(_given_up(state, phase) for phase, epoch in state.epochs.items() if epoch.given_up))


def _given_up(state: State, phase: str) -> Waiting:
    alert = state.messages.get(gave_up_id(state, phase))
    return Waiting(
        id=phase,
        what="given up",
        phase=phase,
        kind="Alert",
        priority="HIGH",
        text=alert.text if alert else f"{phase} is not started again",
        request=f"supervisor restart {phase}",
        since=alert.at if alert else state.at,
    )


def _receiver(state: State, about: str) -> str:
    message = state.messages.get(about)
    return message.to if message else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a run. The lists hold first lines of messages, one per thread; `open` counts unfinished tasks."""

    found: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    implemented: tuple[str, ...] = ()
    approved: tuple[str, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    delivered: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    open: int = 0
    restarts: int = 0
    unapproved: int = 0  # changes made that QA has not approved
    paused: tuple[str, ...] = ()  # phases that a person holds
    given_up: tuple[str, ...] = ()  # phases whose worker is not started any more
    where: str = "crew"
    exit: Exit = Exit.WORK_REMAINS

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "exit": int(self.exit)}


def summarise(
    state: State,
    *,
    since: int = 0,
    restarts: int = 0,
    unapproved: int = 0,
    where: str = "crew",
    topology: Topology = DEFAULT,
    interrupted: bool = False,
) -> Summary:
    """What happened after record `since`, and the exit code by outcome (SPEC §6).

    What waits for the user and what is open counts whenever it was posted. `unapproved` is the number of changes
    that QA has not approved, which the documents alone do not say.
    """
    recent = [message for message in state.messages.values() if message.n > since]
    phases = {phase.key for phase in topology.phases}
    closed = [report for report in state.reports if report.n > since and report.result == "done"]
    done = [state.messages[report.task] for report in closed if report.task in state.messages]
    built = [message for message in done if message.kind == "Implement"]
    deliveries = [delivery for delivery in state.deliveries if int(delivery.get("n", since + 1)) > since]
    paused = tuple(key for key, epoch in state.epochs.items() if epoch.paused)
    given_up = tuple(key for key, epoch in state.epochs.items() if epoch.given_up)
    result = Summary(
        found=_threads(state, (m for m in recent if m.kind == "Issue" and m.by in phases)),
        fixed=_threads(state, (m for m in recent if m.kind == "Fixed")),
        implemented=_threads(state, [*built, *(m for m in recent if m.kind == "Implemented")]),
        approved=_threads(state, (m for m in recent if m.kind == "Approved")),
        waiting=waiting(state),
        delivered=_files(deliveries, "written"),
        conflicts=_files(deliveries, "conflicts"),
        open=sum(message.section == "tasks" for message in unfinished(state)),
        restarts=restarts,
        unapproved=unapproved,
        paused=paused,
        given_up=given_up,
        where=where,
    )
    good = not result.open and not result.waiting and not paused and not given_up and not unapproved
    code = Exit.INTERRUPTED if interrupted else Exit.DONE if good else Exit.WORK_REMAINS
    return replace(result, exit=code)


def _threads(state: State, messages: Iterable[Message]) -> tuple[str, ...]:
    """One line per thread: how it began."""
    seen = dict.fromkeys(message.thread for message in messages)
    lines = []
    for thread in seen:
        ids = state.threads.get(thread, [])
        first = next((state.messages[id_] for id_ in ids if id_ in state.messages), None)
        lines.append(first_line(first.text) if first else thread)
    return tuple(lines)


def _files(deliveries: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(file) for delivery in deliveries for file in delivery.get(key, ())))


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")
