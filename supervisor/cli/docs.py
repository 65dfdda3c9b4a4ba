"""The commands about the documents' history: show, log, diff, trace, verify, export-git."""

from __future__ import annotations

import difflib
import itertools
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from docs_store.messages import USER
from supervisor.exits import Exit, UsageError
from supervisor.status import first_line
from supervisor.wording import clean
from supervisor.workspace import WorkspaceLock

from .access import Opened, Session, complete_document, opened
from .crew import AsJson
from .output import columns, harmless, say, say_json
from .work import when

if TYPE_CHECKING:
    from docs_store.replay import Record

app = typer.Typer(no_args_is_help=True, help="The documents: what they say, who wrote what when, whether all is whole.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="DOCUMENT",
        help="Such as QA_READ or MASTER_PLAN, with or without .md.",
        autocompletion=complete_document,
    ),
]


@app.command()
def show(
    ctx: typer.Context,
    document: Name,
    *,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="N|TIME", help="As it was after record N, or then: 2026-11-20T14:30, or 14:30."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what came since you last asked so; now it is read.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a document, as it is on record now or was after record N or at some time, or what is new in it."""
    session: Session = ctx.obj
    if new and at is not None:
        raise UsageError("--new is about now, --at about another time; use one of them")
    if new:
        _show_new(session, document, as_json=as_json)
        return
    with opened(session, damaged=True) as found:
        name = document_name(found, document)
        n = found.store.head if at is None else record_at(found, at)
        text = text_at(found, name, n)
    if as_json:
        say_json({"document": name, "record": n, "text": text})
    else:
        say(harmless(text.rstrip("\n")))


def _show_new(session: Session, document: str, *, as_json: bool) -> None:
    with opened(session) as found:
        name = document_name(found, document)
        unread, head = found.store.unread(USER, name), found.store.head
        told = bool(unread.messages or unread.reports)
        diff = []
        if unread and not told:
            before, after = (text_at(found, name, n) for n in (unread.since, head))
            diff = _diff(name, before, after, unread.since, head)
        found.store.mark_read(USER, name, head)
    title = {phase.key: phase.title for phase in found.config.topology.phases}
    lines = [
        f"{when(m.at)}  {title.get(m.by, m.by.capitalize())}  {m.kind}: {first_line(m.text)}  ({m.id}, {m.status})"
        for m in unread.messages
    ]
    lines += [f"{when(r.at)}  {title[r.phase]}  {r.result}: {first_line(r.detail)}  ({r.task})" for r in unread.reports]
    if as_json:
        messages = [
            {"n": m.n, "at": m.at, "by": m.by, "id": m.id, "kind": m.kind, "text": m.text, "status": m.status}
            for m in unread.messages
        ]
        reports = [
            {"n": r.n, "at": r.at, "by": r.phase, "task": r.task, "result": r.result, "detail": r.detail}
            for r in unread.reports
        ]
        changed = {"document": name, "since": unread.since, "to": head, "changed": unread.changed}
        say_json({**changed, "messages": messages, "reports": reports, "diff": "\n".join(diff)})
    elif lines or diff:
        say(*(harmless(line) for line in lines or diff))
    else:
        say(f"Nothing is new in {name}.md since record {unread.since}.")


@app.command()
def log(
    ctx: typer.Context,
    document: Annotated[
        str | None,
        typer.Argument(metavar="DOCUMENT", help="Only what touched this one.", autocompletion=complete_document),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the latest records.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who wrote what when: the history's records, the latest last."""
    session: Session = ctx.obj
    with opened(session, damaged=True) as found:
        name = document_name(found, document) if document else None
        entries = [(record, touched) for record, touched in history(found) if name is None or name in touched][-limit:]
    rows = []
    for record, touched in entries:
        if as_json:
            say_json(
                {
                    "n": record.n,
                    "at": record.at,
                    "by": record.by,
                    "epoch": record.epoch,
                    "kind": record.kind,
                    "documents": list(touched),
                    "hash": record.hash,
                    "data": dict(record.data),
                }
            )
        else:
            rows.append((str(record.n), when(record.at), record.by, record.kind, briefly(touched), gist(record.data)))
    say(*(columns(rows) if rows else []))


def briefly(names: tuple[str, ...]) -> str:
    """The names, or how many they are."""
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} documents"


