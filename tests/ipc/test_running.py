"""Tools as real subprocesses, run the way a backend author would, on both backends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

import ipc
from ipc.process import escapees, identify, is_alive
from ipc.running import LOG_LINES, Run, run
from tests.systems import ENDED

pytestmark = pytest.mark.anyio
posix = pytest.mark.only_on("posix", reason="a FIFO in the file system")
ENDED_BY_KILL = "exit code 9" if sys.platform == "win32" else "ended by signal 9"
# SIGTERM; on Windows the end that Ctrl-Break brings, or a process without a console is not asked and is ended
ASKED_TO_END = {0xC000013A, 3, ENDED} if sys.platform == "win32" else {-signal.SIGTERM}

ROOT = str(Path(ipc.__file__).parent.parent)
ENV = {**os.environ, "PYTHONPATH": ROOT}

TOOL = """
import sys
from ipc import Emitter
emitter = Emitter.from_env()
emitter.emit("audit", "starting", 0, "here we go", type="phase_start")
print("just a line")
print("a complaint", file=sys.stderr)
for number in range({count}):
    emitter.emit("audit", f"step {{number}}", number, type="finding", summary={{"n": number}}, data=b"\\x00\\xff")
emitter.emit("audit", "done", 100, "all well", type="phase_complete")
{more}
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tool(more: str = "", count: int = 3) -> list[str]:
    return [sys.executable, "-c", TOOL.format(count=count, more=more)]


def kinds(events: list[Any]) -> list[str]:
    return [event.type for event in events]


async def collect(running: Run) -> list[Any]:
    with anyio.fail_after(18):
        async with running:
            return [event async for event in running]


@pytest.mark.parametrize("mode", ["queue", "stdout"])
async def test_both_modes_give_the_same_stream(mode: str) -> None:
    """Events in order, bytes and all, then one audit_complete; log lines apart; the mode is on record."""
    running = run(tool(), env=ENV, cli_use_queue_ipc=mode == "queue", cli_use_stdout=mode == "stdout")
    events = await collect(running)
    assert kinds(events) == ["phase_start", "finding", "finding", "finding", "phase_complete", "audit_complete"]
    assert [event.summary["n"] for event in events[1:4]] == [0, 1, 2]
    assert events[1].data == b"\x00\xff"
    last = events[-1]
    assert (last.step, last.summary["returncode"], last.summary["ok"]) == ("done", 0, True)
    assert (last.summary["mode"], last.summary["fell_back"], last.summary["events"]) == (mode, False, 5)
    assert sorted(running.log) == ["a complaint", "just a line"]
    assert running.returncode == 0
    assert running.reason == f"--use-{'queue-ipc' if mode == 'queue' else 'stdout'} was given"


async def test_a_failing_tool_completes_too() -> None:
    """Exit code and last words of a tool that fails come after all its events, once."""
    events = await collect(run(tool("sys.exit(3)"), env=ENV, cli_use_queue_ipc=True))
    assert kinds(events)[-2:] == ["phase_complete", "audit_complete"]
    assert (events[-1].step, events[-1].detail, events[-1].summary["returncode"]) == ("error", "exit code 3", 3)


