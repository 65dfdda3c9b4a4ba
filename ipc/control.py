"""What supervisor and worker say to each other besides events: one JSON object per line, each with a tag.

Down (the worker's stdin): what to prepare, assignment, bells, acks, turns, stop. End of file means: the supervisor is
gone.
Up (the worker's stderr, taken over as a private descriptor): ready, idle, beats, claims, turns. Any other line that
comes up is what the interpreter printed before the worker's first acts, and is log text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

VERSION = 1


class Down(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=str.lower):
    """From the supervisor to one worker."""


class Modes(Down, frozen=True, kw_only=True):
    """How the mode of each cycle is chosen from now on: `forced` with its `reason`, else a draw against `rate`.

    `source` says where the rate comes from. `at_once`: the cycle in hand changes to the forced mode, too.
    """

    forced: str = ""
    reason: str = ""
    rate: float = 1.0
    source: str = ""
    at_once: bool = False


class Prepare(Down, frozen=True, kw_only=True):
    """To a spare whose assignment is about to come: what of it is known already, so that the documents can be opened.

    It has no epoch yet: nothing may be done in anybody's name. Without this message the assignment does.
    """

    crew: str
    state: str
    topology: Mapping[str, Any] = {}


class Assignment(Down, frozen=True, kw_only=True):
    """The first message but for `Prepare`: which phase and epoch this process is, and all that it needs for it.

    `address` and `key` (base64) are the queue's; empty when there is no queue. `mode` is "queue" or "stdout".
    `modes` says how the mode of each cycle is chosen; without it `mode` holds. In lock-step nothing is coalesced.
    `environ` is added to this process's environment; `options` are the phase's of `supervisor.toml`; times in seconds.
    """

    version: int = VERSION
    phase: str
    epoch: int
    nonce: str
    workspace: str
    crew: str  # the folder of the documents
    state: str  # .supervisor
    spool: str  # this epoch's folder, already there
    log: str  # where fd 1 and 2 go
    address: str = ""
    key: str = ""
    mode: str = "queue"
    modes: Modes | None = None
    fallback: bool = True
    lockstep: bool = False
    beat_every: float = 0.5
    idle_every: float = 0.5  # the same while there is nothing in hand
    environ: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    topology: Mapping[str, Any] = {}


class Bell(Down, frozen=True, kw_only=True):
    """The history has moved, or may have: look again. `head` is what the supervisor saw."""

    head: int = 0


class Ack(Down, frozen=True, kw_only=True):
    """What became of events: see `ipc.emitter`. `gap` is the last critical seq accepted, where one is missing."""

    durable: int
    received: int = 0
    gap: int | None = None


class Redirect(Down, frozen=True, kw_only=True):
    """The queue is served at a new address."""

    address: str
    key: str


class Switch(Down, frozen=True, kw_only=True):
    """Use this mode from now on (until the next cycle's own is chosen)."""

    mode: str
    reason: str


class Hold(Down, frozen=True, kw_only=True):
    """Paused: finish what is in hand, claim nothing."""

    paused: bool


class Turn(Down, frozen=True, kw_only=True):
    """In lock-step: one claim is allowed."""

    number: int


class Stop(Down, frozen=True, kw_only=True):
    """Leave in good order within `grace` seconds: give up the work in hand, flush events, exit 0."""

    grace: float
    reason: str = ""


class Up(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=str.lower):
    """From a worker to its supervisor."""


class Spare(Up, frozen=True, kw_only=True):
    """Everything is imported; the assignment may come."""

    pid: int


class Ready(Up, frozen=True, kw_only=True):
    """First acts done, assignment taken, actor loop running."""

    pid: int
    epoch: int


class Idle(Up, frozen=True, kw_only=True):
    """Nothing to do at this head of the history (the one it looked at)."""

    head: int


class Claimed(Up, frozen=True, kw_only=True):
    """A task was taken up; `text` is its first line, for people.

    `mode` is how this cycle's events travel and `reason` why; `drawn` the number drawn for it, where one was.
    """

    task: str
    attempt: int
    text: str
    mode: str = ""
    reason: str = ""
    drawn: float | None = None


class Finished(Up, frozen=True, kw_only=True):
    """The cycle's record is in the history. `events` are the emitter's counts for this cycle alone, as in `Beat`."""

    task: str
    head: int
    result: str
    events: Mapping[str, int] = {}


class Beat(Up, frozen=True, kw_only=True):
    """From the worker's own event loop: its lag in seconds, the task in hand, how far that is (0–100), and the mode.

    `events` are counts of the worker's emitter since its start (see `ipc.emitter.EmitterStatistics.counts`); the next
    beat comes in `next_in` seconds, or sooner.
    """

    lag: float
    task: str = ""
    pct: int = 0
    step: str = ""
    mode: str = ""
    beats: int = 0
    next_in: float = 0.0
    events: Mapping[str, int] = {}


class Pulse(Up, frozen=True, kw_only=True):
    """From a thread of its own while the event loop's beats are overdue: the interpreter runs, the loop does not.

    `blocked` is for how long, in seconds; `where` the main thread's place in the code.
    """

    blocked: float
    where: str = ""


class WantTurn(Up, frozen=True, kw_only=True):
    """In lock-step: it would look for work now."""

    head: int


class TurnDone(Up, frozen=True, kw_only=True):
    """In lock-step: the turn was used (`worked`), or there was nothing to do."""

    number: int
    worked: bool
    head: int


class Trouble(Up, frozen=True, kw_only=True):
    """Something the supervisor should know and say: a full disk, a read-only store, a lost spool folder."""

    what: str
    text: str


AnyDown = Prepare | Assignment | Bell | Ack | Redirect | Modes | Switch | Hold | Turn | Stop
AnyUp = Spare | Ready | Idle | Claimed | Finished | Beat | Pulse | WantTurn | TurnDone | Trouble

_encoder = msgspec.json.Encoder()
_down: msgspec.json.Decoder[AnyDown] = msgspec.json.Decoder(AnyDown)
_up: msgspec.json.Decoder[AnyUp] = msgspec.json.Decoder(AnyUp)


def encode(message: Down | Up) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_down(line: bytes) -> AnyDown:
    """Raises `msgspec.MsgspecError` (a ValueError) for anything else."""
    return _down.decode(line)


def decode_up(line: bytes) -> AnyUp:
    """Raises `msgspec.MsgspecError` (a ValueError) for anything else."""
    return _up.decode(line)
