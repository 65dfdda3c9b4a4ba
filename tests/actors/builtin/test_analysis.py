from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from actors.drivers.builtin.analysis import analyse, analyse_sources, module_name


def test_modules_imports_and_what_is_outside() -> None:
    """Absolute, relative and from-imports resolve to modules of the project; the rest is named by its top."""
    found = analyse_sources(
        {
            "src/app/__init__.py": b'"""The app.\n\nMore."""\n',
            "src/app/core.py": b"import os.path\nfrom . import util\nfrom .sub.deep import x\nimport app.sub\n",
            "src/app/util.py": b"from app.sub import deep\n",
            "src/app/sub/__init__.py": b"",
            "src/app/sub/deep.py": (
                b"from ..util import y\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.core\n"
            ),
        },
        roots=("src", "."),
    )
    assert {m.name: m.imports for m in found.modules} == {
        "app": (),
        "app.core": ("app.sub", "app.sub.deep", "app.util"),
        "app.sub": (),
        "app.sub.deep": ("app.util",),
        "app.util": ("app.sub.deep",),
    }
    assert found.modules[0].doc == "The app."
    assert found.modules[1].outside == ("os",)
    assert found.cycles == (("app.sub.deep", "app.util", "app.sub.deep"),)
    assert [f.rule for f in found.findings] == ["import-cycle"]


def test_an_import_inside_a_function_makes_no_cycle() -> None:
    """What is imported later cannot hold up an import."""
    found = analyse_sources({"a.py": b"import b\n", "b.py": b"def f():\n    import a\n"})
    assert found.cycles == ()
    assert found.modules[1].imports == ("a",)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_every_cycle_is_one_and_every_knot_has_one(edges: list[tuple[int, int]]) -> None:
    """Each reported way follows imports and closes; no cycle is reported exactly where a topological order exists."""
    graph: dict[str, set[str]] = {f"m{n}": set() for n in range(7)}
    for a, b in edges:
        if a != b:
            graph[f"m{a}"].add(f"m{b}")
    sources = {f"{n}.py": "".join(f"import {t}\n" for t in sorted(ts)).encode() for n, ts in graph.items()}
    cycles = analyse_sources(sources).cycles
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert len(cycle) > 2
        assert all(b in graph[a] for a, b in pairwise(cycle))
    left = dict(graph)
    while free := [n for n, ts in left.items() if not ts & left.keys()]:
        for name in free:
            del left[name]
    assert bool(left) == bool(cycles)


def test_untested_modules_are_those_no_test_touches() -> None:
    """Imported, handed on by the package, or named by a test file: tested. Without code: of no interest."""
    found = analyse_sources(
        {
            "app/__init__.py": b"from .handed import f\n",
            "app/handed.py": b"def f(): pass\n",
            "app/used.py": b"def f(): pass\n",
            "app/named.py": b"def f(): pass\n",
            "app/short.py": b"def f(): pass\n",
            "app/long.py": b"def f():\n    pass\n",
            "app/constants.py": b"X = 1\n",
            "tests/test_it.py": b"import app\nimport app.used\n",
            "tests/test_named.py": b"",
        },
        tests=("tests/test_it.py", "tests/test_named.py"),
    )
    assert found.untested == ("app.long", "app.short")
    assert found.test_modules == ("tests.test_it", "tests.test_named")


def test_long_and_branching_functions_are_named() -> None:
    """By their qualified name with line, length and number of branches."""
    branches = "".join(f"        if n == {n} and n:\n            pass\n" for n in range(6))
    long = "def long():\n" + "    x = 1\n" * 61
    source = f"class A:\n    def f(self, n):\n{branches}\n{long}"
    found = analyse_sources({"a.py": source.encode()})
    assert [(c.name, c.line, c.complexity) for c in found.complex] == [("A.f", 2, 13), ("long", 16, 1)]
    assert found.complex[1].lines == 62


def test_comments_that_ask_for_something() -> None:
    """Words in comments count, in strings they do not."""
    source = b'x = "TODO: no"  # TODO(ann): write it\n# FIXME\n# todo later\n'
    found = analyse_sources({"a.py": source})
    assert [(t.line, t.word, t.text) for t in found.todos] == [
        (1, "TODO", "ann): write it"),
        (2, "FIXME", "(no words)"),
    ]


def test_broken_sources_are_findings_and_the_rest_is_analysed() -> None:
    """Syntax errors, wrong encodings, null bytes and absurd nesting each name file and line."""
    found = analyse_sources(
        {
            "ok.py": b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
            "syntax.py": b"x = 1\ndef f(:\n",
            "utf8.py": b"x = 1\ny = '\xff'\n",
            "null.py": b"x = 1\n\0",
            "deep.py": b"(" * 5000,
            "codec.py": b"# coding: no-such-thing\n",
        }
    )
    assert [m.name for m in found.modules] == ["ok"]
    assert {(b.file, b.rule) for b in found.broken} == {
        ("syntax.py", "syntax-error"),
        ("utf8.py", "undecodable"),
        ("null.py", "undecodable"),
        ("deep.py", "syntax-error"),
        ("codec.py", "undecodable"),
    }
    assert {b.file: b.line for b in found.broken if b.file in ("syntax.py", "utf8.py", "null.py")} == {
        "syntax.py": 2,
        "utf8.py": 2,
        "null.py": 2,
    }
    assert {f.severity for f in found.findings} == {"error"}


def test_a_folder_is_analysed_without_what_git_ignores(tmp_path: Path) -> None:
    """Ignored files are not read; progress ends at the total; nothing is imported."""
    for name, text in {
        "app.py": "raise SystemExit('imported')\n",
        "gen/x.py": "def f(:\n",
        ".gitignore": "gen/\n",
        "tests/test_app.py": "import app\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    seen: list[tuple[int, int]] = []
    found = analyse(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert [m.name for m in found.modules] == ["app"]
    assert found.broken == ()
    assert seen[-1] == (2, 2)


def test_an_empty_folder_is_no_trouble(tmp_path: Path) -> None:
    """Nothing there: nothing found."""
    assert analyse(tmp_path).modules == ()


def test_names_of_modules() -> None:
    """The innermost root counts, and a package is named by its folder."""
    assert module_name("src/a/b.py", ("src", ".")) == "a.b"
    assert module_name("a/__init__.py", (".",)) == "a"
    assert module_name("tests/test_x.py", ("src", ".")) == "tests.test_x"
