"""The vocabulary: every status and event is in the table, and nothing in it leads nowhere."""

from __future__ import annotations

from docs_store.messages import KINDS, TRANSITIONS, UNFINISHED, Event, Status


def test_the_table_knows_every_status() -> None:
    """Each status has its row, so that a lookup never fails for a status."""
    assert set(TRANSITIONS) == set(Status)


def test_every_event_can_happen() -> None:
    """An event that no status accepts would be dead vocabulary."""
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


def test_a_person_can_always_close_what_is_unfinished() -> None:
    """A tick or a deletion is accepted wherever a message is not closed yet."""
    for status in UNFINISHED:
        assert TRANSITIONS[status][Event.TICK] is Status.DONE
        assert TRANSITIONS[status][Event.DELETE] is Status.WITHDRAWN


def test_what_waits_for_a_person_is_opened_by_an_answer_or_an_approval_only() -> None:
    """Blocked: the person's answer, or QA's approval of the same thread. Quarantined: the person alone."""
    by_hand = {Event.ANSWER, Event.TICK, Event.DELETE}
    assert set(TRANSITIONS[Status.BLOCKED]) == by_hand | {Event.APPROVE}
    assert set(TRANSITIONS[Status.QUARANTINED]) == by_hand


def test_kinds_are_single_opening_words() -> None:
    """A kind is shown as the opening word of its line: one capitalised word, each once."""
    assert len(set(KINDS)) == len(KINDS)
    assert all(kind.isalpha() and kind.istitle() for kind in KINDS)
