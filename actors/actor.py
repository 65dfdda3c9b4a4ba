"""The loop inside a worker: claim, work, finish in one record, ring; or report idle and sleep until a bell.

The loop knows no phase: what a cycle reads and whom it may tell is the phase's policy, how the work gets done is the
driver's. It decides nothing about restarts either: an error that nobody expects ends the process, and the supervisor
judges (a death is counted on the message in hand, so that a task that kills its worker every time is set aside).
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import structlog
from anyio.to_thread import run_sync

from docs_store.errors import FencedError, StoreUnavailableError
from docs_store.mailbox import AsyncMailbox, Mailbox
from docs_store.messages import Outcome, Task
from docs_store.store import FinishResult, Store
from docs_store.topology import Topology, from_data
from ipc.control import (
    AnyDown,
    Assignment,
    Bell,
    Claimed,
    Finished,
    Hold,
    Idle,
    Ready,
    Stop,
    Trouble,
    Turn,
    TurnDone,
    Up,
    WantTurn,
)
from ipc.emitter import Emitter

from .driver import Context, Driver
from .finishing import Overtaken, finish
from .modes import Chosen
from .own import find, is_loop, made, policy_of, require_usable
from .phases import OutOfPolicyError, Policy
from .trees_process import GitHangsError, GitProcessError, TreesProcess, in_brief

MOST_LOSSES = 2  # of git's process in one cycle: the first may have been the system's, for want of memory
MOST_REDOS = 5  # of a cycle whose change was overtaken
NO_ROOM = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk is full or read-only
HEAD = "head"  # in .supervisor/, as `supervisor.workspace` has it
RETRY_AFTER = 1.0  # seconds between attempts to write while the store is not available

log = structlog.get_logger(__name__)


class Line(Protocol):
    """The worker's side of its two control pipes, as the actor needs it (`actors.worker.Channel`, or a fake)."""

    @property
    def emitter(self) -> Emitter: ...
    async def receive(self) -> AnyDown: ...
    def report(self, message: Up) -> None: ...
    def working_on(self, task: str, pct: int = 0, step: str = "") -> None: ...
    def choose_mode(self) -> Chosen: ...
    def counts(self) -> Mapping[str, int]: ...


class Orders:
    """What the supervisor wants of this worker, and a way to wait until that changes."""

    def __init__(self) -> None:
        self.bells = 0
        self.head = 0
        self.paused = False
        self.turns: list[int] = []
        self.stop: Stop | None = None
        self._changed = anyio.Event()

    def hear(self, message: AnyDown) -> None:
        match message:
            case Bell(head=head):
                self.bells += 1
                self.head = max(self.head, head)
            case Hold(paused=paused):
                self.paused = paused
            case Turn(number=number):
                self.turns.append(number)
            case Stop():
                self.stop = message
            case _:
                return
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, ready: Callable[[], bool], *, at_most: float | None = None) -> None:
        """Return when `ready()` holds, when asked to stop, or after `at_most` seconds."""
        with anyio.move_on_after(at_most):
            while not ready() and self.stop is None:
                await self._changed.wait()


