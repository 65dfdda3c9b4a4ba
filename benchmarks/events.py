"""The event plane, measured beside what people would pick instead, in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from ipc.emitter import Emitter
from ipc.events import ProgressEvent
from ipc.frames import decode_event, decode_events, decode_header, encode_event, encode_frame, fields_of
from ipc.markers import encode_unsigned, parse_marker
from ipc.queue import EventQueue, Offer, QueueServer, Reply, connect, create_queue, read_key, serialize_queue
from ipc.receiver import Receiver
from ipc.spool import create_folder
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.pump import Pump

PRODUCERS = 4
_SPAWN = multiprocessing.get_context("spawn")


# --- producers (each in a process of its own) -------------------------------------------------------------------------


def produce(worker: str, folder: str, address: str, key: str, count: int, go: Any) -> None:
    """Emit as fast as they are taken: every 20th event is critical; at most so many wait, or caches are of no use."""
    emitter = Emitter.for_worker(
        worker=worker, epoch=1, nonce="n", folder=Path(folder), address=address, key=key, marker_fd=-1, mode="queue",
        coalesce=False,
    )  # fmt: skip
    go.wait()
    for i in range(count):
        if i % 20:
            emitter.emit("qa", "reading", i % 100, "module.py")
        else:
            emitter.emit("qa", "x", type="finding", detail="module.py")
        if not i % 500:
            while emitter.statistics().waiting > 4000:
                time.sleep(0.002)
    emitter.drain(60)
    emitter.close()


def produce_slowly(worker: str, folder: str, address: str, key: str, count: int, go: Any) -> None:
    """200 events a second."""
    emitter = Emitter.for_worker(
        worker=worker, epoch=1, nonce="n", folder=Path(folder), address=address, key=key, marker_fd=-1, mode="queue"
    )
    go.wait()
    for i in range(count):
        emitter.emit("qa", "reading", i % 100, "module.py")
        time.sleep(0.005)
    emitter.drain(10)
    emitter.close()


def put_all(target: Any, count: int, go: Any) -> None:
    """One event per put."""
    go.wait()
    event = ProgressEvent("progress", "qa", "reading", 5, "module.py")
    for _ in range(count):
        target.put(event)


def put_slowly(key: str, count: int, go: Any) -> None:
    """A bare put of one event to an in-process server, 200 a second."""
    proxy = connect(*read_key(key))
    go.wait()
    for _ in range(count):
        proxy.call("try_put", ProgressEvent("progress", "qa", "reading", 5, "module.py"))
        time.sleep(0.005)


def push_zmq(address: str, count: int, go: Any) -> None:
    """One event a message, as all who put do: built, encoded and handed over at once. It keeps and numbers nothing."""
    import zmq

    socket = zmq.Context().socket(zmq.PUSH)
    socket.connect(address)
    go.wait()
    for i in range(count):
        socket.send(encode_event(ProgressEvent("progress", "qa", "reading", i % 100, "module.py")))
    go.stay()


def push_zmq_batches(address: str, count: int, go: Any) -> None:
    """Frames of 512 events made by hand: nothing leaves before the last of them is there. It numbers only batches."""
    import zmq

    socket = zmq.Context().socket(zmq.PUSH)
    socket.connect(address)
    go.wait()
    for start in range(0, count, 512):
        size = min(512, count - start)
        events = [fields_of(ProgressEvent("progress", "qa", "reading", i % 100, "module.py")) for i in range(size)]
        socket.send(encode_frame("qa", 1, "n", [(start + 1, size, 0, [])], [("qa", "progress")], events))
    go.stay()


class Go:
    """A start signal for children that have said that they are ready."""

    def __init__(self) -> None:
        self._ready = _SPAWN.Semaphore(0)
        self._go = _SPAWN.Event()
        self._over = _SPAWN.Event()

    def wait(self) -> None:
        self._ready.release()
        self._go.wait()

    def set(self) -> None:
        self._go.set()

    def stay(self) -> None:
        """Until all has arrived: a pushing socket that is closed can lose what was not read yet, however it lingers."""
        self._over.wait()

    def over(self) -> None:
        self._over.set()

    def wait_ready(self, children: int) -> None:
        for _ in range(children):
            self._ready.acquire()


def start(work: Callable[..., None], arguments: list[tuple[Any, ...]]) -> tuple[list[Any], Any]:
    """Start the children and wait until all could begin; `set` of what comes with them lets them."""
    go = Go()
    children = [_SPAWN.Process(target=work, args=(*some, go)) for some in arguments]
    for child in children:
        child.start()
    go.wait_ready(len(children))
    return children, go


# --- ours -------------------------------------------------------------------------------------------------------------


def serve(pipe: Any) -> None:
    """A receiving side in a process of its own, as the supervisor is."""
    receiver = Receiver()
    queue = EventQueue()
    queue.handle_offers(lambda offer: _taken(receiver, offer))
    with QueueServer(queue) as server:
        pipe.send((server.address, server.key))
        pipe.recv()


def emit_cost(scale: float) -> dict[str, float]:
    """What one `emit` costs its caller, the feeder working meanwhile."""
    count = int(50_000 * scale)
    found: dict[str, float] = {}
    for name, type_ in (("progress", "progress"), ("critical", "finding")):
        ours, theirs = _SPAWN.Pipe()
        child = _SPAWN.Process(target=serve, args=(theirs,))
        child.start()
        address, key = ours.recv()
        with tempfile.TemporaryDirectory() as folder:
            create_folder(Path(folder) / "qa-1")
            emitter = Emitter.for_worker(
                worker="qa", epoch=1, nonce="n", folder=Path(folder) / "qa-1", address=address, key=key, marker_fd=-1,
                mode="queue",
            )  # fmt: skip
            emitter.emit("qa", "x")
            emitter.drain(5)
            costs: list[float] = []
            for _ in range(count // 100):
                began = time.perf_counter()
                for i in range(100):
                    emitter.emit("qa", "reading", i, "module.py", type=type_)
                costs.append((time.perf_counter() - began) / 100)
                emitter.drain(5)
            emitter.close()
        ours.send(None)
        child.join()
        found[f"events.emit_{name}_us"] = statistics.median(costs) * 1e6
    return found


def _taken(receiver: Receiver, offer: Offer) -> Reply:
    if not offer.frame:
        return Reply("taken", receiver.durable(offer.worker, offer.epoch))
    received = receiver.frame(offer.frame)
    return Reply("taken", received.durable, received.durable, 1, received.gap)


async def _through(folder: Path, work: Callable[..., None], producers: int, count: int) -> tuple[float, list[float]]:
    """Seconds from the start signal to the last event at a subscriber, and each event's way in seconds."""
    journal = Journal.open(folder / "journal.sqlite3")
    hub = Hub(journal)
    async with Pump(journal=journal, hub=hub, spools=folder / "spools") as pump:
        pump.serve()
        names = [f"w{i}" for i in range(producers)]
        arguments = []
        for name in names:
            path = await pump.open_epoch(name, 1, "n")
            arguments.append((name, str(path), pump.server.address, pump.server.key, count))
        children, go = await asyncio.to_thread(start, work, arguments)
        ways: list[float] = []
        seen = 0
        began = time.perf_counter()
        go.set()
        with hub.subscribe() as stream:
            async for batch in stream.batches():
                now = time.time()
                seen += len(batch)
                if work is produce_slowly:
                    ways += [now - event.timestamp for event in batch]
                if seen >= producers * count:
                    break
        took = time.perf_counter() - began
        for child in children:
            await asyncio.to_thread(child.join)
        for name in names:
            await pump.close_epoch(name, 1)
    journal.close()
    return took, ways


