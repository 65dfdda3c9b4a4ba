"""Why a phase was started, restarted, given up, judged or moved to another transport: the record, in sentences.

Pure: events of the journal in, `Reason`s out. Every decision was put on record with its inputs when it was made; here
nothing is concluded anew, so `supervisor why` says the same with and without a running supervisor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from .wording import clean, duration

SUPERVISOR = "supervisor"
BATCH = 1000


class Journal(Protocol):
    """A reader of the journal (`supervisor.journal.JournalReader` is one)."""

    def head(self) -> Any: ...
    def read_up_to(self, after: Any, limit: int, phase: str | None, type: str | None) -> tuple[list[Any], Any]: ...  # noqa: A002


class Recorded(Protocol):
    """An event as the journal keeps it (`supervisor.journal.StoredEvent` is one)."""

    @property
    def type(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...
    @property
    def timestamp(self) -> float: ...
    @property
    def transport(self) -> str: ...
    @property
    def cursor(self) -> object: ...


# step of a record of the supervisor's own → what kind of reason it is
KINDS: Final[Mapping[str, str]] = {
    "begin": "begin",
    "spawn": "start",
    "exit": "exit",
    "decision": "decision",
    "verdict": "verdict",
    "limit": "limit",
    "tree": "tree",
    "switch": "mode",
    "fallback": "mode",
    "mode": "mode",
    "queue": "mode",
    "command": "command",
    "spare": "spare",
    "paused": "hold",
    "interval": "interval",
}
FOR_ALL: Final = frozenset({"begin", "mode", "queue", "command", "spare"})  # steps whose records concern every phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A decision, or what led to one. `what` is a value of `KINDS`, `at` in seconds since 1970."""

    at: float
    cursor: str
    what: str
    text: str
    inputs: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "inputs": dict(self.inputs)}


def reasons(events: Iterable[Recorded], phase: str) -> tuple[Reason, ...]:
    """All that explains how that phase's worker came to be what it is, oldest first."""
    return tuple(reason for event in events if (reason := _reason(event, phase)) is not None)


def gathered(journal: Journal, phase: str) -> tuple[Reason, ...]:
    """The same from a journal, read through once for each of the two kinds of record that the supervisor makes."""
    found: list[tuple[int, Reason]] = []
    for owner in (phase, SUPERVISOR):
        for type_ in ("log_entry", "phase_error"):
            cursor: Any = None
            while True:
                events, cursor = journal.read_up_to(cursor, BATCH, owner, type_)
                found += [(event.cursor.n, reason) for event in events if (reason := _reason(event, phase)) is not None]
                if not events or cursor == journal.head():
                    break
    return tuple(reason for _, reason in sorted(found, key=lambda pair: pair[0]))


def _reason(event: Recorded, phase: str) -> Reason | None:
    if event.transport != "supervisor" or event.step not in KINDS:
        return None
    if event.phase != phase and not (event.step in FOR_ALL and event.phase == SUPERVISOR):
        return None
    return Reason(
        at=event.timestamp,
        cursor=str(event.cursor),
        what=KINDS[event.step],
        text=sentence(event.step, event.detail, event.summary),
        inputs=dict(event.summary),
    )


def sentence(step: str, detail: str, inputs: Mapping[str, Any]) -> str:
    """What happened, with the figures that led to it."""
    match step:
        case "spawn" if "epoch" in inputs:
            mode = f", events by {inputs.get('mode', '?')} ({inputs.get('mode_reason', '?')})"
            return clean(f"Started: {detail}{mode}.")
        case "spawn":
            return clean(f"Could not be started: {detail}")
        case "exit":
            wanted = "as it was asked to" if inputs.get("asked") else "unasked"
            return clean(f"Ended {wanted}: {detail}.")
        case "decision" if "restarts_allowed" in inputs:
            return clean(f"Decided: {detail} {_figures(inputs)}".rstrip())
        case "decision":
            return clean(f"Decided: {detail}")
        case "verdict" | "limit":
            return clean(f"Judged: {detail}")
        case "command":
            return clean(f"Asked for by a person: {detail}")
        case "mode" | "switch" | "fallback":
            return clean(f"Transport: {detail}")
        case _:
            return clean(detail)


def _figures(inputs: Mapping[str, Any]) -> str:
    """The inputs of a restart decision, as a person would list them."""
    parts = [
        f"it ran for {duration(_number(inputs, 'ran_for'))}, which is {'' if inputs.get('stable') else 'not '}stable",
        f"{inputs.get('restarts')} of {inputs.get('restarts_allowed')} restarts of its own were used up",
        f"{inputs.get('crew_restarts')} of {inputs.get('crew_restarts_allowed')} of the crew",
    ]
    if inputs.get("start_failures"):
        parts.append(
            f"{inputs['start_failures']} failed starts in a row ({inputs.get('start_failures_allowed')} allowed)"
        )
    if "delay" in inputs:
        parts.append(
            f"a wait of {_number(inputs, 'delay'):.2f} s was drawn from up to {_number(inputs, 'ceiling'):g} s"
        )
    return f"({'; '.join(parts)})"


def _number(inputs: Mapping[str, Any], name: str) -> float:
    value = inputs.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def last_words(found: Sequence[Reason]) -> str:
    """The answer in one line: the latest decision, else the latest thing known."""
    decided = [reason for reason in found if reason.what in {"decision", "verdict", "limit"}]
    chosen = decided[-1:] or list(found[-1:])
    return chosen[0].text if chosen else "Nothing is on record about it yet."
