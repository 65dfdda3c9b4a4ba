"""Lends a tree, for the time of a test run, the generated files that a project needs and its ignore rules keep out.

A version file that the build wrote, a compiled extension, a message catalogue: no snapshot holds them, and without
them the package cannot be imported. They are copies, taken back afterwards: no linter, commit or delivery meets them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .project import Project

MOST_BYTES = 64 * 1024 * 1024  # of one file; a bigger one is data, not code


def where_needed(project: Project) -> tuple[str, ...]:
    """The folders whose ignored files the tests may need: packages and source roots, but never the whole repository."""
    roots = [root for root in project.source_roots if root != "."]
    packages = [package.path for package in project.packages if not package.path.endswith(".py")]
    inside = tuple(f"{root}/" for root in roots)
    return (*roots, *(path for path in packages if not path.startswith(inside)))


def lend(tree: Path, workspace: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Copy these files of the workspace into the tree, where it has none; returns which were."""
    return tuple([file for file in files if _copy(workspace / file, tree / file)])


def take_back(tree: Path, files: Iterable[str]) -> None:
    """Remove what was lent."""
    for file in files:
        (tree / file).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> bool:
    if os.path.lexists(target) or not source.is_file() or source.stat().st_size > MOST_BYTES:
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    except OSError:
        # It vanished, or a file is in the way: the tests say what they miss.
        return False
    return True
