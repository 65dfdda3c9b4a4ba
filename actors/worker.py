"""A worker process from its first instruction to its last: `python -P -m actors.worker`.

It takes its pipes away from whatever else runs in the process, imports what a worker needs, says that it is a spare
and waits for its assignment. With that it becomes one phase and epoch: environment, log file, the spool's lock; then,
and only if its supervisor still lives, the actor's loop. A thread of its own hears the supervisor; when that is gone,
it ends everything this worker has started and leaves. What the work is, and when to stop it, is the actor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import anyio

from ipc import control, memory, process

from .modes import Chosen, ModeGate

if sys.platform == "win32":
    import _winapi
    import msvcrt

if TYPE_CHECKING:
    from docs_store.store import Store
    from ipc.emitter import Emitter

EXIT_CRASHED = 1
EXIT_START_FAILED = 69  # it never got ready, and said why
EXIT_ORPHANED = 76  # its supervisor is gone

if sys.platform != "win32":
    STACKS = signal.SIGUSR2  # puts the stacks of all threads into the log file, also while one holds the interpreter

MARK = "PHASE_SUPERVISOR_MARK"  # names the entry of our environment that marks our tree
PYTHONPATH = "PHASE_SUPERVISOR_PYTHONPATH"  # the user's, kept from us, given back to what we start

LAST_WORDS = 5.0  # seconds for events to become durable when the actor has ended
ORPHAN_LIMIT = 1.5  # seconds for ending what we started once the supervisor is gone
MOST_REPORTS = 10_000
MOST_TEXT = 16_000  # characters of one report
REPLACEABLE = (control.Beat, control.Pulse, control.Idle, control.WantTurn)  # only the latest of each counts

ActorMain = Callable[["Channel", control.Assignment], Awaitable[None]]

log = logging.getLogger("actors.worker")


class StartError(Exception):
    """This worker cannot begin its work; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Wires:
    """The private descriptors of the three pipes; nothing that this process starts inherits them."""

    control: int
    markers: int
    reports: int


class Reports:
    """Lines up to the supervisor, from any thread, never waiting: where the pipe is full, a thread of its own writes.

    Of beats, idles and wishes for a turn only the latest waits to be written. While the loop's beats are overdue the
    thread sends pulses, so that a blocked loop can be told from a held GIL.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[control.Up] = deque()
        self._changed = threading.Condition()
        self._writing = False  # the thread has taken a message
        self._closing = False
        self._pulse_every: float | None = None
        self._last_beat = self._last_pulse = 0.0
        self._thread = threading.Thread(target=self._write, name="reports", daemon=True)
        self._thread.start()

    def put(self, message: control.Up) -> None:
        with self._changed:
            if isinstance(message, control.Beat):
                self._last_beat = time.monotonic()
                if self._pulse_every is not None and message.next_in and self._pulse_every != 2 * message.next_in:
                    self._pulse_every = 2 * message.next_in
                    self._changed.notify()
            if not self._waiting and not self._writing and self._written_at_once(message):
                return
            if isinstance(message, REPLACEABLE):
                kind = type(message)
                if any(isinstance(other, kind) for other in self._waiting):
                    self._waiting = deque(other for other in self._waiting if not isinstance(other, kind))
            elif len(self._waiting) >= MOST_REPORTS:
                self._waiting.popleft()
            self._waiting.append(message)
            self._changed.notify()

    def pulse_unless_beating(self, every: float) -> None:
        """From now on a Pulse goes up every `every` seconds in which the loop has sent no Beat."""
        with self._changed:
            self._pulse_every, self._last_beat = every, time.monotonic()
            self._changed.notify()

    def close(self, within: float) -> None:
        """Write what waits, for up to `within` seconds: a supervisor that is stopped reads nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(within)

    def _written_at_once(self, message: control.Up) -> bool:
        """Write it here and now where that cannot wait: the thread would be heard only when the loop lets it run."""
        if sys.platform == "win32":
            return False
        line = control.encode(message)
        if len(line) > select.PIPE_BUF:
            return False
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        if room.poll(0) != [(self._descriptor, select.POLLOUT)]:
            return False  # full, or nobody listens any more: the thread sees which
        with contextlib.suppress(OSError):
            return os.write(self._descriptor, line) == len(line)  # there is room for so much, and nobody else writes
        return False

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more; the control thread sees that too, and acts
            while (message := self._next()) is not None:
                view = memoryview(control.encode(message))
                while view:
                    view = view[os.write(self._descriptor, view) :]

    def _next(self) -> control.Up | None:
        with self._changed:
            self._writing = False
            message = self._awaited()
            self._writing = message is not None
            return message

    def _awaited(self) -> control.Up | None:
        while not self._waiting and not self._closing:
            if self._pulse_every is None:
                self._changed.wait()
                continue
            now = time.monotonic()
            due = max(self._last_beat, self._last_pulse) + self._pulse_every
            if now >= due:
                self._last_pulse = now
                return control.Pulse(blocked=now - self._last_beat, where=_where_main_is())
            self._changed.wait(due - now)
        return self._waiting.popleft() if self._waiting else None


