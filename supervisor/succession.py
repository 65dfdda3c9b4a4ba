"""One worker after another in each seat: exit, tree gone, epoch closed, the restart policy asked, a successor seated.

Whether and when somebody is started again is `restart`'s decision; who is stopped for good is the owner's. Every step
that takes time runs in a task of its own, and what it changes for others comes back to the owner as a letter.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import anyio

from docs_store.replay import held
from docs_store.topology import as_data
from ipc import control
from ipc.process import SpawnError

from .child import Child, ChildGoneError, Exited, new_nonce
from .config import Config, PhaseConfig, RestartConfig
from .desk import Desk
from .documents import Documents
from .journal import JournalError
from .letters import Mailbox, Moved, Tick
from .restart import (
    CrewPolicy,
    Decision,
    GiveUp,
    History,
    LeaveEnded,
    LeaveStopped,
    RestartPolicy,
    StartAgain,
    after_exit,
)
from .seat import Seat
from .transport import Transport
from .watch import idle_beats
from .workspace import Workspace

if TYPE_CHECKING:
    from .epochs import EpochCounter
    from .plane import EventPlane
    from .standby import Standby

SUCCESSOR_FIRST = 0.1  # seconds that closing an epoch waits, so that it is not in the way of the next one's start
SEAT_AGAIN = 1.0  # seconds before a worker is seated whose epoch could not be put on record


class Succession:
    """Fills the seats. `start` starts a task in the owner's task group; `look` brings the documents up to date.

    `gone` is told of a worker that was replaced, whose exit nobody else sees to.
    """

    def __init__(
        self,
        *,
        seats: Mapping[str, Seat],
        workspace: Workspace,
        config: Config,
        documents: Documents,
        desk: Desk,
        plane: EventPlane,
        standby: Standby,
        epochs: EpochCounter,
        transport: Transport,
        mailbox: Mailbox,
        lockstep: bool,
        start: Callable[..., Any],
        look: Callable[[], Awaitable[None]],
        gone: Callable[[Exited], None],
    ) -> None:
        self.seats = seats
        self.restarts = 0
        self.stopping = False  # the owner's word: nobody is seated any more
        self._workspace = workspace
        self._documents = documents
        self._desk = desk
        self._plane = plane
        self._standby = standby
        self._epochs = epochs
        self._transport = transport
        self._mailbox = mailbox
        self._lockstep = lockstep
        self._start = start
        self._look = look
        self._gone = gone
        self._burying: set[anyio.CancelScope] = set()
        self._closed = anyio.Event()
        self._history = History()
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Take over what the next start and the next decision depend on."""
        self._config = config
        self._policies, self._crew_policy = policies(config)

    def forget(self, phase: str) -> None:
        """A person asked for a new start: the phase's past no longer counts against it."""
        self._history = self._history.forgetting(phase)

    async def all_closed(self) -> None:
        """Return once no epoch is being closed any more."""
        while any(seat.closing for seat in self.seats.values()):
            self._closed = anyio.Event()
            await self._closed.wait()

    def leave_open(self) -> list[str]:
        """Wait no longer for epochs that are not closed yet: the next start does it. Which they are."""
        left = [f"{seat.key} {epoch}" for seat in self.seats.values() for epoch in sorted(seat.closing)]
        for scope in self._burying:
            scope.cancel()
        return left

    async def succeed(self, seat: Seat, fact: Exited) -> None:
        """After an exit: the whole tree goes, the epoch's events are closed, and somebody new may come.

        The three go side by side; only the assignment waits for the tree, and the closing lets the successor go first.
        """
        tree, seated = anyio.Event(), anyio.Event()
        self.record_exit(seat, fact)
        seat.closing.add(fact.child.epoch)
        self._start(self._clear, seat, fact.child, tree)
        self._start(self.bury, seat, fact.child, seated)
        try:
            if self.stopping:
                await tree.wait()
                seat.moving = False
                return
            decision = after_exit(
                replace(fact.as_exit(seat.key), judged=bool(seat.condemned)),
                history=self._history,
                policy=self._policies[seat.key],
                crew=self._crew_policy,
                order=tuple(self.seats),
                now=anyio.current_time(),
                jitter=random.random(),  # noqa: S311 - spreads restarts, guards no secret
                temporary=[key for key, policy in self._policies.items() if policy.permanence == "temporary"],
            )
            self._history = decision.history
            await self._follow(seat, fact, decision, tree)
        finally:
            seated.set()

    async def _clear(self, seat: Seat, child: Child, tree: anyio.Event) -> None:
        """End what is left of a dead worker's tree; `tree` is set when that is nothing."""
        while await child.end_tree():
            seat.detail = "processes of the last worker cannot be ended; its task is not handed on before they are gone"
            self._plane.record("log_entry", phase=seat.key, step="tree", detail=seat.detail)
            await anyio.sleep(1.0)
        tree.set()

    async def _follow(self, seat: Seat, fact: Exited, decision: Decision, tree: anyio.Event) -> None:
        self._plane.record(
            "log_entry", phase=seat.key, step="decision", detail=decision.reason, summary=dict(decision.inputs)
        )
        if not isinstance(decision, StartAgain):
            await tree.wait()
        match decision:
            case StartAgain():
                seat.state, seat.detail = "backoff", decision.reason
                if (delay := decision.at - anyio.current_time()) > 0:
                    with anyio.move_on_after(delay):
                        await seat.hurry.wait()  # until a person is in a hurry
                if self.stopping:
                    seat.moving = False
                    return
                await self._replace_others(seat, decision)
                self._count_restart(seat)
                because = f"{seat.condemned}; {decision.reason}" if seat.condemned else decision.reason
                await self.seat(seat, died=not fact.asked, reason=because, tree=tree)
            case GiveUp():
                seat.vacate("quarantined", decision.reason)
                text = f"{decision.reason}\n{fact.text}".strip()
                await self._desk.patiently(
                    lambda: self._documents.store.give_up(seat.key, died=not fact.asked, reason=text)
                )
                await self._look()
            case LeaveEnded():
                await self._release(seat.key, died=True, reason=decision.reason)
                seat.vacate("ended", decision.reason)
            case LeaveStopped():
                seat.state, seat.child = "stopped", None
                seat.moving = False
            case _:
                assert_never(decision)

    async def _replace_others(self, dead: Seat, decision: StartAgain) -> None:
        """Those that the strategy restarts together with the dead one (one_for_all, rest_for_one), in their order.

        Temporary ones are stopped with them and not started again. Left out: who was given up, has ended or never
        started, which stays with people, and who is moving already: that one gets a new worker anyway. All are taken at
        once, so that no other death of the same moment takes them too.
        """
        others = [self.seats[key] for key in (*decision.ended, *decision.children) if key != dead.key]
        taken = [other for other in others if other.child is not None and not other.moving]
        for other in taken:
            other.moving = True
        for other in taken:
            if self.stopping:
                other.moving = False
            elif other.key in decision.ended:
                await self._end(other, decision.reason)
            else:
                self._count_restart(other)
                await self.replace(other, decision.reason)

    async def _end(self, seat: Seat, reason: str) -> None:
        """Stop the seat's worker together with others, and seat nobody."""
        died = await self._dismiss(seat, reason)
        text = f"{seat.key} was stopped with others and stays down, as a temporary child does: {reason}"
        self._plane.record("log_entry", phase=seat.key, step="decision", detail=text)
        await self._release(seat.key, died=died, reason=text)
        seat.vacate("ended", text)

    async def _release(self, phase: str, *, died: bool, reason: str) -> None:
        """Give back what the last worker held: a number for nobody, in the history only, ends its epoch and claims."""
        store = self._documents.store
        if await self._desk.patiently(lambda: held(store.refresh(), phase)) is not None:
            epoch = self._epochs.take()
            await self._desk.patiently(lambda: store.start_epoch(phase, epoch, died=died, reason=reason))
            await self._look()

    def _count_restart(self, seat: Seat) -> None:
        self.restarts += 1
        seat.restarts += 1

    async def replace(self, seat: Seat, reason: str) -> None:
        """Stop the seat's worker, and seat a new one. Whoever calls this moves the seat: nobody else may."""
        died = await self._dismiss(seat, reason)
        if self.stopping:
            seat.moving = False
            return
        await self.seat(seat, died=died, reason=reason)

    async def _dismiss(self, seat: Seat, reason: str) -> bool:
        """Stop the seat's worker, if there is one; whether it had died before, unasked."""
        child, seat.moving = seat.child, True
        if child is None:
            return False
        seat.child, seat.state = None, "stopping"  # its exit finds nobody: here is who sees to it
        seat.closing.add(child.epoch)
        died = child.exited is not None and not child.asked
        await child.stop(2.0, reason)
        await child.end_tree()
        self.put_away(seat, child)
        if child.exited is not None:
            self._gone(child.exited)
        return died

    def put_away(self, seat: Seat, child: Child) -> None:
        """Put a worker's end on record, and begin to close its epoch."""
        if child.exited is not None:
            self.record_exit(seat, child.exited)
        seat.closing.add(child.epoch)
        self._start(self.bury, seat, child)

    async def seat(self, seat: Seat, *, died: bool, reason: str, tree: anyio.Event | None = None) -> None:
        """Give the place to a new worker: number, history record, journal row and folder, assignment, in this order.

        The assignment waits for `tree`: a task is handed on when nothing of its last worker is left.
        """
        seat.moving = True
        epoch = 0
        child: Child | None = None
        try:
            child = await self._standby.take(self._mailbox.put)
            child.prepare(self._preparation())
            epoch = self._epochs.take()
            opening = await self._desk.patiently(partial(self._record_epoch, seat.key, epoch, child, died, reason))
            died = False  # it is on record now
            nonce = new_nonce()
            folder = await self._plane.open_epoch(seat.key, epoch, nonce, opening)
            if tree is not None:
                await tree.wait()
            if self.stopping:
                await self._discard(seat, child, epoch)
                seat.moving = False
                return
            seat.seated(child, epoch, self._transport.first, self._transport.reason, now=anyio.current_time())
            child.assign(self._assignment(seat, epoch, nonce, str(folder)))
            self._plane.record(
                "log_entry",
                phase=seat.key,
                step="spawn",
                detail=f"epoch {epoch}, pid {child.pid}: {reason}",
                summary={"epoch": epoch, "pid": child.pid, "mode": seat.mode, "mode_reason": seat.mode_reason},
            )
        except (ChildGoneError, SpawnError, JournalError, OSError) as error:  # the last two: a full disk, most likely
            if seat.detail != str(error):
                self._plane.record("log_entry", phase=seat.key, step="spawn", detail=str(error))
            seat.detail = str(error)
            if child is not None:
                await self._discard(seat, child, epoch)
            delay = (
                self._policies[seat.key].first_delay if isinstance(error, (ChildGoneError, SpawnError)) else SEAT_AGAIN
            )
            self._start(self._seat_later, seat, died, reason, delay, tree)  # it stays on the move until then
            return
        seat.moving = False
        self._start(self._tell_head, child)

    async def _tell_head(self, child: Child) -> None:
        """The new epoch's record moves the head; others are woken to look at it when `child` has got ready."""
        with anyio.move_on_after(SUCCESSOR_FIRST):
            await child.wait_ready()
        self._mailbox.put(Moved(await self._desk.run(self._documents.head)))

    def _record_epoch(
        self,
        phase: str,
        epoch: int,
        child: Child,
        died: bool,  # noqa: FBT001 - partial's
        reason: str,
    ) -> Future[Path]:
        """In the documents' thread: the history's record, and from there on, without a way back, journal and folder."""
        self._documents.store.start_epoch(phase, epoch, died=died, reason=reason)
        return self._plane.opening(phase, epoch, child.identity)

    async def _discard(self, seat: Seat, child: Child, epoch: int) -> None:
        """A worker that died before it got its assignment: its epoch, if opened, is closed as it is."""
        await self._plane.close_epoch(seat.key, epoch, (), child.drain_markers)
        await child.end_tree()
        child.close()

    async def _seat_later(
        self,
        seat: Seat,
        died: bool,  # noqa: FBT001 - start_soon's
        reason: str,
        delay: float,
        tree: anyio.Event | None,
    ) -> None:
        """The worker was gone before it got its assignment, or that could not be put on record: try with another."""
        await anyio.sleep(delay)
        if not self.stopping:
            await self.seat(seat, died=died, reason=reason, tree=tree)

    def _preparation(self) -> control.Prepare:
        return control.Prepare(
            crew=str(self._workspace.crew),
            state=str(self._workspace.state),
            topology=as_data(self._config.topology),
        )

    def _assignment(self, seat: Seat, epoch: int, nonce: str, spool: str) -> control.Assignment:
        address, key = self._plane.endpoint()
        config = seat.config
        project = self._config.project
        return control.Assignment(
            phase=seat.key,
            epoch=epoch,
            nonce=nonce,
            workspace=str(self._workspace.root),
            crew=str(self._workspace.crew),
            state=str(self._workspace.state),
            spool=spool,
            log=str(self._workspace.logs / f"{seat.key}-{epoch}.log"),
            address=address,
            key=key,
            mode=self._transport.first,
            modes=self._transport.modes,
            fallback=self._transport.config.ipc.fallback == "auto",  # [ipc] is that of the start, for all workers
            lockstep=self._lockstep,
            idle_every=idle_beats(self._config.liveness),
            options={
                **config.options,
                "driver": config.driver,
                **({"actor": config.actor} if config.actor else {}),
                "project": {
                    "python": project.python,
                    "tests": list(project.tests),
                    "test_timeout": project.test_timeout,
                    "hang": project.hang,
                },
            },
            topology=as_data(self._config.topology),
        )

    async def bury(self, seat: Seat, child: Child, seated: anyio.Event | None = None) -> None:
        """Close the dead epoch, one of `closing`: its pipe and spool still count; a successor is `seated` first."""
        epoch = child.epoch
        if seated is not None:
            with anyio.move_on_after(SUCCESSOR_FIRST):
                await seated.wait()
                if seat.child is not None:
                    await seat.child.wait_ready()
        with anyio.CancelScope(shield=True) as scope:
            self._burying.add(scope)
            try:
                reports = await self._desk.run(lambda: self._documents.reports_of(child.phase, epoch))
                await self._plane.close_epoch(child.phase, epoch, reports, child.drain_markers)
            finally:
                self._burying.discard(scope)
                child.close()
                seat.closing.discard(epoch)
                self._closed.set()
        for other in self.seats.values():
            if other.child is not None:
                other.child.recheck_markers()
        self._mailbox.put(Tick())  # perhaps that was all that the end waited for

    def record_exit(self, seat: Seat, fact: Exited) -> None:
        """How a worker went, for `why` and the report."""
        said = fact.text.strip()
        has_ended = self._policies[seat.key].permanence != "permanent" and fact.as_exit(seat.key).is_normal
        self._plane.record(
            "log_entry" if fact.asked or has_ended else "phase_error",
            phase=seat.key,
            step="exit",
            detail=fact.as_exit(seat.key).text + (f": {_last_line(said)}" if said else ""),
            summary={
                "epoch": fact.child.epoch,
                "pid": fact.child.pid,
                "code": fact.code,
                "asked": fact.asked,
                "text": said[-8000:],
            },
        )


