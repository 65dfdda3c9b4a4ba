"""The event plane end to end: real workers, killed and cut off, against what the journal holds."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ipc import control
from ipc.events import WELL_KNOWN_TYPES, ProgressEvent
from ipc.frames import MOST_EVENT, Meta, encode_batch, encode_event, fields_of
from ipc.markers import encode_marker, encode_unsigned
from ipc.spool import Spool
from supervisor.hub import Hub
from supervisor.journal import Journal, JournalError, JournalReader, StoredEvent
from supervisor.pump import Pump
from tests.systems import SIGKILL, hold, let_go

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


WORKER = """
import sys, threading, time
from pathlib import Path
from ipc import control
from ipc.emitter import Emitter

worker, epoch, nonce, folder, address, key, mode, count, pause = sys.argv[1:10]
print("ready", file=sys.stderr, flush=True)
emitter = Emitter.for_worker(worker=worker, epoch=int(epoch), nonce=nonce, folder=Path(folder), address=address,
                             key=key, marker_fd=1, mode=mode)
def listen():
    for line in open(0, 'rb', buffering=0):
        message = control.decode_down(line)
        if isinstance(message, control.Ack):
            emitter.ack(message)
        elif isinstance(message, control.Redirect):
            emitter.redirect(message.address, message.key)
threading.Thread(target=listen, daemon=True).start()
longest = 0.0
for i in range(int(count)):
    began = time.perf_counter()
    emitter.emit(worker, f"s{i % 3}", detail=str(i))
    emitter.emit(worker, "x", type="log_entry", detail=str(i))
    longest = max(longest, time.perf_counter() - began)
    if float(pause):
        time.sleep(float(pause))
print("emitted", longest, file=sys.stderr, flush=True)
print("drained", emitter.drain(15), file=sys.stderr, flush=True)
print(emitter.statistics(), file=sys.stderr, flush=True)
"""

EVERYTHING = """
import sys, threading
from pathlib import Path
from ipc import control
from ipc.emitter import Emitter
from ipc.errors import EventTooLargeError
from ipc.events import WELL_KNOWN_TYPES, ProgressEvent
from ipc.frames import MOST_EVENT

worker, epoch, nonce, folder, address, key, mode = sys.argv[1:8]
print("ready", file=sys.stderr, flush=True)
emitter = Emitter.for_worker(worker=worker, epoch=int(epoch), nonce=nonce, folder=Path(folder), address=address,
                             key=key, marker_fd=1, mode=mode, coalesce=False)
def listen():
    for line in open(0, 'rb', buffering=0):
        message = control.decode_down(line)
        if isinstance(message, control.Ack):
            emitter.ack(message)
threading.Thread(target=listen, daemon=True).start()
summary = {"files": ["a.py", "hä.py"], "n": 3, "ratio": 0.1, "none": None, "deep": {"ok": True}, 5: float("nan")}
shot = bytes(range(256)) * 8000  # two million bytes and a few
for n, type_ in enumerate(WELL_KNOWN_TYPES):
    for step in ("", "scanning", "reading", "done", "ein Schritt \\u2192 \\x85 \\ud800"):
        data = shot if (type_, step) == ("screenshot", "") else b"" if type_ == "screenshot" else None
        emitter.emit_event(ProgressEvent(type_, "qa", step, n, "first\\nsecond\\r\\u2028", summary, data, 1e9 + n / 7))
for type_ in ("screenshot", "progress"):
    try:
        emitter.emit("qa", "too large", type=type_, data=bytes(MOST_EVENT))
    except EventTooLargeError as error:
        print("refused", error, file=sys.stderr, flush=True)
