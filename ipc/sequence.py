"""Which events are accepted, held aside, or refused: one judge for queue, stdout and spool.

Pure. Every event is (worker, epoch, seq) and carries `prev`, the seq of the last critical event before it. Two marks
per epoch (last critical seq, last seq accepted) decide: a critical event must follow the last critical one, progress
must too and be newer than everything accepted. Frames of a successor wait, bounded, until every older epoch of its
worker is closed; a closed epoch accepts nothing ever again. `tests/models/event_protocol.py` walks through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from .frames import Meta, Numbering


class Verdict(Enum):
    """What becomes of one event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"  # progress older than a critical event that was accepted
    GAP = "gap"  # a critical event before it is missing


class Stage(Enum):
    """How far an epoch is on its way."""

    OPEN = "open"
    FENCED = "fenced"  # no new offers; what had been taken still counts
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Marks:
    """What of an epoch was accepted: the last critical seq, the last seq, and the holes below that."""

    critical: int = 0
    seq: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A frame's verdict: which events (places in the frame) are accepted, and the marks after them.

    `lost` are places before which something is missing for good (only in salvage). `gap` means: send again from
    `marks.critical`.
    """

    accepted: tuple[int, ...]
    marks: Marks
    duplicates: int = 0
    late: int = 0
    gap: bool = False
    lost: tuple[int, ...] = ()


def judge(marks: Marks, meta: Meta) -> Verdict:
    """What becomes of one event after what these marks say."""
    seq, prev, critical = meta
    if critical:
        if seq <= marks.critical:
            return Verdict.DUPLICATE
        return Verdict.ACCEPTED if prev == marks.critical else Verdict.GAP
    if prev < marks.critical:
        return Verdict.LATE
    if seq <= marks.seq:
        return Verdict.DUPLICATE
    return Verdict.ACCEPTED if prev == marks.critical else Verdict.GAP


def judge_frame(marks: Marks, metas: Sequence[Meta], *, salvage: bool = False) -> Judgement:
    """Judge a frame's events in order; the first that comes too early ends it.

    In `salvage` nobody is left to send again: an event behind a gap is accepted, and named in `lost`.
    """
    last_critical, last, missed = marks.critical, marks.seq, marks.missed
    duplicates = late = place = 0
    accepted: list[int] = []
    lost: list[int] = []
    gap = False
    for section in Numbering.of(metas).sections:
        first, n, prev, criticals = section
        if prev == last_critical and first > last:  # what comes next, so each of its events follows the one before
            missed += first - last - 1
            last = first + n - 1
            if criticals:
                last_critical = first + criticals[-1]
            accepted.extend(range(place, place + n))
            place += n
            continue
        for seq, before, critical in section.metas():
            verdict = judge(Marks(last_critical, last, missed), Meta(seq, before, critical))
            if verdict is Verdict.GAP:
                if not salvage:
                    gap = True
                    break
                lost.append(place)
            if verdict is Verdict.DUPLICATE:
                duplicates += 1
            elif verdict is Verdict.LATE:
                late += 1
            else:
                last_critical = seq if critical else max(before, last_critical)
                missed += max(seq - last - 1, 0)
                last = max(seq, last)
                accepted.append(place)
            place += 1
        if gap:
            break
    return Judgement(
        accepted=tuple(accepted),
        marks=Marks(last_critical, last, missed),
        duplicates=duplicates,
        late=late,
        gap=gap,
        lost=tuple(lost),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A frame as the sequencer sees it: names of events, and a payload that it never opens.

    `size` is in bytes and only bounds what is held aside.
    """

    worker: str
    epoch: int
    metas: Sequence[Meta]
    payload: Any
    size: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The batch was judged; only `judgement.accepted` of it goes on."""

    batch: Batch
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Held:
    """The batch waits until the older epochs are closed."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Refused:
    """The batch is dropped. With "full" its sender is told to send again."""

    batch: Batch
    reason: Literal["unknown", "nonce", "closed", "full"]


Outcome = Admitted | Held | Refused


@dataclass(slots=True)
class _Epoch:
    nonce: str
    marks: Marks
    stage: Stage = Stage.OPEN
    held: deque[Batch] = field(default_factory=deque)
    held_size: int = 0
    gap: bool = False


