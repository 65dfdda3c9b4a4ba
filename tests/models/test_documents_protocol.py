"""The document protocol's model: what has to hold does, and each rule left out is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    """The model, which is a script of its own."""
    path = Path(__file__).with_name("documents_protocol.py")
    spec = importlib.util.spec_from_file_location("documents_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL = load()
QUICK = ("crew: a save and a kill", "order: reports, joins and edits by hand", "design: a late report is dropped")


def verdict(case: Any) -> str:
    """What is surprising about a case; nothing if it comes out as it should."""
    result = MODEL.check(case.model)
    expected = result.problem.startswith(case.breaks) if case.breaks else not result.problem
    return "" if expected else f"{result.problem or f'holds, but {case.breaks} should break'}: {result.trace}"


def cases() -> list[Any]:
    every = (*MODEL.HOLD, *MODEL.DESIGN, *MODEL.MUTANTS)
    slow = (pytest.mark.slow, pytest.mark.timeout(240))
    return [pytest.param(case, id=case.name, marks=() if case.name in QUICK else slow) for case in every]


@pytest.mark.parametrize("case", cases())
def test_case(case: Any) -> None:
    """The protocol holds within its bounds, and bent in one rule it does not."""
    assert verdict(case) == ""
