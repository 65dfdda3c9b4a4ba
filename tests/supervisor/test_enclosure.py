"""The group around a crew: named before it is made, ended and taken away by whoever comes next."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import cgroup
from ipc.process import identify, new_marker
from supervisor.enclosure import enclosed, named_in

pytestmark = [pytest.mark.anyio, pytest.mark.only_on("linux", reason="control groups")]
needs_one = pytest.mark.skipif(cgroup.ours() is None, reason="no control group here that is ours to write")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing of ours: no mark, no session, no environment."""
    command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, env={}, start_new_session=True) as process:
        yield process
        process.kill()


@needs_one
async def test_what_a_dead_supervisor_left_in_its_group_is_ended(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """Whatever it has become; it is told, and its group goes with it."""
    file, marks, ours = tmp_path / "cgroup", new_marker(), cgroup.ours()
    assert ours is not None
    async with enclosed(file, marks) as nobody:
        assert nobody == []
        (group,) = named_in(file)
        assert cgroup.ours() == group
        left = file.read_text()
    assert cgroup.ours() == ours
    assert not file.exists()
    assert named_in(file) == []

    group.path.mkdir()
    group.make("within").join(stranger.pid)
    file.write_text(left)
    was = identify(stranger.pid)
    async with enclosed(file, marks) as found:
        assert found == [was]
        assert stranger.wait(10) == -9
        assert not group.path.exists()
        assert named_in(file) == [cgroup.ours()]
        assert cgroup.ours() != group


@needs_one
async def test_nobody_is_left_in_it_at_the_end(tmp_path: Path) -> None:
    """Not even who has left the session and had no environment."""
    async with enclosed(tmp_path / "cgroup", new_marker()):
        (group,) = named_in(tmp_path / "cgroup")
        command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
        stranger = subprocess.Popen(command, env={}, start_new_session=True)  # noqa: ASYNC220 - it returns at once
    assert stranger.wait(10) == -9
    assert not group.path.exists()


@needs_one
async def test_a_group_of_another_name_is_left_alone(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    """The file may have come with a repository."""
    ours = cgroup.ours()
    assert ours is not None
    other = ours.make(f"somebody-{os.getpid()}")
    try:
        other.join(stranger.pid)
        file = tmp_path / "cgroup"
        file.write_text(f"{other.path}\n{other.path}/phase-supervisor-0123456789abcdef\n/\n\n")
        async with enclosed(file, new_marker()) as left:
            assert left == []
        assert stranger.poll() is None
    finally:
        other.kill()
        stranger.wait(10)
        assert other.remove()


async def test_a_folder_that_is_called_so_is_no_group(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    """Or anybody could have any process of ours ended."""
    folder = tmp_path / "phase-supervisor-0123456789abcdef"
    folder.mkdir()
    (folder / "cgroup.procs").write_text(f"{stranger.pid}\n")
    (tmp_path / "cgroup").write_text(f"{folder}\n")
    async with enclosed(tmp_path / "cgroup", new_marker()) as left:
        assert left == []
    assert stranger.poll() is None
    assert folder.exists()


async def test_a_unit_of_systemd_has_a_group_already(tmp_path: Path) -> None:
    file, ours = tmp_path / "cgroup", cgroup.ours()
    async with enclosed(file, new_marker(), {"SYSTEMD_EXEC_PID": str(os.getpid())}):
        assert cgroup.ours() == ours
        assert not file.exists()
