"""Watches over workers that run: whether they live, and whether they keep within their limits.

What silence means is `liveness`' decision, what is too much `watch`'s; here beats, clocks and the system are asked,
verdicts are put on record, and a condemned worker is killed. What follows from its death is `succession`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from anyio.to_thread import run_sync

from .child import Child
from .letters import Mailbox, Measured
from .liveness import LivenessPolicy, OwnPulse, Verdict
from .liveness import judge as judge_life
from .seat import Seat
from .watch import memory_of, over_limit, stopped_by

if TYPE_CHECKING:
    from .plane import EventPlane

STANDING = {"loop blocked", "gil held", "no progress"}  # where its threads are is what a person will ask
LAST_WORDS = 0.5  # seconds for saying so
MEMORY_EVERY = 2.0  # seconds between two looks at how much memory the limited phases hold


class Vigil:
    """Call `look` at every tick; `every` is the time between two. `policy` may be replaced at any time."""

    def __init__(
        self,
        *,
        seats: Mapping[str, Seat],
        plane: EventPlane,
        mailbox: Mailbox,
        policy: LivenessPolicy,
        every: float,
        start: Callable[..., Any],
    ) -> None:
        self.seats = seats
        self.policy = policy
        self._plane = plane
        self._mailbox = mailbox
        self._start = start
        self._own_pulse = OwnPulse(every=every)
        self._measuring = False
        self._measured_at = 0.0

    def look(self, now: float) -> None:
        """Judge every worker that has a task or should beat; end those that do not live or take too much."""
        self._own_pulse, away = self._own_pulse.look(now)
        if away:
            self._plane.record("log_entry", step="stall", detail=f"this supervisor was away for {away:.1f} s")
            for seat in self.seats.values():
                seat.after_stall(now, away)
        for seat in self.seats.values():
            if seat.vitals is None or seat.child is None or seat.child.exited or seat.moving or seat.condemned:
                continue
            worked = seat.worked(now)
            verdict = over_limit(seat.limits, phase=seat.key, task=seat.task, worked=worked, held=seat.held)
            self._heed_verdict(seat, verdict or judge_life(seat.vitals, self.policy, now))
        self._maybe_measure(now)

    def _heed_verdict(self, seat: Seat, verdict: Verdict) -> None:
        assert seat.child is not None
        if verdict.state in ("gil held", "suspended") and not seat.asking:
            seat.asking = True
            self._start(self._ask_system, seat, seat.child)
        elif verdict.action == "restart" and verdict.state != "gil held":
            self.condemn(seat, verdict)
        if verdict.state != seat.verdict and verdict.action == "warn":
            self._record_verdict("log_entry", seat, verdict)
        if verdict.action != "restart":
            seat.verdict = verdict.state

    async def _ask_system(self, seat: Seat, child: Child) -> None:
        """Nothing in it runs: held by its own code, or stopped by somebody? Only the system can tell."""
        try:
            by = await run_sync(stopped_by, child.pid)
            if seat.child is child and seat.vitals is not None and not seat.moving:
                seat.vitals = seat.vitals.looked(suspended=by is not None, traced=by == "debugger")
                verdict = judge_life(seat.vitals, self.policy, anyio.current_time())
                if verdict.action == "restart":
                    self.condemn(seat, verdict)
        finally:
            seat.asking = False

    def condemn(self, seat: Seat, verdict: Verdict) -> None:
        """End a worker that runs and does not live, or takes too much: from there on it is a death like any other."""
        if seat.child is None or seat.condemned:
            return
        seat.condemned = seat.detail = f"{verdict.state}: {verdict.reason}"
        self._record_verdict("phase_error", seat, verdict)
        if verdict.state in STANDING and seat.child.show_stacks():
            self._start(self._end_soon, seat.child)
        else:
            seat.child.kill()

    @staticmethod
    async def _end_soon(child: Child) -> None:
        """After a moment to write its stacks in."""
        with anyio.move_on_after(LAST_WORDS):
            await child.wait()
        child.kill()

    def _record_verdict(self, type_: str, seat: Seat, verdict: Verdict) -> None:
        step = "limit" if verdict.state in ("over time", "over memory") else "verdict"
        what = "; it is ended" if verdict.action == "restart" else ""
        if what and verdict.state in STANDING and sys.platform != "win32":
            what = "; its log says where each thread was; it is ended"
        self._plane.record(
            type_,
            phase=seat.key,
            step=step,
            detail=f"{verdict.state}: {verdict.reason}{what}",
            summary={"verdict": verdict.state, "action": verdict.action, **verdict.inputs},
        )

    def _maybe_measure(self, now: float) -> None:
        pids = {
            seat.key: seat.child.pid
            for seat in self.seats.values()
            if seat.limits.memory_mb and seat.child is not None and seat.child.exited is None
        }
        if pids and not self._measuring and now - self._measured_at >= MEMORY_EVERY:
            self._measuring, self._measured_at = True, now
            self._start(self._measure, pids)

    async def _measure(self, pids: Mapping[str, int]) -> None:
        try:
            self._mailbox.put(Measured(pids, await run_sync(memory_of, pids)))
        finally:
            self._measuring = False
