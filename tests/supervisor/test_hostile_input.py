"""What a hostile or broken peer sends is refused and counted, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, managers
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.errors import QueueBrokenError
from ipc.events import ProgressEvent
from ipc.frames import MOST_FRAME, VERSION, Meta, encode_batch, fields_of
from ipc.markers import MOST_LINE, PREFIX, encode_marker
from ipc.queue import connect
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.plane import opened
from supervisor.pump import Pump
from supervisor.tally import PumpStatistics

FIELDS = fields_of(ProgressEvent("finding", "qa", detail="right", timestamp=1.0))
WRONG = ProgressEvent("finding", "qa", detail="wrong", timestamp=1.0)


def frame(worker: str = "qa", epoch: int = 1, nonce: str = "right", seq: int = 1, prev: int = 0, **more: Any) -> bytes:
    detail = more.get("detail", "wrong")
    event = fields_of(ProgressEvent("finding", "qa", detail=detail, timestamp=1.0))
    return encode_batch(worker, epoch, nonce, [(seq, prev, True)], [("qa", "finding")], [event])


def among_others(hostile: Callable[[Pump], object]) -> tuple[list[str], PumpStatistics]:
    """Let somebody be hostile, then an honest worker go on; what is in the journal, and the counts."""

    async def run(folder: Path) -> tuple[list[str], PumpStatistics]:
        journal = Journal.open(folder / "journal.sqlite3")
        async with Pump(journal=journal, hub=Hub(journal), spools=folder / "spools") as pump:
            await pump.open_epoch("qa", 1, "right")
            await pump.open_epoch("developer", 1, "its own")
            hostile(pump)
            pump._take_frames(everything=True)
            for seq in (1, 2):
                pump.queue.offer("developer", 1, frame("developer", 1, "its own", seq, seq - 1, detail=f"right {seq}"))
            pump._take_frames(everything=True)
            await pump.close_epoch("developer", 1)
            await pump.close_epoch("qa", 1)
            found = [event.detail for event in journal.read()]
            statistics = pump.statistics()
        journal.close()
        return found, statistics

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder)))


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os._exit, (3,)  # type: ignore[return-value]


BAD_FRAMES = [
    pytest.param(b"\xc1", "damaged", id="no-frame"),
    pytest.param(frame()[:-3], "damaged", id="torn"),
    pytest.param(pickle.dumps(Bomb()), "damaged", id="pickle"),
    pytest.param(msgspec.msgpack.encode((VERSION + 1, "qa", 1, "right", [], [], b"")), "damaged", id="newer-version"),
    pytest.param(frame(nonce="wrong"), "refused", id="wrong-nonce"),
    pytest.param(frame(nonce=""), "refused", id="no-nonce"),
    pytest.param(frame(epoch=2), "refused", id="another-epoch"),
    pytest.param(frame(worker="nobody"), "refused", id="unknown-worker"),
    pytest.param(frame(worker="developer"), "refused", id="in-anothers-name"),
    pytest.param(frame(seq=9, prev=8), "gap", id="from-the-future"),
]


@pytest.mark.parametrize(("data", "count"), BAD_FRAMES)
def test_a_bad_frame_is_counted_and_alone(data: bytes, count: str) -> None:
    """Nothing of it is stored, it is counted, and an honest worker's events arrive."""
    found, statistics = among_others(lambda pump: pump.queue.offer("qa", 1, data))
    assert found == ["right 1", "right 2"]
    refused = sum(counts.refused for counts in statistics.workers.values())
    gaps = sum(counts.gaps for counts in statistics.workers.values())
    assert {"damaged": statistics.damaged_frames, "refused": refused, "gap": gaps}[count] == 1


