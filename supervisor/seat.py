"""One phase's place in the crew: who sits there, what it last said, and how that looks in the status.

Only the crew's owner changes a seat; nothing here waits, sends or decides about restarts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from docs_store.topology import Phase
from ipc import control

from .child import Child
from .config import PhaseConfig
from .liveness import Vitals
from .probes import Probes
from .quiescence import Seat as SeatFacts
from .status import PhaseState, PhaseStatus
from .watch import Limits


@dataclass(slots=True)
class Seat:
    """The present worker of a phase (None between two), and what is known of it. Times are the event loop's."""

    phase: Phase
    config: PhaseConfig
    child: Child | None = None
    epoch: int = 0
    state: PhaseState = "stopped"
    idle: int | None = None  # the head that its last idle report named
    rung: int = 0  # the head of the last bell
    task: str = ""
    attempt: int = 0
    text: str = ""
    step: str = ""
    pct: int = 0
    mode: str = ""
    mode_reason: str = ""
    restarts: int = 0
    paused: bool = False
    detail: str = ""
    last_beat: float = 0.0
    vitals: Vitals | None = None  # of the present worker
    claimed_at: float | None = None  # when it took up the task in hand
    idle_since: float = 0.0  # when its last cycle ended
    held: int = 0  # bytes of memory of its tree, where that has a limit
    verdict: str = ""  # the last one that was worth a word
    condemned: str = ""  # why it was ended by us, unasked
    probes: Probes = field(default_factory=Probes)  # of the present worker
    unwell: str = ""  # what they say against it, where that is only worth a word
    asking: bool = False  # the system is being asked about it
    moving: bool = False  # between two workers: somebody is already seeing to it
    hurry: anyio.Event = field(default_factory=anyio.Event)  # set: do not wait any longer before the next worker
    closing: set[int] = field(default_factory=set)  # epochs whose events are still being closed

    @property
    def key(self) -> str:
        return self.phase.key

    @property
    def is_down(self) -> bool:
        """It has no worker and gets none before a person says so: given up, or ended for good."""
        return self.state in ("quarantined", "ended")

    def vacate(self, state: PhaseState, detail: str) -> None:
        """Nobody sits here any more, and nobody is on the way."""
        self.state, self.detail, self.child = state, detail, None
        self.unwell, self.moving = "", False
        self.emptied()

    @property
    def limits(self) -> Limits:
        return Limits(task_time=self.config.task_time, memory_mb=self.config.memory_mb)

    def worked(self, now: float) -> float:
        """For how long it has had the task in hand; 0 without one."""
        return now - self.claimed_at if self.claimed_at is not None and self.task else 0.0

    def after_stall(self, now: float, away: float) -> None:
        """The supervisor was not awake for `away` seconds: no clock of the worker's counts them."""
        if self.vitals is not None:
            self.vitals = self.vitals.after_stall(now)
        if self.claimed_at is not None:
            self.claimed_at = min(now, self.claimed_at + away)
        self.probes = self.probes.after_stall(away)

    def seated(self, child: Child, epoch: int, mode: str, reason: str, *, now: float) -> None:
        """A new worker took the place."""
        self.vitals, self.verdict, self.condemned, self.held = Vitals(started_at=now), "", "", 0
        self.probes, self.unwell = Probes(), ""
        self.child, self.epoch, self.mode, self.mode_reason = child, epoch, mode, reason
        self.state = "starting"
        self.emptied()

    def emptied(self) -> None:
        """What the last worker said counts no more."""
        self.idle, self.rung, self.claimed_at = None, 0, None
        self.task, self.attempt, self.text, self.step, self.pct = "", 0, "", "", 0

    def hear(self, message: control.AnyUp, now: float) -> None:
        """Take in what the worker says about itself."""
        if self.vitals is not None:
            self.vitals = self.vitals.heard(message, now)
        match message:
            case control.Ready():
                self.state = "paused" if self.paused else "ready"
                self.detail = ""
                self.last_beat = now
                self.probes = self.probes.ready(now)
            case control.Claimed(task=task, attempt=attempt, text=text):
                self.state, self.idle = "working", None
                self.mode, self.mode_reason = message.mode or self.mode, message.reason or self.mode_reason
                self.task, self.attempt, self.text, self.pct = task, attempt, text, 0
                self.claimed_at = now
            case control.Finished():
                self.task, self.text, self.step, self.pct = "", "", "", 0
                self.state, self.claimed_at, self.idle_since = "ready", None, now
            case control.Idle(head=head):
                self.idle = head
                self.task, self.text, self.step, self.pct = "", "", "", 0
                self.state = "paused" if self.paused else "ready"
            case control.Beat(pct=pct, step=step, mode=mode):
                self.last_beat = now
                if self.state == "working":
                    self.pct, self.step = pct, step
                self.mode = mode or self.mode
            case _:
                pass

    def facts(self) -> SeatFacts:
        """What the end of a run depends on."""
        return SeatFacts(
            present=self.child is not None and self.child.is_ready and self.child.exited is None and not self.moving,
            excused=self.is_down or self.paused,
            idle=self.idle,
        )

    def status(self) -> PhaseStatus:
        """The seat as people see it."""
        return PhaseStatus(
            title=self.phase.title,
            pid=self.child.pid if self.child is not None and self.child.exited is None else None,
            epoch=self.epoch,
            state=self.state,
            task=self.task,
            text=self.text,
            pct=self.pct,
            restarts=self.restarts,
            mode=self.mode,
            mode_reason=self.mode_reason,
            step=self.step,
            detail=self.detail or self.unwell,
        )
