"""Fakes that we ship, for tests of drivers and actors: a line that records, a driver that does as it is told.

They stand in for the supervisor and for the work; the store and everything else are the real ones. `rehearse` puts
them together for one cycle of an actor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from docs_store.mailbox import AsyncMailbox, Mailbox
from docs_store.messages import USER, Draft, Kind, Message, Outcome, Report, Task
from docs_store.store import Store
from docs_store.topology import DEFAULT, Phase, Topology
from ipc.control import AnyDown, Assignment, Idle, Stop, Up

from .actor import Actor
from .driver import Context, Driver
from .modes import Chosen
from .own import policy_of, require_usable
from .trees import Trees

Perform = Callable[[Task, Context], Awaitable[Outcome]]


@dataclass(slots=True)
class RecordingEmitter:
    """Keeps what was emitted, as keyword arguments."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def emit(
        self,
        phase: str,
        step: str,
        pct: int = 0,
        detail: str = "",
        *,
        type: str = "progress",  # noqa: A002 - the event's own word
        summary: Mapping[str, Any] | None = None,
        data: bytes | None = None,
    ) -> None:
        event = {"phase": phase, "step": step, "pct": pct, "detail": detail, "type": type, "data": data}
        self.events.append({**event, "summary": dict(summary or {})})


class RecordingLine:
    """A supervisor for one actor: `tell` gives it orders, `reports` are what it said, `heard` waits for a kind."""

    def __init__(self) -> None:
        self.emitter: Any = RecordingEmitter()
        self.reports: list[Up] = []
        self.doing: list[tuple[str, int, str]] = []
        self._orders: deque[AnyDown] = deque()
        self._ordered = anyio.Event()
        self._reported = anyio.Event()

    def tell(self, order: AnyDown) -> None:
        self._orders.append(order)
        self._ordered.set()

    async def receive(self) -> AnyDown:
        while not self._orders:
            self._ordered = anyio.Event()
            await self._ordered.wait()
        return self._orders.popleft()

    def report(self, message: Up) -> None:
        self.reports.append(message)
        self._reported.set()

    def working_on(self, task: str, pct: int = 0, step: str = "") -> None:
        self.doing.append((task, pct, step))

    def choose_mode(self) -> Chosen:
        return Chosen("queue", "a fake's")

    def counts(self) -> Mapping[str, int]:
        return {"sent": len(self.emitter.events)}

    async def heard(self, kind: type[Up], times: int = 1) -> Up:
        """Return the n-th report of that kind, as soon as there is one."""
        while True:
            found = [report for report in self.reports if isinstance(report, kind)]
            if len(found) >= times:
                return found[times - 1]
            self._reported = anyio.Event()
            await self._reported.wait()


@dataclass(slots=True)
class ProbeDriver:
    """Does what it is told, or reports the task as done; keeps what it was given."""

    does: Perform | None = None
    tasks: list[Task] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)

    async def perform(self, task: Task, context: Context) -> Outcome:
        self.tasks.append(task)
        self.contexts.append(context)
        if self.does is not None:
            return await self.does(task, context)
        return Outcome(result="done", detail=f"done: {task.message.text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What one cycle wrote: its report and its messages as posted; what events it emitted; whether it `retired`."""

    report: Report
    posts: tuple[Message, ...]
    events: tuple[Mapping[str, Any], ...]
    retired: bool = False


async def rehearse(
    actor: Driver, folder: Path, text: str = "Look at everything.", *, kind: Kind = "Assess", phase: str = "own"
) -> Rehearsal:
    """Let an actor of yours work one message over the files in `folder`, with a real store and real trees.

    `phase` is one of the four or a name of your own. An error of the actor's comes out as it is. Called again for the
    same folder, the history goes on.
    """
    topology = DEFAULT
    if all(known.key != phase for known in topology.phases):
        own = Phase(key=phase, title=phase.capitalize(), prefix=phase.upper())
        topology = Topology(phases=(*topology.phases, own))
    require_usable(type(actor), type(actor).__qualname__, phase, topology)
    store = await run_sync(lambda: _prepared(folder, topology))
    posted = await run_sync(lambda: store.post(USER, Draft(to=phase, kind=kind, text=text)))
    epoch = store.head
    await run_sync(lambda: store.start_epoch(phase, epoch, died=False))
    line = RecordingLine()
    loop = Actor(
        policy=policy_of(phase, topology, actor),
        driver=actor,
        mailbox=AsyncMailbox(Mailbox(store, phase, epoch)),
        line=line,
        assignment=Assignment(
            phase=phase,
            epoch=epoch,
            nonce="",
            workspace=str(folder),
            crew=str(folder / "crew"),
            state=str(folder / ".supervisor"),
            spool="",
            log="",
        ),
        topology=topology,
    )
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, loop, group.cancel_scope)
            await line.heard(Idle)
            line.tell(Stop(grace=1.0))
    except ExceptionGroup as errors:
        found: Exception = errors
        while isinstance(found, ExceptionGroup):
            found = found.exceptions[0]
        raise found from None
    after = await run_sync(store.refresh)
    report = next(report for report in after.reports if report.task == posted.id)
    posts = tuple(after.messages[one] for one in report.posts)
    return Rehearsal(report=report, posts=posts, events=tuple(line.emitter.events), retired=loop.retired)


async def _run(loop: Actor, waiting: anyio.CancelScope) -> None:
    """One that retires reports no idleness: nobody waits for it."""
    await loop.run()
    waiting.cancel()


def _prepared(folder: Path, topology: Topology) -> Store:
    """A store and a work branch with the folder's files as they are now."""
    store = Store.open(folder / "crew", topology=topology)
    trees = Trees.open(folder, folder / ".supervisor")
    with trees.lock():
        taken = trees.snapshot("for a rehearsal")
        store.record_tree(head=taken.commit, snapshot=taken.commit, note="for a rehearsal")
        trees.set_head(taken.commit)
    return store
