"""`supervisor events`: what happened, from the journal, with filters; and what goes on happening."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.exits import UsageError, UserError
from supervisor.wording import clock, title_of, told

from .access import Session
from .output import say

if TYPE_CHECKING:
    from supervisor.journal import JournalReader, StoredEvent

BATCH = 1000
BIRTH = 1.0  # seconds that a journal may take from its file to its first table
LOOK_AGAIN = 0.25  # seconds between two looks of --follow


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen; Ctrl-C ends.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="CURSOR", help="Only what came later.")] = None,
    phase: Annotated[str | None, typer.Option("--phase", help="Only this phase's.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, such as finding or phase_error.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show what happened, oldest first. Works whether or not the crew runs."""
    session: Session = ctx.obj
    workspace = session.workspace()
    if phase is not None:
        config = workspace.read_config()
        known = [known.key for known in config.topology.phases]
        if phase.lower() not in known:
            raise UsageError(f"there is no phase named {phase!r}; there are: {', '.join(known)}")
        phase = phase.lower()
    from supervisor.journal import Cursor, CursorGoneError

    try:
        cursor = Cursor.parse(since) if since is not None else None
    except ValueError as error:
        raise UsageError(f"--since: {error}; it is the `cursor` of an event in `supervisor events --json`") from None
    while not workspace.journal.exists():
        if not follow:
            return  # nothing has run here yet, so nothing happened
        time.sleep(LOOK_AGAIN)
    with closing(opened_journal(workspace.journal)) as journal:
        while True:
            try:
                batch, cursor = journal.read_up_to(cursor, BATCH, phase, type_)
            except CursorGoneError as error:
                raise UserError(str(error)) from None
            for event in batch:
                show(event, as_json=as_json)
            sys.stdout.flush()
            if cursor == journal.head():
                if not follow:
                    return
                time.sleep(LOOK_AGAIN)


def opened_journal(path: Path) -> JournalReader:
    """The journal, read-only; one that is just being created is waited for."""
    from supervisor.journal import JournalError, JournalReader

    until = time.monotonic() + BIRTH
    while True:
        try:
            journal = JournalReader(path)
            try:
                journal.head()
            except BaseException:
                journal.close()
                raise
        except JournalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
        else:
            return journal


def show(event: StoredEvent, *, as_json: bool) -> None:
    """One line: SPEC §6's object, or words."""
    if as_json:
        say(json.dumps(event.as_json()))
    else:
        say(f"{clock(event.timestamp)} {title_of(event.phase, None):<10} {told(event)}".rstrip())
