"""Windows lets nobody replace a file that somebody has open: a moment of reading is waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.folders import replace
from docs_store.files import durable_replace
from docs_store.store import Store
from supervisor.epochs import BLOCK, EpochCounter
from supervisor.workspace import write_text

pytestmark = pytest.mark.only_on("windows", reason="only there an open file cannot be replaced")

# Holds the file open, says so, and lets go a moment after somebody wants to replace it, or for ever.
READER = """
import sys, time
with open(sys.argv[1], "rb"):
    print("open", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def durably(path: Path) -> None:
    durable_replace(path, b"new")


def small(path: Path) -> None:
    write_text(path, "new")


def tree(path: Path) -> None:
    path.with_name("other").write_bytes(b"new")
    replace(str(path.with_name("other")).encode(), str(path).encode())


@pytest.mark.parametrize("write", [durably, small, tree])
def test_a_moment_s_reader_is_waited_for(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Another process reads when the file is to be replaced, and is done soon after."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with reading(path, 0.15):
        write(path)
    assert path.read_bytes() == b"new"


def test_an_epoch_s_number_waits_for_a_reader(tmp_path: Path) -> None:
    """A look at the counter's file keeps no worker from its restart."""
    counter = EpochCounter(tmp_path / "epochs")
    numbers = [counter.take() for _ in range(BLOCK)]
    with reading(tmp_path / "epochs", 0.15):
        numbers.append(counter.take())
    assert numbers == list(range(1, BLOCK + 2))


def test_a_cursor_waits_for_a_reader(tmp_path: Path) -> None:
    """What somebody has read is remembered, also while another looks at it."""
    store = Store.open(tmp_path / "crew")
    store.mark_read("me", "QA_WRITE.md", 0)
    (path,) = (file for file in (tmp_path / "crew").rglob("*") if file.is_file() and b"QA_WRITE" in file.read_bytes())
    with reading(path, 0.15):
        store.mark_read("me", "QA_WRITE.md", 1)
    assert b"1" in path.read_bytes()


def test_one_that_stays_is_an_error_and_the_file_as_it_was(tmp_path: Path) -> None:
    """Patience ends after half a second; nothing half written is left behind."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with reading(path, 60.0), pytest.raises(PermissionError):
        durable_replace(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


class reading:  # noqa: N801 - used like a function
    """Another process has the file open, for so many seconds at most."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", READER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> None:
        assert self._child.stdout is not None
        assert self._child.stdout.readline().strip() == "open"

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        self._child.communicate()