class Channel:
    """The worker's side of its pipes, as its actor sees it: orders come in the loop, reports go from anywhere."""

    def __init__(self, *, wires: Wires, reports: Reports, emitter: Emitter, assignment: control.Assignment) -> None:
        """Call it inside the running loop. Nothing is heard before `listen`."""
        self.emitter = emitter
        self.ready = False
        self._wires = wires
        self._reports = reports
        self._assignment = assignment
        self._loop = asyncio.get_running_loop()
        self._orders: deque[control.AnyDown] = deque()
        self._lock = threading.Lock()
        self._arrived = asyncio.Event()
        self._stop_at: float | None = None
        self._doing = ("", 0, "")
        self._turned = asyncio.Event()  # from idle to work, or back
        self._signs = 0
        self._gate = ModeGate(assignment.modes, assignment.mode, emitter.switch)

    def listen(self, already: bytes) -> None:
        """Start the thread that hears the supervisor; `already` is what was read of it before."""
        threading.Thread(target=self._hear, args=(already,), name="control", daemon=True).start()

    async def receive(self) -> control.AnyDown:
        """The next order, as soon as there is one. Of several bells only the last is kept."""
        while True:
            with self._lock:
                if self._orders:
                    return self._orders.popleft()
                self._arrived.clear()
            await self._arrived.wait()

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> control.AnyDown:
        return await self.receive()

    def report(self, message: control.Up) -> None:
        """Tell the supervisor; from any thread, never waiting."""
        self._reports.put(message)
        if isinstance(message, control.Ready):
            self.ready = True
            self.emitter.begin()

    def working_on(self, task: str, pct: int = 0, step: str = "") -> None:
        """What the next beats say; a call is a sign of progress, also when it repeats itself. From any thread."""
        turned = bool(task) != bool(self._doing[0])
        self._doing = (task, pct, step)
        self._signs += 1
        if turned:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and beats no more
                self._loop.call_soon_threadsafe(self._turned.set)

    def choose_mode(self) -> Chosen:
        """The mode by which the events of the cycle that begins travel; the emitter uses it from here on."""
        return self._gate.choose()

    def counts(self) -> Mapping[str, int]:
        """What became of events since the start."""
        return self.emitter.statistics().counts()

    def time_left(self, most: float) -> float:
        """At most so many seconds, and not quite until the supervisor's patience ends."""
        if self._stop_at is None:
            return most
        return min(most, max(0.1, 0.8 * (self._stop_at - time.monotonic())))

    async def beat(self) -> None:
        """Tell the supervisor for ever that the loop runs, and how late it is; seldom while nothing is in hand."""
        self._reports.pulse_unless_beating(2 * self._assignment.beat_every)
        due, idle = self._loop.time(), 0
        while True:
            self._turned.clear()
            task, pct, step = self._doing
            idle = 0 if task else idle + 1
            every = self._assignment.beat_every if task else self._assignment.idle_every
            self.report(
                control.Beat(
                    lag=max(0.0, self._loop.time() - due),
                    task=task,
                    pct=pct,
                    step=step,
                    mode=self.emitter.mode,
                    beats=self._signs,
                    next_in=every,
                    events=self.emitter.statistics().counts(),
                )
            )
            process.reap_orphans()
            if idle == 2:  # the work is over, and there has been no other for a while
                memory.give_back()
            # Idle workers beat together, on multiples of the system's clock: the supervisor wakes once for all of them.
            wait = every if task else every - self._loop.time() % every
            due = self._loop.time() + wait
            with anyio.move_on_after(wait):
                await self._turned.wait()

    def _hear(self, already: bytes) -> None:
        pending = already
        while True:
            *lines, pending = pending.split(b"\n")
            for line in lines:
                self._hear_line(line)
            data = _read(self._wires.control)
            if not data:
                # What the loop would see next is our own killing, and no outcome: it gets no further.
                with contextlib.suppress(RuntimeError):  # it has ended already
                    self._loop.call_soon_threadsafe(threading.Event().wait)
                leave_orphaned()
            pending += data

    def _hear_line(self, line: bytes) -> None:
        try:
            message = control.decode_down(line)
        except ValueError as error:
            log.error("a control line was not understood and is ignored: %s", error)  # noqa: TRY400 - no traceback
            return
        match message:
            case control.Ack():
                self.emitter.ack(message)
            case control.Redirect():
                self.emitter.redirect(message.address, message.key)
            case control.Switch():
                self.emitter.switch(message.mode, message.reason)
            case control.Modes():
                self._gate.hear(message)
            case _:
                if isinstance(message, control.Stop):
                    self._stop_at = time.monotonic() + message.grace
                with self._lock:
                    if isinstance(message, control.Bell):
                        self._orders = deque(o for o in self._orders if not isinstance(o, control.Bell))
                    self._orders.append(message)
                with contextlib.suppress(RuntimeError):  # the loop has ended: nobody wants orders any more
                    self._loop.call_soon_threadsafe(self._arrived.set)