emitter.emit_event(ProgressEvent("log_entry", "qa", "last", timestamp=1.5))
print("drained", emitter.drain(30), file=sys.stderr, flush=True)
"""


class Plane:
    """A pump with its journal, and what a crew would add: marker readers and acks."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal.open(folder / "journal.sqlite3")
        self.hub = Hub(self.journal)
        self.alarms: list[str] = []
        self.pump = Pump(
            journal=self.journal,
            hub=self.hub,
            spools=folder / "spools",
            send_ack=self._send_ack,
            alarm=lambda what, text: self.alarms.append(f"{what}: {text}"),
        )
        self.workers: dict[tuple[str, int], Worker] = {}

    def _send_ack(self, worker: str, epoch: int, ack: control.Ack) -> None:
        if (worker, epoch) in self.workers:
            self.workers[worker, epoch].send(ack)

    async def start(
        self, worker: str, epoch: int, *, count: int = 0, pause: float = 0.0, mode: str = "queue", code: str = WORKER
    ) -> Worker:
        nonce = secrets.token_hex(16)
        folder = await self.pump.open_epoch(worker, epoch, nonce)
        child = Worker(self, worker, epoch)
        self.workers[worker, epoch] = child
        server = self.pump.server
        await child.spawn(
            code, [worker, str(epoch), nonce, str(folder), server.address, server.key, mode, str(count), str(pause)]
        )
        return child

    def events(self, worker: str | None = None) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while True:
            more = self.journal.read(found[-1].cursor if found else None, 1000)
            if not more:
                return [e for e in found if worker is None or e.worker == worker]
            found += more


class Worker:
    def __init__(self, plane: Plane, worker: str, epoch: int) -> None:
        self.plane, self.worker, self.epoch = plane, worker, epoch
        self.said: list[str] = []

    async def spawn(self, code: str, arguments: list[str]) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=16 * 1024 * 1024,
        )
        assert self.process.stderr is not None
        self.said.append((await self.process.stderr.readline()).decode().strip())
        assert self.said == ["ready"], (await self.process.stderr.read()).decode()
        self.markers = asyncio.create_task(self._read_markers())
        self.words = asyncio.create_task(self._read_words())

    async def _read_words(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode().strip())

    async def _read_markers(self) -> None:
        assert self.process.stdout is not None
        while True:
            await self.plane.pump.wait_may_read(self.worker, self.epoch)
            line = await self.process.stdout.readline()
            if not line:
                return
            self.plane.pump.marker(self.worker, self.epoch, line.rstrip(b"\n"))

    def send(self, message: control.Down) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(control.encode(message))

    async def heard(self, word: str) -> str:
        while True:
            for line in self.said:
                if line.startswith(word):
                    return line
            await asyncio.sleep(0.01)

    async def end(self, finishes: list[ProgressEvent] | None = None) -> None:
        """Wait for its end, then close its epoch."""
        await self.process.wait()

        async def drained() -> None:
            await self.markers

        await self.plane.pump.close_epoch(self.worker, self.epoch, finishes or [], drained=drained)


@asynccontextmanager
async def plane_in(folder: Path, *, serve: bool = True) -> AsyncIterator[Plane]:
    plane = Plane(folder)
    async with plane.pump:
        if serve:
            plane.pump.serve()
        try:
            yield plane
        finally:
            for child in plane.workers.values():
                if child.process.returncode is None:
                    child.process.kill()
                await child.process.wait()
                await child.markers
                await child.words
    plane.journal.close()


def criticals(events: list[StoredEvent]) -> list[str]:
    return [e.detail for e in events if e.type == "log_entry"]


def in_order(events: list[StoredEvent]) -> bool:
    names = [(e.epoch, e.seq) for e in events]
    return names == sorted(set(names))


@pytest.mark.parametrize("mode", ["queue", "stdout"])
async def test_everything_arrives_in_order(tmp_path: Path, mode: str) -> None:
    """What a worker emits is journaled once, in order, by either transport; its folder goes at the end."""
    async with plane_in(tmp_path) as plane:
        child = await plane.start("qa", 1, count=500, mode=mode)
        assert (await child.heard("drained")) == "drained True"
        await child.end()
        events = plane.events("qa")
        assert criticals(events) == [str(i) for i in range(500)]
        assert in_order(events)
        assert {e.transport for e in events} == {mode}
        assert not plane.pump.folder("qa", 1).exists()
        (entry,) = [e for e in plane.journal.reader.epochs() if e.worker == "qa"]
        assert entry.closed
        assert entry.stored + entry.marks.missed == 1000


