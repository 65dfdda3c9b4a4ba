"""Blocking work on a thread: what it makes belongs to its caller, or is undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """With a limiter of its own: starting and ending things must not queue behind a host's blocked threads."""
    return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))


async def make_in_thread(make: Callable[[], T], *, undo: Callable[[T], object]) -> T:
    """What `make` gives. A caller that is cancelled meanwhile waits for it to end, and has it undone, on a thread too.

    That holds for a cancellation of asyncio's own as well, which no shield of anyio's keeps away.
    """
    lock = threading.Lock()
    ended = threading.Event()
    made: list[T] = []
    begun = cancelled = False

    def work() -> None:
        nonlocal begun
        with lock:
            if cancelled:
                return
            begun = True
        try:
            made.append(make())
        finally:
            ended.set()

    def take_back() -> None:
        ended.wait()
        for one in made:
            undo(one)

    try:
        await in_thread(work)
    except BaseException:
        with lock:
            cancelled = True
        if begun:
            with anyio.CancelScope(shield=True):
                await in_thread(take_back)
        raise
    return made[0]
