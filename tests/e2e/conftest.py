"""Whole runs with real processes: a small project, and the `supervisor` command as people type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.systems import OWN_CONSOLE, SIGKILL, press_ctrl_c

# Seconds for one run on a busy machine; a quiet one needs about ten, and under Wine each process a second of its own.
LIMIT = 150.0 if sys.platform != "win32" else 450.0

FILES: Mapping[str, str] = {
    "pyproject.toml": """
        [project]
        name = "shop"
        version = "1"

        [tool.pytest.ini_options]
        testpaths = ["tests"]
        addopts = "-p no:hypothesispytest -p no:anyio"  # ours, not the shop's: they are most of what a run imports
    """,
    "shop/__init__.py": '"""A small shop."""\n',
    "shop/cart.py": '''
        """What is in the cart, and what it costs."""


        def total(prices: list[int]) -> int:
            return sum(prices)
    ''',
    "tests/test_cart.py": """
        from shop.cart import total


        def test_total():
            assert total([1, 2]) == 3
    """,
}


@dataclass(frozen=True)
class Shop:
    """A workspace made of a small project, and what the command line says about it."""

    root: Path
    environ: Mapping[str, str]

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "supervisor", *arguments]

    def say(self, *arguments: str, check: bool = True) -> str:
        """Run a command that ends by itself; its standard output."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert not check or done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def tries(self, *arguments: str) -> tuple[int, str]:
        """Run a command that may be refused: its exit code, and all that it said."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout

    def ask(self, *arguments: str, check: bool = True) -> Any:
        """The same, as JSON."""
        return json.loads(self.say(*arguments, "--json", check=check))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `supervisor run`; its output goes to files beside the workspace."""
        with (self.root.parent / f"{self.root.name}.out").open("a") as out:
            return subprocess.Popen(
                self.command("run", "--plain", *arguments),
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                **OWN_CONSOLE,
            )

    def run(self, *arguments: str) -> int:
        """A whole run until idle; its exit code."""
        process = self.start("--until-idle", *arguments)
        try:
            return process.wait(LIMIT)
        finally:
            end(process)

    def watch(self, *arguments: str) -> Run:
        """Start a run until idle whose events are seen as they come; in a session of its own, as in a terminal."""
        with (self.root.parent / f"{self.root.name}.err").open("a") as err:
            process = subprocess.Popen(
                self.command("run", "--until-idle", "--json", *arguments),
                cwd=self.root,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                **OWN_CONSOLE,
            )
        return Run(self, process)

    @property
    def output(self) -> str:
        return (self.root.parent / f"{self.root.name}.out").read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Everything in the journal."""
        return [json.loads(line) for line in self.say("events", "--json").splitlines()]

    def posts(self, kind: str) -> list[dict[str, Any]]:
        """All posted messages of that kind, from the history."""
        return [post for record in self.records() for post in record["data"].get("posts", ()) if post["kind"] == kind]

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The history's records, or those of that kind, in order."""
        found = []
        for segment in sorted((self.root / "crew" / ".history").glob("*.jsonl")):
            lines = segment.read_text(encoding="utf-8").splitlines(keepends=True)
            found += [json.loads(line) for line in lines if line.endswith("\n")]  # the last may just be written
        return [record for record in found if kind in ("", record["kind"])]

    def files(self) -> dict[str, bytes]:
        """The user's files, without what is ours."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and not {"crew", ".supervisor", "__pycache__"} & set(path.relative_to(self.root).parts)
        }

    def workers(self) -> list[psutil.Process]:
        """Every process of this workspace's crew, found by its command and its assignment's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if "actors.worker" in process.cmdline() and process.environ().get("SHOP") == str(self.root):
                    found.append(process)
            except (psutil.Error, OSError):  # it has just ended, or is not ours to ask; Wine knows more errors for that
                continue
        return found


class Run:
    """A run under way: its events so far, and a way to wait for the one that matters."""

    def __init__(self, shop: Shop, process: subprocess.Popen[str]) -> None:
        self.shop = shop
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.garbage: list[str] = []
        self._arrived = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        end(self.process)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.garbage.append(line)
                self._arrived.notify_all()
        with self._arrived:
            self._is_over = True
            self._arrived.notify_all()

    @property
    def deaths(self) -> list[str]:
        """The phases whose workers have ended so far without having been asked to."""
        return [event["phase"] for event in self.events if event["step"] == "exit" and not event["summary"]["asked"]]

    def until(self, wanted: Callable[[dict[str, Any]], bool], *, after: int = 0) -> dict[str, Any]:
        """The first event from number `after` on that is wanted; waits for it."""
        deadline = time.monotonic() + LIMIT
        with self._arrived:
            while True:
                for event in self.events[after:]:
                    if wanted(event):
                        return event
                after = len(self.events)
                assert not self._is_over, ("the run ended before it happened", self.told())
                assert self._arrived.wait(deadline - time.monotonic()), ("it did not happen", self.told())

    def wait(self) -> int:
        """Let the run end; its exit code."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self.garbage == []
        return code

    def pid(self, phase: str) -> int:
        """The present worker of that phase. What it wrote may be seen before it is told that there is one."""
        self.until(lambda event: event["step"] == "spawn" and event["phase"] == phase)
        with self._arrived:
            spawned = [e["summary"]["pid"] for e in self.events if e["step"] == "spawn" and e["phase"] == phase]
        return int(spawned[-1])

    def kill(self, phase: str) -> int:
        """SIGKILL the present worker of that phase; its pid."""
        pid = self.pid(phase)
        os.kill(pid, SIGKILL)
        return pid

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to all of the group."""
        press_ctrl_c(self.process.pid)

    def stop(self) -> int:
        """End it in good order; its exit code."""
        if sys.platform == "win32":
            self.interrupt()
        else:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def told(self) -> str:
        """The last events, for a failing test."""
        lines = [f"{e['phase']} {e['type']} {e['step']} {e['detail'][:300]}" for e in self.events[-40:]]
        errors = self.shop.root.parent / f"{self.shop.root.name}.err"
        return "\n".join([*lines, errors.read_text()[-4000:]])


