"""The event plane as a whole: within its limits, served again when it breaks, and counted for each worker."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import sqlite3
from pathlib import Path

import pytest

from ipc.control import Ack
from ipc.emitter import Emitter
from ipc.process import Identity
from supervisor import plane as event_plane
from supervisor.config import parse
from supervisor.hub import Hub
from supervisor.journal import Journal
from supervisor.plane import EventPlane, Retention
from supervisor.pump import Pump

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def no_ack(_worker: str, _epoch: int, _ack: Ack) -> None:
    """Nobody reads acks here."""


async def until_read(plane: EventPlane, least: int) -> None:
    """Wait until so many events can be read."""
    with plane.follow(None) as stream:
        seen = 0
        async for batch in stream.batches():
            seen += len(batch)
            if seen >= least:
                return


async def test_the_journal_stays_within_its_limits(tmp_path: Path) -> None:
    """Retention runs by itself, again and again; a failure is no reason to stop it."""
    journal = tmp_path / "journal.sqlite3"
    retention = Retention(most_age=0.0, every=0.02)
    async with event_plane.opened(
        journal=journal, spools=tmp_path / "spools", send_ack=no_ack, capacity=10, retention=retention
    ) as plane:
        gone = asyncio.Event()
        failures = [sqlite3.OperationalError("disk full")]
        retain = plane.journal._retain

        def watched(most_bytes: int | None, most_age: float | None) -> int:
            if failures:
                raise failures.pop()
            removed = retain(most_bytes, most_age)
            if removed:
                asyncio.run_coroutine_threadsafe(_set(gone), loop)
            return removed

        loop = asyncio.get_running_loop()
        plane.journal._retain = watched  # type: ignore[method-assign]
        plane.record("log_entry", detail="old soon")
        await gone.wait()
        assert plane.journal.read() == []
        assert failures == []


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_the_file_says_how_much_is_kept() -> None:
    """`[journal]` has a size and an age, both with defaults, and nought for no limit."""
    assert (parse("").journal.max_mb, parse("").journal.keep_days) == (1024, 90.0)
    assert parse("[journal]\nmax_mb = 0\nkeep_days = 7").journal.keep_days == 7.0


async def test_what_is_on_record_is_in_the_log_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads log files hears of deaths and decisions, each as loud as it is; an alarm is there once."""
    caplog.set_level(logging.DEBUG, "supervisor")
    async with event_plane.opened(
        journal=tmp_path / "journal.sqlite3", spools=tmp_path / "spools", send_ack=no_ack, capacity=10
    ) as plane:
        plane.record("phase_error", phase="qa", step="exit", detail="qa was ended by signal 9\x1b[2J")
        plane.record("log_entry", phase="qa", step="decision", detail="it is started again")
        plane.record("progress", step="snapshot", detail="7 files")
        plane.pump._raise_alarm("spool", "the disk is full")
        await until_read(plane, 4)
        assert [event.step for event in plane.journal.read()] == ["exit", "decision", "snapshot", "spool"]
    said = [(r.levelname, r.getMessage(), getattr(r, "phase", ""), getattr(r, "step", "")) for r in caplog.records]
    assert said == [
        ("ERROR", "qa was ended by signal 9\N{REPLACEMENT CHARACTER}[2J", "qa", "exit"),
        ("INFO", "it is started again", "qa", "decision"),
        ("DEBUG", "7 files", "supervisor", "snapshot"),
        ("ERROR", "the disk is full", "", ""),
    ]


@pytest.mark.only_on("posix", reason="the socket is a file only on POSIX")
async def test_a_broken_listener_is_replaced(tmp_path: Path) -> None:
    """When the socket goes, the queue is served at a new address and whoever has the old one is told."""
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    alarms: list[str] = []
    journal = Journal.open(tmp_path / "journal.sqlite3")
    async with Pump(
        journal=journal,
        hub=Hub(journal),
        spools=tmp_path / "spools",
        redirect=lambda address, key: told.put_nowait((address, key)),
        alarm=lambda what, _text: alarms.append(what),
        look_every=0.01,
    ) as pump:
        pump.serve()
        before = pump.server.address
        await asyncio.to_thread(Path(before).unlink)
        address, key = await told.get()
        assert address == pump.server.address != before
        assert base64.b64decode(key)
        assert await asyncio.to_thread(pump.server.answers)
        assert (pump.statistics().served_again, alarms) == (1, ["queue"])
    journal.close()


async def test_a_mute_server_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that is there and answers nobody, twice, is replaced too."""
    monkeypatch.setattr("supervisor.pump._CALL_EVERY", 1)
    told: asyncio.Queue[str] = asyncio.Queue()
    journal = Journal.open(tmp_path / "journal.sqlite3")
    async with Pump(
        journal=journal,
        hub=Hub(journal),
        spools=tmp_path / "spools",
        redirect=lambda address, _key: told.put_nowait(address),
        look_every=0.01,
    ) as pump:
        answers = iter([True, False, True, False, False])
        pump.server.answers = lambda: next(answers, True)  # type: ignore[method-assign]
        pump.serve()
        before = pump.server.address
        assert await told.get() != before
        assert list(answers) == []
        assert pump.statistics().served_again == 1
    journal.close()


async def test_each_worker_is_counted(tmp_path: Path) -> None:
    """What a worker says of its emitter and what is seen here stand side by side, and go on over its epochs."""
    async with event_plane.opened(
        journal=tmp_path / "journal.sqlite3", spools=tmp_path / "spools", send_ack=no_ack, capacity=10
    ) as plane:
        assert plane.serve()
        for epoch in (1, 2):
            nonce = secrets.token_hex(8)
            folder = await plane.open_epoch(
                "qa", epoch, nonce, plane.opening("qa", epoch, Identity(pid=1, created=0.0))
            )
            address, key = plane.endpoint()
            emitter = Emitter.for_worker(
                worker="qa", epoch=epoch, nonce=nonce, folder=folder, address=address, key=key, marker_fd=-1,
                mode="queue",
            )  # fmt: skip
            for _ in range(5):
                emitter.emit("qa", "x", type="finding")
            assert await asyncio.to_thread(emitter.drain, 10)
            plane.heed("qa", epoch, {**emitter.statistics().counts(), "fallbacks": 1, "unheard of": 7})
            emitter.close()
            await plane.close_epoch("qa", epoch, (), _nothing)
        plane.heed("qa", 1, {"sent": 1000})  # too late: this epoch is closed
        counts = plane.statistics().workers["qa"]
        assert (counts.sent, counts.stored, counts.fallbacks) == (10, 10, 2)
        assert counts.bytes > 0
        assert sum(plane.statistics().latencies["qa"].values()) > 0
        assert plane.counters()["sent"] == 10
        assert plane.worker_counters()["qa"]["sent"] == 10
        refused = {"refused_handshakes", "refused_messages", "refused_connections"}
        assert {*plane.worker_counters()["qa"]} | refused == {*plane.counters(), "waiting"}
        await until_read(plane, 10)


async def _nothing() -> None:
    """There is no marker pipe."""
