"""How a batch of events travels and rests: one frame, whose events stay opaque bytes on the way to the journal.

A frame is a msgpack array `(version, worker, epoch, nonce, sections, tags, blob)`. `sections` name each event by seq,
the seq of the last critical event before it (`prev`), and whether it is critical itself, at the price of a section and
not of an event: `(first seq, n, prev, places of the critical ones)`, a new one wherever numbers are missing. `tags` are
the distinct (phase, type) pairs inside, for the journal's index; `blob` is a msgpack array of the events, each
`(type, phase, step, pct, detail, summary, data, timestamp)`. What becomes of a frame is for `ipc.sequence` to judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any, NamedTuple, overload

import msgspec

from .errors import EventTooLargeError, FrameError
from .events import ProgressEvent

VERSION = 2
MOST_EVENT = 4 * 1024 * 1024  # bytes of one encoded event: a screenshot of 2 MB fits twice
MOST_FRAME = 8 * 1024 * 1024  # bytes
MOST_EVENTS = 4096  # in one frame

Fields = tuple[str, str, str, int, str, Any, bytes | None, float]


class Meta(NamedTuple):
    """Which event of its epoch this is."""

    seq: int
    prev: int
    critical: bool


class Section(NamedTuple):
    """`n` events numbered from `first` on without a hole; `prev` counts for the first, `criticals` are offsets."""

    first: int
    n: int
    prev: int
    criticals: list[int]

    def metas(self) -> Iterator[Meta]:
        critical, prev = set(self.criticals), self.prev
        for offset in range(self.n):
            seq = self.first + offset
            yield Meta(seq, prev, offset in critical)
            if offset in critical:
                prev = seq


class Numbering(Sequence[Meta]):
    """Which events of its epoch a frame holds, kept as sections: nearly always there is one."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = sections
        self._n = sum([section.n for section in sections])

    @classmethod
    def of(cls, metas: Sequence[tuple[int, int, bool]]) -> Numbering:
        """The same names as sections, whatever they are."""
        if isinstance(metas, cls):
            return metas
        sections: list[Section] = []
        seq = prev = -1
        for one, before, critical in metas:
            if not sections or one != seq + 1 or before != prev:
                sections.append(Section(one, 0, before, []))
            section = sections[-1]
            if critical:
                section.criticals.append(section.n)
            sections[-1] = section._replace(n=section.n + 1)
            seq, prev = one, one if critical else before
        return cls(sections)

    def seqs(self) -> Sequence[int]:
        """The numbers alone."""
        ranges = [range(section.first, section.first + section.n) for section in self.sections]
        return ranges[0] if len(ranges) == 1 else [seq for one in ranges for seq in one]

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Meta]:
        for section in self.sections:
            yield from section.metas()

    @overload
    def __getitem__(self, place: int) -> Meta: ...
    @overload
    def __getitem__(self, place: slice) -> list[Meta]: ...
    def __getitem__(self, place: int | slice) -> Meta | list[Meta]:
        return list(self)[place]


