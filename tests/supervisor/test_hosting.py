"""What the host of a Windows service decides, on every system: controls, recovery, what an end means."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from supervisor.exits import Exit
from supervisor.service.definition import START_WITHIN, STOP_WITHIN
from supervisor.service.hosting import (
    ACCEPTED,
    RUNS_AFTER,
    STALL,
    Course,
    Reported,
    after_refusal,
    ended,
    image_path,
    is_end,
    is_there,
    recovery,
)

LOG = PureWindowsPath(r"C:\shop\service.log")


def test_what_is_accepted_is_what_ends_it() -> None:
    """STOP, SHUTDOWN and PRESHUTDOWN by the numbers of winsvc.h, each of them heard; nothing else ends a crew."""
    assert ACCEPTED == 0x00000001 | 0x00000004 | 0x00000100
    assert [control for control in range(256) if is_end(control)] == [1, 5, 15]


@pytest.mark.parametrize("code", [Exit.INTERNAL, Exit.WORK_REMAINS, 0xC0000005])
def test_an_error_nobody_asked_for_is_one_to_recover_from(code: int) -> None:
    """The manager hears of it, and the event log says where to look."""
    end = ended(code, asked=False, log=LOG)
    assert end.is_error
    assert "is started again" in end.why
    assert str(LOG) in end.why


@pytest.mark.parametrize("code", [Exit.USAGE, Exit.WORKSPACE_BUSY, Exit.CONFIGURATION])
def test_what_a_person_must_put_right_is_no_error_to_the_manager(code: int) -> None:
    """It is not started again; the event log says so, with the reason's place."""
    end = ended(code, asked=False, log=LOG)
    assert not end.is_error
    assert "a person has to act first" in end.why


@pytest.mark.parametrize("code", [Exit.DONE, Exit.INTERRUPTED])
def test_an_end_in_order_is_silent(code: int) -> None:
    """Done, or ended on request: no error, nothing in the event log."""
    assert ended(code, asked=False, log=LOG) == ended(code, asked=True, log=LOG)
    assert not ended(code, asked=False, log=LOG).is_error
    assert ended(code, asked=False, log=LOG).why == ""


def test_an_end_that_was_asked_for_is_no_error_whatever_the_code() -> None:
    """Stopped with work left, or after it had to be ended: the manager wanted it gone."""
    assert not ended(Exit.WORK_REMAINS, asked=True, log=LOG).is_error
    gone = ended(None, asked=True, log=LOG)
    assert not gone.is_error
    assert "nothing is lost" in gone.why


def test_each_recovery_waits_longer() -> None:
    """Three restarts, 5, 10 and 20 s after the failure; the manager repeats the last."""
    assert recovery() == [5_000, 10_000, 20_000]


LOOK = 0.25  # seconds between two looks of the host's


def reports(seconds: float, *, answers_after: float = float("inf"), asked_after: float = float("inf")) -> list[Course]:
    """What a host tells its manager in that time, looking as often as it does."""
    course = Course.begun(0.0)
    told = [course]
    for look in range(1, int(seconds / LOOK) + 1):
        now = look * LOOK
        course = course.next(now, answers=now >= answers_after, asked=now >= asked_after)
        if course is not told[-1]:
            told.append(course)
    return told


@pytest.mark.parametrize(("answers", "asked"), [(20.0, 30.0), (40.0, 5.0), (1000.0, 1000.0), (1.0, 1000.0)])
def test_checkpoints_go_on_rising_while_something_is_under_way(answers: float, asked: float) -> None:
    """While it starts or stops, the manager never waits as long for a sign of life as would make it call us hung."""
    told = reports(90, answers_after=answers, asked_after=asked)
    ends = [*(course.at for course in told[1:]), 90.0]
    waits = [end - course.at for course, end in zip(told, ends, strict=True) if course.state is not Reported.RUNNING]
    assert max(waits) < STALL / 3
    assert [course.at for course in told] == sorted({course.at for course in told})


def test_a_crew_is_up_once_its_api_answers_or_it_has_lived_without_one() -> None:
    """A crew may do without a control API: it is not starting for ever, and `service start` does not give it up."""
    states = [course.state for course in reports(90, answers_after=3)]
    assert (states[0], states[-1], states.count(Reported.RUNNING)) == (Reported.START_PENDING, Reported.RUNNING, 1)
    first = next(course for course in reports(90) if course.state is Reported.RUNNING)
    assert first.at == RUNS_AFTER < START_WITHIN


def test_one_that_was_asked_to_end_is_ending_whatever_it_answers() -> None:
    """Also while it starts; it never runs again, and it has its time from then on."""
    told = reports(80, answers_after=4, asked_after=2)
    assert {course.state for course in told if course.at >= 2} == {Reported.STOP_PENDING}
    assert not told[-1].is_overdue(2 + STOP_WITHIN - 1)
    assert told[-1].is_overdue(2 + STOP_WITHIN)
    assert not Course.begun(0).is_overdue(1e9)


@pytest.mark.parametrize(
    ("error", "state", "then"),
    [
        (1061, "starting", "again"),
        (1061, "running", "again"),
        (1061, "stopping", "wait"),
        (1061, "stopped", "wait"),
        (1062, "stopped", "wait"),
        (5, "running", "fail"),
    ],
)
def test_a_refusal_to_stop_may_be_one_for_the_moment(error: int, state: str, then: str) -> None:
    """A service that is starting takes no controls yet and is asked again; one that stops already is waited for."""
    assert after_refusal(error, state) == then


def test_where_a_service_is_to_come_to() -> None:
    """One that failed has stopped, and has not come up; what is under way is waited for."""
    assert {state: is_there(state, "stopped") for state in ("stopped", "failed", "stopping", "running")} == {
        "stopped": True,
        "failed": True,
        "stopping": None,
        "running": None,
    }
    assert {state: is_there(state, "running") for state in ("running", "starting", "failed", "stopped")} == {
        "running": True,
        "starting": None,
        "failed": False,
        "stopped": False,
    }


@pytest.mark.parametrize("folder", [r"C:\100%", r"C:\%TEMP%\shop", r"C:\my 5% and 6%"])
def test_a_percent_sign_is_not_left_to_the_manager(folder: str) -> None:
    """It puts variables into the command line that it keeps, quoted or not: refused, and everything else kept whole."""
    words = [r"C:\Program Files\venv\python.exe", "-P", "-m", "supervisor.service.windows", "--name", "x"]
    with pytest.raises(ValueError, match="percent sign"):
        image_path([*words, folder])
    assert image_path([*words, r"C:\my shop"]).endswith('-P -m supervisor.service.windows --name x "C:\\my shop"')
