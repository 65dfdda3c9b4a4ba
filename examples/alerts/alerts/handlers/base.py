"""What a handler is: a name, the least severity it wants, and `send`."""

from __future__ import annotations

from alerts.models import Alert, rank


class HandlerError(Exception):
    """The alert could not be handed over; the text says to whom and why."""


class Handler:
    """Subclass this and write `send`."""

    name = "handler"

    def __init__(self, least: str = "info") -> None:
        self.least = least

    def wants(self, alert: Alert) -> bool:
        return rank(alert.severity) >= rank(self.least)

    def send(self, alert: Alert) -> None:
        """Hand the alert over; raises HandlerError if that did not work."""
        raise NotImplemented(f"{type(self).__name__} has no send()")