def test_seqs_that_go_backwards_are_duplicates() -> None:
    """What was accepted under a number stays; another event under the same number, or a lower one, is refused."""

    def hostile(pump: Pump) -> None:
        for seq, detail in ((1, "first"), (2, "second"), (1, "wrong"), (2, "wrong")):
            pump.queue.offer("qa", 1, frame(seq=seq, prev=seq - 1, detail=detail))

    found, statistics = among_others(hostile)
    assert sorted(found) == ["first", "right 1", "right 2", "second"]
    assert statistics.workers["qa"].duplicates == 2


def test_an_enormous_offer_is_refused_at_the_door() -> None:
    """Larger than a frame may be: an error for its sender, nothing for the inbox."""

    def hostile(pump: Pump) -> None:
        with pytest.raises(ValueError, match="at most"):
            pump.queue.offer("qa", 1, b"x" * (MOST_FRAME + 1))

    assert among_others(hostile)[0] == ["right 1", "right 2"]


LINES = [
    pytest.param(encode_marker("qa", 1, "wrong", Meta(1, 0, True), FIELDS), "refused", id="wrong-nonce"),
    pytest.param(encode_marker("qa", 2, "right", Meta(1, 0, True), FIELDS), "refused", id="another-epoch"),
    pytest.param(encode_marker("developer", 1, "its own", Meta(1, 0, True), FIELDS), "refused", id="anothers-name"),
    pytest.param(PREFIX + b'{"phase": "qa", "step": "done"}', "unsigned", id="no-nonce"),
    pytest.param(encode_marker("qa", 1, "right", Meta(1, 0, True), FIELDS)[:50], "damaged", id="torn"),
    pytest.param(
        encode_marker("qa", 1, "right", Meta(1, 0, True), FIELDS)[:50]
        + encode_marker("qa", 1, "right", Meta(2, 1, True), FIELDS),
        "damaged",
        id="interleaved",
    ),
    pytest.param(PREFIX + b'{"phase": "\xff\xfe"}', "damaged", id="not-utf-8"),
    pytest.param(PREFIX + b'{"detail": "' + b"x" * 10_000_000, "damaged", id="ten-megabytes"),
    pytest.param(PREFIX + b"[" * 100_000, "damaged", id="deeply-nested"),
]


@pytest.mark.parametrize(("line", "count"), LINES)
def test_a_bad_line_is_counted_and_alone(line: bytes, count: str) -> None:
    """Nothing of it is stored, it is counted, and an honest worker's events arrive."""
    found, statistics = among_others(lambda pump: pump.marker("qa", 1, line))
    assert found == ["right 1", "right 2"]
    assert getattr(statistics.workers["qa"], count) == 1


WORKERS = st.sampled_from(["qa", "developer", "nobody", ""])
NONCES = st.sampled_from(["right", "its own", "wrong", ""])
NUMBERS = st.one_of(st.integers(-2, 5), st.sampled_from([1 << 31, (1 << 63) - 1, 1 << 64, -(1 << 63)]))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames with anything wrong, or nothing, and plain bytes."""
    sections = draw(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.lists(NUMBERS, max_size=2)), max_size=3))
    named = sum(n for _, n, _, _ in sections if 0 < n < 10)
    blob = draw(st.one_of(st.binary(max_size=30), st.just(msgspec.msgpack.encode([FIELDS] * named))))
    header = (draw(st.sampled_from([VERSION, VERSION, 0, VERSION + 1])), draw(WORKERS), draw(NUMBERS), draw(NONCES))
    try:
        whole = msgspec.msgpack.encode((*header, sections, [("qa", "finding")], blob))
    except OverflowError:
        return draw(st.binary(max_size=60))
    cut = draw(st.integers(0, len(whole)))
    return draw(st.sampled_from([whole, whole, whole[:cut], whole[cut:]]))


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Marker lines with anything wrong, or nothing."""
    names = {"worker": WORKERS, "epoch": NUMBERS, "seq": NUMBERS, "prev": NUMBERS, "nonce": NONCES}
    found: dict[str, Any] = {name: draw(values) for name, values in names.items() if draw(st.booleans())}
    found |= {"phase": "qa", "detail": draw(st.text(max_size=5)), "critical": draw(st.booleans())}
    line = PREFIX + msgspec.json.encode(found)
    cut = draw(st.integers(0, len(line)))
    junk = draw(st.binary(max_size=8))
    return draw(st.sampled_from([line, line[:cut], line[:cut] + junk + line[cut:], junk + line, PREFIX + junk]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(frames(), lines()), max_size=12))
