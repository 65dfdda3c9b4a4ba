"""One worker process as its owner sees it: assign, send, stop; what it says and its exit come back as messages.

Whether and when to do any of that, and what a message means, is the owner's. Nothing here waits for the worker: orders
go through a writer that keeps only the latest of what replaces itself, the exit is seen by the process's handle, and a
marker pipe that must not be read yet is left alone. After the exit the owner drains the markers, closes the epoch, and
then closes the child: only then is its number free, and its tree known to be empty.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from actors import worker
from actors.command import own_command
from ipc import control
from ipc.process import PIPE, Identity, Process, new_marker, spawn

from .restart import Exit

if TYPE_CHECKING:
    from ipc.pipes import AnyPipeReader

LAST_LINES = 200  # of what a worker printed before its log file was open
MOST_LINE = 8 * 1024 * 1024  # bytes of one line; a longer one is cut, and thereby damaged
LAST_WORDS = 0.2  # seconds for the end of the report pipe where it cannot be read at once (Windows)
UNKILLABLE = 2.0  # seconds between the end of a tree and being told of it
TAIL = 16 * 1024  # bytes of the log's end


class AlreadyAssignedError(RuntimeError):
    """A worker is one phase and epoch for its life."""


class ChildGoneError(RuntimeError):
    """The worker has exited: nothing can be assigned to it."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The worker said something."""

    child: Child
    message: control.AnyUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The worker's process has ended. `at` is the event loop's clock; `ran_for` counts from ready, else from its start.

    `ready` says whether it ever was (if not, it failed to start), `asked` whether we wanted it to go; `text` is what it
    left: why it crashed or could not start, in its own words; "" if it said nothing.
    """

    child: Child
    code: int
    ready: bool
    asked: bool
    at: float
    ran_for: float
    text: str

    def as_exit(self, name: str) -> Exit:
        """The same for the restart policy."""
        return Exit(child=name, code=self.code, ready=self.ready, ran_for=self.ran_for, asked=self.asked)


Fact = Reported | Exited


class Child:
    """A worker process. Give `run` to a task group (`await group.start(child.run)`); it ends after `close`.

    `tell` takes each `Reported` and the one `Exited`, in order, inside the event loop. `marker` takes each line of the
    marker pipe once there is an assignment; while `may_read` says no the pipe is not read, until `recheck_markers`.
    """

    def __init__(
        self,
        *,
        tell: Callable[[Fact], None],
        marker: Callable[[Child, bytes], None] = lambda _child, _line: None,
        may_read: Callable[[Child], bool] = lambda _child: True,
        environ: Mapping[str, str] | None = None,
        marks: Mapping[str, str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        """`environ` None is ours; `marks` are further entries that find its tree; `command` is for tests."""
        self.assignment: control.Assignment | None = None
        self.started_at = 0.0
        self.is_spare = False  # everything imported, waiting for its assignment or past it
        self.is_ready = False
        self.asked = False
        self.exited: Exited | None = None
        self.settled = anyio.Event()  # it is ready, or will never be
        self.gone = anyio.Event()
        self._spare = anyio.Event()
        self._tell = tell
        self._marker = marker
        self._may_read = may_read
        self._environ = environ
        self._marks = dict(marks or {})
        self._command = command
        self._process: Process | None = None
        self._outbox: deque[control.Down] = deque()
        self._posted = anyio.Event()
        self._recheck = anyio.Event()
        self._released = anyio.Event()
        self._report_line = bytearray()
        self._marker_line = bytearray()
        self._early: deque[str] = deque(maxlen=LAST_LINES)
        self._last_words = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def identity(self) -> Identity:
        return self.process.identity

    @property
    def epoch(self) -> int:
        """0 for a spare."""
        return self.assignment.epoch if self.assignment else 0

    @property
    def phase(self) -> str:
        return self.assignment.phase if self.assignment else "spare"

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError("this child has not been started")
        return self._process

    @property
    def early_text(self) -> str:
        """What it printed before its log file was open, its last lines."""
        return "\n".join(self._early)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the process and look after it until `close`; however it ends, the whole tree is gone then.

        Raises `ipc.process.SpawnError` if the interpreter cannot be started at all.
        """
        command, environ = worker_command(self._environ)
        mark = new_marker()
        environ[worker.MARK] = next(iter(mark))
        self._process = await spawn(
            self._command or command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environ | self._marks,
            marker=mark,
            adopting=True,
        )
        self.started_at = anyio.current_time()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write)
                group.start_soon(self._read_reports)
                group.start_soon(self._read_markers)
                task_status.started()
                code = await self._process.wait()
                await self._hear_last_words()
                self._exit(code)
                await self._released.wait()
                group.cancel_scope.cancel()
        finally:
            await self._process.aclose()

    def prepare(self, message: control.Prepare) -> None:
        """Let it open what its assignment will name; it is nobody's worker yet."""
        if self.exited is None and self.assignment is None:
            self.send(message)

    def assign(self, assignment: control.Assignment) -> None:
        """Make it that phase and epoch; at any time, also before it has said that it is a spare."""
        if self.exited is not None:
            raise ChildGoneError(f"worker {self.pid} has exited; it cannot become {assignment.phase}")
        if self.assignment is not None:
            raise AlreadyAssignedError(
                f"worker {self.pid} is {self.phase} in epoch {self.epoch}; it cannot become {assignment.phase}"
            )
        self.assignment = assignment
        self.started_at = anyio.current_time()
        self.send(assignment)

    def send(self, message: control.Down) -> None:
        """Queue an order. Acks, bells, holds, switches and redirects replace what waits of their kind; never blocks.

        What is sent to a worker that has exited goes nowhere: its exit is told anyway.
        """
        waiting = next((old for old in self._outbox if type(old) is type(message)), None)
        if waiting is not None and not isinstance(message, control.Turn):
            self._outbox.remove(waiting)
            message = _merge(waiting, message)
        self._outbox.append(message)
        self._posted.set()

    async def wait_spare(self) -> bool:
        """Return once it has imported everything (True), or has exited before that (False)."""
        await self._spare.wait()
        return self.is_spare

    async def wait_ready(self) -> bool:
        """Return once its actor runs (True), or it has exited before that (False)."""
        await self.settled.wait()
        return self.is_ready

    async def wait(self) -> Exited:
        """Return once the process has exited."""
        await self.gone.wait()
        assert self.exited is not None
        return self.exited

    def recheck_markers(self) -> None:
        """`may_read` may say something else now."""
        self._recheck.set()

    async def drain_markers(self) -> None:
        """After the exit: hand over all that is left in the marker pipe, whatever `may_read` says."""
        pipe = self.process.stdout
        assert pipe is not None
        if sys.platform == "win32":
            with anyio.move_on_after(LAST_WORDS):
                while True:
                    try:
                        self._take_markers(await pipe.receive())
                    except (anyio.EndOfStream, anyio.ClosedResourceError):
                        break
        else:
            while data := pipe.receive_nowait():
                self._take_markers(data)
        if self._marker_line:  # its last line was torn by its death; who reads it counts it as damaged
            line, self._marker_line = bytes(self._marker_line), bytearray()
            self._take_marker(line)

    async def stop(self, grace: float, reason: str = "") -> Exited | None:
        """Ask in-band, wait up to `grace` seconds, insist on the whole tree. Runs to its end even when cancelled.

        None if not even SIGKILL has ended it within some seconds (it hangs in a system call); its exit may come later.
        """
        with anyio.CancelScope(shield=True):
            self.asked = True
            self.send(control.Stop(grace=grace, reason=reason))
            with anyio.move_on_after(grace):
                await self.gone.wait()
            if self.exited is None:
                await self.process.end_tree()
                with anyio.move_on_after(UNKILLABLE):
                    await self.gone.wait()
        return self.exited

    def show_stacks(self) -> bool:
        """Have it write where each of its threads is to its log, also while one holds the interpreter; or False."""
        if sys.platform == "win32" or self.assignment is None or not self.is_ready or self.process.has_exited:
            return False
        os.kill(self.pid, worker.STACKS)
        return True

    def kill(self) -> None:
        """End its process group at once. The exit is told like any other; `asked` stays what it was."""
        self.process.kill()

    async def tree_gone(self) -> bool:
        """Whether nothing of its tree is left: what it had in hand may be handed over."""
        return not await anyio.to_thread.run_sync(self.process.members)

    async def end_tree(self, *, within: float = 5.0) -> tuple[Identity, ...]:
        """Kill what is left of the tree, escapees too; whoever outlives `within` seconds is returned."""
        return await self.process.end_tree(within=within)

    def close(self) -> None:
        """It has exited, its markers are drained: `run` may end. The rest of the tree, pipes and pid go with it."""
        self._released.set()

    async def log_tail(self) -> str:
        """The end of its log file; "" where there is none yet."""
        if self.assignment is None:
            return self.early_text
        return await anyio.to_thread.run_sync(_tail, Path(self.assignment.log))

    # What the tasks of `run` do.

    async def _write(self) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        try:
            while True:
                while self._outbox:
                    await pipe.send(control.encode(self._outbox.popleft()))
                self._posted = anyio.Event()
                await self._posted.wait()
        except anyio.BrokenResourceError:
            self._outbox.clear()  # it has exited, or is about to: that is told by its handle

    async def _read_reports(self) -> None:
        pipe = self.process.stderr
        assert pipe is not None
        try:
            while True:
                self._take_reports(await pipe.receive())
        except anyio.EndOfStream:
            return

    async def _read_markers(self) -> None:
        pipe = self.process.stdout
        assert pipe is not None
        try:
            while True:
                while not self._may_read(self):
                    self._recheck = anyio.Event()
                    await self._recheck.wait()
                self._take_markers(await pipe.receive())
        except anyio.EndOfStream:
            return

    async def _hear_last_words(self) -> None:
        """What lies in the report pipe at the exit; somebody else may hold its other end: do not wait for that."""
        pipe = self.process.stderr
        assert pipe is not None
        if sys.platform == "win32":
            with anyio.move_on_after(LAST_WORDS):
                await _forward(pipe, self._take_reports)
        else:
            while data := pipe.receive_nowait():
                self._take_reports(data)
        if self._report_line:
            line, self._report_line = bytes(self._report_line), bytearray()
            self._take_report(line)

    def _exit(self, code: int) -> None:
        now = anyio.current_time()
        self.exited = Exited(
            child=self,
            code=code,
            ready=self.is_ready,
            asked=self.asked,
            at=now,
            ran_for=now - self.started_at,
            text=self._last_words or self.early_text,
        )
        self._outbox.clear()
        for event in (self._spare, self.settled, self.gone):
            event.set()
        self._tell(self.exited)

    def _take_reports(self, data: bytes) -> None:
        for line in _lines(self._report_line, data):
            self._take_report(line)

    def _take_report(self, line: bytes) -> None:
        message = self._believed(line)
        match message:
            case None:
                self._early.append(line.decode("utf-8", "backslashreplace"))
                return
            case control.Spare():
                self.is_spare = True
                self._spare.set()
            case control.Ready():
                self.is_ready = True
                self.started_at = anyio.current_time()
                self.settled.set()
            case control.Trouble(what="start" | "crash", text=text):
                self._last_words = text
            case _:
                pass
        self._tell(Reported(self, message))

    def _believed(self, line: bytes) -> control.AnyUp | None:
        """The line as a message; None for log text, and for what this worker cannot be saying now."""
        try:
            message = control.decode_up(line)
        except ValueError:
            return None
        match message:
            case control.Spare(pid=pid):
                return message if pid == self.pid and not self.is_spare else None
            case control.Trouble():
                return message if self.is_spare else None
            case control.Ready(pid=pid, epoch=epoch):
                return message if self.assignment is not None and (pid, epoch) == (self.pid, self.epoch) else None
            case _:
                return message if self.assignment is not None and self.is_spare else None

    def _take_markers(self, data: bytes) -> None:
        for line in _lines(self._marker_line, data):
            self._take_marker(line)

    def _take_marker(self, line: bytes) -> None:
        if self.assignment is None:
            self._early.append(line.decode("utf-8", "backslashreplace"))
        else:
            self._marker(self, line)


