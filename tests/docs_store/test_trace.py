"""A thread's story: complete, in order, and harmless in a diagram."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs_store import DEFAULT, Draft, Outcome, Store, trace
from docs_store.messages import State


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A finding that QA reports to two phases, debugging fixes and QA approves."""
    store = Store.open(tmp_path)
    for phase in ("qa", "debugging"):
        store.start_epoch(phase, 1, died=False)
    store.post("qa", Draft(to="debugging", kind="Issue", text="division by zero\nin rates.py", thread="f1"), id="a")
    store.post("planning", Draft(to="debugging", kind="Fix", text="first of all", thread="f1", priority="HIGH"), id="b")
    store.post("user", Draft(to="qa", kind="Assess", text="something else"))
    task = store.claim("debugging", 1)
    assert task is not None
    verify = Draft(to="qa", kind="Verify", text="guarded")
    store.finish("debugging", 1, task, Outcome(result="done", detail="guarded the divisor", posts=(verify,)))
    return store.state


def test_the_story_is_told_in_order(state: State) -> None:
    """Messages and reports of the thread, and nothing of another; a report comes before what it posted."""
    told = [(one.what, one.by, one.head) for one in trace.story(state, "f1")]
    assert told == [
        ("message", "qa", "Issue"),
        ("message", "planning", "Fix"),
        ("report", "debugging", "done"),
        ("message", "debugging", "Verify"),
    ]
    assert trace.story(state, "nothing") == ()


def test_as_text(state: State) -> None:
    """People read who told whom what, with titles, states and every line of the text."""
    text = trace.text(state, "f1", DEFAULT)
    assert re.search(r"QA → Debugging  Issue  \(a, done\)\n        division by zero\n        in rates.py", text)
    assert re.search(r"Planning → Debugging  Fix  \(b, joined, joined a\)", text)
    assert "Debugging reports done  (a)\n        guarded the divisor" in text


def test_as_json(state: State) -> None:
    """Machines get the same as JSON values."""
    again = json.loads(json.dumps(trace.as_json(state, "f1")))
    assert [one["head"] for one in again["story"]] == ["Issue", "Fix", "done", "Verify"]
    assert again["story"][1]["joined"] == "a"


def test_as_mermaid(state: State) -> None:
    """The diagram names its participants by title, and draws an arrow per message and a note per report."""
    assert trace.mermaid(state, "f1", DEFAULT).split("\n") == [
        "sequenceDiagram",
        "    participant p0 as Planning",
        "    participant p1 as QA",
        "    participant p2 as Debugging",
        "    p1->>p2: Issue: division by zero in rates.py",
        "    p0-)p2: Fix: first of all",
        "    Note over p2: done: guarded the divisor",
        "    p2->>p1: Verify: guarded",
    ]


@given(st.text(min_size=1))
def test_a_label_stays_on_its_line(words: str) -> None:
    """Whatever a message says, its label is one line without characters that mean something to Mermaid."""
    label = trace._label(words)
    assert len(label.splitlines()) == 1
    assert not re.search(r"[<>\"%{}\[\]()|`\\]|#(?!\d+;)|(?<!\d);", label)
