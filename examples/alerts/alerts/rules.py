"""Rules: which readings are worth an alert."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from alerts.models import Alert, Reading

Direction = Literal["above", "below"]
COMPARE: dict[Direction, Callable[[float, float], bool]] = {
    "above": operator.gt,
    "below": operator.lt,
}


@dataclass(frozen=True)
class Rule:
    name: str
    metric: str
    direction: Direction
    threshold: float
    severity: str = "warning"

    def broken_by(self, reading: Reading) -> bool:
        if reading.metric != self.metric:
            return False
        return COMPARE[self.direction](reading.value, self.threshold)

    def check(self, reading: Reading) -> Alert | None:
        """The alert that this reading calls for, or None."""
        if not self.broken_by(reading):
            return None
        return Alert(
            rule=self.name,
            severity=self.severity,
            metric=reading.metric,
            value=reading.value,
            message=f"{reading.metric} is {reading.value:g}, {self.direction} {self.threshold:g}",
            at=reading.at,
        )


def evaluate(rules: Iterable[Rule], readings: Iterable[Reading]) -> list[Alert]:
    """All alerts of one round, worst first as the rules are ordered."""
    rules = list(rules)
    found = (rule.check(reading) for reading in readings for rule in rules)
    return [alert for alert in found if alert is not None]