class Sequencer:
    """The marks and stages of all epochs known, and the waiting room of successors. Does no I/O; not thread-safe."""

    def __init__(self, *, hold_batches: int = 256, hold_bytes: int = 16 * 1024 * 1024) -> None:
        self._hold_batches = hold_batches
        self._hold_bytes = hold_bytes
        self._workers: dict[str, dict[int, _Epoch]] = {}

    def open(self, worker: str, epoch: int, nonce: str, marks: Marks = Marks()) -> None:
        """From now on this epoch is known; `marks` are what the journal's table says. ValueError if it was known."""
        epochs = self._workers.setdefault(worker, {})
        if epoch in epochs:
            raise ValueError(f"epoch {epoch} of {worker} is open already")
        epochs[epoch] = _Epoch(nonce, marks)
        self._workers[worker] = dict(sorted(epochs.items()))

    def admit(self, batch: Batch, nonce: str) -> Outcome:
        """Judge what came by queue or stdout."""
        known = self._find(batch.worker, batch.epoch)
        if known is None:
            return Refused(batch, "unknown")
        if known.nonce != nonce:
            return Refused(batch, "nonce")
        if known.stage is Stage.CLOSED:
            return Refused(batch, "closed")
        if known.held or self.older_open(batch.worker, batch.epoch):
            if len(known.held) >= self._hold_batches or known.held_size + batch.size > self._hold_bytes:
                known.gap = True
                return Refused(batch, "full")
            known.held.append(batch)
            known.held_size += batch.size
            return Held(batch)
        return self._judge(known, batch)

    def released(self) -> list[Admitted]:
        """Judge whatever no longer has to wait, in order."""
        out: list[Admitted] = []
        for worker, epochs in self._workers.items():
            for number, epoch in epochs.items():
                if not epoch.held or self.older_open(worker, number):
                    continue
                while epoch.held:
                    out.append(self._judge(epoch, epoch.held.popleft()))
                epoch.held_size = 0
        return out

    def fence(self, worker: str, epoch: int) -> None:
        """No transport brings anything new for this epoch; what had been taken before still counts."""
        known = self._known(worker, epoch)
        if known.stage is Stage.OPEN:
            known.stage = Stage.FENCED

    def salvage(self, batch: Batch) -> Admitted:
        """Judge what the spool of a fenced epoch holds. ValueError while an older epoch is open."""
        known = self._known(batch.worker, batch.epoch)
        if known.stage is not Stage.FENCED or known.held or self.older_open(batch.worker, batch.epoch):
            raise ValueError(f"epoch {batch.epoch} of {batch.worker} is not ready for salvage")
        return self._judge(known, batch, salvage=True)

    def close(self, worker: str, epoch: int) -> None:
        """The journal holds `closed`: nothing of this epoch is accepted any more."""
        self._known(worker, epoch).stage = Stage.CLOSED

    def forget(self, worker: str, epoch: int) -> None:
        """Drop a closed epoch from memory; what still comes for it is unknown, and refused just the same."""
        if self._known(worker, epoch).stage is not Stage.CLOSED:
            raise ValueError(f"epoch {epoch} of {worker} is not closed")
        del self._workers[worker][epoch]

    def reset(self, worker: str, epoch: int, marks: Marks) -> None:
        """A commit failed: believe the table again, and have the rest sent again."""
        known = self._known(worker, epoch)
        known.marks = marks
        known.gap = True

    def older_open(self, worker: str, epoch: int) -> bool:
        """Whether an older epoch of this worker is not closed yet."""
        return any(
            number < epoch and known.stage is not Stage.CLOSED
            for number, known in self._workers.get(worker, {}).items()
        )

    def marks(self, worker: str, epoch: int) -> Marks:
        """What was accepted. KeyError for an unknown epoch."""
        return self._known(worker, epoch).marks

    def stage(self, worker: str, epoch: int) -> Stage | None:
        """The epoch's stage; None if it is not known."""
        known = self._find(worker, epoch)
        return None if known is None else known.stage

    def holds(self, worker: str, epoch: int) -> bool:
        """Whether batches of this epoch wait."""
        known = self._find(worker, epoch)
        return known is not None and bool(known.held)

    def holding(self) -> int:
        """How many batches wait, in all."""
        return sum(len(e.held) for epochs in self._workers.values() for e in epochs.values())

    def take_gap(self, worker: str, epoch: int) -> bool:
        """Whether the sender should be told Gap; it is told once, its timer does the rest."""
        known = self._find(worker, epoch)
        if known is None or not known.gap:
            return False
        known.gap = False
        return True

    def epochs(self) -> Iterable[tuple[str, int, Stage]]:
        """All epochs known, oldest first per worker."""
        return [(w, n, e.stage) for w, epochs in self._workers.items() for n, e in epochs.items()]

    def _judge(self, known: _Epoch, batch: Batch, *, salvage: bool = False) -> Admitted:
        judgement = judge_frame(known.marks, batch.metas, salvage=salvage)
        known.marks = judgement.marks
        known.gap = known.gap or judgement.gap
        return Admitted(batch, judgement)

    def _find(self, worker: str, epoch: int) -> _Epoch | None:
        return self._workers.get(worker, {}).get(epoch)

    def _known(self, worker: str, epoch: int) -> _Epoch:
        known = self._find(worker, epoch)
        if known is None:
            raise KeyError(f"epoch {epoch} of {worker} is not known")
        return known
