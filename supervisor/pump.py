"""The way of an event through the supervisor: queue, markers and spools → sequencer → journal → hub, and acks back.

It decides nothing about events (`ipc.sequence` does) and keeps nothing (`supervisor.journal` does); it opens and closes
epochs in the order that `tests/models/event_protocol.py` proves: reaped and locked, fenced, drained, salvaged, closed
with what the history says was finished, and only then the folder goes. Lives on an asyncio event loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ipc.control import Ack
from ipc.errors import FrameError, SpoolLockedError
from ipc.events import ProgressEvent
from ipc.frames import Fields, Meta, Numbering, cut, decode_fields, decode_header, join, split
from ipc.markers import Damaged, Marker, Unsigned, parse_marker
from ipc.process import Identity, kill
from ipc.queue import EventQueue, QueueServer, Reply
from ipc.seldom import Seldom, again
from ipc.sequence import Admitted, Batch, Marks, Refused, Sequencer, Stage
from ipc.spool import DamagedSegment, Record, SpoolLock, create_folder, read_last, read_spool

from .hub import Hub
from .journal import SUPERVISOR, ClosedRow, EpochEntry, FrameRow, Journal, JournalError, OpenedRow, OwnRow, Row
from .rhythm import until_next
from .tally import Key, PumpStatistics, Tally

QUEUE, STDOUT, SPOOL = "queue", "stdout", "spool"

_FRAMES_AT_ONCE = 32  # judged before the loop gets its turn
_MOST_PENDING = 32 * 1024 * 1024  # bytes accepted and not yet committed; beyond that nothing more is taken
_ROWS_AT_ONCE = 512  # in a transaction
_MARKERS_IN_ROW = 256
_SALVAGED_AT_ONCE = 256  # records judged before the loop gets its turn
_RETRY = (0.1, 5.0)  # seconds before a failed commit is tried again: first, longest
_LOOK_EVERY = 1.0  # seconds between looks at the queue's listener
_CALL_EVERY = 15  # looks, of which one is a call as a client makes it
_HOLDER_GRACE = 2.0  # seconds that a live worker of a former supervisor gets to exit by itself
_MOST_TEXT = 80  # characters of what a stranger has sent, in the log
_REASONS = {
    "unknown": "no such epoch is open",
    "nonce": "they are signed with a wrong nonce",
    "closed": "that epoch is closed",
    "full": "too many wait for an older epoch; they are to be sent again",
}
_log = logging.getLogger("supervisor.pump")


@dataclass(slots=True)
class _Markers:
    """Events that came as markers, gathering for one row."""

    key: Key
    seqs: list[int] = field(default_factory=list)
    tags: set[tuple[str, str]] = field(default_factory=set)
    events: list[Fields] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)


@dataclass(slots=True)
class _Closing:
    """An epoch's last row, and whether it was committed (false: dropped with the rest of its batch)."""

    row: ClosedRow
    committed: asyncio.Future[bool]

    def tell(self, committed: bool) -> None:  # noqa: FBT001 - it is the news
        if not self.committed.done():  # whoever waited may have been cancelled
            self.committed.set_result(committed)


@dataclass(slots=True)
class _Known:
    """An epoch that is not closed yet."""

    nonce: str
    folder: Path
    durable: int = 0
    stdout: bool = False  # it has sent markers, so acks go to its stdin
    told: Ack | None = None


Pending = FrameRow | _Markers | OwnRow | _Closing