@pytest.mark.parametrize("mode", ["queue", "stdout"])
async def test_a_killed_tool_completes_too(mode: str) -> None:
    """After a SIGKILL the stream ends as it should, though a grandchild held the pipes; it goes as well."""
    more = (
        "import os, signal, subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "emitter.drain(5)\n"
        "print('grandchild', child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    running = run(tool(more), env=ENV, cli_use_queue_ipc=mode == "queue", cli_use_stdout=mode == "stdout")
    events = await collect(running)
    assert kinds(events)[-2:] == ["phase_complete", "audit_complete"]
    assert events[-1].detail == ENDED_BY_KILL
    pid = next(int(line.split()[1]) for line in running.log if line.startswith("grandchild"))
    assert identify(pid) is None


async def test_a_tool_that_is_not_there_completes_too() -> None:
    """A command that cannot be started is one audit_complete with the reason."""
    running = run(["no-such-tool"], cli_use_queue_ipc=True)
    (only,) = await collect(running)
    assert only.type == "audit_complete"
    assert only.summary["returncode"] == running.returncode == 127
    assert "no-such-tool could not be started" in only.detail


async def test_a_tools_own_audit_complete_is_not_a_second_one() -> None:
    """What the tool says at its end is part of the one at the end."""
    more = "emitter.emit('audit', 'done', 100, 'my own words', type='audit_complete', summary={'score': 9})"
    events = await collect(run(tool(more), env=ENV, cli_use_queue_ipc=True))
    assert kinds(events).count("audit_complete") == 1
    assert events[-1].detail == "my own words"
    assert events[-1].summary["score"] == 9
    assert events[-1].summary["returncode"] == 0


async def test_markers_printed_by_hand() -> None:
    """A third-party tool needs no library: phase, step, pct and detail on a line; what is damaged is a log line."""
    code = """
print('##PROGRESS:{"phase": "lint", "step": "scanning", "pct": 40, "detail": "half"}', flush=True)
print('##PROGRESS:{"phase": ')
print('no newline at the end', end="")
"""
    running = run([sys.executable, "-c", code], cli_use_stdout=True)
    events = await collect(running)
    assert [(e.type, e.phase, e.step, e.pct, e.detail) for e in events[:-1]] == [
        ("progress", "lint", "scanning", 40, "half")
    ]
    assert list(running.log) == ['##PROGRESS:{"phase": ', "no newline at the end"]


@pytest.mark.parametrize("unbuffered", ["1", ""])
async def test_prints_and_markers_share_a_pipe(unbuffered: str) -> None:
    """A line that is being printed while a marker comes is not taken for part of it, nor the other way round."""
    more = (
        "for number in range(50):\n"
        "    sys.stdout.write('half a ')\n    sys.stdout.flush()\n    print('line')\n"
        "    emitter.emit('audit', 'more', type='finding', summary={'n': 100 + number})"
    )
    running = run(tool(more), env={**ENV, "PYTHONUNBUFFERED": unbuffered}, cli_use_stdout=True)
    events = await collect(running)
    assert [e.summary["n"] for e in events if e.type == "finding"] == [0, 1, 2, *range(100, 150)]
    printed = "".join(text for text in running.log if text != "a complaint")  # on stderr, so it may come at any time
    assert printed.count("half a line") + printed.count("PROGRESS") == 50


async def test_several_markers_within_a_line() -> None:
    """The end of a line that several markers came into is no empty line of the log."""
    code = (
        "import os, sys\nfrom ipc.frames import Meta, fields_of\nfrom ipc import ProgressEvent\n"
        "from ipc.markers import encode_marker\nos.write(1, b'half a line')\n"
        "for n in (1, 2, 3):\n"
        "    os.write(1, encode_marker('t', 1, 'n', Meta(n, n - 1, True), fields_of(ProgressEvent('finding'))))\n"
        "os.write(1, b'\\n\\nlast\\n')"
    )
    running = run([sys.executable, "-c", code], env=ENV, cli_use_stdout=True)
    assert [e.type for e in await collect(running)] == ["finding"] * 3 + ["audit_complete"]
    assert list(running.log) == ["half a line", "", "last"]


async def test_more_events_than_the_queue_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue slows the tool and loses nothing, whichever way the events come."""
    for flags in ({"cli_use_queue_ipc": True}, {"cli_use_stdout": True}):
        running = run(tool(count=300), env=ENV, maxsize=4, **flags)  # type: ignore[arg-type]
        events = await collect(running)
        assert [e.summary["n"] for e in events if e.type == "finding"] == list(range(300))


async def test_the_flag_and_the_environment() -> None:
    """A tool that wants the flag gets it, in queue mode; the queue's name is there only in queue mode."""
    code = "import os, sys; print(sys.argv[1:], os.environ.get('AUDIT_QUEUE_FD'), 'AUDIT_QUEUE_KEY' in os.environ)"
    seen: list[str] = []
    for flags in ({"cli_use_queue_ipc": True}, {"cli_use_stdout": True}):
        env = {**os.environ, "AUDIT_QUEUE_KEY": "of an outer run"}
        running = run([sys.executable, "-c", code, "x"], append_flag=True, env=env, **flags)  # type: ignore[arg-type]
        await collect(running)
        seen.extend(running.log)
    assert seen == ["['x', '--use-queue-ipc'] -1 True", "['x'] None False"]


async def test_log_lines_go_to_their_listener() -> None:
    """Each line that is no event is told with its stream, and only the last thousand are kept."""
    told: list[tuple[str, str]] = []
    code = f"import sys; print('\\n'.join(map(str, range({LOG_LINES + 5})))); print('err', file=sys.stderr)"
    running = run([sys.executable, "-c", code], cli_use_stdout=True, on_log=lambda *line: told.append(line))
    assert await running_to_end(running) == 0
    assert len(told) == running.log_lines == LOG_LINES + 6
    assert ("err", "stderr") in told
    assert len(running.log) == LOG_LINES


async def running_to_end(running: Run) -> int:
    async with running:
        return await running.wait()


@pytest.mark.parametrize("how", ["leave", "cancel", "raise"])
async def test_leaving_early_ends_the_tree(how: str) -> None:
    """Leaving the block, being cancelled in it or raising from it leaves no process; errors go on as raised."""
    more = "import time; print('ready', flush=True); time.sleep(60)"
    running = run(tool(more), env=ENV, cli_use_queue_ipc=True)
    identity = None
    with anyio.CancelScope() as scope, anyio.fail_after(15):
        try:
            async with running:
                assert running.pid is not None
                identity = identify(running.pid)
                async for event in running:
                    if event.type == "phase_complete":
                        break
                if how == "cancel":
                    scope.cancel()
                    await anyio.sleep(60)
                if how == "raise":
                    raise LookupError("the caller's own")  # noqa: TRY301 - what a caller may do
        except LookupError:
            assert how == "raise"
    assert identity is not None
    assert not is_alive(identity)
    assert running.returncode in ASKED_TO_END or (how == "cancel" and running.returncode == ENDED)


def names_in(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


@pytest.mark.parametrize(
    ("anyio_backend", "by"), [("asyncio", "scope"), ("trio", "scope"), ("asyncio", "task")], indirect=["anyio_backend"]
)
async def test_being_cancelled_while_it_is_entered_leaves_nothing(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the cancellation comes, there is no queue's thread, no folder of a socket and no process afterwards."""
    marker = {f"LEFT_BY_{os.urandom(4).hex().upper()}": "1"}

    command = [sys.executable, "-c", "import time; time.sleep(50)"]

    async def enter() -> None:
        async with run(command, env={**ENV, **marker}, cli_use_queue_ipc=True):
            await anyio.sleep(60)

    with tempfile.TemporaryDirectory(prefix="q-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        for tick in range(30):
            delay = 0.0005 * tick
            if by == "scope":
                with anyio.move_on_after(delay):
                    await enter()
                continue
            entering = asyncio.create_task(enter())
            asyncio.get_running_loop().call_later(delay, entering.cancel)
            with suppress(asyncio.CancelledError):
                await entering
        assert names_in(folder) == []
        assert escapees(marker) == []
    for thread in threading.enumerate():
        if thread.name == "ipc-queue":
            thread.join(5)
            assert not thread.is_alive()


@posix
async def test_a_queue_that_breaks_midway_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the queue's listener goes while the tool works, the rest comes by stdout, each event once."""
    more = (
        "emitter.drain(5)\nprint('half', flush=True)\ninput_ = open(sys.argv[1])\ninput_.read()\n"
        "for number in range(100, 105):\n    emitter.emit('audit', 'late', type='finding', summary={'n': number})"
    )
    fifo = Path(os.environ.get("TMPDIR", "/tmp")) / f"run-{os.getpid()}-{os.urandom(4).hex()}"
    os.mkfifo(fifo)
    half = anyio.Event()
    running = run([*tool(more), str(fifo)], env=ENV, cli_use_queue_ipc=True, on_log=lambda *_: half.set())
    events: list[Any] = []

    async def read() -> None:
        events.extend([event async for event in running])

    try:
        with anyio.fail_after(18):
            async with running, anyio.create_task_group() as group:
                group.start_soon(read)
                while "half" not in running.log:
                    await half.wait()
                    await anyio.sleep(0.01)
                await running._close_queue()
                os.close(os.open(fifo, os.O_WRONLY))
    finally:
        fifo.unlink()
    assert [e.summary["n"] for e in events if e.type == "finding"] == [0, 1, 2, *range(100, 105)]
    assert events[-1].summary["fell_back"] is True


async def test_no_queue_can_be_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a place for the socket the run goes on in stdout mode, with an error and a warning."""

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError("no folder with a short path")

    monkeypatch.setattr("ipc.queue._new_address", refuse)
    events = await collect(run(tool(), env=ENV, cli_use_queue_ipc=True))
    assert kinds(events)[-2:] == ["phase_complete", "audit_complete"]
    assert (events[-1].summary["mode"], events[-1].summary["fell_back"]) == ("stdout", True)
    assert [record.levelname for record in caplog.records if record.name == "ipc.running"][:2] == ["ERROR", "WARNING"]


def test_mistakes_are_named() -> None:
    """An empty command and a bad variable are told at once."""
    with pytest.raises(ValueError, match="the command is empty"):
        run([])
    with pytest.raises(ValueError, match="QUEUE_IPC_MODE"):
        run(["tool"], env={"QUEUE_IPC_MODE": "pigeon"})


def test_the_library_s_run_is_a_function_whatever_was_imported_first() -> None:
    """No module of ours has its name."""
    code = "import ipc.running, ipc; from ipc import queue, streaming; assert callable(ipc.run), ipc.run"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
