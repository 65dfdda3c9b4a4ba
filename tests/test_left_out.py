"""What another system alone has is no skip here: it is not run, and counted with its reason, side by side or not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
ELSEWHERE = "windows" if sys.platform != "win32" else "posix"
HERE = "windows" if sys.platform == "win32" else "posix"
TESTS = f"""
import pytest

@pytest.mark.only_on("{ELSEWHERE}", reason="a thing of theirs")
@pytest.mark.parametrize("n", range(3))
def test_theirs(n):
    raise AssertionError("must not run")

@pytest.mark.only_on("{HERE}", reason="a thing of ours")
def test_ours():
    pass

@pytest.mark.lacking(reason="a stand-in lacks it")
def test_lacking():
    raise AssertionError("must not run")

@pytest.mark.only_on("{ELSEWHERE}", reason="not asked for")
def test_unasked():
    raise AssertionError("must not run")

@pytest.mark.skip(reason="a real skip")
def test_skipped():
    pass
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side_by_side", [False, True])
def test_it_is_counted_by_reason(tmp_path: Path, side_by_side: bool) -> None:  # noqa: FBT001
    """Three of one reason and one of another; what `-k` leaves out is nobody's to count."""
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    only_on: x\n    lacking: x\n")
    jobs = ["-n", "2"] if side_by_side else ["-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *jobs, "-k", "not unasked", str(tmp_path)],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 left out here" in done.stdout
    assert f"   3 only on {ELSEWHERE}: a thing of theirs" in done.stdout
    assert "   1 a stand-in lacks it" in done.stdout
    assert "not asked for" not in done.stdout
    assert "1 passed, 1 skipped" in done.stdout
