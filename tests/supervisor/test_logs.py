"""Where log lines go: one file, both kinds of logging, a bounded size."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import anyio
import pytest
import structlog

from supervisor import logs
from supervisor.config import LogConfig
from supervisor.logs import FILE, cut_to_size, forget_old_epochs, keep_small, logging_to


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def write(folder: Path, config: LogConfig) -> list[str]:
    with logging_to(folder, config):
        logging.getLogger("supervisor.pump").warning("the disk is full: %s", "no space")
        structlog.get_logger("supervisor.crew").info("a phase was paused", phase="qa")
        try:
            int("nothing of a number")
        except ValueError:
            structlog.get_logger("supervisor.crew").exception("a command failed")
    return (folder / FILE).read_text("utf-8").splitlines()


def test_json_lines_carry_time_level_name_and_pairs(tmp_path: Path) -> None:
    """One object per line, a traceback inside its own."""
    first, second, third = map(json.loads, write(tmp_path, LogConfig(format="json")))
    assert (first["event"], first["level"], first["logger"]) == (
        "the disk is full: no space",
        "warning",
        "supervisor.pump",
    )
    assert (second["event"], second["phase"]) == ("a phase was paused", "qa")
    assert "ValueError" in third["exception"]
    assert all(entry["timestamp"].endswith("Z") for entry in (first, second, third))


def test_lines_for_people_have_no_colours(tmp_path: Path) -> None:
    """The same facts in words; a file is no terminal."""
    lines = write(tmp_path, LogConfig())
    assert "the disk is full: no space" in lines[0]
    assert "phase=qa" in lines[1]
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("ValueError") for line in lines)


def test_a_full_file_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    """At most max_mb times one more than `keep`."""
    config = LogConfig(max_mb=1, keep=2)
    with logging_to(tmp_path, config):
        for _ in range(500):
            logging.getLogger("x").info("y" * 10_000)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [FILE, f"{FILE}.1", f"{FILE}.2"]
    assert all(path.stat().st_size <= 1024 * 1024 for path in tmp_path.iterdir())


def test_afterwards_logging_is_as_before(tmp_path: Path) -> None:
    """A host program that embeds us keeps its own."""
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    write(tmp_path, LogConfig())
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == before


def test_workers_logs_of_long_ago_go(tmp_path: Path) -> None:
    """By number, not by name; what is no worker's log stays."""
    for epoch in (2, 9, 10, 11, 100):
        (tmp_path / f"qa-{epoch}.log").write_text("x")
    for name in ("planning-1.log", FILE, "console.log", "qa-x.log", "qa-9.log.1", "qa-11.log.1"):
        (tmp_path / name).write_text("x")
    assert forget_old_epochs(tmp_path, keep=2) == 3
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"qa-11.log", "qa-11.log.1", "qa-100.log", "planning-1.log", FILE, "console.log", "qa-x.log"}


def test_a_worker_that_prints_without_end_fills_no_disk(tmp_path: Path) -> None:
    """What is too much is set aside, its end, and cut; the worker's descriptor goes on at the new beginning."""
    (tmp_path / "qa-3.log").write_text("little\n")
    (tmp_path / FILE).write_text("x" * 200)
    writer = os.open(tmp_path / "planning-7.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(writer, b"a" * 150 + b"b" * 100)
        assert cut_to_size(tmp_path, most=100) == 1
        os.write(writer, b"c")
        assert (tmp_path / "planning-7.log").read_bytes() == b"c"
        assert (tmp_path / "planning-7.log.1").read_bytes() == b"b" * 100
        os.write(writer, b"d" * 100)
        assert cut_to_size(tmp_path, most=100) == 1
    finally:
        os.close(writer)
    assert (tmp_path / "planning-7.log.1").read_bytes() == b"d" * 100
    assert (tmp_path / "qa-3.log").read_text() == "little\n"
    assert (tmp_path / FILE).stat().st_size == 200, "the supervisor's own is its handler's"


@pytest.mark.anyio
async def test_workers_logs_are_kept_small_while_the_crew_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only at the next start, which may be weeks away; a look that fails is followed by others."""
    monkeypatch.setattr(logs, "LOOK_EVERY", 0.01)
    for epoch in range(1, logs.KEPT_EPOCHS + 2):
        (tmp_path / f"qa-{epoch}.log").write_text("x")
    (tmp_path / "planning-1.log").write_bytes(b"x" * (1 << 20) + b"y")
    (tmp_path / "planning-1.log.1").mkdir()
    cut = anyio.Event()

    def watched(folder: Path, *, most: int) -> int:
        try:
            return cut_to_size(folder, most=most)
        except OSError:
            (tmp_path / "planning-1.log.1").rmdir()
            raise
        finally:
            if (tmp_path / "planning-1.log").stat().st_size == 0:
                anyio.from_thread.run_sync(cut.set)

    monkeypatch.setattr(logs, "cut_to_size", watched)
    async with anyio.create_task_group() as group:
        group.start_soon(keep_small, tmp_path, LogConfig(max_mb=1))
        await cut.wait()
        group.cancel_scope.cancel()
    assert not (tmp_path / "qa-1.log").exists()
    assert (tmp_path / "planning-1.log.1").read_bytes() == b"x" * ((1 << 20) - 1) + b"y"


@pytest.mark.only_on("linux", reason="/dev/full")
def test_a_full_disk_is_told_in_the_log_once_there_is_room(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Until then nothing of it reaches the terminal: no traceback is shown to a person who watches the crew."""
    (tmp_path / FILE).symlink_to("/dev/full")
    with logging_to(tmp_path, LogConfig()):
        logging.getLogger("x").info("lost")
        logging.getLogger("x").info("lost too")
        (tmp_path / FILE).unlink()
        (handler,) = [one for one in logging.getLogger().handlers if isinstance(one, RotatingFileHandler)]
        full, handler.stream = handler.stream, handler._open()
        assert full is not None
        with pytest.raises(OSError, match="No space left"):
            full.close()
        logging.getLogger("x").info("here again")
        (tmp_path / FILE).rename(tmp_path / "kept.log")
        (tmp_path / FILE).symlink_to("/dev/full")
        handler.stream.close()
        handler.stream = handler._open()
        logging.getLogger("x").info("lost again, and the run ends")
    assert capfd.readouterr() == ("", "")
    first, second = (tmp_path / "kept.log").read_text("utf-8").splitlines()
    assert "here again" in first
    assert "2 lines could not be written here: [Errno 28] No space left on device" in second
