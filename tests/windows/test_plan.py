"""The plan for Wine leaves nothing out by oversight, and what a second try hides is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.windows.plan import LEFT_OUT, WHOLE, account, run_here, whole_runs
from tests.windows.wine import failures, passed_again

ROOT = Path(__file__).parents[2]
FILES = whole_runs(ROOT)


@pytest.mark.parametrize("file", FILES)
def test_each_file_is_run_or_left_out_with_a_reason(file: str) -> None:
    """A new file with whole runs goes into the plan: all of it runs, or what does not has its reason."""
    assert FILES[file], "a file without tests"
    is_whole = run_here(ROOT)[file] == FILES[file]
    assert is_whole != bool(LEFT_OUT.get(file)), f"say in tests/windows/plan.py whether {file} runs under Wine"


def test_the_plan_names_what_is_there() -> None:
    """No file and no test of it has gone or has another name."""
    assert LEFT_OUT.keys() <= FILES.keys()
    for entry in WHOLE:
        file, _, test = entry.partition("::")
        assert (ROOT / file).exists(), entry
        assert not test or test in FILES[file], entry


def test_both_are_counted() -> None:
    """What runs and what is left out are all there is."""
    head, *lines = account(ROOT).splitlines()
    words = head.split()
    assert int(words[2]) + int(words[words.index("left") - 1]) == sum(len(tests) for tests in FILES.values())
    assert sum(int(line.split()[0]) for line in lines) == int(words[words.index("left") - 1])


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
