"""What became of each worker's events: counted here, or said by their emitters, since this supervisor's start.

Pure. The pump counts what it judges and commits; emitters count what they sent, coalesced and dropped, and tell it with
every beat.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_LATENCIES = tuple(0.0001 * 2**i for i in range(16))  # seconds; upper bounds of the histogram
_EMITTERS_COUNTS = ("sent", "resent", "coalesced", "dropped", "withheld", "fallbacks", "returns")

Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCounts:
    """What became of one worker's events, over all its epochs since the start of this supervisor.

    From `sent` (events given) to `returns` it is what its emitters said last; `waiting` are frames in the queue now.
    """

    stored: int = 0
    missed: int = 0
    duplicates: int = 0
    late: int = 0
    gaps: int = 0
    lost: int = 0
    refused: int = 0
    unsigned: int = 0
    damaged: int = 0
    bytes: int = 0
    sent: int = 0
    resent: int = 0
    coalesced: int = 0
    dropped: int = 0
    withheld: int = 0
    fallbacks: int = 0
    returns: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpStatistics:
    """A moment's counts; `served_again` is how often a broken queue got a new address.

    `latencies` counts each worker's rows by upper bounds in seconds, from their newest event to the commit.
    """

    workers: Mapping[str, WorkerCounts]
    latencies: Mapping[str, Mapping[float, int]]
    served_again: int
    depth: int
    capacity: int
    pending: int
    held: int
    failed_commits: int
    damaged_frames: int


class Tally:
    """Counts by worker. What an emitter said last counts to its epoch until `settle`, then to its worker."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._told: dict[Key, Counter[str]] = {}
        self._latencies: dict[str, list[int]] = {}

    def of(self, worker: str) -> Counter[str]:
        """The counts of a worker, by the names of `WorkerCounts`, to be added to."""
        return self._counts.setdefault(worker, Counter())

    def heed(self, key: Key, counts: Mapping[str, int]) -> None:
        """What an emitter counts itself (`EmitterStatistics.counts`); a later report replaces an earlier one."""
        self._told[key] = Counter({name: counts.get(name, 0) for name in _EMITTERS_COUNTS})

    def settle(self, key: Key) -> None:
        """The epoch is over: its emitter says nothing more."""
        self.of(key[0]).update(self._told.pop(key, Counter()))

    def took(self, worker: str, seconds: float) -> None:
        """A row was committed so long after its newest event."""
        found = self._latencies.setdefault(worker, [0] * (len(_LATENCIES) + 1))
        found[bisect_left(_LATENCIES, seconds)] += 1

    def total(self, name: str) -> int:
        """One of `WorkerCounts`' figures, over all workers."""
        return sum(counts[name] for counts in (*self._counts.values(), *self._told.values()))

    def workers(self, waiting: Callable[[str, int], int]) -> dict[str, WorkerCounts]:
        """Everybody's counts; `waiting` says how many frames of an epoch are in the queue."""
        found = {worker: Counter(counts) for worker, counts in self._counts.items()}
        for (worker, epoch), told in self._told.items():
            counts = found.setdefault(worker, Counter())
            counts.update(told)
            counts["waiting"] += waiting(worker, epoch)
        return {worker: WorkerCounts(**found[worker]) for worker in sorted(found)}

    def latencies(self) -> dict[str, dict[float, int]]:
        """Each worker's rows by upper bounds in seconds."""
        bounds = (*_LATENCIES, float("inf"))
        return {worker: dict(zip(bounds, found, strict=True)) for worker, found in self._latencies.items()}
