"""A phase's place: what a stall of the supervisor's own leaves of the clocks that run there."""

from __future__ import annotations

from docs_store.topology import DEFAULT
from supervisor.config import LivenessConfig, PhaseConfig
from supervisor.liveness import Vitals, judge
from supervisor.probes import Probes
from supervisor.seat import Seat
from supervisor.watch import liveness_policy, over_limit


def at_work() -> Seat:
    """Ready since 100.0, heard last at 110.0, with a task since 105.0 that may take 60 s."""
    vitals = Vitals(started_at=99.0).ready(100.0).beat(110.0, lag=0.0, task="t", pct=1, step="s", signs=1)
    config = PhaseConfig(key="qa", task_time=60.0)
    seat = Seat(phase=DEFAULT.phases[0], config=config, vitals=vitals, task="t", claimed_at=105.0)
    seat.probes = Probes().ready(100.0).begun(104.0)
    return seat


def test_what_nobody_was_awake_to_hear_is_not_held_against_a_worker() -> None:
    """Neither silence nor the task's time counts while this supervisor slept, and a probe under way says nothing."""
    seat, away, now = at_work(), 3600.0, 3711.0
    before = seat.probes
    seat.after_stall(now, away)
    assert seat.vitals is not None
    assert judge(seat.vitals, liveness_policy(LivenessConfig()), now).state == "fine"
    assert seat.worked(now) == 6.0
    assert over_limit(seat.limits, phase="qa", task="t", worked=seat.worked(now), held=0) is None
    assert seat.probes.number == before.number + 1
    assert seat.probes.began_at == 104.0 + away


def test_a_task_taken_up_while_we_slept_has_not_begun_in_the_future() -> None:
    """Its claim lay in the pipe and was heard at the end of the stall."""
    seat = at_work()
    seat.claimed_at = 3710.5
    seat.after_stall(3711.0, 3600.0)
    assert seat.worked(3711.0) == 0.0
