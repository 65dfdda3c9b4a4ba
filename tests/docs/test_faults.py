"""The table of faults: every test that it names is there, and every row names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "supervision.md"
TITLE = "## Faults and their tests\n"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    part = PAGE.read_text("utf-8").partition(TITLE)[2].partition("\n## ")[0]
    lines = [line for line in part.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def named_in(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_rows() -> None:
    """As many as the promises have, at least."""
    assert len(rows()) >= 17


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_each_fault_names_tests_that_exist(row: list[str]) -> None:
    """A fault without a test is a promise, not a fact."""
    fault, must_be_true, shown = row
    named = NAMED.findall(shown)
    assert fault
    assert must_be_true
    assert named
    assert NAMED.sub("", shown).strip() == "", "nothing but names"
    missing = [f"{path}::{name}" for path, name in named if name not in named_in(ROOT / path)]
    assert missing == []
