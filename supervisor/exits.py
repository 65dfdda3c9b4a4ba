"""How a command ends: the exit codes, and the errors that are meant for the person at the keyboard.

One table for every command. An error that is no `UserError` is ours, and becomes `Exit.INTERNAL`.
"""

from __future__ import annotations

from collections.abc import Mapping
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


# what `--json` calls an error that ends so, for programs
WORDS: Mapping[Exit, str] = {
    Exit.WORK_REMAINS: "refused",
    Exit.USAGE: "usage",
    Exit.NONE_RUNNING: "none_running",
    Exit.INTERNAL: "internal",
    Exit.WORKSPACE_BUSY: "workspace_busy",
    Exit.CONFIGURATION: "configuration",
}


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


def judged(error: Exception) -> tuple[Exit, str]:
    """The exit code and the words for an error that reached the top."""
    if isinstance(error, UserError):
        return error.exit, str(error)
    from docs_store import errors

    from . import journal

    codes: dict[type[Exception], Exit] = {
        errors.LockBusyError: Exit.WORKSPACE_BUSY,
        errors.StoreUnavailableError: Exit.WORK_REMAINS,
        errors.DamageError: Exit.CONFIGURATION,
        errors.NewerFormatError: Exit.CONFIGURATION,
        errors.UnknownRecordError: Exit.CONFIGURATION,
        errors.InvalidMessageError: Exit.USAGE,
        errors.UnknownNameError: Exit.USAGE,
        errors.NotAllowedError: Exit.USAGE,
        errors.StoreError: Exit.WORK_REMAINS,
        journal.NewerFormatError: Exit.CONFIGURATION,
        journal.JournalError: Exit.WORK_REMAINS,
    }
    for kind, code in codes.items():
        if isinstance(error, kind):
            return code, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return Exit.WORK_REMAINS, f"{error.filename}: {error.strerror or error}"
    what = str(error).split("\n")[0]
    named = f"{type(error).__name__}: {what}" if what else type(error).__name__
    text = f"internal error, which is our fault: {named}. Once more with -vv shows where; what is on record is safe"
    return Exit.INTERNAL, text
