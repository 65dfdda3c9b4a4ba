"""Progress events between processes: the queue, markers on stdout, and what makes each event arrive once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emitter import Emitter
    from .events import ProgressEvent, is_critical
    from .modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT, determine_ipc_mode, determine_ipc_mode_with_reason
    from .queue import PutResult, create_queue, deserialize_queue_from_env, safe_put, serialize_queue
    from .running import run
    from .streaming import client_message

__all__ = [
    "IPC_MODE_QUEUE",
    "IPC_MODE_STDOUT",
    "Emitter",
    "ProgressEvent",
    "PutResult",
    "client_message",
    "create_queue",
    "deserialize_queue_from_env",
    "determine_ipc_mode",
    "determine_ipc_mode_with_reason",
    "is_critical",
    "run",
    "safe_put",
    "serialize_queue",
]

_HOMES = {  # loaded when first asked for: a worker imports only what it uses, and only `run` needs anyio
    "IPC_MODE_QUEUE": "modes",
    "IPC_MODE_STDOUT": "modes",
    "Emitter": "emitter",
    "ProgressEvent": "events",
    "PutResult": "queue",
    "client_message": "streaming",
    "create_queue": "queue",
    "deserialize_queue_from_env": "queue",
    "determine_ipc_mode": "modes",
    "determine_ipc_mode_with_reason": "modes",
    "is_critical": "events",
    "run": "running",
    "safe_put": "queue",
    "serialize_queue": "queue",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found
