"""The end of a run: it comes when nothing is left to do, and never before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.quiescence import End, Facts, GoOn, Seat, exit_code, judge

IDLE = Facts(
    head=7,
    seats={
        "planning": Seat(present=True, excused=False, idle=7),
        "qa": Seat(present=True, excused=False, idle=7),
    },
    claimed=(),
    views_clean=True,
    undelivered=0,
    drained=True,
)


def test_a_quiet_crew_may_go() -> None:
    """All idle at the present head, nothing in hand, nothing on its way: that is the end."""
    assert judge(IDLE) == End()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"views_clean": False}, "documents"),
        ({"claimed": ("m1",)}, "in hand"),
        ({"undelivered": 1}, "deliver"),
        ({"drained": False}, "events"),
        ({"head": 8}, "record 8"),
    ],
)
def test_each_reason_holds_the_end(change: dict[str, object], why: str) -> None:
    """Any one thing left keeps the run going, and is named."""
    verdict = judge(replace(IDLE, **change))  # type: ignore[arg-type]
    assert isinstance(verdict, GoOn)
    assert why in verdict.why


@pytest.mark.parametrize(
    ("seat", "ends"),
    [
        (Seat(present=False, excused=False, idle=None), False),
        (Seat(present=True, excused=False, idle=None), False),
        (Seat(present=True, excused=False, idle=6), False),
        (Seat(present=False, excused=True, idle=None), True),
        (Seat(present=True, excused=True, idle=3), True),
    ],
)
def test_only_an_excused_phase_may_be_behind(seat: Seat, ends: bool) -> None:  # noqa: FBT001
    """Quarantined, paused or ended for good it does not hold the end; every other one must have seen the head."""
    verdict = judge(replace(IDLE, seats={**IDLE.seats, "qa": seat}))
    assert isinstance(verdict, End) is ends


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_success_means_that_nothing_waits(waiting: int, unapproved: int, quarantined: int, paused: int) -> None:
    """Exit code 0 is only for a run that left nothing behind."""
    code = exit_code(waiting=waiting, unapproved=unapproved, quarantined=quarantined, paused=paused)
    assert (code == 0) == (waiting + unapproved + quarantined + paused == 0)
