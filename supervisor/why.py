"""Why a phase was started, restarted, given up, judged or moved to another transport: the record, in sentences.

Pure: events of the journal in, `Reason`s out. Every decision was put on record with its inputs when it was made; here
nothing is concluded anew, so `supervisor why` says the same with and without a running supervisor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    "probe": "probe",
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
    """A decision, or what led to one. `what` is a value of `KINDS`, `at` in seconds since 1970.

    `text` leaves out what the reason before it has said; `detail` is the whole sentence, without figures.
    """

    at: float
    cursor: str
    what: str
    text: str
    inputs: Mapping[str, Any]
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"at": self.at, "cursor": self.cursor, "what": self.what, "text": self.text, "inputs": dict(self.inputs)}


def reasons(events: Iterable[Recorded], phase: str) -> tuple[Reason, ...]:
    """All that explains how that phase's worker came to be what it is, oldest first."""
    found: list[Reason] = []
    said: dict[str, str] = {}  # how it went, what was decided: the last of each, as it was recorded
    for event in events:
        if _explains(event, phase):
            found.append(_reason(event, said))
            said[event.step] = event.detail
    return tuple(found)


def gathered(journal: Journal, phase: str) -> tuple[Reason, ...]:
    """The same from a journal, read through once for each of the two kinds of record that the supervisor makes."""
    found: list[tuple[int, Recorded]] = []
    for owner in (phase, SUPERVISOR):
        for type_ in ("log_entry", "phase_error"):
            cursor: Any = None
            while True:
                events, cursor = journal.read_up_to(cursor, BATCH, owner, type_)
                found += [(event.cursor.n, event) for event in events if _explains(event, phase)]
                if not events or cursor == journal.head():
                    break
    return reasons((event for _, event in sorted(found, key=lambda pair: pair[0])), phase)


def _explains(event: Recorded, phase: str) -> bool:
    if event.transport != "supervisor" or event.step not in KINDS:
        return False
    if event.phase == SUPERVISOR and event.step in FOR_ALL:
        about = event.summary.get("phases")  # a command may be about some only
        return about is None or phase in about
    return event.phase == phase


def _reason(event: Recorded, said: Mapping[str, str]) -> Reason:
    detail = event.detail
    match event.step:
        case "decision" if ended := said.get("exit", ""):
            detail = detail.removeprefix(f"{ended.partition(': ')[0]}; ")
        case "spawn" if decided := said.get("decision", ""):
            detail = detail.replace(decided, "as was decided")
        case _:
            pass
    return Reason(
        at=event.timestamp,
        cursor=str(event.cursor),
        what=KINDS[event.step],
        text=sentence(event.step, detail, event.summary),
        inputs=dict(event.summary),
        detail=_whole(event) if event.step == "decision" else "",
    )


def _whole(event: Recorded) -> str:
    """A decision with all that it says, and what a person can do about one that nobody else will change."""
    if gave_up(event.summary):
        return clean(f"Given up: {event.detail} `supervisor restart {event.phase}` starts it again.")
    return clean(f"Decided: {event.detail}")


def gave_up(inputs: Mapping[str, Any]) -> bool:
    """Whether it was decided not to start a child again that nobody had asked to go and that had not finished."""
    if "restarts_allowed" not in inputs or "delay" in inputs:
        return False
    return not inputs.get("asked") and not inputs.get("ended")


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
            return clean(f"{'Given up' if gave_up(inputs) else 'Decided'}: {detail} {_figures(inputs)}".rstrip())
        case "decision":
            return clean(f"Decided: {detail}")
        case "probe":
            return clean(f"Asked from outside: {detail}")
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
        f"it ran for {_lasted(_number(inputs, 'ran_for'))}, which is {'' if inputs.get('stable') else 'not '}stable",
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


def _lasted(seconds: float) -> str:
    """As exact as the sentence about an exit."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _number(inputs: Mapping[str, Any], name: str) -> float:
    value = inputs.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def last_words(found: Sequence[Reason]) -> str:
    """The answer in one line: the latest decision, else the latest start, else the latest thing known.

    What was decided before the present supervisor began explains only what it has not started anew.
    """
    begun = max((place for place, reason in enumerate(found) if reason.what == "begin"), default=0)
    for part in (found[begun:], found):
        for kinds in ({"decision", "verdict", "limit"}, {"start"}):
            chosen = next((reason for reason in reversed(part) if reason.what in kinds), None)
            if chosen is not None:
                return chosen.detail or chosen.text
    return found[-1].text if found else "Nothing is on record about it yet."
