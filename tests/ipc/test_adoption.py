"""Orphans: a daemon with a session and an environment of its own is still found by who adopts orphans, and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.only_on("linux", reason="orphans that can be adopted")
ROOT = Path(__file__).parents[2]

# Starts a daemon as daemons are started (two forks, a session of its own), without environment; says its pid; stays.
PARENT = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    said = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.write(said, b"%d\\n" % os.getpid())
    os.close(said)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", sys.argv[1]], {})
time.sleep(600)
"""
BEGIN = f"""
import os, subprocess, sys
import anyio
from ipc import process

PARENT = {PARENT!r}

async def with_daemon(does, **how):
    child = await process.spawn([sys.executable, "-I", "-S", "-c", PARENT, does], stdout=process.PIPE, **how)
    pid = int(await child.stdout.receive())
    while process._environ(str(pid)):  # it says its number before it becomes the daemon
        await anyio.sleep(0.01)
    return child, process.identify(pid)

async def until_orphaned(daemon):
    while process._stat(daemon.pid).parent != os.getpid():
        await anyio.sleep(0.01)
"""


def play(script: str) -> str:
    """Run it in a process of its own, which may become whatever it likes; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("adopts", [True, False])
def test_a_daemon_without_environment_ends_with_its_tree(adopts: bool) -> None:  # noqa: FBT001
    """It is a member before and after its starter's death, and nothing of it is left, no zombie either."""
    said = play(f"""
async def main():
    if {adopts}:
        assert process.adopt_orphans()
    child, daemon = await with_daemon("import time; time.sleep(600)", adopting=True)
    if {adopts}:
        await until_orphaned(daemon)
        assert daemon in child.members()
    child.kill()
    await child.wait()
    print("member:", daemon in child.members())
    left = await child.end_tree()
    print("left:", list(left), "lives:", process.is_alive(daemon))
    await child.aclose()
    print("children:", open(f"/proc/self/task/{{os.getpid()}}/children").read().strip() or "none")
    process.kill(daemon)

anyio.run(main)
""")
    found = "member: True\nleft: [] lives: False\n" if adopts else "member: False\nleft: [] lives: True\n"
    assert said == found + "children: none\n"


def test_what_others_started_is_no_orphan() -> None:
    """A child of another tree, and one of ours in our session, outlive the end of a tree."""
    said = play("""
async def main():
    assert process.adopt_orphans()
    nap = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    one, other = await process.spawn(nap, adopting=True), await process.spawn(nap, adopting=True)
    plain = subprocess.Popen(nap)
    assert await one.end_tree() == ()
    print(await one.wait(), other.returncode, process.is_alive(other.identity), plain.poll())
    plain.kill()
    plain.wait()
    await one.aclose()
    await other.aclose()

anyio.run(main)
""")
    assert said == "-9 None True None\n"


def test_orphans_that_end_are_reaped_and_nobody_s_exit_code_is() -> None:
    """`reap_orphans` lets go of them; a child that leads a session keeps its code for whoever waits for it."""
    said = play("""
async def main():
    assert process.adopt_orphans()
    child, daemon = await with_daemon("import time; time.sleep(600)")
    await until_orphaned(daemon)
    mine = subprocess.Popen([sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"], start_new_session=True)
    os.waitid(os.P_PID, mine.pid, os.WEXITED | os.WNOWAIT)
    process.kill(daemon)
    os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
    process.reap_orphans()
    print(process._read_stat(daemon.pid), mine.wait())
    await child.aclose()

anyio.run(main)
""")
    assert said == "None 3\n"


def test_whatever_descends_from_a_marked_process_is_found() -> None:
    """Without adoption too, as long as the line of parents is whole: neither session nor marker is needed."""
    said = play("""
async def main():
    script = "import subprocess, sys, time; subprocess.Popen(" \\
        "[sys.executable, '-I', '-S', '-c', 'print(__import__(\\\\'os\\\\').getpid(), flush=True);" \\
        "import time; time.sleep(600)']," \\
        " env={}, start_new_session=True); time.sleep(600)"
    marker = process.new_marker()
    child = await process.spawn([sys.executable, "-I", "-S", "-c", script], stdout=process.PIPE, marker=marker)
    inner = process.identify(int(await child.stdout.receive()))
    print(inner in process.escapees(marker), inner in child.members())
    kill = child.kill
    child.kill = lambda: (kill(), os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT))  # dead before any other look
    await child.aclose()
    print(process.is_alive(inner))
    process.kill(inner)

anyio.run(main)
""")
    assert said == "True True\nFalse\n"


def test_a_young_process_without_environment_holds_up_no_look() -> None:
    """It is told from one in the middle of its exec, which has no command line either: a few looks, not fifty."""
    said = play("""
async def main():
    script = "print('ready', flush=True); input()"
    looks = []
    read = process._environ
    process._environ = lambda pid: (looks.append(pid), read(pid))[1]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    assert process.escapees(process.new_marker()) == []
    print(0 < looks.count(str(child.pid)) <= 4)
    child.communicate(b"\\n")

anyio.run(main)
""")
    assert said == "True\n"
