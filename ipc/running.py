"""Runs a tool as a subprocess and gives its progress as one stream of events: for the author of a backend.

Decides the mode once, makes the queue where there is one, judges what comes by queue and by stdout together, and ends
the stream with exactly one `audit_complete`, whatever happened, after everything before it. What the events mean, and
whether to run the tool again, is the caller's. A caller that reads slowly slows the tool, not this program.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Full
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.abc
import anyio.lowlevel

from . import process
from .events import ProgressEvent
from .markers import MOST_LINE, PREFIX, Marker, parse_marker
from .modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT, MODE_VARIABLE, Mode, determine_ipc_mode_with_reason
from .pipes import AnyPipeReader
from .queue import FD_VARIABLE, KEY_VARIABLE, EventQueue, ManagedQueue, serialize_queue
from .receiver import Receiver
from .threads import in_thread, make_in_thread

AUDIT_COMPLETE = "audit_complete"
COULD_NOT_START = 127  # the return code of a command that is not there, as a shell has it
LOG_LINES = 1000  # kept in `Run.log`
LAST_WORDS = 1.0  # seconds for the rest of the output once the tree is gone; only an escaped process could hold it

OnLog = Callable[[str, Literal["stdout", "stderr"]], None]

_log = logging.getLogger(__name__)


def run(
    cmd: Sequence[str | os.PathLike[str]],
    *,
    cli_use_queue_ipc: bool = False,
    cli_use_stdout: bool = False,
    default_rate: float = 0.1,
    rng: Callable[[], float] = random.random,
    append_flag: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    maxsize: int = 1000,
    on_log: OnLog | None = None,
    grace: float = 5.0,
) -> Run:
    """Run a tool: `async with ipc.run(cmd) as run: async for event in run: …`.

    The mode is decided by the two `cli_` flags, then the variables of `env` (None: ours), then the rollout, as
    `determine_ipc_mode` does; ModeError for a bad value. In queue mode the tool finds the queue in AUDIT_QUEUE_KEY, and
    `append_flag` gives it `--use-queue-ipc` as its last argument. `on_log` takes each line that is no event, with the
    stream it came from. The tool's whole tree ends with it. Leaving the block earlier asks the tool to end and waits
    `grace` seconds before it is ended, no time at all when the caller is being cancelled.
    """
    environ = dict(os.environ if env is None else env)
    mode, reason = determine_ipc_mode_with_reason(
        cli_use_queue_ipc=cli_use_queue_ipc,
        cli_use_stdout=cli_use_stdout,
        environ=environ,
        rng=rng,
        default_rate=default_rate,
    )
    command = [os.fspath(part) for part in cmd]
    if not command:
        raise ValueError("the command is empty")
    return Run(
        command,
        mode=mode,
        reason=reason,
        append_flag=append_flag,
        cwd=cwd,
        environ=environ,
        maxsize=maxsize,
        on_log=on_log,
        grace=grace,
    )


class Run:
    """A tool under way: an async iterator of its events, then facts about how it went. Made by `run`.

    `mode` and `reason` say how the events were meant to travel, `fell_back` whether some came by stdout nevertheless.
    `returncode` is None until the tool has exited, 127 if it could not be started (then `error` says why).
    `log` holds the last 1,000 lines that were no events.
    """

    def __init__(
        self,
        command: list[str],
        *,
        mode: Mode,
        reason: str,
        append_flag: bool,
        cwd: str | os.PathLike[str] | None,
        environ: dict[str, str],
        maxsize: int,
        on_log: OnLog | None,
        grace: float,
    ) -> None:
        self.command = command
        self.mode = mode
        self.reason = reason
        self.fell_back = False
        self.returncode: int | None = None
        self.error = ""
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.log_lines = 0
        self.events = 0
        self._append_flag = append_flag
        self._cwd = cwd
        self._environ = environ
        self._maxsize = maxsize
        self._on_log = on_log
        self._grace = grace
        self._process: process.Process | None = None
        self._queue: EventQueue = EventQueue(maxsize)
        self._judge: Callable[[bytes], list[ProgressEvent] | None] = Receiver().line
        self._arrived = anyio.Event()
        self._taken = anyio.Event()
        self._finished = False
        self._completed = False
        self._own_words: dict[str, Any] = {}  # of a tool that says audit_complete itself
        self._detail = ""
        self._started_at = 0.0
        self._group: anyio.abc.TaskGroup | None = None

    @property
    def pid(self) -> int | None:
        """The tool's process id; None if it could not be started."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        self._started_at = time.monotonic()
        try:
            try:
                await self._start()
            except process.SpawnError as error:
                self.returncode, self.error, self._finished = COULD_NOT_START, str(error), True
                await self._close_queue()
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
        except BaseException:  # there is no `__aexit__` then
            with anyio.CancelScope(shield=True):
                if self._process is not None:
                    await self._process.aclose()
                await self._close_queue()
            raise
        if self._process is not None:
            self._group.start_soon(self._look_after, self._process)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._group is not None
        if self._process is not None and self._process.returncode is None:
            cancelled = error is not None and not isinstance(error, Exception)
            await process.stop(self._process, grace=0.0 if cancelled else self._grace)
        self._group.cancel_scope.cancel()
        try:
            return await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if list(group.exceptions) == [error]:
                return False  # the caller's own error goes on as it was raised
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next event (or plain value, if the tool puts such), in order; `audit_complete` is the last."""
        await anyio.lowlevel.checkpoint()
        while True:
            arrived = self._arrived
            try:
                item = self._queue.get(block=False)
            except Empty:
                if not self._finished:
                    await arrived.wait()
                    continue
                if self._completed:
                    raise StopAsyncIteration from None
                self._completed = True
                return self._complete()
            self._taken.set()
            self._taken = anyio.Event()
            if isinstance(item, ProgressEvent) and item.type == AUDIT_COMPLETE:
                self._own_words, self._detail = dict(item.summary), item.detail  # said once, at the very end
                continue
            self.events += 1
            return item

    async def wait(self) -> int:
        """Read the stream to its end without looking at it. The return code."""
        async for _ in self:
            pass
        assert self.returncode is not None
        return self.returncode

    async def _start(self) -> None:
        for name in (FD_VARIABLE, KEY_VARIABLE):
            self._environ.pop(name, None)  # of a run that we may be part of ourselves
        command = list(self.command)
        if self.mode == IPC_MODE_QUEUE:
            await self._open_queue()
        if self.mode == IPC_MODE_QUEUE and self._append_flag:
            command.append("--use-queue-ipc")
        self._environ[MODE_VARIABLE] = self.mode
        self._process = await process.spawn(
            command, stdout=process.PIPE, stderr=process.PIPE, cwd=self._cwd, env=self._environ
        )

    async def _open_queue(self) -> None:
        token = anyio.lowlevel.current_token()
        native: Any = token.native_token
        soon = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon

        def wake() -> None:
            """From a thread of the server's: never waits for the loop."""
            try:
                soon(self._ring)
            except RuntimeError:  # the loop has ended (trio's RunFinishedError is one too)
                _log.debug("an event of %s came after its end", self.command[0])

        try:
            queue = await make_in_thread(lambda: ManagedQueue(self._maxsize, wake=wake), undo=ManagedQueue.close)
        except OSError as error:
            _log.error("no queue can be made for %s: %s", self.command[0], error)
            _log.warning("%s falls back to stdout", self.command[0])
            _log.info("events of %s go by stdout", self.command[0])
            self.mode, self.reason, self.fell_back = IPC_MODE_STDOUT, f"no queue can be made: {error}", True
            return
        self._queue, self._judge = queue, queue.receive_line
        self._environ[FD_VARIABLE], self._environ[KEY_VARIABLE] = serialize_queue(queue)

    async def _look_after(self, tool: process.Process) -> None:
        """Read its output, see its exit, end what it left, and only then say that it has finished."""
        assert tool.stdout is not None
        assert tool.stderr is not None
        out, err = _Lines(tool.stdout), _Lines(tool.stderr)
        try:
            async with anyio.create_task_group() as readers:
                readers.start_soon(self._read_stdout, out)
                readers.start_soon(self._read_stderr, err)
                self.returncode = await tool.wait()
                await tool.end_tree()
                out.hurry()
                err.hurry()
        finally:
            with anyio.CancelScope(shield=True):
                await tool.aclose()
                self.returncode = tool.returncode
                await self._close_queue()
            self._finished = True
            self._ring()

    async def _read_stdout(self, lines: _Lines) -> None:
        torn = False  # the line before was cut in two by a marker
        async for whole in lines:
            line = whole
            if torn and not line:  # the end of that line, however many markers came before it
                torn = False
                continue
            at = line.find(PREFIX)
            if at > 0 and isinstance(parse_marker(line[at:]), Marker):
                # An unbuffered print is several writes: the tool's own thread was in the middle of a line.
                self._say(line[:at], "stdout")
                line, torn = line[at:], True
            events = self._judge(line)
            if events is None:
                torn = False
                self._say(line, "stdout")
                continue
            if events and self.mode == IPC_MODE_QUEUE and not self.fell_back:
                self.fell_back = True
                _log.warning("%s fell back to stdout", self.command[0])
            for event in events:
                await self._give(event)

    async def _read_stderr(self, lines: _Lines) -> None:
        async for line in lines:
            self._say(line, "stderr")

    async def _give(self, event: ProgressEvent) -> None:
        while True:
            taken = self._taken
            try:
                self._queue.put(event, block=False)
            except Full:
                await taken.wait()
            else:
                self._ring()
                return

    def _say(self, line: bytes, stream: Literal["stdout", "stderr"]) -> None:
        text = line.decode("utf-8", "backslashreplace")
        self.log.append(text)
        self.log_lines += 1
        if self._on_log is not None:
            self._on_log(text, stream)

    def _ring(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()

    async def _close_queue(self) -> None:
        if isinstance(self._queue, ManagedQueue):
            await in_thread(self._queue.close)

    def _complete(self) -> ProgressEvent:
        code = self.returncode
        how = self.error or (f"ended by signal {-code}" if code is not None and code < 0 else f"exit code {code}")
        return ProgressEvent(
            type=AUDIT_COMPLETE,
            step="done" if code == 0 else "error",
            pct=100,
            detail=self._detail or how,
            summary={
                **self._own_words,
                "returncode": code,
                "ok": code == 0,
                "mode": self.mode,
                "reason": self.reason,
                "fell_back": self.fell_back,
                "events": self.events,
                "log_lines": self.log_lines,
                "seconds": round(time.monotonic() - self._started_at, 3),
                **({"error": self.error} if self.error else {}),
            },
        )


class _Lines:
    """The lines of a pipe without their ends, the last one also without one; an endless line is cut."""

    def __init__(self, pipe: AnyPipeReader) -> None:
        self._pipe = pipe
        self._partial = bytearray()
        self._whole: deque[bytes] = deque()
        self._ended = False
        self._hurry = False
        self._receiving: anyio.CancelScope | None = None

    def hurry(self) -> None:
        """Nobody we know of can write any more: from now on do not wait long for the pipe's end."""
        self._hurry = True
        if self._receiving is not None:
            self._receiving.deadline = anyio.current_time() + LAST_WORDS

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._whole:
            if self._ended:
                raise StopAsyncIteration
            self._take(await self._receive())
        return self._whole.popleft()

    async def _receive(self) -> bytes:
        """What has come; `b""` at the end."""
        with anyio.CancelScope(deadline=anyio.current_time() + LAST_WORDS if self._hurry else math.inf) as scope:
            self._receiving = scope
            try:
                return await self._pipe.receive()
            except anyio.EndOfStream:
                return b""
            finally:
                self._receiving = None
        return b""

    def _take(self, data: bytes) -> None:
        self._partial += data
        if not data:
            self._ended = True
            if self._partial:
                self._whole.append(bytes(self._partial))
        elif b"\n" in data:
            *lines, rest = bytes(self._partial).split(b"\n")
            self._partial[:] = rest
            self._whole.extend(line.removesuffix(b"\r") for line in lines)
        elif len(self._partial) > MOST_LINE:
            self._whole.append(bytes(self._partial))
            self._partial.clear()