async def test_both_modes_leave_the_same_journal(tmp_path: Path) -> None:
    """Every type, a screenshot of 2 MB, odd text: the same rows either way; what is too large is refused either way."""
    journals, refusals = {}, {}
    for mode in ("queue", "stdout"):
        async with plane_in(tmp_path / mode) as plane:
            child = await plane.start("qa", 1, mode=mode, code=EVERYTHING)
            assert (await child.heard("drained")) == "drained True"
            await child.end()
            events = [event.as_json() for event in plane.events()]
            assert {event.pop("transport") for event in events} == {mode}
            for event in events:
                del event["cursor"]  # it names the journal
            journals[mode], refusals[mode] = events, [line for line in child.said if line.startswith("refused")]
    assert journals["queue"] == journals["stdout"]
    assert {event["type"] for event in journals["queue"]} == {*WELL_KNOWN_TYPES}
    assert len(journals["queue"]) == 5 * len(WELL_KNOWN_TYPES) + 1
    assert max(len(event["data"] or "") for event in journals["queue"]) > 2_000_000
    assert refusals["queue"] == refusals["stdout"]
    assert [f"{MOST_EVENT:,}" in line for line in refusals["queue"]] == [True, True]


@pytest.mark.parametrize("mode", ["queue", "stdout"])
async def test_killed_workers_lose_nothing(tmp_path: Path, mode: str) -> None:
    """Workers SIGKILLed in mid-stream, successors started at once: each critical event once, in order, none missing."""
    async with plane_in(tmp_path) as plane:
        closings: list[asyncio.Task[None]] = []
        for epoch in range(1, 6):
            child = await plane.start("qa", epoch, count=100_000, pause=0.0001, mode=mode)
            if epoch == 1:
                await until(lambda: bool(plane.events("qa")))
            await asyncio.sleep(0.05 * (epoch % 3))
            child.process.kill()
            closings.append(asyncio.create_task(child.end()))
        await asyncio.gather(*closings)
        events = plane.events("qa")
        assert in_order(events)
        for epoch in range(1, 6):
            mine = [e for e in events if e.epoch == epoch]
            assert criticals(mine) == [str(i) for i in range(len(criticals(mine)))]
        for entry in plane.journal.reader.epochs():
            assert entry.closed
            stored = [e for e in events if e.epoch == entry.epoch]
            assert entry.stored == len(stored)
        assert plane.alarms == []
        assert plane.pump.drained()


async def test_cut_connections_and_a_closed_listener(tmp_path: Path) -> None:
    """Cut off, then without a listener, then redirected: the work goes on by stdout and comes back, nothing is lost."""
    async with plane_in(tmp_path) as plane:
        child = await plane.start("qa", 1, count=3000, pause=0.001)
        for _ in range(5):
            await until(lambda: len(plane.events("qa")) > 50)
            plane.pump.server.cut()
        plane.pump.server.close()
        await until(lambda: any(e.transport == "stdout" for e in plane.events("qa")))
        plane.pump.serve()
        child.send(control.Redirect(address=plane.pump.server.address, key=plane.pump.server.key))
        await until(lambda: plane.events("qa")[-1].transport == "queue")
        assert (await child.heard("drained")) == "drained True"
        await child.end()
        events = plane.events("qa")
        assert criticals(events) == [str(i) for i in range(3000)]
        assert in_order(events)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it is another process that moves
        await asyncio.sleep(0.01)


