"""The example as `make run` runs it: a fresh copy, real processes, the outcome compared line by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "examples" / "run_alerts.py"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_example_ends_as_expected(tmp_path: Path) -> None:
    """The crew repairs, builds and asks what alerts-expected.toml says, and the run ends by itself."""
    done = subprocess.run(
        [sys.executable, str(RUN), "--into", str(tmp_path / "alerts"), "--plain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=390,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
