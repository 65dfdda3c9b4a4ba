"""What an emitter has given and the other side has not made durable: kept in lots, which cost nothing for each event.

Pure, and not thread-safe: the emitter's lock is around it. `Gathered` is what `emit` adds to, and what is thinned out
under pressure; `Backlog` is what the feeder has taken from there, sent or not. A lot is events numbered without a hole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .frames import Fields, Meta, Section

SMALL = 64  # bytes that an event counts as, unless it is known to be larger
IN_MEMORY = 400  # bytes that an event takes in memory beside its contents


@dataclass(slots=True)
class Lot:
    """Events numbered from `first` on without a hole; `prev` is the last critical seq before them.

    `criticals` are seqs, ascending; `large` has the size of each that is not small; `tags` are the (phase, type)
    pairs inside, and perhaps some of a lot that this was part of. `phase` and `step` are those of the small progress
    that was looked at last: more of the same need not be.
    """

    first: int
    prev: int
    events: list[Fields] = field(default_factory=list)
    criticals: list[int] = field(default_factory=list)
    large: dict[int, int] = field(default_factory=dict)
    tags: set[tuple[str, str]] = field(default_factory=set)
    phase: str | None = None
    step: str | None = None

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1

    @property
    def critical(self) -> int:
        """The last critical seq up to its end."""
        return self.criticals[-1] if self.criticals else self.prev

    def add(self, seq: int, event: Fields, *, critical: bool, size: int) -> None:
        """The event that follows."""
        self.events.append(event)
        self.tags.add((event[1], event[0]))
        if critical:
            self.criticals.append(seq)
        if size > SMALL:
            self.large[seq] = size

    def size(self) -> int:
        """Bytes, about."""
        return SMALL * (len(self.events) - len(self.large)) + sum(self.large.values())

    def split(self, n: int) -> tuple[Lot, Lot]:
        """The first `n` events, and the rest."""
        seq = self.first + n
        place = bisect_left(self.criticals, seq)
        head = Lot(self.first, self.prev, self.events[:n], self.criticals[:place], tags=self.tags)
        tail = Lot(seq, head.critical, self.events[n:], self.criticals[place:], tags=self.tags)
        for one, size in self.large.items():
            (head if one < seq else tail).large[one] = size
        return head, tail

    def fitting(self, most_events: int, most_bytes: int) -> int:
        """How many of the first events are within both limits."""
        n = min(len(self.events), most_events)
        if not self.large:
            return min(n, max(most_bytes, 0) // SMALL)
        for offset in range(n):
            most_bytes -= self.large.get(self.first + offset, SMALL)
            if most_bytes < 0:
                return offset
        return n

    def section(self) -> Section:
        """Its names, as a frame carries them."""
        return Section(self.first, len(self.events), self.prev, [seq - self.first for seq in self.criticals])

    def metas(self) -> Iterable[Meta]:
        return self.section().metas()


class Gathered:
    """Events given and not yet taken by the feeder. Beyond some pressure progress is thinned out, and counted.

    `lot` is what came since the last look at it, which is due at `sweep_at`, a seq.
    """

    def __init__(self, *, coalesce: bool, step: int, most_loose: int, most_loose_bytes: int) -> None:
        self._coalesce = coalesce
        self._step = step
        self._most_loose, self._most_loose_bytes = most_loose, most_loose_bytes
        self.coalesced = self.dropped = 0
        self._begin(1, 0)

    def _begin(self, first: int, prev: int) -> None:
        self._whole: deque[Lot] = deque()  # looked at; where something is coalesced `_thin` has what is left of them
        self._thin: dict[int, tuple[Meta, Fields, int]] = {}
        self._loose: deque[int] = deque()  # the progress in `_thin`, oldest first
        self._held = 0  # events in `_whole`
        self._bytes = 0  # of progress that is not small
        self._next(first, prev)

    def _next(self, first: int, prev: int) -> None:
        self.lot = Lot(first, prev)
        self.sweep_at = first + self._step - 1

    def __len__(self) -> int:
        return len(self._thin) + self._held + len(self.lot.events)

    def oldest(self) -> int | None:
        """The first seq that waits here."""
        lots = (*self._whole, self.lot)
        return next(iter(self._thin), next((lot.first for lot in lots if lot.events), None))

    def add(self, seq: int, event: Fields, *, critical: bool, size: int) -> None:
        """Take the next event; `emit` writes this out for small progress."""
        self.lot.add(seq, event, critical=critical, size=size)
        if size > SMALL and not critical:
            self._bytes += size
        if seq >= self.sweep_at or self._bytes > self._most_loose_bytes:
            self.sweep()

    def take(self) -> list[Lot]:
        """Everything, in order; nothing is left here."""
        lots: list[Lot] = []
        for seq, (meta, event, size) in self._thin.items():
            if not lots or lots[-1].last + 1 != seq or lots[-1].critical != meta.prev:
                lots.append(Lot(seq, meta.prev))
            lots[-1].add(seq, event, critical=meta.critical, size=size)
        lots += self._whole
        if self.lot.events:
            lots.append(self.lot)
        self._begin(self.lot.last + 1, self.lot.critical)
        return lots

    def sweep(self) -> None:
        """Coalesce what gathered since the last time to the latest per (phase, step), never across a critical event.

        If there is still too much, the oldest progress goes, never the newest.
        """
        if self._coalesce:
            self._coalesce_lot()
            while self._too_much(len(self._loose), 1):
                _, _, size = self._thin.pop(self._loose.popleft())
                self._bytes -= size if size > SMALL else 0
                self.dropped += 1
        else:
            self._whole.append(self.lot)
            self._held += len(self.lot.events)
            while self._too_much(self._held, len(self._whole[-1].events)):
                self._drop_progress()
        self._next(self.lot.last + 1, self.lot.critical)

    def _too_much(self, loose: int, newest: int) -> bool:
        return loose > newest and (loose > self._most_loose or self._bytes > self._most_loose_bytes)

    def _coalesce_lot(self) -> None:
        lot = self.lot
        seen: set[tuple[str, str]] = set()
        keep: list[tuple[Meta, Fields, int]] = []
        for meta, event in zip(reversed([*lot.metas()]), reversed(lot.events), strict=True):
            size = lot.large.get(meta.seq, SMALL)
            if meta.critical:
                seen.clear()
            elif (event[1], event[2]) in seen:
                self.coalesced += 1
                self._bytes -= size if size > SMALL else 0
                continue
            else:
                seen.add((event[1], event[2]))
            keep.append((meta, event, size))
        for one in reversed(keep):
            self._thin[one[0].seq] = one
            if not one[0].critical:
                self._loose.append(one[0].seq)

    def _drop_progress(self) -> None:
        """Leave only the critical events of the oldest lot that has others."""
        lot = self._whole.popleft()
        self._held -= len(lot.events)
        for meta, event in zip(lot.metas(), lot.events, strict=True):
            size = lot.large.get(meta.seq, SMALL)
            if meta.critical:
                self._thin[meta.seq] = meta, event, size
            else:
                self._bytes -= size if size > SMALL else 0
                self.dropped += 1


class Quota:
    """Bytes of events that no file keeps and that are not durable yet; no more than `most` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._events: deque[tuple[int, int]] = deque()  # seq and bytes, oldest first

    def take(self, seq: int, size: int, durable: int) -> bool:
        """Take an event in, once what is durable has left; False, and nothing is taken, if it has no room."""
        while self._events and self._events[0][0] <= durable:
            self.used -= self._events.popleft()[1]
        if self.used + size + IN_MEMORY > self.most:
            return False
        self._events.append((seq, size + IN_MEMORY))
        self.used += size + IN_MEMORY
        return True


