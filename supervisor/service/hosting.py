"""What a Windows service's host decides: which controls it takes, what it reports and when, what an end means.

And what the command line makes of the service manager's answers.

Pure, and so tried on every system. Who reports and what runs is `windows`; the numbers are those of winsvc.h.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import PurePath
from typing import Literal

from supervisor.exits import Exit

from .definition import RESTART_AFTER, STOP_WITHIN, is_retried

RESTARTS = 3  # recovery actions; the last is repeated
CHECKPOINT_EVERY = 1.0  # seconds between two signs of life to the manager while something is under way
STALL = 15.0  # seconds until the manager may call us hung, from the last checkpoint
RUNS_AFTER = 60.0  # seconds that a crew has lived without a control API, which it may do without: it is up
NOT_ACTIVE, CANNOT_ACCEPT = 1062, 1061  # errors of the manager's: it does not run; it is starting or stopping just now


class Control(IntEnum):
    """Controls that mean: end, in good order. PRESHUTDOWN leaves us the time that SHUTDOWN does not."""

    STOP = 0x1
    SHUTDOWN = 0x5
    PRESHUTDOWN = 0xF


# SERVICE_ACCEPT_STOP, _SHUTDOWN and _PRESHUTDOWN; all three, so that an old manager's shutdown is heard as well
ACCEPTED = 0x1 | 0x4 | 0x100


class Reported(IntEnum):
    """What the manager is told of a service whose process lives."""

    START_PENDING = 0x2
    STOP_PENDING = 0x3
    RUNNING = 0x4


@dataclass(frozen=True, slots=True)
class Course:
    """What was reported: `state` since `since`, the last time at `at`. Each report of a pending one is a checkpoint."""

    state: Reported
    since: float
    at: float

    @classmethod
    def begun(cls, now: float) -> Course:
        """The process has been started."""
        return cls(Reported.START_PENDING, now, now)

    def next(self, now: float, *, answers: bool, asked: bool) -> Course:
        """What to report now; this very object if nothing is due. The crew's API `answers`; we were `asked` to end."""
        if asked and self.state is not Reported.STOP_PENDING:
            return Course(Reported.STOP_PENDING, now, now)
        if self.state is Reported.START_PENDING and (answers or now - self.since >= RUNS_AFTER):
            return Course(Reported.RUNNING, now, now)
        if self.state is not Reported.RUNNING and now - self.at >= CHECKPOINT_EVERY:
            return replace(self, at=now)
        return self

    def is_overdue(self, now: float) -> bool:
        """Whether the crew has had its time to end."""
        return self.state is Reported.STOP_PENDING and now - self.since >= STOP_WITHIN


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


def after_refusal(error: int, state: str) -> Literal["wait", "again", "fail"]:
    """A STOP was refused: wait for the end, ask again in a moment, or pass the refusal on."""
    if error == NOT_ACTIVE or (error == CANNOT_ACCEPT and state in {"stopping", "stopped", "failed"}):
        return "wait"
    return "again" if error == CANNOT_ACCEPT else "fail"


def is_there(state: str, wanted: Literal["running", "stopped"]) -> bool | None:
    """Whether a service has come to the state that was wanted; None while that can still be."""
    has_ended = state in {"stopped", "failed"}
    if has_ended or state == "not installed":
        return wanted == "stopped"
    return True if state == wanted else None


def image_path(words: Sequence[str]) -> str:
    """The host's command line as the manager keeps it; ValueError for a percent sign.

    Variables are put in at each start, within quotes too, and nothing stands for the sign itself.
    """
    line = subprocess.list2cmdline(words)
    if "%" in line:
        raise ValueError(
            f"{line!r} contains a percent sign, which the service control manager takes for a variable's; "
            "use a folder, and a Python, without one in its path"
        )
    return line


def recovery() -> list[int]:
    """Milliseconds before each start after a failure: longer each time."""
    return [RESTART_AFTER * 1000 * 2**turn for turn in range(RESTARTS)]
