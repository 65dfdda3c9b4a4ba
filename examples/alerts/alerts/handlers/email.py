"""E-mail over SMTP."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Sequence
from email.message import EmailMessage

from alerts.formatting import body, subject
from alerts.handlers.base import Handler, HandlerError
from alerts.models import Alert


class EmailHandler(Handler):
    """Sends one mail per alert. `connect` opens the SMTP session (tests pass a fake one)."""

    name = "email"

    def __init__(
        self,
        host: str,
        sender: str,
        recipients: Sequence[str],
        port: int = 25,
        least: str = "info",
        connect: Callable[[str, int], smtplib.SMTP] = smtplib.SMTP,
    ) -> None:
        super().__init__(least)
        self.host, self.port = host, port
        self.sender, self.recipients = sender, list(recipients)
        self._connect = connect

    def message(self, alert: Alert) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Subject"] = subject(alert)
        mail.set_content(body(alert))
        return mail

    def send(self, alert: Alert) -> None:
        # FIXME: no STARTTLS yet, so this is for a relay on the same host or network only
        try:
            with self._connect(self.host, self.port) as session:
                session.send_message(self.message(alert))
        except (OSError, smtplib.SMTPException) as error:
            raise HandlerError(f"e-mail via {self.host}:{self.port} failed: {error}") from error