async def test_failed_commits_lose_nothing(tmp_path: Path) -> None:
    """Commits that fail, or only seem to, are made good from the table: once each, in order, with an alarm."""
    async with plane_in(tmp_path) as plane:
        child = await plane.start("qa", 1, count=2000, pause=0.0005)
        for stored in (False, True, False):
            before = plane.pump.statistics().failed_commits
            plane.journal.fail_next(sqlite3.OperationalError("disk full"), stored=stored)
            plane.pump.record("decision", detail=str(stored))
            await until(lambda before=before: plane.pump.statistics().failed_commits > before)  # type: ignore[misc]
            # And then one went well: the next failure would else meet the pump's try whether it can write again.
            await until(lambda: not plane.pump._failing)
        assert (await child.heard("drained")) == "drained True"
        plane.journal.fail_next(sqlite3.OperationalError("disk full"))
        await child.end()
        events = plane.events("qa")
        assert criticals(events) == [str(i) for i in range(2000)]
        assert in_order(events)
        assert [e.detail for e in plane.events("supervisor")] == ["False", "True", "False"]
        assert len(plane.alarms) == 4
        assert plane.pump.statistics().failed_commits == 4


async def test_the_spool_alone_saves_what_was_not_sent(tmp_path: Path) -> None:
    """A worker killed before anything could be sent: its critical events come from the spool, its finish is added."""
    async with plane_in(tmp_path, serve=False) as plane:
        plane.pump._paused = True  # nothing is taken, and markers are not read
        child = await plane.start("qa", 1, count=500)
        await child.heard("emitted")
        child.process.kill()
        plane.pump._paused = False
        finish = ProgressEvent("phase_complete", "qa", summary={"message": "m1", "attempt": 2})
        child.markers.cancel()
        child.markers = asyncio.create_task(asyncio.sleep(0))
        await child.end([finish])
        events = plane.events()
        assert criticals(events) == [str(i) for i in range(500)]
        assert {e.transport for e in events if e.worker == "qa"} == {"spool"}
        assert [(e.type, e.summary) for e in events if e.worker == "supervisor"] == [(finish.type, finish.summary)]
        (entry,) = [e for e in plane.journal.reader.epochs() if e.worker == "qa"]
        assert entry.marks.missed == 500


async def test_forged_and_damaged_markers_are_counted(tmp_path: Path) -> None:
    """Lines with no nonce, a wrong one, another epoch or damage put nothing into the journal, and are counted."""
    async with plane_in(tmp_path) as plane:
        await plane.pump.open_epoch("qa", 1, "right")
        fields = fields_of(ProgressEvent("finding", "qa"))
        marker = encode_marker("qa", 1, "wrong", Meta(1, 0, True), fields)
        assert plane.pump.marker("qa", 1, marker)
        assert plane.pump.marker("qa", 1, encode_marker("qa", 2, "right", Meta(1, 0, True), fields))
        assert plane.pump.marker("qa", 1, b"##PROGRESS:{")
        assert not plane.pump.marker("qa", 1, encode_unsigned(ProgressEvent("finding")))
        assert not plane.pump.marker("qa", 1, b"hello")
        assert plane.pump.queue.offer("qa", 1, b"no frame").status == "taken"
        await until(lambda: plane.pump.statistics().damaged_frames == 1)
        counts = plane.pump.statistics().workers["qa"]
        assert (counts.refused, counts.damaged, counts.unsigned) == (2, 2, 1)  # a line and a frame
        plane.pump.marker("qa", 1, encode_marker("qa", 1, "right", Meta(1, 0, True), fields))
        await until(lambda: len(plane.events()) == 1)
        await plane.pump.close_epoch("qa", 1)
        assert plane.pump.drained()


async def test_a_lost_record_is_a_loss_on_record(tmp_path: Path) -> None:
    """Bytes that changed in the spool cost what they held: it is alarmed, recorded, set aside, and the rest arrives."""
    async with plane_in(tmp_path) as plane:
        folder = await plane.pump.open_epoch("qa", 1, "n")
        with Spool.open(folder, segment=100) as spool:
            for seq in range(1, 7):
                spool.append(seq, seq - 1, encode_event(ProgressEvent("log_entry", detail=str(seq))))
                spool.last.cell[0] = seq
        second = sorted(folder.glob("*.seg"))[1]
        data = bytearray(second.read_bytes())
        data[30] ^= 0xFF
        second.write_bytes(data)
        await plane.pump.close_epoch("qa", 1)
        events = plane.events("qa")
        assert in_order(events)
        assert 1 < len(events) < 6
        assert events[-1].seq == 6
        assert any(e.type == "loss" for e in plane.events("supervisor"))
        (entry,) = [e for e in plane.journal.reader.epochs() if e.worker == "qa"]
        assert entry.stored + entry.marks.missed == 6
        assert list((tmp_path / "spools" / "damaged").iterdir())


