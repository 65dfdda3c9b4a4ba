"""`supervisor events`: what happened, from the journal, with filters; and what goes on happening."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipc.events import WELL_KNOWN_TYPES
from supervisor.exits import UsageError, UserError
from supervisor.wording import clean, clock, title_of, told

from .access import SUPERVISOR, Session, complete_source, complete_type, phase_key
from .output import say, warn

if TYPE_CHECKING:
    from supervisor.journal import Cursor, JournalReader, StoredEvent

BATCH = 1000
BIRTH = 1.0  # seconds that a journal may take from its file to its first table
LOOK_AGAIN = 0.25  # seconds between two looks of --follow


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen; Ctrl-C ends.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="CURSOR", help="Only what came later.")] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            "--phase",
            metavar="PHASE",
            help="Only this phase's, or `supervisor` for what the supervisor says.",
            autocompletion=complete_source,
        ),
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only this type, such as finding or phase_error.",
            autocompletion=complete_type,
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", "-n", metavar="N", min=1, help="Only the last so many of them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show what happened, oldest first. Works whether or not the crew runs."""
    session: Session = ctx.obj
    workspace = session.workspace()
    if phase is not None:
        phase = phase.lower() if phase.lower() == SUPERVISOR else phase_key(session, phase)
    from supervisor.journal import Cursor, CursorGoneError

    try:
        cursor = Cursor.parse(since) if since is not None else None
    except ValueError as error:
        raise UsageError(f"--since: {error}; it is the `cursor` of an event in `supervisor events --json`") from None
    was_there = workspace.journal.exists()
    if not was_there:
        _note_type(type_, None)
        if not follow:
            return  # nothing has run here yet, so nothing happened
    while not workspace.journal.exists():
        time.sleep(LOOK_AGAIN)
    with closing(opened_journal(workspace.journal)) as journal:
        if was_there:
            _note_type(type_, journal)
        while True:
            try:
                if last is None:
                    batch, cursor = journal.read_up_to(cursor, BATCH, phase, type_)
                else:
                    batch, cursor = _last(journal, last, cursor, phase, type_)
                    last = None
            except CursorGoneError as error:
                raise UserError(str(error)) from None
            for event in batch:
                show(event, as_json=as_json)
            sys.stdout.flush()
            if cursor == journal.head():
                if not follow:
                    return
                time.sleep(LOOK_AGAIN)


def _note_type(type_: str | None, journal: JournalReader | None) -> None:
    """Say so where that type is on record nowhere: one of somebody's own may come yet, a mistyped one never does."""
    if type_ is None or type_ in WELL_KNOWN_TYPES:
        return
    seen = journal.types() if journal is not None else frozenset()
    if type_ not in seen:
        known = ", ".join((*WELL_KNOWN_TYPES, *sorted(seen.difference(WELL_KNOWN_TYPES))))
        warn(clean(f"Note: no event of type {type_!r} is on record here. Known types: {known}"))


def _last(
    journal: JournalReader, count: int, after: Cursor | None, phase: str | None, type_: str | None
) -> tuple[list[StoredEvent], Cursor]:
    """The last so many that were asked for, and where to go on."""
    head, oldest = journal.head(), journal.oldest()
    if after is None and phase is None and type_ is None and oldest is not None:
        after = replace(head, n=max(head.n - count, oldest.n - 1))  # no need to read all that is older
    found: deque[StoredEvent] = deque(maxlen=count)
    while True:
        batch, after = journal.read_up_to(after, BATCH, phase, type_)
        found.extend(batch)
        if after == journal.head():
            return list(found), after


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
