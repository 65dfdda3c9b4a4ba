"""Gives memory back to the system that is free: glibc keeps it for later, and most processes of a crew only wait."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress


def give_back() -> None:
    """Collect garbage, then return free memory to the system; some 20 ms, for when nothing is in hand."""
    gc.collect()
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError, OSError):  # other C libraries keep less, and have no such call
            ctypes.CDLL(None).malloc_trim(0)
