"""The file of sent alerts: one JSON object per line, newest last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from alerts.models import Alert


class History:
    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, alerts: Iterable[Alert]) -> None:
        lines = [json.dumps(alert.as_dict()) + "\n" for alert in alerts]
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def __iter__(self) -> Iterator[Alert]:
        """All alerts, oldest first. A line that cannot be read (a torn write) is skipped."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    yield Alert.from_dict(json.loads(text))
                except (ValueError, KeyError):
                    continue

    def since(self, at: float) -> list[Alert]:
        return [alert for alert in self if alert.at >= at]
