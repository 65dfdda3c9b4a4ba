import pytest

from alerts.monitors import CpuMonitor


def test_one_busy_second_is_smoothed(noon):
    values = iter([10.0, 100.0, 10.0])
    monitor = CpuMonitor(lambda: next(values))
    assert monitor.read(noon)[0].value == 10
    assert monitor.read(noon + 30)[0].value == 55
    assert monitor.read(noon + 60)[0].value == 40


def test_old_rounds_are_forgotten(noon):
    values = iter([100.0, 0.0, 0.0])
    monitor = CpuMonitor(lambda: next(values), rounds=2)
    for number in range(3):
        readings = monitor.read(noon + number)
    assert readings[0].value == 0


def test_the_reading_names_metric_and_time(noon):
    (reading,) = CpuMonitor(lambda: 1.0).read(noon)
    assert (reading.metric, reading.at) == ("cpu.load", noon)


def test_zero_rounds_make_no_sense():
    with pytest.raises(ValueError, match="at least 1"):
        CpuMonitor(lambda: 1.0, rounds=0)
