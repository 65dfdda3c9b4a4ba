"""A line at once, then one a minute."""

from __future__ import annotations

from ipc.seldom import Seldom, again


def test_the_first_is_told_at_once_the_rest_once_a_minute() -> None:
    """Each thing has its own line, and no occurrence is left out of the counts."""
    seldom = Seldom(60.0)
    assert seldom.happened("forged", "qa", now=1000.0) == 1
    assert [seldom.happened("forged", "qa", now=1000.0 + second) for second in range(60)] == [0] * 60
    assert seldom.happened("forged", "developer", now=1001.0) == 1
    assert seldom.happened("forged", "qa", now=1060.0) == 61
    assert seldom.happened("forged", "qa", now=1061.0) == 0
    assert seldom.happened("forged", "qa", now=9999.0) == 2


def test_the_count_is_said_where_it_is_more_than_one() -> None:
    """The end of a line."""
    assert again(1) == ""
    assert again(61) == " (61 times since the last such line)"
