from alerts.config import load
from alerts.handlers import EmailHandler, WebhookHandler
from alerts.monitors import CpuMonitor
from alerts.service import Service, handlers_for

MAIL = '[email]\nhost = "h"\nsender = "s"\nrecipients = ["r"]\n'
HOOK = '[webhook]\nurl = "https://hook.test"\n'


def test_a_round_reads_sends_and_remembers(toml, recorder, noon):
    service = Service(load(toml()), monitors=[CpuMonitor(lambda: 99.0)], handlers=[recorder])
    sent = service.round(noon)
    assert [alert.rule for alert in recorder.alerts] == ["cpu-busy"]
    assert list(service.history) == sent.delivered


def test_a_quiet_round_writes_nothing(toml, recorder, noon):
    service = Service(load(toml()), monitors=[CpuMonitor(lambda: 1.0)], handlers=[recorder])
    service.round(noon)
    assert not service.history.path.exists()


def test_handlers_follow_the_settings(toml):
    kinds = [type(handler) for handler in handlers_for(load(toml(MAIL + HOOK)))]
    assert kinds == [EmailHandler, WebhookHandler]
