"""Where log lines go: one file, both kinds of logging, a bounded size."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from supervisor.config import LogConfig
from supervisor.logs import FILE, forget_old_epochs, logging_to


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
    for name in ("planning-1.log", FILE, "console.log", "qa-x.log"):
        (tmp_path / name).write_text("x")
    assert forget_old_epochs(tmp_path, keep=2) == 3
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"qa-11.log", "qa-100.log", "planning-1.log", FILE, "console.log", "qa-x.log"}
