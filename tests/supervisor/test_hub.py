"""The hub: each subscriber goes its own way through the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ipc.events import ProgressEvent
from supervisor.hub import Hub
from supervisor.journal import Cursor, CursorGoneError, Journal, OwnRow, StoredEvent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def add(journal: Journal, hub: Hub, first: int, count: int) -> None:
    """Commit so many events, and say so."""
    rows = [OwnRow(seq=n, event=ProgressEvent("even" if n % 2 == 0 else "odd")) for n in range(first, first + count)]
    committed = await asyncio.wrap_future(journal.commit(rows))
    hub.committed(committed.head)


async def test_a_slow_subscriber_holds_nobody(tmp_path: Path) -> None:
    """A subscriber that does not read costs neither commits nor others anything, and misses nothing later."""
    with Journal.open(tmp_path / "j.sqlite3") as journal:
        hub = Hub(journal)
        with hub.subscribe() as slow, hub.subscribe() as quick:
            waiting = aiter(slow)
            await add(journal, hub, 1, 1)
            assert (await anext(waiting)).n == 1
            await add(journal, hub, 2, 3000)
            hub.close()
            assert [event.n async for event in quick] == list(range(1, 3002))
            assert hub.statistics().furthest_behind > 2000
            assert [event.n async for event in waiting] == list(range(2, 3002))
        assert hub.statistics().subscribers == 0


async def test_nothing_is_shown_before_its_commit_is_announced(tmp_path: Path) -> None:
    """A subscriber waits at the head, and goes on from there with what a filter lets through."""
    with Journal.open(tmp_path / "j.sqlite3") as journal:
        hub = Hub(journal)
        await add(journal, hub, 1, 4)
        seen: list[StoredEvent] = []

        async def watch() -> None:
            with hub.subscribe(type="odd", live_only=True) as stream:
                started.set()
                async for batch in stream.batches():
                    seen.extend(batch)

        started = asyncio.Event()
        task = asyncio.create_task(watch())
        await started.wait()
        await add(journal, hub, 5, 4)
        hub.close()
        await task
        assert [event.n for event in seen] == [5, 7]


async def test_a_cursor_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A cursor of another store, or one that retention has overtaken, is told, with where reading can begin."""
    with Journal.open(tmp_path / "j.sqlite3") as journal:
        hub = Hub(journal)
        await add(journal, hub, 1, 3)
        await asyncio.wrap_future(journal.retain(most_age=-1))
        await add(journal, hub, 4, 2)
        store = journal.reader.head().store
        for cursor in (Cursor("other", 0), Cursor(store, 1)):
            with hub.subscribe(cursor) as stream:
                with pytest.raises(CursorGoneError) as caught:
                    await anext(aiter(stream))
                assert caught.value.oldest == Cursor(store, 4)
        hub.close()
        with hub.subscribe() as stream:
            assert [event.n async for event in stream] == [4, 5]
