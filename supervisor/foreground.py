"""One run in the foreground: put the parts together, show what happens, end with an exit code.

This is what a terminal and every service manager start. What the crew does is `crew`'s, how it looks `console`'s.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from anyio.to_thread import run_sync

from actors.trees_process import GitProcessError, in_brief
from ipc.control import Ack
from ipc.process import Identity, adopt_orphans

from . import plane as event_plane
from .child import Child, Fact
from .config import Config, NotifyConfig
from .crew import Crew
from .documents import Documents, unapproved
from .enclosure import enclosed
from .epochs import EpochCounter
from .exits import Exit, UserError
from .letters import Plan
from .logs import forget_old_epochs, keep_small, logging_to
from .notifications import keep_telling
from .notify import Notifier
from .options import RunOptions
from .plane import EventPlane, Retention
from .rhythm import until_next
from .standby import Standby
from .status import CrewStatus, Summary, save_status, summarise
from .transport import Transport, Wishes
from .version import version
from .workspace import Workspace, find, supervising

if TYPE_CHECKING:
    from .console import View
    from .journal import StoredEvent

MARK = "PHASE_SUPERVISOR_WORKSPACE"  # in the environment of everything that a crew of this workspace starts
CAPACITY = 1000  # frames in the queue
LAST_TELLING = 10.0  # seconds for people to hear of what waits at the end
LAST_LOOK = 5.0  # seconds for the view to show the last events
SHOW_STATUS_EVERY = 1.0  # seconds between saves of the status for `supervisor status`


def run_workspace(options: RunOptions, view: View, *, config: Config | None = None) -> int:
    """Run the crew of a workspace until it is done, idle or interrupted; the exit code of SPEC §6.

    `config` is for a run that differs from what supervisor.toml says.

    Raises `UserError` for what a person can put right: another supervisor, a wrong configuration, no permission.
    """
    workspace = find(options.workspace)
    config = config or workspace.read_config()
    multiprocessing.set_start_method("spawn", force=True)
    with supervising(workspace), logging_to(workspace.logs, config.log, verbose=options.verbose):
        forget_old_epochs(workspace.logs)
        try:
            summary = anyio.run(_run, workspace, config, options, view)
        except ExceptionGroup as errors:
            found: Exception = errors
            while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
                found = found.exceptions[0]
            if not isinstance(found, GitProcessError):
                raise
            raise UserError(in_brief(found)) from errors
    with suppress(OSError, ValueError):  # nobody can read it any more; the crew has ended as it has
        view.close(summary)
    return int(summary.exit)


async def _run(workspace: Workspace, config: Config, options: RunOptions, view: View) -> Summary:
    adopt_orphans()  # what a dead worker leaves, whatever it did to its session and environment
    marks = {MARK: hashlib.sha256(str(workspace.root).encode()).hexdigest()[:24]}
    async with enclosed(workspace.group, marks) as left:
        notifier = Notifier.from_environ()
        documents = await run_sync(lambda: Documents.open(workspace, config.topology, marks=marks))
        try:
            return await _run_crew(workspace, config, options, view, documents, notifier, marks, left)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(documents.close)


async def _run_crew(
    workspace: Workspace,
    config: Config,
    options: RunOptions,
    view: View,
    documents: Documents,
    notifier: Notifier,
    marks: Mapping[str, str],
    left: Sequence[Identity],
) -> Summary:
    crews: list[Crew] = []

    def send_ack(worker: str, epoch: int, ack: Ack) -> None:
        for crew in crews:
            crew.acknowledge(worker, epoch, ack)

    def redirect(address: str, key: str) -> None:
        for crew in crews:
            crew.redirect(address, key)

    async with event_plane.opened(
        journal=workspace.journal,
        spools=workspace.spools,
        send_ack=send_ack,
        capacity=CAPACITY,
        redirect=redirect,
        retention=_retention(config),
    ) as plane:
        start = plane.here()
        release = version()
        plane.record(
            "log_entry",
            step="begin",
            detail=f"supervisor {release or '(version unknown)'} begins as process {os.getpid()}",
            summary={"pid": os.getpid(), "version": release},
        )
        for identity in left:
            plane.record("log_entry", step="orphan", detail=f"ended process {identity.pid} of an earlier run")
        await plane.close_leftovers(documents.last_epochs(), documents.reports_of)
        above = max(plane.last_epoch(), *documents.last_epochs().values(), 0)
        counter = EpochCounter(workspace.state / "epochs", above=above)
        since = documents.store.head
        transport = Transport(workspace, config, plane, _wishes(options))
        transport.begin()
        await run_sync(workspace.mark_format)  # nothing was of a newer release; what follows writes
        plan = Plan(until_idle=options.until_idle, run=f"r{counter.take()}", lockstep=options.lockstep)
        with plane.follow(start) as events:
            async with anyio.create_task_group() as group:
                standby = Standby(
                    _maker(plane, marks),
                    count=1,
                    failed=lambda text: plane.record("log_entry", step="spare", detail=text),
                )
                crew = Crew(
                    workspace=workspace,
                    config=config,
                    documents=documents,
                    plane=plane,
                    standby=standby,
                    epochs=counter,
                    plan=plan,
                    notifier=notifier,
                    transport=transport,
                    marks=marks,
                )
                crews.append(crew)
                shown = anyio.Event()
                group.start_soon(_show, view, aiter(events), crew.status, shown)
                group.start_soon(_save_status, workspace, crew.status)
                group.start_soon(keep_small, workspace.logs, config.log)
                group.start_soon(_open_control, workspace, crew, plane)
                ended, told = anyio.Event(), anyio.Event()
                group.start_soon(_tell_people, workspace, crew, plane, marks, ended, told)
                with _signals(crew):
                    async with anyio.create_task_group() as keeping:
                        await keeping.start(standby.run)
                        await crew.run()
                        keeping.cancel_scope.cancel()
                    ended.set()
                    with anyio.move_on_after(LAST_TELLING):
                        await told.wait()
                summary = _summary(documents, crew, since, workspace)
                plane.record(
                    "log_entry", step="end", detail=f"exit {int(summary.exit)}", summary={"exit": int(summary.exit)}
                )
                await plane.pump.aclose()
                plane.pump.hub.close()
                with anyio.move_on_after(LAST_LOOK):
                    await shown.wait()
                group.cancel_scope.cancel()
    return summary


async def _show(
    view: View, events: AsyncIterator[StoredEvent], status: Callable[[], CrewStatus], shown: anyio.Event
) -> None:
    try:
        await view.show(events, status)
    finally:
        shown.set()


def _wishes(options: RunOptions) -> Wishes:
    return Wishes(queue=options.use_queue_ipc, stdout=options.use_stdout, still=options.lockstep)


def _retention(config: Config) -> Retention:
    most, days = config.journal.max_mb * 1024 * 1024, config.journal.keep_days * 86400
    return Retention(most_bytes=most or None, most_age=days or None)


def _maker(plane: EventPlane, marks: Mapping[str, str]) -> Callable[[Callable[[Fact], None]], Child]:
    def make(tell: Callable[[Fact], None]) -> Child:
        return Child(
            tell=tell,
            marker=lambda child, line: _heed_marker(plane, child, line),
            may_read=lambda child: child.assignment is None or plane.may_read(child.phase, child.epoch),
            marks=marks,
        )

    return make


def _heed_marker(plane: EventPlane, child: Child, line: bytes) -> None:
    plane.marker(child.phase, child.epoch, line)


def _summary(documents: Documents, crew: Crew, since: int, workspace: Workspace) -> Summary:
    documents.store.refresh()
    return summarise(
        documents.store.state,
        since=since,
        restarts=crew.succession.restarts,
        unapproved=len(unapproved(documents.store.state)),
        where=str(workspace.crew),
        topology=crew.config.topology,
        interrupted=bool(crew.interrupted),
    )


async def _open_control(workspace: Workspace, crew: Crew, plane: EventPlane) -> None:
    """Serve the control API to the end; without it the crew works all the same, and it is on record why."""
    await run_sync(importlib.import_module, "supervisor.control.server")  # half a second that nobody waits for
    from .control.endpoint import endpoint_file
    from .control.server import serving
    from .control.service import Service

    try:
        file = endpoint_file(workspace)
        async with serving(Service(crew, plane), workspace, file) as endpoint:
            plane.record("log_entry", step="control", detail=f"the control API listens on {endpoint.url}")
            await anyio.sleep_forever()
    except* (OSError, UserError) as errors:
        why = "; ".join(str(error) for error in errors.exceptions)
        plane.record("phase_error", step="control", detail=f"there is no control API in this run: {why}")


async def _tell_people(
    workspace: Workspace,
    crew: Crew,
    plane: EventPlane,
    marks: Mapping[str, str],
    ended: anyio.Event,
    told: anyio.Event,
) -> None:
    """Whoever `[notify]` names hears of what begins to wait; `told` is set after the last look, after `ended`."""

    def record(step: str, text: str) -> None:
        plane.record("phase_error", step=step, detail=text)

    def notify() -> NotifyConfig:
        return crew.config.notify

    try:
        await keep_telling(
            crew, crew.documents.store.refresh, notify, record, folder=workspace.root, marks=marks, ended=ended
        )
    finally:
        told.set()


async def _save_status(workspace: Workspace, status: Callable[[], CrewStatus]) -> None:
    """Keep the file that `supervisor status` reads; nothing depends on it but what is shown."""
    before = None
    while True:
        now = status()
        if now != before:
            try:
                await run_sync(save_status, workspace, now)
                before = now
            except OSError as error:
                logging.getLogger(__name__).warning("the status cannot be saved: %s", error)
        await anyio.sleep(until_next(SHOW_STATUS_EVERY, anyio.current_time()))


@contextmanager
def _signals(crew: Crew) -> Iterator[None]:
    """SIGINT, SIGTERM (and SIGBREAK) become a message to the owner, the second one ends us at once.

    SIGHUP is a reload for a daemon, and for a run in a terminal the end of that terminal.
    """
    loop_call = _threadsafe_caller()
    seen: list[str] = []

    def arrived(number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        if seen:
            os._exit(int(Exit.INTERRUPTED))  # workers see their pipes end, and leave by themselves
        seen.append(name)
        loop_call(lambda: crew.interrupt(name))

    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    before = {number: signal.signal(number, arrived) for number in numbers}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup said so
        hung_up = arrived if _has_terminal() else lambda *_: loop_call(crew.hang_up)
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Whether there is a terminal whose end would leave us behind; wherever stdin and stdout lead."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _threadsafe_caller() -> Callable[[Callable[[], None]], None]:
    """A way into this event loop from a signal handler; anyio's own receiver needs what Windows lacks."""
    import asyncio

    loop = asyncio.get_running_loop()

    def call(work: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(work)

    return call
