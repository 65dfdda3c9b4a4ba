"""Real processes: how exits are seen, and how trees end. Every child says that it is ready before it is judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from ipc import pipes
from ipc.process import (
    DEVNULL,
    PIPE,
    Identity,
    Process,
    SpawnError,
    escapees,
    identify,
    is_alive,
    is_suspended,
    kill,
    new_marker,
    python_command,
    spawn,
    stop,
    sweep,
)
from tests.systems import ENDED, KILLED, SIGKILL, hold, let_go

pytestmark = pytest.mark.anyio

posix = pytest.mark.only_on("posix", reason="sessions, groups, pidfds")

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
ASKING = "SIGBREAK" if sys.platform == "win32" else "SIGTERM"  # what `stop` sends
DEAF = (
    f"import signal, time; signal.signal(signal.{ASKING}, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)
SHELL = ["cmd", "/c"] if sys.platform == "win32" else ["/bin/sh", "-c"]
# Starts a grandchild that holds its pipes, prints its pid, and stays.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session={new})
print(child.pid, flush=True)
time.sleep({stay})
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def started() -> AsyncIterator[list[Process]]:
    """Whatever a test starts is gone after it."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        await process.aclose()


async def python(code: str, started: list[Process], **options: object) -> Process:
    command, extra = python_command()
    env = {**os.environ, **extra}
    process = await spawn([*command, "-c", code], stdout=PIPE, env=env, **options)  # type: ignore[arg-type]
    started.append(process)
    return process


async def line(process: Process) -> str:
    assert process.stdout is not None
    text = b""
    with anyio.fail_after(15):
        while not text.endswith(b"\n"):
            text += await process.stdout.receive(1)
    return text.decode().strip()


def ended(identity: Identity) -> bool:
    return not is_alive(identity)


