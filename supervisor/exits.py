"""How a command ends: the exit codes, and the errors that are meant for the person at the keyboard.

One table for every command. An error that is no `UserError` is ours, and becomes `Exit.INTERNAL`.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the shell is told; `docs/reference/exit-codes.md` says it in words."""

    DONE = 0  # done, and approved by QA
    WORK_REMAINS = 1  # work remains, waits for the user, or QA did not approve
    USAGE = 2
    NONE_RUNNING = 3
    INTERNAL = 70
    WORKSPACE_BUSY = 75
    CONFIGURATION = 78
    INTERRUPTED = 130


class UserError(Exception):
    """Something that the person can put right; the text says what happened, to what, and what to do."""

    exit = Exit.WORK_REMAINS

    def __init__(self, text: str, *, exit_code: Exit | None = None) -> None:
        super().__init__(text)
        if exit_code is not None:
            self.exit = exit_code


class UsageError(UserError):
    """An argument that names nothing: a phase, a document, a task."""

    exit = Exit.USAGE
