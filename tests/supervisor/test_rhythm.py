"""Periodic work meets at the same moments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.rhythm import until_next


@given(every=st.sampled_from([0.25, 1.0, 2.5]), now=st.floats(0, 1e7))
def test_it_is_never_long_and_always_some_time(every: float, now: float) -> None:
    """Nobody sleeps for nothing or for longer than asked."""
    assert 0 < until_next(every, now) <= every


def test_whoever_looks_every_second_looks_together() -> None:
    """Two that began at different moments wake at the same one."""
    assert 10.25 + until_next(1.0, 10.25) == 10.75 + until_next(1.0, 10.75) == 11.0
