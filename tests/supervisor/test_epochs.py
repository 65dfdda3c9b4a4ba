"""Epoch numbers are given once."""

from __future__ import annotations

from pathlib import Path

from supervisor.epochs import BLOCK, EpochCounter


def test_a_number_is_given_once_across_restarts(tmp_path: Path) -> None:
    """However often a supervisor is started anew, no epoch comes twice and each is above the last."""
    given: list[int] = []
    for _ in range(3):
        counter = EpochCounter(tmp_path / "epochs")
        given += [counter.take() for _ in range(BLOCK + 5)]
    assert given == sorted(set(given))


def test_it_starts_above_what_others_know(tmp_path: Path) -> None:
    """A lost or damaged counter does not bring back an epoch that the journal or the history has seen."""
    (tmp_path / "epochs").write_text("not a number")
    assert EpochCounter(tmp_path / "epochs", above=41).take() == 42
