"""The supervisor's figures in Prometheus' text format, taken at the moment they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor.status import PHASE_STATES, CrewStatus

from .service import Figures

OF_STRANGERS = "refused_"  # how counters of the queue's server begin
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Snapshot(Collector):
    """One moment of one supervisor."""

    def __init__(self, status: CrewStatus, figures: Figures) -> None:
        self._status = status
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Every family once, with all its samples."""
        state = GaugeMetricFamily(
            "phase_supervisor_phase_state", "1 for the state that the phase is in", labels=["phase", "state"]
        )
        restarts = CounterMetricFamily(
            "phase_supervisor_restarts", "Workers started again, since the supervisor's start", labels=["phase"]
        )
        progress = GaugeMetricFamily(
            "phase_supervisor_task_progress_ratio", "How far the task in hand is; 0 without one", labels=["phase"]
        )
        for key, phase in self._status.phases.items():
            for name in PHASE_STATES:
                state.add_metric([key, name], 1.0 if phase.state == name else 0.0)
            restarts.add_metric([key], phase.restarts)
            progress.add_metric([key], phase.pct / 100)
        yield from (state, restarts, progress)
        events = CounterMetricFamily(
            "phase_supervisor_events", "What became of events, since the supervisor's start", labels=["outcome"]
        )
        refused = CounterMetricFamily(
            "phase_supervisor_queue_refused", "What the queue's server refused of strangers", labels=["what"]
        )
        for outcome, count in self._status.counters.items():
            if outcome.startswith(OF_STRANGERS):
                refused.add_metric([outcome.removeprefix(OF_STRANGERS)], count)
            elif outcome == "bytes":
                yield CounterMetricFamily("phase_supervisor_bytes", "What was accepted of events", value=count)
            else:
                events.add_metric([outcome], count)
        yield from (events, refused)
        yield from self._of_workers()
        for figure, text, value in (
            ("queue_depth", "Frames in the queue", self._status.queue_depth),
            ("queue_capacity", "Frames that fit into the queue", self._status.queue_capacity),
            ("history_records", "Records of the history", self._status.head),
            ("events_pending", "Events that were accepted and are not committed yet", self._figures.pending),
            ("subscribers", "Streams of events that somebody watches", self._figures.subscribers),
        ):
            yield GaugeMetricFamily(f"phase_supervisor_{figure}", text, value=value)
        yield CounterMetricFamily(
            "phase_supervisor_commits_failed", "Commits that failed and were tried again", self._figures.failed_commits
        )
        yield HistogramMetricFamily(
            "phase_supervisor_commit_latency_seconds",
            "From a row's newest event to its commit",
            buckets=_buckets(self._status.latency_total()),
            sum_value=None,
        )

    def _of_workers(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "phase_supervisor_worker_events",
            "What became of a worker's events, since the supervisor's start",
            labels=["worker", "outcome"],
        )
        size = CounterMetricFamily(
            "phase_supervisor_worker_bytes", "What was accepted of a worker's events", labels=["worker"]
        )
        depth = GaugeMetricFamily(
            "phase_supervisor_worker_queue_depth", "Frames of a worker's in the queue", labels=["worker"]
        )
        for worker, counts in self._status.workers.items():
            for name, count in counts.items():
                if name == "waiting":
                    depth.add_metric([worker], count)
                elif name == "bytes":
                    size.add_metric([worker], count)
                else:
                    events.add_metric([worker, name], count)
        latency = HistogramMetricFamily(
            "phase_supervisor_worker_commit_latency_seconds",
            "From the newest event of a worker's row to its commit",
            labels=["worker"],
        )
        for worker, rows in self._status.latency.items():
            latency.add_metric([worker], buckets=_buckets(rows), sum_value=None)
        yield from (events, size, depth, latency)


def _buckets(rows: Mapping[float, int]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    bounds = sorted(rows)
    counts = list(accumulate(rows[bound] for bound in bounds))
    buckets = [(f"{bound:g}", float(count)) for bound, count in zip(bounds, counts, strict=True)]
    if not buckets or bounds[-1] != float("inf"):
        buckets.append(("+Inf", float(counts[-1]) if counts else 0.0))
    else:
        buckets[-1] = ("+Inf", buckets[-1][1])
    return buckets


def exposition(status: CrewStatus, figures: Figures) -> bytes:
    """The whole page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot(status, figures))
    return generate_latest(registry)
