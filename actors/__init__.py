"""What runs inside a worker. For an actor of your own: `PhaseActor`, what it is given, and what it gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .own import Context, Draft, Message, Outcome, PhaseActor, Task

__all__ = ["Context", "Draft", "Message", "Outcome", "PhaseActor", "Task"]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker takes over its pipes before anything that takes time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import own

    return getattr(own, name)
