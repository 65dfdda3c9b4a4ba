"""What a monitor is."""

from __future__ import annotations

from typing import Protocol

from alerts.models import Reading


class Monitor(Protocol):
    name: str

    def read(self, now: float) -> list[Reading]:
        """Take the readings of this round; `now` is seconds since the epoch."""
        ...
