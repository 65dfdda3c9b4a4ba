"""The commands about the crew as a whole: making a workspace, running it, looking at it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.exits import Exit, UsageError
from supervisor.options import RunOptions, Show
from supervisor.wording import brief, clean
from supervisor.workspace import none_runs

from .access import Session
from .live import following
from .output import columns, say, say_json, warn

if TYPE_CHECKING:
    from supervisor.status import CrewStatus

LOOK_AGAIN = 0.5  # seconds between two looks of --follow

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def init(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The repository; default: this folder.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a repository a workspace: supervisor.toml, the documents in crew/, .gitignore lines. Overwrites nothing."""
    from supervisor.bootstrap import init as make

    session: Session = ctx.obj
    report = make(session.folder / folder if folder else session.folder)
    if as_json:
        say_json(
            {
                "root": str(report.root),
                "created": list(report.created),
                "changed": list(report.changed),
                "kept": list(report.kept),
            }
        )
        return
    for word, paths in (("created", report.created), ("changed", report.changed), ("kept", report.kept)):
        say(*(f"{word:>8}  {path}" for path in paths))
    say(
        "",
        f"{report.root} is a workspace. Next:",
        "  1. say what you want in crew/MASTER_PLAN.md, crew/PRIMARY_OBJECTIVES.md and crew/TERTIARY_OBJECTIVES.md",
        "  2. supervisor run --until-idle",
    )


def run(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The workspace; default: this folder's.")] = None,
    *,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when there is nothing left that the crew can do.")
    ] = False,
    use_queue_ipc: Annotated[
        bool, typer.Option("--use-queue-ipc", help="Send events by the queue, whatever else is configured.")
    ] = False,
    use_stdout: Annotated[
        bool, typer.Option("--use-stdout", help="Send events as marker lines on standard output.")
    ] = False,
    validate_ipc: Annotated[
        bool,
        typer.Option(
            "--validate-ipc", help="Do the same work in both modes, on copies, and print every difference instead."
        ),
    ] = False,
    runs: Annotated[int, typer.Option("--runs", help="So many comparisons, with --validate-ipc.")] = 1,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="-v shows every event, -vv tracebacks of errors too.")
    ] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Readable lines instead of the live view (the default without a terminal).")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but the summary; for the background.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per event instead of the live view.")
    ] = False,
) -> None:
    """Run the crew in the foreground, until Ctrl-C or, with --until-idle, until it has done what it can.

    Exit codes: 0 done and approved by QA; 1 work remains, or waits for you;
    75 a supervisor is running here already; 78 supervisor.toml has mistakes;
    130 ended on request (Ctrl-C, SIGTERM, supervisor stop).
    """
    if plain + as_json + quiet > 1:
        raise UsageError("--plain, --json and --quiet exclude each other; choose one")
    if use_queue_ipc and use_stdout:
        raise UsageError("--use-queue-ipc and --use-stdout exclude each other; choose one")
    from supervisor.background import Silent
    from supervisor.bootstrap import require_trust
    from supervisor.console import view_for
    from supervisor.foreground import run_workspace
    from supervisor.own_actors import require_usable_actors

    session: Session = ctx.obj
    start = Session(session.folder / folder) if folder else session
    workspace = start.workspace()
    config = workspace.read_config()
    require_trust(workspace, config)
    require_usable_actors(workspace, config)
    level = max(verbose, session.verbose)
    if validate_ipc:
        from .rollout import validate

        if use_queue_ipc or use_stdout:
            raise UsageError("--validate-ipc uses both modes; leave out --use-queue-ipc and --use-stdout")
        raise typer.Exit(validate(workspace, runs=runs, verbose=level, as_json=as_json))
    if runs != 1:
        raise UsageError("--runs goes with --validate-ipc")
    show: Show = "json" if as_json else "plain" if plain else "auto"
    options = RunOptions(
        workspace=workspace.root,
        until_idle=until_idle,
        use_queue_ipc=use_queue_ipc,
        use_stdout=use_stdout,
        verbose=level,
        show=show,
    )
    raise typer.Exit(run_workspace(options, Silent() if quiet else view_for(show, verbose=level)))


