"""Keeps warm spares: workers that have imported everything and wait, so that a successor is ready in milliseconds.

It starts, hands out and replaces them; what becomes of one that was taken is its taker's. A replacement starts only
when the worker that was taken is ready or gone: until then the processor is that one's. Spares that die while nobody
needs them are replaced too, but not in a storm: one that could not start, or the third that died, is not replaced
before somebody asks for one. Nor is a large crew a storm: only so many interpreters start at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio
import anyio.abc

from ipc.process import SpawnError

from .child import Child, Exited, Fact

MOST_DEATHS = 3  # of spares in a row that nobody had taken
AT_ONCE = max(8, 4 * (os.cpu_count() or 1))  # workers that may be on their way to ready; the next one waits for one

MakeChild = Callable[[Callable[[Fact], None]], Child]


class Standby:
    """`count` warm spares (0: none; each child is then started when it is needed). Give `run` to a task group.

    `make` builds a Child around the `tell` it is given; until a spare is taken its facts stay here, afterwards they go
    to the taker's. A spare is handed out once.
    """

    def __init__(
        self,
        make: MakeChild,
        *,
        count: int = 1,
        at_once: int = AT_ONCE,
        failed: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """`failed` hears why spares could not start or died unasked, in a sentence."""
        if count < 0:
            raise ValueError(f"the number of spares must be 0 or more, not {count}")
        self._make = make
        self._count = count
        self._at_once = at_once
        self._failed = failed
        self._spares: list[_Spare] = []
        self._group: anyio.abc.TaskGroup | None = None
        self._changed = anyio.Event()
        self._settling = 0  # taken, not ready yet: replaced when they are
        self._deaths = 0  # in a row
        self._generation = 0
        self._stopping = False

    @property
    def warm(self) -> int:
        """How many spares are ready to be taken."""
        return sum(spare.child.is_spare and spare.child.exited is None for spare in self._spares)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the spares until cancelled; those that were not taken end with it, those that were do not outlive it."""
        async with anyio.create_task_group() as group:
            self._group = group
            task_status.started()
            try:
                while True:
                    self._changed = anyio.Event()
                    wanted = self._count - self._settling - len(self._spares)
                    if wanted > 0 and self._deaths < MOST_DEATHS and not self._stopping:
                        await self._start_one()
                    else:
                        await self._changed.wait()
            finally:
                self._group = None

    async def take(self, tell: Callable[[Fact], None]) -> Child:
        """A worker for an assignment: a warm spare, else the one that is starting, else a new one, as soon as it may.

        Its facts go to `tell` from now on. Raises `ipc.process.SpawnError` if none can be started at all.
        """
        if self._group is None:
            raise RuntimeError("spares are kept only while `run` runs")
        self._deaths = 0
        while (spare := self._living()) is None and self._settling >= self._at_once:
            await self._changed.wait()
        self._settling += 1
        try:
            if spare is None:
                spare = await self._start()
            self._spares.remove(spare)
        except BaseException:
            self._settling -= 1
            raise
        spare.taker = tell
        self._group.start_soon(self._settle, spare.child)
        return spare.child

    async def refresh(self) -> None:
        """Replace every spare: the environment or the installation has changed."""
        self._generation += 1
        self._deaths = 0
        await self._dismiss_all(1.0)
        self._changed.set()

    async def stop(self, grace: float = 1.0) -> None:
        """End the spares and start no more; workers that were taken go on."""
        self._stopping = True
        await self._dismiss_all(grace)

    def _living(self) -> _Spare | None:
        """A spare to hand out: better a warm one."""
        living = [spare for spare in self._spares if not spare.child.process.has_exited]
        return next((spare for spare in living if spare.child.is_spare), living[0] if living else None)

    async def _start_one(self) -> None:
        generation = self._generation
        try:
            spare = await self._start()
        except SpawnError as error:
            self._deaths = MOST_DEATHS
            self._failed(str(error))
            return
        if (generation != self._generation or self._stopping) and spare in self._spares:
            self._spares.remove(spare)
            await _dismiss(spare.child, 1.0)

    async def _start(self) -> _Spare:
        assert self._group is not None
        spare = _Spare(self)
        spare.child = self._make(spare.tell)
        await self._group.start(spare.child.run)
        self._spares.append(spare)
        return spare

    async def _settle(self, child: Child) -> None:
        await child.wait_ready()
        self._settling -= 1
        self._changed.set()

    async def _dismiss_all(self, grace: float) -> None:
        async with anyio.create_task_group() as group:
            while self._spares:
                group.start_soon(_dismiss, self._spares.pop().child, grace)

    def _lost(self, spare: _Spare, exited: Exited) -> None:
        """One that nobody had taken is gone."""
        spare.child.close()
        if spare in self._spares:
            self._spares.remove(spare)
        if not exited.asked:
            self._deaths += 1 if spare.child.is_spare else MOST_DEATHS
            self._failed(f"{exited.as_exit('a spare worker').text}. {exited.text}".strip())
        self._changed.set()


class _Spare:
    """A child and who hears of it."""

    child: Child

    def __init__(self, standby: Standby) -> None:
        self._standby = standby
        self.taker: Callable[[Fact], None] | None = None

    def tell(self, fact: Fact) -> None:
        if self.taker is not None:
            self.taker(fact)
        elif isinstance(fact, Exited):
            self._standby._lost(self, fact)  # noqa: SLF001 - the other half of this module


async def _dismiss(child: Child, grace: float) -> None:
    await child.stop(grace, "not needed")
    child.close()
