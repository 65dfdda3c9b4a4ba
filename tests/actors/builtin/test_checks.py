import ast
import os
import sys
from pathlib import Path

import anyio
import pytest

from actors.drivers.builtin import checks
from actors.drivers.builtin.checks import Frame, TestRun, exit_words, run_ruff, run_tests
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.project import discover
from actors.environment import environment
from ipc.process import escapees, identify

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Real interpreters are started here; the other backend's way of doing that is tested with `ipc.process`."""
    return "asyncio"


def write(folder: Path, content: dict[str, str | bytes]) -> Path:
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


async def check(tmp_path: Path, content: dict[str, str | bytes], *only: str, hang: float = 20.0) -> TestRun:
    tree = write(tmp_path / "tree", content)
    return await run_tests(discover(tree), tree=tree, only=only, timeout=60, hang=hang)


def outcomes(run: TestRun) -> dict[str, str]:
    return {test.symbol: test.outcome for test in run.tests.values()}


CORE = """def halve(n):
    half = n // 2
    return check(half)


def check(n):
    if n < 0:
        raise ValueError(f'negative: {n}')
    return n
"""


async def test_every_outcome_is_told_apart(tmp_path: Path) -> None:
    """Passed, failed, in error, skipped, expected and unexpected: each test's outcome is its own."""
    run = await check(
        tmp_path,
        {
            "core.py": CORE,
            "test_core.py": (
                "import pytest\nfrom core import halve\n"
                "def test_ok(): assert halve(4) == 2\n"
                "def test_wrong(): assert halve(4) == 3\n"
                "@pytest.fixture\ndef broken(): raise RuntimeError('no fixture')\n"
                "def test_setup(broken): pass\n"
                "def test_skip(): pytest.skip('no')\n"
                "@pytest.mark.xfail\ndef test_known(): assert False\n"
                "@pytest.mark.xfail\ndef test_fixed_meanwhile(): pass\n"
                "@pytest.mark.parametrize('n', [1, -2])\ndef test_many(n): halve(n)\n"
            ),
        },
    )
    assert run.status == "ran"
    assert outcomes(run) == {
        "test_ok": "passed",
        "test_wrong": "failed",
        "test_setup": "error",
        "test_skip": "skipped",
        "test_known": "xfailed",
        "test_fixed_meanwhile": "xpassed",
        "test_many[1]": "passed",
        "test_many[-2]": "failed",
    }
    assert [f.symbol for f in run.findings] == ["test_wrong", "test_setup", "test_many[-2]"]
    assert run.collected == 8
    assert not run.is_green
    assert str(run).startswith("3 passed, 2 failed, 1 in error, 1 skipped, 1 expected to fail in ")


async def test_a_failure_carries_its_traceback_in_parts(tmp_path: Path) -> None:
    """Frames with file, line, function, source and plain values; the exception; what the test printed."""
    run = await check(
        tmp_path,
        {"core.py": CORE, "test_core.py": "from core import halve\ndef test_it():\n    print('seen')\n    halve(-3)\n"},
    )
    failure = run.tests["test_core.py::test_it"].failure
    assert failure is not None
    assert (failure.exception, failure.message) == ("ValueError", "negative: -2")
    assert [(f.file, f.line, f.function) for f in failure.frames] == [
        ("test_core.py", 4, "test_it"),
        ("core.py", 3, "halve"),
        ("core.py", 8, "check"),
    ]
    assert failure.frames[-1] == Frame(
        file="core.py",
        line=8,
        function="check",
        source="raise ValueError(f'negative: {n}')",
        inside=True,
        values={"n": "-2"},
    )
    assert "seen" in failure.output
    (finding,) = run.findings
    assert (finding.place, finding.rule) == ("test_core.py:4", "failure")
    assert finding.message == "test_it fails: ValueError: negative: -2"
    assert Finding.from_dict(finding.to_dict()) == finding


async def test_the_tree_is_left_as_it_was(tmp_path: Path) -> None:
    """No caches, no compiled files, nothing in the folder that was tested; our own plugin is gone."""
    tree = write(tmp_path / "tree", {"core.py": CORE, "test_core.py": "import core\ndef test(): assert 0\n"})
    before = sorted(tree.rglob("*"))
    await run_tests(discover(tree), tree=tree, timeout=60, hang=20)
    assert sorted(tree.rglob("*")) == before