def status(
    ctx: typer.Context,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing it until the supervisor ends; Ctrl-C ends only this.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each phase is doing. Exit code 3 when no supervisor runs here."""
    session: Session = ctx.obj
    if follow and _followed(session, as_json=as_json):
        return
    now = _status_now(session)
    if as_json:
        say_json(now.as_json())
    else:
        _say_status(now)
    if now.pid is None:
        raise typer.Exit(Exit.NONE_RUNNING)


def _status_now(session: Session) -> CrewStatus:
    """From the running supervisor; from what it saved last, should it not answer; else from the record."""
    from supervisor.control.client import UnreachableError, find_running
    from supervisor.status import CrewStatus, at_rest, load_status
    from supervisor.workspace import holder

    from .access import opened

    workspace = session.workspace()
    client = find_running(workspace)
    if client is not None:
        try:
            return CrewStatus.from_json(client.get("/api/status"))
        except UnreachableError as error:
            warn(f"{error}. This is what it said last:")
    pid = holder(workspace)
    said = load_status(workspace)
    if pid is not None and said is not None and said.pid == pid:
        return said
    if workspace.history.is_dir():
        with opened(session) as found:
            return at_rest(str(workspace.root), found.config.topology, found.store.state, pid=pid)
    return at_rest(str(workspace.root), workspace.read_config().topology, None, pid=pid)


def _followed(session: Session, *, as_json: bool) -> bool:
    """Show it again and again while the supervisor runs; False if none does. As JSON: a line for each change."""
    from supervisor.control.client import UnreachableError, find_running
    from supervisor.status import CrewStatus

    client = find_running(session.workspace())
    if client is None:
        return False
    with following(client, as_json=as_json) as show:
        while True:
            try:
                show(CrewStatus.from_json(client.get("/api/status")))
            except UnreachableError:
                return True  # it has ended
            time.sleep(LOOK_AGAIN)


def _say_status(now: CrewStatus) -> None:
    where = now.workspace
    say(f"supervisor {now.pid} runs in {where}" if now.pid else none_runs(where))
    rows = [("PHASE", "STATE", "", "RESTARTS", "VIA", "TASK")]
    rows += [
        (
            phase.title,
            phase.state,
            f"{phase.pct} %" if phase.state == "working" else "",
            str(phase.restarts),
            phase.mode or "-",
            brief(" ".join(part for part in (phase.step, phase.text or phase.detail) if part), 100),
        )
        for phase in now.phases.values()
    ]
    say(*columns(rows))
    say(*(clean(note) for note in now.notes))
    queue = f", queue {now.queue_depth}/{now.queue_capacity}" if now.queue_capacity else ""
    say(f"record {now.head}{queue}" + "".join(f", {name} {count}" for name, count in now.counters.items() if count))


def trust(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Agree to the commands and code that this workspace's supervisor.toml names; they run as you."""
    from supervisor.bootstrap import trust as agree

    session: Session = ctx.obj
    workspace = session.workspace()
    config = workspace.read_config()
    commands = config.commands()
    is_new = agree(workspace, config)
    if as_json:
        say_json({"workspace": str(workspace.root), "commands": list(commands), "new": is_new})
    elif not commands:
        say(f"{workspace.config} names no commands or code of its own; there is nothing to trust.")
    else:
        say("These will be run as you:" if is_new else "Trusted already:", *(f"  {command}" for command in commands))


def doctor(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Check what a run needs (Python, SQLite, disk, permissions, tests, documents), and say what to do."""
    from supervisor.doctor import examine

    session: Session = ctx.obj
    checks = examine(session.folder)
    if as_json:
        say_json([check.as_json() for check in checks])
    else:
        marks = {"ok": "ok", "warning": "note", "error": "WRONG"}
        say(*columns((marks[check.level], check.name, check.text) for check in checks))
        for check in checks:
            if check.fix:
                say(f"{check.name}: {check.fix}")
    if any(check.level == "error" for check in checks):
        raise typer.Exit(Exit.WORK_REMAINS)
