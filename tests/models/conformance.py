"""Drives the real sequencer, spool, journal and closing along a trace of the event protocol's model.

`Rig.take` does in earnest what a step of the model says: workers are scripted (their feeder is `tests/ipc`'s subject),
everything from the queue to the journal and back is the product. Commits happen when a step says so, or fail; a
supervisor that is killed loses what had no commit. Where a trace of a bent model does something that the product
refuses, the product's way counts: in the end (`finish`) the journal must be right in any case.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import supervisor.pump
from ipc.errors import SpoolLockedError
from ipc.events import ProgressEvent
from ipc.frames import Meta, encode_batch, encode_event, fields_of
from ipc.markers import encode_marker
from ipc.queue import Reply
from ipc.spool import Spool, SpoolLock, create_folder
from supervisor.hub import Hub
from supervisor.journal import Committed, Cursor, Journal, OpenedRow, Row, StoredEvent
from supervisor.pump import Pump

WORKER = "qa"


class GatedJournal(Journal):
    """A journal whose commits wait until they are let through; opening an epoch and empty ones never wait."""

    gate_open = False

    def commit(self, rows: Sequence[Row]) -> Future[Committed]:
        if self.gate_open or all(isinstance(row, OpenedRow) for row in rows):
            return super().commit(rows)
        outer: Future[Committed] = Future()
        self.waiting().append((rows, outer))
        return outer

    def waiting(self) -> list[tuple[Sequence[Row], Future[Committed]]]:
        return self.__dict__.setdefault("_waiting", [])  # type: ignore[no-any-return]

    def let_through(self) -> None:
        """Do what was asked so far."""
        waiting = self.waiting()
        while waiting:
            rows, outer = waiting.pop(0)
            super().commit(rows).add_done_callback(lambda inner, outer=outer: _pass_on(inner, outer))  # type: ignore[misc]


def _pass_on(inner: Future[Committed], outer: Future[Committed]) -> None:
    with suppress(asyncio.InvalidStateError):
        error = inner.exception()
        if error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())


class Locks:
    """The locks of spool folders, as between processes: real ones do not hold within one process."""

    def __init__(self) -> None:
        self.held: set[Path] = set()

    def take(self, folder: Path) -> Any:
        if not folder.exists() or folder in self.held:
            raise SpoolLockedError(str(folder))
        self.held.add(folder)
        return _Lock(self, folder)


@dataclass(slots=True)
class _Lock:
    locks: Locks
    folder: Path

    def release(self) -> None:
        self.locks.held.discard(self.folder)


@dataclass(slots=True)
class Worker:
    """One process of the model: what it has given, and its ends of pipes and calls."""

    folder: Path
    nonce: str
    spool: Spool | None = None
    alive: bool = False
    starting: bool = True
    attached: bool = True
    stopped: bool = False
    excused: bool = False
    given: int = 0
    durable: int = 0
    reply: Reply | None = None
    pipe: list[bytes] = field(default_factory=list)
    finished: bool = False
    closing: bool = False


class Rig:
    """See the module. One per test; `path` is the workspace."""

    def __init__(self, model: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = model
        self.path = path
        self.patch = monkeypatch
        self.locks = Locks()
        monkeypatch.setattr(SpoolLock, "take", self.locks.take)
        monkeypatch.setattr(supervisor.pump, "_kill", self._kill)
        self.workers: dict[int, Worker] = {}
        self.boot = 0
        self.shown: dict[Cursor, tuple[int, int]] = {}
        self.may_salvage: dict[int, asyncio.Event] = {}
        self.saved: list[Path] = []  # the journal after each number of rows
        self.power_lost = False
        self.up = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.journal: GatedJournal
        self.pump: Pump

    # -- life of the supervisor

    async def start(self) -> None:
        self.journal = GatedJournal.open(self.path / "journal.sqlite3", boot_id=f"boot {self.boot}")  # type: ignore[assignment]
        self.pump = Pump(
            journal=self.journal,
            hub=Hub(self.journal),
            spools=self.path / "spools",
            capacity=10,
            lock_grace=0.02 if self.model.config.faults.stops else 30.0,
        )
        await self.pump.start()
        self.pump.queue._wake = None  # frames are taken when a step says so
        self._gate_salvage(self.pump)
        self.up = True
        if self.boot or self.workers:
            known = [(WORKER, e + 1) for e, w in self.workers.items() if w.finished]
            self._spawn(self.pump.close_all_known(known, finishes=lambda _, epoch: self._finishes(epoch - 1)))
        await self.settle()

    async def kill_supervisor(self) -> None:
        for task in (*self.tasks, self.pump._task):
            assert task is not None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.tasks.clear()
        self.may_salvage.clear()
        self.journal.waiting().clear()
        await asyncio.to_thread(self.journal.close)
        self.up = False
        ours = [w.folder for w in self.workers.values() if w.spool is not None]
        self.locks.held &= set(ours)
        for w in self.workers.values():
            w.attached, w.closing, w.pipe, w.reply = False, False, [], None

    def _gate_salvage(self, pump: Pump) -> None:
        """Spools are read when a step says so, and in the end."""
        salvage = pump._salvage

        async def gated(key: tuple[str, int], reported: set[int]) -> list[Path]:
            await self.may_salvage.setdefault(key[1] - 1, asyncio.Event()).wait()
            return await salvage(key, reported)

        pump._salvage = gated  # type: ignore[method-assign]

    def _salvage(self, e: int) -> None:
        self.may_salvage.setdefault(e, asyncio.Event()).set()

    def _spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def settle(self) -> None:
        """Let whatever can move without us move."""
        for _ in range(8):
            if self.up:
                await asyncio.wrap_future(self.journal.run(lambda: None))
            await asyncio.to_thread(lambda: None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _kill(self, pid: int | None, _created: float | None) -> None:
        if pid is not None:
            self._die(self.workers[pid])

    # -- events

    def event(self, e: int, seq: int) -> ProgressEvent:
        kind = self.model.config.programs[e][seq - 1]
        if kind == "F":
            return self._finish(e)
        return ProgressEvent("progress" if kind == "P" else "finding", "qa", "x", detail=f"{e}:{seq}", timestamp=1.0)

    def _finish(self, e: int) -> ProgressEvent:
        summary = {"message": f"m{e}", "round": 1, "attempt": 1}
        return ProgressEvent("phase_complete", "qa", "done", summary=summary, timestamp=1.0)

    def _finishes(self, e: int) -> list[ProgressEvent]:
        return [self._finish(e)] if self.workers[e].finished else []

    def meta(self, e: int, seq: int) -> Meta:
        return Meta(seq, self.model.prev[e][seq], seq in self.model.criticals[e])

    def frame(self, e: int, seqs: Sequence[int]) -> bytes:
        events = [self.event(e, seq) for seq in seqs]
        return encode_batch(
            WORKER,
            e + 1,
            self.workers[e].nonce,
            [self.meta(e, seq) for seq in seqs],
            {(event.phase, event.type) for event in events},
            [encode_event(event) for event in events],
        )

    def line(self, e: int, seq: int) -> bytes:
        return encode_marker(
            WORKER, e + 1, self.workers[e].nonce, self.meta(e, seq), fields_of(self.event(e, seq))
        ).rstrip()

    # -- steps

    async def take(self, says: str, before: Any, after: Any) -> None:
        """Do what a step says, as far as the product lets it."""
        for pattern, act in self._table():
            if found := re.search(pattern, says):
                done = act(says, found, before, after)
                if done is not None:
                    await done
                await self.settle()
                await self._look()
                return
        raise AssertionError(f"a step of the model that nobody knows: {says}")

    def _table(self) -> list[tuple[str, Callable[[str, re.Match[str], Any, Any], Any]]]:
        nothing = lambda *_: None  # noqa: E731 - it reads best in the table
        return [
            (r"^orphan e(\d)", lambda s, m, b, a: self._die(self.workers[int(m[1])])),
            (r"^worker e(\d) (starts|makes|finds)", lambda s, m, b, a: self._first_acts(int(m[1]))),
            (r"^emit e(\d):(\w)(\d)", lambda s, m, b, a: self._emit(int(m[1]), int(m[3]), s)),
            (r"^worker e(\d) commits a finish", lambda s, m, b, a: setattr(self._alive(int(m[1])), "finished", True)),
            (r"^feeder e(\d) (reads|hears)", lambda s, m, b, a: self._hear(int(m[1]))),
            (r"^feeder e(\d) offers", nothing),  # what is under way stands in the state
            (r"^feeder e(\d) makes an empty offer", lambda s, m, b, a: self._poll(int(m[1]))),
            (r"^feeder e(\d) writes e\d:\w(\d)", lambda s, m, b, a: self._write(int(m[1]), int(m[2]))),
            (r"^feeder ", nothing),  # switches, sending again, dropping: seen in what is offered next
            (r"^the queue takes", lambda s, m, b, a: self._offer(b, a)),
            (r"^the ghost \[e(\d):", lambda s, m, b, a: self._ghost(*b.supervisor.ghosts[0])),
            (r"^the marker reader counts", lambda s, m, b, a: self._read_marker(b, a)),
            (r"^the marker reader reads e(\d)", lambda s, m, b, a: self._read_marker(b, a)),
            (r"^(the sequencer|no room)", lambda s, m, b, a: self.pump._take_frames()),
            (r"^the journal commits", lambda s, m, b, a: self._commit()),
            (r"^the commit of .* fails, but", lambda s, m, b, a: self._fail_commit(stored=True)),
            (r"^the commit of .* fails", lambda s, m, b, a: self._fail_commit(stored=False)),
            (r"^the supervisor opens e(\d)", lambda s, m, b, a: self._open(int(m[1]))),
            (r"^the supervisor reaps e(\d)", lambda s, m, b, a: self._close(int(m[1]))),
            (r"^the supervisor kills (the hung )?e(\d)", lambda s, m, b, a: self._die(self.workers[int(m[2])])),
            (r"^a new supervisor starts", lambda s, m, b, a: self.start()),
            (r"^the supervisor is killed", lambda s, m, b, a: self.kill_supervisor()),
            (r"^power is lost", lambda s, m, b, a: self._lose_power(b, a)),
            (r"^worker e(\d) is killed in the middle", lambda s, m, b, a: self._tear(int(m[1]))),
            (r"^worker e(\d) is killed while", lambda s, m, b, a: self._kill_writing(int(m[1]))),
            (r"^worker e(\d) is killed", lambda s, m, b, a: self._die(self.workers[int(m[1])])),
            (r"^worker e(\d) is stopped", lambda s, m, b, a: setattr(self.workers[int(m[1])], "stopped", True)),
            (r"^the line ", lambda s, m, b, a: self._damage(b, a)),
            (r"^retention forgets", lambda s, m, b, a: asyncio.wrap_future(self.journal.retain(most_age=-1))),
            # What the product does by itself as soon as it can:
            (r"^(the hub shows|the table follows|the journal is synced|the queue (is served|server))", nothing),
            (r"^(?:salvage of )?e(\d)'s spool", lambda s, m, b, a: self._salvage(int(m[1]))),
            (r"^(the supervisor (removes|has|writes|does not))", nothing),
            (r"^an agent of", nothing),
        ]

    def _alive(self, e: int) -> Worker:
        return self.workers[e]

    def _first_acts(self, e: int) -> None:
        w = self.workers[e]
        if not w.starting:
            return
        w.starting = False
        try:
            spool = Spool.open(w.folder, segment=1)
        except SpoolLockedError:
            return  # it must not emit, so it exits
        if not w.attached:
            spool.close()  # it looked at its stdin, which has ended
            return
        w.spool, w.alive = spool, True

    def _die(self, w: Worker) -> None:
        w.alive = w.starting = False
        if w.spool is not None:
            w.spool.close()
            w.spool = None

    def _emit(self, e: int, seq: int, says: str) -> None:
        w = self.workers[e]
        if not w.alive or seq != w.given + 1 or w.spool is None:
            return  # after a refusal the model's bent worker has used up a seq; ours has not
        if "refused" in says:
            return
        if seq in self.model.criticals[e]:
            if "short write" in says:
                self._write_short(w.spool)
            w.spool.append(seq, self.model.prev[e][seq], encode_event(self.event(e, seq)))
        w.spool.last.cell[0] = seq
        w.given = seq

    def _write_short(self, spool: Spool) -> None:
        """Leave a segment that ends in half a record, so that the whole one begins the next."""
        self._write_torn(spool)
        spool._size += 24
        spool._room = spool._size

    def _write_torn(self, spool: Spool) -> None:
        memory = spool._map or spool._next_segment(64)
        memory[spool._size + 8 : spool._size + 24] = b"half of a record"  # without its head, which comes last

    def _hear(self, e: int) -> None:
        w = self.workers[e]
        if w.reply is None or not w.alive or w.spool is None:
            return
        w.durable = max(w.durable, w.reply.durable)
        if w.durable >= w.given > 0:
            w.spool._finish_segment()  # the worst case: everything that may go goes
        w.spool.trim(w.durable)
        w.reply = None

    def _poll(self, e: int) -> None:
        w = self.workers[e]
        if w.alive and self.up:
            w.reply = self.pump.queue.offer(WORKER, e + 1, b"")
            self._hear(e)

    def _given(self, e: int, seqs: Sequence[int]) -> list[int]:
        return [seq for seq in seqs if seq <= self.workers[e].given]

    def _offer(self, before: Any, after: Any) -> None:
        for e, (old, new) in enumerate(zip(before.workers, after.workers, strict=True)):
            if old.request and not new.request and (seqs := self._given(e, old.request)):
                self.workers[e].reply = self.pump.queue.offer(WORKER, e + 1, self.frame(e, seqs))
                return

    def _ghost(self, e: int, seqs: Sequence[int]) -> None:
        if seqs := self._given(e, seqs):
            self.pump.queue.offer(WORKER, e + 1, self.frame(e, seqs))

    def _write(self, e: int, seq: int) -> None:
        if seq <= self.workers[e].given and self.workers[e].alive:
            self.workers[e].pipe.append(self.line(e, seq))

    def _damage(self, before: Any, after: Any) -> None:
        for e, (old, new) in enumerate(zip(before.workers, after.workers, strict=True)):
            for place, (one, other) in enumerate(zip(old.pipe, new.pipe, strict=False)):
                if one != other and place < len(self.workers[e].pipe):
                    self.workers[e].pipe[place] = b"##PROGRESS:{" + b"?" * 9

    def _kill_writing(self, e: int) -> None:
        w = self.workers[e]
        if w.pipe:
            w.pipe[-1] = w.pipe[-1][: len(w.pipe[-1]) // 2]
        self._die(w)

    def _read_marker(self, before: Any, after: Any) -> None:
        for e, (old, new) in enumerate(zip(before.workers, after.workers, strict=True)):
            if len(new.pipe) < len(old.pipe):
                self._read_one(e)

    def _read_one(self, e: int) -> bool:
        w = self.workers[e]
        if not w.pipe or not self.pump.may_read_markers(WORKER, e + 1):
            return False
        self.pump.marker(WORKER, e + 1, w.pipe.pop(0))
        return True

    async def _commit(self) -> None:
        self.journal.let_through()
        await self.settle()
        self._save()

    async def _fail_commit(self, *, stored: bool) -> None:
        if self.journal.waiting():
            self.journal.fail_next(sqlite3.OperationalError("disk full"), stored=stored)
            self.journal.let_through()
            await self.settle()
            await asyncio.sleep(0.15)  # the pump tries again after a while

    async def _open(self, e: int) -> None:
        folder = await self.pump.open_epoch(WORKER, e + 1, f"nonce {e}", pid=e)
        self.workers[e] = Worker(folder=folder, nonce=f"nonce {e}")
        self._save()
        if not self.model.config.slow_start:
            self._first_acts(e)

    def _close(self, e: int) -> None:
        w = self.workers[e]
        self._die(w)  # it is reaped, so it is dead
        if not w.closing:
            w.closing = True
            self._spawn(self.pump.close_epoch(WORKER, e + 1, self._finishes(e), drained=lambda: self._drain(e)))

    async def _drain(self, e: int) -> None:
        while self._read_one(e):  # noqa: ASYNC110 - it reads the pipe, it does not wait
            await asyncio.sleep(0)

    def _tear(self, e: int) -> None:
        w = self.workers[e]
        if w.spool is not None:
            self._write_torn(w.spool)
        self._die(w)

    # -- power

    def _save(self) -> None:
        """Keep the journal as it is now, for a loss of power to come back to."""
        if self.model.config.faults.power_losses:
            copy = self.path / f"saved-{len(self.saved)}"
            source = sqlite3.connect(self.path / "journal.sqlite3")
            target = sqlite3.connect(copy)
            source.backup(target)
            source.close()
            target.close()
            self.saved.append(copy)

    async def _lose_power(self, before: Any, after: Any) -> None:
        """Rows and spools go back to what the model's state after it has."""
        if self.up:
            await self.kill_supervisor()
        for w in self.workers.values():
            self._die(w)
            w.excused = True
        for suffix in ("", "-wal", "-shm"):
            (self.path / f"journal.sqlite3{suffix}").unlink(missing_ok=True)
        self.power_lost = True
        self.boot += 1
        kept = [copy for copy in self.saved if self._rows(copy) <= len(after.journal.rows)]
        if kept:
            shutil.copy(kept[-1], self.path / "journal.sqlite3")
        for e, spool in enumerate(after.spools):
            if e not in self.workers:
                continue
            folder = self.workers[e].folder
            shutil.rmtree(folder, ignore_errors=True)
            if spool.folder == "present":
                create_folder(folder)
                with Spool.open(folder) as again:
                    for seq in self.model.criticals[e]:
                        if spool.trimmed < seq <= min(spool.end, self.workers[e].given):
                            again.append(seq, self.model.prev[e][seq], encode_event(self.event(e, seq)))

    def _rows(self, copy: Path) -> int:
        """Rows as the model counts them: events, and openings and closings of epochs."""
        db = sqlite3.connect(copy)
        (events,) = db.execute("SELECT coalesce(sum(n), 0) FROM frames WHERE worker = ?", (WORKER,)).fetchone()
        opened, closed = db.execute("SELECT count(*), count(closed) FROM epochs WHERE worker = ?", (WORKER,)).fetchone()
        db.close()
        return int(events) + int(opened) + int(closed)

    # -- what must be true

    def events(self) -> list[StoredEvent]:
        return self.journal.read(None, 10_000)

    async def _look(self) -> None:
        """A client looks at everything that can be seen now."""
        if self.up:
            for event in self.events():
                if event.worker == WORKER:
                    self.shown.setdefault(event.cursor, (event.epoch - 1, event.seq))

    async def finish(self) -> None:
        """Without further faults: send what is not durable, end everybody, close every epoch."""
        if not self.up:
            await self.start()
        self.journal.gate_open = True
        self.journal.let_through()
        for e in self.model.epochs:
            self._salvage(e)
        for e, w in sorted(self.workers.items()):
            if w.starting:
                self._first_acts(e)
            if w.alive and w.attached:
                await self._send_rest(e, w)
            self._die(w)
            self._close(e)
        async with asyncio.timeout(15):
            while any(not task.done() for task in self.tasks):
                self.journal.let_through()
                self.pump._take_frames()
                await asyncio.sleep(0.005)
            for task in self.tasks:
                await task

    async def _send_rest(self, e: int, w: Worker) -> None:
        """As a feeder that sends again what is not durable; held back while an older epoch is open."""
        seqs = range(w.durable + 1, w.given + 1)
        if seqs:
            self.pump.queue.offer(WORKER, e + 1, self.frame(e, seqs))
            self.pump._take_frames()
            await self.settle()

    def problems(self) -> list[str]:
        """Properties P1 to P5 that do not hold of the real journal."""
        events, found = self.events(), []
        now = {event.cursor: (event.epoch - 1, event.seq) for event in events if event.worker == WORKER}
        names = list(({**self.shown, **now} if self.retained() else now).values())
        if len(set(names)) != len(names):
            found.append(f"P1: twice in the journal: {names}")
        if names != sorted(names):
            found.append(f"P2, P3: not in order: {names}")
        if any(event.type == "loss" for event in events) and not self.power_lost:
            found.append("P1: a loss is on record, and nothing was lost")
        for event in events:
            if event.worker == WORKER:
                wanted = self.event(event.epoch - 1, event.seq)
                if (event.type, event.detail) != (wanted.type, wanted.detail):
                    found.append(f"P1: under {event.epoch}/{event.seq} stands {event.type} {event.detail!r}")
        entries = {entry.epoch - 1: entry for entry in self.journal.reader.epochs() if entry.worker == WORKER}
        for e, w in self.workers.items():
            finishes = [event for event in events if event.summary.get("message") == f"m{e}"]
            if w.finished and len(finishes) != 1:
                found.append(f"P1: {len(finishes)} events about the finish record of e{e}")
            if e not in entries:
                if not w.excused:
                    found.append(f"P7: nothing is known of e{e}")
                continue
            if not entries[e].closed or w.folder.exists():
                found.append(f"P7: e{e} is not closed, or its folder is still there")
            if w.excused:
                continue
            mine = {seq for epoch, seq in names if epoch == e}
            if lost := [seq for seq in self.model.criticals[e] if seq <= w.given and seq not in mine]:
                found.append(f"P1: e{e} has lost {lost}")
            if len(mine) + entries[e].marks.missed != w.given:
                found.append(f"P4: e{e} gave {w.given}, {len(mine)} stored, {entries[e].marks.missed} missed")
        store = self.journal.reader.head().store
        wrong = [
            str(cursor) for cursor, name in self.shown.items() if cursor.store == store and now.get(cursor) != name
        ]
        if wrong and not self.retained():
            found.append(f"P5: shown and gone, or something else now: {wrong}")
        return found

    def retained(self) -> bool:
        return bool(self.model.config.faults.retentions)

    async def aclose(self) -> None:
        if self.up:
            self.journal.gate_open = True
            self.journal.let_through()
            for task in self.tasks:
                task.cancel()
            await self.pump.aclose()
            await asyncio.to_thread(self.journal.close)
