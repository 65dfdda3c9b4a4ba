"""Supervision, measured on a real crew: from a kill to a successor, from a post to its receiver, what idleness takes.

Each crew is a workspace of its own, started by `supervisor start`; its journal and its control API are what is looked
at. supervisord and circus live in an environment of their own (PyPI's `supervisor` has our import name) and restart a
program that does nothing but say that it is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from supervisor.child import worker_command
from supervisor.control.client import Client
from supervisor.control.endpoint import endpoint_file, load
from supervisor.journal import Cursor, JournalReader, StoredEvent
from supervisor.workspace import Workspace

T = TypeVar("T")

PEERS = Path(__file__).parent.parent / ".build" / "peers"  # their virtual environment
LIMIT = 60.0  # seconds for anything that a crew is waited for
LOOK = 0.02  # seconds between looks
RESTING = 0.2  # seconds without use of the processor
SETTLED = 2.0  # seconds in which nothing has happened
BETWEEN = 2.5  # seconds that a restarted program runs before it is killed again: by then both peers call it stable

# Deaths are many here and mean nothing: each restart is the first after a stable run.
RESTARTS = """
[restart]
restarts = 1000
within = 1.0
stable_after = 0.0
"""
ECHO = """
[phases.echo]
actor = "actors.testing:ProbeDriver"
"""
FILES = {
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\n',
    "shop/__init__.py": '"""A small shop."""\n',
    "shop/cart.py": '"""A cart."""\n\n\ndef total(prices: list[int]) -> int:\n    return sum(prices)\n',
    "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n",
}


# --- a crew -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crew:
    """A running crew, seen from outside."""

    client: Client
    journal: JournalReader

    @property
    def pid(self) -> int:
        return self.client.endpoint.pid

    def phases(self) -> dict[str, dict[str, Any]]:
        return dict(self.client.get("/api/status")["phases"])

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def spares(self) -> list[psutil.Process]:
        """Workers without a phase."""
        taken = {phase["pid"] for phase in self.phases().values()}
        return [worker for worker in self.workers() if worker.pid not in taken]

    def wait_warm(self) -> psutil.Process:
        """Return the spare once it waits: it has started the thread that reports, imported the rest, and rests."""

        def warm() -> psutil.Process | None:
            for spare in self.spares():
                with suppress(psutil.Error):
                    if spare.num_threads() > 1:
                        until(lambda spare=spare: _rests(spare), "a spare at rest")  # type: ignore[misc]
                        return spare
            return None

        return until(warm, "a warm spare")

    def wait_ready(self) -> None:
        """Return once every phase is ready and has nothing to do."""
        until(lambda: all(p["state"] == "ready" and not p["task"] for p in self.phases().values()), "an idle crew")

    def wait_settled(self) -> None:
        """Return once nothing has been going on for a while."""
        seen, since = (-1, -1), time.monotonic()

        def settled() -> bool:
            nonlocal seen, since
            status = self.client.get("/api/status")
            busy = any(p["state"] != "ready" or p["task"] for p in status["phases"].values())
            now = (int(status["head"]), self.journal.head().n)
            if busy or now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since >= SETTLED

        until(settled, "an idle crew", every=0.2)

    def first(self, after: Cursor, **wanted: Any) -> StoredEvent:
        """The first event after the cursor with these values; waits for it."""

        def found() -> StoredEvent | None:
            nonlocal after
            events, after = self.journal.read_up_to(after, 512)
            return next((e for e in events if all(getattr(e, k) == v for k, v in wanted.items())), None)

        return until(found, str(wanted), every=0.003)


def _rests(process: psutil.Process) -> bool:
    before = _cpu_seconds(process)
    time.sleep(RESTING)
    return _cpu_seconds(process) == before


def until(look: Callable[[], T | None], what: str, *, every: float = LOOK) -> T:
    """What `look` finds, as soon as it is something."""
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {LIMIT:g} s for {what}")
        time.sleep(every)
    return found


@contextmanager
def crew(settings: str) -> Iterator[Crew]:
    """`supervisor start` in a small project; stopped and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="crew-"))
    root, home = folder / "shop", folder / "home"
    home.mkdir(mode=0o700)
    environ = {**os.environ, "XDG_STATE_HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    for name in ("QUEUE_IPC_MODE", "QUEUE_IPC_ROLLOUT"):
        environ.pop(name, None)

    def say(*arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "supervisor", "-C", str(root), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=3 * LIMIT, check=False)
        if done.returncode:
            raise RuntimeError(f"supervisor {arguments[0]}: {done.returncode} {done.stdout}{done.stderr}")

    try:
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "supervisor.toml").write_text(settings)
        say("init")
        say("trust")
        say("start")
        try:
            workspace = Workspace(root.resolve())
            endpoint = load(endpoint_file(workspace, home / "phase-supervisor"))
            assert endpoint is not None
            with closing(JournalReader(workspace.journal)) as journal:
                yield Crew(Client(endpoint), journal)
        finally:
            say("stop")
    finally:
        shutil.rmtree(folder)


