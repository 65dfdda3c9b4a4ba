"""The built-in driver: real analysis, checks and fixes, without a model and without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...driver import Driver


def driver_for(phase: str) -> Driver:
    """A new performer for that phase. LookupError for a phase that the built-in crew does not know."""
    match phase:
        case "planning":
            from .planning import BuiltinPlanning

            return BuiltinPlanning()
        case "developer":
            from .developer import BuiltinDeveloper

            return BuiltinDeveloper()
        case "qa":
            from .qa import BuiltinQA

            return BuiltinQA()
        case "debugging":
            from .debugging import BuiltinDebugging

            return BuiltinDebugging()
        case _:
            raise LookupError(
                f"the built-in crew knows nothing of {phase!r}: name a driver or an actor for it in supervisor.toml"
            )
