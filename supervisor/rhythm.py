"""When periodic work happens: all of it at the same moments, so that an idle supervisor wakes as seldom as it can.

A wake-up costs more than most of what it is for. Whoever looks every second therefore looks *on* the second of the
system's monotonic clock, which all processes of a crew share, and finds the loop awake already.
"""

from __future__ import annotations


def until_next(every: float, now: float) -> float:
    """Seconds from `now` to the clock's next multiple of `every`: more than 0, at most `every`."""
    return every - now % every
