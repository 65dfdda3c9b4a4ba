"""What comes into the owner's mailbox: facts about workers, documents, time, people. Values, and the box itself.

What follows from a letter is `crew`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from .child import Child, Exited, Reported
from .commands import Pending
from .documents import Delivered, EndFacts, Look
from .probes import Answer


@dataclass(frozen=True, slots=True)
class Moved:
    """The history has a new head, or may have."""

    head: int


@dataclass(frozen=True, slots=True)
class Looked:
    """The documents were brought up to date."""

    look: Look


@dataclass(frozen=True, slots=True)
class Brought:
    """Approved changes were delivered."""

    made: tuple[Delivered, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the end depends on was looked up."""

    facts: EndFacts


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody wants us to stop; `signal` names it, "" for a command."""

    signal: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """So many bytes of memory are held by the trees of these phases' workers, which had these pids."""

    pids: Mapping[str, int]
    held: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A probe of that worker has ended."""

    child: Child
    answer: Answer


@dataclass(frozen=True, slots=True)
class Commanded:
    """A person wants something, and waits for the reply."""

    pending: Pending


Letter = Reported | Exited | Moved | Looked | Brought | Judged | Interrupt | Tick | Measured | ProbeAnswered | Commanded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What this run was asked for; `run` names it in ids. In lock-step one phase at a time works, in a fixed order."""

    until_idle: bool
    run: str
    lockstep: bool = False


@dataclass(slots=True)
class Mailbox:
    """Letters to the owner, from anywhere in its event loop, in order."""

    letters: deque[Letter] = field(default_factory=deque)
    _arrived: anyio.Event = field(default_factory=anyio.Event)

    def put(self, letter: Letter) -> None:
        self.letters.append(letter)
        self._arrived.set()

    async def take(self) -> Letter:
        """The oldest one: those behind it stay, for whoever clears up after an owner that has ended at this one."""
        while not self.letters:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self.letters.popleft()
