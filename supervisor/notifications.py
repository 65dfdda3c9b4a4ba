"""Tells people who are not looking: a command or a webhook for each thing that begins to wait for the user.

What is new is decided by comparing what waits now with what waited before (pure); saying it happens beside the crew,
with a time limit, and a failure is put on record, never retried for ever and never in anybody's way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from anyio.to_thread import run_sync

from actors.environment import environment
from docs_store.errors import StoreError
from docs_store.messages import State

from .config import NotifyConfig
from .rhythm import until_next
from .status import CrewStatus, waiting

LOOK_EVERY = 1.0  # seconds between two looks at whether the history or a phase has moved
COMMAND_LIMIT = 30.0  # seconds
WEBHOOK_LIMIT = 10.0
# Beside what a tool may see: where a service has its secrets, and a desktop takes its notifications.
ALLOWED = ("CREDENTIALS_DIRECTORY", "DBUS_SESSION_BUS_ADDRESS")
MOST_AT_ONCE = 20  # of one look; what is more is counted in the last one

T = TypeVar("T")
Record = Callable[[str, str], None]


class Crew(Protocol):
    """What is needed of the crew (`supervisor.crew.Crew` is one)."""

    @property
    def moved(self) -> tuple[object, ...]: ...
    def status(self) -> CrewStatus: ...
    async def at_desk(self, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that began to wait; `key` is the same as long as it is the same thing."""

    key: str
    said: Mapping[str, Any]


def notices(status: CrewStatus, state: State) -> dict[str, Notice]:
    """All that waits for a person now: blocked and quarantined tasks, questions, phases that were given up."""
    found = {}
    for item in waiting(state):
        message = state.messages.get(item.id)
        key = f"{item.id}.{message.round if message else 0}"  # answered and blocked again is a new thing
        found[key] = Notice(key=key, said={"workspace": status.workspace, **item.as_json()})
    for phase, its in status.phases.items():
        if its.state == "quarantined":
            key = f"given up {phase} {its.epoch}"
            said = {"workspace": status.workspace, "what": "given up", "phase": phase, "text": its.detail}
            found[key] = Notice(key=key, said=said)
    return found


def begun(before: Mapping[str, Notice], now: Mapping[str, Notice]) -> tuple[Notice, ...]:
    """Those that were not there before; a flood is cut, and its last notice says how much is left out."""
    new = [notice for key, notice in now.items() if key not in before]
    if len(new) <= MOST_AT_ONCE:
        return tuple(new)
    last = new[MOST_AT_ONCE - 1]
    more = len(new) - MOST_AT_ONCE
    return (*new[: MOST_AT_ONCE - 1], Notice(key=last.key, said={**last.said, "more": more}))


async def keep_telling(
    crew: Crew,
    read: Callable[[], State],
    config: Callable[[], NotifyConfig],
    record: Record,
    *,
    folder: Path,
    marks: Mapping[str, str],
    ended: anyio.Event,
) -> None:
    """Look, compare, tell, until the run has ended; then once more, for a run often ends because something waits.

    `read` reads the history's state (in the crew's thread for that); `marks` are entries of the command's environment
    that find what a dead supervisor left running.
    """
    before: dict[str, Notice] | None = None
    seen: tuple[object, ...] = ()
    while True:
        is_last = ended.is_set()
        moved = crew.moved
        if moved != seen:
            status = crew.status()
            try:
                now = await crew.at_desk(lambda status=status: notices(status, read()))  # type: ignore[misc]
            except StoreError:
                now = before or {}  # said elsewhere: the documents' own alarm
            else:
                seen = moved
            for notice in begun(now if before is None else before, now):
                await tell(config(), notice, record, folder=folder, marks=marks)
            before = now
        if is_last:
            return
        with anyio.move_on_after(until_next(LOOK_EVERY, anyio.current_time())):
            await ended.wait()


async def tell(config: NotifyConfig, notice: Notice, record: Record, *, folder: Path, marks: Mapping[str, str]) -> None:
    """By command and by webhook, whichever there is; `record` hears (step, text) of each failure."""
    body = json.dumps(dict(notice.said)).encode()
    if config.command:
        problem = await _run(config.command, body, folder, marks)
        if problem:
            record("notify", f"notify.command {config.command[0]}: {problem}")
    if config.webhook:
        problem = await run_sync(_post, config.webhook, body, abandon_on_cancel=True)
        if problem:
            record("notify", f"notify.webhook {config.webhook}: {problem}")


async def _run(command: Sequence[str], body: bytes, folder: Path, marks: Mapping[str, str]) -> str:
    """What went wrong; "" if nothing did. Of our environment it has what a tool may see, and `ALLOWED`."""
    environ = environment(os.environ, marks, allow=ALLOWED)
    try:
        with anyio.fail_after(COMMAND_LIMIT):
            done = await anyio.run_process(list(command), input=body + b"\n", check=False, cwd=folder, env=environ)
    except TimeoutError:
        return f"it had not ended after {COMMAND_LIMIT:g} s, and was ended"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip()[-300:]
    return f"it exited with code {done.returncode}" + (f": {said}" if said else "")


def _post(address: str, body: bytes) -> str:
    """The same for the webhook; blocks."""
    import urllib.error  # with what it imports, a megabyte that most crews never need
    import urllib.request

    request = urllib.request.Request(  # noqa: S310 - the configuration takes http and https only
        address, body, {"Content-Type": "application/json", "User-Agent": "phase-supervisor"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_LIMIT):  # noqa: S310 - as above
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered with status {error.code}"
    except (OSError, ValueError) as error:
        return str(error)