def journaled(scale: float) -> dict[str, float]:
    """Four workers to a subscriber, every event journaled."""
    count = int(250_000 * scale)
    with tempfile.TemporaryDirectory() as folder:
        took, _ = asyncio.run(_through(Path(folder), produce, PRODUCERS, count))
    return {"events.journaled_per_s": PRODUCERS * count / took}


def latency(scale: float) -> dict[str, float]:
    """From emit to a subscriber, after the commit, at 200/s."""
    count = int(2000 * scale)
    with tempfile.TemporaryDirectory() as folder:
        _, ways = asyncio.run(_through(Path(folder), produce_slowly, 1, count))
    ways.sort()
    return {
        "events.latency_p50_us": ways[len(ways) // 2] * 1e6,
        "events.latency_p99_us": ways[len(ways) * 99 // 100] * 1e6,
    }


def unjournaled(scale: float) -> dict[str, float]:
    """Four workers to one reader through the queue, taken and decoded, nothing kept."""
    count = int(250_000 * scale)
    receiver = Receiver()
    lock = threading.Lock()
    done = threading.Event()

    def take(offer: Offer) -> Reply:
        with lock:
            reply = _taken(receiver, offer)
            if receiver.statistics().accepted >= PRODUCERS * count:
                done.set()
            return reply

    queue = EventQueue()
    queue.handle_offers(take)
    with tempfile.TemporaryDirectory() as folder, QueueServer(queue) as server:
        arguments = []
        for i in range(PRODUCERS):
            create_folder(Path(folder) / f"w{i}")
            arguments.append((f"w{i}", str(Path(folder) / f"w{i}"), server.address, server.key, count))
        children, go = start(produce, arguments)
        began = time.perf_counter()
        go.set()
        done.wait()
        took = time.perf_counter() - began
        for child in children:
            child.join()
    return {"events.per_s": PRODUCERS * count / took}


# --- peers ------------------------------------------------------------------------------------------------------------


def manager_put(scale: float) -> dict[str, float]:
    """A Manager process of its own, one event per put."""
    count = int(5000 * scale)
    manager = SyncManager(ctx=_SPAWN)
    manager.start()
    target = manager.Queue()
    return {"peer.manager_put.per_s": _drained(target, count, manager.shutdown)}


def mp_queue(scale: float) -> dict[str, float]:
    """multiprocessing.Queue, one event per put."""
    return {"peer.mp_queue.per_s": _drained(_SPAWN.Queue(), int(50_000 * scale), lambda: None)}


def _drained(target: Any, count: int, close: Callable[[], None]) -> float:
    children, go = start(put_all, [(target, count)] * PRODUCERS)
    began = time.perf_counter()
    go.set()
    for _ in range(PRODUCERS * count):
        target.get()
    took = time.perf_counter() - began
    for child in children:
        child.join()
    close()
    return PRODUCERS * count / took


def inprocess_put(scale: float) -> dict[str, float]:
    """From a bare put on an in-process server to the event loop, at 200/s."""
    count = int(2000 * scale)

    async def measure() -> list[float]:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        with create_queue() as queue:
            queue._wake = partial(_wake, loop, woken)  # noqa: SLF001 - what the pump has built in
            (child,), go = await asyncio.to_thread(start, put_slowly, [(serialize_queue(queue)[1], count)])
            ways: list[float] = []
            go.set()
            while len(ways) < count:
                await woken.wait()
                woken.clear()
                while not queue.empty():
                    ways.append(time.time() - queue.get_nowait().timestamp)
            await asyncio.to_thread(child.join)
        return ways

    ways = asyncio.run(measure())
    return {"peer.inprocess_put.latency_p50_us": statistics.median(ways) * 1e6}


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    loop.call_soon_threadsafe(woken.set)


def stdout_lines(scale: float) -> dict[str, float]:
    """Marker lines without identity through a pipe, parsed."""
    count = int(100_000 * scale)
    line = encode_unsigned(ProgressEvent("progress", "qa", "reading", 5, "module.py")).decode()
    code = f"import sys\nfor _ in range({count}): sys.stdout.write({line!r})"
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        parsed = sum(parse_marker(one) is not None for one in child.stdout)
    return {"peer.stdout.per_s": parsed / (time.perf_counter() - began)}


def pyzmq(scale: float) -> dict[str, float]:
    """PUSH/PULL with the same encoding, one event a message."""
    return _pulled("peer.pyzmq.per_s", push_zmq, scale, lambda message: decode_event(message) is not None)


def pyzmq_batched(scale: float) -> dict[str, float]:
    """The same in frames of 512 made by hand."""
    name = "peer.pyzmq_batched.per_s"
    return _pulled(name, push_zmq_batches, scale, lambda message: len(decode_events(decode_header(message).blob)))


def _pulled(name: str, push: Callable[..., None], scale: float, events_in: Callable[[bytes], int]) -> dict[str, float]:
    """Events a second from four who push to one who pulls; nothing where pyzmq is not installed."""
    if importlib.util.find_spec("zmq") is None:
        return {}
    import zmq

    count = int(250_000 * scale)
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/s"
        socket = zmq.Context().socket(zmq.PULL)
        socket.bind(address)
        children, go = start(push, [(address, count)] * PRODUCERS)
        began = time.perf_counter()
        go.set()
        seen = 0
        while seen < PRODUCERS * count:
            seen += events_in(socket.recv())
        took = time.perf_counter() - began
        go.over()
        for child in children:
            child.join()
        socket.close()
    return {name: PRODUCERS * count / took}


def push_fifo(target: Any, count: int, go: Any) -> None:
    """One event per put, encoded as ours are: its own pickling would be slower."""
    go.wait()
    for i in range(count):
        event = encode_event(ProgressEvent("progress", "qa", "reading", i % 100, "module.py"))
        target.put(event, timeout=60)


def faster_fifo(scale: float) -> dict[str, float]:
    """faster-fifo: one event per put, read in batches; left out where it is not installed."""
    if importlib.util.find_spec("faster_fifo") is None:
        return {}
    import faster_fifo as fifo

    count = int(100_000 * scale)
    target = fifo.Queue(64 * 1024 * 1024, loads=bytes, dumps=bytes)
    children, go = start(push_fifo, [(target, count)] * PRODUCERS)
    began = time.perf_counter()
    go.set()
    seen = 0
    while seen < PRODUCERS * count:
        seen += sum(decode_event(event) is not None for event in target.get_many(timeout=60))
    took = time.perf_counter() - began
    for child in children:
        child.join()
    return {"peer.faster_fifo.per_s": PRODUCERS * count / took}


def long(scale: float) -> dict[str, float]:
    """10⁴ to 10⁷ events through the journal: events a second, and the memory of supervisor and workers, each time."""
    import psutil

    found: dict[str, float] = {}
    for power in (4, 5, 6, 7):
        total = int(10**power * scale)
        with tempfile.TemporaryDirectory() as folder:
            took, peaks = asyncio.run(_watched(Path(folder), total // PRODUCERS, psutil))
        found[f"events.long_1e{power}_per_s"] = total / took
        found[f"events.long_1e{power}_supervisor_mb"] = peaks[0]
        found[f"events.long_1e{power}_worker_mb"] = peaks[1]
    return found


async def _watched(folder: Path, count: int, psutil: Any) -> tuple[float, tuple[float, float]]:
    """As `_through`, with the largest memory of this process (above where it began) and of a worker, in MB."""
    me = psutil.Process()
    base, ours, theirs = me.memory_info().rss, 0, 0
    running = asyncio.ensure_future(_through(folder, produce, PRODUCERS, count))
    while not running.done():
        ours = max(ours, me.memory_info().rss - base)
        for child in me.children():
            with contextlib.suppress(psutil.Error):
                theirs = max(theirs, child.memory_info().rss)
        await asyncio.wait([running], timeout=0.2)
    took, _ = await running
    return took, (ours / 1e6, theirs / 1e6)


def in_turn(*works: Callable[[float], dict[str, float]], rounds: int = 5) -> Callable[[float], dict[str, float]]:
    """Each of them, one after the other, so many times: the medians. A machine's speed swings within seconds."""

    def measure(scale: float) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for work in works:
                for name, number in work(scale).items():
                    found.setdefault(name, []).append(number)
        return {name: statistics.median(numbers) for name, numbers in found.items()}

    return measure


LONG: dict[str, Callable[[float], dict[str, float]]] = {"events.long": long}
BENCHMARKS: dict[str, Callable[[float], dict[str, float]]] = {
    "events.emit": emit_cost,
    "events.journaled": in_turn(journaled, rounds=3),
    "events.per_s": in_turn(unjournaled, pyzmq, pyzmq_batched),
    "peer.manager_put": manager_put,
    "events.latency": in_turn(latency, inprocess_put, rounds=3),
    "peer.mp_queue": mp_queue,
    "peer.faster_fifo": faster_fifo,
    "peer.stdout": stdout_lines,
}
