"""The receiving side where there is no journal: events of tools, once each, whichever way they came.

Pure. A tool's emitter makes up its own identity; the first nonce seen for it is the one that counts. Taking an event
here is all the durability there is, so what was accepted is acknowledged at once. Nobody acknowledges a tool's lines,
so nobody sends one again: a line behind a gap is accepted, and the gap counted. Lines without an identity are accepted
as the reader's own until the first signed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .events import ProgressEvent
from .frames import Frame, cut, decode_events, decode_header
from .markers import Damaged, Marker, Unsigned, parse_marker
from .sequence import Marks, judge_frame


@dataclass(frozen=True, slots=True)
class Received:
    """New events, in order, and what their emitter is told: everything up to `durable` is here.

    `whole` is false when there was no room for all of it.
    """

    events: Sequence[ProgressEvent]
    durable: int
    gap: int | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverStatistics:
    """What came that was not new, or not right; `lost` counts places before which a line is missing for good."""

    accepted: int
    lost: int
    duplicates: int
    late: int
    missed: int
    damaged: int
    unsigned: int
    refused: int


@dataclass(slots=True)
class _Emitter:
    nonce: str
    marks: Marks


class Receiver:
    """Judges frames and marker lines of any number of emitters. Not thread-safe."""

    def __init__(self) -> None:
        self._emitters: dict[tuple[str, int], _Emitter] = {}
        self._signed = False
        self._accepted = self._duplicates = self._late = self._lost = 0
        self._damaged = self._unsigned = self._refused = 0

    def frame(self, data: bytes, *, room: int | None = None) -> Received:
        """What of a frame is new; at most `room` events are looked at. FrameError for bytes that are no frame."""
        frame = decode_header(data)
        self._signed = True
        return self._judge(frame, room)

    def durable(self, worker: str, epoch: int) -> int:
        """Up to which seq this emitter's events are here."""
        known = self._emitters.get((worker, epoch))
        return 0 if known is None else known.marks.seq

    def line(self, line: bytes) -> list[ProgressEvent] | None:
        """What of a line of stdout is new; None if it is log text. A damaged marker is counted, and text."""
        found = parse_marker(line)
        if isinstance(found, Damaged):
            self._damaged += 1
            return None
        if isinstance(found, Unsigned):
            if self._signed:
                self._unsigned += 1
                return None
            self._accepted += 1
            return [found.event]
        if isinstance(found, Marker):
            self._signed = True
            known = self._known(found.worker, found.epoch, found.nonce)
            if known is None:
                return []
            judgement = judge_frame(known.marks, [found.meta], salvage=True)
            self._lost += len(judgement.lost)
            self._take(known, judgement.marks, len(judgement.accepted), judgement.duplicates, judgement.late)
            return [found.event] if judgement.accepted else []
        return None

    def statistics(self) -> ReceiverStatistics:
        return ReceiverStatistics(
            accepted=self._accepted,
            lost=self._lost,
            duplicates=self._duplicates,
            late=self._late,
            missed=sum(e.marks.missed for e in self._emitters.values()),
            damaged=self._damaged,
            unsigned=self._unsigned,
            refused=self._refused,
        )

    def _judge(self, frame: Frame, room: int | None) -> Received:
        known = self._known(frame.worker, frame.epoch, frame.nonce)
        if known is None:
            return Received((), 0)
        metas = frame.metas if room is None else frame.metas[:room]
        judgement = judge_frame(known.marks, metas)
        events: list[ProgressEvent] = []
        if judgement.accepted:
            all_of_it = len(judgement.accepted) == len(frame.metas)
            events = decode_events(frame.blob if all_of_it else cut(frame.blob, judgement.accepted))
        self._take(known, judgement.marks, len(judgement.accepted), judgement.duplicates, judgement.late)
        gap = known.marks.critical if judgement.gap else None
        return Received(events, known.marks.seq, gap, whole=len(metas) == len(frame.metas))

    def _known(self, worker: str, epoch: int, nonce: str) -> _Emitter | None:
        known = self._emitters.setdefault((worker, epoch), _Emitter(nonce, Marks()))
        if known.nonce != nonce:
            self._refused += 1
            return None
        return known

    def _take(self, known: _Emitter, marks: Marks, accepted: int, duplicates: int, late: int) -> None:
        known.marks = marks
        self._accepted += accepted
        self._duplicates += duplicates
        self._late += late
