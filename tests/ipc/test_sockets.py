"""Folders for sockets go with their owners, also with those that were killed, and never before."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import sockets
from ipc.queue import create_queue
from ipc.sockets import SocketFolder, sweep

pytestmark = pytest.mark.only_on("posix", reason="sockets with a path")
ROOT = Path(__file__).parents[2]
OWNER = """
import sys
from ipc import sockets
from ipc.queue import create_queue
queue = create_queue()
print(queue.server.address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="q-") as folder:  # a short path, as a socket needs it
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def owner() -> tuple[subprocess.Popen[str], Path]:
    """Another process that serves a queue, and its folder."""
    started = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    return started, Path(started.stdout.readline().strip()).parent


def test_a_killed_owners_folder_goes_when_the_next_queue_is_made(base: Path) -> None:
    """A live owner's stays, here and elsewhere, and so does what is no folder of a socket."""
    killed, left = owner()
    live, kept = owner()
    own = create_queue()
    others = [base / "psv-notes", base / "psv-open"]
    for other, mode in zip(others, (0o700, 0o755), strict=True):
        other.mkdir(mode)
        other.chmod(mode)
    (others[1] / "lock").touch()
    with killed, live:
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with create_queue():
            assert not left.exists()
            assert kept.is_dir()
            assert Path(own.server.address).is_socket()
            assert all(other.is_dir() for other in others)
        live.kill()
    own.close()


def test_a_folder_swept_before_it_was_locked_is_made_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sweeps between the making of a lock and its taking removes a folder that nobody uses yet."""
    take = sockets._take
    swept: list[int] = []

    def late(lock: int) -> bool:
        if not swept:
            swept.append(0)
            swept.append(sweep(str(base)))
        return take(lock)

    monkeypatch.setattr(sockets, "_take", late)
    folder = SocketFolder.make(str(base))
    assert swept == [0, 1]
    assert list(base.iterdir()) == [folder.path]
    assert sweep(str(base)) == 0
    folder.remove()
    assert list(base.iterdir()) == []


def test_without_locks_nothing_is_swept(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system knows no locks a folder is made nevertheless, and nobody takes it for one that was left."""

    def refuse(_lock: int) -> bool:
        raise OSError("no locks available")

    monkeypatch.setattr(sockets, "_take", refuse)
    folder = SocketFolder.make(str(base))
    monkeypatch.undo()
    assert sweep(str(base)) == 0
    assert folder.path.is_dir()
    folder.remove()
