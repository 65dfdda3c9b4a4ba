"""The command line: its commands, and what becomes of errors. What each command does is in the modules beside this one.

Commands parse, call and print; heavy modules are imported inside them, so that `--help` and `--version` are quick.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from supervisor.exits import WORDS, Exit, judged

from . import control, crew, docs, events, looking, rollout, service, work
from .access import Session
from .output import harmless, say_json, warn

RUNNING = "Running"
WORKING = "Your side of the work"
LOOKING = "Looking"

app = typer.Typer(
    name="supervisor",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's way to call
    if value:
        from supervisor.version import version

        found = version()
        typer.echo(f"phase-supervisor {found}" if found else "phase-supervisor, from sources that are not installed")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-C", metavar="DIR", help="Act as if started in this folder.")
    ] = Path(),
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="-vv shows tracebacks of errors.")] = 0,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Supervise a crew of four - Planning, Developer, QA, Debugging - working on your repository.

    Begin with `supervisor init` in your repository and say what you want in crew/MASTER_PLAN.md.

    Then: `supervisor run --until-idle`
    """
    ctx.obj = Session(workspace, verbose)


app.command(rich_help_panel=RUNNING)(crew.init)
app.command(rich_help_panel=RUNNING)(crew.run)
app.command(rich_help_panel=RUNNING)(control.start)
app.command(rich_help_panel=RUNNING)(control.stop)
app.command(rich_help_panel=RUNNING)(control.restart)
app.command(rich_help_panel=RUNNING)(control.reload)
app.command(rich_help_panel=RUNNING)(work.pause)
app.command(rich_help_panel=RUNNING)(work.resume)
app.command(rich_help_panel=RUNNING)(crew.trust)
app.command(rich_help_panel=RUNNING)(crew.doctor)
app.add_typer(rollout.app, name="rollout", rich_help_panel=RUNNING)
app.add_typer(service.app, name="service", rich_help_panel=RUNNING)
app.command(rich_help_panel=WORKING)(work.task)
app.command(rich_help_panel=WORKING)(work.inbox)
app.command(rich_help_panel=WORKING)(work.answer)
app.command(rich_help_panel=WORKING)(work.changes)
app.command(rich_help_panel=WORKING)(work.undo)
app.command(rich_help_panel=LOOKING)(crew.status)
app.command(rich_help_panel=LOOKING)(control.dashboard)
app.command(rich_help_panel=LOOKING)(looking.why)
app.command(rich_help_panel=LOOKING)(events.events)
app.command(rich_help_panel=LOOKING)(looking.report)
app.add_typer(docs.app, name="docs", rich_help_panel=LOOKING)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command and say how it ended; every error becomes a sentence and a code of `Exit`."""
    _lend_streams()
    try:
        code = _run(arguments)
        try:
            sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            _forget_stdout()  # the terminal is gone; what the command came to stands
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last stop before the user
        if _nobody_reads(error):
            _forget_stdout()
            return Exit.DONE
        if _verbosity(arguments) >= 2:
            traceback.print_exc()
        code, text = judged(error)
        with suppress(OSError):  # where there is nobody left to read it, the code says enough
            warn(f"supervisor: {harmless(text)}")
        _tell_program(arguments, code, text)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        app(list(arguments), prog_name="supervisor")
    except SystemExit as error:  # how typer says that it is done, and that it has said what is wrong with the words
        misread = getattr(error.__context__, "format_message", None)
        if misread is not None:
            _tell_program(arguments, Exit.USAGE, misread())
        return error.code if isinstance(error.code, int) else Exit.DONE
    return Exit.DONE


def _tell_program(arguments: Sequence[str], code: Exit, text: str) -> None:
    """The error on standard output too, for whoever asked for JSON; in the shape of the API's."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" not in options:
        return
    try:
        say_json({"error": {"code": WORDS[code], "text": text}})
        sys.stdout.flush()
    except OSError:
        _forget_stdout()  # nobody reads it; the code says enough


def _verbosity(arguments: Sequence[str]) -> int:
    """How often -v was given, as far as can be told without the parser, which may be what failed."""
    short = sum(len(word) - 1 for word in arguments if word.startswith("-v") and set(word[1:]) == {"v"})
    return short + sum(word == "--verbose" for word in arguments)


def _lend_streams() -> None:
    """A program without a console (a service, pythonw.exe) has no streams at all: what it says goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to our end


def _nobody_reads(error: Exception) -> bool:
    """Whoever read our output has seen enough; Windows calls writing to such a pipe an invalid argument."""
    if isinstance(error, BrokenPipeError):
        return True
    if sys.platform != "win32" or not isinstance(error, OSError) or error.errno != errno.EINVAL:
        return False
    try:
        sys.stdout.flush()  # what could not be written is still to be
    except OSError:
        return True
    return False


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        sys.stdout = io.StringIO()


def main() -> NoReturn:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that does not know a character is no reason to fail
    sys.exit(run_cli(sys.argv[1:]))
