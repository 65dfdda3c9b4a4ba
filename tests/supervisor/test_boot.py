"""Whether the machine was started anew: told apart from a wall clock that is corrected, and in doubt it was."""

from __future__ import annotations

import sys

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.boot import CORRECTIONS, as_text, is_same_boot, this_boot

BOOT = "6c0d2f4e-51d1-4b0c-9d0c-2d2b6b6f6d10"
EDGE = 1_800_000_000.0  # a multiple of ten seconds, around which a clock wobbles
HOUR = 3600.0


def test_a_name_of_the_start_is_compared_as_it_is() -> None:
    """Linux has one; what one of the two does not have is another start."""
    assert is_same_boot(BOOT, BOOT)
    assert not is_same_boot(BOOT, BOOT.replace("6", "7"))
    assert not is_same_boot(BOOT, as_text(EDGE, HOUR))
    assert not is_same_boot(as_text(EDGE, HOUR), BOOT)


@pytest.mark.parametrize("recorded", ["180000000", "", "nan 5", "5 inf", "1 2 3"])
def test_what_nobody_here_writes_is_another_start(recorded: str) -> None:
    """The number of tens of seconds, which an earlier build wrote, too."""
    assert not is_same_boot(recorded, as_text(EDGE, HOUR))


@pytest.mark.parametrize("moved", [-CORRECTIONS, -0.2, 0.0, 0.1, 0.2, CORRECTIONS])
def test_a_corrected_clock_is_no_start(moved: float) -> None:
    """However the time of the start lies to the seconds' tens."""
    assert is_same_boot(as_text(EDGE - 0.1, HOUR), as_text(EDGE - 0.1 + moved, HOUR))
    assert is_same_boot(as_text(EDGE - 0.1, HOUR), as_text(EDGE - 0.1 + moved, 500 * HOUR))


def test_a_clock_that_was_set_is_not_told_from_a_start() -> None:
    """Beyond what corrections are, nobody can say."""
    assert not is_same_boot(as_text(EDGE, HOUR), as_text(EDGE + CORRECTIONS + 1, 2 * HOUR))
    assert not is_same_boot(as_text(EDGE, HOUR), as_text(EDGE - CORRECTIONS - 1, 2 * HOUR))


def test_who_is_up_for_less_was_started_anew() -> None:
    """Wherever the wall clock stands: one without a battery begins at the same time again."""
    assert not is_same_boot(as_text(EDGE, HOUR), as_text(EDGE, HOUR - 1))


@given(
    up=st.floats(0.0, 1e7),
    down=st.floats(1.0, 1e7),
    up_again=st.floats(0.0, 1e7),
    wrong=st.floats(-0.1, CORRECTIONS),
)
def test_no_start_is_overlooked(up: float, down: float, up_again: float, wrong: float) -> None:
    """However soon the machine went down and came up again, with a clock that is right, or was put forward."""
    again = as_text(EDGE + up + down + max(wrong, 0.0), up_again)
    assert not is_same_boot(as_text(EDGE, up), again)


@pytest.mark.parametrize("platform", [sys.platform, "elsewhere"])
def test_one_start_is_the_same_as_itself(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """As this machine tells it, twice."""
    psutil.boot_time()  # it looks at the system's name, too
    monkeypatch.setattr(sys, "platform", platform)
    assert is_same_boot(this_boot(), this_boot())
