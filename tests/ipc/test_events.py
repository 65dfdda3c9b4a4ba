"""Which events must never be lost."""

from __future__ import annotations

import time

import pytest

from ipc.events import ENDING_STEPS, STARTING_STEPS, WELL_KNOWN_TYPES, ProgressEvent, is_critical


def test_an_event_has_its_defaults() -> None:
    """Only the type is needed; the timestamp is now, the summary one's own."""
    one, two = ProgressEvent("finding"), ProgressEvent("finding")
    assert (one.phase, one.step, one.pct, one.detail, one.summary, one.data) == ("", "", 0, "", {}, None)
    assert abs(one.timestamp - time.time()) < 60
    assert one.summary is not two.summary


@pytest.mark.parametrize("type_", [*WELL_KNOWN_TYPES, "anything"])
def test_every_type_but_progress_is_critical(type_: str) -> None:
    """Only plain progress may be lost."""
    assert is_critical(ProgressEvent(type_, step="reading"), None) is (type_ != "progress")


@pytest.mark.parametrize("step", sorted(ENDING_STEPS))
def test_an_end_is_critical(step: str) -> None:
    """Progress that ends a phase is critical each time."""
    assert is_critical(ProgressEvent("progress", step=step), step)


@pytest.mark.parametrize("step", sorted(STARTING_STEPS))
def test_a_start_is_critical_when_it_is_new(step: str) -> None:
    """A starting step is critical unless it is the last one of that phase again."""
    assert is_critical(ProgressEvent("progress", step=step), None)
    assert is_critical(ProgressEvent("progress", step=step), "another")
    assert not is_critical(ProgressEvent("progress", step=step), step)
