"""What every command shares: how it prints, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from supervisor.wording import clean


def say(*lines: str) -> None:
    """Lines for people, to standard output."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def warn(text: str) -> None:
    """A line about something wrong, to standard error."""
    sys.stderr.write(f"{text}\n")


def say_json(value: Any) -> None:
    """One JSON value on one line; ASCII only, so that it is harmless and readable everywhere."""
    sys.stdout.write(json.dumps(value) + "\n")


def harmless(text: str) -> str:
    """Several lines, each made harmless for the terminal; they stay lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def columns(rows: Iterable[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Rows with their cells cleaned and aligned; the last one is as long as it likes."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*cleaned, strict=True)]
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cleaned]
