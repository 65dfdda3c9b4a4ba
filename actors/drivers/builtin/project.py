"""What kind of Python project lies in a folder: packages, tests, configuration, and the interpreter to run it with.

Looks, never runs the project's code (`probe` starts its interpreter, and imports nothing of the project). What follows
from it, and what is worth a message to anybody, is decided by those who ask.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.ignore import walk
from ipc.process import SpawnError

from ...environment import environment
from .commands import run

_NO_PACKAGES = frozenset(
    {
        "tests",
        "test",
        "testing",
        "docs",
        "doc",
        "examples",
        "example",
        "scripts",
        "tools",
        "benchmarks",
        "build",
        "dist",
        "crew",
    }
)
_NO_MODULES = frozenset({"setup", "conftest", "noxfile", "tasks", "fabfile", "versioneer"})
_TEST_FILE = re.compile(r"test_.*\.py|.*_test\.py|tests\.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An importable top-level name and where it lies, relative to the project (`src/app`, `app.py`)."""

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A Python project as its files show it. Paths are relative to `root`, with `/`."""

    root: Path
    packages: tuple[Package, ...]
    source_roots: tuple[str, ...]  # what belongs on the path, best first: "src", "."
    modules: tuple[str, ...]  # every Python file that is no test
    tests: tuple[str, ...]  # every file that pytest would look into
    python: str  # the interpreter
    python_from: str  # "configuration", "environment of the project", "ours"
    pytest_config: str | None
    notes: tuple[str, ...] = ()  # what a person should know, in whole sentences

    @property
    def has_python(self) -> bool:
        return bool(self.modules or self.tests)

    def path_entries(self, tree: Path) -> list[str]:
        """What goes first on PYTHONPATH so that a tree's code is what runs."""
        return [str(tree if entry == "." else tree / entry) for entry in self.source_roots]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What the project's interpreter answered. `elsewhere` are packages that it would not take from the tree.

    `trouble` is set where it could not be asked at all; then nothing else means anything.
    """

    version: str = ""
    pytest: str = ""  # "" where it cannot be imported
    has_xdist: bool = False
    has_cov: bool = False
    elsewhere: Mapping[str, str] | None = None
    trouble: str = ""


def discover(
    root: Path, *, workspace: Path | None = None, python: str | None = None, platform: str = sys.platform
) -> Project:
    """Look at the files of `root`. `workspace` is where a virtual environment may lie, if that is another folder.

    `python` is a configured interpreter: a path (relative to the workspace) or a program's name.
    """
    home = workspace or root
    notes: list[str] = []
    config = _toml(root / "pyproject.toml", notes)
    found = sorted(
        os.fsdecode(one.path)
        for one in walk(os.fsencode(root), skip=frozenset({b"crew", b".supervisor"}), problem=lambda _p, _w: None)
        if one.path.endswith(b".py")
    )
    pytest_config, options = _pytest_options(root, config)
    tests = tuple(path for path in found if _is_test(path, options))
    modules = tuple(path for path in found if path not in set(tests) and path.rpartition("/")[2] != "conftest.py")
    sources = _source_roots(root, config, options)
    packages = _packages(found, sources)
    interpreter, whence = _interpreter(home, python, platform, notes)
    if not found:
        notes.append(f"There is no Python file in {root.name}.")
    elif not tests:
        notes.append("There is no test file that pytest would find (test_*.py, *_test.py).")
    return Project(
        root=root,
        packages=packages,
        source_roots=sources,
        modules=modules,
        tests=tests,
        python=interpreter,
        python_from=whence,
        pytest_config=pytest_config,
        notes=tuple(notes),
    )


_ASK = """
import importlib.util, json, sys
def find(name):
    try:
        return importlib.util.find_spec(name)
    except Exception:
        return None
out = {"version": sys.version.split()[0], "pytest": "", "xdist": bool(find("xdist")), "cov": bool(find("pytest_cov"))}
out["origins"] = {}
for name in sys.argv[1:]:
    spec = find(name)
    if spec is not None:
        out["origins"][name] = spec.origin or next(iter(spec.submodule_search_locations or []), "")
try:
    import pytest
    out["pytest"] = pytest.__version__
except Exception:
    pass
