"""Control groups: where ours is, and that nothing started in one gets away from its tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import cgroup
from ipc.cgroup import Cgroup, existing, folder_of
from tests.ipc.test_adoption import play

pytestmark = pytest.mark.only_on("linux", reason="control groups")
needs_one = pytest.mark.skipif(cgroup.ours() is None, reason="no control group here that is ours to write")

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = """
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
OLD = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
IN_A_CONTAINER = r"30 23 0:26 /docker/4f /sys/fs\040x/cgroup ro - cgroup2 cgroup rw"


@pytest.mark.parametrize(
    ("membership", "mounts", "folder"),
    [
        ("0::/user.slice/app.scope\n", UNIFIED, "/sys/fs/cgroup/user.slice/app.scope"),
        ("4:memory:/process\n1:cpu:/\n0::/\n", HYBRID, "/sys/fs/cgroup/unified"),
        ("0::/docker/4f/inner\n", IN_A_CONTAINER, "/sys/fs x/cgroup/inner"),
        ("0::/docker/4f\n", IN_A_CONTAINER, "/sys/fs x/cgroup"),
        ("0::/docker/4fa\n", IN_A_CONTAINER, None),  # another one's
        ("0::/../outside\n", UNIFIED, None),  # of a namespace that we are not in
        ("4:memory:/process\n", OLD, None),
        ("0::/\n", OLD, None),
        ("", "", None),
        ("nonsense", "neither - cgroup2", None),
    ],
)
def test_the_folder_of_a_group(membership: str, mounts: str, folder: str | None) -> None:
    assert folder_of(membership, mounts) == (None if folder is None else Path(folder))


def test_a_folder_of_another_file_system_is_no_group(tmp_path: Path) -> None:
    """A file that names one may come with a repository, and be written by anybody."""
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert existing(str(tmp_path)) is None
    assert existing("/sys/fs/cgroup/there/is/none") is None
    assert existing("relative") is None
    assert existing("a\0b") is None


@pytest.fixture
def group() -> Iterator[Cgroup]:
    ours = cgroup.ours()
    assert ours is not None
    made = ours.make(f"phase-supervisor-test-{os.getpid()}")
    yield made
    made.kill()
    assert made.remove()


@needs_one
def test_members_join_inherit_and_end_together(group: Cgroup) -> None:
    """A child of a member is one; the group is taken away when nobody is left."""
    script = (
        "import subprocess, sys; input(); subprocess.Popen([sys.executable, '-c', 'input()']); print('ready'); input()"
    )
    inner = group.make("inner")
    with subprocess.Popen(
        [sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        inner.join(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert len(group.pids()) == 2
        assert process.pid in group.pids()
        assert existing(str(inner.path)) == inner
        assert not group.remove()
        group.kill()
        assert process.wait() == -9
    while not group.remove():
        time.sleep(0.01)  # the grandchild is being taken apart
    assert group.pids() == []
    group.kill()  # nobody, and no error
    assert existing(str(inner.path)) is None


@needs_one
def test_what_has_left_everything_else_is_ended() -> None:
    """A daemon with a session and environment of its own, which init has adopted, and one that is never there twice."""
    said = play("""
from ipc import cgroup

RELAY = "import os, time; end = time.monotonic() + 40\\nwhile time.monotonic() < end:\\n if os.fork(): os._exit(0)"

async def main():
    around = cgroup.ours()
    made = around.make(f"phase-supervisor-test-{os.getpid()}")
    made.join(os.getpid())
    child, daemon = await with_daemon("import time; time.sleep(600)")
    other, _ = await with_daemon(RELAY)
    for one in (child, other):
        await one.aclose()
    print("member:", daemon in process.in_group(made), process.identify(os.getpid()) in process.in_group(made))
    around.join(os.getpid())
    print("left:", list(await process.end_group(made)), made.pids())
    while process.is_alive(daemon):  # the group no longer names whom is only being taken apart
        await anyio.sleep(0.01)
    print("taken away:", made.remove())

anyio.run(main)
""")
    assert said == "member: True False\nleft: [] []\ntaken away: True\n"
