"""The commands that make a crew a service of this system: print, install, uninstall, start, stop, status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.exits import Exit, UsageError

from .access import Session
from .crew import AsJson
from .output import say, say_json

if TYPE_CHECKING:
    from supervisor.service.definition import Kind, Service

app = typer.Typer(
    name="service",
    no_args_is_help=True,
    help="Let the system's service manager run the crew: systemd, launchd or Windows services.",
)


class Wrapper(StrEnum):
    """Who hosts the service."""

    systemd = "systemd"
    launchd = "launchd"
    shawl = "shawl"
    winsw = "winsw"
    nssm = "nssm"

    @property
    def kind(self) -> Kind:
        """The service manager behind it."""
        return "systemd" if self == "systemd" else "launchd" if self == "launchd" else "windows"


Name = Annotated[str, typer.Option("--name", help="The service's name; default: made from the folder's.")]
System = Annotated[
    bool,
    typer.Option(
        "--system", help="A service of the whole system, not of your user; with --user (on Windows always so)."
    ),
]
User = Annotated[
    str, typer.Option("--user", metavar="NAME", help="With --system: whose rights it has (not on Windows).")
]
Credential = Annotated[
    list[str] | None,
    typer.Option("--credential", metavar="NAME=FILE", help="systemd: hand this file over as a credential. Repeatable."),
]


@app.command("print")
def print_(
    ctx: typer.Context,
    *,
    wrapper: Annotated[Wrapper | None, typer.Option("--wrapper", help="For whom; default: this system's.")] = None,
    name: Name = "",
    system: System = False,
    user: User = "",
    credential: Credential = None,
    as_json: AsJson = False,
) -> None:
    """Print what a service manager or wrapper is to be given (commands: for cmd.exe); changes nothing."""
    from supervisor.service import launchd, systemd, wrappers

    made_for = wrapper or _usual()
    service = _new(ctx, name, made_for.kind, system=system, user=user, credentials=credential or ())
    texts = {
        Wrapper.systemd: systemd.unit,
        Wrapper.launchd: lambda service: launchd.plist(service).decode(),
        Wrapper.shawl: wrappers.shawl,
        Wrapper.winsw: wrappers.winsw,
        Wrapper.nssm: wrappers.nssm,
    }
    try:
        text = texts[made_for](service)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        say_json({"name": service.name, "wrapper": made_for.value, "text": text})
        return
    say(*text.removesuffix("\n").split("\n"))


def _usual() -> Wrapper:
    if sys.platform == "win32":
        return Wrapper.shawl
    return Wrapper.launchd if sys.platform == "darwin" else Wrapper.systemd


@app.command()
def install(
    ctx: typer.Context,
    *,
    name: Name = "",
    system: System = False,
    user: User = "",
    credential: Credential = None,
    as_json: AsJson = False,
) -> None:
    """Make this workspace's crew a service that starts with the system (or with your login)."""
    from supervisor.bootstrap import require_trust
    from supervisor.service.installed import this_systems

    session: Session = ctx.obj
    kind = _usual().kind
    service = _new(ctx, name, kind, system=system, user=user, credentials=credential or ())
    workspace = session.workspace()
    config = workspace.read_config()
    agreeing: list[str] = []
    if service.scope == "user":
        require_trust(workspace, config)
    elif config.commands():  # whose agreement counts is the account's, not root's or an administrator's
        agreeing = _trusting(kind, service)
    file = this_systems().install(service)
    if as_json:
        said = {"name": service.name, "scope": service.scope, "file": str(file) if file else None}
        say_json({**said, "trusting": agreeing})
        return
    say(f"{service.name} is installed{f': {file}' if file else ''}.")
    if agreeing:
        account = service.user or "LocalSystem"
        say(f"Each start ends with 78 until {account} has agreed to what {workspace.config} would run:")
        say(*(f"  {command}" for command in config.commands()))
        say("If that is fine:", *(f"  {command}" for command in agreeing))
    say(f"Start it now: supervisor service start{_again(name, system=system)}")