def gist(data: Any) -> str:
    """What a person wants to know of a record's data, in a line."""
    told = next((data[key] for key in ("detail", "text", "reason", "note") if str(data.get(key) or "").strip()), "")
    if not told and data.get("posts"):
        first, *more = data["posts"]
        told = f"{first['kind']}: {first['text']}" if not more else f"{first['kind']} and {len(more)} more"
    if not told and data.get("effects"):
        told = ", ".join(f"{effect['what']} {effect['id']}" for effect in data["effects"])
    return clean(first_line(str(told or data.get("task") or data.get("id") or data.get("document") or "")))[:100]


@app.command()
def diff(
    ctx: typer.Context,
    document: Name,
    older: Annotated[int | None, typer.Argument(metavar="A", help="Default: before the last change.")] = None,
    newer: Annotated[int | None, typer.Argument(metavar="B", help="A record's number; default: now.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show how a document changed between two records; by default, its last change."""
    session: Session = ctx.obj
    with opened(session, damaged=True) as found:
        name = document_name(found, document)
        end = found.store.head if newer is None else newer
        if older is None:
            last = [record.n for record, touched in history(found, until=end) if name in touched]
            older = last[-1] - 1 if last else 0
        before, after = text_at(found, name, older), text_at(found, name, end)
    text = "\n".join(_diff(name, before, after, older, end))
    if as_json:
        say_json({"document": name, "from": older, "to": end, "diff": text})
    elif text:
        say(harmless(text))
    else:
        say(f"{name}.md is the same at record {older} and at record {end}.")


@app.command()
def trace(
    ctx: typer.Context,
    message: Annotated[str, typer.Argument(metavar="ID", help="A message, or a thread.")],
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="A Mermaid sequence diagram.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the story of a message's thread: who asked whom for what, and what came of it."""
    import docs_store.trace as tracing

    session: Session = ctx.obj
    with opened(session, damaged=True) as found:
        state = found.store.state
        thread = state.messages[message].thread if message in state.messages else message
        if thread not in state.threads:
            raise UsageError(
                f"there is no message or thread {message!r}; ids stand in the documents (<!-- id:… -->) and in "
                "`supervisor docs log --json`"
            )
        if as_json:
            say_json(tracing.as_json(state, thread))
        elif mermaid:
            say(harmless(tracing.mermaid(state, thread, found.config.topology)))
        else:
            say(harmless(tracing.text(state, thread, found.config.topology)))


@app.command()
def verify(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Check the whole history, record by record; names the first bad one. Exit code 1 if there is one."""
    from docs_store.store import Store  # for this command only

    session: Session = ctx.obj
    workspace = session.workspace()
    topology = workspace.read_config().topology
    verdict = Store.examine(workspace.crew, topology=topology, head_file=workspace.head)
    if as_json:
        say_json(
            {
                "ok": verdict.ok,
                "records": verdict.n,
                "problem": verdict.problem,
                "bad": verdict.bad,
                "file": str(verdict.file) if verdict.file else None,
            }
        )
    elif verdict.ok:
        say(f"The history is whole: {verdict.n} records.")
    else:
        say(f"The history is whole up to record {verdict.n}; after that: {clean(verdict.problem)}")
        say(
            "Nothing is written to it until that is settled: put crew/.history back from a backup, or set the damaged "
            "end aside with `supervisor docs set-aside`."
        )
    if not verdict.ok:
        raise typer.Exit(Exit.WORK_REMAINS)


@app.command("set-aside")
def set_aside(
    ctx: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only says what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move the damaged end of a history out of the way, so that work can go on from the last good record."""
    from docs_store.store import Store  # for this command only

    session: Session = ctx.obj
    workspace = session.workspace()
    topology = workspace.read_config().topology
    verdict = Store.examine(workspace.crew, topology=topology, head_file=workspace.head)
    done = None
    if yes and not verdict.ok:
        with WorkspaceLock(workspace, role="command").acquire():
            done = Store.set_aside(workspace.crew, topology=topology, head_file=workspace.head)
    if as_json:
        say_json({"ok": verdict.ok, "records": verdict.n, "folder": str(done.folder) if done else None})
    elif verdict.ok:
        say(f"The history is whole: {verdict.n} records. There is nothing to set aside.")
    elif done is not None:
        say(f"Records 1 to {done.n} stand; what came after them is in {done.folder}.")
        say("What only the documents still show of it is taken in from there by the next run, as edits of yours.")
    else:
        say(f"The history is whole up to record {verdict.n}; after that: {clean(verdict.problem)}")
        say("A backup of crew/.history is the better way out. Without one: supervisor docs set-aside --yes")
    if not verdict.ok and done is None:
        raise typer.Exit(Exit.WORK_REMAINS)


@app.command("export-git")
def export_git(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet, or is empty.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write the documents' history as a git repository, one commit per record, for sharing and for git's tools."""
    from supervisor.export import export

    session: Session = ctx.obj
    target = session.folder / folder
    with opened(session) as found:
        count = export(found.store, found.config.topology, target, git=shutil.which("git"))
    if as_json:
        say_json({"folder": str(target), "commits": count})
    else:
        say(f"{target} has {count} commits; look with: git -C {target} log --stat")


def _diff(name: str, before: str, after: str, older: int, newer: int) -> list[str]:
    lines = before.split("\n"), after.split("\n")
    return list(difflib.unified_diff(*lines, f"{name}.md@{older}", f"{name}.md@{newer}", lineterm="", n=2))


def document_name(found: Opened, word: str) -> str:
    """The document that the user means, in any case; raises `UsageError` with the names there are."""
    wanted = word.upper().removesuffix(".MD").removeprefix("CREW/")
    names = [document.name for document in found.config.topology.documents]
    if wanted not in names:
        raise UsageError(f"there is no document named {word!r}; there are: {', '.join(names)}")
    return wanted


def record_at(found: Opened, word: str) -> int:
    """The record that the user means: its number, or the last one at a time (local, where no zone is said)."""
    if word.isdecimal():
        return int(word)
    try:
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", word):
            moment = datetime.combine(datetime.now().astimezone().date(), time.fromisoformat(word)).astimezone()
        else:
            moment = datetime.fromisoformat(word).astimezone()
    except ValueError:
        raise UsageError(f"{word!r} is neither a record's number nor a time such as 2026-11-20T14:30") from None
    last = 0
    for record in good_records(found):
        if datetime.fromisoformat(record.at) > moment:
            break
        last = record.n
    if not last:
        raise UsageError(f"the history had not begun at {word}")
    return last


def good_records(found: Opened) -> Iterator[Record]:
    """The records up to the store's head, which is the last good one of a damaged history."""
    return itertools.islice(found.store.records(), found.store.head)


def text_at(found: Opened, name: str, n: int | None) -> str:
    """The document's text after record n; "" before it was on record."""
    from docs_store.views import render

    if n is None or n == found.store.head:
        return found.store.text(name)
    if not 0 <= n <= found.store.head:
        raise UsageError(f"there is no record {n}; the history goes from 1 to {found.store.head}")
    state = found.store.state_at(n)
    known = state.documents.get(name)
    return render(found.config.topology, found.config.topology.document(name), state) if known else ""


def history(found: Opened, *, until: int | None = None) -> Iterator[tuple[Record, tuple[str, ...]]]:
    """Each record with the documents that it touched, oldest first."""
    from docs_store.messages import State
    from docs_store.replay import apply

    state = State()
    for record in good_records(found):
        if until is not None and record.n > until:
            return
        apply(state, record, found.config.topology)
        yield record, tuple(name for name, document in state.documents.items() if document.n == record.n)