@pytest.mark.slow
async def test_a_run_without_hypothesis_does_not_import_it(tmp_path: Path) -> None:
    """Where no test uses hypothesis, its plugin does not import it for an empty summary."""
    pytest.importorskip("_hypothesis_pytestplugin")
    wrote = tmp_path / "wrote"
    hook = (
        "import sys\n"
        "def pytest_unconfigure():\n"
        f"    open({str(wrote)!r}, 'w').write(repr('hypothesis' in sys.modules))\n"
    )
    run = await check(tmp_path, {"conftest.py": hook, "test_a.py": "def test_a(): assert 0\n"})
    assert outcomes(run) == {"test_a": "failed"}
    assert wrote.read_text() == "False"


async def test_a_test_that_hangs_is_named_and_the_rest_is_run(tmp_path: Path) -> None:
    """Stopped at its limit with the line where it hung; tests before and after it have their outcomes."""
    run = await check(
        tmp_path,
        {
            "waiting.py": "import threading\ndef for_ever():\n    threading.Event().wait()\n",
            "test_it.py": (
                "import waiting\ndef test_a(): pass\ndef test_b(): waiting.for_ever()\ndef test_c(): assert 0\n"
            ),
        },
        hang=2.0,
    )
    assert outcomes(run) == {"test_a": "passed", "test_b": "hung", "test_c": "failed"}
    hang = run.findings[0]
    assert hang.rule == "hang"
    assert "waiting.py:3 `threading.Event().wait()`" in hang.message
    assert run.status == "ran"


@pytest.mark.parametrize(
    "how",
    [
        "os._exit(0)",
        pytest.param(
            "ctypes.string_at(0)",
            marks=pytest.mark.only_on("posix", reason="an exception there"),
        ),
    ],
)
async def test_a_test_that_ends_the_interpreter_is_named_and_the_rest_is_run(tmp_path: Path, how: str) -> None:
    """A hard exit and a segmentation fault both leave the other tests' outcomes intact."""
    run = await check(
        tmp_path,
        {"test_it.py": f"import os, ctypes\ndef test_a(): pass\ndef test_b(): {how}\ndef test_c(): pass\n"},
    )
    assert outcomes(run) == {"test_a": "passed", "test_b": "crashed", "test_c": "passed"}
    (finding,) = run.findings
    assert finding.rule == "crash"
    assert finding.message.startswith("test_b ends the interpreter: ")


@pytest.mark.slow
async def test_a_module_that_ends_the_interpreter_when_imported_is_left_out(tmp_path: Path) -> None:
    """The module is named, and the other modules' tests run."""
    run = await check(
        tmp_path, {"test_a.py": "def test_a(): pass\n", "test_b.py": "import os\nos._exit(3)\ndef test_b(): pass\n"}
    )
    assert outcomes(run) == {"test_a": "passed"}
    (finding,) = run.findings
    assert (finding.rule, finding.file) == ("crash", "test_b.py")
    assert finding.message == "importing it ends the interpreter: exit code 3 in the middle of the run"


@pytest.mark.slow
async def test_a_test_that_ends_the_run_does_not_end_ours(tmp_path: Path) -> None:
    """pytest.exit in a test is that test's fault; the rest is run."""
    run = await check(
        tmp_path, {"test_a.py": "import pytest\ndef test_a(): pytest.exit('enough')\ndef test_b(): pass\n"}
    )
    assert outcomes(run) == {"test_a": "crashed", "test_b": "passed"}


async def test_a_process_that_does_not_exit_is_ended_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is no daemon keeps pytest alive after the last test: a warning, not a loss of the outcomes."""
    monkeypatch.setattr(checks, "_EXIT", 0.5)
    run = await check(
        tmp_path,
        {
            "test_a.py": (
                "import threading\ndef test_a():\n    threading.Thread(target=threading.Event().wait).start()\n"
            )
        },
    )
    assert outcomes(run) == {"test_a": "passed"}
    assert [(f.rule, f.severity) for f in run.findings] == [("no-exit", "warning")]
    assert run.is_green


async def test_a_syntax_error_is_found_where_it_is(tmp_path: Path) -> None:
    """A test module that imports broken code cannot be collected; the place is the broken code's."""
    run = await check(
        tmp_path,
        {
            "core.py": "def f(:\n    pass\n",
            "test_a.py": "import core\ndef test_a(): pass\n",
            "test_b.py": "def test_b(): pass\n",
        },
    )
    assert outcomes(run) == {"test_b": "passed"}
    (finding,) = run.findings
    assert (finding.rule, finding.file, finding.line) == ("collection", "core.py", 1)
    assert "SyntaxError" in finding.message
    assert finding.message.endswith("; so test_a.py cannot be imported")
    assert finding.data["frames"][-1]["file"] == "core.py"
    assert finding.data["frames"][-1]["line"] == 1


