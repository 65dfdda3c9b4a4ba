"""What the numbers of `make bench` are to reach: a ratio where another's number of the same run is the measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """`name`, or `name` ÷ `beside`, is to be at most or at least `limit`."""

    name: str
    limit: float
    beside: str = ""
    at_least: bool = False

    def value(self, results: Mapping[str, object]) -> float | None:
        """The number in these results; None where one of its parts was not measured."""
        found, divisor = results.get(self.name), results.get(self.beside) if self.beside else 1.0
        if isinstance(found, (int, float)) and isinstance(divisor, (int, float)) and divisor:
            return found / divisor
        return None

    def is_reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def text(self) -> str:
        return f"{self.name} ÷ {self.beside}" if self.beside else self.name


GOALS = (
    Goal("events.journaled_per_s", 200_000, at_least=True),
    Goal("events.per_s", 0.8, beside="peer.pyzmq.per_s", at_least=True),
    Goal("events.per_s", 50, beside="peer.manager_put.per_s", at_least=True),
    Goal("events.latency_p50_us", 3, beside="peer.inprocess_put.latency_p50_us"),
    Goal("events.latency_p99_us", 5000),
    Goal("events.emit_progress_us", 2),
    Goal("events.emit_critical_us", 5),
    Goal("docs.open_ms_at_1e5", 20),
    Goal("restart.warm_p50_ms", 15),
    Goal("restart.cold_p50_ms", 1.3, beside="peer.spawn_and_imports.p50_ms"),
    Goal("documents.hop_p50_ms", 20),
    Goal("idle.cpu_pct", 0.5),
    Goal("idle.rss_mb", 200),
)


def judged(results: Mapping[str, object]) -> Iterator[str]:
    """A line for each goal whose numbers are there: the value, the limit, and whether it is reached."""
    for goal in GOALS:
        value = goal.value(results)
        if value is not None:
            sign, word = "≥" if goal.at_least else "≤", "" if goal.is_reached(value) else "  missed"
            yield f"{goal.text:<64}{value:>12,.2f}  {sign} {goal.limit:,g}{word}"
