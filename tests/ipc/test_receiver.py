"""The receiving side of tools' events: once each, and what is lost on the way costs only itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipc.events import ProgressEvent
from ipc.frames import Meta, encode_batch, fields_of
from ipc.markers import encode_marker
from ipc.receiver import Receiver


def line(seq: int, prev: int, nonce: str = "n", worker: str = "tool") -> bytes:
    fields = fields_of(ProgressEvent("finding", "qa", detail=str(seq), timestamp=1.0))
    return encode_marker(worker, 1, nonce, Meta(seq, prev, True), fields).rstrip()


def frame(seqs: range) -> bytes:
    metas = [(seq, seq - 1, True) for seq in seqs]
    events = [fields_of(ProgressEvent("finding", "qa", detail=str(seq), timestamp=1.0)) for seq in seqs]
    return encode_batch("tool", 1, "n", metas, [("qa", "finding")], events)


def test_a_damaged_line_costs_only_itself() -> None:
    """Nobody sends a tool's line again, so those behind a damaged one are taken, and the gap is counted."""
    receiver = Receiver()
    lines = [line(1, 0), line(2, 1)[:40], line(3, 2), line(4, 3), line(3, 2)]
    found = [event.detail for one in lines for event in receiver.line(one) or []]
    assert found == ["1", "3", "4"]
    statistics = receiver.statistics()
    assert (statistics.lost, statistics.damaged, statistics.duplicates, statistics.missed) == (1, 1, 1, 1)


def test_a_frame_behind_a_gap_is_asked_for_again() -> None:
    """By queue the tool is told from where to send again, and nothing behind the gap is taken meanwhile."""
    receiver = Receiver()
    assert [e.detail for e in receiver.frame(frame(range(1, 3))).events] == ["1", "2"]
    behind = receiver.frame(frame(range(4, 6)))
    assert (behind.events, behind.durable, behind.gap) == ([], 2, 2)
    assert [e.detail for e in receiver.frame(frame(range(2, 6))).events] == ["3", "4", "5"]


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 6), st.sampled_from(["n", "other"]), st.booleans()), max_size=30
    )
)
def test_no_event_comes_twice(sent: list[tuple[int, int, str, bool]]) -> None:
    """Whatever lines and frames come in whatever order, an event is given out once, and the seqs only grow."""
    receiver = Receiver()
    found: list[int] = []
    for seq, prev, nonce, by_queue in sent:
        if by_queue:
            events = receiver.frame(frame(range(seq, seq + 2))).events
        else:
            events = receiver.line(line(seq, min(prev, seq - 1), nonce)) or []
        found += [int(event.detail) for event in events]
    assert found == sorted(set(found))
