"""The commands about the move to the queue: where it stands, and its steps; and the comparison that it rests on."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from supervisor.exits import Exit, UsageError

from .access import Session
from .crew import AsJson
from .output import columns, say, say_json, warn

if TYPE_CHECKING:
    from supervisor.rollout import Progress
    from supervisor.validation import Report
    from supervisor.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Move from printed progress to the queue in stages, and back at once.")


@app.command()
def start(
    ctx: typer.Context,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="After a rollback: go on where it was, instead of with the first stage.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Begin with the first stage, 10 % of all audits; also after a rollback."""
    from supervisor import rollout

    workspace = _workspace(ctx)
    now = time.time()
    act = rollout.resume if resume else rollout.start
    _tell(_change(workspace, now, lambda progress: act(progress, now)), as_json=as_json)


@app.command()
def advance(
    ctx: typer.Context,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Although something is missing; what it was goes on record.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Begin the next stage: 25, 50, 75, 100 %. Refuses, with what is missing, before this one has done its work."""
    from supervisor import rollout

    workspace = _workspace(ctx)
    now = time.time()
    _tell(_change(workspace, now, lambda p: rollout.advance(p, now, force=force)), as_json=as_json)


@app.command()
def rollback(
    ctx: typer.Context,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on record.")] = "a person asked for it",
    as_json: AsJson = False,
) -> None:
    """Send everything by stdout at once: audits under way, too, if a supervisor runs."""
    from supervisor import rollout

    workspace = _workspace(ctx)
    now = time.time()
    _tell(_change(workspace, now, lambda p: rollout.roll_back(p, now, reason, by="user")), as_json=as_json)


@app.command()
def status(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the stage, what it still needs, and how audits fared in each mode."""
    from supervisor import rollout_state

    workspace = _workspace(ctx)
    config = workspace.read_config()
    if workspace.state.is_dir():
        _change(workspace, time.time(), lambda progress: progress)
    now = rollout_state.status(workspace, config)
    if as_json:
        say_json(now)
        return
    where = (
        f"stage {now['stage_index'] + 1} of 5, {100 * now['current_stage']:g} %" if now["started"] else "not started"
    )
    say(f"Rollout: {where}; {100 * now['rate']:g} % of new audits go by the queue ({now['rate_source']}).")
    if now["started"] and not now["rolled_back"]:
        days, matches = now["stage_served"] / 86400, now["validation_matches"]
        say(f"  {days:.1f} of {now['stage_lasts'] / 86400:g} days, {matches} exactly matching validation runs in a row")
    say(f"  {now['verdict']}" + "".join(f"\n    {reason}" for reason in now["reasons"]), "")
    rows = [("", "RUNS", "SUCCESS", "FAILED", "FALLBACKS", "DROPPED", "P50", "P99")]
    rows += [
        (
            mode,
            str(found["runs"]),
            "-" if found["success_rate"] is None else f"{100 * found['success_rate']:.1f} %",
            str(found["failed"]),
            str(found["fallbacks"]),
            str(found["dropped"]),
            _milliseconds(found["latency_p50"]),
            _milliseconds(found["latency_p99"]),
        )
        for mode, found in now["modes"].items()
    ]
    say(*columns(rows))


@app.command()
def history(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Show who did what when: starts, advances, rollbacks, validation runs."""
    from supervisor import rollout_state
    from supervisor.rollout import SCHEDULE

    entries = rollout_state.load(_workspace(ctx)).history
    if as_json:
        say_json([asdict(entry) for entry in entries])
        return
    if not entries:
        say("Nothing has happened yet; supervisor rollout start begins with 10 %.")
        return
    rows = [("WHEN", "WHO", "WHAT", "STAGE", "")]
    rows += [
        (
            datetime.fromtimestamp(entry.at).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            entry.by,
            entry.act + (" (forced)" if entry.forced else ""),
            "-" if entry.stage is None else f"{100 * SCHEDULE.stages[entry.stage]:g} %",
            entry.text,
        )
        for entry in entries
    ]
    say(*columns(rows))


def validate(workspace: Workspace, *, runs: int, verbose: int, as_json: bool) -> Exit:
    """`run --validate-ipc`: so many comparisons, each difference printed, each outcome counted towards the stage."""
    from supervisor import validation

    if runs < 1:
        raise UsageError(f"--runs {runs} compares nothing; give at least 1")
    config = workspace.read_config()
    reports = []
    for number in range(1, runs + 1):
        if not as_json:
            warn(f"validation {number} of {runs}: the same work by queue, then by stdout, one phase at a time …")
        report = validation.validate(workspace, config, number=number, verbose=verbose)
        _count(workspace, report)
        reports.append(report)
        if not as_json:
            _show(report)
    matched = sum(report.matched for report in reports)
    if as_json:
        say_json({"runs": len(reports), "matched": matched, "reports": [report.as_json() for report in reports]})
    else:
        say(f"{matched} of {runs} matched exactly.")
    return Exit.DONE if matched == runs else Exit.WORK_REMAINS


def _count(workspace: Workspace, report: Report) -> None:
    from supervisor.rollout import validated

    now = time.time()
    _change(workspace, now, lambda progress: validated(progress, now, len(report.differences)))


def _show(report: Report) -> None:
    from supervisor.validation import side_by_side

    what = f"{report.events} events, {report.documents} documents, {report.screenshots} screenshots"
    if report.matched:
        say(f"run {report.run}: {what}: no difference")
        return
    say(f"run {report.run}: {what}: {len(report.differences)} difference(s)", "")
    from supervisor.wording import clean

    say(*(clean(line) for line in side_by_side(report.differences)), "")


def _workspace(ctx: typer.Context) -> Workspace:
    session: Session = ctx.obj
    return session.workspace()


def _change(workspace: Workspace, now: float, decide: Any) -> Progress:
    from supervisor.rollout_state import change

    return change(workspace, now, decide)


def _tell(progress: Progress, *, as_json: bool) -> None:
    last = progress.history[-1]
    if as_json:
        say_json({**asdict(last), "rolled_back": bool(progress.rolled_back), "stage_index": progress.stage})
        return
    say(f"{last.act}: {last.text}")
    if progress.rolled_back:
        say("A running supervisor moves its audits to stdout within a second; later starts do the same.")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"