print("\\n" + json.dumps(out))
"""


async def probe(project: Project, tree: Path, *, environ: Mapping[str, str], timeout: float = 30.0) -> Probe:  # noqa: ASYNC109 - see commands
    """Ask the project's interpreter what it is and where it would take the packages from."""
    names = [package.name for package in project.packages]
    extra = {
        "PYTHONPATH": python_path(project, tree, environ),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    try:
        ran = await run(
            [project.python, "-c", _ASK, *names], cwd=tree, env=environment(environ, extra), timeout=timeout
        )
    except SpawnError as error:
        return Probe(trouble=str(error))
    try:
        said = json.loads(ran.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = (ran.why or ran.stderr.strip().rpartition("\n")[2] or f"exit code {ran.code}")[:500]
        return Probe(trouble=f"{project.python} does not work: {last}")
    elsewhere = {name: origin for name, origin in said["origins"].items() if origin and not _within(origin, tree)}
    return Probe(
        version=said["version"],
        pytest=said["pytest"],
        has_xdist=said["xdist"],
        has_cov=said["cov"],
        elsewhere=elsewhere,
    )


def _within(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def python_path(project: Project, tree: Path, environ: Mapping[str, str], *more: str) -> str:
    """PYTHONPATH with the tree first, then the user's own entries, then `more`."""
    users = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([*project.path_entries(tree), *users, *more])


def _toml(path: Path, notes: list[str]) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # TOML and UTF-8 errors are ValueErrors
        notes.append(f"{path.name} cannot be read: {error}")
        return {}


def _table(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        config = config.get(name, {})
        if not isinstance(config, Mapping):
            return {}
    return config


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [v for v in value if isinstance(v, str)] if isinstance(value, Sequence) else []


def _pytest_options(root: Path, config: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """The file that pytest would be configured by, in its own order of preference, and the options there."""
    for name in ("pytest.toml", ".pytest.toml"):
        if (root / name).is_file():
            return name, _table(_toml(root / name, []), "pytest")
    for name in ("pytest.ini", ".pytest.ini"):
        if (root / name).is_file():
            return name, _ini(root / name, "pytest")
    for table in (_table(config, "tool", "pytest", "ini_options"), _table(config, "tool", "pytest")):
        if table:
            return "pyproject.toml", table
    for name, section in (("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        options = _ini(root / name, section)
        if options:
            return name, options
    return None, {}


def _ini(path: Path, section: str) -> Mapping[str, Any]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return {}  # pytest itself will say what is wrong with it
    return dict(parser[section]) if parser.has_section(section) else {}


def _is_test(path: str, options: Mapping[str, Any]) -> bool:
    name = path.rpartition("/")[2]
    patterns = _words(options.get("python_files"))
    if patterns:
        import fnmatch

        return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(path, p) for p in patterns)
    return _TEST_FILE.fullmatch(name) is not None and name != "tests.py"


def _source_roots(root: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    roots: list[str] = []
    find = _table(config, "tool", "setuptools", "packages", "find")
    named = [*_words(find.get("where")), *_words(options.get("pythonpath"))]
    layout = _table(config, "tool", "setuptools", "package-dir").get("")
    if isinstance(layout, str):
        named.append(layout)
    for entry in [*named, "src"]:
        plain = Path(entry).as_posix().strip("/") or "."
        if plain not in roots and ".." not in plain.split("/") and (root / plain).is_dir():
            if plain == "src" and entry not in named and (root / "src" / "__init__.py").exists():
                continue  # a package that is called src
            roots.append(plain)
    if "." not in roots:
        roots.append(".")
    return tuple(roots)


def _packages(found: Sequence[str], roots: Sequence[str]) -> tuple[Package, ...]:
    packages: dict[str, Package] = {}
    for root in roots:
        prefix = "" if root == "." else f"{root}/"
        for path in found:
            if not path.startswith(prefix):
                continue
            first, _, rest = path[len(prefix) :].partition("/")
            if rest == "__init__.py" and first.isidentifier() and first not in _NO_PACKAGES:
                packages.setdefault(first, Package(name=first, path=prefix + first))
            stem = first.removesuffix(".py")
            if not rest and stem.isidentifier() and stem not in _NO_MODULES and not _TEST_FILE.fullmatch(first):
                packages.setdefault(stem, Package(name=stem, path=prefix + first))
    return tuple(sorted(packages.values(), key=lambda p: p.name))


def _interpreter(home: Path, python: str | None, platform: str, notes: list[str]) -> tuple[str, str]:
    if python:
        path = Path(python).expanduser()
        if path.is_absolute() or len(path.parts) > 1:
            return str(path if path.is_absolute() else home / path), "configuration"
        return python, "configuration"
    inside = ("Scripts", "python.exe") if platform == "win32" else ("bin", "python")
    for name in (".venv", "venv", "env", ".env"):
        folder = home / name
        if (folder / "pyvenv.cfg").is_file():
            if folder.joinpath(*inside).exists():
                return str(folder.joinpath(*inside)), "environment of the project"
            notes.append(f"{name}/ is a virtual environment without {'/'.join(inside)}; it is passed over.")
    return sys.executable, "ours"
