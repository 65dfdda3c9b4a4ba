"""Alerts as JSON, posted to a URL (chat rooms, pagers)."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable

from alerts.formatting import payload
from alerts.handlers.base import Handler, HandlerError
from alerts.models import Alert
from alerts.retry import with_retries


def post_json(url: str, data: bytes, timeout: float) -> int:
    """POST `data` and give back the HTTP status."""
    request = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return int(answer.status)


class WebhookHandler(Handler):
    """Posts the alert's payload; tries again twice when the other side is not there."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        timeout: float = 5.0,
        least: str = "info",
        post: Callable[[str, bytes, float], int] = post_json,
        retries: int = 2,
    ) -> None:
        super().__init__(least)
        self.url, self.timeout = url, timeout
        self._post, self._retries = post, retries

    def send(self, alert: Alert) -> None:
        data = json.dumps(payload(alert)).encode()
        try:
            status = with_retries(
                lambda: self._post(self.url, data, self.timeout), retries=self._retries
            )
        except OSError as error:
            raise HandlerError(f"webhook {self.url} could not be reached: {error}") from error
        if not 200 <= status < 300:
            raise HandlerError(f"webhook {self.url} answered {status}")
