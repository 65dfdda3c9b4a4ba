"""The emitter: instant for its caller, exact towards whoever listens, in every mode."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

import pytest

from ipc.control import Ack
from ipc.emitter import Emitter
from ipc.errors import EventTooLargeError, SpoolFullError
from ipc.events import ProgressEvent
from ipc.frames import MOST_EVENT, decode_header
from ipc.markers import Marker, Unsigned, parse_marker
from ipc.queue import KEY_VARIABLE, EventQueue, Offer, QueueServer, Reply, create_queue, serialize_queue
from ipc.receiver import Receiver
from ipc.spool import Record, Spool, create_folder, read_last, read_spool
from supervisor import tally
from tests.systems import hold, let_go


class Side:
    """A receiving side without a journal: what it takes is durable when it says so."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.events: list[ProgressEvent] = []
        self.queue = EventQueue(1000)
        self.queue.handle_offers(self.answer)
        self.server = QueueServer(self.queue)
        self.server.start()
        self.offers = 0
        self.verdict: Callable[[Offer], Reply | None] = lambda _: None

    def answer(self, offer: Offer) -> Reply:
        self.offers += bool(offer.frame)
        said = self.verdict(offer)
        if said is not None:
            return said
        if offer.frame:
            received = self.receiver.frame(offer.frame)
            self.events += received.events
            return Reply("taken", received.durable, received.durable, 1, received.gap)
        durable = self.receiver.durable(offer.worker, offer.epoch)
        return Reply("taken", durable, durable)

    def read_line(self, line: bytes) -> None:
        self.events += self.receiver.line(line) or []


@pytest.fixture
def side() -> Iterator[Side]:
    one = Side()
    yield one
    one.server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_folder(tmp_path / "qa-1")
    return tmp_path / "qa-1"


