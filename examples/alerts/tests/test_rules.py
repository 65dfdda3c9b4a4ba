import pytest

from alerts.rules import Rule, evaluate

BUSY = Rule("cpu-busy", "cpu.load", "above", 80)
IDLE = Rule("cpu-idle", "cpu.load", "below", 5, severity="info")


@pytest.mark.parametrize(("value", "broken"), [(79.9, False), (80, False), (80.1, True)])
def test_above_means_strictly_above(make_reading, value, broken):
    assert BUSY.broken_by(make_reading(value)) is broken


@pytest.mark.parametrize(("value", "broken"), [(4.9, True), (5, False)])
def test_below_means_strictly_below(make_reading, value, broken):
    assert IDLE.broken_by(make_reading(value)) is broken


def test_a_rule_looks_at_its_own_metric_only(make_reading):
    assert not BUSY.broken_by(make_reading(100, metric="memory.used"))


def test_the_alert_says_what_was_measured(make_reading):
    alert = BUSY.check(make_reading(92.5))
    assert alert is not None
    assert alert.message == "cpu.load is 92.5, above 80"
    assert alert.severity == "warning"


def test_no_alert_when_all_is_well(make_reading):
    assert BUSY.check(make_reading(10)) is None


def test_evaluate_asks_every_rule_about_every_reading(make_reading):
    readings = [make_reading(90), make_reading(2)]
    assert [alert.rule for alert in evaluate([BUSY, IDLE], readings)] == ["cpu-busy", "cpu-idle"]
