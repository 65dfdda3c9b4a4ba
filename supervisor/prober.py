"""Runs the probes of the crew's workers, each beside everything else, and heeds what they say.

What an answer comes to is `probes`' decision; a worker that is found unwell is ended like any that does not live, by
`vigil`. A probe has a process of its own, and its whole tree is ended at its limit; a phase has never two at once.
It carries the mark of the tree that it asks about, and so goes with it: a worker whose supervisor dies ends its tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipc.process import SpawnError

from .child import Child
from .config import ProbeConfig
from .letters import Mailbox, ProbeAnswered
from .liveness import Verdict
from .probes import Answer, judge, last_lines
from .seat import Seat

if TYPE_CHECKING:
    from .plane import EventPlane

PHASE, PID = "PROBED_PHASE", "PROBED_PID"  # tell the command whom it is about


class Prober:
    """Call `look` at every tick, and `heard` with each letter. `condemn` ends a worker for a verdict.

    `marks` are entries of the environment that find what a dead supervisor left running.
    """

    def __init__(
        self,
        *,
        seats: Mapping[str, Seat],
        plane: EventPlane,
        mailbox: Mailbox,
        folder: Path,
        marks: Mapping[str, str],
        start: Callable[..., Any],
        condemn: Callable[[Seat, Verdict], None],
    ) -> None:
        self.seats = seats
        self._plane = plane
        self._mailbox = mailbox
        self._folder = folder
        self._marks = marks
        self._start = start
        self._condemn = condemn
        self._running: set[str] = set()
        self._problems: dict[str, str] = {}  # why a phase's command could not be started, while that lasts

    def look(self, now: float) -> None:
        """Ask about every worker whose time it is; one that is paused is left in peace, and its past forgotten."""
        for seat in self.seats.values():
            if seat.paused:
                seat.probes = seat.probes.anew()
                continue
            child = seat.child
            if child is None or child.exited is not None or seat.moving or seat.condemned or seat.key in self._running:
                continue
            if seat.probes.is_due(seat.config.probe, now):
                seat.probes = seat.probes.begun(now)
                self._running.add(seat.key)
                self._start(self._ask, seat.key, child, seat.probes.number, seat.config.probe)

    async def _ask(self, key: str, child: Child, number: int, config: ProbeConfig) -> None:
        try:
            environ = {**self._marks, **child.process.marker, PHASE: key, PID: str(child.pid)}
            answer = await ask(config, number, folder=self._folder, environ=environ)
            self._mailbox.put(ProbeAnswered(child, answer))
        finally:
            self._running.discard(key)

    def heard(self, letter: ProbeAnswered) -> None:
        """Take in an answer, put what is new on record, and do what the verdict says."""
        seat = self.seats.get(letter.child.phase)
        if seat is None or seat.child is not letter.child or letter.child.exited is not None:
            return  # it was about one that has gone
        answer, config = letter.answer, seat.config.probe
        if answer.problem and self._problems.get(seat.key) != answer.problem:
            self._plane.record("phase_error", phase=seat.key, step="probe", detail=f"{answer.problem}; it says nothing")
        self._problems[seat.key] = answer.problem
        if seat.condemned or seat.paused or not seat.probes.counts(answer, config):
            return
        before = seat.probes.failures
        seat.probes = seat.probes.heard(answer, config)
        verdict = judge(seat.probes, config, answer)
        if verdict.action == "restart":
            self._condemn(seat, verdict)
        elif verdict.action == "warn":
            if before < config.failures:
                seat.unwell = f"{verdict.state}: {verdict.reason}"
                self._record(seat, "verdict", seat.unwell, verdict)
        elif verdict.state == "unhealthy":
            self._record(seat, "probe", verdict.reason, verdict)
        elif seat.unwell:
            seat.unwell = ""
            self._record(seat, "probe", f"well again: {verdict.reason}", verdict)

    def _record(self, seat: Seat, step: str, detail: str, verdict: Verdict) -> None:
        summary = {"verdict": verdict.state, "action": verdict.action, **verdict.inputs}
        self._plane.record("log_entry", phase=seat.key, step=step, detail=detail, summary=summary)


async def ask(config: ProbeConfig, number: int, *, folder: Path, environ: Mapping[str, str]) -> Answer:
    """Run the command in `folder` to its end or limit, with `environ` and what a tool may see of our environment."""
    from actors.drivers.builtin.commands import run  # most crews never need it
    from actors.environment import environment

    try:
        ran = await run(
            config.command, cwd=folder, env=environment(os.environ, environ), timeout=config.timeout, apart=True
        )
    except SpawnError as error:
        return Answer(number=number, problem=str(error))
    return Answer(
        number=number,
        code=ran.code,
        timed_out=bool(ran.why),
        said=last_lines(ran.stdout, ran.stderr),
        seconds=ran.seconds,
    )
