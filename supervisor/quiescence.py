"""Whether a run that should end when idle may end now: a pure decision over facts taken in one hold of the lock.

SPEC §3: every phase that is neither quarantined, ended nor paused has reported idle at the history's present head,
nothing is claimed, restarting or half-imported, nothing waits for delivery, and the event plane is drained. What waits
for the user does not hold the run; it only shows in the exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One phase as the end sees it: `idle` is the head that its last idle report named, None if it has none."""

    present: bool  # a live worker, past its start
    excused: bool  # quarantined, paused, or ended for good
    idle: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the decision looks at; `head`, `claimed` and `views_clean` come from one hold of the store's lock."""

    head: int
    seats: Mapping[str, Seat]
    claimed: tuple[str, ...]  # ids of messages that somebody of the living works on
    views_clean: bool
    undelivered: int
    drained: bool


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left that a phase could do."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """Something is left, in words."""

    why: str


def judge(facts: Facts) -> End | GoOn:
    """Files first, then heads, as the document model shows: an import in between would have moved the head."""
    if not facts.views_clean:
        return GoOn("documents are being imported or written")
    if facts.claimed:
        return GoOn(f"{len(facts.claimed)} message(s) in hand")
    for phase, seat in facts.seats.items():
        if seat.excused:
            continue
        if not seat.present:
            return GoOn(f"{phase} is starting")
        if seat.idle is None:
            return GoOn(f"{phase} is at work")
        if seat.idle != facts.head:
            return GoOn(f"{phase} has not looked at record {facts.head} yet")
    if facts.undelivered:
        return GoOn(f"{facts.undelivered} approved change(s) to deliver")
    if not facts.drained:
        return GoOn("events are on their way")
    return End()


def exit_code(*, waiting: int, unapproved: int, quarantined: int, paused: int) -> int:
    """0 when all is done and approved, 1 when work remains or a person is asked (SPEC §6)."""
    return 1 if waiting or unapproved or quarantined or paused else 0
