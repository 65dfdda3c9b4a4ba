"""Keeps the same alert from going out over and over."""

from __future__ import annotations


class Throttle:
    """One alert per key within `window` seconds; 0 lets everything through."""

    def __init__(self, window: float) -> None:
        if window < 0:
            raise ValueError(f"window must not be negative: {window}")
        self.window = window
        self._last: dict[str, float] = {}

    def allow(self, key: str, now: float) -> bool:
        """Whether an alert may go out now; if so, the window starts anew."""
        last = self._last.get(key)
        if last is not None and now - last < self.window:
            return False
        self._last[key] = now
        return True

    def forget(self, now: float) -> int:
        """Drop what no longer matters; says how many keys that were."""
        old = [key for key, last in self._last.items() if now - last >= self.window]
        for key in old:
            del self._last[key]
        return len(old)