def worker_command(
    environ: Mapping[str, str] | None = None, *, module: str = "actors.worker"
) -> tuple[list[str], dict[str, str]]:
    """How a worker is started: the command, and its whole environment made from `environ` (None: ours).

    Ours are found whatever the user's PYTHONPATH and working directory hold; the worker gives the user's back to what
    it starts.
    """
    command, full = own_command(module, environ)
    theirs = (os.environ if environ is None else environ).get("PYTHONPATH")
    if theirs is not None:
        full[worker.PYTHONPATH] = theirs
    return command, full


def new_nonce() -> str:
    """Unguessable, for one assignment: markers are signed with it."""
    return secrets.token_hex(16)


async def _forward(pipe: AnyPipeReader, take: Callable[[bytes], None]) -> None:
    try:
        while True:
            take(await pipe.receive())
    except anyio.EndOfStream:
        return


def _merge(waiting: control.Down, message: control.Down) -> control.Down:
    """What replaces a message that has not been written yet."""
    match waiting, message:
        case control.Ack(gap=int() as gap), control.Ack(gap=None):
            return control.Ack(
                durable=message.durable, received=message.received, gap=gap
            )  # at worst something is sent again
        case control.Bell(head=old), control.Bell(head=new):
            return control.Bell(head=max(old, new))
        case _:
            return message


def _lines(partial: bytearray, data: bytes) -> list[bytes]:
    """The whole lines in `partial` + `data`, without their ends; `partial` keeps the rest."""
    partial += data
    if b"\n" not in data:
        if len(partial) <= MOST_LINE:
            return []
        cut = bytes(partial)
        partial.clear()
        return [cut]
    *lines, rest = bytes(partial).split(b"\n")
    partial[:] = rest
    return [line.removesuffix(b"\r") for line in lines]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            return file.read().decode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return ""