SUPERVISOR = """
import asyncio, sys, subprocess, secrets
from pathlib import Path
from ipc import control
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.pump import Pump

async def main(folder, epoch, worker_code, count, pause):
    journal = Journal.open(folder / "journal.sqlite3")
    workers = {}
    def send(worker, epoch, ack):
        workers[epoch].stdin.write(control.encode(ack))
    pump = Pump(journal=journal, hub=Hub(journal), spools=folder / "spools", send_ack=send)
    async with pump:
        await pump.close_all_known()
        print("closed", flush=True)
        if count == 0:
            return journal.close()
        pump.serve()
        nonce = secrets.token_hex(16)
        spool = await pump.open_epoch("qa", epoch, nonce)
        child = workers[epoch] = await asyncio.create_subprocess_exec(
            sys.executable, "-c", worker_code, "qa", str(epoch), nonce, str(spool), pump.server.address,
            pump.server.key, "queue", str(count), str(pause), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        async def words():
            async for line in child.stderr:
                print(child.pid, line.decode().strip(), flush=True)
        task = asyncio.create_task(words())
        while line := await child.stdout.readline():
            pump.marker("qa", epoch, line.rstrip())
        await child.wait()
        await task
        await pump.close_epoch("qa", epoch)
    journal.close()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
"""

ORPHAN = WORKER.replace(
    "threading.Thread(target=listen", "import os\nthreading.Thread(target=lambda: (listen(), os._exit(7))"
)


