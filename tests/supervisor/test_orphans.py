"""A worker that outlived its supervisor: its epoch waits a little, then exactly that process is ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from ipc.process import Identity, identify, is_alive
from ipc.spool import create_folder
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.pump import Pump

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])
HOLDER = """
import sys
from pathlib import Path
from ipc.spool import SpoolLock
held = SpoolLock.take(Path(sys.argv[1])) if len(sys.argv) > 1 else None
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def living(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Identity]]:
    """A process that holds the epoch's lock, if it is told which."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = identify(process.pid)
        assert found is not None
        try:
            yield process, found
        finally:
            process.kill()


@contextmanager
def journal_of(folder: Path) -> Iterator[Journal]:
    journal = Journal.open(folder / "journal.sqlite3")
    try:
        yield journal
    finally:
        journal.close()


def pump_on(journal: Journal, folder: Path) -> Pump:
    return Pump(
        journal=journal, hub=Hub(journal), spools=folder, send_ack=lambda _worker, _epoch, _ack: None, lock_grace=0.3
    )


async def opened_before(folder: Path, journal: Journal, holder: Identity) -> None:
    """What a supervisor that is dead by now had put on record."""
    async with pump_on(journal, folder / "spools") as pump:
        await pump.open_epoch("qa", 1, "n", holder.pid, holder.created)


async def test_a_live_orphan_is_ended_and_its_epoch_closed(tmp_path: Path, anyio_backend: str) -> None:
    """The process that holds the epoch's lock is the one on record: it is killed, and the epoch is closed."""
    spool = tmp_path / "spools" / "qa-1"
    (tmp_path / "spools").mkdir()
    create_folder(spool)
    with living(str(spool)) as (process, holder), journal_of(tmp_path) as journal:
        await opened_before(tmp_path, journal, holder)
        async with pump_on(journal, tmp_path / "spools") as pump:
            assert await pump.close_all_known() == [("qa", 1)]
        assert await anyio.to_thread.run_sync(process.wait) == (-9 if sys.platform != "win32" else 15)
        (entry,) = [entry for entry in journal.reader.epochs() if entry.worker == "qa"]
        assert entry.closed


async def test_who_has_got_the_number_of_an_orphan_is_spared(tmp_path: Path, anyio_backend: str) -> None:
    """The pid on record is somebody else's by now: nobody is killed, and the epoch waits until its lock is free."""
    spool = tmp_path / "spools" / "qa-1"
    (tmp_path / "spools").mkdir()
    create_folder(spool)
    with living(str(spool)) as (process, _), living() as (_, other), journal_of(tmp_path) as journal:
        await opened_before(tmp_path, journal, Identity(other.pid, other.created - 5))
        async with pump_on(journal, tmp_path / "spools") as pump:
            with anyio.move_on_after(1.5) as waited:
                await pump.close_all_known()
            assert waited.cancelled_caught
            assert process.poll() is None
            assert is_alive(other)
            process.kill()
            await pump.close_epoch("qa", 1)
        assert is_alive(other)
