"""The built-in driver: real analysis, checks and fixes, without a model and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...driver import Driver


def driver_for(phase: str) -> Driver:
    """A new performer for that phase. LookupError for a phase that the built-in crew does not know."""
    match phase:
        case "planning":
            from .planning import BuiltinPlanning  # noqa: PLC0415 - a worker is one phase: it imports one performer

            return BuiltinPlanning()
        case "developer":
            from .developer import BuiltinDeveloper  # noqa: PLC0415

            return BuiltinDeveloper()
        case "qa":
            from .qa import BuiltinQA  # noqa: PLC0415

            return BuiltinQA()
        case "debugging":
            from .debugging import BuiltinDebugging  # noqa: PLC0415

            return BuiltinDebugging()
        case _:
            raise LookupError(
                f"the built-in crew knows nothing of {phase!r}: name a driver or an actor for it in supervisor.toml"
            )
