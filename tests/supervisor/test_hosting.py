"""What the host of a Windows service decides, on every system: controls, recovery, what an end means."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from supervisor.exits import Exit
from supervisor.service.hosting import ACCEPTED, ended, is_end, recovery

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
