"""The goals that `make bench` judges by: the limit itself is reached, and what was not measured is not judged."""

from __future__ import annotations

import pytest

from benchmarks.goals import GOALS, Goal, judged


@pytest.mark.parametrize(("at_least", "reached"), [(True, (False, True, True)), (False, (True, True, False))])
def test_a_goal_is_a_limit_of_a_number_or_a_ratio(at_least: bool, reached: tuple[bool, ...]) -> None:  # noqa: FBT001 - a table
    """Below it, at it, above it."""
    goal = Goal("ours", 0.5, beside="theirs", at_least=at_least)
    values = [goal.value({"ours": ours, "theirs": 10.0}) for ours in (4.0, 5.0, 6.0)]
    assert values == [0.4, 0.5, 0.6]
    assert tuple(goal.is_reached(value) for value in values if value is not None) == reached


def test_what_is_missed_is_said_and_what_was_not_measured_is_not() -> None:
    """A peer that is not installed leaves its ratio out."""
    lines = [*judged({"restart.warm_p50_ms": 16.0, "idle.cpu_pct": 0.4, "events.per_s": 1.0})]
    assert [line.split()[0] for line in lines] == ["restart.warm_p50_ms", "idle.cpu_pct"]
    assert lines[0].endswith("≤ 15  missed")
    assert lines[1].endswith("≤ 0.5")


def test_every_goal_has_a_name_of_its_own() -> None:
    """No number is judged twice by the same measure."""
    assert len({goal.text for goal in GOALS}) == len(GOALS)
