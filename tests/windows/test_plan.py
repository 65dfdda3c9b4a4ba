"""The plan for Wine leaves nothing out by oversight, and what a second try hides is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.windows.plan import LEFT_OUT
from tests.windows.wine import failures, passed_again

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("pattern", [pattern for pattern in LEFT_OUT if pattern.startswith("tests/")])
def test_what_is_left_out_is_there(pattern: str) -> None:
    """No file and no test that the plan names has gone or has another name."""
    file, _, test = pattern.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    name = re.match(r"\w*", test)
    assert test == "*" or (name and f"def {name[0]}" in text), pattern


def test_a_second_try_is_no_first_one(tmp_path: Path) -> None:
    """What failed beside others and passed alone is told from what failed twice."""
    report = tmp_path / "report.xml"
    cases = {name: f'<testcase classname="tests.ipc.test_running" name="{name}">%s</testcase>' for name in ("a", "b")}
    report.write_text(f"<s>{cases['a'] % '<failure/>'}{cases['b'] % '<error/>'}</s>", encoding="utf-8")
    failed = failures(report)
    assert failed == ["tests/ipc/test_running.py::a", "tests/ipc/test_running.py::b"]
    report.write_text(f"<s>{cases['a'] % '<failure/>'}{cases['b'] % ''}</s>", encoding="utf-8")
    assert passed_again(failed, report) == ("tests/ipc/test_running.py::b",)
    report.unlink()
    assert passed_again(failed, report) == ()
