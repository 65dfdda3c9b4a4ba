"""How a running crew's events travel: by which terms a cycle draws its mode, and the alarm when the queue is no good.

One `Transport` belongs to one crew, which tells it what workers report and hands its messages on. The order of
precedence is `ipc.modes`' and `rollout_state`'s, stages and alarm are `rollout`'s, falling back is the emitter's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.to_thread import run_sync

from docs_store.errors import StoreError
from ipc import control
from ipc.modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT

from .config import Config
from .exits import UserError
from .journal import JournalReader
from .plane import EventPlane
from .rhythm import until_next
from .rollout import Progress, Tally, fact_of, roll_back, shown
from .rollout_state import change, figures, load, stamp, terms_in_force
from .workspace import Workspace

LOOK_EVERY = 1.0  # seconds between looks at whether the rollout has changed
CREDIT_EVERY = 600.0  # seconds between two entries of the time that a stage has lasted


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line says, and the environment. `still`: nothing is counted towards the rollout (validation)."""

    queue: bool = False
    stdout: bool = False
    environ: Mapping[str, str] | None = None
    still: bool = False


class Transport:
    """See the module. `begin` once, then `keep` in a task."""

    def __init__(self, workspace: Workspace, config: Config, plane: EventPlane, wishes: Wishes) -> None:
        self.workspace = workspace
        self.config = config
        self.plane = plane
        self.wishes = wishes
        self.environ = dict(os.environ if wishes.environ is None else wishes.environ)
        self.progress = Progress()
        self.tally = Tally()
        self.modes = control.Modes(forced=IPC_MODE_STDOUT, reason="nothing was chosen yet")
        self._stamp: tuple[int, int] | None = None
        self._overridden = ""  # why a rollback of this run beats even its flags
        self._served: bool | None = None  # None: not tried yet
        self._fallbacks: dict[tuple[str, int], int] = {}
        self._tasks: dict[str, str] = {}
        self._alarmed = False
        self._due = anyio.Event()

    def begin(self) -> None:
        """Read where the rollout stands, and serve the queue if anybody may want it. `UserError`: a variable is bad."""
        terms_in_force(Progress(), self.config, self.environ)  # a bad variable is told even where a flag decides
        if not self.wishes.still:
            self._stamp = stamp(self.workspace)
            try:
                self.progress = load(self.workspace)
            except UserError as error:
                self.progress = Progress(rolled_back="the state of the rollout cannot be read")
                self.plane.record("phase_error", step="rollout", detail=f"everything goes by stdout: {error}")
        self.modes = self._find()
        detail = f"{self.first}: {self.reason}"
        summary = {"mode": self.first, "reason": self.reason}
        self.plane.record("log_entry", step="mode", detail=detail, summary=summary)

    @property
    def first(self) -> str:
        """The mode of what a worker says before its first cycle."""
        return self.modes.forced or (IPC_MODE_QUEUE if self.modes.rate > 0 else IPC_MODE_STDOUT)

    @property
    def reason(self) -> str:
        """Why, or how it is drawn."""
        return self.modes.reason or f"each cycle draws against the rate {self.modes.rate:g} of {self.modes.source}"

    @property
    def note(self) -> str:
        """What a person who looks at the status must know; "" if nothing is out of the ordinary."""
        if self.progress.rolled_back and self.modes.forced != IPC_MODE_QUEUE:
            return (
                f"everything goes by stdout: {self.progress.rolled_back}. When the queue is well again: "
                "supervisor rollout start --resume"
            )
        return ""

    def status(self, reader: JournalReader) -> dict[str, Any]:
        """The answer to `GET /api/rollout/status`; reads the journal, so call it from a thread."""
        modes = self.modes
        rate = modes.rate if not modes.forced else 1.0 if modes.forced == IPC_MODE_QUEUE else 0.0
        return shown(
            self.progress,
            figures(self.workspace, reader),
            rate=rate,
            source=modes.reason or modes.source,
            max_fallback_rate=self.config.ipc.max_fallback_rate,
        )

    def _find(self) -> control.Modes:
        if self._overridden:
            return control.Modes(forced=IPC_MODE_STDOUT, reason=f"rolled back: {self._overridden}", at_once=True)
        found = terms_in_force(
            self.progress, self.config, self.environ, queue=self.wishes.queue, stdout=self.wishes.stdout
        )
        wanted = found.forced == IPC_MODE_QUEUE or (found.forced is None and found.rate > 0)
        if wanted and self._served is None:
            self._served = self.plane.serve()
        if wanted and not self._served:
            return control.Modes(forced=IPC_MODE_STDOUT, reason="the queue cannot be served here")
        return control.Modes(forced=found.forced or "", reason=found.reason, rate=found.rate, source=found.source)

    # -- what workers report

    def heard(self, phase: str, epoch: int, message: control.AnyUp) -> None:
        """Put on record what an audit's mode was and what became of it; notice fallbacks."""
        match message:
            case control.Claimed(task=task, attempt=attempt, mode=mode, reason=reason, drawn=drawn):
                self._tasks[phase] = task
                said = {"mode": mode, "reason": reason, "drawn": drawn, "message": task, "attempt": attempt}
                self._record(phase, "mode", f"{mode}: {reason}", {**said, "epoch": epoch})
            case control.Finished(task=task, result=result, events=counts):
                self._tasks.pop(phase, None)
                self._record(phase, "audit", f"{result}", {"message": task, "epoch": epoch, "result": result, **counts})
            case control.Beat(events=counts):
                self._heed(phase, epoch, counts.get("fallbacks", 0))
            case _:
                pass

    def gone(self, phase: str, *, asked: bool) -> None:
        """The phase's worker has exited (it is on record already); its audit, if it had one, is over."""
        self._tasks.pop(phase, None)
        fact = fact_of(phase=phase, step="exit", timestamp=time.time(), summary={"asked": asked})
        if fact is not None:
            self.tally.take(fact)

    def _heed(self, phase: str, epoch: int, fallbacks: int) -> None:
        more = fallbacks - self._fallbacks.get((phase, epoch), 0)
        if more <= 0:
            return
        self._fallbacks[phase, epoch] = fallbacks
        summary = {"count": more, "epoch": epoch, "message": self._tasks.get(phase)}
        self._record(phase, "fallback", f"the queue failed {phase}: its events fell back", summary)
        alarm = self.tally.alarm(self.config.ipc.max_fallback_rate)
        may_roll_back = self.config.ipc.fallback == "auto" and not self.wishes.still and not self._alarmed
        if alarm is not None and may_roll_back:
            self._alarmed = True
            self.plane.record("phase_error", step="rollout", detail=f"everything goes by stdout: {alarm.reason}")
            self._overridden = alarm.reason
            self._due.set()

    def _record(self, phase: str, step: str, detail: str, summary: Mapping[str, Any]) -> None:
        self.plane.record("log_entry", phase=phase, step=step, detail=detail, summary=summary)
        fact = fact_of(phase=phase, step=step, timestamp=time.time(), summary=summary)
        if fact is not None:
            self.tally.take(fact)

    # -- changes

    async def keep(self, tell: Callable[[control.Modes], None]) -> None:
        """Obey changes of the rollout as they come, whoever makes them; `tell` reaches every worker. Never ends."""
        if self.wishes.still:
            return
        credited = anyio.current_time()
        while True:
            with anyio.move_on_after(until_next(LOOK_EVERY, anyio.current_time())):
                await self._due.wait()
            self._due = anyio.Event()
            try:
                if self._overridden and not self.progress.rolled_back:
                    self._obey(await self._change(self._rolled_back), tell)
                elif anyio.current_time() - credited >= CREDIT_EVERY and self.progress.stage is not None:
                    credited = anyio.current_time()
                    self._obey(await self._change(lambda progress: progress), tell)
                elif await run_sync(stamp, self.workspace) != self._stamp:
                    self._stamp = await run_sync(stamp, self.workspace)
                    self._obey(await run_sync(load, self.workspace), tell)
            except (UserError, StoreError, OSError) as error:
                self.plane.record("phase_error", step="rollout", detail=f"the rollout's state: {error}")
                self._obey(self.progress, tell)
                await anyio.sleep(5.0)

    async def _change(self, decide: Callable[[Progress], Progress]) -> Progress:
        found = await run_sync(change, self.workspace, time.time(), decide)
        self._stamp = await run_sync(stamp, self.workspace)
        return found

    def _rolled_back(self, progress: Progress) -> Progress:
        return roll_back(progress, time.time(), self._overridden, by="supervisor")

    def _obey(self, progress: Progress, tell: Callable[[control.Modes], None]) -> None:
        before, self.progress = self.progress, progress
        if progress.rolled_back:
            if not before.rolled_back:
                self._overridden = progress.rolled_back
        elif before.rolled_back:
            self._overridden, self._alarmed = "", False
            self.tally.forgive()
        modes = self._find()
        if modes == self.modes:
            return
        self.modes = modes
        self.plane.record(
            "log_entry",
            step="mode",
            detail=f"{self.first} from now on: {self.reason}",
            summary={"mode": self.first, "reason": self.reason},
        )
        if modes.at_once:
            for phase, task in self._tasks.items():
                summary = {"rollback": True, "message": task}
                self._record(phase, "fallback", f"moves to stdout at once: {modes.reason}", summary)
        tell(modes)
