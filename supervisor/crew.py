"""The one owner: it starts the phases, hears what happens, and decides what follows, one message at a time.

Exits, reports, commands and timers come into one mailbox; the owner's loop takes them in order. What blocks runs in
threads or tasks of its own and comes back as a message, so that *stop* is always heard. Whether a worker is started
again (`restart`), whether the run may end (`quiescence`) and what a document may hold (`docs_store`) is decided there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, assert_never

import anyio
import structlog
from anyio.to_thread import run_sync

from docs_store.errors import StoreError, StoreUnavailableError
from docs_store.topology import STRATEGIC, as_data
from ipc import control
from ipc.process import SpawnError

from .child import Child, ChildGoneError, Exited, Fact, Reported, new_nonce
from .commands import STOPPING, Command, Pending, Reload, Reply, StopCrew
from .config import Config
from .documents import Delivered, Documents, EndFacts, Look
from .journal import JournalError
from .liveness import OwnPulse, Verdict
from .liveness import judge as judge_life
from .notify import Notifier
from .orders import carry_out
from .quiescence import End, Facts, judge
from .restart import CrewPolicy, Decision, GiveUp, History, LeaveStopped, RestartPolicy, StartAgain, after_exit
from .restart import Exit as ChildExit
from .seat import Seat
from .status import CrewStatus
from .transport import Transport
from .turns import Turns
from .watch import is_stopped, liveness_policy, memory_of, over_limit
from .workspace import Workspace

if TYPE_CHECKING:
    from .epochs import EpochCounter
    from .plane import EventPlane
    from .standby import Standby

T = TypeVar("T")

TICK = 0.25  # seconds: timers, the slow bell, the question whether the run may end
DOCUMENTS_EVERY = 0.5  # seconds between looks at the documents where nobody tells us that one has changed
REPOSITORY_EVERY = 10.0  # seconds between looks at the user's files, at least
BUDGET = 15.0  # seconds for the whole shutdown
RING_AGAIN = 1.0
SEAT_AGAIN = 1.0  # seconds before a worker is seated whose epoch could not be put on record
MEMORY_EVERY = 2.0  # seconds between two looks at how much memory the limited phases hold

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moved:
    """The history has a new head, or may have."""

    head: int


@dataclass(frozen=True, slots=True)
class Looked:
    """The documents were brought up to date."""

    look: Look


@dataclass(frozen=True, slots=True)
class Brought:
    """Approved changes were delivered."""

    made: tuple[Delivered, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the end depends on was looked up."""

    facts: EndFacts


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody wants us to stop; `signal` names it, "" for a command."""

    signal: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """So many bytes of memory are held by the trees of these phases' workers, which had these pids."""

    pids: Mapping[str, int]
    held: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Commanded:
    """A person wants something, and waits for the reply."""

    pending: Pending


