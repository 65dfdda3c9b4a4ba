"""A worker and its supervisor, a tool and its backend, may run on different versions of Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from ipc import ProgressEvent, create_queue, deserialize_queue_from_env
from ipc.markers import Marker, parse_marker
from ipc.queue import KEY_VARIABLE, serialize_queue
from ipc.receiver import Receiver

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

CLIENT = """
from ipc import Emitter, ProgressEvent, deserialize_queue_from_env
queue = deserialize_queue_from_env()
queue.put(ProgressEvent("finding", "qa", detail="put", summary={"n": [1, None]}, data=bytes(range(256))))
queue.put({"plain": 1.5})
emitter = Emitter.from_env()
for n in range(100):
    emitter.emit("qa", "reading", n)
    emitter.emit("qa", "x", type="finding", detail=str(n), data=b"\\xff" * 10)
assert emitter.drain(10)
emitter.close()
"""
SERVER = """
import sys
from ipc import create_queue
from ipc.queue import serialize_queue
with create_queue() as queue:
    print(serialize_queue(queue)[1], flush=True)
    details = []
    while len(details) < 20:
        event = queue.get(timeout=20)
        details.append((event.type, event.detail, len(event.data or b"")))
    print(details, flush=True)
    sys.stdin.read()
"""


def interpreter(version: str) -> str | None:
    """An interpreter of that version on this machine; one that a shim hides counts only if it starts."""
    places = sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for place in (shutil.which(f"python{version}"), *places):
        if place is None:
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        found = subprocess.run([place, "-c", code], capture_output=True, text=True, timeout=20, check=False)
        if found.stdout.strip() == version:
            return place
    return None


@pytest.fixture(params=VERSIONS)
def other(request: pytest.FixtureRequest) -> str:
    """An environment of another version with what `ipc` needs; made once, kept in the temporary folder."""
    version: str = request.param
    if version == HERE:
        return sys.executable
    place = Path(tempfile.gettempdir()) / f"phase-supervisor-python-{version}"
    python = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    if place.exists():
        return str(place / python)
    base = interpreter(version)
    if base is None:
        pytest.skip(f"no Python {version} on this machine")
    made = Path(tempfile.mkdtemp(prefix="phase-supervisor-"))  # renamed when complete: others may be at it too
    try:
        subprocess.run([base, "-m", "venv", str(made)], check=True, timeout=100)
        packages = ["msgspec>=0.20", "anyio>=4.12"]
        install = [str(made / python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        done = subprocess.run(install, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode:
            pytest.skip(f"what ipc needs cannot be installed for Python {version}: {done.stderr[-200:]}")
        with suppress(OSError):  # another process was quicker
            made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return str(place / python)


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_a_client_of_another_version(other: str) -> None:
    """It puts events and plain values, and its emitter's frames are judged, as from our own version."""
    with create_queue(maxsize=500) as queue:
        key = serialize_queue(queue)[1]
        child = subprocess.run([other, "-c", CLIENT], env=environ(**{KEY_VARIABLE: key}), timeout=60, check=False)
        assert child.returncode == 0
        first = queue.get_nowait()
        assert (first.type, first.summary, first.data) == ("finding", {"n": [1, None]}, bytes(range(256)))
        assert queue.get_nowait() == {"plain": 1.5}
        events = [queue.get_nowait() for _ in range(queue.qsize())]
        assert [e.detail for e in events if e.type == "finding"] == [str(n) for n in range(100)]


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_a_server_of_another_version(other: str) -> None:
    """We connect to it, and it reads what we put."""
    with subprocess.Popen(
        [other, "-c", SERVER], env=environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        queue = deserialize_queue_from_env({KEY_VARIABLE: server.stdout.readline().strip()})
        assert queue is not None
        for n in range(20):
            queue.put(ProgressEvent("screenshot", "qa", detail=str(n), data=b"x" * n))
        assert server.stdout.readline().strip() == str([("screenshot", str(n), n) for n in range(20)])
        queue.close()
        server.communicate("")


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_markers_of_another_version(other: str) -> None:
    """Lines that it prints are read, bytes included."""
    code = "from ipc import Emitter\nwith Emitter.from_env() as e:\n e.emit('qa', 'x', type='finding', data=b'\\xff')"
    bare = {name: value for name, value in environ().items() if name != KEY_VARIABLE}
    said = subprocess.run([other, "-c", code], env=bare, capture_output=True, timeout=60, check=True).stdout
    found = parse_marker(said.strip())
    assert isinstance(found, Marker)
    assert found.event.data == b"\xff"
    assert [e.data for e in Receiver().line(said.strip()) or []] == [b"\xff"]


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_a_worker_of_another_version(other: str, tmp_path: Path) -> None:
    """The crew's own protocol too: frames, acks, spool and salvage between two versions."""
    station = str(ROOT / "tests" / "chaos" / "station.py")
    for mode in ("queue", "stdout"):
        folder = tmp_path / mode
        folder.mkdir()
        options = json.dumps({"count": 300, "pause": 0.0005, "mode": mode, "python": other})
        with subprocess.Popen(
            [sys.executable, station, str(folder), options],
            env=environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            said, _ = child.communicate("start qa 1\nstart developer 1\nkill developer 1\nfinish\n", timeout=60)
        facts = [json.loads(line) for line in said.splitlines() if '"given"' in line]
        assert [(fact["worker"], fact["given"], fact["drained"]) for fact in facts] == [("qa", 600, True)], said
