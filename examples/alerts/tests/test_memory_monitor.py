import pytest

from alerts.monitors import MemoryMonitor
from alerts.monitors.memory import used_per_cent

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    4000000 kB
"""


def monitor_of(*values):
    return MemoryMonitor(iter(values).__next__)


def test_available_memory_counts_as_free(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    assert used_per_cent(path) == pytest.approx(75)


def test_the_first_round_has_no_growth(noon):
    readings = monitor_of(40.0).read(noon)
    assert [reading.metric for reading in readings] == ["memory.used"]


def test_growth_is_per_minute(noon):
    monitor = monitor_of(40.0, 41.0)
    monitor.read(noon)
    growth = monitor.read(noon + 30)[1]
    assert (growth.metric, growth.value) == ("memory.growth", 2.0)


def test_growth_is_taken_over_all_rounds_kept(noon):
    monitor = monitor_of(40.0, 90.0, 42.0)
    for number in range(3):
        readings = monitor.read(noon + 60 * number)
    assert readings[1].value == 1.0


def test_a_shrinking_process_grows_below_zero(noon):
    monitor = monitor_of(50.0, 48.0)
    monitor.read(noon)
    assert monitor.read(noon + 60)[1].value == -2.0


def test_two_rounds_within_one_clock_tick_do_not_stop_the_service(noon):
    # time.time() moves in steps of 16 ms on some systems; seen in production after a manual `check`
    monitor = monitor_of(40.0, 41.0)
    monitor.read(noon)
    assert [reading.metric for reading in monitor.read(noon)] == ["memory.used"]
