import sys
from pathlib import Path

import pytest

from actors.drivers.builtin.project import discover


def write(folder: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_flat_project(tmp_path: Path) -> None:
    """Packages and modules at the top, without tests, docs, set-up scripts and what is ignored."""
    found = discover(
        write(
            tmp_path,
            {
                "app/__init__.py": "",
                "app/core.py": "",
                "tool.py": "",
                "setup.py": "",
                "conftest.py": "",
                "docs/conf.py": "",
                "tests/__init__.py": "",
                "tests/test_core.py": "",
                "tests/helpers.py": "",
                "build/lib/app/__init__.py": "",
                ".gitignore": "build/\n",
                ".venv/lib/x.py": "",
            },
        )
    )
    assert [(p.name, p.path) for p in found.packages] == [("app", "app"), ("tool", "tool.py")]
    assert found.source_roots == (".",)
    assert found.tests == ("tests/test_core.py",)
    assert "tests/helpers.py" in found.modules
    assert "build/lib/app/__init__.py" not in found.modules
    assert found.path_entries(tmp_path) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("config", "root"),
    [
        ({}, "src"),
        ({"pyproject.toml": '[tool.setuptools.packages.find]\nwhere = ["lib"]\n'}, "lib"),
        ({"pyproject.toml": '[tool.setuptools]\npackage-dir = {"" = "lib"}\n'}, "lib"),
        ({"pytest.ini": "[pytest]\npythonpath = lib\n"}, "lib"),
        ({"setup.cfg": "[tool:pytest]\npythonpath = lib\n"}, "lib"),
        ({"pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["lib"]\n'}, "lib"),
    ],
)
def test_where_packages_begin(tmp_path: Path, config: dict[str, str], root: str) -> None:
    """The src layout is seen; another one is read from setuptools' or pytest's configuration."""
    found = discover(write(tmp_path, {f"{root}/app/__init__.py": "", **config}))
    assert found.source_roots == (root, ".")
    assert [(p.name, p.path) for p in found.packages] == [("app", f"{root}/app")]


def test_the_interpreter(tmp_path: Path) -> None:
    """Configured beats the project's own environment, which lies in the workspace, beats ours."""
    inside = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    tree, workspace = tmp_path / "tree", tmp_path / "work"
    write(tree, {"a.py": ""})
    assert discover(tree, workspace=workspace).python_from == "ours"
    write(workspace, {".venv/pyvenv.cfg": ""})
    broken = discover(tree, workspace=workspace)
    assert broken.python == sys.executable
    assert "passed over" in broken.notes[0]
    write(workspace, {"/".join((".venv", *inside)): ""})
    found = discover(tree, workspace=workspace)
    assert (found.python, found.python_from) == (
        str(workspace.joinpath(".venv", *inside)),
        "environment of the project",
    )
    named = discover(tree, workspace=workspace, python="envs/py")
    assert (named.python, named.python_from) == (str(workspace / "envs/py"), "configuration")
    assert discover(tree, python="python3.12").python == "python3.12"


def test_what_is_odd_is_noted(tmp_path: Path) -> None:
    """No Python, no tests, a broken pyproject: sentences for people, no errors."""
    assert "no Python file" in discover(tmp_path).notes[0]
    found = discover(write(tmp_path, {"a.py": "", "pyproject.toml": "[tool\n"}))
    assert "pyproject.toml cannot be read" in found.notes[0]
    assert "no test file" in found.notes[1]
    assert not discover(tmp_path / "missing").has_python


def test_test_files_are_what_the_configuration_says(tmp_path: Path) -> None:
    """`python_files` replaces pytest's own patterns."""
    write(tmp_path, {"check_a.py": "", "test_b.py": "", "pytest.ini": "[pytest]\npython_files = check_*.py\n"})
    assert discover(tmp_path).tests == ("check_a.py",)
