"""The commands to a running supervisor, as clients of its control API: stop, restart, reload; and `start`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from supervisor.exits import Exit, UsageError, UserError
from supervisor.wording import clean
from supervisor.workspace import Workspace, WorkspaceBusyError, find, holder

from .access import Session, complete_phase, phase_key
from .crew import AsJson
from .output import say, say_json

if TYPE_CHECKING:
    from psutil import Process

    from supervisor.control.client import Client

LOOK_AGAIN = 0.1  # seconds between two looks at whether something has begun or ended
TAIL = 2000  # characters of what a supervisor printed before it ended


def stop(
    ctx: typer.Context,
    *,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait for its end.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """End the running supervisor in good order, and wait until it has gone. Exit code 3 when none runs."""
    from supervisor.control.client import UnreachableError, require_running
    from supervisor.logs import FILE

    session: Session = ctx.obj
    workspace = session.workspace()
    pid = holder(workspace)
    process = _process(pid) if pid is not None else None
    try:
        client = require_running(workspace)
        pid, process = client.endpoint.pid, process or _process(client.endpoint.pid)  # one may have begun just now
        client.command("stop")
    except UnreachableError:
        if pid is None or sys.platform == "win32":
            raise
        with suppress(ProcessLookupError):  # it was quicker than we were
            os.kill(pid, signal.SIGTERM)  # the same request, for one that does not answer; `holder` has checked who
    until = time.monotonic() + timeout
    while _lives(process):
        if time.monotonic() >= until:
            raise UserError(
                f"process {pid} was asked to stop and has not ended within {timeout:g} s; it goes on stopping, and "
                f"`supervisor stop` waits for it again. `supervisor events --follow` and {workspace.logs / FILE} show "
                f"how far it is; ending process {pid} by force loses nothing that is on record"
            )
        time.sleep(LOOK_AGAIN)
    if as_json:
        say_json({"pid": pid, "stopped": True})
    else:
        say(f"the supervisor (process {pid}) has stopped; everything is on record")


def _process(pid: int) -> Process | None:
    import psutil

    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _lives(process: Process | None) -> bool:
    """Until the process itself has gone: its lock is free a moment earlier."""
    import psutil

    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def restart(
    ctx: typer.Context,
    phase: Annotated[
        str | None, typer.Argument(metavar="PHASE", help="Such as developer.", autocompletion=complete_phase)
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All phases, one after the other: each is ready before the next is touched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give a phase a new worker, also one that was given up; what it had in hand is taken up again."""
    session: Session = ctx.obj
    if every == (phase is not None):
        raise UsageError("name a phase, or say --all")
    client = _client(session)
    body = {"phase": phase_key(session, phase)} if phase is not None else {"all": True}
    _tell(client.command("restart", body), as_json=as_json)


def reload(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Read supervisor.toml again. Only what changed is touched; a file with mistakes changes nothing."""
    _tell(_client(ctx.obj).command("reload"), as_json=as_json)


def dashboard(
    ctx: typer.Context,
    *,
    url: Annotated[
        bool, typer.Option("--url", help="Print the address instead: it holds the key to this run, keep it private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open the running crew's dashboard in a browser: what each phase does, what waits for you, every document."""
    import webbrowser

    from supervisor.control.endpoint import HOST, door, endpoint_file

    session: Session = ctx.obj
    endpoint = _client(session).endpoint
    if as_json:
        say_json({"url": endpoint.dashboard})
    elif url:
        say(endpoint.dashboard)
    elif _has_screen() and webbrowser.open(door(endpoint_file(session.workspace()), endpoint).as_uri()):
        say(f"the dashboard of {endpoint.url} is opened in your browser")
    else:
        raise UserError(
            "no browser can be opened here. `supervisor dashboard --url` prints the address; from another machine, "
            f"forward the port first: ssh -L {endpoint.port}:{HOST}:{endpoint.port} …"
        )


def _has_screen() -> bool:
    """Whether a browser would have somewhere to open: a text browser in this terminal is of no use."""
    return sys.platform in {"win32", "darwin"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _client(session: Session) -> Client:
    from supervisor.control.client import require_running

    return require_running(session.workspace())


def _tell(reply: Any, *, as_json: bool) -> None:
    if as_json:
        say_json(reply)
    else:
        say(clean(str(reply["text"])))


def start(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The workspace; default: this folder's.")] = None,
    *,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait until it is ready.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Start the crew in the background, for people without a service manager. Exit code 75 when one runs already.

    It outlives this terminal. Its summary and errors go to .supervisor/logs/console.log. End it with: supervisor stop
    """
    from supervisor.bootstrap import require_trust
    from supervisor.control.endpoint import endpoint_file

    session: Session = ctx.obj
    workspace = find(session.folder / folder) if folder else session.workspace()
    require_trust(workspace, workspace.read_config())
    endpoint_file(workspace)  # where it cannot be, no command would reach what is started here
    workspace.make_folders()
    if (pid := holder(workspace)) is not None:
        raise WorkspaceBusyError(workspace.root, pid)
    output = workspace.logs / "console.log"
    began = output.stat().st_size if output.exists() else 0
    process = _detached(workspace, output)
    _wait_ready(workspace, process, time.monotonic() + timeout, output, began)
    if as_json:
        say_json({"pid": process.pid, "workspace": str(workspace.root)})
    else:
        say(f"the supervisor runs as process {process.pid}; supervisor status shows it, supervisor stop ends it")


def _detached(workspace: Workspace, output: Path) -> subprocess.Popen[bytes]:
    """The crew in a session of its own, with its output in a file."""
    command = [sys.executable, "-P", "-m", "supervisor.background", str(workspace.root)]
    flags: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    with output.open("ab") as out:
        return subprocess.Popen(
            command, cwd=workspace.root, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **flags
        )


def _wait_ready(workspace: Workspace, process: subprocess.Popen[bytes], until: float, output: Path, began: int) -> None:
    """Return once every phase has its worker; raise with the supervisor's own words if it ended instead."""
    from supervisor.control.client import find_running

    while True:
        code = process.poll()
        if code is not None:
            said = output.read_bytes()[began:].decode("utf-8", "replace").strip()[-TAIL:]
            known = code in {int(exit_) for exit_ in Exit} and code != Exit.DONE
            raise UserError(
                f"the supervisor has ended with code {code}: {said or f'see {output}'}",
                exit_code=Exit(code) if known else Exit.INTERNAL,
            )
        client = find_running(workspace)
        if client is not None and client.endpoint.pid == process.pid:
            phases = client.get("/api/status")["phases"].values()
            if all(phase["state"] not in {"starting", "stopped"} for phase in phases):
                return
        if time.monotonic() >= until:
            raise UserError(
                f"the supervisor (process {process.pid}) is not ready yet; it goes on starting, "
                "and `supervisor status` shows how far it is"
            )
        time.sleep(LOOK_AGAIN)
