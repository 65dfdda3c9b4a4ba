"""The floors of the house: imports point down and never meet, pure cores stay pure, workers import little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "ipc": set(),
    "docs_store": set(),
    "actors": {"ipc", "docs_store"},
    "supervisor": {"ipc", "docs_store", "actors"},
}

PURE = (
    "ipc/markers.py",
    "ipc/backlog.py",
    "ipc/frames.py",
    "ipc/sequence.py",
    "ipc/control.py",
    "ipc/seldom.py",
    "docs_store/topology.py",
    "docs_store/messages.py",
    "docs_store/replay.py",
    "docs_store/markdown.py",
    "docs_store/merge.py",
    "docs_store/views.py",
    "docs_store/trace.py",
    "actors/drivers/builtin/findings.py",
    "supervisor/config.py",
    "supervisor/restart.py",
    "supervisor/liveness.py",
    "supervisor/probes.py",
    "supervisor/quiescence.py",
    "supervisor/rollout.py",
    "supervisor/report.py",
    "supervisor/why.py",
)
IMPURE = {"anyio", "asyncio", "os", "time", "random", "signal", "subprocess", "threading", "socket"}

TOO_HEAVY_FOR_A_WORKER = {
    "rich",
    "typer",
    "starlette",
    "uvicorn",
    "websockets",
    "prometheus_client",
    "pydantic",
    "watchfiles",
    "pytest",
    "hypothesis",
}


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_down(package: str) -> None:
    """No package imports one above it, and the two on the ground floor do not know each other."""
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        assert not imported(path) & MAY_IMPORT.keys() - {package} - MAY_IMPORT[package], path


@pytest.mark.parametrize("file", PURE)
def test_pure_cores_stay_pure(file: str) -> None:
    """A module that decides imports no clock, no chance, no process and no event loop."""
    assert not imported(ROOT / file) & IMPURE


def test_a_worker_imports_little() -> None:
    """What a worker imports before its first task holds nothing that only the command line or a page needs."""
    code = "import sys; from actors.worker import preload; preload(); print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & TOO_HEAVY_FOR_A_WORKER
