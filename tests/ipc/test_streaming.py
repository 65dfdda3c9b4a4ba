"""What a browser is told: the message shapes, and the example backend with a real client."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import ipc
from ipc import ProgressEvent, client_message
from ipc.running import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_backend"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            ProgressEvent("progress", "audit", "scanning", 5, "7 pages"),
            {"type": "phase_start", "phase": "audit", "message": "Scanning: 7 pages", "pct": 5},
        ),
        (
            ProgressEvent("progress", "audit", "done", 100, "all read", {"n": 7}),
            {
                "type": "phase_complete",
                "phase": "audit",
                "message": "Done: all read",
                "pct": 100,
                "summary": {"n": 7},
            },
        ),
        (
            ProgressEvent("progress", "audit", "error", 40, "no network"),
            {"type": "phase_error", "phase": "audit", "message": "Error: no network"},
        ),
        (
            ProgressEvent("log_entry", "audit", "", 0, "hello"),
            {"type": "log_entry", "phase": "audit", "message": "Audit: hello"},
        ),
        (
            ProgressEvent("phase_start", "qa", "done", 1),
            {"type": "phase_start", "phase": "qa", "message": "Done", "pct": 1},
        ),
        (
            ProgressEvent("screenshot", "qa", "deep_scan", 1, "x", {"a": 1}, b"\xff", 2.0),
            {
                "type": "screenshot",
                "phase": "qa",
                "step": "deep_scan",
                "pct": 1,
                "detail": "x",
                "summary": {"a": 1},
                "data": "/w==",
                "timestamp": 2.0,
            },
        ),
        ({"type": "whatever", "n": 1}, {"type": "whatever", "n": 1}),
    ],
)
def test_the_shapes(event: Any, message: Any) -> None:
    """A starting step starts a phase, done completes it, error fails it; an explicit type beats the step."""
    assert client_message(event) == message


@contextmanager
def served(mode: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The example, served by uvicorn: its address and its process."""
    environ = {**os.environ, "QUEUE_IPC_MODE": mode, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, cwd=EXAMPLE, env=environ, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if "running on http://" in line:
                yield line.partition("http://")[2].split()[0], server
                break
        server.terminate()
        server.communicate()


@pytest.fixture(params=["queue", "stdout"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The example's address."""
    with served(request.param) as (address, _):
        yield address


def test_the_example_streams_to_a_client(backend: str) -> None:
    """A client sees the whole audit in order; one that comes back with its cursor misses nothing."""
    number = httpx.post(f"http://{backend}/audits", params={"pages": 6}).json()["audit"]
    address = f"ws://{backend}/audits/{number}/events"
    with connect(address) as first:
        seen = [json.loads(first.recv()) for _ in range(3)]
    with connect(f"{address}?after={seen[-1]['cursor']}") as second:
        seen += [json.loads(said) for said in second]
    assert [said["cursor"] for said in seen] == list(range(1, len(seen) + 1))
    messages = [said["message"] for said in seen]
    # What is printed goes another way than events by queue, and may be quicker.
    first_event = next(m for m in messages if m["type"] != "log_entry")
    assert first_event == {"type": "phase_start", "phase": "audit", "message": "Scanning: 6 pages", "pct": 0}
    assert [m["detail"] for m in messages if m["type"] == "finding"] == ["page 3 has no title", "page 6 has no title"]
    assert {"type": "log_entry", "phase": "", "message": "read everything there was"} in messages
    (complete,) = [m for m in messages if m["type"] == "phase_complete"]
    assert complete["summary"] == {"pages": 6, "findings": 2}
    assert messages[-1]["type"] == "audit_complete"
    assert httpx.get(f"http://{backend}/audits/{number}").json()["finished"]


def test_an_unknown_audit_is_told(backend: str) -> None:
    """Asking for an audit that never was is an error with a text, by HTTP and by WebSocket."""
    assert httpx.get(f"http://{backend}/audits/99").status_code == 404
    with connect(f"ws://{backend}/audits/99/events") as socket, pytest.raises(ConnectionClosed, match="no audit 99"):
        socket.recv()


def test_a_mode_that_there_is_not_is_told_at_once() -> None:
    """The audit is not begun: the answer is an error that names the variable."""
    with served("pigeon") as (address, _):
        answer = httpx.post(f"http://{address}/audits")
        assert answer.status_code == 500
        assert "QUEUE_IPC_MODE" in answer.json()["detail"]
        assert httpx.get(f"http://{address}/audits/1").status_code == 404


@pytest.mark.parametrize("pages", ["-5", "0", "1001", "seven"])
def test_an_audit_of_so_many_pages_is_refused(backend: str, pages: str) -> None:
    """422 for what is no sensible number."""
    assert httpx.post(f"http://{backend}/audits", params={"pages": pages}).status_code == 422


def test_the_tools_end_with_the_backend() -> None:
    """Stopping the backend in the middle of an audit leaves no process of it."""
    with served("queue") as (address, server):
        number = httpx.post(f"http://{address}/audits", params={"pages": 1000}).json()["audit"]
        with connect(f"ws://{address}/audits/{number}/events") as socket:
            socket.recv()
        tools = psutil.Process(server.pid).children(recursive=True)
        assert any("tool.py" in " ".join(tool.cmdline()) for tool in tools)
        server.terminate()
        assert server.wait(10) is not None
        assert psutil.wait_procs(tools, timeout=5)[1] == []


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module."""
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setattr(ipc, "run", run)  # whoever imports the module of that name first has the module there
    return importlib.import_module("app")


@pytest.mark.anyio
async def test_an_audit_that_fails_has_an_end_for_the_browser(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with the run is in the log and in the last message."""
    audit = app.Audit([])
    audit._run = None
    await audit.run()
    (said,) = [said async for said in audit.after(0)]
    assert (said[1]["type"], said[1]["step"]) == ("audit_complete", "error")
    assert said[1]["detail"].startswith("the audit failed: ")
    assert "the audit failed" in caplog.text


@pytest.mark.anyio
async def test_of_a_long_audit_the_last_messages_are_kept(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes too late for some is told how many, and goes on with the oldest that is there."""
    monkeypatch.setattr(app, "MESSAGES", 3)
    audit = app.Audit([])
    for number in range(1, 6):
        audit._add(number)
    audit.finished = True
    left_out = {"type": "log_entry", "phase": "", "message": "messages no longer kept: 1"}
    assert [said async for said in audit.after(1)] == [(2, left_out), (3, 3), (4, 4), (5, 5)]
    assert [said async for said in audit.after(3)] == [(4, 4), (5, 5)]
