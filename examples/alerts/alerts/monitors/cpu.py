"""CPU load in per cent of all cores."""

from __future__ import annotations

import os
from collections.abc import Callable

from alerts.models import Reading


def load_per_cent() -> float:
    """The load average of the last minute; 100 means that every core is busy."""
    # TODO: os.getloadavg() is missing on Windows, read the performance counter there
    one_minute, _, _ = os.getloadavg()
    return 100 * one_minute / (os.cpu_count() or 1)


class CpuMonitor:
    """Smooths the load over the last few rounds, so that one busy second is no alert."""

    name = "cpu"

    def __init__(self, source: Callable[[], float] = load_per_cent, rounds: int = 3) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {rounds}")
        self._source = source
        self._rounds = rounds
        self._recent: list[float] = []

    def read(self, now: float) -> list[Reading]:
        self._recent = [*self._recent, self._source()][-self._rounds :]
        return [Reading("cpu.load", sum(self._recent) / len(self._recent), now)]