def test_fuzzed_input_harms_nobody(hostile: list[bytes]) -> None:
    """Whatever comes in one worker's name, another's events are there in order, and no event is there twice."""

    def send(pump: Pump) -> None:
        for data in hostile:
            if data.startswith(PREFIX[:4]):
                pump.marker("qa", 1, data)
            else:
                pump.queue.offer("qa", 1, data)

    # Whoever has guessed the other's nonce speaks for it: these are left out of the fuzzing.
    hostile = [data for data in hostile if b"its own" not in data]
    found, _ = among_others(send)
    assert [detail for detail in found if detail.startswith("right ")] == ["right 1", "right 2"]


def through_the_socket(hostile: Callable[[str, bytes], object]) -> tuple[list[str], dict[str, int]]:
    """The same with a queue that is served: a stranger has its address, and perhaps its key. Events and counters."""

    async def run(folder: Path) -> tuple[list[str], dict[str, int]]:
        async with opened(
            journal=folder / "journal.sqlite3", spools=folder / "spools", send_ack=lambda *_: None, capacity=100
        ) as plane:
            assert plane.serve()
            address, key = plane.endpoint()
            await plane.pump.open_epoch("developer", 1, "its own")
            await asyncio.to_thread(hostile, address, base64.b64decode(key))
            proxy = await asyncio.to_thread(connect, address, base64.b64decode(key))
            honest = frame("developer", 1, "its own", detail="right")
            assert (await asyncio.to_thread(proxy.call, "offer", "developer", 1, honest))[0] == "taken"
            await plane.pump.close_epoch("developer", 1)
            return [event.detail for event in plane.journal.read()], plane.counters()

    with tempfile.TemporaryDirectory(prefix="q-") as folder:
        return asyncio.run(run(Path(folder)))


def with_a_wrong_key(address: str, _key: bytes) -> None:
    for _ in range(3):
        with pytest.raises(QueueBrokenError):
            connect(address, b"x" * 32)


def with_a_pickle(address: str, key: bytes) -> None:
    proxy = connect(address, key)
    for _ in range(3):
        with pytest.raises(managers.RemoteError):
            proxy.call("try_put", Bomb())


def with_an_unknown_call(address: str, key: bytes) -> None:
    for _ in range(3):
        with connection.Client(address, authkey=key) as client, pytest.raises(managers.RemoteError):
            managers.dispatch(client, None, "shutdown")  # type: ignore[attr-defined]


def with_too_long_a_message(address: str, key: bytes) -> None:
    for _ in range(3):
        with connection.Client(address, authkey=key) as client, suppress(OSError, EOFError):
            client.send_bytes(bytes(16 * 1024 * 1024))
            client.recv_bytes()


def with_mute_sockets(address: str, _key: bytes) -> None:
    """They say nothing; one says what is no message, or no answer: what a pipe of Windows carries is a message."""
    mute = [connection.Client(address) for _ in range(3)]
    if sys.platform == "win32":
        mute[0].send_bytes(b"\xff" * 64)
    else:
        os.write(mute[0].fileno(), b"\xff" * 64)
    for one in mute:
        assert one.recv_bytes().startswith(b"#CHALLENGE#")
        with suppress(EOFError, OSError):
            assert one.recv_bytes() == b"#FAILURE#"
            pytest.fail(f"a stranger was told {one.recv_bytes()!r}")
        one.close()


def with_too_many_connections(address: str, _key: bytes) -> None:
    kept = [connection.Client(address) for _ in range(6)]
    for one in kept[3:]:
        with pytest.raises((EOFError, OSError)):
            one.recv_bytes()
    for one in kept:
        one.close()


