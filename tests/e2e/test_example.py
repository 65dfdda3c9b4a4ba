"""The example as `make run` runs it, and the tutorial's answer to the one question that it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=390, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_ends_as_expected_and_goes_on_with_an_answer(tmp_path: Path) -> None:
    """The crew does what alerts-expected.toml says; with the tutorial's answer it finishes, all approved."""
    folder = tmp_path / "alerts"
    done = run(str(ROOT / "examples" / "run_alerts.py"), "--into", str(folder), "--plain", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    tutorial = (ROOT / "docs" / "tutorials" / "first-run.md").read_text("utf-8")
    (answer,) = re.findall(r"^````markdown\n(.*?)^````$", tutorial, re.DOTALL | re.MULTILINE)
    inbox = run("-m", "supervisor", "inbox", "--json", cwd=folder)
    (waiting,) = json.loads(inbox.stdout)
    answered = run("-m", "supervisor", "answer", waiting["id"], answer, cwd=folder)
    assert answered.returncode == 0, answered.stderr
    done = run("-m", "supervisor", "run", "--until-idle", "--plain", cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "self._samples[-1][0] > self._samples[0][0]" in (folder / "alerts/monitors/memory.py").read_text("utf-8")
