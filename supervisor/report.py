"""What a time came to, on a page: the work, what was delivered, what waits, and how the crew fared.

Pure: the history's state and the journal's events go in, a frozen `Told` comes out, and its lines. Nothing is guessed:
each figure is a count of records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from docs_store.messages import State
from docs_store.topology import Topology

from .status import Summary, summarise
from .why import Recorded, gave_up
from .wording import clean, duration, summary_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTold:
    """One phase's share: cycles that ended, by result; seconds from their starts to their ends; its workers' fate."""

    title: str
    done: int = 0
    blocked: int = 0
    busy: float = 0.0
    crashes: int = 0
    restarts: int = 0
    given_up: int = 0
    verdicts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The page. Times in seconds since 1970; `runs` are starts of a supervisor."""

    since: float
    until: float
    runs: int
    posted: int
    phases: Mapping[str, PhaseTold]
    summary: Summary
    troubles: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "since": self.since,
            "until": self.until,
            "runs": self.runs,
            "posted": self.posted,
            "phases": {key: asdict(phase) for key, phase in self.phases.items()},
            "summary": self.summary.as_json(),
            "troubles": dict(self.troubles),
        }


def made(state: State, topology: Topology, events: Iterable[Recorded], *, since: float, until: float) -> Told:
    """The page for that time."""
    after = _record_before(state, since)
    seen = sorted((e for e in events if since <= e.timestamp <= until), key=lambda e: e.timestamp)
    own = [event for event in seen if event.transport == "supervisor"]
    phases = {}
    for phase in topology.phases:
        reports = [r for r in state.reports if r.phase == phase.key and r.n > after]
        its = [event for event in own if event.phase == phase.key]
        phases[phase.key] = PhaseTold(
            title=phase.title,
            done=sum(r.result == "done" for r in reports),
            blocked=sum(r.result == "blocked" for r in reports),
            busy=_busy([event for event in seen if event.phase == phase.key]),
            crashes=sum(e.step == "exit" and not e.summary.get("asked") for e in its),
            restarts=sum(e.step == "decision" and "delay" in e.summary for e in its),
            given_up=sum(e.step == "decision" and gave_up(e.summary) for e in its),
            verdicts=sum(e.step in {"verdict", "limit"} for e in its),
        )
    troubles = Counter(event.step or "other" for event in own if event.type == "phase_error" and event.step != "exit")
    return Told(
        since=since,
        until=until,
        runs=sum(event.step == "begin" for event in own),
        posted=sum(message.n > after for message in state.messages.values()),
        phases=phases,
        summary=summarise(
            state, since=after, restarts=sum(phase.restarts for phase in phases.values()), topology=topology
        ),
        troubles=dict(troubles),
    )


def _record_before(state: State, since: float) -> int:
    """The last record that was written before that time, as far as messages and reports tell."""
    start = datetime.fromtimestamp(since, UTC)
    earlier = [m.n for m in state.messages.values() if _time(m.at) < start]
    earlier += [r.n for r in state.reports if _time(r.at) < start]
    return max(earlier, default=0)


def _time(iso: str) -> datetime:
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _busy(events: Sequence[Recorded]) -> float:
    """Seconds from a cycle's start to its end or its worker's; what a dead supervisor left open counts nothing."""
    total, began = 0.0, None
    for event in events:
        if event.step == "spawn":
            began = None
        elif event.type == "phase_start":
            began = event.timestamp
        elif began is not None and (event.type in {"phase_complete", "phase_error"} or event.step == "exit"):
            total += event.timestamp - began
            began = None
    return total


def lines(told: Told) -> list[str]:
    """The page as lines of text."""
    start, end = (
        datetime.fromtimestamp(t, UTC).astimezone().strftime("%Y-%m-%d %H:%M") for t in (told.since, told.until)
    )
    out = [f"From {start} to {end}: {_count(told.runs, 'run')}, {_count(told.posted, 'message')} posted.", ""]
    for phase in told.phases.values():
        parts = [f"{_count(phase.done, 'task')} done", f"{phase.blocked} blocked", f"busy {duration(phase.busy)}"]
        if phase.crashes or phase.restarts:
            parts.append(f"{_count(phase.crashes, 'unasked end')}, {_count(phase.restarts, 'restart')}")
        if phase.verdicts:
            parts.append(f"{phase.verdicts} times judged not to live")
        if phase.given_up:
            parts.append(f"given up {_count(phase.given_up, 'time')}")
        out.append(f"{clean(phase.title):<10}  {', '.join(parts)}")
    for heading, items in summary_lines(told.summary):
        out += ["", f"{heading}:", *(f"  {item}" for item in items[:20])]
        if len(items) > 20:
            out.append(f"  … and {len(items) - 20} more")
    if told.troubles:
        out += ["", "Troubles: " + ", ".join(f"{clean(name)} ({count})" for name, count in told.troubles.items())]
    rest, waits = told.summary.open, len(told.summary.waiting) + len(told.summary.given_up)
    out += ["", f"Now: {_count(rest, 'task')} open, {_count(waits, 'thing')} waiting for you."]
    return out


def _count(number: int, word: str) -> str:
    return f"one {word}" if number == 1 else f"{number} {word}s"
