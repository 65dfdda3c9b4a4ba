"""What a Windows service's host decides: which controls it takes, what it reports, what an end means to the manager.

Pure, and so tried on every system. Who reports and what runs is `windows`; the numbers are those of winsvc.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePath

from supervisor.exits import Exit

from .definition import RESTART_AFTER, STOP_WITHIN, is_retried

RESTARTS = 3  # recovery actions; the last is repeated


class Control(IntEnum):
    """Controls that mean: end, in good order. PRESHUTDOWN leaves us the time that SHUTDOWN does not."""

    STOP = 0x1
    SHUTDOWN = 0x5
    PRESHUTDOWN = 0xF


# SERVICE_ACCEPT_STOP, _SHUTDOWN and _PRESHUTDOWN; all three, so that an old manager's shutdown is heard as well
ACCEPTED = 0x1 | 0x4 | 0x100


@dataclass(frozen=True, slots=True)
class Ended:
    """What the manager is told: an error makes it start the service again. `why` is for the event log, if not empty."""

    code: int
    why: str = ""

    @property
    def is_error(self) -> bool:
        return is_retried(self.code)


def ended(code: int | None, *, asked: bool, log: PurePath) -> Ended:
    """The end of a crew that ended with `code` (None: it had to be ended, since it did not go); asked to, or not."""
    if code is None:
        why = f"the crew did not end within {STOP_WITHIN} s and was ended; nothing is lost"
        return Ended(int(Exit.INTERRUPTED), why)
    if asked or code in (int(Exit.DONE), int(Exit.INTERRUPTED)):
        return Ended(int(Exit.INTERRUPTED))
    again = "is started again" if is_retried(code) else "is not started again: a person has to act first"
    return Ended(code, f"supervisor run ended with {code} and {again}; see {log}")


def is_end(control: int) -> bool:
    """Whether that control of the manager's is a request to end."""
    return control in {one.value for one in Control}


def recovery() -> list[int]:
    """Milliseconds before each start after a failure: longer each time."""
    return [RESTART_AFTER * 1000 * 2**turn for turn in range(RESTARTS)]
