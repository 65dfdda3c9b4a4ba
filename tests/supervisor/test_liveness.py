"""Verdicts from beats: each kind of silence has its name, and only what we were awake to hear counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc import control
from supervisor.config import parse
from supervisor.liveness import LivenessPolicy, OwnPulse, Vitals, judge
from supervisor.watch import liveness_policy

POLICY = LivenessPolicy(start_grace=30, slow_after=1, silent_after=10, no_progress_after=100)
READY = Vitals(started_at=0.0).ready(1.0)


def beat(vitals: Vitals, now: float, **changes: Any) -> Vitals:
    facts: dict[str, Any] = {"lag": 0.0, "task": "t1", "pct": 0, "step": "scanning", "signs": 1}
    return vitals.beat(now, **{**facts, **changes})


def test_reports_become_vitals() -> None:
    """What a worker's reports say about its health is heard; the rest changes nothing."""
    vitals = Vitals(started_at=0.0).heard(control.Ready(pid=1, epoch=1), 1.0)
    assert vitals == READY
    vitals = vitals.heard(control.Beat(lag=0.0, task="t1", step="scanning", beats=1), 2.0)
    assert vitals == beat(READY, 2.0)
    assert vitals.heard(control.Pulse(blocked=1.0, where="here"), 3.0) == vitals.pulse(3.0, where="here")
    assert vitals.heard(control.Idle(head=1), 4.0) == vitals


def test_starting_has_a_grace_of_its_own() -> None:
    """A worker may start for as long as its grace, and no longer; beats are not asked of it yet."""
    starting = Vitals(started_at=0.0)
    assert judge(starting, POLICY, 30.0).state == "starting"
    late = judge(starting, POLICY, 30.1)
    assert (late.state, late.action) == ("not started", "restart")
    assert late.reason == "it was not ready 30.1 s after its start; 30 s are allowed"


def test_a_beating_worker_is_fine() -> None:
    """Beats in time are all that is asked."""
    verdict = judge(beat(READY, 50.0), POLICY, 60.0)
    assert (verdict.state, verdict.action) == ("fine", "none")


def test_silence_with_pulses_is_a_blocked_loop() -> None:
    """When another thread speaks, a call blocks the loop, and its place is named."""
    vitals = beat(READY, 50.0).pulse(58.0, where="agent.py:7 in think")
    verdict = judge(vitals, POLICY, 60.1)
    assert (verdict.state, verdict.action) == ("loop blocked", "restart")
    assert "a call blocks the loop at agent.py:7 in think" in verdict.reason


def test_silence_without_pulses_is_a_held_gil() -> None:
    """When no thread speaks, the interpreter's lock is held; old pulses are no sign of life."""
    assert judge(beat(READY, 50.0), POLICY, 60.1).state == "gil held"
    assert judge(beat(READY, 50.0).pulse(55.0, where=""), POLICY, 60.1).state == "gil held"
    assert judge(READY, POLICY, 11.1).state == "gil held", "also when it has never beaten"


def test_nobody_is_judged_by_less_than_what_was_agreed() -> None:
    """An idle worker that promised a beat within 8 s is not silent after 12: the policy has become stricter."""
    idle = READY.heard(control.Beat(lag=0.0, next_in=8.0), 50.0)
    assert judge(idle, POLICY, 62.0).state == "fine"
    silent = judge(idle, POLICY, 66.1)
    assert (silent.state, silent.action) == ("gil held", "restart")
    assert "16 s are allowed" in silent.reason
    assert judge(READY.heard(control.Beat(lag=0.0, next_in=2.0), 50.0), POLICY, 60.1).state == "gil held"


def test_a_suspended_process_is_not_punished() -> None:
    """One that somebody has stopped is warned about at first; it is ended only when nobody lets it go on."""
    stopped = beat(READY, 50.0).looked(suspended=True)
    patient = replace(POLICY, suspended_after=30.0)
    for policy, now, action in (
        (patient, 80.0, "warn"),
        (patient, 80.1, "restart"),
        (replace(POLICY, suspended_after=None), 9000.0, "warn"),
    ):
        verdict = judge(stopped, policy, now)
        assert (verdict.state, verdict.action) == ("suspended", action)


def test_a_debugger_s_session_is_never_ended() -> None:
    """However long it holds a worker."""
    verdict = judge(beat(READY, 50.0).looked(suspended=True, traced=True), POLICY, 9000.0)
    assert (verdict.state, verdict.action) == ("suspended", "warn")
    assert "debugger" in verdict.reason