class Pump:
    """See the module. `async with` runs it; all methods belong to the event loop's thread."""

    def __init__(
        self,
        *,
        journal: Journal,
        hub: Hub,
        spools: Path,
        send_ack: Callable[[str, int, Ack], None] | None = None,
        alarm: Callable[[str, str], None] | None = None,
        redirect: Callable[[str, str], None] | None = None,
        look_every: float = _LOOK_EVERY,
        capacity: int = 1000,
        lock_grace: float = _HOLDER_GRACE,
    ) -> None:
        self.journal = journal
        self.hub = hub
        self.queue = EventQueue(capacity, wake=self._wake_from_thread)
        self.server = QueueServer(self.queue)
        self._spools = spools
        self._send_ack = send_ack
        self._alarm = alarm
        self._redirect = redirect
        self._look_every = look_every
        self._served_again = 0
        self._keeper: asyncio.Task[None] | None = None
        self._lock_grace = lock_grace
        self._sequencer = Sequencer()
        self._known: dict[Key, _Known] = {}
        self._pending: list[Pending] = []
        self._pending_bytes = 0
        self._committing: list[Pending] = []
        self._own_seq = 0
        self._tally = Tally()
        self._failed_commits = 0
        self._failing = 0  # commits that failed since the last one that went well
        self._resets = 0
        self._damaged_frames = 0
        self._seldom = Seldom()
        self._paused = False
        self._closing: set[Key] = set()
        self._scheduled = threading.Event()
        self._work = asyncio.Event()
        self._waiters: set[asyncio.Event] = set()
        self._gate = asyncio.Event()  # set whenever a held marker pipe may be worth another look
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Begin to commit what comes; serving the queue is `serve`'s."""
        self._loop = asyncio.get_running_loop()
        own = await asyncio.wrap_future(self.journal.entry(SUPERVISOR, 0))
        self._own_seq = own.marks.seq if own is not None else 0
        self._task = asyncio.create_task(self._commit_for_ever(), name="pump")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._raise_alarm("pump", f"the event pump has failed, nothing is journaled any more: {error!r}")

    def serve(self) -> None:
        """Serve the queue, at a new address each time; OSError when that is impossible here.

        From then on a listener that broke is replaced, and whoever has the old address is told through `redirect`.
        """
        self.server.restart()
        if self._keeper is None:
            self._keeper = self._loop.create_task(self._keep_serving(), name="queue-keeper")

    async def _keep_serving(self) -> None:
        looks = silent = 0
        while True:
            await asyncio.sleep(until_next(self._look_every, self._loop.time()))
            looks += 1
            well = self.server.is_listening()
            if well and (silent or not looks % _CALL_EVERY):
                # Twice, since our own process may have been stopped while it asked.
                silent = 0 if await asyncio.to_thread(self.server.answers) else silent + 1
                well = silent < 2
            if well:
                continue
            silent = 0
            try:
                self.server.restart()
            except OSError as error:
                self._raise_alarm("queue", f"the queue broke and cannot be served again: {error}; trying on")
                continue
            self._served_again += 1
            self._raise_alarm("queue", "the queue's listener broke: it is served again, at a new address")
            if self._redirect is not None:
                self._redirect(self.server.address, self.server.key)

    async def aclose(self) -> None:
        """Stop serving, commit what was accepted, stop. What was not accepted lies in the spools."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self.server.close()
        self._stopping = True
        self._work.set()
        if self._task is not None:
            await self._task

    # -- epochs

    async def open_epoch(
        self, worker: str, epoch: int, nonce: str, pid: int | None = None, created: float | None = None
    ) -> Path:
        """Put the epoch on record and make its folder, before its worker hears of it. JournalError, OSError."""
        return await self.admit_opened(worker, epoch, nonce, self.opening(worker, epoch, pid, created))

    def opening(self, worker: str, epoch: int, pid: int | None = None, created: float | None = None) -> Future[Path]:
        """Begin to put the epoch on record and to make its folder. From any thread: whoever has the number may ask."""
        folder = self.folder(worker, epoch)
        recorded = self.journal.commit([OpenedRow(worker=worker, epoch=epoch, pid=pid, created=created)])

        def make() -> Path:  # in the journal's thread, after the row
            recorded.result()
            create_folder(folder)
            return folder

        return self.journal.run(make)

    async def admit_opened(self, worker: str, epoch: int, nonce: str, opening: Future[Path]) -> Path:
        """Take the epoch's events from when it is open; its folder. JournalError, OSError."""
        folder = await asyncio.wrap_future(opening)
        self._admit_epoch(worker, epoch, nonce, Marks())
        return folder

    def folder(self, worker: str, epoch: int) -> Path:
        """Where the spool of an epoch is."""
        return self._spools / f"{worker}-{epoch}"

    async def close_epoch(
        self,
        worker: str,
        epoch: int,
        finishes: Sequence[ProgressEvent] = (),
        *,
        drained: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Bring an epoch to its end; its worker's process is gone (not necessarily its agents).

        `finishes` are the events that the history says must exist (`summary` names `message` and `attempt`).
        `drained` returns once the marker pipe was read to its end; it is awaited after older epochs are closed, because
        until then that pipe may have been held. Closing again is harmless.
        """
        key = (worker, epoch)
        if key not in self._known or key in self._closing:
            return
        self._closing.add(key)
        lock = None
        try:
            await self._until(lambda: not self._sequencer.older_open(worker, epoch))
            lock = await self._take_lock(key)
            self.queue.forget(worker, epoch)  # fenced: from here on offers are answered "closed"
            if drained is not None:
                await drained()
            self._sequencer.fence(worker, epoch)
            self._take_frames(everything=True)
            await self._until(
                lambda: not self.queue.offered(worker, epoch) and not self._sequencer.holds(worker, epoch)
            )
            damaged = await self._salvage_and_close(key, finishes)
            self._sequencer.close(worker, epoch)
            self._sequencer.forget(worker, epoch)
            folder = self._known.pop(key).folder
            self._tally.settle(key)
            if sys.platform == "win32" and lock is not None:
                lock.release()  # an open file could not be removed there
            await asyncio.to_thread(_remove_folder, folder, damaged)
        finally:
            self._closing.discard(key)
            if lock is not None:
                lock.release()
        self._let_in()

    async def close_all_known(
        self,
        extra_epochs: Iterable[Key] = (),
        *,
        finishes: Callable[[str, int], Sequence[ProgressEvent]] | None = None,
    ) -> list[Key]:
        """At the start: close every epoch that journal, spools or history (`extra_epochs`) know of; which those were.

        A worker of a former supervisor that still holds its lock gets 2 s, then it is killed by (pid, create time).
        """
        entries = {(e.worker, e.epoch): e for e in self.journal.reader.epochs() if e.worker != SUPERVISOR}
        open_ = {key for key, entry in entries.items() if not entry.closed}
        left: dict[Key, Path] = {}
        for folder in sorted(self._spools.glob("*-*")) if self._spools.is_dir() else ():
            worker, _, number = folder.name.rpartition("-")
            if folder.is_dir() and worker and number.isdecimal():
                left[worker, int(number)] = folder
        for key, folder in left.items():
            if key in entries and entries[key].closed:  # a supervisor died between `closed` and the removal
                await asyncio.to_thread(_remove_folder, folder, ())
        extra = {key for key in extra_epochs if key not in entries}
        todo = sorted(open_ | {key for key in left if key not in entries} | extra)
        for worker, epoch in todo:
            entry = entries.get((worker, epoch))
            if entry is None:
                row = OpenedRow(worker=worker, epoch=epoch, pid=None, created=None)
                await asyncio.wrap_future(self.journal.commit([row]))
            self._admit_epoch(worker, epoch, secrets.token_hex(16), entry.marks if entry is not None else Marks())
        for worker, epoch in todo:
            await self.close_epoch(worker, epoch, finishes(worker, epoch) if finishes is not None else ())
        return todo

    def _admit_epoch(self, worker: str, epoch: int, nonce: str, marks: Marks) -> None:
        self._sequencer.open(worker, epoch, nonce, marks)
        self._known[worker, epoch] = _Known(nonce=nonce, folder=self.folder(worker, epoch), durable=marks.seq)
        self.queue.tell(worker, epoch, Reply("taken", marks.seq, marks.seq))

    async def _take_lock(self, key: Key) -> SpoolLock | None:
        """The epoch's lock: the proof that its worker is gone."""
        folder = self._known[key].folder
        deadline = time.monotonic() + self._lock_grace
        killed = False
        while True:
            try:
                return await asyncio.to_thread(SpoolLock.take, folder)
            except SpoolLockedError:
                if not folder.exists():
                    return None
            if time.monotonic() >= deadline:
                if not killed:
                    entry = await asyncio.wrap_future(self.journal.entry(*key))
                    pid, created = (entry.pid, entry.created) if entry is not None else (None, None)
                    self._raise_alarm(
                        "epoch", f"the worker of {key[0]}, epoch {key[1]} (pid {pid}) does not end: killing it"
                    )
                    await asyncio.to_thread(_kill, pid, created)
                    killed = True
                deadline = time.monotonic() + self._lock_grace
            await asyncio.sleep(0.01)

    async def _salvage_and_close(self, key: Key, finishes: Sequence[ProgressEvent]) -> list[Path]:
        """Read the spool through the sequencer and commit `closed`; again from the table if a commit fails."""
        reported: set[int] = set()
        last = await asyncio.to_thread(read_last, self._known[key].folder)
        while True:
            resets = self._resets
            damaged = await self._salvage(key, reported)
            await self._until(lambda: not self._unsettled(key) and not self._paused)
            if self._resets != resets:
                continue  # what was salvaged may have been dropped
            marks = self._sequencer.marks(*key)
            missed = marks.missed + max(last - marks.seq, 0)
            own = [OwnRow(seq=self._next_own_seq(), event=event) for event in finishes]
            row = ClosedRow(worker=key[0], epoch=key[1], missed=missed, finishes=own)
            # In line with the others, since own rows are numbered in the order of their commits.
            closing = _Closing(row, self._loop.create_future())
            if self._task is None or self._task.done():
                raise JournalError(f"the pump has stopped: epoch {key[1]} of {key[0]} stays open until the next start")
            self._pending.append(closing)
            self._work.set()
            if await closing.committed:
                self._tally.of(key[0])["missed"] += missed
                return damaged

    async def _salvage(self, key: Key, reported: set[int]) -> list[Path]:
        """Judge what the spool holds; which segments are damaged. Ends early where a failed commit undid some of it."""
        worker = key[0]
        resets = self._resets
        folder = self._known[key].folder
        found = await asyncio.to_thread(lambda: list(read_spool(folder)))
        damaged: list[Path] = []
        for first in range(0, len(found), _SALVAGED_AT_ONCE):
            await asyncio.sleep(0)
            if self._resets != resets:
                break
            records: list[tuple[Record, Fields]] = []
            for record in found[first : first + _SALVAGED_AT_ONCE]:
                if isinstance(record, DamagedSegment):
                    if not record.torn:
                        damaged.append(record.path)
                        self._raise_alarm("spool", f"{record.path} is damaged from byte {record.offset} on: set aside")
                    continue
                try:
                    (fields,) = decode_fields(join([msgspec.Raw(record.event)]))
                except FrameError as error:
                    self._raise_alarm("spool", f"event {record.seq} in the spool of {worker} cannot be read: {error}")
                    continue
                records.append((record, fields))
            if records:
                self._judge_salvaged(key, records, reported)
        return damaged

    def _judge_salvaged(self, key: Key, records: Sequence[tuple[Record, Fields]], reported: set[int]) -> None:
        worker, epoch = key
        metas = [Meta(record.seq, record.prev, critical=True) for record, _ in records]
        blob = join([msgspec.Raw(record.event) for record, _ in records])
        tags = [*{(fields[1], fields[0]) for _, fields in records}]
        admitted = self._sequencer.salvage(Batch(worker=worker, epoch=epoch, metas=metas, payload=(blob, tags)))
        for place in admitted.judgement.lost:
            meta = metas[place]
            if meta.seq in reported:
                continue
            reported.add(meta.seq)
            self._tally.of(worker)["lost"] += 1
            text = f"critical events of {worker}, epoch {epoch}, before seq {meta.seq} are lost: not in its spool"
            self._raise_alarm("loss", text)
            self.record("loss", worker, detail=text, summary={"epoch": epoch, "prev": meta.prev, "seq": meta.seq})
        self._accept(admitted, SPOOL)

    def _unsettled(self, key: Key) -> bool:
        rows = (*self._pending, *self._committing)
        return any(
            key == (row.key if isinstance(row, _Markers) else (row.worker, row.epoch))
            for row in rows
            if isinstance(row, (_Markers, FrameRow))
        )

    # -- what comes in

    def marker(self, worker: str, epoch: int, line: bytes) -> bool:
        """A line of a worker's marker pipe; False if it is log text. Ask `may_read_markers` before reading more."""
        found = parse_marker(line)
        counts = self._tally.of(worker)
        match found:
            case None:
                return False
            case Unsigned():  # the crew's own workers sign
                counts["unsigned"] += 1
                self._say("unsigned", worker, f"a progress line of {worker} without its nonce is taken for log text")
                return False
            case Damaged():
                counts["damaged"] += 1
                self._say("damaged", worker, f"a progress line of {worker} cannot be read: {_short(line)}")
                return True
            case Marker():
                pass
        if (found.worker, found.epoch) != (worker, epoch):
            counts["refused"] += 1
            other = f"epoch {found.epoch} of {_short(found.worker)}"
            self._say(
                "forged", worker, f"a progress line of {worker}, epoch {epoch}, is refused: it is signed as {other}"
            )
            return True
        known = self._known.get((worker, epoch))
        if known is not None and found.nonce == known.nonce:
            known.stdout = True
        batch = Batch(worker=worker, epoch=epoch, metas=[found.meta], payload=[found.fields], size=len(line))
        self._admit(batch, found.nonce, STDOUT)
        self._tell(worker, epoch)
        return True

    def may_read_markers(self, worker: str, epoch: int) -> bool:
        """Whether the marker pipe of this epoch should be read now: not while an older one is open, nor when full."""
        if (worker, epoch) in self._closing and not self._sequencer.older_open(worker, epoch):
            return True  # it is being drained
        return not (self._paused or self._pending_bytes > _MOST_PENDING or self._sequencer.older_open(worker, epoch))

    async def wait_may_read(self, worker: str, epoch: int) -> None:
        """Return once `may_read_markers` is true."""
        while not self.may_read_markers(worker, epoch):
            self._gate.clear()
            await self._gate.wait()

    def record(
        self,
        type: str,  # noqa: A002 - the event's own word
        phase: str = "",
        step: str = "",
        detail: str = "",
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Put something of the supervisor's own on record: a spawn, an exit, a decision, a mode, a command."""
        event = ProgressEvent(type=type, phase=phase, step=step, detail=detail, summary=summary or {})
        self._pending.append(OwnRow(seq=self._next_own_seq(), event=event))
        self._work.set()

    def drained(self) -> bool:
        """Whether every event given so far, in every open epoch, is committed, and nothing is under way."""
        if self._pending or self._committing or self._closing or self.queue.offered() or self._sequencer.holding():
            return False
        return all(known.durable >= read_last(known.folder) for known in self._known.values())

    def heed(self, worker: str, epoch: int, counts: Mapping[str, int]) -> None:
        """What an emitter counts itself (`EmitterStatistics.counts`); a later report replaces an earlier one."""
        if (worker, epoch) in self._known:
            self._tally.heed((worker, epoch), counts)

    def total(self, name: str) -> int:
        """One of `WorkerCounts`' figures, over all workers."""
        return self._tally.total(name)

    def statistics(self) -> PumpStatistics:
        return PumpStatistics(
            workers=self._tally.workers(self.queue.offered),
            latencies=self._tally.latencies(),
            served_again=self._served_again,
            depth=self.queue.offered(),
            capacity=self.queue.maxsize,
            pending=len(self._pending) + len(self._committing),
            held=self._sequencer.holding(),
            failed_commits=self._failed_commits,
            damaged_frames=self._damaged_frames,
        )

    def _wake_from_thread(self) -> None:
        """Called by the queue's threads."""
        if not self._scheduled.is_set():
            self._scheduled.set()
            with suppress(RuntimeError):  # the loop has ended; the frame stays unaccepted, its sender will know
                self._loop.call_soon_threadsafe(self._take_frames)

    def _take_frames(self, *, everything: bool = False) -> None:
        self._scheduled.clear()
        while not everything and (self._paused or self._pending_bytes > _MOST_PENDING):
            return  # they wait in the inbox, which fills, which is told
        offers = self.queue.take_offers(self.queue.maxsize + 1 if everything else _FRAMES_AT_ONCE)
        touched: set[Key] = set()
        for offer in offers:
            try:
                frame = decode_header(offer.frame)
            except FrameError as error:
                self._damaged_frames += 1
                worker = self._name(offer.worker, offer.epoch)
                self._tally.of(worker)["damaged"] += 1
                self._say("frame", worker, f"a frame of {_short(offer.worker)} cannot be read: {_short(error)}")
                continue
            batch = Batch(
                worker=frame.worker,
                epoch=frame.epoch,
                metas=frame.metas,
                payload=(frame.blob, frame.tags),
                size=len(offer.frame),
            )
            self._admit(batch, frame.nonce, QUEUE)
            touched.add((frame.worker, frame.epoch))
        for key in touched:
            self._tell(*key)
        if self.queue.offered() and not self._scheduled.is_set():
            self._scheduled.set()
            self._loop.call_soon(self._take_frames)

    def _admit(self, batch: Batch, nonce: str, transport: str) -> None:
        outcome = self._sequencer.admit(batch, nonce)
        if isinstance(outcome, Admitted):
            self._accept(outcome, transport)
        elif isinstance(outcome, Refused):
            worker = self._name(batch.worker, batch.epoch)
            self._tally.of(worker)["refused"] += 1
            of = f"epoch {batch.epoch} of {_short(batch.worker)}"
            self._say(outcome.reason, worker, f"events of {of} are refused: {_REASONS[outcome.reason]}")

    def _name(self, worker: str, epoch: int) -> str:
        """Under whose name something is counted: strangers have one in common."""
        return worker if (worker, epoch) in self._known else "?"

    def _say(self, kind: str, worker: str, text: str, level: int = logging.WARNING) -> None:
        """A line in the log about something that was counted, one a minute for each kind and worker."""
        if times := self._seldom.happened(kind, worker, now=self._loop.time()):
            _log.log(level, "%s%s", text, again(times))

    def _let_in(self) -> None:
        """What waited for an older epoch to be closed."""
        for admitted in self._sequencer.released():
            self._accept(admitted, STDOUT if isinstance(admitted.batch.payload, list) else QUEUE)
            self._tell(admitted.batch.worker, admitted.batch.epoch)
        self._nudge()

    def _accept(self, admitted: Admitted, transport: str) -> None:
        batch, judgement = admitted.batch, admitted.judgement
        counts = self._tally.of(batch.worker)
        counts["duplicates"] += judgement.duplicates
        counts["late"] += judgement.late
        counts["gaps"] += judgement.gap
        if transport != SPOOL and (judgement.duplicates or judgement.late):  # also after each sending again: no warning
            text = (
                f"events of {batch.worker} came again or too late, from seq {batch.metas[0].seq} on, and are left out"
            )
            self._say("again", batch.worker, text, logging.INFO)
        if not judgement.accepted:
            return
        counts["bytes"] += batch.size
        seqs = Numbering.of(batch.metas).seqs()
        if len(judgement.accepted) < len(seqs):
            seqs = [seqs[place] for place in judgement.accepted]
        if isinstance(batch.payload, list):
            self._gather(batch, seqs, judgement.marks)
        else:
            blob, tags = batch.payload
            if len(seqs) < len(batch.metas):
                blob = cut(blob, judgement.accepted)
            row = FrameRow(
                worker=batch.worker,
                epoch=batch.epoch,
                transport=transport,
                seqs=seqs,
                tags=tags,
                blob=blob,
                marks=judgement.marks,
            )
            self._pending.append(row)
            self._pending_bytes += len(blob)
        self._work.set()

    def _gather(self, batch: Batch, seqs: Sequence[int], marks: Marks) -> None:
        fields: Fields = batch.payload[0]
        key = (batch.worker, batch.epoch)
        last = self._pending[-1] if self._pending else None
        if isinstance(last, _Markers) and last.key == key and len(last.seqs) < _MARKERS_IN_ROW:
            row = last
        else:
            row = _Markers(key)
            self._pending.append(row)
        row.seqs += seqs
        row.events.append(fields)
        row.tags.add((fields[1], fields[0]))
        row.marks = marks
        self._pending_bytes += batch.size

    # -- commits

    async def _commit_for_ever(self) -> None:
        while True:
            if not self._pending:
                if self._stopping:
                    return
                self._work.clear()
                await self._work.wait()
                continue
            taken, self._pending = self._pending[:_ROWS_AT_ONCE], self._pending[_ROWS_AT_ONCE:]
            self._committing = taken
            try:
                rows = [_row(row) for row in taken]
                committed = await asyncio.wrap_future(self.journal.commit(rows))
            except JournalError as error:
                await self._commit_failed(taken, error)
                if self._stopping:
                    return
                continue
            self._committing = []
            self._failing = 0
            if not self._pending:
                self._pending_bytes = 0
            else:
                self._pending_bytes -= sum(len(row.blob) for row in rows if isinstance(row, FrameRow))
            self._was_committed(rows)
            for row in taken:
                if isinstance(row, _Closing):
                    row.tell(True)
            self.hub.committed(committed.head)
            if self.queue.offered():
                self._wake_from_thread()
            self._nudge()

    def _was_committed(self, rows: Sequence[Row]) -> None:
        touched: set[Key] = set()
        for row in rows:
            if not isinstance(row, FrameRow):
                continue
            key = (row.worker, row.epoch)
            self._tally.of(row.worker)["stored"] += len(row.seqs)
            if row.transport != SPOOL:
                self._tally.took(row.worker, time.time() - _newest(row.blob))
            known = self._known.get(key)
            if known is not None and row.marks is not None:
                known.durable = row.marks.seq
                touched.add(key)
        for key in touched:
            self._tell(*key)

    async def _commit_failed(self, rows: Sequence[Pending], error: JournalError) -> None:
        """Drop what was accepted, believe the table again, have it sent again; our own rows stay."""
        self._failed_commits += 1
        self._failing += 1
        self._paused = True
        if self._failing == 1:  # said once; an empty transaction may succeed on a disk that is still full
            self._raise_alarm("journal", f"{error}; events wait with their senders until it can be written again")
        pause = min(_RETRY[0] * 2 ** (self._failing - 1), _RETRY[1])
        if self._failing > 1 and not self._stopping:
            await asyncio.sleep(pause)
        entries: list[EpochEntry] = []
        while True:
            try:
                # An empty transaction shows whether it can be written again.
                await asyncio.wrap_future(self.journal.commit([]))
                entries = await asyncio.wrap_future(self.journal.run(self.journal.entries))
                break
            except JournalError as again:
                if self._stopping:
                    for row in (*rows, *self._pending):
                        if isinstance(row, _Closing) and not row.committed.done():
                            row.committed.set_exception(again)
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY[1])
        # From here to the end without a pause: what was accepted meanwhile is dropped with the rest.
        marks = {(entry.worker, entry.epoch): entry.marks for entry in entries}
        every = (*rows, *self._pending)
        self._pending = [row for row in every if isinstance(row, OwnRow)]
        self._committing, self._pending_bytes = [], 0
        self._resets += 1
        for key, known in self._known.items():
            found = marks.get(key, Marks())
            self._sequencer.reset(*key, found)
            known.durable = found.seq
        for row in every:
            if isinstance(row, _Closing):
                row.tell(False)
        self._paused = False
        for key in list(self._known):
            self._tell(*key)
        self._take_frames()
        self._nudge()

    # -- what is told

    def _tell(self, worker: str, epoch: int) -> None:
        """Acks: to the queue's board, and to the stdin of a worker that sends markers."""
        known = self._known.get((worker, epoch))
        if known is None or self._sequencer.stage(worker, epoch) is not Stage.OPEN or (worker, epoch) in self._closing:
            return
        marks = self._sequencer.marks(worker, epoch)
        gap = marks.critical if self._sequencer.take_gap(worker, epoch) else None
        self.queue.tell(worker, epoch, Reply("taken", known.durable, marks.seq, 0, gap))
        if known.stdout and self._send_ack is not None:
            ack = Ack(durable=known.durable, received=marks.seq, gap=gap)
            if gap is not None or known.told is None or known.told.durable != ack.durable:
                known.told = ack
                self._send_ack(worker, epoch, ack)

    def _next_own_seq(self) -> int:
        self._own_seq += 1
        return self._own_seq

    def _raise_alarm(self, what: str, text: str) -> None:
        _log.error("%s", text)
        if self._alarm is not None:
            self._alarm(what, text)

    def _nudge(self) -> None:
        """Something moved: whoever waits for a condition looks again."""
        self._gate.set()
        for waiter in [*self._waiters]:
            waiter.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            moved = asyncio.Event()
            self._waiters.add(moved)
            try:
                await moved.wait()
            finally:
                self._waiters.discard(moved)


def _row(row: Pending) -> Row:
    if isinstance(row, _Closing):
        return row.row
    if not isinstance(row, _Markers):
        return row
    return FrameRow(
        worker=row.key[0],
        epoch=row.key[1],
        transport=STDOUT,
        seqs=row.seqs,
        tags=list(row.tags),
        blob=join(row.events),
        marks=row.marks,
    )


def _short(what: object) -> str:
    """For a log: whoever sent it chose what is in it."""
    text = repr(what[:_MOST_TEXT] if isinstance(what, (str, bytes)) else what)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _newest(blob: bytes) -> float:
    """The timestamp of the last event in a blob; 0 where it cannot be read."""
    try:
        (fields,) = decode_fields(join(split(blob)[-1:]))
    except (FrameError, ValueError):
        return 0.0
    return fields[7]


def _remove_folder(folder: Path, damaged: Sequence[Path]) -> None:
    """Remove an epoch's folder; segments that were damaged are kept beside it."""
    if damaged:
        aside = folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        for path in damaged:
            with suppress(FileNotFoundError):
                path.replace(aside / f"{folder.name}-{path.name}")
    shutil.rmtree(folder, ignore_errors=True)


def _kill(pid: int | None, created: float | None) -> None:
    """That very process, and nobody who has its number by now."""
    if pid is not None and created is not None:
        with suppress(PermissionError):  # it is not ours; the alarm has named it
            kill(Identity(pid, created))
