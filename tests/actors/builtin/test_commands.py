import os
import sys
from pathlib import Path

import pytest

from actors.drivers.builtin.commands import MOST_OUTPUT, run
from ipc.process import SpawnError, escapees

pytestmark = pytest.mark.anyio

CHILD = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"


@pytest.fixture
def anyio_backend() -> str:
    """Real processes are started here."""
    return "asyncio"


async def test_output_is_kept_to_its_end(tmp_path: Path) -> None:
    """A program that prints without end cannot fill our memory; its last words are kept."""
    many = MOST_OUTPUT // 1000 * 20
    code = f"import sys\nfor _ in range({many}): print('x' * 999)\nsys.stderr.write('last'); sys.exit(3)"
    ran = await run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, timeout=30)
    assert (ran.code, ran.why, ran.stderr) == (3, "", "last")
    assert len(ran.stdout) == MOST_OUTPUT


async def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """The limit says so, and nothing of the tree is left."""
    mark = {"PHASE_SUPERVISOR_TREE_TEST_OF_COMMANDS": "1"}
    code = f"{CHILD}\ntime.sleep(600)"
    ran = await run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **mark}, timeout=1)
    assert ran.why == "it was still running after 1 s"
    assert escapees(mark) == []


async def test_a_child_that_keeps_the_pipes_open_does_not_keep_us(tmp_path: Path) -> None:
    """The command has ended; what it left behind is ended too, and the output is there."""
    code = f"{CHILD}\nprint('done')"
    ran = await run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, timeout=30)
    assert (ran.code, ran.stdout.strip()) == (0, "done")


async def test_the_watcher_may_end_it(tmp_path: Path) -> None:
    """A reason from the watcher ends the command and is the reason given."""
    calls: list[int] = []

    async def watch() -> str:
        calls.append(1)
        return "enough" if len(calls) == 2 else ""

    ran = await run(
        [sys.executable, "-c", "import time; time.sleep(600)"], cwd=tmp_path, env=os.environ, timeout=60, watch=watch
    )
    assert ran.why == "enough"


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """SpawnError carries its name."""
    with pytest.raises(SpawnError, match="no-such-program"):
        await run(["no-such-program"], cwd=tmp_path, env=os.environ, timeout=5)