def _last_line(text: str) -> str:
    """Where a traceback says what it was."""
    return text.rpartition("\n")[2].strip()[:500]


def policies(config: Config) -> tuple[Mapping[str, RestartPolicy], CrewPolicy]:
    """The restart policies that `supervisor.toml` asks for, of each phase and of the crew.

    Where the crew's limit is not set it is what the phases may need each for itself in the crew's time.
    """
    restart = config.restart
    its = {key: _policy(restart, phase) for key, phase in config.phases.items()}
    most = sum(policy.restarts * max(1, math.ceil(restart.within / policy.within)) for policy in its.values())
    crew = CrewPolicy(strategy=restart.strategy, restarts=restart.crew_restarts or most, within=restart.within)
    return its, crew


def _policy(restart: RestartConfig, phase: PhaseConfig) -> RestartPolicy:
    """That phase's: its own limits, and [restart] for the rest."""
    own = {name: value for name, value in asdict(phase.restart).items() if value is not None}
    limits = replace(restart, **own)
    return RestartPolicy(
        permanence=phase.permanence,
        final_exit_codes=phase.final_exit_codes,
        restarts=limits.restarts,
        within=limits.within,
        start_failures=limits.start_failures,
        stable_after=limits.stable_after,
        first_delay=limits.first_delay,
        longest_delay=max(limits.first_delay, limits.longest_delay),
    )
