import pytest

from alerts.handlers import Handler
from alerts.models import Alert, Reading

NOON = 1_767_614_400.0  # 2026-01-05 12:00 UTC


class Recorder(Handler):
    """A handler that keeps what it is given."""

    name = "recorder"

    def __init__(self, least="info"):
        super().__init__(least)
        self.alerts = []

    def send(self, alert):
        self.alerts.append(alert)


@pytest.fixture
def noon():
    return NOON


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def make_alert():
    def make(rule="cpu-busy", severity="warning", at=NOON, value=91.0):
        return Alert(rule, severity, "cpu.load", value, f"cpu.load is {value:g}, above 80", at)

    return make


@pytest.fixture
def make_reading():
    def make(value, metric="cpu.load", at=NOON):
        return Reading(metric, value, at)

    return make


@pytest.fixture
def toml(tmp_path):
    """A configuration file that is fine, with a place for more."""

    def write(more=""):
        path = tmp_path / "alerts.toml"
        path.write_text(
            f'history = "{(tmp_path / "sent.jsonl").as_posix()}"\n'
            + more
            + "\n[throttle]\nwindow = 600\n"
            + '[[rules]]\nname = "cpu-busy"\nmetric = "cpu.load"\nabove = 80\n'
            + '[[rules]]\nname = "memory-full"\nmetric = "memory.used"\nabove = 95\nseverity = "Critical"\n'
        )
        return path

    return write