def main() -> NoReturn:
    """The whole life of a worker. Leaves by `os._exit`: a driver's stuck thread must not keep it."""
    ignore_interrupts()
    wires = take_pipes()
    preload()  # a failing import is told by the interpreter itself: its traceback goes up the report pipe
    process.adopt_orphans()  # whatever its agents do to get away from them, it stays below this process
    reports = Reports(wires.reports)
    reports.put(control.Spare(pid=os.getpid()))
    code = 0
    try:
        preload_drivers(lambda: has_come(wires.control))
        prepared = Prepared()
        assignment, already = wait_for_assignment(wires.control, prepared.hear)
        if assignment is None:
            leave(0)  # a spare that was not needed
        live(wires, reports, assignment, already, prepared.store)
    except StartError as error:
        reports.put(control.Trouble(what="start", text=str(error)))
        code = EXIT_START_FAILED
    except Exception:  # noqa: BLE001 - whatever it is, it is why this worker cannot start
        reports.put(control.Trouble(what="start", text=_last_part(traceback.format_exc())))
        code = EXIT_START_FAILED
    except SystemExit as error:  # somebody's code raised it in a task of its own: the loop has ended at once
        code, text = _asked_code(error)
        reports.put(control.Trouble(what="crash", text=text))
    except BaseException:  # noqa: BLE001 - whatever it is, nobody below wanted it
        reports.put(control.Trouble(what="crash", text=_last_part(traceback.format_exc())))
        code = EXIT_CRASHED
    reports.close(1.0)
    leave(code)


def ignore_interrupts() -> None:
    """Ctrl-C reaches the whole console: only the supervisor decides. No SIG_IGN, which what we start would inherit."""

    def nothing(_number: int, _frame: FrameType | None) -> None:
        return None

    signal.signal(signal.SIGINT, nothing)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, nothing)


def take_pipes() -> Wires:
    """Move the three pipes to private descriptors and put null on 0.

    1 and 2 stay where they are until there is a log file: what an import prints or a crash says still goes up.
    """
    wires = Wires(control=os.dup(0), markers=os.dup(1), reports=os.dup(2))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if sys.platform == "win32":
        for descriptor in (wires.control, wires.markers, wires.reports):
            msvcrt.setmode(descriptor, os.O_BINARY)
    return wires


def preload() -> None:
    """Import everything that a worker of any phase needs, and nothing of the workspace."""
    import_structlog()
    importlib.import_module("actors.actor")
    importlib.import_module("ipc.emitter")
    importlib.import_module("multiprocessing").set_start_method("spawn", force=True)
    importlib.import_module("anyio._backends._asyncio")