class Backlog:
    """What the feeder has in hand, oldest first: sent and not known to be durable, then what is to be sent."""

    def __init__(self) -> None:
        self._sent: deque[Lot] = deque()
        self._unsent: deque[Lot] = deque()
        self.sent = self.sent_bytes = self.unsent = 0

    def oldest(self) -> int | None:
        """The first seq that waits here."""
        first = next(iter(self._sent or self._unsent), None)
        return None if first is None else first.first

    def take(self, lots: Iterable[Lot]) -> None:
        """More to be sent."""
        for lot in lots:
            self._unsent.append(lot)
            self.unsent += len(lot.events)

    def next_batch(self, most_events: int, most_bytes: int) -> list[Lot]:
        """What to send next: at least one event if there is any. It stays here until `was_sent`."""
        batch: list[Lot] = []
        while self._unsent and most_events > 0:
            lot = self._unsent.popleft()
            n = lot.fitting(most_events, most_bytes)
            if not n and not batch:
                n = 1
            if n < len(lot.events):
                lot, rest = lot.split(n)
                self._unsent.appendleft(rest)
                most_events = n  # no more than this
            if n:
                batch.append(lot)
            most_events -= n
            most_bytes -= lot.size()
        self._unsent.extendleft(reversed(batch))
        return batch

    def was_sent(self, batch: Sequence[Lot]) -> None:
        """These, which `next_batch` gave, are under way."""
        for lot in batch:
            if self._unsent and self._unsent[0] is lot:
                self._unsent.popleft()
                self.unsent -= len(lot.events)
                self._keep(lot)

    def send_again(self, above: int) -> int:
        """What was sent after this seq is to be sent once more; how many events that are."""
        again = 0
        while self._sent and self._sent[-1].last > above:
            lot = self._drop_sent(-1)
            if lot.first <= above:
                known, lot = lot.split(above + 1 - lot.first)
                self._keep(known)
            self._unsent.appendleft(lot)
            again += len(lot.events)
        self.unsent += again
        return again

    def forget(self, durable: int) -> None:
        """Up to this seq everything is durable elsewhere."""
        while self._sent and self._sent[0].first <= durable:
            lot = self._drop_sent(0)
            if lot.last > durable:
                _, rest = lot.split(durable + 1 - lot.first)
                self._sent.appendleft(rest)
                self.sent += len(rest.events)
                self.sent_bytes += rest.size()
        while self._unsent and self._unsent[0].first <= durable:
            lot = self._unsent.popleft()
            self.unsent -= len(lot.events)
            if lot.last > durable:
                _, rest = lot.split(durable + 1 - lot.first)
                self._unsent.appendleft(rest)
                self.unsent += len(rest.events)

    def _keep(self, lot: Lot) -> None:
        self._sent.append(lot)
        self.sent += len(lot.events)
        self.sent_bytes += lot.size()

    def _drop_sent(self, place: int) -> Lot:
        lot = self._sent.pop() if place else self._sent.popleft()
        self.sent -= len(lot.events)
        self.sent_bytes -= lot.size()
        return lot
