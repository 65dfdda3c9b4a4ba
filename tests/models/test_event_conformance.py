"""The product goes the way of each counterexample of the event protocol's model, and does not fall."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """A module beside this one: tests are no package."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL = load("event_protocol")
CONFORMANCE = load("conformance")
QUICK = ("prev_check", "cut_overlap", "hold_successor", "reset_on_failed_commit", "trim_on_durable", "salvage")


def counterexample(config: Any) -> tuple[Any, list[tuple[str, Any, Any]]]:
    """The model with its rule bent, and the shortest way to where it breaks: steps with the states around them."""
    model = MODEL.Model(config)
    search = MODEL.Search(model)
    broken, at = search._forward()
    if broken is None:
        broken, at = search._backward()
    assert broken is not None
    way = []
    while at:
        before, says = search.came[at]
        way.append((says, search.states[before], search.states[at]))
        at = before
    return model, way[::-1]


def cases() -> list[Any]:
    return [
        pytest.param(
            case, id=f"{n}-{case.name}", marks=() if case.name.removesuffix(" off") in QUICK else pytest.mark.slow
        )
        for n, case in enumerate(MODEL.CAUGHT)
    ]


async def drive(model: Any, way: list[tuple[str, Any, Any]], path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong with the real journal after these steps, and an end without further faults."""
    rig = CONFORMANCE.Rig(model, path, monkeypatch)
    await rig.start()
    try:
        if not model.config.slow_start:
            await rig._open(0)
        for says, before, after in way:
            await rig.take(says, before, after)
        if way[-1][2].left.supervisor_kills and rig.up:
            await rig.kill_supervisor()  # the way ends where this would cost something
        await rig.finish()
        return list(rig.problems())
    finally:
        await rig.aclose()


@pytest.mark.only_on("posix", reason="files that are open are removed under way")
@pytest.mark.parametrize("config", cases())
def test_the_product_survives_what_breaks_the_bent_model(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along the way that loses, doubles or strands events where a rule is bent, nothing of that happens here."""
    model, way = counterexample(config)
    problems = asyncio.run(drive(model, way, tmp_path, monkeypatch))
    assert problems == [], "\n".join(says for says, _, _ in way)
