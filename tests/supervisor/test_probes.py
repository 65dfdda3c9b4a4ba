"""Probes: when a worker is asked, what counts, and what follows; without a process or a clock."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ProbeConfig
from supervisor.probes import LATE, Answer, Probes, judge, last_lines

CONFIG = ProbeConfig(command=("check", "it"), every=10.0, timeout=5.0, failures=3, start_grace=20.0)
READY = Probes().ready(100.0)


def no(number: int) -> Answer:
    return Answer(number=number, code=1, said="it is cold", seconds=0.2)


def yes(number: int) -> Answer:
    return Answer(number=number, seconds=0.2)


def asked(probes: Probes, *answers: bool, config: ProbeConfig = CONFIG) -> Probes:
    for healthy in answers:
        probes = probes.begun(200.0)
        probes = probes.heard(yes(probes.number) if healthy else no(probes.number), config)
    return probes


def test_it_is_asked_after_its_grace_and_then_regularly() -> None:
    """Never before it is ready, and never without a command."""
    assert not Probes().is_due(CONFIG, 1000.0)
    assert not READY.is_due(CONFIG, 119.9)
    assert READY.is_due(CONFIG, 120.0)
    assert not READY.is_due(ProbeConfig(), 1000.0)
    begun = READY.begun(121.0)
    assert not begun.is_due(CONFIG, 130.9)
    assert begun.is_due(CONFIG, 131.0)
    assert READY.is_due(replace(CONFIG, start_grace=0.0), 100.0)


def test_only_failures_in_a_row_count() -> None:
    """One answer that all is well begins the count anew."""
    assert asked(READY, False, False).failures == 2
    assert asked(READY, False, False, True).failures == 0
    assert asked(READY, False, True, False, False).failures == 2


def test_so_many_failures_in_a_row_are_a_verdict() -> None:
    """With the last answer in its reason; before that nothing is done."""
    two, three = asked(READY, False, False), asked(READY, False, False, False)
    verdict = judge(two, CONFIG, no(2))
    assert (verdict.state, verdict.action) == ("unhealthy", "none")
    verdict = judge(three, CONFIG, no(3))
    assert (verdict.state, verdict.action) == ("unhealthy", "restart")
    assert verdict.reason == (
        "its probe (check) has failed 3 times in a row, at 3 it counts; the last: it exited with code 1: it is cold"
    )
    assert (verdict.inputs["failures"], verdict.inputs["code"], verdict.inputs["said"]) == (3, 1, "it is cold")
    assert judge(three, replace(CONFIG, on_failure="warn"), no(3)).action == "warn"
    assert judge(READY, CONFIG, yes(1)).action == "none"


def test_an_answer_says_what_happened() -> None:
    """A code, a signal, or a limit."""
    assert no(1).text == "it exited with code 1: it is cold"
    assert Answer(number=1, code=-11).text == "it was ended by signal 11"
    assert Answer(number=1, code=-9, timed_out=True, seconds=5.01).text == "it had not ended after 5.0 s"
    assert last_lines("a\n\nb\n", "c\nd\n") == "b / c / d"
    assert len(last_lines("x" * 5000)) == 300


def test_what_cannot_be_held_against_the_worker_counts_for_nothing() -> None:
    """A command that could not be started; an answer to an earlier question; one that we slept through."""
    probes = asked(READY, False, False).begun(300.0)
    late = Answer(number=3, code=-9, timed_out=True, seconds=CONFIG.timeout + LATE + 0.1)
    for answer in (Answer(number=3, problem="there is no check"), no(2), late):
        assert not probes.counts(answer, CONFIG)
        assert probes.heard(answer, CONFIG) == probes
    in_time = replace(late, seconds=CONFIG.timeout + 0.1)
    assert probes.heard(in_time, CONFIG).failures == 3


def test_after_a_stall_of_our_own_the_clocks_start_again() -> None:
    """Grace and interval are longer by it, and what ran meanwhile counts for nothing; what was found before does."""
    stalled = READY.after_stall(50.0)
    assert not stalled.is_due(CONFIG, 169.9)
    assert stalled.is_due(CONFIG, 170.0)
    running = asked(READY, False, False).begun(200.0)
    stalled = running.after_stall(50.0)
    assert not stalled.is_due(CONFIG, 259.9)
    assert stalled.is_due(CONFIG, 260.0)
    assert not stalled.counts(no(running.number), CONFIG)
    assert stalled.failures == 2
    assert Probes().after_stall(9.0).ready_at is None


def test_anew_forgets_what_was_found() -> None:
    """A pause, or another command: earlier answers and the one under way say nothing any more."""
    probes = asked(READY, False, False).begun(200.0)
    anew = probes.anew()
    assert anew.failures == 0
    assert not anew.counts(no(probes.number), CONFIG)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5))
def test_the_verdict_is_the_length_of_the_last_row(answers: list[bool], failures: int) -> None:
    """Whatever came before it."""
    config = replace(CONFIG, failures=failures)
    row = 0
    for healthy in reversed(answers):
        if healthy:
            break
        row += 1
    probes = asked(READY, *answers, config=config)
    assert probes.failures == row
    assert (judge(probes, config, no(0)).action == "restart") is (row >= failures)
