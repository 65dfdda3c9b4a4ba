"""A real supervisor on Windows: Ctrl-C and Ctrl-Break, consoles of old code pages, odd folders, no output at all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.queue import create_queue
from supervisor.exits import Exit
from tests.e2e.conftest import LIMIT, Shop, end, living, make_shop
from tests.systems import press_ctrl_c

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.only_on("windows", reason="console events, code pages, named pipes"),
]

# What a line on its standard input names is raised where Windows raises it: in a thread that is not Python's own.
RAISING = """
import signal, sys, threading
from supervisor.cli.main import run_cli

def listen():
    for line in sys.stdin:
        signal.raise_signal(getattr(signal, line.strip()))

threading.Thread(target=listen, daemon=True).start()
sys.exit(run_cli(["-C", sys.argv[1], "run", "--plain"]))
"""
SILENT = """
import sys
sys.stdout = sys.stderr = sys.stdin = None
from supervisor.cli.main import run_cli
code = run_cli(["-C", sys.argv[1], "run", "--plain", "--until-idle"])
open(sys.argv[2], "w").write(str(code))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """In a folder with a blank and letters that no code page of the West has."""
    return make_shop(tmp_path / "my ü 日本 shop")


def until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def is_ready(shop: Shop) -> bool:
    said = shop.ask("status", check=False)
    phases = said["phases"].values()
    return len(phases) == 4 and all(phase["state"] == "ready" for phase in phases)


def check_orderly(shop: Shop, process: subprocess.Popen[str], workers: list[int]) -> None:
    """Ended as asked: nobody left, documents that verify, the end on record."""
    assert process.wait(LIMIT) in {Exit.WORK_REMAINS, Exit.INTERRUPTED}, shop.output
    assert "Traceback" not in shop.output
    assert living(workers) == []
    shop.say("docs", "verify")
    assert len([event for event in shop.events() if event["step"] == "end"]) == 1


def test_ctrl_c_in_its_console_is_an_orderly_end(shop: Shop) -> None:
    """The event that a person's Ctrl-C makes: workers, in groups of their own, do not hear it; the supervisor does."""
    process = shop.start()
    try:
        until(lambda: is_ready(shop), "everybody ready")
        workers = [worker.pid for worker in shop.workers()]
        assert len(workers) >= 4
        press_ctrl_c(process.pid)
        check_orderly(shop, process, workers)
    finally:
        end(process)


@pytest.mark.parametrize("name", ["SIGBREAK", "SIGINT", "SIGTERM"])
def test_each_signal_that_windows_raises_is_heard(shop: Shop, name: str) -> None:
    """Ctrl-Break, Ctrl-C, and what the C runtime knows beside them: into the loop from the handler, while it sleeps."""
    with (shop.root.parent / f"{shop.root.name}.out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", RAISING, str(shop.root)],
            cwd=shop.root,
            env=shop.environ,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        until(lambda: is_ready(shop), "everybody ready")
        workers = [worker.pid for worker in shop.workers()]
        assert process.stdin is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        check_orderly(shop, process, workers)
    finally:
        end(process)
        if process.stdin is not None:
            process.stdin.close()


@pytest.mark.parametrize("encoding", ["cp437", "cp1252"])
def test_a_console_that_lacks_characters_shows_others(shop: Shop, encoding: str) -> None:
    """No command fails over a letter that the console's code page does not have."""
    in_code_page = Shop(shop.root, {**shop.environ, "PYTHONIOENCODING": encoding})
    given = in_code_page.ask("task", "Grüße 日本 — ≥ 3 … please", "--to", "qa")
    for words in (["status"], ["inbox"], ["docs", "show", "QA_READ"], ["events"], ["doctor"], ["service", "print"]):
        done = subprocess.run(
            in_code_page.command(*words), cwd=shop.root, env=in_code_page.environ, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        said = (done.stdout + done.stderr).decode(encoding)
        assert "Error" not in said.replace("phase_error", ""), said
        if words[0] == "docs":
            assert given["id"] in said
            assert "Grüße ?? " in said
            assert ("—" in said) == (encoding == "cp1252")


def test_a_whole_run_without_any_output(shop: Shop, tmp_path: Path) -> None:
    """As a service or a program without a console has it: no standard output and no standard error, not even closed."""
    code = tmp_path / "code"
    command = [sys.executable, "-c", SILENT, str(shop.root), str(code)]
    done = subprocess.run(
        command, cwd=shop.root, env=shop.environ, stdin=subprocess.DEVNULL, timeout=LIMIT, check=False
    )
    assert done.returncode == 0
    assert code.read_text() == "0"
    assert "1 passed" in shop.read("crew/QA_WRITE.md")


def test_files_of_the_user_lie_in_local_app_data(shop: Shop) -> None:
    """Where to find the running supervisor is said under %LOCALAPPDATA%, whatever other variables there are."""
    process = shop.start()
    try:
        until(lambda: is_ready(shop), "everybody ready")
        published = Path(shop.environ["LOCALAPPDATA"]) / "phase-supervisor" / "run"
        until(lambda: list(published.glob("*.json")), "the endpoint's file")
        press_ctrl_c(process.pid)
        assert process.wait(LIMIT) in {Exit.WORK_REMAINS, Exit.INTERRUPTED}
    finally:
        end(process)


def test_a_pipe_s_name_is_short_wherever_the_workspace_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows allows 256 characters; ours has less than half of them, and depends on no folder."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    queue = create_queue()
    try:
        assert queue.server.address.startswith("\\\\.\\pipe\\phase-supervisor-")
        assert len(queue.server.address) < 100
    finally:
        queue.server.close()