class Actor:
    """One phase's loop in one worker process, for one epoch."""

    def __init__(
        self,
        *,
        policy: Policy,
        driver: Driver,
        mailbox: AsyncMailbox,
        line: Line,
        assignment: Assignment,
        topology: Topology,
    ) -> None:
        self.policy = policy
        self.driver = driver
        self.mailbox = mailbox
        self.line = line
        self.assignment = assignment
        self.topology = topology
        self.orders = Orders()
        self.retired = False
        self.trees = TreesProcess(Path(assignment.workspace), Path(assignment.state))

    async def run(self) -> None:
        """Work until told to stop, until a newer epoch of this phase has taken over, or until the work is over."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, group.cancel_scope)
                try:
                    await self._work()
                except* FencedError:
                    log.info("a newer epoch has taken over", phase=self.policy.key, epoch=self.assignment.epoch)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(self.trees.close)

    async def _listen(self, scope: anyio.CancelScope) -> None:
        """Hear orders; *stop* cancels what is in hand, which has then written nothing."""
        while self.orders.stop is None:
            self.orders.hear(await self.line.receive())
        scope.cancel()

    async def _work(self) -> None:
        self.line.report(Ready(pid=os.getpid(), epoch=self.assignment.epoch))
        while self.orders.stop is None and not self.retired:
            turn = await self._turn()
            if self.orders.stop is not None:
                return
            bells = self.orders.bells
            task = await self._patiently(self.mailbox.claim, "claim")
            head = self.mailbox.mailbox.head
            if task is not None:
                await self._cycle(task)
                head = self.mailbox.mailbox.head
            else:
                self.line.report(Idle(head=head))
            if self.assignment.lockstep:
                self.line.report(TurnDone(number=turn, worked=task is not None, head=head))
            elif task is None:
                await self.orders.wait(lambda seen=bells: self.orders.bells != seen)  # type: ignore[misc]

    async def _turn(self) -> int:
        """Pass the gate: at once when running free, with a turn in lock-step, and never while paused."""
        if self.assignment.lockstep:
            self.line.report(WantTurn(head=self.mailbox.mailbox.head))
            await self.orders.wait(lambda: bool(self.orders.turns) and not self.orders.paused)
            return self.orders.turns.pop(0) if self.orders.turns else 0
        await self.orders.wait(lambda: not self.orders.paused)
        return 0

    async def _cycle(self, task: Task) -> None:
        say = self._sayer(task)
        text = task.message.text.split("\n", 1)[0]
        about = {"message": task.id, "round": task.round, "attempt": task.attempt}
        chosen, before = self.line.choose_mode(), self.line.counts()
        self.line.report(
            Claimed(
                task=task.id,
                attempt=task.attempt,
                text=text[:200],
                mode=chosen.mode,
                reason=chosen.reason,
                drawn=chosen.drawn,
            )
        )
        self.line.working_on(task.id, 0, self.policy.opening)
        say(self.policy.opening, 0, text, type="phase_start", summary={**about, "kind": task.message.kind})
        context = await self._context(say)
        finished, outcome = await self._worked(task, context, say, about)
        summary = {**about, "result": outcome.result, "n": finished.n}
        detail = outcome.detail if outcome.result == "done" else f"waits for you: {outcome.detail}"
        say("done", 100, detail, type="phase_complete", summary=summary)
        await self._patiently(lambda: self._read(context.news, task.head), "read")
        self.line.working_on("")
        counts = {name: count - before.get(name, 0) for name, count in self.line.counts().items()}
        self.line.report(Finished(task=task.id, head=finished.n, result=outcome.result, events=counts))
        self.retired = context.retirement.is_set()

    async def _context(self, say: Callable[..., None]) -> Context:
        """Read what a cycle of this phase always reads, as of the claim."""
        documents, news = {}, {}
        for name in self.policy.reads:
            documents[name] = await self.mailbox.look(name)
            if self.topology.document(name).role == "write":
                news[name] = await self.mailbox.unread(name)
        told = ", ".join(f"{len(new.reports)} in {name}" for name, new in news.items() if new.reports)
        say("reading", 2, f"{len(documents)} documents" + (f"; new reports: {told}" if told else ""))
        return Context(
            phase=self.policy.key,
            epoch=self.assignment.epoch,
            workspace=Path(self.assignment.workspace),
            state=Path(self.assignment.state),
            mailbox=self.mailbox,
            say=say,
            documents=documents,
            news=news,
            options=self.assignment.options,
            trees=self.trees,
        )

    async def _read(self, documents: Iterable[str], head: int) -> None:
        """What this cycle saw is no news for the next one; a cycle that was killed sees it again."""
        for name in documents:
            await self.mailbox.mark_read(name, head)

    async def _worked(
        self, task: Task, context: Context, say: Callable[..., None], about: Mapping[str, Any]
    ) -> tuple[FinishResult, Outcome]:
        """Work and write; start over on the new state of the branch when others were quicker with the same lines."""
        redos = lost = 0
        while redos < MOST_REDOS:
            try:
                outcome = _outcome(await self.driver.perform(task, context), self.driver)
                self.policy.check(outcome, self.topology)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in NO_ROOM:  # nobody's fault; it is begun anew
                    text = f"{error}; {task.id} is begun again until there is room or permission"
                    self.line.report(Trouble(what="work", text=text))
                    await anyio.sleep(RETRY_AFTER)
                    continue
                if isinstance(error, GitProcessError):
                    self.line.report(Trouble(what="work", text=str(error)))
                    lost += 1
                    if lost < MOST_LOSSES and not isinstance(error, GitHangsError):
                        continue
                    outcome = Outcome(result="blocked", detail=in_brief(error))
                    return await self._write_certainly(task, outcome), outcome
                say("error", 0, f"{type(error).__name__}: {error}"[:2000], type="phase_error", summary=about)
                raise
            finished = await self._write(task, outcome)
            if not isinstance(finished, Overtaken):
                return finished, outcome
            redos += 1
            say(self.policy.opening, 0, f"{', '.join(finished.paths)} changed meanwhile: starting over")
        outcome = Outcome(
            result="blocked",
            detail=f"{MOST_REDOS} times others changed the same lines first. Pause the other phases, then answer.",
        )
        return await self._write_certainly(task, outcome), outcome

    async def _write_certainly(self, task: Task, outcome: Outcome) -> FinishResult:
        """Write an outcome that changes no file: nobody can have been quicker."""
        written = await self._write(task, outcome)
        assert not isinstance(written, Overtaken)
        return written

    async def _write(self, task: Task, outcome: Outcome) -> FinishResult | Overtaken:
        def write() -> FinishResult | Overtaken:
            return finish(self.mailbox.mailbox, task, outcome, self.trees)

        done: FinishResult | Overtaken = await self._patiently(lambda: run_sync(write), "finish")
        return done

    def _sayer(self, task: Task) -> Callable[..., None]:
        emitter, phase, line = self.line.emitter, self.policy.key, self.line

        def say(
            step: str,
            pct: int = 0,
            detail: str = "",
            *,
            type: str = "progress",  # noqa: A002 - the event's own word
            summary: Mapping[str, Any] | None = None,
            data: bytes | None = None,
        ) -> None:
            line.working_on(task.id, pct, step)
            emitter.emit(phase, step, pct, detail, type=type, summary=summary, data=data)

        return say

    async def _patiently(self, write: Callable[[], Any], what: str) -> Any:
        """Write; while the disk is full or the folder read-only say so, and try again: nothing is given up."""
        while True:
            try:
                return await write()
            except StoreUnavailableError as error:
                self.line.report(Trouble(what=what, text=str(error)))
                await anyio.sleep(RETRY_AFTER)


def _outcome(returned: object, driver: Driver) -> Outcome:
    if not isinstance(returned, Outcome):
        raise OutOfPolicyError(f"{type(driver).__qualname__}.perform returned {returned!r:.200}, not an Outcome")
    return returned


def load_driver(name: str, phase: str) -> Driver:
    """The driver that `supervisor.toml` names: "builtin", or a class or instance as `package.module:Name`.

    Raises LookupError or ImportError with the name.
    """
    if name == "builtin":
        from .drivers.builtin import driver_for

        return driver_for(phase)
    module, _, attribute = name.partition(":")
    if not attribute:
        raise LookupError(f"{name!r} is no driver: say 'builtin', or 'package.module:Name'")
    found = getattr(importlib.import_module(module), attribute)
    return found() if isinstance(found, type) else found  # type: ignore[no-any-return]


async def main(line: Line, assignment: Assignment, *, store: Store | None = None) -> None:
    """What a worker does after its first acts: open the store as its phase and epoch, and work.

    `store` was opened before the assignment came, and is used if it is the one that the assignment names.
    """
    phase, options = assignment.phase, assignment.options
    topology = from_data(assignment.topology)
    driver = own_driver(str(options["actor"]), phase, topology) if options.get("actor") else None
    if driver is None:
        driver = load_driver(str(options.get("driver", "builtin")), phase)
    if store is not None and (store.folder, store.topology) == (Path(assignment.crew), topology):
        store.refresh()
    else:
        store = open_store(assignment.crew, assignment.state, topology)
    actor = Actor(
        policy=policy_of(phase, topology, driver),
        driver=driver,
        mailbox=AsyncMailbox(Mailbox(store, phase, assignment.epoch)),
        line=line,
        assignment=assignment,
        topology=topology,
    )
    await actor.run()


def open_store(crew: str, state: str, topology: Topology) -> Store:
    """The documents, as a worker opens them."""
    # The head outside moves with our records too: a history that was cut behind the supervisor's last one is noticed.
    return Store.open(Path(crew), topology=topology, create=False, head_file=Path(state) / HEAD)


def own_driver(name: str, phase: str, topology: Topology) -> Driver | None:
    """An object of the user's class; None for a loop that calls this one. `ActorError` says what is wrong with it."""
    found = find(name)
    require_usable(found, name, phase, topology)
    return None if is_loop(found) else made(found, name)
