"""Judges from its beats whether a worker is well: fine, loop blocked, GIL held, suspended, or without progress.

Pure: vitals are values that reports and looks update; `judge` reads them against a policy and a time. That a worker is
dead is told by its process handle, never concluded here from silence, and as silence counts only what this supervisor
was awake to hear: after a stall of its own (SIGSTOP, a suspended laptop, a blocked loop) every clock starts again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ipc import control

State = Literal[
    "starting",
    "fine",
    "slow",
    "dead",
    "not started",
    "loop blocked",
    "gil held",
    "suspended",
    "no progress",
    "over time",
    "over memory",
    "unhealthy",
]
Action = Literal["none", "warn", "restart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessPolicy:
    """What is too long, in seconds, and what to do about each verdict.

    `start_grace` runs from the start to ready; `silent_after` is the longest silence of the loop that is nothing to act
    on, `slow_after` the lag that is worth a warning; `no_progress_after` how long a task may show no sign of progress
    (None: for ever). A worker that somebody else has stopped is only warned about at first: it is not its fault. After
    `suspended_after` (None: never) it is treated like any other, unless a debugger holds it, whose session that would
    end. An impossible policy raises ValueError, which names every mistake.
    """

    start_grace: float = 30.0
    slow_after: float = 1.0
    silent_after: float = 10.0
    suspended_after: float | None = 30.0
    no_progress_after: float | None = 1800.0
    not_started: Action = "restart"
    loop_blocked: Action = "restart"
    gil_held: Action = "restart"
    suspended: Action = "restart"
    no_progress: Action = "restart"

    def __post_init__(self) -> None:
        times = {
            "start_grace": self.start_grace,
            "slow_after": self.slow_after,
            "silent_after": self.silent_after,
            "suspended_after": 1.0 if self.suspended_after is None else self.suspended_after,
            "no_progress_after": 1.0 if self.no_progress_after is None else self.no_progress_after,
        }
        mistakes = [
            f"{name} must be above 0, not {value!r}"
            for name, value in times.items()
            if not (math.isfinite(value) and value > 0)
        ]
        if not mistakes and self.slow_after > self.silent_after:
            mistakes.append(f"slow_after ({self.slow_after:g}) is longer than silent_after ({self.silent_after:g})")
        if mistakes:
            raise ValueError("liveness policy: " + "; ".join(mistakes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What is known of one worker. Times are the event loop's clock; a beat is its loop's, a pulse another thread's."""

    started_at: float
    ready_at: float | None = None
    exited: bool = False
    beat_at: float | None = None
    lag: float = 0.0
    beats_in: float = 0.0  # seconds within which the next beat was promised
    pulse_at: float | None = None
    where: str = ""  # the main thread's place, from the last pulse
    task: str = ""
    pct: int = 0
    step: str = ""
    signs: int = 0  # of progress, as the last beat counted them
    progress_at: float | None = None  # when the task, or a sign of progress in it, was last new
    suspended: bool = False  # the system says that the process is stopped
    traced: bool = False  # by a debugger

    def heard(self, message: control.Up, now: float) -> Vitals:
        """What a report says about the worker's health; most say nothing."""
        match message:
            case control.Ready():
                return self.ready(now)
            case control.Beat():
                return self.beat(
                    now,
                    lag=message.lag,
                    task=message.task,
                    pct=message.pct,
                    step=message.step,
                    signs=message.beats,
                    next_in=message.next_in,
                )
            case control.Pulse():
                return self.pulse(now, where=message.where)
            case _:
                return self

    def ready(self, now: float) -> Vitals:
        """It said that it is ready: its clocks start."""
        return replace(self, ready_at=now, beat_at=now, progress_at=now)

    def beat(
        self, now: float, *, lag: float, task: str, pct: int, step: str, signs: int, next_in: float = 0.0
    ) -> Vitals:
        """Its loop said that it runs, and what is in hand."""
        moved = (task, pct, step, signs) != (self.task, self.pct, self.step, self.signs)
        return replace(
            self,
            beat_at=now,
            lag=lag,
            beats_in=next_in,
            task=task,
            pct=pct,
            step=step,
            signs=signs,
            where="",
            progress_at=now if moved or self.progress_at is None else self.progress_at,
        )

    def pulse(self, now: float, *, where: str) -> Vitals:
        """Its other thread said that the interpreter runs, and where the loop is."""
        return replace(self, pulse_at=now, where=where)

    def looked(self, *, suspended: bool, traced: bool = False) -> Vitals:
        """The system was asked whether the process is stopped, and whether by a debugger."""
        return replace(self, suspended=suspended, traced=traced)

    def ended(self) -> Vitals:
        """Its process has exited."""
        return replace(self, exited=True)

    def after_stall(self, now: float) -> Vitals:
        """This supervisor was not awake to hear anything: what could have come meanwhile counts as having come."""
        return replace(
            self,
            started_at=now if self.ready_at is None else self.started_at,
            beat_at=None if self.beat_at is None else now,
            pulse_at=None if self.pulse_at is None else now,
            progress_at=None if self.progress_at is None else now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a worker is, what to do, and why: a sentence and the figures (`supervisor why`)."""

    state: State
    action: Action
    reason: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPulse:
    """The supervisor's own regular look: a look that comes far too late means that it was not awake."""

    every: float = 1.0
    tolerance: float = 1.0
    last: float | None = None

    def look(self, now: float) -> tuple[OwnPulse, float]:
        """The next one, and for how long this supervisor was away before `now` (0.0: it was not)."""
        late = 0.0 if self.last is None else now - self.last - self.every
        return replace(self, last=now), late if late > self.tolerance else 0.0


def judge(vitals: Vitals, policy: LivenessPolicy, now: float) -> Verdict:
    """How that worker is at `now`."""
    if vitals.exited:
        return _verdict(vitals, now, "dead", "none", "its process has exited")
    if vitals.ready_at is None:
        waited = now - vitals.started_at
        if waited <= policy.start_grace:
            return _verdict(vitals, now, "starting", "none", f"it has been starting for {waited:.1f} s")
        why = f"it was not ready {waited:.1f} s after its start; {policy.start_grace:g} s are allowed"
        return _verdict(vitals, now, "not started", policy.not_started, why)
    silence = now - (vitals.beat_at if vitals.beat_at is not None else vitals.ready_at)
    allowed = max(policy.silent_after, 2 * vitals.beats_in)  # a policy may have become stricter since the promise
    if silence > allowed:
        return _silent(vitals, policy, now, silence, allowed)
    if vitals.task and policy.no_progress_after is not None and vitals.progress_at is not None:
        idle = now - vitals.progress_at
        if idle > policy.no_progress_after:
            why = (
                f"task {vitals.task} has shown no progress for {idle:.0f} s "
                f"(at {vitals.pct} %, {vitals.step or 'no step'}); {policy.no_progress_after:g} s are allowed"
            )
            return _verdict(vitals, now, "no progress", policy.no_progress, why)
    if vitals.lag > policy.slow_after:
        why = f"its event loop was {vitals.lag:.1f} s late; {policy.slow_after:g} s are worth a word"
        return _verdict(vitals, now, "slow", "warn", why)
    return _verdict(vitals, now, "fine", "none", "it beats")


def _silent(vitals: Vitals, policy: LivenessPolicy, now: float, silence: float, allowed: float) -> Verdict:
    """The loop has been silent for too long: which kind of silence is it."""
    so_long = f"its event loop has been silent for {silence:.1f} s; {allowed:g} s are allowed"
    if vitals.suspended:
        patience = None if vitals.traced else policy.suspended_after
        who = "a debugger has" if vitals.traced else "somebody has"
        why = f"{so_long}; {who} stopped the process"
        if patience is None or silence <= patience:
            return _verdict(vitals, now, "suspended", "warn", why)
        return _verdict(vitals, now, "suspended", policy.suspended, f"{why} and not let it go on in {patience:g} s")
    pulsing = vitals.pulse_at is not None and now - vitals.pulse_at <= allowed / 2
    if pulsing:
        at = f" at {vitals.where}" if vitals.where else ""
        return _verdict(
            vitals,
            now,
            "loop blocked",
            policy.loop_blocked,
            f"{so_long}; other threads run: a call blocks the loop{at}",
        )
    return _verdict(
        vitals,
        now,
        "gil held",
        policy.gil_held,
        f"{so_long}; no thread of it runs: something holds the interpreter's lock",
    )


def _verdict(vitals: Vitals, now: float, state: State, action: Action, reason: str) -> Verdict:
    inputs: dict[str, Any] = {
        "since_start": now - vitals.started_at,
        "since_beat": None if vitals.beat_at is None else now - vitals.beat_at,
        "since_pulse": None if vitals.pulse_at is None else now - vitals.pulse_at,
        "since_progress": None if vitals.progress_at is None else now - vitals.progress_at,
        "lag": vitals.lag,
        "task": vitals.task,
        "pct": vitals.pct,
        "step": vitals.step,
        "where": vitals.where,
        "suspended": vitals.suspended,
    }
    return Verdict(state=state, action=action, reason=reason, inputs=inputs)
