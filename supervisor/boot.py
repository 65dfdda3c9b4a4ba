"""Whether the machine has been started anew since something was written: then the last seconds of it may be lost.

Linux gives each start a name. Elsewhere its time is known by the wall clock alone, and moves with each correction of
that; the monotonic clock beside it tells a correction from a start. Asking is `this_boot`, judging `is_same_boot`.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from pathlib import Path

CORRECTIONS = 60.0  # seconds by which the wall clock may have been corrected within one start


def is_same_boot(recorded: str, present: str) -> bool:
    """Whether two texts of `this_boot`, the first of them the older one, are of the same start. When in doubt, no.

    A start that comes later than the recorded one is later by at least what the machine had been up for.
    """
    before, now = _clocks(recorded), _clocks(present)
    if before is None or now is None:
        return recorded == present
    (started_before, up_before), (started, up) = before, now
    moved = started - started_before
    return up >= up_before and abs(moved) <= CORRECTIONS and moved < up_before


def this_boot() -> str:
    """A text about the machine's start, for `is_same_boot`."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    import psutil

    return as_text(psutil.boot_time(), time.monotonic())


def as_text(started: float, up: float) -> str:
    """What `this_boot` says where starts have no number: seconds since 1970, and of the monotonic clock."""
    return f"{started:.1f} {up:.1f}"


def _clocks(text: str) -> tuple[float, float] | None:
    try:
        started, up = map(float, text.split())
    except ValueError:
        return None
    return (started, up) if math.isfinite(started) and math.isfinite(up) else None
