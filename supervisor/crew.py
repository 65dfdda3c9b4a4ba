"""The one owner: it starts the phases, hears what happens, and decides what follows, one message at a time.

Exits, reports, commands and timers come into one mailbox; the owner's loop takes them in order. What blocks runs in
threads or tasks of its own and comes back as a message, so that *stop* is always heard. Whether a worker is started
again (`restart`), whether the run may end (`quiescence`) and what a document may hold (`docs_store`) is decided there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import anyio
import structlog

from actors.trees_process import in_brief
from docs_store.errors import StoreError
from docs_store.topology import STRATEGIC
from ipc import control

from .child import Child, Exited, Fact, Reported
from .commands import STOPPING, Command, Pending, Reload, Reply, StopCrew, concerned, too_late
from .config import Config
from .desk import Desk
from .documents import ASSESSORS, Delivered, Documents, EndFacts, Look
from .letters import (
    Brought,
    Commanded,
    Interrupt,
    Judged,
    Letter,
    Looked,
    Mailbox,
    Measured,
    Moved,
    Plan,
    ProbeAnswered,
    Tick,
)
from .notify import Notifier
from .orders import carry_out
from .prober import Prober
from .quiescence import End, Facts, judge
from .rhythm import until_next
from .seat import Seat
from .status import CrewStatus
from .succession import Succession
from .transport import Transport
from .turns import Turns
from .vigil import Vigil
from .watch import liveness_policy
from .workspace import Workspace

if TYPE_CHECKING:
    from .epochs import EpochCounter
    from .plane import EventPlane
    from .standby import Standby

T = TypeVar("T")

TICK = 1.0  # seconds: timers, the slow bell
QUICK_TICK = 0.25  # the same while the question is whether the run may end
DOCUMENTS_EVERY = 1.0  # seconds between looks at the documents where nobody tells us that one has changed
DOCUMENTS_AGAIN = 0.25  # the same while one is still in motion
REPOSITORY_EVERY = 10.0  # seconds between looks at the user's files, at least
BUDGET = 15.0  # seconds for asking all workers to go, one after the other
AT_LEAST = 0.5  # seconds that each has, however many there are
CLOSING = 10.0  # seconds for closing their epochs; what is open then is left to the next start
RING_AGAIN = 1.0

log = structlog.get_logger(__name__)


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
        marks: Mapping[str, str],
    ) -> None:
        """`marks` are in the environment of whatever the crew starts."""
        self.workspace = workspace
        self.config = self.begun = config  # as it is now, and as it was at the start
        self.documents = documents
        self.plane = plane
        self.standby = standby
        self.epochs = epochs
        self.plan = plan
        self.transport = transport
        self.turns = Turns()
        self.notifier = notifier
        self.mailbox = Mailbox()
        self.lane = anyio.Lock()  # for commands that go through the whole crew
        self.seats = {phase.key: Seat(phase=phase, config=config.phases[phase.key]) for phase in config.topology.phases}
        self.interrupted = ""  # by whom: a signal, or a command
        self._dirty: tuple[str, ...] = ()
        self._tick_every = QUICK_TICK if plan.until_idle else TICK
        self._head = 0
        self._opened = False
        self.desk = Desk(plane)
        self.succession = Succession(
            seats=self.seats,
            workspace=workspace,
            config=config,
            documents=documents,
            desk=self.desk,
            plane=plane,
            standby=standby,
            epochs=epochs,
            transport=transport,
            mailbox=self.mailbox,
            lockstep=plan.lockstep,
            start=self._start,
            look=self.look,
            gone=self._gone,
        )
        self.vigil = Vigil(
            seats=self.seats,
            plane=plane,
            mailbox=self.mailbox,
            policy=liveness_policy(config.liveness),
            every=self._tick_every,
            start=self._start,
        )
        self.prober = Prober(
            seats=self.seats,
            plane=plane,
            mailbox=self.mailbox,
            folder=workspace.root,
            marks=marks,
            start=self._start,
            condemn=self.vigil.condemn,
        )
        self._documents_due = anyio.Event()
        self._readied = anyio.Event()
        self._started: list[str] = []  # in this order; they are stopped in the reverse one
        self._undelivered = 0
        self._delivering = False
        self._judging = False
        self._ended = anyio.Event()
        self._last_ring = 0.0
        self._stopping = False

    def _start(self, *work: Any) -> None:
        """Start a task in the run's task group."""
        self._group.start_soon(*work)

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
                    seat.moving = True
                group.start_soon(self._begin)
                await self._own()
            finally:
                await self._stop()
                group.cancel_scope.cancel()

    async def _begin(self) -> None:
        """Fill the seats in their order; a large crew takes its time, and *stop* is heard meanwhile."""
        for seat in self.seats.values():
            if seat.config.after:
                self._group.start_soon(self._seat_after, seat, seat.config.after)
            else:
                await self._seat_first(seat)

    async def _seat_first(self, seat: Seat) -> None:
        seat.moving = False
        if self._may_start(seat) and not self._stopping:
            self._started.append(seat.key)
            await self.succession.seat(seat, died=False, reason="the run begins")

    async def _seat_after(self, seat: Seat, others: tuple[str, ...]) -> None:
        """Start it once those are ready. One that was given up is waited for no longer: the crew goes on without it."""
        while waited := [key for key in others if not self._can_work(self.seats[key])]:
            seat.detail = f"is started once {', '.join(waited)} can work (phases.{seat.key}.after)"
            await self._readied.wait()
        seat.detail = ""
        await self._seat_first(seat)

    @staticmethod
    def _can_work(seat: Seat) -> bool:
        """Whether nobody has to wait for it any longer."""
        return seat.facts().present or seat.is_down

    async def _open(self) -> None:
        """Documents and files first, so that nobody works on something older than what the user sees."""
        self._heed(await self.desk.run(self.documents.start))
        await self.apply_limits()
        taken = await self.desk.run(lambda: self.documents.snapshot("at the start", on_progress=self._scanned))
        if taken is not None:
            self.plane.record("log_entry", detail=f"snapshot of {taken.files} files", step="snapshot")
            for problem in taken.skipped[:20]:
                self.plane.record("log_entry", detail=f"left out: {problem.path}: {problem.why}", step="snapshot")
        await self.desk.run(
            lambda: self.documents.assess(self.plan.run, "Look at the repository as it is now.", self._assessors())
        )
        self._head = await self.desk.run(self.documents.head)
        self._opened = True

    def _assessors(self) -> tuple[str, ...]:
        """Who looks at everything when a run begins or the repository has changed."""
        return (*ASSESSORS, *(key for key, phase in self.config.phases.items() if phase.assess))

    async def apply_limits(self) -> None:
        """What the history itself counts by (`restart.deaths`) is on record in it."""
        deaths = self.config.restart.deaths
        await self.desk.patiently(lambda: self.documents.store.set_limits(deaths=deaths))

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
            self._open_letter(await self.mailbox.take())

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
            case ProbeAnswered():
                self.prober.heard(letter)
            case Commanded(pending=pending):
                self._commanded(pending)
            case _:
                assert_never(letter)

    def interrupt(self, name: str) -> None:
        """Ask the owner to stop; from the event loop."""
        self.mailbox.put(Interrupt(name))

    @property
    def moved(self) -> tuple[object, ...]:
        """Changes when the history or what a phase can do has: cheap to compare."""
        return (self._head, *(seat.state == "quarantined" for seat in self.seats.values()))

    # -- commands

    async def command(self, command: Command) -> Reply:
        """Put a command into the owner's mailbox and wait for what comes of it; from the event loop."""
        if self._stopping or self._ended.is_set():
            return too_late(command, self.plane.pid)
        pending = Pending(command)
        self.mailbox.put(Commanded(pending))
        return await pending.reply()

    def _commanded(self, pending: Pending) -> None:
        command = pending.command
        if isinstance(command, StopCrew):
            self.plane.record("log_entry", step="command", detail=f"stop: {command.reason}")
            pending.answer(Reply(ok=True, text="the crew is being stopped", data={"pid": self.plane.pid}))
            self.interrupted = command.reason
            self._ended.set()
        else:
            self._group.start_soon(self._carry_out, pending)

    async def _carry_out(self, pending: Pending) -> None:
        try:
            reply = await carry_out(self, pending.command)
            summary = {"ok": reply.ok, "phases": concerned(pending.command)}
            self.plane.record("log_entry", step="command", detail=reply.text, summary=summary)
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
                letter.pending.answer(too_late(letter.pending.command, self.plane.pid))

    def hang_up(self) -> None:
        """SIGHUP: the same as `supervisor reload`; what comes of it is on record. From the event loop."""
        self.mailbox.put(Commanded(Pending(Reload())))

    async def restart(self, seat: Seat, reason: str) -> None:
        """A new worker for that seat, which must not be `moving`; its past no longer counts against it."""
        self.succession.forget(seat.key)
        self.plane.record("log_entry", phase=seat.key, step="decision", detail=f"{seat.key} is replaced: {reason}")
        await self.succession.replace(seat, reason)

    def reconfigure(self, config: Config) -> None:
        """Take over what changes without a new worker: limits, intervals, policies."""
        self.notifier.reloading()
        self.config = config
        self.succession.reconfigure(config)
        self.vigil.policy = liveness_policy(config.liveness)
        for seat in self.seats.values():
            if seat.config.probe != config.phases[seat.key].probe:
                seat.probes, seat.unwell = seat.probes.anew(), ""
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
            workers=self.plane.worker_counters(),
            latency=self.plane.statistics().latencies,
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
                await anyio.sleep(QUICK_TICK)  # the end is being judged; or a person pauses, answers, edits

    def _excused(self, key: str) -> bool:
        return self.seats[key].facts().excused

    async def _settle(self) -> None:
        """What the supervisor does by itself between two turns: deliver, and bring the documents up to date."""
        while True:
            look = await self.desk.run(self.documents.look)
            self._heed(look)
            if not look.undelivered:
                return
            self._brought(await self.desk.patiently(self.documents.deliver))

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
                self._wake_waiting()
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
        if seat.moving:
            return  # it was to be replaced anyway; who does that sees to this too
        self._gone(fact)
        seat.moving, seat.hurry = True, anyio.Event()
        seat.state = "stopping" if fact.asked else "backoff"
        self._group.start_soon(self.succession.succeed, seat, fact)

    def _gone(self, fact: Exited) -> None:
        """Nobody waits any longer for what this worker was to say."""
        self.turns.gone(fact.child.phase)
        self.transport.gone(fact.child.phase, asked=fact.asked)

    def _seat_of(self, child: Child) -> Seat | None:
        seat = self.seats.get(child.phase)
        return seat if seat is not None and seat.child is child else None

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
        """Import what people write and bring views up to date: on each move, and every second."""
        while True:
            with anyio.move_on_after(
                until_next(DOCUMENTS_AGAIN if self._dirty else DOCUMENTS_EVERY, anyio.current_time())
            ):
                await self._documents_due.wait()
            self._documents_due = anyio.Event()
            await self.look()

    async def look(self) -> None:
        """Take in edits, write views that are behind, hear what the history says: now, not at the next look."""
        try:
            self.mailbox.put(Looked(await self.desk.run(self.documents.look)))
        except StoreError as error:
            self.desk.alarm(str(error))

    def _heed(self, look: Look) -> None:
        """Say what an import found and which document cannot be written; take up what the history says now."""
        for document in look.imported:
            self.plane.record("log_entry", step="imported", detail=f"your edit of {document}")
        edited = [file for file in look.imported if file.removesuffix(".md") in STRATEGIC]
        if edited and self._opened and not self._stopping:  # the next run begins with an assessment anyway
            self._group.start_soon(self._assess_edit, look.head, edited)
        self.desk.alarm(*look.problems)
        self._dirty = look.dirty
        self._undelivered = look.undelivered
        for seat in self.seats.values():
            self._pause(seat, paused=seat.key in look.paused)
        self._moved(look.head)

    async def _assess_edit(self, head: int, edited: list[str]) -> None:
        """Objectives that a person changed open a cycle of Planning."""
        why = f"The user edited {', '.join(edited)}."
        await self.desk.patiently(lambda: self.documents.assess(f"edit-{head}", why, ("planning",)))
        self.mailbox.put(Moved(await self.desk.run(self.documents.head)))

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
            made = await self.desk.patiently(self.documents.deliver)
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
                taken = await self.desk.run(lambda: self.documents.snapshot("your files changed"))
            except (StoreError, OSError) as error:
                self.desk.alarm(in_brief(error))
                continue
            if taken is not None and taken.changed:
                why = f"{taken.changed} file(s) of the repository changed."
                await self.desk.patiently(lambda: self.documents.assess(taken.commit[:12], why, self._assessors()))  # noqa: B023 - awaited
                self.mailbox.put(Moved(await self.desk.run(self.documents.head)))
            took = anyio.current_time() - began
            await anyio.sleep(20 * took)  # a huge repository is looked at less often

    # -- time and the end

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(until_next(self._tick_every, anyio.current_time()))
            self.mailbox.put(Tick())

    async def ready(self, seat: Seat) -> bool:
        """Return once the present worker is known to be ready (True), or has gone before that (False)."""
        child = seat.child
        if child is None or not await child.wait_ready():
            return False
        while seat.child is child and seat.state == "starting":
            await self._readied.wait()
        return seat.child is child

    def _wake_waiting(self) -> None:
        """Whoever waits for others to be ready looks again."""
        self._readied.set()
        self._readied = anyio.Event()

    def _ticked(self) -> None:
        now = anyio.current_time()
        self._wake_waiting()  # one of them may have been given up
        self.vigil.look(now)
        self.prober.look(now)
        for seat in self.seats.values():
            self._maybe_assess(seat, now)
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

    def _maybe_assess(self, seat: Seat, now: float) -> None:
        """`phases.X.interval`: a cycle without anybody's message, once the phase has been idle for so long."""
        every = seat.config.interval
        if not every or self.plan.until_idle or seat.state != "ready" or seat.idle is None or seat.condemned:
            return
        if now - max(seat.idle_since, seat.vitals.started_at if seat.vitals else now) >= every:
            seat.idle_since = now
            self._group.start_soon(self._assess_again, seat, every)

    async def _assess_again(self, seat: Seat, every: float) -> None:
        detail = f"{every:g} s have passed without a cycle (phases.{seat.key}.interval)"
        self.plane.record("log_entry", phase=seat.key, step="interval", detail=detail)
        await self.desk.patiently(lambda: self.documents.assess_one(seat.key, "Look again: it is time."))
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
            facts = await self.desk.run(lambda: self.documents.end_facts(living))
            self.mailbox.put(Judged(facts))
        except StoreError as error:
            self.desk.alarm(str(error))
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
        return not seat.is_down

    # -- stopping

    async def _stop(self) -> None:
        """Ask, wait, insist, in reverse start order, within one budget; then put everything away."""
        self._stopping = self.succession.stopping = True
        self._refuse_commands()
        self.notifier.stopping(BUDGET + CLOSING + 15.0)  # and the last look, the last answers
        with anyio.CancelScope(shield=True):
            deadline = anyio.current_time() + BUDGET
            left = [self.seats[key] for key in reversed(dict.fromkeys((*self._started, *self.seats)))]
            while left and (grace := min(5.0, deadline - anyio.current_time())) > AT_LEAST:
                await self._stop_one(left.pop(0), grace)
            async with anyio.create_task_group() as group:  # the budget is used up: all at once
                for seat in left:
                    group.start_soon(self._stop_one, seat, AT_LEAST)
            with anyio.move_on_after(CLOSING) as waiting:
                await self.succession.all_closed()
            if waiting.cancelled_caught:
                names = ", ".join(self.succession.leave_open())
                self.plane.record("log_entry", step="end", detail=f"left to the next start to be closed: {names}")
            await self._last_look()

    async def _stop_one(self, seat: Seat, grace: float) -> None:
        child = seat.child
        if child is None or (child.exited is not None and seat.moving):
            return  # its succession sees to it
        seat.state = "stopping"
        await child.stop(grace, self.interrupted or "the run ends")
        await child.end_tree()
        self.succession.put_away(seat, child)
        seat.state = "stopped"

    async def at_desk(self, work: Callable[[], T]) -> T:
        """Run something of the documents in their thread, one at a time; for commands and for what only looks."""
        return await self.desk.run(work)

    async def _last_look(self) -> None:
        """Leave the documents as the history has them."""
        try:
            with anyio.move_on_after(5.0):
                while True:
                    self._heed(await self.desk.run(self.documents.look))
                    if await self.desk.run(self.documents.reconciler.clean):
                        return
                    await anyio.sleep(0.1)
        except StoreError as error:
            self.desk.alarm(str(error))
