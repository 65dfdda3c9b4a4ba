"""Runs somebody's command within limits: time, output, environment; and leaves nothing of it running.

What a command's exit code or output means is judged by the modules that call this.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream

from ipc.process import PIPE, spawn

MOST_OUTPUT = 256 * 1024  # bytes kept of each of stdout and stderr: the last ones
EVERY = 0.1  # seconds between looks of a watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended. `code` is negative for a signal; `why` says why we ended it, "" if it ended by itself."""

    code: int
    why: str
    stdout: str
    stderr: str
    seconds: float


async def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - the command is ended with its whole tree, and that is a result
    watch: Callable[[], Awaitable[str]] | None = None,
    apart: bool = False,
) -> Ran:
    """Run a command to its end, or end it with all its children after `timeout` seconds or when `watch` says why.

    `apart` is for callers that run several at once or have other children: it gets a session of its own then.
    `watch` is awaited about every tenth of a second, and once more after the end; "" lets the command go on.
    SpawnError if the program cannot be started.
    """
    began = time.monotonic()
    why = ""
    out: deque[bytes] = deque()
    err: deque[bytes] = deque()
    # A group of its own within our session: if we die, who ends our tree ends this too. A worker runs one command at a
    # time, so orphans that it has adopted are the command's.
    process = await spawn(command, stdout=PIPE, stderr=PIPE, cwd=cwd, env=env, session=apart, adopting=not apart)
    code = -1
    async with process, anyio.create_task_group() as readers:
        assert process.stdout is not None
        assert process.stderr is not None
        readers.start_soon(_keep_tail, process.stdout, out)
        readers.start_soon(_keep_tail, process.stderr, err)
        while True:
            left = began + timeout - time.monotonic()
            with anyio.move_on_after(max(0.0, min(left, EVERY if watch else left))):
                code = await process.wait()
                break
            if watch is not None:
                why = await watch()
            if not why and time.monotonic() >= began + timeout:
                why = f"it was still running after {timeout:g} s"
            if why:
                await process.end_tree()
                code = await process.wait()
                break
        # What it left behind holds the pipes open; without it they end, and the readers with them.
        if await process.end_tree():
            readers.cancel_scope.cancel()
    if watch is not None:
        await watch()
    return Ran(code=code, why=why, stdout=_text(out), stderr=_text(err), seconds=time.monotonic() - began)


async def _keep_tail(stream: ByteReceiveStream, chunks: deque[bytes]) -> None:
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        while size - len(chunks[0]) > MOST_OUTPUT:
            size -= len(chunks.popleft())


def _text(chunks: deque[bytes]) -> str:
    return b"".join(chunks)[-MOST_OUTPUT:].decode("utf-8", "replace")
