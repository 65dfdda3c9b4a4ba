from alerts.config import load
from alerts.dispatcher import Dispatcher
from alerts.handlers import Handler, HandlerError
from alerts.models import Reading
from alerts.rules import evaluate
from alerts.throttle import Throttle


class Broken(Handler):
    def send(self, alert):
        raise HandlerError("the line is dead")


def test_an_alert_reaches_every_handler(recorder, make_alert, noon):
    other = type(recorder)()
    Dispatcher([recorder, other], Throttle(60)).dispatch([make_alert()], noon)
    assert len(recorder.alerts) == len(other.alerts) == 1


def test_the_same_alert_a_moment_later_is_throttled(recorder, make_alert, noon):
    dispatcher = Dispatcher([recorder], Throttle(60))
    dispatcher.dispatch([make_alert()], noon)
    sent = dispatcher.dispatch([make_alert()], noon + 1)
    assert len(sent.throttled) == 1
    assert len(recorder.alerts) == 1


def test_critical_alerts_are_never_throttled(recorder, toml, noon):
    settings = load(toml())
    dispatcher = Dispatcher([recorder], Throttle(settings.window))
    for seconds in (0, 1, 2):
        full = Reading("memory.used", 99.0, noon + seconds)
        dispatcher.dispatch(evaluate(settings.rules, [full]), noon + seconds)
    assert [alert.rule for alert in recorder.alerts] == ["memory-full"] * 3


def test_a_handler_is_asked_whether_it_wants_the_alert(recorder, make_alert, noon):
    recorder.least = "critical"
    Dispatcher([recorder], Throttle(0)).dispatch([make_alert()], noon)
    assert recorder.alerts == []


def test_a_broken_handler_does_not_stop_the_others(recorder, make_alert, noon):
    sent = Dispatcher([Broken(), recorder], Throttle(0)).dispatch([make_alert()], noon)
    assert len(recorder.alerts) == 1
    assert [error for _, error in sent.failed] == ["the line is dead"]
    assert len(sent.delivered) == 1


def test_an_alert_that_nobody_could_send_is_not_delivered(make_alert, noon):
    sent = Dispatcher([Broken()], Throttle(0)).dispatch([make_alert()], noon)
    assert sent.delivered == []
