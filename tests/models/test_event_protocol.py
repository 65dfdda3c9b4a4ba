"""The event protocol's model: what has to hold does, each rule bent is noticed, and the real judge agrees with it."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ipc.frames import Meta
from ipc.sequence import Marks, judge, judge_frame


def load() -> ModuleType:
    """The model, which is a script of its own."""
    path = Path(__file__).with_name("event_protocol.py")
    spec = importlib.util.spec_from_file_location("event_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODEL = load()
QUICK = ("prev_check off", "cut_overlap off", "salvage off", "finish_after_salvage off")


def cases() -> list[Any]:
    slow = (pytest.mark.slow, pytest.mark.timeout(240))
    every = (*MODEL.HOLDS, *MODEL.CAUGHT, *MODEL.SPARED)
    return [
        pytest.param(case, id=f"{n}-{case.name}", marks=() if case.name in QUICK else slow)
        for n, case in enumerate(every)
    ]


@pytest.mark.parametrize("case", cases())
def test_it_comes_out_as_it_should(case: Any) -> None:
    """With all rules kept every state is right; with one bent, a property breaks, or it was a matter of speed."""
    result = MODEL.Search(MODEL.Model(case)).run()
    assert MODEL.as_expected(result, case), "\n".join((str(result.broken), *result.trace))


@pytest.mark.parametrize("program", ["".join(p) for n in range(1, 6) for p in itertools.product("CP", repeat=n)])
def test_the_judge_is_the_models(program: str) -> None:
    """For every event after every pair of marks, `ipc.sequence` says what the model says, and moves the marks alike."""
    model = MODEL.Model(MODEL.Config(name="conformance", programs=(program,)))
    criticals = model.criticals[0]
    for critical in (0, *criticals):
        for last in range(critical, len(program) + 1):
            for seq in range(1, len(program) + 1):
                meta = Meta(seq, model.prev[0][seq], seq in criticals)
                verdict, (after_critical, after_last) = model._admit((critical, last), 0, seq)
                assert judge(Marks(critical, last), meta).value == verdict
                judged = judge_frame(Marks(critical, last), [meta])
                assert (judged.marks.critical, judged.marks.seq) == (after_critical, after_last)
