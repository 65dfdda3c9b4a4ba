import pytest

from alerts.models import Alert, rank


def test_an_alert_survives_being_written_down(make_alert):
    alert = make_alert(severity="critical")
    assert Alert.from_dict(alert.as_dict()) == alert


def test_time_is_utc(make_alert):
    assert make_alert().time.isoformat() == "2026-01-05T12:00:00+00:00"


def test_severities_have_an_order():
    assert rank("info") < rank("warning") < rank("critical")


def test_an_unknown_severity_is_an_error():
    with pytest.raises(ValueError):
        rank("disaster")