async def test_one_cause_is_one_finding_however_many_modules_it_stops(tmp_path: Path) -> None:
    """What keeps a package from being imported is named once, not once more by each test module and doctest."""
    run = await check(
        tmp_path,
        {
            "pytest.ini": "[pytest]\naddopts = --doctest-modules\n",
            "app/__init__.py": "import missing_thing\n",
            "app/core.py": 'def one():\n    """\n    >>> one()\n    1\n    """\n    return 1\n',
            "test_a.py": "import app\ndef test_a(): pass\n",
            "test_b.py": "from app.core import one\ndef test_b(): assert one() == 1\n",
            "test_c.py": "def test_c(): pass\n",
        },
    )
    (finding,) = run.findings
    assert (finding.file, finding.line) == ("app/__init__.py", 1)
    assert finding.message == ("ModuleNotFoundError: No module named 'missing_thing'; so 3 modules cannot be imported")
    assert finding.data["ids"] == ["app/__init__.py", "app/core.py", "test_a.py", "test_b.py"]
    assert [frame["file"] for frame in finding.data["frames"] if frame["inside"]][-1] == "app/__init__.py"
    assert not any(frame["inside"] for frame in finding.data["frames"] if frame["file"].startswith("<"))
    assert outcomes(run)["test_c"] == "passed"
    assert ", 4 not importable" in str(run)
    alone = await run_tests(discover(tmp_path / "tree"), tree=tmp_path / "tree", only=["test_b.py"], timeout=60)
    assert [found.fingerprint for found in alone.findings] == [finding.fingerprint]


async def test_looking_changes_nothing_where_the_project_fixes_by_default(tmp_path: Path) -> None:
    """With `fix = true` in ruff's configuration, a finding is still reported and its file left alone."""
    tree = write(tmp_path / "tree", {"ruff.toml": "fix = true\n", "core.py": "import os\n"})
    lint = await run_ruff(discover(tree), tree)
    assert [(f.rule, f.data["fix"]) for f in lint.findings] == [("F401", "safe")]
    assert (tree / "core.py").read_text() == "import os\n"


async def test_a_failing_doctest_says_what_it_wanted_and_got(tmp_path: Path) -> None:
    """A doctest's finding names the example, its line and both values, not the place of a tree."""
    run = await check(
        tmp_path,
        {
            "pytest.ini": "[pytest]\naddopts = --doctest-modules\n",
            "core.py": 'def one():\n    """One.\n\n    >>> one()\n    1\n    """\n    return 2\n',
        },
    )
    (finding,) = run.findings
    assert (finding.file, finding.line) == ("core.py", 4)
    assert finding.message == "core.one fails: DocTestFailure: `one()` gave 2, wanted 1"
    assert str(tmp_path) not in finding.message


async def test_sources_that_are_not_utf8_are_no_accident(tmp_path: Path) -> None:
    """An undecodable module is a collection error with its name; one that declares its encoding just works."""
    run = await check(
        tmp_path,
        {
            "bad.py": b"x = '\xff'\n",
            "good.py": b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
            "test_a.py": "import bad\ndef test_a(): pass\n",
            "test_b.py": "import good\ndef test_b(): assert good.x == 'no'\n",
        },
    )
    assert outcomes(run) == {"test_b": "failed"}
    assert {f.rule for f in run.findings} == {"collection", "failure"}


async def test_no_tests_is_a_note(tmp_path: Path) -> None:
    """A project without tests is no failure, and not green either."""
    run = await check(tmp_path, {"core.py": CORE})
    assert (run.status, [(f.rule, f.severity) for f in run.findings]) == ("no tests", [("no-tests", "note")])
    assert not run.is_green


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"pytest.ini": "[pytest]\naddopts = --no-such-option\n", "test_a.py": "def test_a(): pass\n"}, "not-started"),
        ({"conftest.py": "import nothing_like_it\n", "test_a.py": "def test_a(): pass\n"}, "not-started"),
        ({"conftest.py": "import os\nos._exit(7)\n", "test_a.py": "def test_a(): pass\n"}, "not-started"),
    ],
)
async def test_a_run_that_never_starts_says_why(tmp_path: Path, content: dict[str, str | bytes], rule: str) -> None:
    """A wrong option, a broken conftest and one that exits are findings with pytest's own words."""
    run = await check(tmp_path, content)
    assert run.status == "not started"
    (finding,) = run.findings
    assert finding.rule == rule
    assert any(word in finding.message + finding.detail for word in ("--no-such-option", "nothing_like_it", "code 7"))


