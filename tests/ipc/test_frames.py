"""Frames: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.errors import EventTooLargeError, FrameError
from ipc.events import ProgressEvent
from ipc.frames import (
    MOST_EVENT,
    MOST_EVENTS,
    MOST_FRAME,
    VERSION,
    Meta,
    Numbering,
    cut,
    decode_event,
    decode_events,
    decode_header,
    encode_batch,
    encode_event,
    fields_of,
    plain,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    ProgressEvent,
    type=st.text(),
    phase=st.text(),
    step=st.text(),
    pct=st.integers(-1000, 1000),
    detail=st.text(),
    summary=st.dictionaries(st.text(), values, max_size=3),
    data=st.none() | st.binary(),
    timestamp=st.floats(0, 1e12),
)


@given(events)
def test_an_event_comes_back(event: ProgressEvent) -> None:
    """An event survives encoding; its summary as plain values."""
    back = decode_event(encode_event(event))
    event.summary = plain(event.summary)
    assert back == ProgressEvent(*[_whole(field) for field in fields_of(event)])


def _whole(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def test_a_frame_comes_back() -> None:
    """Header and events of a frame are what was put in, whether given as fields or as bytes."""
    first, second = ProgressEvent("finding", "qa"), ProgressEvent("progress", "qa", "scanning", 3)
    data = encode_batch(
        "qa", 7, "n", [(1, 0, True), (2, 1, False)], {("qa", "finding")}, [encode_event(first), fields_of(second)]
    )
    frame = decode_header(data)
    assert (frame.worker, frame.epoch, frame.nonce) == ("qa", 7, "n")
    assert list(frame.metas) == [Meta(1, 0, True), Meta(2, 1, False)]
    assert decode_events(frame.blob) == [first, second]
    assert decode_events(cut(frame.blob, [1])) == [second]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=12))
def test_any_names_come_back_from_sections(metas: list[tuple[int, int, bool]]) -> None:
    """Sections say of each event what was said of it alone, also of a frame with holes or of nonsense."""
    numbering = Numbering.of(metas)
    assert list(numbering) == metas
    assert list(numbering.seqs()) == [seq for seq, _, _ in metas]
    assert len(numbering) == len(metas)


def test_without_holes_one_section_is_enough() -> None:
    """What an emitter usually sends costs one section, however many critical events are in it."""
    metas = [(5, 3, False), (6, 3, True), (7, 6, True), (8, 7, False)]
    assert Numbering.of(metas).sections == [(5, 4, 3, [1, 2])]


def test_the_largest_screenshot_fits() -> None:
    """2 MB of screenshot travel; beyond the limit the refusal names it."""
    event = ProgressEvent("screenshot", data=bytes(2_000_000))
    frame = encode_batch("qa", 1, "n", [(1, 0, True)], [("", "screenshot")], [encode_event(event)])
    assert decode_events(decode_header(frame).blob) == [event]
    with pytest.raises(EventTooLargeError, match=f"{MOST_EVENT:,}"):
        encode_event(ProgressEvent("screenshot", data=bytes(MOST_EVENT)))


def test_another_version_is_named() -> None:
    """A frame of another version is refused by its number."""
    data = msgspec.msgpack.encode((VERSION + 1, "qa", 1, "n", [(1, 1, 0, [0])], [], b"\x90", "more"))
    with pytest.raises(FrameError, match=f"version {VERSION + 1}"):
        decode_header(data)


@pytest.mark.parametrize(
    "header",
    [
        (VERSION, "qa", 1, "n", [], [], b"\x90"),
        (VERSION, "qa", 1, "n", [(1, 1, 0, [0])], [], b"\x90"),
        (VERSION, "qa", 1, "n", [(1, 2, 0, [])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 0, 0, []), (1, 1, 0, [])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, -1, 0, []), (1, 2, 0, [])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(0, 1, 0, [0])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 1, 1, [0])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(2, 1, -1, [0])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 1, 0, [1])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 1, 0, [-1])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 2, 0, [1, 0])], [], b"\x92\xc0\xc0"),
        (VERSION, "qa", 1, "n", [(1, MOST_EVENTS + 1, 0, [])], [], b"\x91\xc0"),
        (VERSION, "qa", 1, "n", [(1, 1, 0, [0])], [], b"\xc1"),
        (VERSION, 5, 1, "n", [(1, 1, 0, [0])], [], b"\x91\xc0"),
    ],
)
def test_damaged_headers_are_refused(header: tuple[Any, ...]) -> None:
    """Wrong counts, numbers, types and blobs are a FrameError."""
    with pytest.raises(FrameError):
        decode_header(msgspec.msgpack.encode(header))


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    """Whatever the bytes, decoding gives a frame or a FrameError."""
    with suppress(FrameError):
        decode_header(data)
    with suppress(FrameError):
        decode_events(data)


def test_an_enormous_frame_is_refused_unread() -> None:
    """A frame beyond the limit is refused by its size."""
    with pytest.raises(FrameError, match="at most"):
        decode_header(bytes(MOST_FRAME + 1))


def test_what_json_cannot_hold_becomes_text() -> None:
    """NaN, huge integers, bytes, sets and objects are text, so that both transports carry the same."""
    found = plain(
        {"nan": math.nan, 1: 1 << 70, "bytes": b"\xff", "set": {2, 1}, "object": ValueError("x"), "odd": "\ud800"}
    )
    assert found == {"nan": "nan", "1": str(1 << 70), "bytes": "\\xff", "set": [1, 2], "object": "x", "odd": "?"}