# --- restarts ---------------------------------------------------------------------------------------------------------


def restarting(scale: float) -> dict[str, float]:
    """SIGKILL → the successor is ready, with a warm spare and without; a bare interpreter with its imports in turn."""
    count = max(8, int(40 * scale))
    warm, cold, bare = [], [], []
    with crew(RESTARTS) as running:
        keys = list(running.phases())
        running.wait_settled()
        for number in range(count):
            key = keys[number % len(keys)]
            warm.append(_restart(running, key, with_spare=False))
            if number % 2:
                cold.append(_restart(running, key, with_spare=True))
                bare.append(_spawn_and_import(key))
    return {
        "restart.warm_p50_ms": statistics.median(warm),
        "restart.warm_p90_ms": statistics.quantiles(warm, n=10)[-1],
        "restart.cold_p50_ms": statistics.median(cold),
        "peer.spawn_and_imports.p50_ms": statistics.median(bare),
    }


def _restart(running: Crew, key: str, *, with_spare: bool) -> float:
    """Kill that phase's worker, and first the spare if asked; milliseconds until the successor was ready."""
    running.wait_ready()
    spare = running.wait_warm()
    pid = running.phases()[key]["pid"]
    here = running.journal.head()
    if with_spare:
        spare.kill()
    began = time.time()
    os.kill(pid, signal.SIGKILL)
    return (running.first(here, phase=key, step="ready").timestamp - began) * 1e3


