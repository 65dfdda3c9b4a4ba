"""Reads the TOML file and checks it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from alerts.models import SEVERITIES
from alerts.rules import Rule


class ConfigError(Exception):
    """The file cannot be used; the text names the key."""


@dataclass(frozen=True)
class EmailSettings:
    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 25
    least: str = "info"


@dataclass(frozen=True)
class WebhookSettings:
    url: str
    timeout: float = 5.0
    least: str = "info"


@dataclass(frozen=True)
class Settings:
    rules: tuple[Rule, ...]
    interval: float = 60.0
    window: float = 300.0
    history: Path = field(default=Path("alerts.jsonl"))
    email: EmailSettings | None = None
    webhook: WebhookSettings | None = None


def load(path: Path) -> Settings:
    """The settings of that file; raises ConfigError for the first thing that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return parse(text)


# FIXME: far too long, and it stops at the first mistake; split it by section one day
def parse(text: str) -> Settings:
    """The settings that this text describes."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error

    interval = data.get("interval", 60)
    if not isinstance(interval, (int, float)) or interval <= 0:
        raise ConfigError("interval: must be a number above 0")

    throttle = data.get("throttle", {})
    if not isinstance(throttle, dict):
        raise ConfigError("throttle: must be a table")
    window = throttle.get("window", 300)
    if not isinstance(window, (int, float)) or window < 0:
        raise ConfigError("throttle.window: must be a number, 0 or above")

    history = data.get("history", "alerts.jsonl")
    if not isinstance(history, str) or not history:
        raise ConfigError("history: must be the name of a file")

    rules: list[Rule] = []
    names: set[str] = set()
    for index, entry in enumerate(data.get("rules", []), start=1):
        where = f"rules[{index}]"
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: must be a table")
        name = entry.get("name", "")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}.name: is missing")
        if name in names:
            raise ConfigError(f"{where}.name: {name!r} is there twice")
        names.add(name)
        metric = entry.get("metric", "")
        if not isinstance(metric, str) or not metric:
            raise ConfigError(f"{where}.metric: is missing")
        if "above" in entry and "below" in entry:
            raise ConfigError(f"{where}: either above or below, not both")
        if "above" in entry:
            direction, threshold = "above", entry["above"]
        elif "below" in entry:
            direction, threshold = "below", entry["below"]
        else:
            raise ConfigError(f"{where}: needs above or below")
        if not isinstance(threshold, (int, float)):
            raise ConfigError(f"{where}.{direction}: must be a number")
        severity = str(entry.get("severity", "warning")).strip().lower()
        if not severity in SEVERITIES:
            raise ConfigError(f"{where}.severity: must be one of {', '.join(SEVERITIES)}")
        rules.append(
            Rule(
                name=name,
                metric=metric,
                direction=direction,
                threshold=float(threshold),
                severity=severity,
            )
        )
    if not rules:
        raise ConfigError("rules: there are none, so nothing would ever be sent")

    email: EmailSettings | None = None
    if "email" in data:
        section = data["email"]
        for key in ("host", "sender", "recipients"):
            if not section.get(key):
                raise ConfigError(f"email.{key}: is missing")
        if isinstance(section["recipients"], str):
            raise ConfigError("email.recipients: must be a list")
        port = section.get("port", 25)
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ConfigError("email.port: must be a port number")
        email = EmailSettings(
            host=section["host"],
            sender=section["sender"],
            recipients=tuple(section["recipients"]),
            port=port,
            least=section.get("least", "info"),
        )

    webhook: WebhookSettings | None = None
    if "webhook" in data:
        section = data["webhook"]
        url = section.get("url", "")
        if not url.startswith(("http://", "https://")):
            raise ConfigError("webhook.url: must begin with http:// or https://")
        timeout = section.get("timeout", 5)
        if not isinstance(timeout, (int, float)) or timeout <= 0:
            raise ConfigError("webhook.timeout: must be a number above 0")
        webhook = WebhookSettings(
            url=url, timeout=float(timeout), least=section.get("least", "info")
        )

    return Settings(
        rules=tuple(rules),
        interval=float(interval),
        window=float(window),
        history=Path(history),
        email=email,
        webhook=webhook,
    )
