"""The parent's ends of a child's pipes; with children at the other end they are in `test_process`."""

from __future__ import annotations

import os

import anyio
import pytest

from ipc.pipes import PipeWriter

pytestmark = pytest.mark.anyio


@pytest.mark.only_on("posix", reason="a thread writes elsewhere")
async def test_what_is_sent_is_written_before_others_have_their_turn() -> None:
    """A busy loop does not hold what has room in the pipe."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    found: list[bytes] = []

    async def look() -> None:
        found.append(os.read(readable, 100))

    writer = PipeWriter(writable)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await writer.send(b"said")
        assert found == [b"said"]
    finally:
        writer.close()
        os.close(readable)


@pytest.mark.only_on("posix", reason="a thread writes elsewhere")
async def test_a_cancelled_sender_writes_nothing() -> None:
    """Who is cancelled before it sends has not sent."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    writer = PipeWriter(writable)
    try:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.send(b"said")
        with pytest.raises(BlockingIOError):
            os.read(readable, 100)
    finally:
        writer.close()
        os.close(readable)