@pytest.fixture
def pipe() -> Iterator[tuple[int, BinaryIO]]:
    """The two ends of a marker pipe, closed only after the emitters."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as lines:
        yield write, lines
    os.close(write)


@pytest.fixture
def make(pipe: tuple[int, BinaryIO], side: Side, folder: Path) -> Iterator[Callable[..., Emitter]]:
    made: list[Emitter] = []

    def make_one(**changes: Any) -> Emitter:
        options: dict[str, Any] = {
            "worker": "qa",
            "epoch": 1,
            "nonce": "n",
            "folder": folder,
            "address": side.server.address,
            "key": side.server.key,
            "marker_fd": -1,
            "mode": "queue",
        }
        made.append(Emitter.for_worker(**{**options, **changes}))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_events_arrive_once_and_in_order(side: Side, make: Callable[..., Emitter], folder: Path) -> None:
    """Everything emitted arrives in order; criticals are in the spool first, and the last seq is on disk."""
    emitter = make(coalesce=False)
    for i in range(2000):
        emitter.emit("qa", f"s{i % 4}", i % 100, str(i), type="progress" if i % 2 else "log_entry")
    assert emitter.drain(10)
    assert [event.detail for event in side.events] == [str(i) for i in range(2000)]
    assert read_last(folder) == 2000
    assert [r.seq for r in read_spool(folder) if isinstance(r, Record)] == list(range(1, 2001, 2))
    statistics = emitter.statistics()
    assert (statistics.given, statistics.durable, statistics.waiting) == (2000, 2000, 0)


@pytest.mark.parametrize("how", ["begin", "emit", "switch"])
def test_one_that_was_not_begun_connects_when_there_is_a_reason(
    side: Side, make: Callable[..., Emitter], how: str
) -> None:
    """Being made starts no thread; being told to begin, an event or an order does, and events arrive as ever."""

    def threads() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate() if thread not in before)

    before = threading.enumerate()
    emitter = make(begins=False)
    assert threads() == []
    match how:
        case "begin":
            emitter.begin()
            emitter.begin()
        case "switch":
            emitter.switch("queue", "as told")
        case _:
            emitter.emit("qa", "x", detail="first")
    assert [name for name in threads() if name in ("ipc-feeder", "ipc-watcher")] == ["ipc-feeder", "ipc-watcher"]
    until(lambda: emitter.mode == "queue")
    emitter.emit("qa", "x", detail="last")
    assert emitter.drain(10)
    assert [event.detail for event in side.events][-1] == "last"


def test_one_that_never_began_is_closed_without_a_thread(make: Callable[..., Emitter]) -> None:
    """Nothing is sent by being closed."""
    before = threading.enumerate()
    make(begins=False).close()
    assert [thread for thread in threading.enumerate() if thread not in before] == []


def test_a_starting_step_is_critical_when_it_is_new(make: Callable[..., Emitter], folder: Path) -> None:
    """The first of a starting step, done and error are spooled; the same starting step again is not."""
    emitter = make()
    for step in ("scanning", "scanning", "reading", "scanning", "analyzing", "scanning", "done"):
        emitter.emit("qa", step)
    emitter.emit("developer", "scanning")
    found = [r for r in read_spool(folder) if isinstance(r, Record)]
    assert [(r.seq, r.prev) for r in found] == [(1, 0), (5, 1), (6, 5), (7, 6), (8, 7)]


def test_more_of_the_same_is_looked_at_all_the_same(side: Side, make: Callable[..., Emitter], folder: Path) -> None:
    """What differs from the progress before it in anything that matters is taken for what it is."""
    emitter = make(coalesce=False)
    for _ in range(2):
        emitter.emit("qa", "reading", 1, "plain")
        emitter.emit("qa", "reading", 2, "with", summary={"n": 1})
        emitter.emit("qa", "reading", 3, "bytes", data=b"x")
        emitter.emit("qa", "reading", 4, "y" * 5000)
        emitter.emit("qa", "reading", True, "pct")
        emitter.emit("qa", "reading", 5, 7)  # type: ignore[arg-type]
        emitter.emit("qa", "reading", 6, "critical", type="finding")
        emitter.emit("qa", "scanning", 7, "starts")
        emitter.emit("qa", "scanning", 7, "again")
        emitter.emit("qa", "reading", 8, "plain again")
    with pytest.raises(EventTooLargeError):
        emitter.emit("qa", "reading", 9, "z" * MOST_EVENT)
    assert emitter.drain(10)
    seen = [(e.type, e.step, e.pct, e.detail[:8], dict(e.summary), e.data) for e in side.events]
    assert seen[:10] == seen[10:]
    assert [one[3] for one in seen[:10]] == [
        "plain", "with", "bytes", "yyyyyyyy", "pct", "7", "critical", "starts", "again", "plain ag"
    ]  # fmt: skip
    assert seen[1][4] == {"n": 1}
    assert seen[2][5] == b"x"
    assert seen[4][2] == 1
    assert [type(e.pct) for e in side.events] == [int] * 20
    assert [r.seq for r in read_spool(folder) if isinstance(r, Record)] == [7, 8, 17]
    emitter.close()
    emitter._gathered.lot.phase, emitter._gathered.lot.step = "qa", "reading"  # as if it had come just before
    with pytest.raises(RuntimeError, match="closed"):
        emitter.emit("qa", "reading")


def _fill(emitter: Emitter) -> int:
    """Emit until the spool is full; how many it took."""
    for taken in range(100_000):
        try:
            assert emitter.emit("qa", "x", type="finding", detail="x" * 100) == taken + 1
        except SpoolFullError:
            return taken
    pytest.fail("it took everything")


def test_what_was_refused_takes_no_seq(make: Callable[..., Emitter], folder: Path, side: Side) -> None:
    """An event too large, or one that the full spool refuses, raises at once and leaves no hole."""
    emitter = make(spool=Spool.open(folder, quota=2000))
    side.verdict = lambda _: Reply("full")
    with pytest.raises(EventTooLargeError):
        emitter.emit("qa", "x", type="screenshot", data=bytes(MOST_EVENT))
    taken = _fill(emitter)
    assert emitter.emit("qa", "reading") == taken + 1
    side.verdict = lambda _: None
    assert emitter.drain(10)
    assert len(side.events) == taken + 1
    assert emitter.statistics().refused == 1


def test_a_tool_that_nobody_reads_keeps_no_more_than_its_quota(
    side: Side, pipe: tuple[int, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a spool critical events wait in memory up to a limit; more are refused, counted, and get no seq."""
    monkeypatch.setattr("ipc.emitter.QUOTA", 300_000)
    write, lines = pipe
    tool = Emitter(
        worker="tool", epoch=1, nonce="n", spool=None, address="", key=b"", marker_fd=write, mode="stdout", acked=False
    )
    taken = _fill(tool)
    assert 300 < taken < 2000
    assert tool.emit("qa", "reading") == taken + 1  # progress is bounded by itself
    assert tool.statistics().refused == 1
    for _ in range(taken + 1):
        side.read_line(lines.readline().rstrip())
    assert tool.drain(10)
    assert tool.emit("qa", "x", type="finding") == taken + 2
    side.read_line(lines.readline().rstrip())
    assert tool.drain(10)
    assert len(side.events) == taken + 2
    tool.close()


