"""Memory in use, and how fast that grows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from alerts.models import Reading


def used_per_cent(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Memory that programs hold, in per cent of what the machine has (Linux)."""
    fields: dict[str, int] = {}
    for line in meminfo.read_text().splitlines():
        key, _, rest = line.partition(":")
        fields[key] = int(rest.split()[0])
    return 100 * (1 - fields["MemAvailable"] / fields["MemTotal"])


class MemoryMonitor:
    """Reads `memory.used` (per cent) and, from the second round on, `memory.growth` (points per minute)."""

    name = "memory"

    def __init__(self, source: Callable[[], float] = used_per_cent, rounds: int = 5) -> None:
        self._source = source
        self._samples: deque[tuple[float, float]] = deque(maxlen=rounds)

    def read(self, now: float) -> list[Reading]:
        used = self._source()
        self._samples.append((now, used))
        readings = [Reading("memory.used", used, now)]
        if len(self._samples) > 1:
            readings.append(Reading("memory.growth", self.growth_per_minute(), now))
        return readings

    def growth_per_minute(self) -> float:
        """Percentage points per minute between the oldest and the newest sample."""
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return 60 * (last - first) / (last_at - first_at)