Letter = Reported | Exited | Moved | Looked | Brought | Judged | Interrupt | Tick | Measured | Commanded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What this run was asked for; `run` names it in ids. In lock-step one phase at a time works, in a fixed order."""

    until_idle: bool
    run: str
    lockstep: bool = False


@dataclass(slots=True)
class Mailbox:
    """Letters to the owner, from anywhere in its event loop, in order."""

    letters: list[Letter] = field(default_factory=list)
    _arrived: anyio.Event = field(default_factory=anyio.Event)

    def put(self, letter: Letter) -> None:
        self.letters.append(letter)
        self._arrived.set()

    async def take(self) -> tuple[Letter, ...]:
        while not self.letters:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        taken, self.letters = tuple(self.letters), []
        return taken


class Crew:
    """The phases of one workspace and everything that keeps them going. Run it once."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        config: Config,
        documents: Documents,
        plane: EventPlane,
        standby: Standby,
        epochs: EpochCounter,
        plan: Plan,
        notifier: Notifier,
        transport: Transport,
    ) -> None:
        self.workspace = workspace
        self.config = config
        self.documents = documents
        self.plane = plane
        self.standby = standby
        self.epochs = epochs
        self.plan = plan
        self.transport = transport
        self.turns = Turns()
        self.notifier = notifier
        self.mailbox = Mailbox()
        self.seats = {phase.key: Seat(phase=phase, config=config.phases[phase.key]) for phase in config.topology.phases}
        self.restarts = 0
        self.interrupted = ""
        self.problems: tuple[str, ...] = ()
        self._dirty: tuple[str, ...] = ()
        self._head = 0
        self._opened = False
        self._history = History()
        self._policy, self._crew_policy = policies(config)
        self._liveness = liveness_policy(config.liveness)
        self._own_pulse = OwnPulse(every=TICK)
        self._measuring = False
        self._measured_at = 0.0
        self._desk = anyio.CapacityLimiter(1)  # documents and trees belong to one thread at a time
        self._documents_due = anyio.Event()
        self._undelivered = 0
        self._delivering = False
        self._judging = False
        self._ended = anyio.Event()
        self._closed = anyio.Event()
        self._last_ring = 0.0
        self._stopping = False
        self._stop_reason = ""

    # -- the run

    async def run(self) -> None:
        """Start everybody, work until the end or an interrupt, stop in reverse order with everything put away."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                await self._open()
                group.start_soon(self._keep_documents)
                group.start_soon(self._tick)
                group.start_soon(self.transport.keep, self._tell_modes)
                if self.plan.lockstep:
                    group.start_soon(self._grant_turns)
                if not self.plan.until_idle:
                    group.start_soon(self._watch_repository)
                for seat in self.seats.values():
                    if self._may_start(seat):
                        await self._seat(seat, died=False, reason="the run begins")
                await self._own()
            finally:
                await self._stop()
                group.cancel_scope.cancel()

    async def _open(self) -> None:
        """Documents and files first, so that nobody works on something older than what the user sees."""
        self._heed(await self.at_desk(self.documents.start))
        await self.apply_limits()
        taken = await self.at_desk(lambda: self.documents.snapshot("at the start", on_progress=self._scanned))
        if taken is not None:
            self.plane.record("log_entry", detail=f"snapshot of {taken.files} files", step="snapshot")
            for problem in taken.skipped[:20]:
                self.plane.record("log_entry", detail=f"left out: {problem.path}: {problem.why}", step="snapshot")
        await self.at_desk(lambda: self.documents.assess(self.plan.run, "Look at the repository as it is now."))
        self._head = await self.at_desk(self.documents.head)
        self._opened = True

    async def apply_limits(self) -> None:
        """What the history itself counts by (`restart.deaths`) is on record in it."""
        deaths = self.config.restart.deaths
        await self._patiently(lambda: self.documents.store.set_limits(deaths=deaths))

    def _scanned(self, done: int, total: int) -> None:
        """Called in the desk's thread while a snapshot reads files."""
        self.notifier.extend(30.0, "reading the repository")
        detail = f"{done} of {total} files read" if total else f"{done} files found"
        anyio.from_thread.run_sync(
            lambda: self.plane.record(
                "progress", step="snapshot", pct=100 * done // total if total else 0, detail=detail
            )
        )

    async def _own(self) -> None:
        """The owner's loop."""
        while not self._ended.is_set():
            for letter in await self.mailbox.take():
                self._open_letter(letter)
                if self._ended.is_set():
                    return

    def _open_letter(self, letter: Letter) -> None:
        match letter:
            case Reported():
                self._reported(letter)
            case Exited():
                self._exited(letter)
            case Moved(head=head):
                self._moved(head)
            case Looked(look=look):
                self._heed(look)
            case Brought(made=made):
                self._brought(made)
            case Judged(facts=facts):
                self._judged(facts)
            case Interrupt(signal=name):
                self.interrupted = name or "stop"
                self._ended.set()
            case Tick():
                self._ticked()
            case Measured(pids=pids, held=held):
                for key, size in held.items():
                    seat = self.seats[key]
                    if seat.child is not None and seat.child.pid == pids[key]:
                        seat.held = size
            case Commanded(pending=pending):
                self._commanded(pending)
            case _:
                assert_never(letter)

    def interrupt(self, name: str) -> None:
        """Ask the owner to stop; from the event loop."""
        self.mailbox.put(Interrupt(name))

    # -- commands

    async def command(self, command: Command) -> Reply:
        """Put a command into the owner's mailbox and wait for what comes of it; from the event loop."""
        if self._stopping or self._ended.is_set():
            return STOPPING
        pending = Pending(command)
        self.mailbox.put(Commanded(pending))
        return await pending.reply()

    def _commanded(self, pending: Pending) -> None:
        command = pending.command
        if isinstance(command, StopCrew):
            self.plane.record("log_entry", step="command", detail=f"stop: {command.reason}")
            pending.answer(Reply(ok=True, text="the crew is being stopped", data={"pid": self.plane.pid}))
            self._stop_reason = command.reason
            self._ended.set()
        else:
            self._group.start_soon(self._carry_out, pending)

    async def _carry_out(self, pending: Pending) -> None:
        try:
            reply = await carry_out(self, pending.command)
            self.plane.record("log_entry", step="command", detail=reply.text, summary={"ok": reply.ok})
            pending.answer(reply)
        except Exception as error:
            log.exception("a command failed", command=type(pending.command).__name__)
            text = f"an error of ours ({type(error).__name__}: {error}); the crew goes on, the log says where"
            self.plane.record("phase_error", step="command", detail=text)
            pending.answer(Reply(ok=False, text=text))
        finally:
            pending.answer(STOPPING)  # only where the crew was stopped in between

    def _refuse_commands(self) -> None:
        """What was still in the mailbox when the run ended gets an answer too."""
        for letter in self.mailbox.letters:
            if isinstance(letter, Commanded):
                letter.pending.answer(STOPPING)

    def hang_up(self) -> None:
        """SIGHUP: the same as `supervisor reload`; what comes of it is on record. From the event loop."""
        self.mailbox.put(Commanded(Pending(Reload())))

    async def restart(self, seat: Seat, reason: str) -> None:
        """A new worker for that seat, which must not be `moving`; its past no longer counts against it."""
        self._history = self._history.forgetting(seat.key)
        self.plane.record("log_entry", phase=seat.key, step="decision", detail=f"{seat.key} is replaced: {reason}")
        await self._replace(seat, reason)

    def reconfigure(self, config: Config) -> None:
        """Take over what changes without a new worker: limits, intervals, policies."""
        self.notifier.reloading()
        self.config = config
        self._policy, self._crew_policy = policies(config)
        self._liveness = liveness_policy(config.liveness)
        for seat in self.seats.values():
            seat.config = config.phases[seat.key]

    def status(self) -> CrewStatus:
        """The crew as it is now."""
        depth, capacity = self.plane.queue_depth()
        return CrewStatus(
            workspace=str(self.workspace.root),
            pid=self.plane.pid,
            phases={key: seat.status() for key, seat in self.seats.items()},
            queue_depth=depth,
            queue_capacity=capacity,
            counters=self.plane.counters(),
            head=self._head,
            notes=(self.transport.note,) if self.transport.note else (),
            dirty=self._dirty,
        )

    def acknowledge(self, worker: str, epoch: int, ack: control.Ack) -> None:
        """Hand an ack to the worker it is for; in stdout mode acks travel over its stdin."""
        seat = self.seats.get(worker)
        if seat is not None and seat.child is not None and seat.epoch == epoch:
            seat.child.send(ack)

    def redirect(self, address: str, key: str) -> None:
        """Tell all workers that the queue is served at a new address."""
        for seat in self.seats.values():
            if seat.child is not None:
                seat.child.send(control.Redirect(address=address, key=key))

    def _tell_modes(self, modes: control.Modes) -> None:
        """The terms by which cycles draw their mode have changed; the queue may be served only now."""
        address, key = self.plane.endpoint()
        for seat in self.seats.values():
            if seat.child is not None and seat.child.assignment is not None:
                if address and seat.child.assignment.address != address:
                    seat.child.send(control.Redirect(address=address, key=key))
                seat.child.send(modes)

    # -- turns

    async def _grant_turns(self) -> None:
        """In lock-step: round and round in a fixed order, with deliveries made and documents settled before each turn.

        Whoever has looked at the present head has nothing to do, and is passed over.
        """
        await self.turns.until(lambda: all(self.turns.waits(key) or self._excused(key) for key in self.seats))
        while True:
            granted = False
            for key, seat in self.seats.items():
                await self.turns.until(lambda key=key: self.turns.waits(key) or self._excused(key))  # type: ignore[misc]
                await self._settle()
                if self._excused(key) or seat.idle == self._head or seat.child is None:
                    continue
                granted = True
                seat.child.send(control.Turn(number=self.turns.grant(key)))
                await self.turns.until(lambda key=key: not self.turns.working(key))  # type: ignore[misc]
            if not granted:
                await anyio.sleep(TICK)  # the end is being judged; or a person pauses, answers, edits

    def _excused(self, key: str) -> bool:
        return self.seats[key].facts().excused

    async def _settle(self) -> None:
        """What the supervisor does by itself between two turns: deliver, and bring the documents up to date."""
        while True:
            look = await self.at_desk(self.documents.look)
            self._heed(look)
            if not look.undelivered:
                return
            self._brought(await self._patiently(self.documents.deliver))

    # -- what workers say

    def _tell(self, fact: Fact) -> None:
        self.mailbox.put(fact)

    def _reported(self, letter: Reported) -> None:
        seat = self._seat_of(letter.child)
        if seat is None:
            return
        message = letter.message
        seat.hear(message, anyio.current_time())
        self.transport.heard(seat.key, seat.epoch, message)
        match message:
            case control.WantTurn():
                self.turns.wanted(seat.key)
            case control.TurnDone():
                self.turns.done(seat.key)
            case control.Ready():
                self.plane.record("log_entry", phase=seat.key, step="ready", detail=f"epoch {seat.epoch}")
                if seat.paused:
                    letter.child.send(control.Hold(paused=True))
                address, key = self.plane.endpoint()
                if letter.child.assignment is not None and letter.child.assignment.address != address:
                    letter.child.send(control.Redirect(address=address, key=key))  # it moved while this one started
            case control.Beat(events=counts):
                self.plane.heed(seat.key, seat.epoch, counts)
            case control.Idle(head=head):
                if head < self._head:
                    self._ring(seat)
                self._maybe_end()
            case control.Finished(head=head):
                self._moved(head)
            case control.Trouble(what=what, text=text):
                seat.detail = text.split("\n", 1)[0]
                self.plane.record("log_entry", phase=seat.key, step="trouble", detail=f"{what}: {text}"[:4000])
            case _:
                pass

    def _exited(self, fact: Exited) -> None:
        seat = self._seat_of(fact.child)
        if seat is None:
            return  # a spare; standby replaces it
        if seat.condemned:
            fact = replace(fact, text=f"{fact.text}\n{seat.condemned}".strip())
        self.turns.gone(seat.key)
        self.transport.gone(seat.key, asked=fact.asked)
        seat.moving, seat.hurry = True, anyio.Event()
        seat.state = "stopping" if fact.asked else "backoff"
        self._group.start_soon(self._succeed, seat, fact)

    def _seat_of(self, child: Child) -> Seat | None:
        seat = self.seats.get(child.phase)
        return seat if seat is not None and seat.child is child else None

    # -- one worker after another

    async def _succeed(self, seat: Seat, fact: Exited) -> None:
        """After an exit: the whole tree goes, the epoch's events are closed, and somebody new may come."""
        child = fact.child
        self._record_exit(seat, fact)
        while await child.end_tree():
            seat.detail = "processes of the last worker cannot be ended; its task is not handed on before they are gone"
            self.plane.record("log_entry", phase=seat.key, step="tree", detail=seat.detail)
            await anyio.sleep(1.0)
        self._group.start_soon(self._bury, seat, child)
        if self._stopping:
            seat.moving = False
            return
        decision = after_exit(
            self._exit_of(seat, fact),
            history=self._history,
            policy=self._policy,
            crew=self._crew_policy,
            order=tuple(self.seats),
            now=anyio.current_time(),
            jitter=random.random(),  # noqa: S311 - spreads restarts, guards no secret
        )
        self._history = decision.history
        await self._follow(seat, fact, decision)

    async def _follow(self, seat: Seat, fact: Exited, decision: Decision) -> None:
        self.plane.record(
            "log_entry", phase=seat.key, step="decision", detail=decision.reason, summary=dict(decision.inputs)
        )
        match decision:
            case StartAgain():
                seat.state, seat.detail = "backoff", decision.reason
                with anyio.move_on_after(max(0.0, decision.at - anyio.current_time())):
                    await seat.hurry.wait()  # until a person is in a hurry
                if self._stopping:
                    seat.moving = False
                    return
                self.restarts += 1
                seat.restarts += 1
                for other in decision.children:
                    if other != seat.key:
                        await self._replace(self.seats[other], decision.reason)
                because = f"{seat.condemned}; {decision.reason}" if seat.condemned else decision.reason
                await self._seat(seat, died=not fact.asked, reason=because)
            case GiveUp():
                seat.state, seat.detail, seat.child = "quarantined", decision.reason, None
                seat.emptied()
                seat.moving = False
                text = f"{decision.reason}\n{fact.text}".strip()
                await self._patiently(lambda: self.documents.store.give_up(seat.key, died=not fact.asked, reason=text))
                await self.look()
            case LeaveStopped():
                seat.state, seat.child = "stopped", None
                seat.moving = False
            case _:
                assert_never(decision)

    def _exit_of(self, seat: Seat, fact: Exited) -> ChildExit:
        return fact.as_exit(seat.key)

    async def _replace(self, seat: Seat, reason: str) -> None:
        """Stop a healthy worker because a sibling died (one_for_all, rest_for_one), and seat a new one."""
        child, seat.moving = seat.child, True
        if child is not None and child.exited is None:
            seat.child, seat.state = None, "stopping"
            await child.stop(2.0, reason)
            await child.end_tree()
            self._group.start_soon(self._bury, seat, child)
        if self._stopping:
            seat.moving = False
            return
        await self._seat(seat, died=False, reason=reason)

    async def _seat(self, seat: Seat, *, died: bool, reason: str) -> None:
        """Give the place to a new worker: number, history record, journal row and folder, assignment, in this order."""
        seat.moving = True
        epoch = 0
        child: Child | None = None
        try:
            child = await self.standby.take(self._tell)
            epoch = self.epochs.take()
            await self._patiently(lambda: self.documents.store.start_epoch(seat.key, epoch, died=died, reason=reason))
            died = False  # it is on record now
            nonce = new_nonce()
            folder = await self.plane.open_epoch(seat.key, epoch, nonce, child.identity)
            seat.seated(child, epoch, self.transport.first, self.transport.reason, now=anyio.current_time())
            child.assign(self._assignment(seat, epoch, nonce, str(folder)))
            self.plane.record(
                "log_entry",
                phase=seat.key,
                step="spawn",
                detail=f"epoch {epoch}, pid {child.pid}: {reason}",
                summary={"epoch": epoch, "pid": child.pid, "mode": seat.mode, "mode_reason": seat.mode_reason},
            )
        except (ChildGoneError, SpawnError, JournalError, OSError) as error:  # the last two: a full disk, most likely
            if seat.detail != str(error):
                self.plane.record("log_entry", phase=seat.key, step="spawn", detail=str(error))
            seat.detail = str(error)
            if child is not None:
                await self._discard(seat, child, epoch)
            delay = self._policy.first_delay if isinstance(error, (ChildGoneError, SpawnError)) else SEAT_AGAIN
            self._group.start_soon(self._seat_later, seat, died, reason, delay)
            return
        finally:
            seat.moving = False
        self._moved(await self.at_desk(self.documents.head))

    async def _discard(self, seat: Seat, child: Child, epoch: int) -> None:
        """A worker that died before it got its assignment: its epoch, if opened, is closed as it is."""
        await self.plane.close_epoch(seat.key, epoch, (), child.drain_markers)
        await child.end_tree()
        child.close()

    async def _seat_later(self, seat: Seat, died: bool, reason: str, delay: float) -> None:  # noqa: FBT001 - start_soon's
        """The worker was gone before it got its assignment, or that could not be put on record: try with another."""
        seat.moving = True
        await anyio.sleep(delay)
        if not self._stopping:
            await self._seat(seat, died=died, reason=reason)

    def _assignment(self, seat: Seat, epoch: int, nonce: str, spool: str) -> control.Assignment:
        address, key = self.plane.endpoint()
        config = seat.config
        project = self.config.project
        return control.Assignment(
            phase=seat.key,
            epoch=epoch,
            nonce=nonce,
            workspace=str(self.workspace.root),
            crew=str(self.workspace.crew),
            state=str(self.workspace.state),
            spool=spool,
            log=str(self.workspace.logs / f"{seat.key}-{epoch}.log"),
            address=address,
            key=key,
            mode=self.transport.first,
            modes=self.transport.modes,
            fallback=self.config.ipc.fallback == "auto",
            lockstep=self.plan.lockstep,
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
            topology=as_data(self.config.topology),
        )

    async def _bury(self, seat: Seat, child: Child) -> None:
        """Close the dead epoch: what is in its pipe and its spool still counts."""
        epoch = child.epoch
        seat.closing.add(epoch)
        with anyio.CancelScope(shield=True):
            try:
                reports = await self.at_desk(lambda: self.documents.reports_of(child.phase, epoch))
                await self.plane.close_epoch(child.phase, epoch, reports, child.drain_markers)
            finally:
                child.close()
                seat.closing.discard(epoch)
                self._closed.set()
        for other in self.seats.values():
            if other.child is not None:
                other.child.recheck_markers()
        self._maybe_end()

    def _record_exit(self, seat: Seat, fact: Exited) -> None:
        said = fact.text.strip()
        self.plane.record(
            "log_entry" if fact.asked else "phase_error",
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

    # -- heads, bells, documents

    def _moved(self, head: int) -> None:
        """The history has grown: views follow, sleepers are rung, approved work is delivered."""
        if head > self._head:
            self._head = head
            self._documents_due.set()
        for seat in self.seats.values():
            if seat.idle is not None and seat.idle < self._head and seat.rung < self._head:
                self._ring(seat)
        self._maybe_deliver()

    def _ring(self, seat: Seat) -> None:
        if seat.child is not None:
            seat.rung = self._head
            seat.child.send(control.Bell(head=self._head))

    async def _keep_documents(self) -> None:
        """Import what people write and bring views up to date: on each move, and every half second."""
        while True:
            with anyio.move_on_after(DOCUMENTS_EVERY):
                await self._documents_due.wait()
            self._documents_due = anyio.Event()
            await self.look()

    async def look(self) -> None:
        """Take in edits, write views that are behind, hear what the history says: now, not at the next look."""
        try:
            self.mailbox.put(Looked(await self.at_desk(self.documents.look)))
        except StoreError as error:
            self._alarm(str(error))

    def _heed(self, look: Look) -> None:
        """Say what an import found and which document cannot be written; take up what the history says now."""
        for document in look.imported:
            self.plane.record("log_entry", step="imported", detail=f"your edit of {document}")
        edited = [file for file in look.imported if file.removesuffix(".md") in STRATEGIC]
        if edited and self._opened and not self._stopping:  # the next run begins with an assessment anyway
            self._group.start_soon(self._assess_edit, look.head, edited)
        self._alarm(*look.problems)
        self._dirty = look.dirty
        self._undelivered = look.undelivered
        for seat in self.seats.values():
            self._pause(seat, paused=seat.key in look.paused)
        self._moved(look.head)

    def _alarm(self, *problems: str) -> None:
        """Each problem is said once, when it comes up, and once when all are gone."""
        for problem in problems:
            if problem not in self.problems:
                self.plane.record("phase_error", step="documents", detail=problem)
        if self.problems and not problems:
            self.plane.record("log_entry", step="documents", detail="the documents are in order again")
        self.problems = tuple(problems)

    async def _assess_edit(self, head: int, edited: list[str]) -> None:
        """Objectives that a person changed open a cycle of Planning."""
        why = f"The user edited {', '.join(edited)}."
        await self._patiently(lambda: self.documents.assess(f"edit-{head}", why, ("planning",)))
        self.mailbox.put(Moved(await self.at_desk(self.documents.head)))

    def _pause(self, seat: Seat, *, paused: bool) -> None:
        """Pausing is a record of the history, whoever made it; the worker finishes what it has in hand."""
        if paused == seat.paused:
            return
        seat.paused = paused
        if seat.state in ("ready", "paused"):
            seat.state = "paused" if paused else "ready"
        if seat.child is not None:
            seat.child.send(control.Hold(paused=paused))

    # -- delivery and the user's files

    def _maybe_deliver(self) -> None:
        if not self._delivering and not self._stopping and self._undelivered and not self.plan.lockstep:
            self._delivering = True
            self._group.start_soon(self._deliver)

    async def _deliver(self) -> None:
        try:
            made = await self._patiently(self.documents.deliver)
            self.mailbox.put(Brought(made))
            self._undelivered = 0
        finally:
            self._delivering = False
        await self.look()

    def _brought(self, made: tuple[Delivered, ...]) -> None:
        for one in made:
            files = ", ".join(one.written) or "nothing new"
            detail = f"delivered {files}" + (f"; left alone: {'; '.join(one.conflicts)}" if one.conflicts else "")
            summary = {
                "commit": one.commit,
                "task": one.task,
                "written": list(one.written),
                "conflicts": list(one.conflicts),
            }
            self.plane.record("log_entry", step="delivered", detail=detail, summary=summary)

    async def _watch_repository(self) -> None:
        """A change of the user's files opens a new assessment."""
        while True:
            await anyio.sleep(REPOSITORY_EVERY)
            began = anyio.current_time()
            try:
                taken = await self.at_desk(lambda: self.documents.snapshot("your files changed"))
            except (StoreError, OSError) as error:
                self._alarm(str(error))
                continue
            if taken is not None and taken.changed:
                why = f"{taken.changed} file(s) of the repository changed."
                await self._patiently(lambda: self.documents.assess(taken.commit[:12], why))  # noqa: B023 - awaited
                self.mailbox.put(Moved(await self.at_desk(self.documents.head)))
            took = anyio.current_time() - began
            await anyio.sleep(20 * took)  # a huge repository is looked at less often

    # -- time and the end

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK)
            self.mailbox.put(Tick())

    def _ticked(self) -> None:
        now = anyio.current_time()
        self._watch(now)
        self._tell_manager(now)
        if now - self._last_ring >= RING_AGAIN:
            self._last_ring = now
            for seat in self.seats.values():
                if seat.idle is not None and seat.idle < self._head:
                    self._ring(seat)
                if seat.child is not None:
                    seat.child.recheck_markers()
        self._maybe_deliver()
        self._maybe_end()

    def _tell_manager(self, now: float) -> None:
        """The service manager hears from this loop and no other: when it stands still, so does the watchdog."""
        self.notifier.beat(now)
        if not any(seat.state in ("starting", "stopped") and not seat.restarts for seat in self.seats.values()):
            self.notifier.ready(f"{len(self.seats)} phases in {self.workspace.root}")

    # -- whether workers live, and keep within their limits

    def _watch(self, now: float) -> None:
        self._own_pulse, away = self._own_pulse.look(now)
        if away:
            self.plane.record("log_entry", step="stall", detail=f"this supervisor was away for {away:.1f} s")
            for seat in self.seats.values():
                seat.after_stall(now, away)
        for seat in self.seats.values():
            if seat.vitals is None or seat.child is None or seat.child.exited or seat.moving or seat.condemned:
                continue
            worked = seat.worked(now)
            verdict = over_limit(seat.limits, phase=seat.key, task=seat.task, worked=worked, held=seat.held)
            self._heed_verdict(seat, verdict or judge_life(seat.vitals, self._liveness, now))
            self._maybe_assess(seat, now)
        self._maybe_measure(now)

    def _heed_verdict(self, seat: Seat, verdict: Verdict) -> None:
        assert seat.child is not None
        if verdict.state in ("gil held", "suspended") and not seat.asking:
            seat.asking = True
            self._group.start_soon(self._ask_system, seat, seat.child)
        elif verdict.action == "restart" and verdict.state != "gil held":
            self._condemn(seat, verdict)
        if verdict.state != seat.verdict and verdict.action == "warn":
            self._record_verdict("log_entry", seat, verdict)
        if verdict.action != "restart":
            seat.verdict = verdict.state

    async def _ask_system(self, seat: Seat, child: Child) -> None:
        """Nothing in it runs: held by its own code, or stopped by somebody? Only the system can tell."""
        try:
            stopped = await run_sync(is_stopped, child.pid)
            if seat.child is child and seat.vitals is not None and not seat.moving:
                seat.vitals = seat.vitals.looked(suspended=stopped)
                verdict = judge_life(seat.vitals, self._liveness, anyio.current_time())
                if verdict.action == "restart":
                    self._condemn(seat, verdict)
        finally:
            seat.asking = False

    def _condemn(self, seat: Seat, verdict: Verdict) -> None:
        """End a worker that runs and does not live, or takes too much: from there on it is a death like any other."""
        if seat.child is None or seat.condemned:
            return
        seat.condemned = seat.detail = f"{verdict.state}: {verdict.reason}"
        self._record_verdict("phase_error", seat, verdict)
        seat.child.kill()

    def _record_verdict(self, type_: str, seat: Seat, verdict: Verdict) -> None:
        step = "limit" if verdict.state in ("over time", "over memory") else "verdict"
        what = "; it is ended" if verdict.action == "restart" else ""
        self.plane.record(
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
            self._group.start_soon(self._measure, pids)

    async def _measure(self, pids: Mapping[str, int]) -> None:
        try:
            self.mailbox.put(Measured(pids, await run_sync(memory_of, pids)))
        finally:
            self._measuring = False

    def _maybe_assess(self, seat: Seat, now: float) -> None:
        """`phases.X.interval`: a cycle without anybody's message, once the phase has been idle for so long."""
        every = seat.config.interval
        if not every or self.plan.until_idle or seat.state != "ready" or seat.idle is None:
            return
        if now - max(seat.idle_since, seat.vitals.started_at if seat.vitals else now) >= every:
            seat.idle_since = now
            self._group.start_soon(self._assess_again, seat, every)

    async def _assess_again(self, seat: Seat, every: float) -> None:
        detail = f"{every:g} s have passed without a cycle (phases.{seat.key}.interval)"
        self.plane.record("log_entry", phase=seat.key, step="interval", detail=detail)
        await self._patiently(lambda: self.documents.assess_one(seat.key, "Look again: it is time."))
        await self.look()

    def _maybe_end(self) -> None:
        """Ask for the facts of the end when it looks near: they are taken under the store's lock, off the loop."""
        if not self.plan.until_idle or self._judging or self._stopping or self._ended.is_set():
            return
        seats = {key: seat.facts() for key, seat in self.seats.items()}
        if any(not seat.excused and seat.idle != self._head for seat in seats.values()) or self._delivering:
            return
        self._judging = True
        self._group.start_soon(self._judge)

    async def _judge(self) -> None:
        try:
            living = {seat.key: seat.epoch for seat in self.seats.values() if seat.child is not None}
            facts = await self.at_desk(lambda: self.documents.end_facts(living))
            self.mailbox.put(Judged(facts))
        except StoreError as error:
            self._alarm(str(error))
        finally:
            self._judging = False

    def _judged(self, facts: EndFacts) -> None:
        verdict = judge(
            Facts(
                head=facts.head,
                seats={key: seat.facts() for key, seat in self.seats.items()},
                claimed=facts.claimed,
                views_clean=facts.views_clean,
                undelivered=facts.undelivered,
                drained=self.plane.drained() and not any(seat.closing for seat in self.seats.values()),
            )
        )
        if isinstance(verdict, End):
            self._ended.set()
            self.mailbox.put(Tick())
        else:
            self._moved(facts.head)

    def _may_start(self, seat: Seat) -> bool:
        return seat.state != "quarantined"

    # -- stopping

    async def _stop(self) -> None:
        """Ask, wait, insist, in reverse start order, within one budget; then put everything away."""
        self._stopping = True
        self._refuse_commands()
        self.notifier.stopping(BUDGET + 15.0)  # and the last look, the last answers
        with anyio.CancelScope(shield=True):
            deadline = anyio.current_time() + BUDGET
            for seat in reversed(self.seats.values()):
                child = seat.child
                if child is None or child.exited is not None:
                    continue
                seat.state = "stopping"
                await child.stop(
                    max(0.5, min(5.0, deadline - anyio.current_time())),
                    self.interrupted or self._stop_reason or "the run ends",
                )
                await child.end_tree()
                await self._bury(seat, child)
                seat.state = "stopped"
            with anyio.move_on_after(5.0):
                while any(seat.closing for seat in self.seats.values()):
                    self._closed = anyio.Event()
                    await self._closed.wait()
            await self._last_look()

    async def _last_look(self) -> None:
        """Leave the documents as the history has them."""
        try:
            with anyio.move_on_after(5.0):
                while True:
                    self._heed(await self.at_desk(self.documents.look))
                    if await self.at_desk(self.documents.reconciler.clean):
                        return
                    await anyio.sleep(0.1)
        except StoreError as error:
            self._alarm(str(error))

    # -- threads

    async def at_desk(self, work: Callable[[], T]) -> T:
        """Run something of the documents in a thread, one at a time."""
        return await run_sync(work, limiter=self._desk)

    async def _patiently(self, work: Callable[[], T]) -> T:
        """The same; while the disk is full or the folder read-only, say so and try again."""
        while True:
            try:
                return await self.at_desk(work)
            except StoreUnavailableError as error:
                self._alarm(str(error))
                await anyio.sleep(1.0)


def _last_line(text: str) -> str:
    """Where a traceback says what it was."""
    return text.rpartition("\n")[2].strip()[:500]


def policies(config: Config) -> tuple[RestartPolicy, CrewPolicy]:
    """The restart policy that `supervisor.toml` asks for."""
    restart = config.restart
    policy = RestartPolicy(
        restarts=restart.restarts,
        within=restart.within,
        stable_after=restart.stable_after,
        first_delay=restart.first_delay,
        longest_delay=max(restart.first_delay, restart.longest_delay),
    )
    return policy, CrewPolicy(strategy=restart.strategy)