def test_pressure_coalesces_never_across_a_critical_event(side: Side, make: Callable[..., Emitter]) -> None:
    """While nothing is taken, progress shrinks to the latest per step between critical events, and is counted."""
    release = threading.Event()
    side.verdict = lambda _: None if release.is_set() else Reply("full")
    emitter = make()
    until(lambda: side.offers > 0 or emitter.mode == "queue")
    for i in range(20_000):
        emitter.emit("qa", f"s{i % 3}", detail=str(i))
        if i % 1000 == 0:
            emitter.emit("qa", "x", type="finding", detail=str(i))
    release.set()
    assert emitter.drain(10)
    statistics = emitter.statistics()
    assert statistics.coalesced > 10_000
    assert len(side.events) + statistics.coalesced + statistics.dropped == statistics.given
    details = [int(event.detail) for event in side.events]
    assert details == sorted(details)
    assert details[-1] == 19_999
    assert [e.detail for e in side.events if e.type == "finding"] == [str(i) for i in range(0, 20_000, 1000)]
    for boundary in range(1000, 20_000, 1000):  # the newest of each step before each critical event is there
        assert {boundary - 1, boundary - 2} <= set(details)


def test_the_oldest_progress_goes_first(side: Side, make: Callable[..., Emitter]) -> None:
    """With ever new steps and nobody to take them, memory stays bounded: the oldest go, the newest arrives."""
    release = threading.Event()
    side.verdict = lambda _: None if release.is_set() else Reply("full")
    emitter = make()
    for i in range(30_000):
        emitter.emit("qa", f"step {i}", detail=str(i))
    assert emitter.statistics().waiting < 10_000  # one part in the feeder's hands, one still gathering
    release.set()
    assert emitter.drain(10)
    assert side.events[-1].detail == "29999"
    assert emitter.statistics().dropped + len(side.events) == 30_000


def test_without_credits_nothing_is_offered(side: Side, make: Callable[..., Emitter]) -> None:
    """Told that there is no room for more, an emitter asks with empty offers, and sends when there is some again."""
    frames: list[int] = []
    asked: list[Offer] = []
    room = threading.Event()

    def answer(offer: Offer) -> Reply | None:
        if offer.frame:
            frames.append(len(decode_header(offer.frame).metas))
        elif frames and not room.is_set():
            asked.append(offer)
        if room.is_set():
            return None
        if offer.frame:
            side.events += side.receiver.frame(offer.frame).events
        durable = side.receiver.durable("qa", 1)
        return Reply("taken", durable, durable, 0)

    side.verdict = answer
    emitter = make()
    emitter.emit("qa", "x", type="finding", detail="0")
    until(lambda: len(frames) == 1)
    for i in range(1, 5):
        emitter.emit("qa", "x", type="finding", detail=str(i))
    until(lambda: len(asked) > 3)
    assert frames == [1]
    room.set()
    assert emitter.drain(10)
    assert frames == [1, 4]
    assert [e.detail for e in side.events] == [str(i) for i in range(5)]


def test_a_gap_is_sent_again(side: Side, make: Callable[..., Emitter]) -> None:
    """A frame that the other side lost after taking it is sent again when it says Gap, or after silence."""
    lost: list[Offer] = []

    def lose(offer: Offer) -> Reply | None:
        if offer.frame and len(lost) < 2:
            lost.append(offer)
            return Reply("taken", 0, 0, 1)
        return None

    side.verdict = lose
    emitter = make()
    for i in range(10):
        emitter.emit("qa", "x", type="finding", detail=str(i))
        until(lambda i=i: emitter.statistics().sent > min(i, 2))  # type: ignore[misc]
    assert emitter.drain(10)
    assert [e.detail for e in side.events] == [str(i) for i in range(10)]
    assert len(lost) == 2
    assert emitter.statistics().resent >= 2