def _spawn_and_import(key: str) -> float:
    """An interpreter, started as a worker is, that imports what a worker of that phase imports and says so."""
    command, environ = worker_command()
    command = [*command[: command.index("-m")], "-c"]
    code = (
        "from actors import worker; worker.preload(); from actors.drivers.builtin import driver_for;"
        f"driver_for({key!r}); print('ready', flush=True)"
    )
    began = time.perf_counter()
    with subprocess.Popen([*command, code], env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return (time.perf_counter() - began) * 1e3


# --- documents --------------------------------------------------------------------------------------------------------


def hopping(scale: float) -> dict[str, float]:
    """From a client's request to post a message → the receiving phase starts on it."""
    times = []
    with crew(ECHO) as running:
        running.wait_settled()
        for number in range(max(10, int(100 * scale))):
            running.wait_ready()
            here = running.journal.head()
            began = time.time()
            running.client.command("task", {"text": f"Implement: number {number}", "to": "echo"})
            event = running.first(here, phase="echo", type="phase_start")
            times.append((event.timestamp - began) * 1e3)
    return {
        "documents.hop_p50_ms": statistics.median(times),
        "documents.hop_p90_ms": statistics.quantiles(times, n=10)[-1],
    }


# --- idleness ---------------------------------------------------------------------------------------------------------


WORKERS_LIBRARIES = """
    import sys

    sys.modules["rich"] = None  # as in our workers: structlog would import it just in case
    import anyio, hashlib, msgspec, structlog
    from multiprocessing import managers

    async def wait():
        await anyio.to_thread.run_sync(print, "ready")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)

    anyio.run(wait)
"""
SUPERVISORS_LIBRARIES = (
    """
    import markdown_it, psutil, sqlite3, starlette.applications, uvicorn, watchfiles, websockets
    import uvicorn.protocols.http.h11_impl, uvicorn.protocols.websockets.websockets_sansio_impl
"""
    + WORKERS_LIBRARIES
)


def idling(scale: float) -> dict[str, float]:
    """Supervisor, four workers and a spare with nothing to do, after the assessment that every run begins with.

    The sum of resident sets counts what processes share (libraries, mostly) once for each; PSS divides it among them.
    Beside it: six processes that import the libraries that these stand on, nothing of ours, and wait.
    """
    with crew("") as running:
        running.wait_settled()
        running.wait_warm()
        supervisor = psutil.Process(running.pid)
        until(lambda: len(supervisor.children(recursive=True)) == 5, "git's process to have gone")
        processes = [supervisor, *running.workers()]
        assert len(processes) == 6
        before = sum(map(_cpu_seconds, processes))
        began = time.monotonic()
        time.sleep(max(10.0, 40.0 * scale))
        used = sum(map(_cpu_seconds, processes)) - before
        lasted = time.monotonic() - began
        memory = [process.memory_full_info() for process in processes]
    found = {"idle.cpu_pct": 100 * used / lasted, "idle.rss_mb": sum(one.rss for one in memory) / 1e6}
    found["peer.libraries.rss_mb"] = (_rss_of(WORKERS_LIBRARIES) * 5 + _rss_of(SUPERVISORS_LIBRARIES)) / 1e6
    if hasattr(memory[0], "pss"):
        found["idle.pss_mb"] = sum(one.pss for one in memory) / 1e6
    return found


def _rss_of(program: str) -> int:
    """The resident set of a process that has done this and waits."""
    command, environ = worker_command()
    command = [*command[: command.index("-m")], "-c", textwrap.dedent(program)]
    with subprocess.Popen([*command], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return int(psutil.Process(process.pid).memory_info().rss)


def _cpu_seconds(process: psutil.Process) -> float:
    if sys.platform == "linux":
        return time.clock_gettime((~process.pid << 3) | 2)  # to the nanosecond; /proc counts hundredths
    times = process.cpu_times()
    return times.user + times.system


# --- peers ------------------------------------------------------------------------------------------------------------

# What they restart: the quickest Python there is, without site-packages, that says it is there.
PROGRAM = """
    import os, sys, time
    with open(sys.argv[1], "wb", buffering=0) as pipe:
        pipe.write(b"%d\\n" % os.getpid())
    while True:
        time.sleep(3600)
"""


def peers_restarting(scale: float) -> dict[str, float]:
    """SIGKILL → the first line of the successor, in supervisord and in circus as they come; circus tuned, too."""
    if sys.platform == "win32" or not _install_peers():
        return {}
    count = max(3, int(8 * scale))
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        program = folder / "program.py"
        program.write_text(textwrap.dedent(PROGRAM))
        return {
            f"peer.{peer}.restart_p50_ms": _restarts_of(make(folder, program), folder / peer, count)
            for peer, make in {"supervisord": _supervisord, "circus": _circus, "circus_tuned": _circus_tuned}.items()
        }


def _install_peers() -> bool:
    if (PEERS / "installed").exists():
        return True
    try:
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        pip = [str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "supervisor==4.3.0", "circus==0.19.0", "setuptools<81"], check=True)
    except subprocess.CalledProcessError as error:
        print(f"supervisord and circus cannot be installed here, and are left out: {error}")
        return False
    (PEERS / "installed").touch()
    return True


def _command(pipe: Path, program: Path) -> str:
    return f"{PEERS / 'bin' / 'python'} -I -S {program} {pipe}"


def _supervisord(folder: Path, program: Path) -> list[str]:
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/supervisord.pid\n"
        f"childlogdir={folder}\n[program:it]\ncommand={_command(folder / 'supervisord', program)}\nautorestart=true\n"
    )
    return [str(PEERS / "bin" / "supervisord"), "-c", str(config)]


def _circus(folder: Path, program: Path, *, name: str = "circus", settings: str = "") -> list[str]:
    config = folder / f"{name}.ini"
    config.write_text(
        f"[circus]\nendpoint=ipc://{folder}/{name}-c\npubsub_endpoint=ipc://{folder}/{name}-p\n{settings}"
        f"[watcher:it]\ncmd={_command(folder / name, program)}\nnumprocesses=1\n"
    )
    return [str(PEERS / "bin" / "circusd"), str(config)]


def _circus_tuned(folder: Path, program: Path) -> list[str]:
    """It looks ten times a second, instead of every five."""
    return _circus(folder, program, name="circus_tuned", settings="check_delay = 0.1\n")


def _restarts_of(command: list[str], pipe: Path, count: int) -> float:
    """Run the peer, kill what it runs again and again; the median in milliseconds."""
    os.mkfifo(pipe)
    lines = os.open(pipe, os.O_RDWR)  # so that opening it waits for nobody, and it never ends
    environ: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    times = []
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        pid = int(os.read(lines, 64))
        for _ in range(count):
            time.sleep(BETWEEN)
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            pid = int(os.read(lines, 64))
            times.append((time.perf_counter() - began) * 1e3)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(lines)
    return statistics.median(times)


BENCHMARKS: dict[str, Callable[[float], dict[str, float]]] = {
    "restart": restarting,
    "restart.peers": peers_restarting,
    "documents.hop": hopping,
    "idle": idling,
}
