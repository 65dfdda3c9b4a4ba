"""Trying again, a little later each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def with_retries(
    call: Callable[[], T],
    retries: int = 2,
    first_delay: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it works, at most `retries` times more; only an OSError is worth another try."""
    delay = first_delay
    for attempt in range(retries + 1):
        try:
            return call()
        except OSError:
            if attempt == retries:
                raise
        # TODO: jitter, so that a room full of hosts does not come back in step
        sleep(delay)
        delay = delay * 2 or 0.1
    raise AssertionError("unreachable")
