"""Which mode the events of each cycle travel by: chosen once at the claim, kept to the cycle's end.

The terms come from the supervisor, with the assignment and whenever they change; a rollback moves the cycle in hand,
too. Falling back when the queue is broken is the emitter's own affair, and does not change what was chosen.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ipc import control
from ipc.modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT, Mode, Terms


@dataclass(frozen=True, slots=True)
class Chosen:
    """One cycle's mode, why, and the number drawn for it where one was."""

    mode: str
    reason: str
    drawn: float | None = None


class ModeGate:
    """Draws, and tells the emitter (`switch`) when the mode changes. From any thread."""

    def __init__(
        self,
        modes: control.Modes | None,
        mode: str,
        switch: Callable[[str, str], None],
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`mode` is what the emitter was made with; without `modes` it holds for good."""
        self._modes = modes
        self._mode = mode
        self._switch = switch
        self._rng = rng
        self._lock = threading.Lock()

    def hear(self, modes: control.Modes) -> None:
        """New terms; what they force holds at once where they say so, else from the next cycle on."""
        with self._lock:
            self._modes = modes
            if modes.at_once and modes.forced:
                self._use(modes.forced, modes.reason)

    def choose(self) -> Chosen:
        """The mode of the cycle that begins."""
        with self._lock:
            modes = self._modes
            if modes is None:
                return Chosen(self._mode, "as assigned")
            terms = Terms(_mode(modes.forced), modes.reason, modes.rate, modes.source)
            drawn = self._rng() if terms.forced is None else None
            mode, reason = terms.choose(0.0 if drawn is None else drawn)
            self._use(mode, reason)
            return Chosen(mode, reason, drawn)

    def _use(self, mode: str, reason: str) -> None:
        if mode != self._mode:
            self._mode = mode
            self._switch(mode, reason)


def _mode(word: str) -> Mode | None:
    return IPC_MODE_QUEUE if word == "queue" else IPC_MODE_STDOUT if word else None
