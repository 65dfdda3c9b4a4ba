from functools import partial
from pathlib import Path

import pygit2
import pytest

from actors.blame import last_change
from actors.drivers.builtin.checks import run_tests
from actors.drivers.builtin.explain import Cause, explain
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.project import discover

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Real interpreters are started here."""
    return "asyncio"


def commit(folder: Path, content: dict[str, str], author: str, note: str, when: int) -> None:
    """Write files and commit them as a user would."""
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    repo = pygit2.Repository(str(folder)) if (folder / ".git").exists() else pygit2.init_repository(str(folder))
    for name in content:
        repo.index.add(name)
    repo.index.write()
    who = pygit2.Signature(author, "a@example.org", when, 0)
    parents = [] if repo.head_is_unborn else [repo.head.target]
    repo.create_commit("HEAD", who, who, note, repo.index.write_tree(), parents)


CORE = """def rate(done, total):
    return done / total


def label(level):
    names = {1: "low", 2: "high"}
    return names[level]


def check(n):
    if n < 0:
        raise ValueError(f"negative: {n}")
    return n


def halve(n):
    return n // 3
"""

TESTS = """import core
from core import halve


def test_rate():
    core.rate(1, 0)


def test_label():
    core.label(7)


def test_check():
    core.check(-2)


def test_halve():
    result = halve(4)
    assert result == 2


def test_direct():
    assert 2 == core.halve(4)
"""


async def causes(folder: Path) -> dict[str, Cause]:
    run = await run_tests(discover(folder), tree=folder)
    return {f.symbol or f.file: explain(f, folder, last_change=partial(last_change, folder)) for f in run.findings}


async def test_causes_name_line_expression_values_and_last_change(tmp_path: Path) -> None:
    """The failing expression in the project's own code, not in the test; under which condition; whose change."""
    commit(
        tmp_path, {"core.py": CORE.replace("n // 3", "n // 2"), "test_core.py": TESTS}, "Ann", "Begin", 1_700_000_000
    )
    commit(tmp_path, {"core.py": CORE}, "Bob", "Make halves smaller\n\nBody.", 1_700_100_000)
    found = await causes(tmp_path)
    rate = found["test_rate"]
    assert (rate.exception, rate.expression, rate.values) == (
        "ZeroDivisionError",
        "done / total",
        {"done": "1", "total": "0"},
    )
    assert str(rate.where) == "core.py:2 in rate"
    assert rate.change is not None
    assert (rate.change.author, rate.change.summary, rate.change.date[:10]) == ("Ann", "Begin", "2023-11-14")
    assert "It was called from test_core.py:6 `core.rate(1, 0)`." in rate.text
    assert (found["test_label"].expression, found["test_label"].values) == ("names[level]", {"level": "7"})
    assert found["test_check"].condition == "n < 0"
    for name in ("test_halve", "test_direct"):
        cause = found[name]
        assert (cause.expected, cause.actual) == ("2", "1")
        assert [str(place) for place in cause.suspects] == ["core.py:16 in halve"]
        assert cause.change is not None
        assert (cause.change.author, cause.change.summary) == ("Bob", "Make halves smaller")
    assert "wanted 2, got 1" in found["test_halve"].text
    assert found["test_halve"].to_dict()["suspects"][0]["function"] == "halve"


async def test_a_method_called_on_the_way_is_suspected(tmp_path: Path) -> None:
    """An assertion about a plain object: what the test called before it, methods by their object's class."""
    (tmp_path / "core.py").write_text("class Box:\n    def put(self, seen, x):\n        seen.append(x + 1)\n")
    test = "from core import Box\n\n\ndef test_it():\n    seen = []\n    box = Box()\n"
    test += "    box.put(seen, 1)\n    assert seen == [1]\n"
    (tmp_path / "test_core.py").write_text(test)
    found = await causes(tmp_path)
    assert [str(place) for place in found["test_it"].suspects] == ["core.py:2 in Box.put", "core.py:1 in Box"]
    assert (found["test_it"].expected, found["test_it"].actual) == ("[1]", "[2]")


async def test_an_import_that_fails_is_explained_where_it_fails(tmp_path: Path) -> None:
    """A syntax error and a missing module: the broken line, not the test's import."""
    (tmp_path / "core.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "other.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "test_a.py").write_text("import core\ndef test_a(): pass\n")
    (tmp_path / "test_b.py").write_text("import other\ndef test_b(): pass\n")
    found = await causes(tmp_path)
    assert (found["core.py"].exception, str(found["core.py"].where)) == ("SyntaxError", "core.py:2")
    assert found["other.py"].exception == "ModuleNotFoundError"
    assert str(found["other.py"].where) == "other.py:1 in <module>".removesuffix(" in <module>")
    assert found["core.py"].change is None


def test_what_has_no_traceback_is_still_explained(tmp_path: Path) -> None:
    """A finding without frames gives its own words, and the last line of its evidence."""
    cause = explain(Finding(tool="pytest", rule="not-started", message="no", detail="a\nERROR: why\n"), tmp_path)
    assert cause.text == "no. All that was said is: ERROR: why"


def test_lines_are_found_again_after_the_file_has_changed(tmp_path: Path) -> None:
    """Blame follows a line that others have moved; a line nobody committed has no last change."""
    commit(tmp_path, {"a.py": "one\ntwo\n"}, "Ann", "Begin", 1_700_000_000)
    commit(tmp_path, {"a.py": "zero\none\ntwo\n"}, "Bob", "More", 1_700_100_000)
    now = "new\nzero\nfresh\none\ntwo\n"
    two = last_change(tmp_path, "a.py", now, 5, 5)
    assert two is not None
    assert two.author == "Ann"
    assert last_change(tmp_path, "a.py", now, 3, 3) is None
    span = last_change(tmp_path, "a.py", now, 2, 5)
    assert span is not None
    assert span.author == "Bob"
    assert last_change(tmp_path, "unknown.py", "x\n", 1, 1) is None


def test_no_git_and_an_empty_one_are_no_trouble(tmp_path: Path) -> None:
    """Without commits there is no last change, and no error."""
    assert last_change(tmp_path, "a.py", "x\n", 1, 1) is None
    pygit2.init_repository(str(tmp_path))
    assert last_change(tmp_path, "a.py", "x\n", 1, 1) is None


async def test_values_that_pytest_shortens_to_the_same_are_told_apart(tmp_path: Path) -> None:
    """Where wanted and got look alike because they were cut, the explanation names the line that differs."""
    tests = """import core


def test_long():
    assert core.text() == "one " * 30 + "\\nyes\\n" + "two " * 30
"""
    core = 'def text():\n    return "one " * 30 + "\\nno\\n" + "two " * 30\n'
    for name, text in {"core.py": core, "test_core.py": tests}.items():
        (tmp_path / name).write_text(text)
    run = await run_tests(discover(tmp_path), tree=tmp_path, timeout=60)
    (finding,) = run.findings
    said = explain(finding, tmp_path, last_change=partial(last_change, tmp_path)).text
    assert "wanted the line 'yes', got 'no'" in said
