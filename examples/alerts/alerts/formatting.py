"""How an alert reads: subject line, mail body, JSON payload, one line for a terminal."""

from __future__ import annotations

from alerts.models import Alert

ICON = {"info": "i", "warning": "!", "critical": "!!"}
LONGEST_SUBJECT = 78


def subject(alert: Alert) -> str:
    text = f"[{alert.severity.upper()}] {alert.rule}: {alert.message}"
    if len(text) > LONGEST_SUBJECT:
        text = text[: LONGEST_SUBJECT - 3] + "..."
    return text


def body(alert: Alert) -> str:
    lines = [
        alert.message,
        f"",
        f"rule:     {alert.rule}",
        f"severity: {alert.severity}",
        f"metric:   {alert.metric} = {alert.value:g}",
        f"time:     {alert.time:%Y-%m-%d %H:%M:%S} UTC",
        f"-- ",
        f"Sent by alerts. Rules are in the configuration file.",
    ]
    return "\n".join(lines) + "\n"


def payload(alert: Alert) -> dict[str, object]:
    return {"text": line(alert), "alert": alert.as_dict()}


def line(alert: Alert) -> str:
    return f"{ICON[alert.severity]:>2} {alert.time:%H:%M:%S} {alert.rule}: {alert.message}"
