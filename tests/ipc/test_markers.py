"""Marker lines: what a tool printed, however it printed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc.events import ProgressEvent
from ipc.frames import Meta, fields_of
from ipc.markers import MOST_LINE, PREFIX, Damaged, Marker, Unsigned, encode_marker, encode_unsigned, parse_marker


def test_a_signed_line_comes_back() -> None:
    """Identity and event of a marker are what was printed, bytes included."""
    event = ProgressEvent("screenshot", "qa", "scanning", 40, "häuser\n", {"n": [1, None]}, b"\x00\xff", 12.5)
    line = encode_marker("qa", 3, "nonce", Meta(9, 7, True), fields_of(event))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_marker(line) == Marker("qa", 3, "nonce", Meta(9, 7, True), fields_of(event))


def test_a_bare_line_is_progress() -> None:
    """A third-party tool's line with just phase, step, pct and detail is an event without identity."""
    found = parse_marker(b'##PROGRESS:{"phase": "qa", "step": "scanning", "pct": 40.7, "detail": "x"}\r\n')
    assert isinstance(found, Unsigned)
    assert (found.event.type, found.event.phase, found.event.step, found.event.pct) == (
        "progress",
        "qa",
        "scanning",
        40,
    )


def test_an_unsigned_line_comes_back() -> None:
    """What `encode_unsigned` prints is read as the same event."""
    event = ProgressEvent("finding", "qa", data=b"x", summary={"a": 1})
    found = parse_marker(encode_unsigned(event))
    assert isinstance(found, Unsigned)
    assert found.event == event


def test_other_lines_are_text() -> None:
    """A line that does not begin as a marker is log text."""
    assert parse_marker(b"scanning ##PROGRESS:{}") is None
    assert parse_marker(b"") is None


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b'{"pct": "x"}',
        b'{"phase": "\xff"}',
        b'{"phase": "qa", "seq": 3}',
        b'{"nonce": "n", "seq": 0}',
        b'{"nonce": "n", "seq": 4, "prev": 4}',
        b'{"nonce": "n", "seq": 99999999999999999999999}',
        b'{"pct": 1e999}',
        b"[" * 100_000,
        b'{"data": "not base64!"}',
    ],
)
def test_damage_is_named(text: bytes) -> None:
    """A damaged marker is neither an event nor an exception."""
    assert isinstance(parse_marker(PREFIX + text), Damaged)


def test_a_line_of_ten_megabytes_is_not_parsed() -> None:
    """A marker beyond the limit is refused by its size."""
    assert isinstance(parse_marker(PREFIX + b"x" * MOST_LINE), Damaged)


@given(st.binary(max_size=200))
def test_nothing_raises(rest: bytes) -> None:
    """Whatever follows the prefix, `parse_marker` returns."""
    assert parse_marker(PREFIX + rest) is not None


@given(st.text(max_size=50), st.floats(), st.integers())
def test_odd_numbers_do_no_harm(text: str, number: float, whole: int) -> None:
    """Numbers and texts at the edge of JSON are an event or damage."""
    encoded = text.encode("utf-8", "surrogatepass")
    parse_marker(PREFIX + b'{"pct": %s, "step": "%s"}' % (str(number).encode(), encoded))
    parse_marker(PREFIX + b'{"nonce": "n", "seq": %d, "prev": 0, "pct": %d}' % (whole, whole))
