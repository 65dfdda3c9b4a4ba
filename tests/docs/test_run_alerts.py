"""The example and its comparison: the faults are real, what TERTIARY spells out works, and each deviation is named."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)  # a whole copy of the example is tested at the beginning
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def run_alerts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_alerts", EXAMPLES / "run_alerts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_alerts"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected() -> Mapping[str, Any]:
    return tomllib.loads((EXAMPLES / "alerts-expected.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def ideal(run_alerts: ModuleType, expected: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of a crew that did everything right: its work done here by hand, on a real copy."""
    folder = tmp_path_factory.mktemp("run") / "alerts"
    folder.mkdir()
    run_alerts.copy_example(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_alerts, "RUNS", folder.parent)
        before = run_alerts.look(folder, with_git=False)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "--fix", "."]
    subprocess.run(ruff, cwd=folder, check=True, timeout=60)
    build(folder, (folder / "crew" / "TERTIARY_OBJECTIVES.md").read_text("utf-8"))
    words: dict[str, list[str]] = {}
    for entry in expected["documents"]:
        for document, said in entry["says"].items():
            words.setdefault(document, []).extend(said)
    phases = ("planning", "developer", "qa", "debugging")
    return replace(
        before,
        exit_code=expected["run"]["exit_code"],
        after=run_alerts.run_tests(folder, folder.parent / "after.xml"),
        lint_after=run_alerts.run_ruff(folder),
        files=run_alerts.read_files(folder),
        documents={document: "\n".join(said) for document, said in words.items()},
        inbox=[" ".join([entry["test"], *entry["says"]]) for entry in expected["blocked"]],
        events=[{"worker": p, "epoch": 1, "seq": 1, "type": "phase_complete", "phase": p} for p in phases],
        verified=True,
        git_before="main",
        git_after="main",
    )


def build(folder: Path, tertiary: str) -> None:
    """Do what the code of TERTIARY_OBJECTIVES says: new files, and hunks that fit exactly."""
    for name, text in re.findall(r"^```python file=(\S+)\n(.*?)^```$", tertiary, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text, "utf-8")
    for diff in re.findall(r"^```diff\n(.*?)^```$", tertiary, re.DOTALL | re.MULTILINE):
        (name,) = re.findall(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)
        path = folder / name
        text = path.read_text("utf-8")
        for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            assert text.count(old) == 1
            text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
        path.write_text(text, "utf-8")


def test_a_perfect_run_is_as_expected(run_alerts: ModuleType, expected: Mapping[str, Any], ideal: Any) -> None:
    """Safe fixes and the code of TERTIARY repair and build all that is expected, and only the blocked test fails."""
    assert [check for check in run_alerts.compare(expected, ideal) if not check.ok] == []
    assert ideal.after.failed == {entry["test"] for entry in expected["blocked"]}


def without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


DEVIATIONS: dict[str, Callable[[Any], Any]] = {
    "ends by itself": lambda o: replace(o, exit_code=0),
    "repaired (F632)": lambda o: replace(o, after=o.before),
    "other tests pass": lambda o: replace(o, after=replace(o.after, failed=o.after.failed | {"tests/test_x.py::y"})),
    "ruff finds nothing": lambda o: replace(o, lint_after={"alerts/config.py": frozenset({"F401"})}),
    "delivered: The digest command": lambda o: replace(o, files=without(o.files, "tests/test_cli_digest.py")),
    "no other file": lambda o: replace(o, files=without(o.files, "README.md")),
    "in the inbox": lambda o: replace(o, inbox=[*o.inbox, "one more"]),
    "cause and place": lambda o: replace(o, inbox=["something failed"]),
    "left alone": lambda o: replace(o, files={**o.files, "alerts/monitors/memory.py": ""}),
    "in the documents: blocker": lambda o: replace(o, documents=without(o.documents, "DEVELOPER_WRITE")),
    "history verifies": lambda o: replace(o, verified=False),
    "every phase": lambda o: replace(o, events=o.events[1:]),
    "recorded twice": lambda o: replace(o, events=[*o.events, o.events[0]]),
    "own git": lambda o: replace(o, git_after="crew"),
    "could be looked at": lambda o: replace(o, trouble=["no JSON"]),
}


@pytest.mark.parametrize("what", DEVIATIONS)
def test_each_deviation_is_named(run_alerts: ModuleType, expected: Mapping[str, Any], ideal: Any, what: str) -> None:
    """Whatever the crew gets wrong fails a line of the comparison that says so."""
    checks = run_alerts.compare(expected, DEVIATIONS[what](ideal))
    assert any(what in check.what and not check.ok for check in checks)


def test_the_run_can_be_repeated(run_alerts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run gets a folder that was not there before."""
    monkeypatch.setattr(run_alerts, "RUNS", tmp_path / "runs")
    assert [run_alerts.fresh_folder().name for _ in range(3)] == ["alerts-run-1", "alerts-run-2", "alerts-run-3"]


def test_a_console_that_lacks_a_character_gets_another(
    run_alerts: ModuleType, ideal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Windows has its output in a file: code page 1252, and no arrow in it; the outcome is told."""
    told = io.BytesIO()
    with io.TextIOWrapper(told, encoding="cp1252") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        for name in ("copy_example", "make_repository", "look"):
            patch.setattr(run_alerts, name, lambda *_, **__: None)
        patch.setattr(run_alerts, "ask", lambda *_: subprocess.CompletedProcess((), 0))
        patch.setattr(run_alerts, "run_crew", lambda *_: 1)
        patch.setattr(run_alerts, "gather", lambda *_, **__: ideal)
        assert run_alerts.main(["--into", str(tmp_path / "copy")]) == 0
        stream.flush()
        text = told.getvalue()
    assert b"All as expected" in text


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n'])
def test_a_list_and_lines_are_both_read(run_alerts: ModuleType, text: str) -> None:
    """JSON comes as one list or as one value per line."""
    assert run_alerts.json_values(text) == [{"a": 1}, {"a": 2}]