async def test_code_output_and_end_of_file(started: list[Process]) -> None:
    """Exit code, output and the pipe's end arrive."""
    process = await python("import sys; print(input()); sys.exit(7)", started, stdin=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.send(b"hello\n")
    assert await line(process) == "hello"
    assert await process.wait() == 7
    assert process.returncode == 7
    with pytest.raises(anyio.EndOfStream):
        await process.stdout.receive()


async def test_a_program_that_is_not_there_is_named() -> None:
    """A command that cannot be started is an error with its name, and leaves no descriptor open."""
    before = _descriptors()
    with pytest.raises(SpawnError, match="no-such-program could not be started"):
        await spawn(["no-such-program"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert _descriptors() == before


async def test_a_signal_is_a_negative_code(started: list[Process]) -> None:
    """A process ended by a signal has that signal, negative, as its code (Windows: what killed it said); all get it."""
    process = await python(SLEEP, started)
    await line(process)
    codes: list[int] = []

    async def waits() -> None:
        codes.append(await process.wait())

    async with anyio.create_task_group() as group:
        group.start_soon(waits)
        group.start_soon(waits)
        await anyio.lowlevel.checkpoint()
        os.kill(process.pid, SIGKILL)
    assert codes == [KILLED, KILLED]


async def test_a_cancelled_waiter_leaves_the_others_waiting(started: list[Process]) -> None:
    """When the task that watches is cancelled, another takes over."""
    process = await python(SLEEP, started)
    await line(process)
    codes: list[int] = []

    async def waits() -> None:
        codes.append(await process.wait())

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(waits)
            scope.cancel()
            await process.wait()
        group.start_soon(waits)
        os.kill(process.pid, SIGKILL)
    assert codes == [KILLED, KILLED]


async def test_exit_is_seen_though_a_grandchild_holds_the_pipes(started: list[Process]) -> None:
    """An exit is seen by the process's handle: the pipe's end would come a minute later."""
    process = await python(PARENT.format(new=False, stay=60), started)
    grandchild = identify(int(await line(process)))
    assert grandchild is not None
    os.kill(process.pid, SIGKILL)
    with anyio.fail_after(15):
        assert await process.wait() == KILLED
    assert is_alive(grandchild)
    assert process.stdout is not None
    assert process.stdout.receive_nowait() is None
    assert await process.end_tree() == ()
    assert ended(grandchild)


@posix
async def test_without_pidfd_a_thread_sees_the_exit(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pidfd (macOS, old kernels, sandboxes) the exit is seen as well, and the tree ends as well."""
    monkeypatch.setattr("ipc.process._pidfd", lambda _pid: None)
    process = await python(PARENT.format(new=False, stay=60), started)
    grandchild = identify(int(await line(process)))
    assert grandchild is not None
    os.kill(process.pid, SIGKILL)
    with anyio.fail_after(15):
        assert await process.wait() == KILLED
    assert await process.end_tree() == ()
    assert ended(grandchild)


async def test_the_other_systems_scan_finds_the_same(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable scan of the process table finds sessions and markers as /proc does."""
    process = await python(PARENT.format(new=True, stay=60), started)
    grandchild = int(await line(process))
    here = {identity.pid for identity in process.members()}
    from ipc import process as room

    elsewhere = {i.pid for i in room._matching_elsewhere(process.marker, session=process.pid, since=0.0)}
    assert elsewhere == here == {process.pid, grandchild}


async def test_ending_does_not_queue_behind_blocked_threads(started: list[Process]) -> None:
    """A host whose worker threads are all blocked can still start and end processes."""
    release = threading.Event()

    async def block() -> None:
        await anyio.to_thread.run_sync(lambda: release.wait(15))

    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(block)
            while not limiter.borrowed_tokens:
                await anyio.lowlevel.checkpoint()
            try:
                with anyio.fail_after(10):
                    process = await python(SLEEP, started)
                    await line(process)
                    await process.end_tree()
            finally:
                release.set()
    finally:
        limiter.total_tokens = 40


async def test_stop_asks_first(started: list[Process]) -> None:
    """A process that listens ends in its own way, well within its grace."""
    polite = (
        f"import signal, sys, time; signal.signal(signal.{ASKING}, lambda *_: sys.exit(3)); print('ready', flush=True)"
    )
    process = await python(f"{polite}\nwhile True: time.sleep(0.1)", started)
    await line(process)
    with anyio.fail_after(10):
        assert await stop(process, grace=60) == 3


async def test_stop_insists(started: list[Process]) -> None:
    """A process that is deaf to SIGTERM is killed after its grace."""
    process = await python(DEAF, started)
    await line(process)
    with anyio.fail_after(10):
        assert await stop(process, grace=0.05) == ENDED


async def test_stop_ends_a_stopped_process(started: list[Process]) -> None:
    """One that is SIGSTOPped, too."""
    process = await python(SLEEP, started)
    await line(process)
    hold(process.pid)
    with anyio.fail_after(10):
        assert await stop(process, grace=0.05) == ENDED


@pytest.mark.parametrize("platform", [sys.platform, "elsewhere"])
async def test_a_stopped_process_is_seen(
    started: list[Process], monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    """That very one, while it lasts; by psutil where there is no /proc."""
    process = await python(SLEEP, started)
    await line(process)
    identity = Identity(process.pid, psutil.Process(process.pid).create_time())
    if platform == sys.platform:
        identity = process.identity
    monkeypatch.setattr(sys, "platform", platform)
    assert not is_suspended(identity)
    hold(process.pid)
    assert is_suspended(identity)
    assert not is_suspended(Identity(identity.pid, identity.created + 1.0))
    let_go(process.pid)
    assert not is_suspended(identity)
    monkeypatch.undo()


async def test_stop_runs_to_its_end_when_cancelled(started: list[Process]) -> None:
    """A cancelled caller still leaves nothing behind."""
    process = await python(DEAF, started)
    await line(process)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stop(process, grace=0.05)
    assert process.returncode == ENDED


async def test_leaving_the_context_ends_the_tree() -> None:
    """Also a grandchild that made a session of its own goes when the context is left, cancelled or not."""
    command, _ = python_command()
    with anyio.CancelScope() as scope:
        async with await spawn([*command, "-c", PARENT.format(new=True, stay=60)], stdout=PIPE) as process:
            grandchild = identify(int(await line(process)))
            scope.cancel()
            await anyio.sleep(60)
    assert grandchild is not None
    assert ended(grandchild)
    assert ended(process.identity)


async def test_escapees_are_found_by_their_marker(started: list[Process]) -> None:
    """A daemonised grandchild with another session is found after its parent's end, and swept."""
    marker = {"PHASE_SUPERVISOR_TEST": os.urandom(8).hex()}
    process = await python(PARENT.format(new=True, stay=0), started, marker=marker)
    pid = int(await line(process))
    assert await process.wait() == 0
    assert [found.pid for found in escapees(marker)] == [pid]
    assert [found.pid for found in process.members()] == [pid]
    assert await sweep(marker) == ()
    assert escapees(marker) == []


@pytest.mark.only_on("linux", reason="/proc")
def test_a_process_in_its_exec_does_not_escape() -> None:
    """A process that has no environment for a moment, because it is just being started, is found nevertheless."""
    for _ in range(60):
        marker = new_marker()
        process = subprocess.Popen(["/bin/sleep", "60"], env={**os.environ, **marker}, start_new_session=True)
        try:
            assert [found.pid for found in escapees(marker)] == [process.pid]
        finally:
            process.kill()
            process.wait()


async def test_an_empty_marker_is_refused() -> None:
    """A marker that would match everybody is the caller's mistake."""
    with pytest.raises(ValueError, match="every process"):
        escapees({})


async def test_a_reused_pid_is_never_killed(started: list[Process]) -> None:
    """An identity whose pid now means somebody else is left alone."""
    process = await python(SLEEP, started)
    await line(process)
    stale = Identity(process.pid, process.identity.created - 1)
    assert not kill(stale)
    assert is_alive(process.identity)
    assert kill(process.identity)
    assert await process.wait() == (-9 if sys.platform != "win32" else signal.SIGTERM)
    assert not kill(process.identity), "a zombie is gone already"


@posix
async def test_a_group_within_our_session(started: list[Process]) -> None:
    """An agent that is to stay in our own tree has our session and a group of its own."""
    process = await python(SLEEP, started, session=False)
    await line(process)
    assert os.getsid(process.pid) == os.getsid(0)
    assert os.getpgid(process.pid) == process.pid


async def test_descriptors_and_threads_do_not_grow() -> None:
    """64 processes later there are as many descriptors and threads as before."""

    async def one() -> None:
        async with await spawn([*SHELL, "echo ready"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            await line(process)
            assert await process.wait() == 0

    await one()
    before, threads = _descriptors(), threading.active_count()
    for _ in range(8):
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert _descriptors() == before
    assert threading.active_count() <= threads + 8, "the worker threads of the backend's pool, no more"


async def test_a_full_pipe_does_not_block_the_loop(started: list[Process]) -> None:
    """Writing to a process that does not read waits, and waits alone; its death is an error for the writer."""
    process = await python(SLEEP, started, stdin=PIPE)
    await line(process)
    assert process.stdin is not None
    with anyio.move_on_after(0.2) as scope:
        await process.stdin.send(b"x" * 10_000_000)
    assert scope.cancelled_caught
    process.kill()
    await process.wait()
    with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(5):
        await process.stdin.send(b"x" * 10_000_000)


async def test_the_threaded_reader_loses_nothing(tmp_path: Path) -> None:
    """The reader that Windows needs: chunks, cancelled receives, the end, and closing."""
    readable, writable = os.pipe()
    reader = pipes.ThreadedPipeReader(readable)
    with anyio.move_on_after(0.05) as scope:
        await reader.receive()
    assert scope.cancelled_caught
    os.write(writable, b"hello world")
    assert await reader.receive(5) == b"hello"
    assert await reader.receive() == b" world"
    assert reader.receive_nowait() is None
    os.close(writable)
    for _ in range(2):
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
    reader.close()
    with pytest.raises(anyio.ClosedResourceError):
        await reader.receive()


async def test_output_goes_where_it_is_sent(tmp_path: Path, started: list[Process]) -> None:
    """A descriptor of ours can be a child's output, and stays ours."""
    with (tmp_path / "log").open("wb") as log:
        process = await spawn([sys.executable, "-c", "print('to the log')"], stdin=DEVNULL, stdout=log.fileno())
        started.append(process)
        assert await process.wait() == 0
        log.write(b"still ours")
    assert "to the log" in (tmp_path / "log").read_text()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


@pytest.mark.only_on("linux", reason="others count from 1970")
def test_time_is_monotonic_for_identities() -> None:
    """On Linux an identity does not depend on the wall clock."""
    if sys.platform == "win32" or sys.platform == "darwin":
        raise NotImplementedError
    me = identify(os.getpid())
    assert me is not None
    assert 0 < me.created <= time.clock_gettime(time.CLOCK_BOOTTIME)
