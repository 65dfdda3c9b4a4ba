"""The event plane as the crew's owner uses it: one object over queue server, journal, pump and hub.

Opening and closing epochs, records of the supervisor's own, figures for the status. How events travel is `pump`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from docs_store.messages import Report
from ipc.control import Ack
from ipc.events import ProgressEvent
from ipc.process import Identity

from .hub import Hub, Subscription
from .journal import SUPERVISOR, Cursor, Journal, JournalError
from .pump import Pump
from .tally import PumpStatistics, WorkerCounts
from .wording import clean

MODES = ("queue", "stdout")
RETAIN_EVERY = 600.0  # seconds
COUNTED = tuple(field.name for field in fields(WorkerCounts))
LEVELS = {"phase_error": logging.ERROR, "progress": logging.DEBUG}  # how loud a record is in the log; others: INFO

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of the journal is kept: at most so many bytes, nothing older than so many seconds; None: no limit."""

    most_bytes: int | None = None
    most_age: float | None = None
    every: float = RETAIN_EVERY


class EventPlane:
    """One supervisor's event plane. Make it with `opened`."""

    def __init__(self, pump: Pump, journal: Journal) -> None:
        self.pump = pump
        self.journal = journal
        self.pid = os.getpid()
        self._serving = False

    def serve(self) -> bool:
        """Serve the queue; False, and on record, where that is impossible: the crew then works in stdout mode."""
        try:
            self.pump.serve()
        except OSError as error:
            log.error("the queue cannot be served here, events come by stdout: %s", error)  # noqa: TRY400 - it says why
            self.pump.record("log_entry", SUPERVISOR, "queue", f"cannot be served, events come by stdout: {error}")
            return False
        self._serving = True
        return True

    def endpoint(self) -> tuple[str, str]:
        """Address and key (base64) for an assignment; empty when the queue is not served."""
        server = self.pump.server
        if not self._serving:
            return "", ""
        return server.address, server.key

    def record(
        self,
        type: str,  # noqa: A002 - the event's own word
        *,
        phase: str = SUPERVISOR,
        step: str = "",
        pct: int = 0,
        detail: str = "",
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Put something of the supervisor's own on record, and a line about it into the log."""
        more = {**(summary or {}), **({"pct": pct} if pct else {})}
        self.pump.record(type, phase, step, detail, more)
        log.log(LEVELS.get(type, logging.INFO), "%s", clean(detail), extra={"phase": phase, "step": step})

    def opening(self, worker: str, epoch: int, identity: Identity) -> Future[Path]:
        """Begin with the epoch's journal row and spool folder; from any thread."""
        return self.pump.opening(worker, epoch, identity.pid, identity.created)

    async def open_epoch(self, worker: str, epoch: int, nonce: str, opening: Future[Path]) -> Path:
        """The epoch's spool folder when both are there, before its worker hears of it."""
        return await self.pump.admit_opened(worker, epoch, nonce, opening)

    async def close_epoch(
        self, worker: str, epoch: int, reports: Sequence[Report], drained: Callable[[], Awaitable[None]]
    ) -> None:
        """Close a dead epoch; each of its finish records gets its event, if that did not come."""
        await self.pump.close_epoch(worker, epoch, [finish_event(report) for report in reports], drained=drained)

    async def close_leftovers(self, history: Mapping[str, int], reports: Callable[[str, int], Sequence[Report]]) -> int:
        """At the start: close what earlier supervisors left open; how many epochs that were."""
        known: Iterable[tuple[str, int]] = history.items()
        closed = await self.pump.close_all_known(
            known, finishes=lambda worker, epoch: [finish_event(report) for report in reports(worker, epoch)]
        )
        return len(closed)

    def marker(self, worker: str, epoch: int, line: bytes) -> bool:
        """A line of a marker pipe; False if it is log text."""
        return self.pump.marker(worker, epoch, line)

    def may_read(self, worker: str, epoch: int) -> bool:
        """Whether that marker pipe should be read now."""
        return self.pump.may_read_markers(worker, epoch)

    def drained(self) -> bool:
        """Whether every event that was given is committed."""
        return self.pump.drained()

    def queue_depth(self) -> tuple[int, int]:
        """Frames in the queue, and how many fit."""
        return self.pump.queue.offered(), self.pump.queue.maxsize

    def counters(self) -> dict[str, int]:
        """What became of events, over all workers, and what the queue refused, since this supervisor's start."""
        counts = {name: self.pump.total(name) for name in COUNTED if name != "waiting"}
        return counts | {f"refused_{what}": count for what, count in self.pump.server.refused().items()}

    def worker_counters(self) -> dict[str, dict[str, int]]:
        """The same for each worker, and how many of its frames wait in the queue."""
        workers = self.pump.statistics().workers
        return {worker: {name: getattr(counts, name) for name in COUNTED} for worker, counts in workers.items()}

    def statistics(self) -> PumpStatistics:
        """All that is counted, for each worker too, and the latencies."""
        return self.pump.statistics()

    def heed(self, worker: str, epoch: int, counts: Mapping[str, int]) -> None:
        """What a worker's emitter counts itself, from its beats."""
        self.pump.heed(worker, epoch, counts)

    def here(self) -> Cursor:
        """The journal's present end."""
        return self.journal.reader.head()

    def last_epoch(self) -> int:
        """The greatest epoch that the journal knows."""
        return max((entry.epoch for entry in self.journal.reader.epochs()), default=0)

    def follow(self, after: Cursor | None) -> Any:
        """A context manager with the stream of events after the cursor; it ends when the plane closes."""
        return self.pump.hub.subscribe(after)


@asynccontextmanager
async def opened(
    *,
    journal: Path,
    spools: Path,
    send_ack: Callable[[str, int, Ack], None],
    capacity: int,
    redirect: Callable[[str, str], None] | None = None,
    retention: Retention | None = None,
) -> AsyncIterator[EventPlane]:
    """Open the journal and run the pump; both are closed on every path, the hub's streams end after the last event.

    `redirect` is told address and key when a broken queue is served again.
    """
    texts: list[str] = []
    book = Journal.open(journal, alarm=texts.append)
    try:
        hub = Hub(book)
        planes: list[EventPlane] = []

        def alarm(what: str, text: str) -> None:
            for plane in planes:  # the log has it already
                plane.pump.record("phase_error", SUPERVISOR, what, text)

        async with Pump(
            journal=book,
            hub=hub,
            spools=spools,
            send_ack=send_ack,
            alarm=alarm,
            redirect=redirect,
            capacity=capacity,
        ) as pump:
            plane = EventPlane(pump, book)
            planes.append(plane)
            for text in texts:
                plane.pump.record("phase_error", SUPERVISOR, "journal", text)
            async with _retaining(book, retention or Retention()):
                yield plane
        hub.close()
    finally:
        book.close()


@asynccontextmanager
async def _retaining(journal: Journal, retention: Retention) -> AsyncIterator[None]:
    """Keep the journal within its limits, now and again for as long as this block runs."""
    task = asyncio.create_task(_retain_for_ever(journal, retention), name="retention")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _retain_for_ever(journal: Journal, retention: Retention) -> None:
    if retention.most_bytes is None and retention.most_age is None:
        return
    while True:
        try:
            work = journal.retain(most_bytes=retention.most_bytes, most_age=retention.most_age)
            if gone := await asyncio.wrap_future(work):
                log.info("retention removed %d events from the journal", gone)
        except JournalError as error:
            log.warning("retention did not work, it is tried again: %s", error)
        await asyncio.sleep(retention.every)


def finish_event(report: Report) -> ProgressEvent:
    """The event about a finish record, as the worker emits it after the commit."""
    return ProgressEvent(
        type="phase_complete",
        phase=report.phase,
        step="done",
        pct=100,
        detail=report.detail if report.result == "done" else f"waits for you: {report.detail}",
        summary={
            "message": report.task,
            "round": report.round,
            "attempt": report.attempt,
            "result": report.result,
            "n": report.n,
        },
    )


__all__ = ["EventPlane", "Retention", "Subscription", "finish_event", "opened"]
