"""Events as a browser is told them: small JSON objects with a readable message.

Pure. Which event starts, completes or fails a phase is decided here; how it gets to the client is the backend's.
"""

from __future__ import annotations

import base64
from typing import Any

from .events import PROGRESS, STARTING_STEPS, ProgressEvent
from .frames import plain

_BY_STEP = {**dict.fromkeys(STARTING_STEPS, "phase_start"), "done": "phase_complete", "error": "phase_error"}


def client_message(event: Any) -> Any:
    """The JSON object for a client: `phase_start`, `phase_complete`, `phase_error` or `log_entry` with its `message`.

    An explicit type beats the step. Events of other types come with all their fields, `data` as base64; what is no
    event passes unchanged.
    """
    if not isinstance(event, ProgressEvent):
        return event
    type_ = _BY_STEP.get(event.step, PROGRESS) if event.type == PROGRESS else event.type
    message = {"type": type_, "phase": event.phase, "message": readable(event)}
    match type_:
        case "phase_start":
            return {**message, "pct": event.pct}
        case "phase_complete":
            return {**message, "pct": event.pct, "summary": plain(event.summary)}
        case "phase_error" | "log_entry":
            return message
        case _:
            return {
                "type": event.type,
                "phase": event.phase,
                "step": event.step,
                "pct": event.pct,
                "detail": event.detail,
                "summary": plain(event.summary),
                "data": None if event.data is None else base64.b64encode(event.data).decode("ascii"),
                "timestamp": event.timestamp,
            }


def readable(event: ProgressEvent) -> str:
    """The detail behind a label made of the step, or of the phase: `Deep scan: 3 of 7 pages`."""
    label = (event.step or event.phase).replace("_", " ").replace("-", " ").strip()
    label = label[:1].upper() + label[1:]
    return f"{label}: {event.detail}" if label and event.detail else event.detail or label
