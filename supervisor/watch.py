"""Judges the crew's living workers: whether they live, and whether they keep within their limits.

Pure: vitals, limits and the time go in, verdicts come out (`liveness` judges the beats, here are the limits). What a
verdict leads to is the owner's; asking the system how large a tree is, or whether somebody has stopped a process, is at
the end and blocks, so it belongs into a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .config import LivenessConfig
from .liveness import LivenessPolicy, Verdict

MB = 1024 * 1024
OFTEN, SELDOM = 0.5, 5.0  # seconds between an idle worker's beats: at least, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a phase may take: seconds for one task, MB for its whole tree; 0: as much as it likes."""

    task_time: float = 0.0
    memory_mb: int = 0


def liveness_policy(config: LivenessConfig) -> LivenessPolicy:
    """The policy that supervisor.toml asks for."""
    return LivenessPolicy(
        start_grace=config.start_grace,
        silent_after=config.silence,
        slow_after=min(1.0, config.silence),
        suspended_after=config.suspended or None,
        no_progress_after=config.no_progress or None,
        loop_blocked=config.on_blocked,
        gil_held=config.on_held,
        no_progress=config.on_no_progress,
    )


def idle_beats(config: LivenessConfig) -> float:
    """Seconds between the beats of a worker with nothing in hand: several to a silence, and few to a quiet week."""
    return max(OFTEN, min(SELDOM, config.silence / 6))


def over_limit(limits: Limits, *, phase: str, task: str, worked: float, held: int) -> Verdict | None:
    """The verdict on a worker that takes too much; None while it keeps within its limits.

    `worked` is for how long it has had `task` in hand (seconds; no task, no limit), `held` the tree's memory in bytes.
    """
    inputs = {
        "task": task,
        "worked": worked,
        "task_time": limits.task_time,
        "held_mb": held // MB,
        "memory_mb": limits.memory_mb,
    }
    if limits.task_time and task and worked > limits.task_time:
        why = (
            f"task {task} has taken {worked:.0f} s; {limits.task_time:g} s are allowed (phases.{phase}.task_time in "
            "supervisor.toml)"
        )
        return Verdict(state="over time", action="restart", reason=why, inputs=inputs)
    if limits.memory_mb and held > limits.memory_mb * MB:
        at = f" at task {task}" if task else ""
        why = (
            f"it and what it has started hold {held // MB} MB of memory{at}; {limits.memory_mb} MB are allowed "
            f"(phases.{phase}.memory_mb in supervisor.toml)"
        )
        return Verdict(state="over memory", action="restart", reason=why, inputs=inputs)
    return None


# --- asking the system; these block


def memory_of(pids: Mapping[str, int]) -> dict[str, int]:
    """Bytes held in memory by each of these processes and all that they have started; 0 for one that is gone."""
    import psutil

    found = {}
    for key, pid in pids.items():
        held = 0
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(pid)
            for process in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                    held += process.memory_info().rss
        found[key] = held
    return found


def stopped_by(pid: int) -> Literal["signal", "debugger"] | None:
    """Who has stopped the process, which cannot beat then and is not to blame; None while it runs, or is gone."""
    import psutil

    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return None
    return "signal" if status == psutil.STATUS_STOPPED else "debugger" if status == psutil.STATUS_TRACING_STOP else None
