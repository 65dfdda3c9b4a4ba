"""Epoch numbers: an fsynced counter, reserved in blocks, above every epoch that journal, spools or history know.

A number is given once, whatever crashes: a new supervisor starts with a new block.
"""

from __future__ import annotations

from pathlib import Path

from docs_store.files import durable_replace

BLOCK = 100


class EpochCounter:
    """`take()` costs no fsync on the restart path but once per block of 100."""

    def __init__(self, path: Path, *, above: int = 0) -> None:
        """`above` is the greatest epoch known elsewhere; a damaged or missing file falls back on it."""
        self._path = path
        self._next = max(self._read(), above) + 1
        self._reserved = 0
        self._reserve()

    def take(self) -> int:
        """The next number, never given before."""
        if self._next > self._reserved:
            self._reserve()
        number = self._next
        self._next += 1
        return number

    def _read(self) -> int:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def _reserve(self) -> None:
        self._reserved = self._next + BLOCK - 1
        durable_replace(self._path, str(self._reserved).encode("ascii"))
