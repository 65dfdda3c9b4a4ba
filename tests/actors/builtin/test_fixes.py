from pathlib import Path

import pytest

from actors.drivers.builtin.checks import Failure, Outcome, Test, TestRun, _of_test, run_ruff
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.fixes import as_green, safe_fixes
from actors.drivers.builtin.project import discover


@pytest.fixture
def anyio_backend() -> str:
    """A real ruff is started here."""
    return "asyncio"


@pytest.mark.anyio
async def test_safe_fixes_fix_what_was_asked_for_and_nothing_else(tmp_path: Path) -> None:
    """Only these rules in these files, never an unsafe fix; what is gone and what is left is told."""
    source = "import os\nimport sys\n\n\ndef f():\n    x = 1\n    if sys.argv:\n        return f''\n"
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(source)
    project = discover(tmp_path)
    found = (await run_ruff(project, tmp_path)).findings
    asked = [f for f in found if f.file == "a.py" and f.rule in ("F401", "F841")]
    fixed = await safe_fixes(project, tmp_path, asked)
    assert fixed.files == ("a.py",)
    assert [f.rule for f in fixed.gone] == ["F401"]
    assert [f.rule for f in fixed.left] == ["F841"]
    assert (tmp_path / "a.py").read_text() == source.removeprefix("import os\n")
    assert (tmp_path / "b.py").read_text() == source
    again = await safe_fixes(project, tmp_path, fixed.left)
    assert (again.files, again.gone) == ((), ())


@pytest.mark.anyio
async def test_what_ruff_cannot_do_is_told(tmp_path: Path) -> None:
    """A broken configuration changes nothing and is said; findings of other tools are left."""
    (tmp_path / "a.py").write_text("import os\n")
    project = discover(tmp_path)
    finding = Finding(tool="ruff", rule="F401", message="m", file="a.py")
    (tmp_path / "ruff.toml").write_text("[lint\n")
    fixed = await safe_fixes(project, tmp_path, [finding])
    assert (fixed.files, fixed.left) == ((), (finding,))
    assert "ruff.toml" in fixed.trouble
    other = Finding(tool="pytest", rule="failure", message="m", file="a.py")
    assert (await safe_fixes(project, tmp_path, [other])).left == (other,)


def run(**outcomes: Outcome) -> TestRun:
    tests = {
        f"t.py::{name}": Test(
            id=f"t.py::{name}",
            outcome=outcome,
            failure=None if outcome in ("passed", "skipped") else Failure(exception="E", message="m"),
        )
        for name, outcome in outcomes.items()
    }
    bad = tuple(_of_test(t) for t in tests.values() if t.failure is not None)
    return TestRun(status="ran", collected=len(tests), tests=tests, findings=bad)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (run(a="passed"), run(a="passed"), ""),
        (run(a="failed", b="passed"), run(a="failed", b="passed"), ""),
        (run(a="failed"), run(a="passed"), ""),
        (run(a="passed"), run(a="passed", new="passed"), ""),
        (run(a="passed"), run(a="failed"), "it passed before"),
        (run(a="failed"), run(a="hung"), "wrong in another way"),
        (run(a="passed"), run(a="passed", new="failed"), "new fails"),
        (run(a="passed", b="passed"), run(a="passed"), "a test is gone that passed before: t.py::b"),
        (run(a="passed"), TestRun(status="no tests"), "a test is gone"),
        (run(a="passed"), TestRun(status="timed out"), "did not end"),
        (TestRun(status="no tests"), TestRun(status="no tests"), ""),
        (TestRun(status="not started"), TestRun(status="not started"), "cannot be run"),
        (TestRun(status="not started"), run(a="passed"), ""),
    ],
)
def test_as_green_means_nothing_got_worse(before: TestRun, after: TestRun, words: str) -> None:
    """Each row: whether the change may stay, and the reason if it may not."""
    verdict = as_green(before, after)
    assert verdict.ok is (not words)
    assert words in "; ".join(verdict.reasons)
