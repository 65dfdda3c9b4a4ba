"""The event plane end to end: real workers, killed and cut off, against what the journal holds."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ipc import control
from ipc.emitter import Emitter
from ipc.events import ProgressEvent
from supervisor.hub import Hub
from supervisor.journal import Journal, StoredEvent
from supervisor.pump import Pump

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
emitter = Emitter.for_worker(worker=worker, epoch=int(epoch), nonce=nonce, folder=Path(folder), address=address,
                             key=key, marker_fd=1, mode=mode)
def listen():
    for line in sys.stdin.buffer:
        message = control.decode_down(line)
        if isinstance(message, control.Ack):
            emitter.ack(message)
        elif isinstance(message, control.Redirect):
            emitter.redirect(message.address, message.key)
threading.Thread(target=listen, daemon=True).start()
print("ready", file=sys.stderr, flush=True)
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
        self.workers[worker, epoch].send(ack)

    async def start(self, worker: str, epoch: int, *, count: int, pause: float = 0.0, mode: str = "queue") -> Worker:
        nonce = secrets.token_hex(16)
        folder = await self.pump.open_epoch(worker, epoch, nonce)
        child = Worker(self, worker, epoch)
        self.workers[worker, epoch] = child
        server = self.pump.server
        await child.spawn(
            [worker, str(epoch), nonce, str(folder), server.address, server.key, mode, str(count), str(pause)]
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

    async def spawn(self, arguments: list[str]) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WORKER,
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


@pytest.mark.parametrize("mode", ["queue", "stdout"])
async def test_killed_workers_lose_nothing(tmp_path: Path, mode: str) -> None:
    """Workers SIGKILLed in mid-stream, successors started at once: each critical event once, in order, none missing."""
    async with plane_in(tmp_path) as plane:
        closings: list[asyncio.Task[None]] = []
        for epoch in range(1, 6):
            child = await plane.start("qa", epoch, count=100_000, pause=0.0001, mode=mode)
            while not any(e.epoch == epoch for e in plane.journal.read(None, 100_000)) and epoch == 1:
                await asyncio.sleep(0.01)
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