def _trusting(kind: Kind, service: Service) -> list[str]:
    """The commands by which the account of a system's service agrees to what the workspace would run."""
    from supervisor.service import launchd, systemd, wrappers

    if kind == "windows":
        return wrappers.trusting(service, windows=PureWindowsPath(os.environ.get("SYSTEMROOT", r"C:\Windows")))
    return launchd.trusting(service) if kind == "launchd" else systemd.trusting(service)


@app.command()
def uninstall(ctx: typer.Context, *, name: Name = "", system: System = False, as_json: AsJson = False) -> None:
    """Stop the service and take it away; the workspace stays as it is."""
    from supervisor.service.installed import this_systems

    service = _service(ctx, name, system=system)
    this_systems().uninstall(service)
    _done(service, "uninstalled", as_json=as_json)


@app.command()
def start(ctx: typer.Context, *, name: Name = "", system: System = False, as_json: AsJson = False) -> None:
    """Have the service manager start it."""
    from supervisor.service.installed import this_systems

    service = _service(ctx, name, system=system)
    this_systems().start(service)
    _done(service, "started", as_json=as_json)


@app.command()
def stop(ctx: typer.Context, *, name: Name = "", system: System = False, as_json: AsJson = False) -> None:
    """Have the service manager stop it, in good order."""
    from supervisor.service.installed import this_systems

    service = _service(ctx, name, system=system)
    this_systems().stop(service)
    _done(service, "stopped", as_json=as_json)


@app.command()
def status(ctx: typer.Context, *, name: Name = "", system: System = False, as_json: AsJson = False) -> None:
    """Say what the service manager thinks of it. Exit code 3 unless it runs."""
    from supervisor.service.installed import this_systems

    service = _service(ctx, name, system=system)
    found = this_systems().status(service)
    if as_json:
        say_json({"name": service.name, "state": found.state, "detail": found.detail})
    else:
        say(f"{service.name}: {found.state}{f' ({found.detail})' if found.detail else ''}")
    if found.state != "running":
        raise typer.Exit(Exit.NONE_RUNNING)


def _done(service: Service, what: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"name": service.name, what: True})
    else:
        say(f"{service.name} is {what}.")


def _again(name: str, *, system: bool) -> str:
    return (f" --name {name}" if name else "") + (" --system" if system else "")


def _service(ctx: typer.Context, name: str, *, system: bool) -> Service:
    """One that is there, or is not: what it is known by."""
    return _made(ctx, name, _usual().kind, system=system)


def _new(ctx: typer.Context, name: str, kind: Kind, *, system: bool, user: str, credentials: Sequence[str]) -> Service:
    """One to be made for that kind of manager; `UsageError` for an option that it would have to ignore."""
    from supervisor.service.definition import refusal

    service = _made(ctx, name, kind, system=system, user=user, credentials=credentials)
    why = refusal(kind, scope=service.scope, user=user, has_credentials=bool(credentials))
    if why:
        raise UsageError(why)
    return service


def _made(
    ctx: typer.Context, name: str, kind: Kind, *, system: bool, user: str = "", credentials: Sequence[str] = ()
) -> Service:
    from supervisor.service.definition import Service

    session: Session = ctx.obj
    workspace = session.workspace()
    pairs: list[tuple[str, PurePath]] = []
    for pair in credentials:
        key, found, file = pair.partition("=")
        if not (key and found and file) or not key.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UsageError(f"{pair!r} is not NAME=FILE")
        pairs.append((key, Path(file).absolute()))
    try:
        return Service(
            workspace=workspace.root,
            python=Path(sys.executable),
            name=name,
            scope="system" if system or kind == "windows" else "user",
            user=user,
            path=os.environ.get("PATH", ""),
            credentials=tuple(pairs),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
