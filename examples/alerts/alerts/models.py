"""The values everything else passes around."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone

SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True)
class Reading:
    """One measurement: `value` in the metric's own unit, `at` in seconds since the epoch."""

    metric: str
    value: float
    at: float


@dataclass(frozen=True)
class Alert:
    """A rule that was broken, and the reading that broke it."""

    rule: str
    severity: str
    metric: str
    value: float
    message: str
    at: float

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, timezone.utc)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Alert:
        return cls(
            rule=str(data["rule"]),
            severity=str(data["severity"]),
            metric=str(data["metric"]),
            value=float(data["value"]),  # type: ignore[arg-type]
            message=str(data["message"]),
            at=float(data["at"]),  # type: ignore[arg-type]
        )


def rank(severity: str) -> int:
    """0 for info, 2 for critical."""
    return SEVERITIES.index(severity)
