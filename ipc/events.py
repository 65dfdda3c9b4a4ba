"""What a worker says about its progress: the event, its well-known types, and which events must never be lost.

Only vocabulary; how events travel is `ipc.emitter` and `ipc.queue`, how they are judged is `ipc.sequence`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROGRESS = "progress"
WELL_KNOWN_TYPES = (
    "phase_start",
    "phase_complete",
    "phase_error",
    PROGRESS,
    "finding",
    "screenshot",
    "log_entry",
    "audit_complete",
)
STARTING_STEPS = frozenset(
    {
        "starting",
        "navigating",
        "scanning",
        "analyzing",
        "investigating",
        "deliberating",
        "planning",
        "implementing",
        "reviewing",
        "fixing",
        "verifying",
    }
)
ENDING_STEPS = frozenset({"done", "error"})


@dataclass(slots=True)
class ProgressEvent:
    """One thing that happened: `pct` is 0–100, `data` a screenshot's bytes, `timestamp` seconds since the epoch."""

    type: str
    phase: str = ""
    step: str = ""
    pct: int = 0
    detail: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    timestamp: float = field(default_factory=time.time)


def is_critical(event: ProgressEvent, last_starting_step: str | None) -> bool:
    """Whether the event must be received exactly once.

    Critical is every type but `progress`, and a `progress` whose step ends a phase, or starts one and is not the
    emitter's last starting step in that phase (SPEC §4).
    """
    if event.type != PROGRESS or event.step in ENDING_STEPS:
        return True
    return event.step in STARTING_STEPS and event.step != last_starting_step