def test_no_progress_is_told_from_silence() -> None:
    """A worker that beats without getting anywhere is found, and one that has nothing to do is left alone."""
    vitals = beat(READY, 50.0)
    stuck = beat(vitals, 151.0)
    assert judge(beat(vitals, 150.0), POLICY, 150.0).state == "fine"
    verdict = judge(stuck, POLICY, 151.0)
    assert (verdict.state, verdict.action) == ("no progress", "restart")
    assert verdict.reason.startswith("task t1 has shown no progress for 101 s (at 0 %, scanning)")
    for sign in ({"signs": 2}, {"pct": 1}, {"step": "fixing"}, {"task": "t2"}):
        assert judge(beat(vitals, 151.0, **sign), POLICY, 151.0).state == "fine", sign
    idle = beat(beat(READY, 50.0, task=""), 900.0, task="")
    assert judge(idle, POLICY, 900.0).state == "fine"
    assert judge(stuck, replace(POLICY, no_progress_after=None), 151.0).state == "fine"


def test_lag_is_worth_a_warning() -> None:
    """A late loop is named, and nothing is done about it."""
    verdict = judge(beat(READY, 50.0, lag=1.5), POLICY, 50.0)
    assert (verdict.state, verdict.action) == ("slow", "warn")
    assert judge(beat(READY, 50.0, lag=1.0), POLICY, 50.0).state == "fine"


def test_dead_is_what_the_handle_says() -> None:
    """An exit is known, not concluded; nothing else is said of an exited worker."""
    assert judge(beat(READY, 50.0).ended(), POLICY, 900.0).state == "dead"


def test_policy_decides_on_actions() -> None:
    """What is done about a verdict is configuration."""
    lenient = replace(POLICY, gil_held="warn")
    assert judge(beat(READY, 50.0), lenient, 70.0).action == "warn"


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"silent_after": 0}, "silent_after must be above 0"),
        ({"start_grace": float("nan")}, "start_grace must be above 0"),
        ({"slow_after": 11}, r"slow_after \(11\) is longer than silent_after \(10\)"),
        ({"no_progress_after": -1, "slow_after": 0}, "slow_after must .*; no_progress_after must"),
    ],
)
def test_an_impossible_policy_cannot_be_built(changes: Any, mistake: str) -> None:
    """A policy names all its mistakes at once."""
    with pytest.raises(ValueError, match=mistake):
        replace(POLICY, **changes)


def test_our_own_stall_is_seen() -> None:
    """A look that comes much later than due tells for how long we were away."""
    pulse, away = OwnPulse().look(100.0)
    assert away == 0
    pulse, away = pulse.look(102.0)
    assert away == 0
    pulse, away = pulse.look(163.0)
    assert away == 60
    assert pulse.look(164.0)[1] == 0


@given(
    ready=st.booleans(),
    beaten=st.booleans(),
    pulsed=st.booleans(),
    away=st.floats(0.0, 1e6),
)
def test_nobody_is_called_dead_for_our_own_stall(ready: bool, beaten: bool, pulsed: bool, away: float) -> None:  # noqa: FBT001
    """Whatever a worker's state and however long we were away, its clocks start again afterwards."""
    vitals = Vitals(started_at=0.0)
    if ready:
        vitals = vitals.ready(1.0)
        if beaten:
            vitals = beat(vitals, 2.0)
        if pulsed:
            vitals = vitals.pulse(3.0, where="")
    now = 3.0 + away
    awake = vitals.after_stall(now)
    assert judge(awake, POLICY, now + 9.9).action == "none"
    if ready:
        assert judge(awake, POLICY, now + 10.1).state in ("gil held", "loop blocked"), "real silence is still found"


@pytest.mark.parametrize(("key", "field"), [("blocked", "loop_blocked"), ("held", "gil_held"), ("no_progress",) * 2])
def test_what_is_done_about_each_verdict_is_the_configuration_s(key: str, field: str) -> None:
    """`[liveness] on_…`, each for itself; a restart otherwise."""
    policy = liveness_policy(parse(f'[liveness]\non_{key} = "warn"\n').liveness)
    actions = {name: getattr(policy, name) for name in ("loop_blocked", "gil_held", "no_progress", "suspended")}
    assert actions == {**dict.fromkeys(actions, "restart"), field: "warn"}
