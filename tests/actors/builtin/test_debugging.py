"""What the built-in Debugging makes of crossing letters and of test runs that show nothing."""

from __future__ import annotations

from typing import Any

import pytest

from actors.drivers.builtin.checks import TestRun
from actors.drivers.builtin.debugging import crossed
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.inspection import as_it_is
from docs_store.messages import Kind, Message


def message(kind: Kind, *, by: str, n: int, to: str = "debugging", **more: Any) -> Message:
    return Message(id=f"{kind}.{n}", to=to, by=by, kind=kind, text="it", thread="t", n=n, at="", **more)


def test_a_request_that_crossed_the_report_is_answered_already() -> None:
    """Planning's Fix for what Debugging has reported since needs no second round."""
    fix = message("Fix", by="planning", n=5)
    assert crossed([fix], [fix, message("Verify", by="debugging", n=7, to="qa")])
    assert not crossed([fix], [fix])
    assert not crossed([message("Fix", by="planning", n=9)], [message("Verify", by="debugging", n=7, to="qa")])


@pytest.mark.parametrize(
    "new", [message("Issue", by="qa", n=6), message("Fix", by="planning", n=6, data={"answer": "do it"})]
)
def test_a_refusal_and_an_answer_are_always_work(new: Message) -> None:
    """What QA refused, or the user answered, is looked at whatever was reported before."""
    fix = message("Fix", by="planning", n=5)
    assert not crossed([fix, new], [fix, new, message("Verify", by="debugging", n=7, to="qa")])


def test_a_run_that_never_started_shows_nothing_gone() -> None:
    """A finding is gone only where the tests ran without it; where they did not start it stands as it was."""
    finding = Finding(tool="pytest", rule="failure", file="test_a.py", symbol="test_a", message="it fails")
    trouble = Finding(tool="pytest", rule="not-started", message="no")
    assert as_it_is(finding, TestRun(status="not started", findings=(trouble,))) is finding
    assert as_it_is(finding, TestRun(status="timed out")) is finding
    assert as_it_is(finding, TestRun(status="ran")) is None
    newer = Finding(tool="pytest", rule="failure", file="test_a.py", symbol="test_a", line=7, message="still")
    assert as_it_is(finding, TestRun(status="ran", findings=(newer,))) is newer