@pytest.mark.only_on("posix", reason="the stand-in is a script")
async def test_an_interpreter_without_pytest_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Missing pytest and a missing interpreter: who, where from, and the way out."""
    tree = write(tmp_path / "tree", {"test_a.py": "def test_a(): pass\n"})
    bare = tmp_path / "bare.py"
    bare.write_text(
        f"#!{sys.executable} -S\nimport os, sys\nos.execv({sys.executable!r}, ['python', '-S', *sys.argv[1:]])\n"
    )
    bare.chmod(0o755)
    run = await run_tests(discover(tree, python=str(bare)), tree=tree)
    assert [f.rule for f in run.findings] == ["no-pytest"]
    assert "pip install pytest" in run.findings[0].detail
    run = await run_tests(discover(tree, python=str(tmp_path / "gone")), tree=tree)
    assert [f.rule for f in run.findings] == ["no-interpreter"]
    assert "`[project] python`" in run.findings[0].detail


async def test_only_some_tests_and_progress(tmp_path: Path) -> None:
    """`only` runs these; progress counts up to the number collected."""
    tree = write(tmp_path / "tree", {"test_a.py": "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass\n"})
    seen: list[tuple[int, int]] = []
    run = await run_tests(
        discover(tree),
        tree=tree,
        only=["test_a.py::test_a", "test_a.py::test_c"],
        on_progress=lambda done, total, _: seen.append((done, total)),
    )
    assert outcomes(run) == {"test_a": "passed", "test_c": "passed"}
    assert seen[-1] == (2, 2)


async def test_the_users_options_do_not_stop_the_run_early(tmp_path: Path) -> None:
    """`-x`, `--lf` and the like in the project's configuration are its user's habits, not ours."""
    run = await check(
        tmp_path,
        {
            "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-x --lf -p no:randomly"\npythonpath = ["lib"]\n',
            "lib/core.py": CORE,
            "tests/test_a.py": "import core\ndef test_a(): assert 0\ndef test_b(): pass\n",
        },
    )
    assert outcomes(run) == {"test_a": "failed", "test_b": "passed"}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_time_is_up(tmp_path: Path) -> None:
    """The limit of the whole run keeps what has been found out by then (a busy machine gets longer for the first)."""
    tree = write(
        tmp_path / "tree",
        {"test_a.py": "import threading\ndef test_a(): pass\ndef test_b(): threading.Event().wait()\n"},
    )
    run = await run_tests(discover(tree), tree=tree, timeout=3, hang=170)
    for limit in (12, 48):
        if not run.tests:
            run = await run_tests(discover(tree), tree=tree, timeout=limit, hang=170)
    assert run.status == "timed out"
    assert outcomes(run) == {"test_a": "passed"}
    assert [f.rule for f in run.findings] == ["timeout"]


async def test_what_a_test_left_running_is_gone(tmp_path: Path) -> None:
    """A child in a session of its own does not outlive the run."""
    run = await check(
        tmp_path,
        {
            "test_a.py": (
                "import subprocess, sys\ndef test_a():\n"
                "    child = subprocess.Popen(\n"
                "        [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)'],\n"
                "        start_new_session=True, stdout=subprocess.PIPE)\n"
                "    child.stdout.readline()\n"
                "    open('pid', 'w').write(str(child.pid))\n"
            )
        },
    )
    assert outcomes(run) == {"test_a": "passed"}
    pid = int((tmp_path / "tree" / "pid").read_text())
    assert identify(pid) is None


async def test_a_cancelled_run_leaves_nothing_running(tmp_path: Path) -> None:
    """Cancelling ends the interpreter and its children."""
    tree = write(tmp_path / "tree", {"test_a.py": "import threading\ndef test_a(): threading.Event().wait()\n"})
    mark = {"PHASE_SUPERVISOR_TREE_TEST_OF_CHECKS": "1"}
    with anyio.CancelScope() as scope:
        await run_tests(
            discover(tree),
            tree=tree,
            environ={**os.environ, **mark},
            on_progress=lambda _done, _total, running: scope.cancel() if running.endswith("test_a") else None,
        )
    assert scope.cancelled_caught
    assert escapees(mark) == []


async def test_secrets_stay_here(tmp_path: Path) -> None:
    """The environment of a test holds no tokens and nothing of our queue's, but what is allowed by name."""
    tree = write(
        tmp_path / "tree",
        {
            "test_a.py": (
                "import os\ndef test_a():\n"
                "    assert not {'API_TOKEN', 'AUDIT_QUEUE_KEY'} & set(os.environ)\n"
                "    assert os.environ['DB'] == 'x'\n"
            )
        },
    )
    secret = {**os.environ, "API_TOKEN": "t", "AUDIT_QUEUE_KEY": "k", "DB": "x"}
    run = await run_tests(discover(tree), tree=tree, environ=secret, allow=["DB"])
    assert outcomes(run) == {"test_a": "passed"}
    assert environment({"Path": "p", "HOME": "h", "AWS_KEY": "s"}) == {"Path": "p", "HOME": "h"}