def import_structlog() -> None:
    """Import it without rich, which it would import just in case: 20 ms and several MB in each process."""
    without_rich = "rich" not in sys.modules
    if without_rich:
        sys.modules["rich"] = None  # type: ignore[assignment]
    importlib.import_module("structlog")
    if without_rich:
        del sys.modules["rich"]


def preload_drivers(enough: Callable[[], bool]) -> None:
    """Import what the phases' built-in drivers need, one after the other, until `enough`: a spare has the time.

    A worker that is wanted at once imports its own phase's only.
    """
    for name in ("qa", "developer", "debugging", "planning"):
        if enough():
            return
        importlib.import_module(f"actors.drivers.builtin.{name}")


class Prepared:
    """What a spare has opened for an assignment that is about to come."""

    store: Store | None = None

    def hear(self, message: control.Prepare) -> None:
        """Open the documents. What is wrong with them is found again, and told, when the assignment is there."""
        from docs_store.topology import from_data

        from .actor import open_store

        with contextlib.suppress(Exception):
            self.store = open_store(message.crew, message.state, from_data(message.topology))


def wait_for_assignment(
    descriptor: int, prepare: Callable[[control.Prepare], None] = lambda _message: None
) -> tuple[control.Assignment | None, bytes]:
    """The assignment, and what came after it; (None, b"") when the supervisor has no use for this spare."""
    pending = b""
    while True:
        while b"\n" not in pending:
            data = _read(descriptor)
            if not data:
                return None, b""
            pending += data
        line, _, rest = pending.partition(b"\n")
        message = control.decode_down(line)
        if not isinstance(message, control.Prepare):
            break
        prepare(message)
        pending = rest
    if isinstance(message, control.Stop):
        return None, b""
    if not isinstance(message, control.Assignment):
        raise StartError(f"the first message must be the assignment, not {type(message).__name__}")
    if message.version != control.VERSION:
        raise StartError(
            f"the supervisor speaks version {message.version} of the control protocol, this worker version "
            f"{control.VERSION}: they are of different installations; restart the supervisor"
        )
    return message, rest


def live(
    wires: Wires, reports: Reports, assignment: control.Assignment, already: bytes, store: Store | None = None
) -> None:
    """Become that phase and epoch, run its actor, say goodbye and leave."""
    become(assignment)
    from ipc.emitter import Emitter

    worker = assignment.phase

    def trouble(what: str, text: str = "") -> None:
        reports.put(control.Trouble(what=what, text=text))

    emitter = Emitter.for_worker(
        worker=worker,
        epoch=assignment.epoch,
        nonce=assignment.nonce,
        folder=Path(assignment.spool),
        address=assignment.address,
        key=assignment.key,
        marker_fd=wires.markers,
        mode=assignment.mode,
        fallback=assignment.fallback,
        coalesce=not assignment.lockstep,
        on_trouble=trouble,
        begins=False,  # connecting is not in the way of getting ready
    )
    # The spool's lock is ours from here. A supervisor that has died before this may have a successor that closed our
    # epoch; one that dies after it finds the lock taken. So look now, before the first event.
    already += look_at_control(wires.control)
    anyio.run(_live, wires, reports, emitter, assignment, already, store)


