"""What a thread makes has an owner or is undone."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from ipc.threads import make_in_thread


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_was_made_is_given(backend: str) -> None:
    """Nothing is undone for a caller that was not cancelled, and a failure is its to see."""
    undone: list[str] = []

    def fail() -> str:
        raise LookupError("nothing to be had")

    async def both() -> str:
        with pytest.raises(LookupError):
            await make_in_thread(fail, undo=undone.append)
        return await make_in_thread(lambda: "made", undo=undone.append)

    assert anyio.run(both, backend=backend) == "made"
    assert undone == []


def test_a_task_that_asyncio_cancels_waits_and_has_it_undone() -> None:
    """The task ends only when the thread has, and nobody is left with what it made."""
    begun, go_on = threading.Event(), threading.Event()
    undone: list[str] = []

    def make() -> str:
        begun.set()
        go_on.wait()
        return "made"

    async def cancelled() -> None:
        task = asyncio.create_task(make_in_thread(make, undo=undone.append))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert undone == ["made"]

    asyncio.run(cancelled())
