"""The commands that explain, from the record alone: why a phase is as it is, and what a week came to."""

from __future__ import annotations

import re
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.exits import UsageError

from .access import PhaseName, Session, opened, phase_key
from .crew import AsJson
from .events import opened_journal
from .output import say, say_json

if TYPE_CHECKING:
    from supervisor.journal import JournalReader, StoredEvent

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def why(
    ctx: typer.Context,
    phase: PhaseName,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the latest reasons.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Say why a phase was started, restarted, judged or given up: each decision with what it was based on."""
    from supervisor.why import Reason, gathered, last_words

    session: Session = ctx.obj
    key = phase_key(session, phase)
    workspace = session.workspace()
    found: tuple[Reason, ...] = ()
    if workspace.journal.exists():
        with closing(opened_journal(workspace.journal)) as journal:
            found = gathered(journal, key)
    shown = found[-limit:]
    if as_json:
        say_json({"phase": key, "reasons": [reason.as_json() for reason in shown]})
        return
    if len(shown) < len(found):
        say(f"… {len(found) - len(shown)} earlier ones; --limit {len(found)} shows all")
    say(*(f"{_when(reason.at)}  {reason.text}" for reason in shown))
    if found:
        say("")
    say(f"In short: {last_words(found)}")


def report(
    ctx: typer.Context,
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far back: 90m, 12h, 7d, 2w, or a date as 2026-01-31.")
    ] = "7d",
    as_json: AsJson = False,
) -> None:
    """Tell what the crew did in a time, on a page: work, deliveries, what waits, restarts and faults."""
    from supervisor.report import lines, made

    session: Session = ctx.obj
    now = time.time()
    start = beginning(since, now)
    with opened(session) as found:
        workspace = found.workspace
        events: list[StoredEvent] = []
        if workspace.journal.exists():
            with closing(opened_journal(workspace.journal)) as journal:
                events = _recorded(journal, start)
        told = made(found.store.state, found.config.topology, events, since=start, until=now)
    if as_json:
        say_json(told.as_json())
    else:
        say(*lines(told))


def _recorded(journal: JournalReader, start: float) -> list[StoredEvent]:
    """The supervisor's own records and the ends of cycles since then; progress is not read."""
    found: list[StoredEvent] = []
    for type_ in ("log_entry", "phase_error", "phase_start", "phase_complete"):
        cursor = None
        while True:
            batch, cursor = journal.read_up_to(cursor, 1000, None, type_)
            found += [event for event in batch if event.timestamp >= start]
            if not batch or cursor == journal.head():
                break
    return found


def beginning(said: str, now: float) -> float:
    """The time that `7d`, `12h` or a date stands for; raises `UsageError`."""
    if match := re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([mhdw])", said.strip().lower()):
        return now - float(match[1]) * UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise UsageError(f"--since {said!r} is no time; say 90m, 12h, 7d, 2w, or a date such as 2026-01-31") from None
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
