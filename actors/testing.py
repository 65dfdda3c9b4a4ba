"""Fakes that we ship, for tests of drivers and actors: a line that records, a driver that does as it is told.

They stand in for the supervisor and for the work; the store and everything else are the real ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from docs_store.messages import Outcome, Task
from ipc.control import AnyDown, Up

from .driver import Context
from .modes import Chosen

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
