"""What `supervisor start` leaves running: a program without a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supervisor.exits import Exit

PARTS = "supervisor.foreground", "supervisor.control.server", "supervisor.own_actors", "supervisor.bootstrap"


def test_it_imports_nothing_that_only_a_terminal_needs() -> None:
    """A parser of words and a painter of tables would be a fifth of its memory, for as long as it runs."""
    code = (
        "import supervisor.background, importlib, sys; from actors.worker import import_structlog; import_structlog();"
        f"[importlib.import_module(name) for name in {PARTS!r}]; print(*sorted(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"uvicorn", "structlog"} <= loaded
    assert not loaded & {"prometheus_client", "pygit2"}, "loaded when they are needed, which most crews never see"
    assert not loaded & {"typer", "pydantic", "rich", "pygments", "supervisor.console", "supervisor.cli.main"}


def test_its_errors_are_sentences_and_codes(tmp_path: Path) -> None:
    """As those of every command: `supervisor start` hands them on."""
    command = [sys.executable, "-P", "-m", "supervisor.background", str(tmp_path)]
    nowhere = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert nowhere.returncode not in (Exit.DONE, Exit.INTERNAL)
    assert nowhere.stderr.startswith("supervisor: ")
    assert "Traceback" not in nowhere.stderr
    (tmp_path / "supervisor.toml").write_text("restart = 1\n")
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (wrong.returncode, "restart" in wrong.stderr) == (Exit.CONFIGURATION, True)
