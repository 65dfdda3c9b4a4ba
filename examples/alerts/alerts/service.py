"""Puts monitors, rules, dispatcher and history together."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.config import Settings
from alerts.dispatcher import Dispatcher, Sent
from alerts.handlers import EmailHandler, Handler, WebhookHandler
from alerts.history import History
from alerts.models import Alert
from alerts.monitors import CpuMonitor, MemoryMonitor, Monitor
from alerts.rules import evaluate
from alerts.throttle import Throttle


def handlers_for(settings: Settings) -> list[Handler]:
    handlers: list[Handler] = []
    if settings.email is not None:
        handlers.append(
            EmailHandler(
                settings.email.host,
                settings.email.sender,
                settings.email.recipients,
                port=settings.email.port,
                least=settings.email.least,
            )
        )
    if settings.webhook is not None:
        handlers.append(
            WebhookHandler(
                settings.webhook.url,
                timeout=settings.webhook.timeout,
                least=settings.webhook.least,
            )
        )
    return handlers


class Service:
    """One round: read, evaluate, dispatch, remember."""

    def __init__(
        self,
        settings: Settings,
        monitors: Sequence[Monitor] | None = None,
        handlers: Sequence[Handler] | None = None,
    ) -> None:
        self.settings = settings
        self.monitors = list(monitors) if monitors is not None else [CpuMonitor(), MemoryMonitor()]
        chosen = handlers if handlers is not None else handlers_for(settings)
        self.dispatcher = Dispatcher(chosen, Throttle(settings.window))
        self.history = History(settings.history)

    def check(self, now: float) -> list[Alert]:
        """What would be sent now, throttling aside."""
        readings = [reading for monitor in self.monitors for reading in monitor.read(now)]
        return evaluate(self.settings.rules, readings)

    def round(self, now: float) -> Sent:
        sent = self.dispatcher.dispatch(self.check(now), now)
        self.history.append(sent.delivered)
        return sent
