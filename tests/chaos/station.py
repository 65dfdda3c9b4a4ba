"""A supervisor for chaos: the real journal, pump and queue server, workers of `worker.py`, and faults on command.

Run as a script: `station.py FOLDER OPTIONS` (JSON). Each line of its stdin is a command, answered by a line. It closes
what earlier stations left open, says "open", and after `finish` waits for all its workers and says "done".
`without` leaves out what makes it exact, so that the check can be seen to fail.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Any

import ipc.sequence
from ipc import control
from ipc.queue import Reply
from ipc.sequence import Judgement, Marks
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.pump import Pump

WORKER = str(Path(__file__).with_name("worker.py"))


class Station:
    """One supervisor process and its workers."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        self.journal = Journal.open(folder / "journal.sqlite3")
        self.pump = Pump(
            journal=self.journal,
            hub=Hub(self.journal),
            spools=folder / "spools",
            send_ack=self.send,
            redirect=self.redirect,
            look_every=0.2,
            capacity=options.get("capacity", 1000),
            lock_grace=1.0,
        )
        self.children: dict[tuple[str, int], asyncio.subprocess.Process] = {}
        self.endings: set[asyncio.Task[None]] = set()
        self.released = threading.Event()

    async def run(self) -> None:
        async with self.pump:
            await self.pump.close_all_known()
            if self.options.get("serve", True):
                self.pump.serve()
            print("open", flush=True)
            while line := (await asyncio.to_thread(sys.stdin.readline)).split():
                if line[0] == "finish":
                    break
                await self.obey(*line)
                print("ok", flush=True)
            while self.endings:
                await asyncio.gather(*self.endings)
            counts = {"served_again": self.pump.statistics().served_again, "drained": self.pump.drained()}
        self.journal.close()
        print("done " + json.dumps(counts), flush=True)

    async def obey(self, command: str, *arguments: str) -> None:
        pump, queue = self.pump, self.pump.queue
        match command:
            case "start":
                await self.start(arguments[0], int(arguments[1]))
            case "kill":
                self.children[arguments[0], int(arguments[1])].kill()
            case "close":
                server = pump.server._server
                assert server is not None
                server.listener.close()
                pump.server.cut()
            case "cut":
                pump.server.cut()
            case "unlink":
                os.unlink(pump.server.address)  # noqa: PTH108 - a fault, not file work
            case "withhold":  # requests are taken, answers do not come
                offer = type(queue).offer
                self.released.clear()

                def late(worker: str, epoch: int, frame: bytes) -> Reply:
                    reply = offer(queue, worker, epoch, frame)
                    self.released.wait(30)
                    return reply

                queue.offer = late  # type: ignore[method-assign]
            case "release":
                del queue.offer
                self.released.set()
            case "pause":  # nobody takes anything any more, and no marker pipe is read
                pump._paused = True
            case "resume":
                pump._paused = False
                pump._take_frames()
                pump._nudge()
            case _:
                raise ValueError(command)

    async def start(self, worker: str, epoch: int) -> None:
        nonce = secrets.token_hex(16)
        spool = await self.pump.open_epoch(worker, epoch, nonce)
        server, options = self.pump.server, self.options
        told = {
            "worker": worker,
            "epoch": epoch,
            "nonce": nonce,
            "folder": str(spool),
            "address": server.address,
            "key": base64.b64decode(server.key).hex(),
            "mode": options.get("mode", "queue"),
            "spool": options.get("without") != "spool",
            "screenshot": options.get("screenshot", 0),
            "count": options["count"],
            "progress": options.get("progress", 1),
            "pause": options.get("pause", 0.001),
            "patience": options.get("patience", 40),
            "witness": str(self.folder / f"witness-{worker}-{epoch}"),
        }
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            options.get("python", sys.executable),
            WORKER,
            json.dumps(told),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=1 << 24,
        )
        self.children[worker, epoch] = child
        words = asyncio.create_task(self.words(child))
        markers = asyncio.create_task(self.markers(worker, epoch, child))
        ending = asyncio.create_task(self.end(worker, epoch, child, words, markers))
        self.endings.add(ending)
        ending.add_done_callback(self.endings.discard)

    async def words(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        async for line in child.stderr:
            print(line.decode().rstrip(), flush=True)

    async def markers(self, worker: str, epoch: int, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while True:
            await self.pump.wait_may_read(worker, epoch)
            line = await child.stdout.readline()
            if not line:
                return
            self.pump.marker(worker, epoch, line.rstrip(b"\n"))

    async def end(
        self,
        worker: str,
        epoch: int,
        child: asyncio.subprocess.Process,
        words: asyncio.Task[None],
        markers: asyncio.Task[None],
    ) -> None:
        await child.wait()
        await words

        async def drained() -> None:
            await markers

        await self.pump.close_epoch(worker, epoch, drained=drained)

    def send(self, worker: str, epoch: int, message: control.Down) -> None:
        child = self.children.get((worker, epoch))
        if child is not None and child.stdin is not None and not child.stdin.is_closing():
            child.stdin.write(control.encode(message))

    def redirect(self, address: str, key: str) -> None:
        for worker, epoch in self.children:
            self.send(worker, epoch, control.Redirect(address=address, key=key))


def accept_all(marks: Marks, metas: Any, *, salvage: bool = False) -> Judgement:
    """A judge that finds everything new."""
    last = max(marks.seq, *(meta[0] for meta in metas))
    return Judgement(accepted=tuple(range(len(metas))), marks=Marks(last, last, marks.missed))


def main() -> None:
    options = json.loads(sys.argv[2])
    if options.get("without") == "dedup":
        ipc.sequence.judge_frame = accept_all
    asyncio.run(Station(Path(sys.argv[1]), options).run())
    os._exit(0)  # threads that hold back answers must not hold the end


if __name__ == "__main__":
    main()
