"""The command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from alerts import __version__
from alerts.config import ConfigError, Settings, load
from alerts.formatting import line
from alerts.history import History
from alerts.service import Service

DAY = 24 * 60 * 60


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alerts", description="Watch a host and send alerts.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("check", "one round; print what would be sent"),
        ("run", "a round every interval, until interrupted"),
        ("history", "what was sent in the last 24 hours"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, default=Path("alerts.toml"))
    return parser


def check(settings: Settings, now: float) -> int:
    alerts = Service(settings, handlers=[]).check(now)
    for alert in alerts:
        print(line(alert))
    return 1 if alerts else 0


def run(settings: Settings) -> int:
    service = Service(settings)
    while True:
        service.round(time.time())
        time.sleep(settings.interval)


def history(settings: Settings, now: float) -> int:
    for alert in History(settings.history).since(now - DAY):
        print(line(alert))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    try:
        settings = load(options.config)
    except ConfigError as error:
        print(f"alerts: {error}", file=sys.stderr)
        return 2
    if options.command == "check":
        return check(settings, time.time())
    if options.command == "history":
        return history(settings, time.time())
    try:
        return run(settings)
    except KeyboardInterrupt:
        return 0