class Tag(NamedTuple):
    """What a filter may ask for."""

    phase: str
    type: str


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A batch; see the module. `blob` is only looked into by `decode_events` and `split`."""

    version: int
    worker: str
    epoch: int
    nonce: str
    sections: list[Section]
    tags: list[Tag]
    blob: bytes

    @property
    def metas(self) -> Numbering:
        """Its events by name."""
        return Numbering(self.sections)


_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)  # a UnicodeDecodeError comes through as it is
_encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(Frame)
_raws = msgspec.msgpack.Decoder(list[msgspec.Raw])
_events = msgspec.msgpack.Decoder(list[Fields])
_event = msgspec.msgpack.Decoder(Fields)


def encode_event(event: ProgressEvent) -> bytes:
    """One event as bytes. EventTooLargeError names the limit."""
    return encode_fields(fields_of(event))


def encode_fields(fields: Fields) -> bytes:
    """The same from bare fields; what cannot be encoded in them is made plain first. EventTooLargeError as above."""
    try:
        encoded = _encode(fields)
    except (TypeError, ValueError, OverflowError):
        encoded = _encode(cleaned(fields))
    if len(encoded) > MOST_EVENT:
        raise EventTooLargeError(
            f"an event of type {fields[0]!r} takes {len(encoded):,} bytes; at most {MOST_EVENT:,} can travel: "
            "make the screenshot or the summary smaller"
        )
    return encoded


def encode_batch(
    worker: str,
    epoch: int,
    nonce: str,
    metas: Sequence[tuple[int, int, bool]],
    tags: Iterable[tuple[str, str]],
    events: Sequence[Fields | bytes],
) -> bytes:
    """A frame of these events, each as fields or as what `encode_event` returned."""
    whole = [msgspec.Raw(e) if isinstance(e, bytes) else e for e in events]
    return encode_frame(worker, epoch, nonce, Numbering.of(metas).sections, tags, whole)


def encode_frame(
    worker: str,
    epoch: int,
    nonce: str,
    sections: Sequence[tuple[int, int, int, Sequence[int]]],
    tags: Iterable[tuple[str, str]],
    events: Sequence[Any],
) -> bytes:
    """The same from sections, and events as fields (or `msgspec.Raw`)."""
    return _encode((VERSION, worker, epoch, nonce, sections, tuple(tags), _encode(events)))


def decode_header(data: bytes) -> Frame:
    """The frame, its events unread but counted. FrameError for anything else, another version, or over a limit."""
    if len(data) > MOST_FRAME:
        raise FrameError(f"a frame of {len(data):,} bytes; at most {MOST_FRAME:,} are taken")
    try:
        frame = _frame.decode(data)
    except _UNREADABLE as error:
        version = _version(data)
        if version not in (None, VERSION):
            raise FrameError(f"a frame of version {version}; this side speaks {VERSION}") from None
        raise FrameError(f"not a frame: {error}") from None
    if frame.version != VERSION:
        raise FrameError(f"a frame of version {frame.version}; this side speaks {VERSION}")
    count = _counted(frame.sections)
    if not 1 <= count <= MOST_EVENTS:
        raise FrameError(f"a frame of {count:,} events; 1 to {MOST_EVENTS:,} are taken")
    if len(split(frame.blob)) != count:
        raise FrameError("a frame that names more or fewer events than it holds")
    return frame


def _counted(sections: Sequence[Section]) -> int:
    """How many events the sections name. FrameError where they name what cannot be."""
    count = 0
    for first, n, prev, criticals in sections:
        if not (0 <= prev < first and 1 <= n <= MOST_EVENTS):
            raise FrameError("a frame whose events are not numbered as they should be")
        last = -1
        for offset in criticals:
            if not last < offset < n:
                raise FrameError("a frame whose critical events are not where they should be")
            last = offset
        count += n
    return count


def split(blob: bytes) -> list[msgspec.Raw]:
    """The events of a blob, each still encoded. FrameError if it is none."""
    try:
        return _raws.decode(blob)
    except _UNREADABLE as error:
        raise FrameError(f"not a batch of events: {error}") from None


def join(events: Sequence[Any]) -> bytes:
    """The blob of encoded events (`msgspec.Raw`) or fields."""
    return _encode(events)


def cut(blob: bytes, keep: Sequence[int]) -> bytes:
    """The blob with only the events at these places."""
    events = split(blob)
    return join([events[i] for i in keep])


def decode_fields(blob: bytes) -> list[Fields]:
    """The events of a blob as bare fields. FrameError if an event is none."""
    try:
        return _events.decode(blob)
    except _UNREADABLE as error:
        raise FrameError(f"not a batch of events: {error}") from None


def decode_events(blob: bytes) -> list[ProgressEvent]:
    """The events of a blob. FrameError if an event is none."""
    return list(starmap(ProgressEvent, decode_fields(blob)))


def decode_event(encoded: bytes) -> ProgressEvent:
    """The event that `encode_event` made these bytes of. FrameError for anything else."""
    try:
        return ProgressEvent(*_event.decode(encoded))
    except _UNREADABLE as error:
        raise FrameError(f"not an event: {error}") from None


def fields_of(event: ProgressEvent) -> Fields:
    """An event's fields in the order in which they travel; the summary is made plain (see `plain`)."""
    summary = plain(event.summary) if event.summary else {}
    return (
        event.type,
        event.phase,
        event.step,
        event.pct,
        event.detail,
        summary,
        event.data,
        event.timestamp,
    )


def plain(value: Any, depth: int = 24) -> Any:
    """The value as JSON can hold it, so that every transport carries the same; what it cannot hold becomes text."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value)
    if kind is int:
        return value if -(1 << 63) <= value < (1 << 63) else str(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        return {_text(str(key)): plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [plain(item, depth - 1) for item in value]
    if depth and isinstance(value, (set, frozenset)):
        return sorted((plain(item, depth - 1) for item in value), key=repr)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return _text(str(value))


def cleaned(fields: Fields) -> Fields:
    """Fields that will encode: text without lone surrogates, numbers that are numbers."""
    type_, phase, step, pct, detail, summary, data, timestamp = fields
    texts = [_text(str(text)) for text in (type_, phase, step, detail)]
    return (
        texts[0],
        texts[1],
        texts[2],
        max(-(1 << 31), min(int(pct), 1 << 31)),
        texts[3],
        plain(summary) if summary else {},
        None if data is None else bytes(data),
        float(timestamp),
    )


def _text(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _version(data: bytes) -> Any:
    try:
        found = msgspec.msgpack.decode(data)
    except _UNREADABLE:
        return None
    return found[0] if isinstance(found, list) and found and isinstance(found[0], int) else None
