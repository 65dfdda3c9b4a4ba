"""Streams of stored events for whoever watches: what was, then what comes, as one.

Each subscription goes its own way through the journal by cursor, after the commit, and keeps nothing but its place; a
slow one therefore costs nobody anything. What happens when a cursor cannot be continued is for the client to decide.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import anyio.to_thread

from .journal import Cursor, Journal, StoredEvent

BATCH = 1024  # events read at a time, and the rest of the last one's row
_INLINE = 256  # events behind up to which a read is cheaper than a thread


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """How many watch, how far the slowest is behind."""

    subscribers: int
    furthest_behind: int


class Subscription:
    """One stream: iterate over events, or over `batches()`."""

    def __init__(self, hub: Hub, after: Cursor, phase: str | None, type_: str | None) -> None:
        self._hub = hub
        self._at = after
        self._phase, self._type = phase, type_
        self._more = anyio.Event()

    @property
    def cursor(self) -> Cursor:
        """Where to go on after a break."""
        return self._at

    async def batches(self) -> AsyncIterator[list[StoredEvent]]:
        """Events, as many as there are at a time (about `BATCH` at most); ends when the hub closes.

        CursorGoneError when retention has overtaken this stream.
        """
        while True:
            self._more = anyio.Event()
            behind = self._hub.head - self._at.n
            if behind <= 0:
                if self._hub.closed:
                    return
                await self._more.wait()
                continue
            if behind <= _INLINE:
                events, self._at = self._read()
            else:
                events, self._at = await anyio.to_thread.run_sync(self._read)
            if events:
                yield events

    async def __aiter__(self) -> AsyncIterator[StoredEvent]:
        async for batch in self.batches():
            for event in batch:
                yield event

    def wake(self) -> None:
        self._more.set()

    def _read(self) -> tuple[list[StoredEvent], Cursor]:
        return self._hub.journal.reader.read_up_to(self._at, BATCH, self._phase, self._type, whole_rows=True)


class Hub:
    """Knows the journal's head and who waits for it to move. Lives on the event loop."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.head = journal.reader.head().n
        self.closed = False
        self._store = journal.reader.head().store
        self._subscriptions: set[Subscription] = set()

    def committed(self, head: int) -> None:
        """Everything up to here can be read."""
        self.head = max(self.head, head)
        for subscription in self._subscriptions:
            subscription.wake()

    @contextmanager
    def subscribe(
        self,
        after: Cursor | None = None,
        *,
        phase: str | None = None,
        type: str | None = None,  # noqa: A002 - the event's own word
        live_only: bool = False,
    ) -> Iterator[Subscription]:
        """A stream of what follows the cursor: None begins with the oldest event kept, or with the next if `live_only`.

        CursorGoneError, when reading, for a cursor of another store or one that retention has overtaken.
        """
        if after is None:
            oldest = self.journal.reader.oldest()
            start = self.head if live_only or oldest is None else oldest.n - 1
            after = Cursor(self._store, start)
        subscription = Subscription(self, after, phase, type)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """Let every stream end after the last event."""
        self.closed = True
        for subscription in self._subscriptions:
            subscription.wake()

    def statistics(self) -> HubStatistics:
        behind = [self.head - s.cursor.n for s in self._subscriptions]
        return HubStatistics(subscribers=len(behind), furthest_behind=max(behind, default=0))
