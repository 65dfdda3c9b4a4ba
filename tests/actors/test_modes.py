"""The mode of each cycle: drawn once, kept, and moved at once by a rollback."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from actors.modes import ModeGate
from ipc.control import Modes


def gate(modes: Modes | None, draws: list[float], mode: str = "queue") -> tuple[ModeGate, list[tuple[str, str]]]:
    switched: list[tuple[str, str]] = []
    numbers: Iterator[float] = iter(draws)
    return ModeGate(modes, mode, lambda *said: switched.append(said), lambda: next(numbers)), switched


def test_each_cycle_draws_anew_and_the_emitter_hears_of_changes_only() -> None:
    """Four cycles at a rate of a half: each has its own number, two of them change the mode."""
    made, switched = gate(Modes(rate=0.5, source="stage 3"), [0.2, 0.5, 0.9, 0.4])
    chosen = [made.choose() for _ in range(4)]
    assert [(c.mode, c.drawn) for c in chosen] == [("queue", 0.2), ("stdout", 0.5), ("stdout", 0.9), ("queue", 0.4)]
    assert [mode for mode, _ in switched] == ["stdout", "queue"]
    assert chosen[0].reason == "drew 0.2000, below the rate 0.5 of stage 3"


def test_a_rollback_moves_the_cycle_in_hand_and_all_that_follow() -> None:
    """What was drawn before does not outlive it, and nothing is drawn any more."""
    made, switched = gate(Modes(rate=1.0), [0.0])
    assert made.choose().mode == "queue"
    made.hear(Modes(forced="stdout", reason="rolled back", at_once=True))
    assert switched == [("stdout", "rolled back")]
    later = made.choose()
    assert (later.mode, later.reason, later.drawn) == ("stdout", "rolled back", None)


def test_new_terms_wait_for_the_next_cycle() -> None:
    """A change of stage leaves the cycle in hand as it is."""
    made, switched = gate(Modes(rate=1.0), [0.0, 0.6])
    made.choose()
    made.hear(Modes(rate=0.5, source="stage 3"))
    assert switched == []
    assert made.choose().mode == "stdout"


def test_without_terms_the_assigned_mode_holds() -> None:
    """A supervisor that sends none gets what it assigned."""
    made, switched = gate(None, [], mode="stdout")
    assert made.choose().mode == "stdout"
    assert switched == []


@given(
    forced=st.sampled_from(["", "queue", "stdout"]),
    rate=st.floats(0, 1),
    drawn=st.floats(0, 1, exclude_max=True),
    mode=st.sampled_from(["queue", "stdout"]),
)
def test_the_emitter_is_always_in_the_chosen_mode(forced: str, rate: float, drawn: float, mode: str) -> None:
    """Whatever the terms and wherever it was, after a choice the emitter is where the choice says."""
    made, switched = gate(Modes(forced=forced, reason="r", rate=rate), [drawn], mode)
    chosen = made.choose()
    assert (switched[-1][0] if switched else mode) == chosen.mode
    assert chosen.mode == (forced or ("queue" if drawn < rate else "stdout"))
    assert (chosen.drawn is None) == bool(forced)
