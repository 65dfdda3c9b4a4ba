"""What people may ask a running supervisor for, and what it answers: the vocabulary between API and owner.

A command is a letter in the owner's mailbox like every exit and report, so two at once are taken up one after the
other; each gets one `Reply`. How it travels is `control`'s, what is done about it `crew`'s and `orders`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from docs_store.messages import KINDS, PRIORITIES, Draft, Kind

from .exits import UsageError

# what a task is taken for when its text does not begin with a kind
USUAL: Mapping[str, Kind] = {"planning": "Assess", "developer": "Implement", "qa": "Review", "debugging": "Issue"}


def draft_of(to: str, text: str, priority: str = "MEDIUM") -> Draft:
    """The message that a person's words make; raises `UsageError` where there are none, or no such priority."""
    level = next((known for known in PRIORITIES if known == priority.upper()), None)
    if level is None:
        raise UsageError(f"there is no priority {priority!r}; there are: {', '.join(PRIORITIES)}")
    word, colon, rest = text.partition(":")
    kind = next((known for known in KINDS if colon and known == word.strip().capitalize()), None)
    said = (rest if kind else text).strip()
    if not said:
        raise UsageError("the task has no text; say in a sentence what is to be done")
    return Draft(to=to, kind=kind or USUAL.get(to, "Implement"), text=said, priority=level)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCrew:
    """End the run in good order."""

    reason: str = "stopped by a command"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPhase:
    """A new worker for the phase, its past forgotten: also for one that was given up, or waits to be started again."""

    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartAll:
    """New workers for all phases, one after the other: the next is touched only once the one before is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """Read supervisor.toml again; only what changed is touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Pause or resume these phases; none named means all."""

    phases: tuple[str, ...] = ()
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveTask:
    """Post a task in the user's name."""

    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerIt:
    """Answer what waits in the inbox; `id` is a message's or a question's."""

    id: str
    text: str


Command = StopCrew | RestartPhase | RestartAll | Reload | Hold | GiveTask | AnswerIt


def concerned(command: Command) -> tuple[str, ...] | None:
    """The phases that the command is about; None: all of them."""
    match command:
        case RestartPhase(phase=phase):
            return (phase,)
        case Hold(phases=phases):
            return phases or None
        case GiveTask(draft=draft):
            return (draft.to,)
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of a command: a sentence for people, `data` for programs.

    Not `ok`: it was refused, or came only as far as `text` says.
    """

    ok: bool
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Pending:
    """A command on its way: the reply is given once, and whoever asked waits for it."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._reply: Reply | None = None
        self._given = anyio.Event()

    def answer(self, reply: Reply) -> None:
        """Give the reply; later ones are ignored."""
        if self._reply is None:
            self._reply = reply
            self._given.set()

    async def reply(self) -> Reply:
        """Wait for it."""
        await self._given.wait()
        assert self._reply is not None
        return self._reply


STOPPING = Reply(ok=False, text="the supervisor is stopping; it takes no more commands")


def too_late(command: Command, pid: int) -> Reply:
    """What a command is told that comes while the supervisor stops: whoever wants just that has it."""
    if isinstance(command, StopCrew):
        return Reply(ok=True, text="the crew is being stopped already", data={"pid": pid})
    return STOPPING