def test_a_broken_queue_falls_back_and_returns(
    side: Side,
    make: Callable[..., Emitter],
    pipe: tuple[int, BinaryIO],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """ERROR for the cause, WARNING for the fallback, INFO for the switch; nothing lost or doubled, and a way back."""
    caplog.set_level(logging.INFO, "ipc.emitter")
    write, lines = pipe
    emitter = make(marker_fd=write)
    emitter.emit("qa", "x", type="finding", detail="0")
    assert emitter.drain(10)
    side.server.close()
    emitter.emit("qa", "x", type="finding", detail="1")
    side.read_line(lines.readline())
    emitter.ack(Ack(durable=2))
    assert emitter.drain(10)
    levels = [r.levelno for r in caplog.records if r.levelno > logging.DEBUG]
    assert levels[-3:] == [logging.ERROR, logging.WARNING, logging.INFO]
    side.server.start()
    emitter.redirect(side.server.address, side.server.key)
    until(lambda: emitter.mode == "queue")
    emitter.emit("qa", "x", type="finding", detail="2")
    assert emitter.drain(10)
    assert [e.detail for e in side.events] == ["0", "1", "2"]
    statistics = emitter.statistics()
    assert (statistics.fallbacks, statistics.returns) == (1, 1)


def test_without_fallback_events_wait(side: Side, make: Callable[..., Emitter]) -> None:
    """Where falling back is off, critical events wait in the spool, the owner is told, and they arrive later."""
    told: list[str] = []
    address, key = side.server.address, side.server.key
    side.server.close()
    emitter = make(fallback=False, address=address, key=key, on_trouble=lambda what, _text: told.append(what))
    emitter.emit("qa", "x", type="finding")
    until(lambda: told == ["queue"])
    assert emitter.mode == "spool-only"
    side.server.start()
    emitter.redirect(side.server.address, side.server.key)
    assert emitter.drain(10)
    assert len(side.events) == 1


def test_a_switch_is_obeyed(side: Side, make: Callable[..., Emitter], pipe: tuple[int, BinaryIO]) -> None:
    """A rollback moves everything to stdout at once, and a later switch moves it back."""
    write, lines = pipe
    emitter = make(marker_fd=write)
    emitter.switch("stdout", "rollback")
    until(lambda: emitter.mode == "stdout")
    emitter.emit("qa", "x", type="finding", detail="0")
    side.read_line(lines.readline())
    emitter.ack(Ack(durable=1))
    emitter.switch("queue", "advance")
    emitter.emit("qa", "x", type="finding", detail="1")
    assert emitter.drain(10)
    assert emitter.mode == "queue"
    assert [e.detail for e in side.events] == ["0", "1"]


def test_a_switch_to_a_queue_that_is_broken_stays_on_stdout(
    side: Side, make: Callable[..., Emitter], pipe: tuple[int, BinaryIO]
) -> None:
    """The switch becomes a fallback: events go on by stdout, and to the queue as soon as it answers."""
    write, lines = pipe
    emitter = make(marker_fd=write, mode="stdout")
    until(lambda: emitter.mode == "stdout")
    side.server.close()
    emitter.switch("queue", "drawn")
    until(lambda: emitter.statistics().fallbacks == 1)
    emitter.emit("qa", "x", type="finding", detail="0")
    side.read_line(lines.readline())
    emitter.ack(Ack(durable=1))
    assert emitter.drain(10)
    side.server.start()
    emitter.redirect(side.server.address, side.server.key)
    until(lambda: emitter.mode == "queue")
    assert [e.detail for e in side.events] == ["0"]


def test_a_held_pipe_holds_nobody(side: Side, make: Callable[..., Emitter], pipe: tuple[int, BinaryIO]) -> None:
    """While nobody reads the marker pipe, emit returns, switches are heard, and all arrives by the other way."""
    emitter = make(marker_fd=pipe[0], mode="stdout")
    for i in range(3000):
        emitter.emit("qa", "x", type="finding", detail="x" * 100 + str(i))
    until(lambda: emitter.statistics().sent > 0)
    emitter.switch("queue", "go on")
    assert emitter.drain(10)
    assert [e.detail[100:] for e in side.events] == [str(i) for i in range(3000)]


OWNER = (
    "import sys; from ipc.queue import *; q = create_queue(); print(q.server.address, q.server.key, flush=True)\n"
    "sys.stdin.read(); print(*[q.get_nowait().detail for _ in range(q.qsize())])"
)


def times_of_emits(emitter: Emitter, criticals: int = 2000) -> dict[str, list[float]]:
    """Seconds that each of many emits took, by kind, while the feeder does what it does."""
    took: dict[str, list[float]] = {"progress": [], "finding": []}
    for number in range(criticals * 5):
        kind = "progress" if number % 5 else "finding"
        began = time.perf_counter()
        emitter.emit("qa", "reading", 5, "a detail as usual", type=kind)
        took[kind].append(time.perf_counter() - began)
        if not number % 500:
            time.sleep(0.01)  # the feeder's turn: what it does then is what could hold the next ones up
    return took


@pytest.mark.parametrize("state", ["queue", "full", "stdout held", "spool-only", "stopped"])
def test_emit_takes_microseconds_in_every_state(
    state: str,
    side: Side,
    make: Callable[..., Emitter],
    pipe: tuple[int, BinaryIO],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The middle one of thousands, of progress and of critical events: no load of the machine moves that by much."""
    monkeypatch.setattr("ipc.emitter.ANSWER_WITHIN", 0.3)
    stopped = None
    if state == "stopped":
        stopped = subprocess.Popen(
            [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert stopped.stdout is not None
        address, key = stopped.stdout.readline().split()
        emitter = make(address=address, key=key, marker_fd=pipe[0])
        until(lambda: emitter.mode == "queue")
        hold(stopped.pid)
    elif state == "stdout held":
        emitter = make(marker_fd=pipe[0], mode="stdout")
        until(lambda: emitter.mode == "stdout")
    elif state == "spool-only":
        emitter = make(address="", key="", fallback=False)
        until(lambda: emitter.statistics().fallbacks > 0)
    else:
        side.verdict = lambda _: Reply("full") if state == "full" else None
        emitter = make()
        until(lambda: emitter.mode == "queue")
    try:
        took = times_of_emits(emitter)
        if stopped is not None:  # what began as a hanging call goes on as a held pipe
            until(lambda: emitter.statistics().fallbacks == 1)
            for kind, more in times_of_emits(emitter).items():
                took[kind] += more
    finally:
        if stopped is not None:
            stopped.kill()
            stopped.communicate()
    assert {kind: median(found) < 200e-6 for kind, found in took.items()} == {"progress": True, "finding": True}


def test_a_hung_call_is_given_up(
    make: Callable[..., Emitter], pipe: tuple[int, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer costs the feeder, not the caller: stdout goes on, the old feeder does not."""
    monkeypatch.setattr("ipc.emitter.ANSWER_WITHIN", 0.4)
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    address, key = owner.stdout.readline().split()
    write, lines = pipe
    try:
        emitter = make(address=address, key=key, marker_fd=write)
        emitter.emit("qa", "x", type="finding", detail="0")
        assert emitter.drain(10)
        hold(owner.pid)
        for i in range(1, 4):
            emitter.emit("qa", "x", type="finding", detail=str(i))
        found = [parse_marker(lines.readline()) for _ in range(3)]
        assert [m.event.detail for m in found if isinstance(m, Marker)] == ["1", "2", "3"]
        assert emitter.statistics().fallbacks == 1
        let_go(owner.pid)
        until(lambda: emitter.mode == "queue")
        emitter.emit("qa", "x", type="finding", detail="4")
        assert emitter.drain(10)  # what no ack had come for was offered again; so was, late, what hung
        said, _ = owner.communicate("", timeout=15)
        assert said.split() == ["0", "1", "2", "3", "4"]
    finally:
        owner.kill()
        owner.communicate()


def test_odd_events_do_not_stop_the_feeder(side: Side, make: Callable[..., Emitter]) -> None:
    """Lone surrogates, floats for pct, objects in a summary: what can be shown of them arrives."""
    emitter = make()
    emitter.emit("qa", "odd \ud800", 1.5, detail=7, summary={"x": object, "y": float("nan")})  # type: ignore[arg-type]
    emitter.emit("q\udfffa", "plain \ud800")
    emitter.emit_event(ProgressEvent("finding", "qa", pct=True, timestamp=5))
    emitter.emit("qa", "last")
    assert emitter.drain(10)
    assert [e.step for e in side.events] == ["odd ?", "plain ?", "", "last"]
    assert side.events[0].pct == 1


def test_a_closed_epoch_is_told(side: Side, make: Callable[..., Emitter]) -> None:
    """Where the epoch is not known (any more) nothing is sent, and the owner is told."""
    told: list[str] = []
    side.verdict = lambda _: Reply("closed")
    emitter = make(on_trouble=lambda what, _text: told.append(what))
    emitter.emit("qa", "x")
    until(lambda: told == ["epoch"])
    assert emitter.mode == "spool-only"


TOOL = """
from ipc import Emitter
emitter = Emitter.from_env()
emitter.emit("qa", "scanning", 1)
emitter.emit("qa", "shot", type="screenshot", data=b"x" * 2_000_000)
emitter.emit("qa", "done", 100, "häuser")
"""


def run_tool(environ: dict[str, str]) -> bytes:
    clean = {k: v for k, v in os.environ.items() if k not in (KEY_VARIABLE, "QUEUE_IPC_MODE")}
    done = subprocess.run([sys.executable, "-c", TOOL], env={**clean, **environ}, stdout=subprocess.PIPE, check=True)
    return done.stdout


def test_a_tool_alone_prints_markers() -> None:
    """Three lines are enough for a tool author; without a supervisor around it there are markers on stdout."""
    receiver = Receiver()
    events = [event for line in run_tool({}).splitlines() for event in receiver.line(line) or []]
    assert [(e.step, e.pct, e.detail) for e in events] == [
        ("scanning", 1, ""),
        ("shot", 0, ""),
        ("done", 100, "häuser"),
    ]
    assert events[1].data == b"x" * 2_000_000


def test_a_tool_with_a_queue_uses_it() -> None:
    """With a queue in the environment events arrive there once, and not on stdout; rolled back, only there."""
    with create_queue() as queue:
        key = serialize_queue(queue)[1]
        assert run_tool({KEY_VARIABLE: key}) == b""
        assert [queue.get_nowait().step for _ in range(3)] == ["scanning", "shot", "done"]
        assert queue.empty()
        assert run_tool({KEY_VARIABLE: key, "QUEUE_IPC_MODE": "stdout"}).count(b"##PROGRESS:") == 3
        assert queue.empty()


def test_a_tool_with_a_damaged_key_prints() -> None:
    """A key that cannot be used is no reason to lose events."""
    assert run_tool({KEY_VARIABLE: "nonsense"}).count(b"##PROGRESS:") == 3


def test_a_tool_whose_queue_is_gone_prints() -> None:
    """When nobody answers at the address, the tool falls back to stdout."""
    queue = create_queue()
    key = serialize_queue(queue)[1]
    queue.close()
    assert run_tool({KEY_VARIABLE: key}).count(b"##PROGRESS:") == 3


def test_unsigned_lines_count_until_the_first_signed_one() -> None:
    """A third-party tool's bare lines are events; once signed lines come, bare ones are text."""
    receiver = Receiver()
    bare = b'##PROGRESS:{"phase": "qa", "step": "scanning"}'
    assert isinstance(parse_marker(bare), Unsigned)
    assert [e.step for e in receiver.line(bare) or []] == ["scanning"]
    for line in run_tool({}).splitlines():
        receiver.line(line)
    assert receiver.line(bare) is None
    assert receiver.statistics().unsigned == 1


def test_frames_name_their_emitter(side: Side, make: Callable[..., Emitter]) -> None:
    """A frame carries the worker, epoch and nonce that the emitter was given."""
    frames: list[bytes] = []
    side.verdict = lambda offer: frames.append(offer.frame)
    emitter = make(nonce="secret")
    emitter.emit("qa", "x")
    assert emitter.drain(10)
    frame = decode_header(next(f for f in frames if f))
    assert (frame.worker, frame.epoch, frame.nonce) == ("qa", 1, "secret")


def test_a_gap_needs_no_silence(side: Side, make: Callable[..., Emitter], monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of a gap, the feeder goes back to what was missing at once, long before its timer would."""
    monkeypatch.setattr("ipc.emitter._RESEND", (3600.0, 3600.0))
    lost: list[Offer] = []

    def lose(offer: Offer) -> Reply | None:
        if offer.frame and not lost:
            lost.append(offer)
            return Reply("taken", 0, 0, 1)
        return None

    side.verdict = lose
    emitter = make()
    emitter.emit("qa", "x", type="finding", detail="0")
    until(lambda: bool(lost))
    emitter.emit("qa", "x", type="finding", detail="1")
    assert emitter.drain(10)
    assert [e.detail for e in side.events] == ["0", "1"]
    assert emitter.statistics().resent == 2


def test_a_switch_begins_with_what_is_not_durable(
    side: Side, make: Callable[..., Emitter], pipe: tuple[int, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the queue took and did not make durable is printed at once after a switch, without waiting for a timer."""
    monkeypatch.setattr("ipc.emitter._RESEND", (3600.0, 3600.0))
    write, lines = pipe
    side.verdict = lambda _: Reply("taken", 0, 0, 1)  # received, and then lost
    emitter = make(marker_fd=write)
    for i in range(3):
        emitter.emit("qa", "x", type="finding", detail=str(i))
    until(lambda: emitter.statistics().sent == 3)
    emitter.switch("stdout", "rollback")
    found = [parse_marker(lines.readline().rstrip()) for _ in range(3)]
    assert [marker.event.detail for marker in found if isinstance(marker, Marker)] == ["0", "1", "2"]
    emitter.ack(Ack(durable=3))
    assert emitter.drain(10)


def test_uncoalesced_progress_is_bounded_too(
    side: Side, make: Callable[..., Emitter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is to be coalesced and nobody takes events, the oldest progress goes beyond a limit, counted."""
    monkeypatch.setattr("ipc.emitter._MOST_UNCOALESCED", 1000)
    side.verdict = lambda _: Reply("full")
    emitter = make(coalesce=False)
    for i in range(5000):
        emitter.emit("qa", "reading", detail=str(i))
    statistics = emitter.statistics()
    assert statistics.coalesced == 0
    assert statistics.waiting < 3000
    assert statistics.dropped > 2000
    side.verdict = lambda _: None
    assert emitter.drain(10)
    assert side.events[-1].detail == "4999"
    assert emitter.statistics().dropped + len(side.events) == 5000


def test_a_pipe_that_waits_holds_only_its_thread(
    side: Side, make: Callable[..., Emitter], pipe: tuple[int, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pipes can only be written by waiting, as on Windows, a held one leaves the feeder free to switch."""
    monkeypatch.setattr("ipc.emitter._PIPES_WAIT", True)
    write, lines = pipe
    emitter = make(marker_fd=write, mode="stdout")
    for i in range(2000):
        emitter.emit("qa", "x", type="finding", detail=f"{i} {'x' * 200}")
    emitter.switch("queue", "the pipe is held")
    assert emitter.drain(10)
    assert [e.detail.split()[0] for e in side.events] == [str(i) for i in range(2000)]
    emitter.switch("stdout", "it is read again")
    last = emitter.emit("qa", "x", type="finding", detail="last")
    for line in lines:
        found = parse_marker(line.rstrip())
        assert isinstance(found, Marker)  # whole lines, also where the switch came
        if found.meta.seq == last:
            break
    emitter.ack(Ack(durable=last))
    assert emitter.drain(10)


def test_counts_are_what_beats_carry(side: Side, make: Callable[..., Emitter]) -> None:
    """What a worker reports of its emitter are whole numbers under the names that the supervisor sums up."""
    emitter = make()
    emitter.emit("qa", "x", type="finding")
    assert emitter.drain(10)
    counts = emitter.statistics().counts()
    assert (counts["sent"], counts["coalesced"], counts["fallbacks"], counts["returns"]) == (1, 0, 0, 0)
    assert set(counts) == set(tally._EMITTERS_COUNTS)


def test_a_tool_that_prints_goes_on_printing(side: Side, pipe: tuple[int, BinaryIO]) -> None:
    """Nobody acknowledges a tool's lines, so one that fell back does not return, whatever the queue does meanwhile."""
    write, lines = pipe
    emitter = Emitter(
        worker="tool", epoch=1, nonce="n", spool=None, address="/nowhere", key=b"k" * 32, marker_fd=write, mode="queue",
        acked=False,
    )  # fmt: skip
    emitter.emit("qa", "x", type="finding", detail="0")
    side.read_line(lines.readline())
    assert emitter._probe_at is None
    emitter.emit("qa", "x", type="finding", detail="1")
    side.read_line(lines.readline())
    emitter.close()
    assert [e.detail for e in side.events] == ["0", "1"]