def start_supervisor(folder: Path, epoch: int, count: int, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SUPERVISOR, str(folder), str(epoch), ORPHAN, str(count), str(pause)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "closed\n"
    return child


@pytest.mark.slow
def test_a_stopped_supervisor_holds_nobody(tmp_path: Path) -> None:
    """While the supervisor is stopped, emit stays instant; all arrives once it goes on."""
    supervisor = start_supervisor(tmp_path, 1, 5000, 0.001)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline().endswith("ready\n")
    hold(supervisor.pid)
    time.sleep(4)  # what is tested is that nothing waits for this
    let_go(supervisor.pid)
    said, _ = supervisor.communicate(timeout=60)
    emitted = next(line for line in said.splitlines() if " emitted " in line)
    assert float(emitted.split()[-1]) < 0.5  # a generous bound: the feeder's calls took 2 s and more
    assert "drained True" in said
    journal = JournalReader(tmp_path / "journal.sqlite3")
    events = journal.read(None, 100_000)
    assert criticals(events) == [str(i) for i in range(5000)]
    assert in_order(events)
    assert "fallbacks=1" in said
    journal.close()


@pytest.mark.slow
def test_a_killed_supervisor_loses_nothing(tmp_path: Path) -> None:
    """Supervisors SIGKILLed in mid-stream, one after another: nothing is lost, none twice."""
    for epoch in range(1, 5):
        supervisor = start_supervisor(tmp_path, epoch, 100_000, 0.0002)
        assert supervisor.stdout is not None
        pid, word = supervisor.stdout.readline().split()
        assert word == "ready"
        time.sleep(0.1 * epoch)
        if epoch % 2:
            os.kill(int(pid), SIGKILL)
        supervisor.kill()
        supervisor.communicate()
    start_supervisor(tmp_path, 9, 0, 0).communicate()
    journal = JournalReader(tmp_path / "journal.sqlite3")
    events = journal.read(None, 1_000_000)
    assert in_order(events)
    assert all(e.closed for e in journal.epochs() if e.worker == "qa")
    for entry in journal.epochs():
        mine = [e for e in events if e.epoch == entry.epoch]
        assert criticals(mine) == [str(i) for i in range(len(criticals(mine)))]
        assert len(mine) == entry.stored > 0
    assert not [p for p in (tmp_path / "spools").iterdir() if p.name != "damaged"]
    journal.close()


async def test_an_epoch_is_opened_from_another_thread_and_its_row_comes_first(tmp_path: Path) -> None:
    """Whoever has put an epoch into the history goes on to the journal at once; a row that fails makes no folder."""
    async with plane_in(tmp_path) as plane:
        pump = plane.pump
        opening = await asyncio.to_thread(pump.opening, "qa", 1, 7, 8.0)
        folder = await pump.admit_opened("qa", 1, "n", opening)
        assert folder.is_dir()
        (entry,) = [entry for entry in plane.journal.reader.epochs() if entry.worker == "qa"]
        assert (entry.epoch, entry.pid, entry.created) == (1, 7, 8.0)
        plane.journal.fail_next(JournalError("full"))
        opening = await asyncio.to_thread(pump.opening, "qa", 2)
        with pytest.raises(JournalError):
            await pump.admit_opened("qa", 2, "n", opening)
        assert not pump.folder("qa", 2).exists()


async def test_the_hub_replays_and_goes_on(tmp_path: Path) -> None:
    """A subscriber sees what was and what comes as one stream, in order; filters and cursors work; close ends it."""
    async with plane_in(tmp_path) as plane:
        child = await plane.start("qa", 1, count=300, pause=0.0005)
        await until(lambda: len(plane.events("qa")) > 50)
        seen: list[StoredEvent] = []
        some: list[StoredEvent] = []

        async def watch() -> None:
            with plane.hub.subscribe() as stream:
                async for event in stream:
                    seen.append(event)  # noqa: PERF401 - to be looked at while it goes on

        async def filtered() -> None:
            with plane.hub.subscribe(type="log_entry") as stream:
                async for batch in stream.batches():
                    some.extend(batch)

        tasks = [asyncio.create_task(watch()), asyncio.create_task(filtered())]
        await child.heard("drained")
        await child.end()
        plane.hub.close()
        await asyncio.gather(*tasks)
        assert seen == plane.events()
        assert [e.n for e in seen] == list(range(1, len(seen) + 1))
        assert some == [e for e in seen if e.type == "log_entry"]
        with plane.hub.subscribe(seen[9].cursor) as stream:
            rest = [event async for event in stream]
        assert rest == seen[10:]


async def test_a_busy_neighbour_does_not_hold_a_closing(tmp_path: Path) -> None:
    """An epoch is closed while another worker's events never stop coming."""
    async with plane_in(tmp_path) as plane:
        await plane.start("developer", 2, count=1_000_000)
        child = await plane.start("qa", 1, count=200)
        await child.heard("drained")
        finish = ProgressEvent("phase_complete", "qa", summary={"message": "m1", "attempt": 1})
        plane.journal.fail_next(sqlite3.OperationalError("disk full"))
        await child.end([finish])
        assert [e.type for e in plane.events("supervisor")] == ["phase_complete"]
        (entry,) = [e for e in plane.journal.reader.epochs() if e.worker == "qa"]
        assert entry.closed


async def test_overlapping_frames_are_cut(tmp_path: Path) -> None:
    """Of a frame that is partly known only the rest is stored; what it says of the known part changes nothing."""
    async with plane_in(tmp_path) as plane:
        await plane.pump.open_epoch("qa", 1, "n")
        metas = [(1, 0, True), (2, 1, False), (3, 1, True), (4, 3, True)]
        events = [encode_event(ProgressEvent("log_entry", detail=str(seq))) for seq, _, _ in metas]
        for first, last in ((0, 2), (0, 3), (1, 4), (0, 4)):
            data = encode_batch("qa", 1, "n", metas[first:last], [("", "log_entry")], events[first:last])
            assert plane.pump.queue.offer("qa", 1, data).status == "taken"
        await until(lambda: len(plane.events("qa")) == 4)
        assert criticals(plane.events("qa")) == ["1", "2", "3", "4"]
        assert plane.pump.statistics().workers["qa"].duplicates + plane.pump.statistics().workers["qa"].late == 8
        await plane.pump.close_epoch("qa", 1)
