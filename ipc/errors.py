"""What can go wrong in `ipc`, by whose mistake: the caller's (ValueErrors), the peer's, or the machine's."""

from __future__ import annotations


class IpcError(Exception):
    """Whatever `ipc` raises of its own."""


class ModeError(IpcError, ValueError):
    """A variable or flag that chooses the transport has a value that means nothing; the text names it."""


class EventTooLargeError(IpcError, ValueError):
    """An event is larger than what may travel; it was not taken and has no seq."""


class FrameError(IpcError, ValueError):
    """Bytes that should be a frame are none, or are of another version."""


class SpoolFullError(IpcError):
    """The spool's quota, the disk, or, without a spool, the memory for events is full.

    The event was not taken and has no seq: try again later.
    """


class SpoolLockedError(IpcError):
    """The epoch's folder is gone, or another process holds its lock: this process must not emit."""


class QueueBrokenError(IpcError, ConnectionError):
    """The queue's server does not answer, or is gone. A full queue is `queue.Full` and something else."""
