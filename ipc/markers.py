"""Events as lines on a tool's stdout, `##PROGRESS:{json}`, and what a line that was read may be.

Pure. A crew worker's own lines carry worker, epoch, seq, prev and its nonce (`Marker`); a third-party tool's may carry
just `phase`, `step`, `pct`, `detail` (`Unsigned`). Whatever else begins like a marker is `Damaged`; any other line is
log text. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .events import PROGRESS, ProgressEvent
from .frames import MOST_EVENT, Fields, Meta

PREFIX = b"##PROGRESS:"
MOST_LINE = MOST_EVENT * 4 // 3 + 64 * 1024  # bytes, so that the largest event fits as base64


@dataclass(frozen=True, slots=True)
class Marker:
    """A line that names its event in full; whether its nonce is the right one is the reader's to check."""

    worker: str
    epoch: int
    nonce: str
    meta: Meta
    fields: Fields

    @property
    def event(self) -> ProgressEvent:
        return ProgressEvent(*self.fields)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A line of a tool that knows nothing of identities. `text` is what stood before the marker."""

    event: ProgressEvent


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that looks like a marker and is none."""

    reason: str


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: str = PROGRESS
    phase: str = ""
    step: str = ""
    pct: int | float = 0
    detail: str = ""
    summary: dict[str, Any] = {}
    data: bytes | None = None
    timestamp: float | None = None
    worker: str = ""
    epoch: int = 0
    seq: int = 0
    prev: int = 0
    critical: bool = False
    nonce: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def encode_marker(worker: str, epoch: int, nonce: str, meta: Meta, fields: Fields) -> bytes:
    """One signed line, newline included."""
    type_, phase, step, pct, detail, summary, data, timestamp = fields
    line = _Line(
        type=type_,
        phase=phase,
        step=step,
        pct=pct,
        detail=detail,
        summary=summary or {},
        data=data,
        timestamp=timestamp,
        worker=worker,
        epoch=epoch,
        seq=meta.seq,
        prev=meta.prev,
        critical=meta.critical,
        nonce=nonce,
    )
    return PREFIX + _encoder.encode(line) + b"\n"


def encode_unsigned(event: ProgressEvent) -> bytes:
    """One line without an identity, newline included, as a tool may print it by hand."""
    shown: Mapping[str, Any] = {
        "type": event.type,
        "phase": event.phase,
        "step": event.step,
        "pct": event.pct,
        "detail": event.detail,
        "summary": event.summary,
        "data": event.data,
        "timestamp": event.timestamp,
    }
    return PREFIX + _encoder.encode(shown) + b"\n"


def parse_marker(line: bytes) -> Marker | Unsigned | Damaged | None:
    """What the line is; None for log text."""
    if not line.startswith(PREFIX):
        return None
    if len(line) > MOST_LINE:
        return Damaged(f"a marker of {len(line):,} bytes; at most {MOST_LINE:,} are read")
    try:
        found = _decoder.decode(line[len(PREFIX) :].rstrip(b"\r\n"))
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        return Damaged(str(error))
    if not found.nonce:
        if found.seq or found.worker:
            return Damaged("an identity without a nonce")
        return Unsigned(
            ProgressEvent(
                type=found.type,
                phase=found.phase,
                step=found.step,
                pct=_pct(found.pct),
                detail=found.detail,
                summary=found.summary,
                data=found.data,
                **({} if found.timestamp is None else {"timestamp": found.timestamp}),
            )
        )
    if found.seq < 1 or not 0 <= found.prev < found.seq or found.seq >= 1 << 63 or abs(found.epoch) >= 1 << 63:
        return Damaged(f"an event numbered {found.seq} after {found.prev}")
    fields = (
        found.type,
        found.phase,
        found.step,
        _pct(found.pct),
        found.detail,
        found.summary,
        found.data,
        found.timestamp if found.timestamp is not None else 0.0,
    )
    return Marker(found.worker, found.epoch, found.nonce, Meta(found.seq, found.prev, found.critical), fields)


def _pct(value: float) -> int:
    return max(-(1 << 31), min(int(value), 1 << 31))