class Gates:
    """Holds a phase's test run where it begins, so that a test knows it is there; starts what is hard to end."""

    CONFTEST = """
        import os
        import subprocess
        import sys
        import time
        from pathlib import Path

        import psutil

        PARTS = Path(__file__).parts
        PHASE = PARTS[PARTS.index("trees") + 1] if "trees" in PARTS else "user"
        GATE = Path({folder!r}) / f"close-{{PHASE}}"
        INSIDE = Path({folder!r}) / f"in-{{PHASE}}"


        def pytest_runtestloop(session):
            if not GATE.exists():
                return
            if INSIDE.exists():
                for pid in INSIDE.read_text().split():
                    try:
                        state = psutil.Process(int(pid)).status()
                    except psutil.Error:
                        continue
                    if state != psutil.STATUS_ZOMBIE:
                        INSIDE.with_name("overlap").write_text(f"{{PHASE}} {{pid}}")
            quiet = subprocess.DEVNULL
            command = [sys.executable, "-c", "import time; time.sleep(600)"]
            stray = subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
            started = [stray.pid, *([daemon()] if sys.platform == "linux" else [])]
            draft = INSIDE.with_suffix(".new")
            draft.write_text(" ".join(map(str, [os.getpid(), *started])))
            draft.replace(INSIDE)
            while GATE.exists():
                time.sleep(0.02)
            for pid in started:
                os.kill(pid, 9)
            stray.wait()


        def daemon():
            said, saying = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if pid := os.fork():
                    os.write(saying, str(pid).encode())
                    os._exit(0)
                null = os.open(os.devnull, os.O_RDWR)
                for descriptor in range(3):
                    os.dup2(null, descriptor)
                os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], {{}})
            os.wait()
            return int(os.read(said, 20))
    """

    def __init__(self, shop: Shop) -> None:
        self.folder = shop.root.parent / f"{shop.root.name}-gates"
        self.folder.mkdir()
        shop.write("tests/conftest.py", self.CONFTEST.format(folder=str(self.folder)))

    def close(self, *phases: str) -> None:
        for phase in phases:
            (self.folder / f"close-{phase}").touch()

    def open(self, *phases: str) -> None:
        for phase in phases:
            (self.folder / f"close-{phase}").unlink()

    def inside(self, phase: str, *, but: Collection[int] = ()) -> list[int]:
        """Wait until the phase's tests are at the gate; pids of pytest, of a child that left its session, a daemon."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError, PermissionError):  # Windows: just being replaced
                pids = [int(pid) for pid in (self.folder / f"in-{phase}").read_text().split()]
                if not set(pids) & set(but):
                    return pids
            time.sleep(0.01)
        raise AssertionError(f"{phase} ran no tests")

    @property
    def overlap(self) -> str:
        """Names a process of a dead worker that lived beside its successor's."""
        found = self.folder / "overlap"
        return found.read_text() if found.exists() else ""


def living(pids: Iterable[int]) -> list[str]:
    """Those that still run, by name; one that is dead and not yet reaped does not."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{pid} {process.status()} {process.cmdline()}")
    return found


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing running, however the test went."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True, scope="session")
def heard_hangups() -> None:
    """Tests started by `nohup` ignore SIGHUP, and so would everything they start, as it should."""
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A project without faults, initialised as a workspace."""
    root = tmp_path / "shop"
    made = make_shop(root)
    yield made
    if sys.platform == "win32":  # in the job of a supervisor that `end` ended: the system gets to them in its own time
        psutil.wait_procs(made.workers(), LIMIT)
    assert [worker.pid for worker in made.workers()] == []


def make_shop(root: Path, files: Mapping[str, str] = FILES) -> Shop:
    made = shop_in(root)
    for name, text in files.items():
        made.write(name, text)
    made.say("init")
    return made


def shop_in(root: Path) -> Shop:
    """Whatever is in that folder, with a home of its own."""
    state = root.parent / "home"
    folders = dict.fromkeys(("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "LOCALAPPDATA"), str(state))
    environ = {**os.environ, "SHOP": str(root), **folders}
    for name in ("QUEUE_IPC_MODE", "QUEUE_IPC_ROLLOUT", "PYTEST_ADDOPTS"):
        environ.pop(name, None)
    state.mkdir(parents=True, mode=0o700, exist_ok=True)
    return Shop(root, environ)


@pytest.fixture
def new_shop(tmp_path: Path) -> Callable[[str], Shop]:
    """More of them, by name."""
    return lambda name: make_shop(tmp_path / name)
