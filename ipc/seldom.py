"""When something that may happen a thousand times a second is worth a line in the log. Pure: `now` is the caller's."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

EVERY = 60.0  # seconds


class Seldom:
    """For each thing: the first time at once, then at most one line every `every` seconds, with how often it was."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._said_at: dict[Hashable, float] = {}
        self._since: dict[Hashable, int] = {}

    def happened(self, *what: Hashable, now: float) -> int:
        """How often it was since its last line, now included, if a line is due; else 0."""
        times = self._since.get(what, 0) + 1
        if now - self._said_at.get(what, -inf) < self._every:
            self._since[what] = times
            return 0
        self._said_at[what], self._since[what] = now, 0
        return times


def again(times: int) -> str:
    """The end of such a line."""
    return f" ({times} times since the last such line)" if times > 1 else ""