STRANGERS = [
    pytest.param(with_a_wrong_key, "handshakes", "a client that has not its key: a wrong key", id="wrong-key"),
    pytest.param(with_mute_sockets, "handshakes", "a client that has not its key: ", id="mute"),
    pytest.param(with_a_pickle, "messages", "a message: UnpicklingError", id="pickle"),
    pytest.param(with_an_unknown_call, "messages", "a message: PermissionError", id="unknown-call"),
    pytest.param(with_too_long_a_message, "messages", "a message: OSError", id="too-long"),
    pytest.param(with_too_many_connections, "connections", "a connection: there are 3 already", id="connections"),
]


@pytest.mark.parametrize(("hostile", "kind", "text"), STRANGERS)
def test_a_stranger_at_the_socket_is_counted_told_once_and_alone(
    hostile: Callable[[str, bytes], object],
    kind: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three times refused, each counted, one warning; an honest worker's events arrive."""
    monkeypatch.setattr("ipc.queue._HANDSHAKE", 0.5)
    if kind == "connections":
        monkeypatch.setattr("ipc.queue._MOST_CONNECTIONS", 3)
    found, counters = through_the_socket(hostile)
    assert found == ["right"]
    assert {name: count for name, count in counters.items() if name.startswith("refused_")} == {
        "refused_handshakes": 0,
        "refused_messages": 0,
        "refused_connections": 0,
        f"refused_{kind}": 3,
    }
    (said,) = [record for record in caplog.records if record.name == "ipc.queue" and record.levelname == "WARNING"]
    assert text in said.message
    assert len(said.message) < 250


def test_a_worker_s_hostile_input_is_told_once_per_kind(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand refusals of one kind are one warning, which shows no more than a little of what was sent."""
    forged = encode_marker("x" * 5000, 1, "right", Meta(1, 0, True), FIELDS)

    def hostile(pump: Pump) -> None:
        for _ in range(1000):
            pump.queue.offer("qa", 1, frame(nonce="wrong"))
            pump.queue.offer("qa", 1, frame(epoch=2))
            pump.queue.offer("qa", 1, b"\xc1")
            pump._take_frames(everything=True)
            pump.marker("qa", 1, forged)
            pump.marker("qa", 1, PREFIX + b'{"phase": "' + b"x" * 5000)
            pump.marker("qa", 1, PREFIX + b'{"phase": "qa", "step": "done"}')
        for _ in range(3):
            pump.queue.offer("qa", 1, frame())

    caplog.set_level("INFO", "supervisor.pump")
    found, statistics = among_others(hostile)
    assert found == ["wrong", "right 1", "right 2"]
    counts = statistics.workers["qa"]
    assert (counts.refused, counts.damaged, counts.unsigned, counts.duplicates) == (2000, 2000, 1000, 2)
    assert statistics.workers["?"].refused == 1000
    said = [record for record in caplog.records if record.name == "supervisor.pump"]
    assert all(len(record.message) < 250 for record in said)
    told = [
        ("WARNING", "events of epoch 1 of 'qa' are refused: they are signed with a wrong nonce"),
        ("WARNING", "events of epoch 2 of 'qa' are refused: no such epoch is open"),
        ("WARNING", "a frame of 'qa' cannot be read"),
        ("WARNING", "a progress line of qa, epoch 1, is refused: it is signed as epoch 1 of 'xxx"),
        ("WARNING", "a progress line of qa cannot be read"),
        ("WARNING", "a progress line of qa without its nonce"),
        ("INFO", "events of qa came again or too late, from seq 1 on"),
    ]
    for record, (level, text) in zip(said, told, strict=True):
        assert record.levelname == level
        assert record.message.startswith(text)


def test_the_longest_line_is_bounded() -> None:
    """A line that may be read holds the largest event as base64, and no more than a few megabytes."""
    assert MOST_LINE < 8 * 1024 * 1024