def become(assignment: control.Assignment) -> None:
    """Environment, log file, working directory and module path of this phase and epoch."""
    extend_path(assignment.workspace)
    os.environ.update(assignment.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(assignment.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()
    if sys.platform != "win32":
        faulthandler.register(STACKS, all_threads=True)
    configure_logs(phase=assignment.phase, epoch=assignment.epoch)
    os.chdir(assignment.workspace)


def extend_path(workspace: str) -> None:
    """Give the user's PYTHONPATH back, and find what is in the workspace.

    Both come last: a package of theirs that is named like one of ours is not taken for it.
    """
    theirs = os.environ.pop(PYTHONPATH, None)
    if theirs is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = theirs
    sys.path.extend(entry for entry in (theirs or "").split(os.pathsep) if entry and entry not in sys.path)
    sys.path.append(workspace)


def configure_logs(*, phase: str, epoch: int) -> None:
    """Both kinds of logging become lines of the log file: structlog's as JSON, the standard library's plain."""
    import structlog

    structlog.contextvars.bind_contextvars(phase=phase, epoch=epoch)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )


def has_come(descriptor: int) -> bool:
    """Whether a read of the control pipe would return at once, with something or with its end."""
    if sys.platform == "win32":
        try:
            return bool(_winapi.PeekNamedPipe(msvcrt.get_osfhandle(descriptor), 0)[0])
        except OSError:  # its other end is closed
            return True
    readable, _, _ = select.select([descriptor], [], [], 0)
    return bool(readable)


def look_at_control(descriptor: int) -> bytes:
    """What lies in the control pipe now; leaves if its other end is closed."""
    if not has_come(descriptor):
        return b""
    data = _read(descriptor)
    if not data:
        leave_orphaned()
    return data


async def _live(
    wires: Wires,
    reports: Reports,
    emitter: Emitter,
    assignment: control.Assignment,
    already: bytes,
    store: Store | None,
) -> NoReturn:
    from . import actor
    from .own import ActorError

    channel = Channel(wires=wires, reports=reports, emitter=emitter, assignment=assignment)
    channel.listen(already)
    code = 0
    try:
        run = find_actor(assignment.options)
        if run is actor.main:
            run = partial(actor.main, store=store)
        async with anyio.create_task_group() as group:
            group.start_soon(channel.beat)
            await run(channel, assignment)
            group.cancel_scope.cancel()
    except Exception as error:  # noqa: BLE001 - any error ends the worker, with its traceback; the supervisor judges
        cause = _single(error)
        is_told = isinstance(cause, StartError | ActorError)
        text = str(cause) if is_told else "".join(traceback.format_exception(cause))
        sys.stderr.write(text)
        channel.report(control.Trouble(what="crash" if channel.ready else "start", text=_last_part(text)))
        code = EXIT_CRASHED if channel.ready else EXIT_START_FAILED
    except BaseException as error:
        cause = _single(error)
        if not isinstance(cause, SystemExit):
            raise
        code, text = _asked_code(cause)
        channel.report(control.Trouble(what="crash" if channel.ready else "start", text=text))
    # Beside the loop, and acks are still heard. What is not durable by then is in the spool.
    await asyncio.to_thread(emitter.drain, channel.time_left(LAST_WORDS))
    emitter.close()
    await asyncio.to_thread(reports.close, channel.time_left(1.0))
    leave(code)  # from within: a loop that is closed waits for threads, and a driver's may be stuck


def find_actor(options: Mapping[str, Any]) -> ActorMain:
    """The loop to run: the usual one, unless `options["actor"]` names a coroutine function that takes its place.

    A class is for the usual loop to make its object of. Raises `ActorError`.
    """
    from actors import actor, own

    name = str(options.get("actor", ""))
    found = own.find(name) if name else None
    return cast("ActorMain", found) if own.is_loop(found) else actor.main


def leave_orphaned() -> NoReturn:
    """The supervisor is gone: end everything that this worker has started, then itself, within 2 s. From any thread."""
    mark = os.environ.get(MARK)
    marker = {mark: os.environ[mark]} if mark and mark in os.environ else {}
    deadline = time.monotonic() + ORPHAN_LIMIT
    while time.monotonic() < deadline:
        found = process.own_tree(marker)
        if not found:
            break
        for identity in found:
            with contextlib.suppress(OSError):  # gone, or not ours to end
                process.kill(identity)
        time.sleep(0.01)
    os._exit(EXIT_ORPHANED)


def leave(code: int) -> NoReturn:
    """Flush what was printed, and go."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk must not keep it
            stream.flush()
    os._exit(code)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # a broken pipe is how Windows says that the other end is closed
        return b""


def _where_main_is() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - there is no other way
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _last_part(text: str) -> str:
    """As much of a traceback as a report carries: its end says what happened."""
    return text if len(text) <= MOST_TEXT else "…" + text[-MOST_TEXT:]


def _asked_code(error: SystemExit) -> tuple[int, str]:
    """The exit code that the actor's code wants, and what to say about it; never 0.

    An exit somewhere below, a tool's after its help, is no orderly end: that is said by `Context.retire`.
    """
    code = error.code & 0xFF if isinstance(error.code, int) else 0
    return code or EXIT_CRASHED, _last_part("".join(traceback.format_exception(error)))


def _single(error: BaseException) -> BaseException:
    """The error itself where a task group wraps just one."""
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found


if __name__ == "__main__":
    main()