async def test_an_installed_copy_that_wins_is_said(tmp_path: Path) -> None:
    """A package that comes from elsewhere makes the results about something else; that is an error."""
    other = write(tmp_path / "other", {"app/__init__.py": ""})
    test = f"import sys\nsys.path.insert(0, {str(other)!r})\nimport app\ndef test_a(): pass\n"
    tree = write(tmp_path / "tree", {"app/__init__.py": "", "test_a.py": test})
    run = await run_tests(discover(tree), tree=tree)
    assert [(f.rule, f.symbol) for f in run.findings] == [("elsewhere", "app")]


async def test_ruff_findings_have_place_symbol_and_fix(tmp_path: Path) -> None:
    """Each names its rule, the function around it and the safe fix at hand; fingerprints outlive moved lines."""
    source = "import os\nimport sys\n\n\nclass A:\n    def f(self):\n        x = 1\n        return undefined\n"
    tree = write(tmp_path / "tree", {"a.py": source})
    run = await run_ruff(discover(tree), tree)
    found = {(f.rule, f.symbol, f.line, f.data["fix"]) for f in run.findings}
    assert found == {
        ("F401", "#os", 1, "safe"),
        ("F401", "#sys", 2, "safe"),
        ("F841", "A.f#x", 7, "unsafe"),
        ("F821", "A.f#undefined", 8, ""),
    }
    assert {f.rule for f in run.fixable} == {"F401"}
    write(tree, {"a.py": "\n\n" + source})
    moved = await run_ruff(discover(tree), tree)
    assert {f.fingerprint for f in moved.findings} == {f.fingerprint for f in run.findings}
    assert sorted(p.name for p in tree.iterdir()) == ["a.py"]


async def test_ruff_obeys_the_projects_configuration_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Rules come from the project; a broken configuration is a finding with ruff's own words."""
    tree = write(tmp_path / "tree", {"a.py": "import os\nx = 'a'\n", "ruff.toml": "[lint]\nselect = ['Q']\n"})
    assert {f.rule for f in (await run_ruff(discover(tree), tree)).findings} == {"Q000"}
    write(tree, {"ruff.toml": "[lint\n"})
    run = await run_ruff(discover(tree), tree)
    assert [f.rule for f in run.findings] == ["not-started"]
    assert "ruff.toml" in run.trouble


async def test_ruff_on_broken_and_undecodable_files(tmp_path: Path) -> None:
    """Syntax errors and wrong encodings are errors, each in its file; a tree below an ignored folder is still read."""
    write(tmp_path, {".gitignore": "*\n"})
    tree = write(tmp_path / "tree", {"a.py": "def f(:\n", "b.py": b"x = '\xff'\n"})
    run = await run_ruff(discover(tree), tree)
    assert {(f.file, f.severity) for f in run.findings} == {("a.py", "error"), ("b.py", "error")}


def test_exit_codes_have_words() -> None:
    """A signal, a Windows status and a number."""
    assert exit_words(-15) == "killed by SIGTERM"
    assert exit_words(0xC0000005) == "access violation"
    assert exit_words(3).startswith("exit code 3")


def test_the_reporter_runs_on_python_38() -> None:
    """The plugin is parsed by the oldest grammar that projects use, and imports nothing of ours."""
    source = Path(sys.modules[run_tests.__module__].__file__ or "").with_name("reporter.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {*sys.stdlib_module_names, "pytest", "collections.abc"}
