"""The journal's vocabulary: places in it, events as they come out of it, rows as they go in, and what can go wrong."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ipc.events import ProgressEvent
from ipc.sequence import Marks


class JournalError(Exception):
    """The journal could not be written or read; the text says which file and why."""


class NewerFormatError(JournalError):
    """The file was written by a newer version of this program."""


class CursorGoneError(JournalError):
    """Nothing can be continued from this cursor; `oldest` is the first that can be read, None in an empty journal."""

    def __init__(self, text: str, oldest: Cursor | None) -> None:
        super().__init__(text)
        self.oldest = oldest


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the journal; as text `store:n`."""

    store: str
    n: int

    def __str__(self) -> str:
        return f"{self.store}:{self.n}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor of that text; ValueError says what one looks like."""
        store, colon, n = text.rpartition(":")
        if not colon or not store or not n.isdecimal() or not n.isascii():
            raise ValueError(f"{text!r} is no cursor; one looks like 3f9c21ab:1234")
        return cls(store, int(n))


class StoredEvent(msgspec.Struct, frozen=True):
    """An event, its place in the journal and where it came from: queue, stdout, spool or supervisor."""

    store: str
    n: int
    worker: str
    epoch: int
    seq: int
    transport: str
    type: str
    phase: str
    step: str
    pct: int
    detail: str
    summary: Mapping[str, Any]
    data: bytes | None
    timestamp: float

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.store, self.n)

    @property
    def event(self) -> ProgressEvent:
        return ProgressEvent(
            self.type, self.phase, self.step, self.pct, self.detail, self.summary, self.data, self.timestamp
        )

    def as_json(self) -> dict[str, Any]:
        """The keys of `events --json`."""
        return {
            "cursor": str(self.cursor),
            "worker": self.worker,
            "epoch": self.epoch,
            "seq": self.seq,
            "type": self.type,
            "phase": self.phase,
            "step": self.step,
            "pct": self.pct,
            "detail": self.detail,
            "summary": self.summary,
            "data": None if self.data is None else base64.b64encode(self.data).decode("ascii"),
            "timestamp": self.timestamp,
            "transport": self.transport,
        }


# --- what can be committed --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """Accepted events of one epoch, and the marks after them."""

    worker: str
    epoch: int
    transport: str
    seqs: Sequence[int]
    tags: Sequence[tuple[str, str]]
    blob: bytes
    marks: Marks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRow:
    """An epoch begins."""

    worker: str
    epoch: int
    pid: int | None
    created: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRow:
    """An epoch is over: nothing of it is accepted any more. `missed` counts all the seqs that never arrived."""

    worker: str
    epoch: int
    missed: int
    finishes: Sequence[OwnRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRow:
    """An event of the supervisor's own; `seq`, ever higher, makes it one, however often it is committed."""

    seq: int
    event: ProgressEvent


Row = FrameRow | OpenedRow | ClosedRow | OwnRow


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEntry:
    """What the table says about an epoch."""

    worker: str
    epoch: int
    pid: int | None
    created: float | None
    closed: bool
    marks: Marks
    stored: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit made visible: cursors up to `head` can be read."""

    head: int
    events: int
