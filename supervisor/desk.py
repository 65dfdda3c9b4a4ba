"""The documents' one thread, as the event loop uses it: one piece of work at a time, patient, and loud once.

Documents and trees belong to one thread at a time. While the disk is full or the folder read-only, work waits and is
tried again; each problem is said when it comes up and when all are gone. What the work is, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.to_thread import run_sync

from actors.trees_process import GitProcessError, in_brief
from docs_store.errors import StoreUnavailableError

if TYPE_CHECKING:
    from .plane import EventPlane

T = TypeVar("T")

TRY_AGAIN = 1.0  # seconds


class Desk:
    """Runs blocking work on documents and trees; `problems` are those that stand."""

    def __init__(self, plane: EventPlane) -> None:
        self.problems: tuple[str, ...] = ()
        self._plane = plane
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[], T]) -> T:
        """Run something of the documents in a thread, one at a time."""
        return await run_sync(work, limiter=self._limiter)

    async def patiently(self, work: Callable[[], T]) -> T:
        """The same; while the disk is full, the folder read-only or git fails, say so and try again."""
        while True:
            try:
                return await self.run(work)
            except (StoreUnavailableError, GitProcessError) as error:
                self.alarm(in_brief(error))
                await anyio.sleep(TRY_AGAIN)

    def alarm(self, *problems: str) -> None:
        """Each problem is said once, when it comes up, and once when all are gone."""
        for problem in problems:
            if problem not in self.problems:
                self._plane.record("phase_error", step="documents", detail=problem)
        if self.problems and not problems:
            self._plane.record("log_entry", step="documents", detail="the documents are in order again")
        self.problems = tuple(problems)
