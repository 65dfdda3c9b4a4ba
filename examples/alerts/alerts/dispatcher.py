"""Decides which alerts go out, and hands them to the handlers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from alerts.handlers.base import Handler, HandlerError
from alerts.models import Alert
from alerts.throttle import Throttle

log = logging.getLogger(__name__)


@dataclass
class Sent:
    """What became of the alerts of one round."""

    delivered: list[Alert] = field(default_factory=list)
    throttled: list[Alert] = field(default_factory=list)
    failed: list[tuple[Alert, str]] = field(default_factory=list)


class Dispatcher:
    def __init__(self, handlers: Sequence[Handler], throttle: Throttle) -> None:
        self._handlers = list(handlers)
        self._throttle = throttle

    def dispatch(self, alerts: Iterable[Alert], now: float) -> Sent:
        """Send what may be sent. A handler that fails does not keep the others from sending."""
        sent = Sent()
        for alert in alerts:
            if not self._may_go(alert, now):
                sent.throttled.append(alert)
                continue
            errors = self._hand_over(alert)
            for error in errors:
                log.error("%s", error)
                sent.failed.append((alert, error))
            if len(errors) < len(self._handlers) or not self._handlers:
                sent.delivered.append(alert)
        return sent

    def _may_go(self, alert: Alert, now: float) -> bool:
        if alert.severity is "critical":  # nobody wants to miss the second one either
            return True
        return self._throttle.allow(alert.rule, now)

    def _hand_over(self, alert: Alert) -> list[str]:
        errors: list[str] = []
        for handler in self._handlers:
            if not handler.wants(alert):
                continue
            try:
                handler.send(alert)
            except HandlerError as error:
                errors.append(str(error))
        return errors
