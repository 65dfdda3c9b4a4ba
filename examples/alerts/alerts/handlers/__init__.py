"""Handlers bring an alert to people."""

from alerts.handlers.base import Handler, HandlerError
from alerts.handlers.email import EmailHandler
from alerts.handlers.webhook import WebhookHandler

__all__ = ["EmailHandler", "Handler", "HandlerError", "WebhookHandler"]
