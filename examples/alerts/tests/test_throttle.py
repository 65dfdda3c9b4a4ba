import pytest

from alerts.throttle import Throttle


def test_the_second_one_within_the_window_is_kept_back():
    throttle = Throttle(60)
    assert throttle.allow("cpu", 0)
    assert not throttle.allow("cpu", 59.9)


def test_after_the_window_it_may_go_again():
    throttle = Throttle(60)
    throttle.allow("cpu", 0)
    assert throttle.allow("cpu", 60)


def test_what_was_kept_back_does_not_prolong_the_window():
    throttle = Throttle(60)
    throttle.allow("cpu", 0)
    throttle.allow("cpu", 50)
    assert throttle.allow("cpu", 61)


def test_keys_do_not_disturb_each_other():
    throttle = Throttle(60)
    assert throttle.allow("cpu", 0)
    assert throttle.allow("memory", 0)


def test_no_window_lets_everything_through():
    throttle = Throttle(0)
    assert throttle.allow("cpu", 5)
    assert throttle.allow("cpu", 5)


def test_a_negative_window_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Throttle(-1)


def test_old_keys_are_forgotten():
    throttle = Throttle(60)
    throttle.allow("cpu", 0)
    throttle.allow("memory", 50)
    assert throttle.forget(61) == 1
