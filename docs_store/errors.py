"""What can go wrong in the document store: the caller's mistakes and the disk's are different types."""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Anything the document store refuses or cannot do."""


class NotAllowedError(StoreError):
    """The caller has no right to that operation on that document. Nothing was written."""


class FencedError(StoreError):
    """The epoch is not the phase's present one; whatever it appends is refused. The worker should end."""


class InvalidMessageError(StoreError, ValueError):
    """A message, outcome or answer that cannot be put on record as it is: the text says which part and why."""


class UnknownNameError(StoreError, LookupError):
    """No phase, document, message or question of that name; the text lists what there is, if that is short."""


class AlreadyReportedError(StoreError):
    """This round of the task has a report of another attempt; this one would be a second."""


class LockBusyError(StoreError):
    """Somebody held the lock until the deadline. `pid` is the holder's, 0 if it is not known."""

    def __init__(self, path: Path, waited: float, pid: int) -> None:
        whose = f"process {pid}" if pid else "another process"
        super().__init__(f"{whose} has held {path} for more than {waited:g} s; if it hangs, end it and try again")
        self.pid = pid


class StoreUnavailableError(StoreError):
    """The disk did not take a record (full, read-only, failing). Nothing was changed; try again once that is fixed."""


class DamageError(StoreError):
    """The history is not what was written. `n` is the first bad record (0 if none can be named), `file` where it is."""

    def __init__(self, what: str, *, n: int = 0, file: Path | None = None) -> None:
        where = f" in {file}" if file else ""
        super().__init__(f"{f'record {n}{where}' if n else f'the history{where}'}: {what}")
        self.n = n
        self.file = file
        self.what = what


class NewerFormatError(StoreError):
    """The history was written by a newer version; nothing is read or written."""


class UnknownRecordError(StoreError):
    """A record of a kind that this version does not know: it was written by a newer one."""
