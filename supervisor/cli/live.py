"""How `status --follow` looks: `run`'s live view in a terminal, else lines or JSON; and a view that shows nothing."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from supervisor.exits import UserError

from .output import say, say_json

if TYPE_CHECKING:
    from supervisor.control.client import Client
    from supervisor.status import CrewStatus

RECENT = 12  # events shown below the phases

Show = Callable[["CrewStatus"], None]


@contextmanager
def following(client: Client, *, as_json: bool) -> Iterator[Show]:
    """A function that shows a status whenever it differs from the last one."""
    if as_json:
        yield _on_change(lambda now: say_json(now.as_json()))
    elif not sys.stdout.isatty():
        yield _on_change(_lines)
    else:
        from rich.console import Console
        from rich.live import Live

        from supervisor.console import render

        began = time.monotonic()
        recent = _Recent(client)
        with Live(console=Console(), auto_refresh=False) as live:
            yield lambda now: live.update(render(now, recent.look(), time.monotonic() - began), refresh=True)


def _on_change(show: Show) -> Show:
    before: list[CrewStatus] = []

    def changed(now: CrewStatus) -> None:
        if before[-1:] != [now]:
            before[:] = [now]
            show(now)
            sys.stdout.flush()

    return changed


def _lines(now: CrewStatus) -> None:
    say(
        ", ".join(
            f"{key} {phase.state}" + (f" {phase.pct} % {phase.step}".rstrip() if phase.state == "working" else "")
            for key, phase in now.phases.items()
        )
    )


class _Event:
    """An event as the API shows it, with the attributes that the live view reads."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self.type = str(said["type"])
        self.phase = str(said["phase"])
        self.step = str(said["step"])
        self.pct = int(said["pct"])
        self.detail = str(said["detail"])
        self.timestamp = float(said["timestamp"])

    def as_json(self) -> dict[str, Any]:
        return self._said


class _Recent:
    """The last events, read a page at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cursor: str | None = None
        self._events: deque[_Event] = deque(maxlen=RECENT)

    def look(self) -> tuple[_Event, ...]:
        """Those that have come since are added; when they cannot be read, the old ones stay."""
        more = True
        while more:
            try:
                page = self._client.get("/api/events", after=self._cursor, limit=1000)
            except UserError:
                break
            self._events.extend(_Event(said) for said in page["events"] if said["type"] != "log_entry")
            self._cursor, more = page["cursor"], page["more"]
        return tuple(self._events)
