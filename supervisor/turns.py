"""Whose turn it is in lock-step: who waits for one, who has one, and a way to wait until that changes.

Who is next, and what must be settled before, is the crew's.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Turns:
    """Kept by the crew's owner from what workers report; from the event loop only."""

    def __init__(self) -> None:
        self.number = 0
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._changed = anyio.Event()

    def wanted(self, phase: str) -> None:
        """Its worker waits at the gate."""
        self._waiting.add(phase)
        self._ring()

    def grant(self, phase: str) -> int:
        """It may pass once; the number of the turn."""
        self.number += 1
        self._waiting.discard(phase)
        self._working.add(phase)
        return self.number

    def done(self, phase: str) -> None:
        """Its turn is over."""
        self._working.discard(phase)
        self._ring()

    def gone(self, phase: str) -> None:
        """Its worker has exited: the turn is over, and nobody waits before a successor does."""
        self._waiting.discard(phase)
        self.done(phase)

    def waits(self, phase: str) -> bool:
        return phase in self._waiting

    def working(self, phase: str) -> bool:
        return phase in self._working

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; it is looked at whenever something has changed, and now and again besides."""
        while not condition():
            self._changed = anyio.Event()
            with anyio.move_on_after(1.0):
                await self._changed.wait()

    def _ring(self) -> None:
        self._changed.set()
