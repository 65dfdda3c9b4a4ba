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
@pytest.mark.parametrize("grouped", [True, False])
def test_a_daemon_that_nobody_adopts_ends_with_its_tree(grouped: bool) -> None:  # noqa: FBT001
    """With a session and environment of its own and init for a parent; without a group it gets away."""
    said = play(f"""
from ipc import cgroup

async def main():
    around = cgroup.ours().make("phase-supervisor-test-" + str(os.getpid())) if {grouped} else None
    child, daemon = await with_daemon("import time; time.sleep(600)", cgroup=around)
    print("member:", daemon in child.members())
    child.kill()
    await child.wait()
    print("left:", list(await child.end_tree()))
    while {grouped} and process.is_alive(daemon):  # the group no longer names whom is only being taken apart
        await anyio.sleep(0.01)
    print("lives:", process.is_alive(daemon))
    await child.aclose()
    print("taken away:", around is None or (list(around.path.glob("*/")) == [] and around.remove()))
    process.kill(daemon)

anyio.run(main)
""")
    assert said == f"member: {grouped}\nleft: []\nlives: {not grouped}\ntaken away: True\n"


@needs_one
def test_a_process_that_is_another_one_each_time_is_ended() -> None:
    """It forks and leaves, for ever: no pid that is read is still there when it is to be killed."""
    said = play("""
from ipc import cgroup

RELAY = "import os, time; end = time.monotonic() + 40\\nwhile time.monotonic() < end:\\n if os.fork(): os._exit(0)"

async def main():
    around = cgroup.ours().make(f"phase-supervisor-test-{os.getpid()}")
    child, daemon = await with_daemon(RELAY, cgroup=around)
    child.kill()
    with anyio.move_on_after(10):
        while around.pids():
            await anyio.sleep(0.01)
    print("left:", around.pids())
    await child.aclose()
    print("taken away:", around.remove())

anyio.run(main)
""")
    assert said == "left: []\ntaken away: True\n"


@needs_one
def test_without_leave_to_make_a_group_the_tree_is_found_by_the_rest() -> None:
    """The one around it is gone: the process runs all the same, and ends with its tree."""
    said = play("""
from ipc import cgroup

async def main():
    gone = cgroup.Cgroup(cgroup.ours().path / "phase-supervisor-gone")
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0);" \\
        "print('ready', flush=True); time.sleep(600)"
    child = await process.spawn([sys.executable, "-c", script], stdin=process.PIPE, stdout=process.PIPE, cgroup=gone)
    await child.stdout.receive()
    members = child.members()
    print(len(members), list(await child.end_tree()), any(map(process.is_alive, members)))
    await child.aclose()

anyio.run(main)
""")
    assert said == "2 [] False\n"
