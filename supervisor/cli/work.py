"""The commands about the work: giving tasks, answering, holding phases, seeing changes and taking them back."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from docs_store.messages import USER
from supervisor.commands import draft_of
from supervisor.exits import UsageError
from supervisor.status import inbox as awaited
from supervisor.status import waiting
from supervisor.wording import brief, clean

from .access import Session, complete_phase, complete_waiting, opened, phase_key
from .crew import AsJson
from .output import columns, harmless, say, say_json

if TYPE_CHECKING:
    from docs_store.messages import State


def task(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help='What is to be done; may begin with its kind, as in "Issue: …".')],
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="PHASE", help="Which phase gets it.", autocompletion=complete_phase)
    ] = "planning",
    priority: Annotated[str, typer.Option("--priority", help="HIGH, MEDIUM or LOW.")] = "MEDIUM",
    as_json: AsJson = False,
) -> None:
    """Give the crew a task: it lands in the phase's READ document. Works whether or not the crew runs."""
    session: Session = ctx.obj
    with opened(session, writes=True) as found:
        key = found.phase(to)
        posted = found.store.post(USER, draft_of(key, text, priority))
        document = found.config.topology.read_document(key).file
    if as_json:
        say_json({"id": posted.id, "to": key, "joined": posted.joined, "document": f"crew/{document}"})
    elif posted.joined:
        say(f"{posted.id} joined {posted.joined}, which is open about the same, in crew/{document}")
    else:
        say(f"{posted.id} is in crew/{document}")


def inbox(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Show what waits for you: blocked and quarantined tasks, questions, phases that were given up.

    Answer with `supervisor answer ID "…"`; a phase wants `supervisor restart PHASE`.
    """
    session: Session = ctx.obj
    with opened(session) as found:
        items = awaited(found.store.state)
    if as_json:
        say_json([item.as_json() for item in items])
        return
    if not items:
        say("Nothing waits for you.")
    for item in items:
        whose = f" {item.phase}" if item.phase not in {"", item.id} else ""
        say(f"{item.id}  [{item.what}{whose}]  since {clean(item.since)}")
        say(*(f"    {line}" for line in harmless(f"{item.kind}: {item.text}").split("\n")))
        if item.request:
            say(*(f"    > {line}" for line in harmless(item.request).split("\n")))
        if item.options:
            say(f"    one of: {', '.join(map(clean, item.options))}")
    answerable = [item.id for item in items if item.what != "given up"]
    if answerable:
        say("", f'Answer with: supervisor answer {answerable[0]} "…"')


def answer(
    ctx: typer.Context,
    message: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="As `supervisor inbox` shows it; a unique beginning will do.",
            autocompletion=complete_waiting,
        ),
    ],
    text: Annotated[str, typer.Argument(help="Your answer; the phase reads it with the task, which opens again.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Answer what waits in the inbox."""
    session: Session = ctx.obj
    with opened(session, writes=True) as found:
        chosen = _one(found.store.state, message)
        record = found.store.answer(chosen, text)
        asked = chosen in found.store.state.questions
    if as_json:
        say_json({"id": chosen, "record": record})
    else:
        say(f"{chosen} is answered (record {record})" + ("." if asked else "; the crew goes on with it."))


def _one(state: State, beginning: str) -> str:
    """The id that begins so among what waits; an exact one may be of anything."""
    if beginning in state.messages or beginning in state.questions:
        return beginning
    ids = [item.id for item in waiting(state) if item.id.startswith(beginning)]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise UsageError(f"{beginning!r} begins {len(ids)} ids: {', '.join(ids[:5])}; type more of it")
    if beginning in state.epochs and state.epochs[beginning].given_up:
        raise UsageError(f"{beginning} was given up and takes no answer: supervisor restart {beginning}")
    raise UsageError(f"nothing with the id {beginning!r} waits; `supervisor inbox` lists what does")


PhaseArgument = Annotated[
    str | None, typer.Argument(metavar="PHASE", help="Default: all phases.", autocompletion=complete_phase)
]


def pause(ctx: typer.Context, phase: PhaseArgument = None, *, as_json: AsJson = False) -> None:
    """Hold a phase, or all: what is in hand is finished, nothing new is begun. Lasts until `resume`."""
    _hold(ctx.obj, phase, paused=True, as_json=as_json)


def resume(ctx: typer.Context, phase: PhaseArgument = None, *, as_json: AsJson = False) -> None:
    """Let a held phase, or all, go on."""
    _hold(ctx.obj, phase, paused=False, as_json=as_json)


def _hold(session: Session, phase: str | None, *, paused: bool, as_json: bool) -> None:
    """Through the running supervisor, so that it heeds it at once; on record only, where none runs."""
    from supervisor.control.client import find_running

    client = find_running(session.workspace())
    if client is not None:
        body = {"phase": phase_key(session, phase)} if phase else {}
        reply = client.command("pause" if paused else "resume", body)
        if as_json:
            say_json(reply["data"])
        else:
            say(clean(reply["text"]))
        return
    with opened(session, writes=True) as found:
        keys = [found.phase(phase)] if phase else [known.key for known in found.config.topology.phases]
        for key in keys:
            found.store.pause(key, paused)
    if as_json:
        say_json({"phases": keys, "paused": paused})
    else:
        say(f"{', '.join(keys)}: {'paused; `supervisor resume` lets them go on' if paused else 'going on'}")


def changes(
    ctx: typer.Context,
    of: Annotated[str | None, typer.Argument(metavar="TASK", help="Show this task's change as a diff.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what the crew changed, and what of it is in your files; with a TASK, the change itself."""
    from supervisor.changes import diff, listed

    session: Session = ctx.obj
    with opened(session) as found:
        made = listed(found.store.state)
        if of is not None:
            text = diff(found.workspace, made, of)
            if as_json:
                say_json({"task": of, "diff": text})
            else:
                say(harmless(text.rstrip("\n")))
            return
    if as_json:
        say_json([change.as_json() for change in made])
        return
    if not made:
        say("The crew has changed nothing yet.")
        return
    say(
        *columns(
            (
                change.task,
                change.phase,
                change.state,
                brief(change.note),
                ", ".join(change.files),
            )
            for change in made
        )
    )


def undo(
    ctx: typer.Context,
    of: Annotated[str, typer.Argument(metavar="TASK", help="As `supervisor changes` shows it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Take a delivered change back out of your files. Lines you have changed since are left alone, and named."""
    from supervisor.changes import take_back

    session: Session = ctx.obj
    with opened(session, writes=True) as found:
        done = take_back(found.workspace, found.store, of)
    if as_json:
        say_json(done.as_json())
        if done.conflicts:
            raise typer.Exit(1)
        return
    say(*(f"restored  {clean(path)}" for path in done.files))
    if not done.files and not done.conflicts:
        say("Your files do not have that change any more; nothing was to be done.")
    if done.conflicts:
        say(*(f"left alone  {clean(problem)}" for problem in done.conflicts))
        raise typer.Exit(1)


def when(iso: str) -> str:
    """A record's time, as local date and time to the second."""
    try:
        return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(iso)
