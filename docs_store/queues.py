"""Two small containers that keep "what comes first" and "what came last" at hand, however much there is. Pure.

What is put into them, and when, is decided by `messages.Index`; they hold keys and ids only, never messages.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

_FIRST, _LAST = "\t", "\x7f"  # smaller and greater than any character of a rank


@dataclass(slots=True)
class Queue:
    """Entries "rank id" in the order of their ranks. A rank is ASCII without spaces; entries are unique."""

    entries: list[str] = field(default_factory=list)

    def add(self, rank: str, id: str) -> None:  # noqa: A002  (the field's name)
        insort(self.entries, f"{rank} {id}")

    def discard(self, rank: str, id: str) -> None:  # noqa: A002
        entry = f"{rank} {id}"
        at = bisect_left(self.entries, entry)
        if at < len(self.entries) and self.entries[at] == entry:
            del self.entries[at]

    def bounds(self, prefix: str) -> tuple[int, int]:
        """Where in `entries` the ranks that begin so are."""
        return bisect_left(self.entries, prefix + _FIRST), bisect_left(self.entries, prefix + _LAST)

    def ids(self, prefix: str = "", most: int | None = None) -> list[str]:
        """The first ids whose rank begins so, in order."""
        start, end = self.bounds(prefix)
        if most is not None:
            end = min(end, start + most)
        return [entry.partition(" ")[2] for entry in self.entries[start:end]]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids())


@dataclass(slots=True)
class Recent:
    """How many there were in all, and the ids of the last ones, oldest first."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, id: str, most: int) -> None:  # noqa: A002
        self.count += 1
        self.ids.append(id)
        del self.ids[:-most]

    def discard(self, id: str) -> None:  # noqa: A002
        self.count -= 1
        if id in self.ids:
            self.ids.remove(id)
