"""One thing that a tool found out, in a shape that messages, documents and comparisons share.

A finding's fingerprint is its thread for ever: made of tool, rule, file and symbol, not of the line, so that moving
code does not make old findings new. Whom it concerns is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`message` is one line for people, `detail` the evidence; `data` holds JSON values for machines.

    `file` is relative to the project, with `/`; "" where it is about the whole project. `line` is 1-based, 0 unknown.
    """

    tool: str
    rule: str
    message: str
    file: str = ""
    symbol: str = ""
    line: int = 0
    detail: str = ""
    severity: Severity = "error"
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Short, stable, and safe as an id: the tool's name and ten hexadecimal digits."""
        whole = f"{self.tool}\0{self.rule}\0{self.file}\0{self.symbol}".encode("utf-8", "backslashreplace")
        tool = re.sub(r"[^a-z0-9]+", "-", self.tool.lower()).strip("-") or "tool"
        return f"{tool}-{hashlib.sha256(whole).hexdigest()[:10]}"

    @property
    def place(self) -> str:
        """`file:line`, as far as known."""
        if not self.file:
            return ""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def name(self) -> str:
        """What people call it in a sentence: the test, the import, or the rule and where."""
        where = self.file or "the whole project"
        if self.tool == "pytest" and self.symbol:
            return f"{self.symbol} ({where})"
        if self.rule == "collection":
            return f"the import of {where}"
        return f"{self.rule} in {where}"

    def __str__(self) -> str:
        """One line: where, and what."""
        rule = f"{self.rule} " if self.tool == "ruff" else ""
        return f"{self.place}: {rule}{self.message}" if self.file else f"{rule}{self.message}"

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of JSON values, with the fingerprint for readers of the file."""
        return {
            "tool": self.tool,
            "rule": self.rule,
            "message": self.message,
            "file": self.file,
            "symbol": self.symbol,
            "line": self.line,
            "detail": self.detail,
            "severity": self.severity,
            "data": dict(self.data),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Finding:
        """The finding that `to_dict` wrote; unknown keys are ignored, a wrong or missing one is a ValueError."""
        try:
            severity = found.get("severity", "error")
            finding = cls(
                tool=_text(found["tool"]),
                rule=_text(found["rule"]),
                message=_text(found["message"]),
                file=_text(found.get("file", "")),
                symbol=_text(found.get("symbol", "")),
                line=int(found.get("line", 0)),
                detail=_text(found.get("detail", "")),
                severity=severity if severity in SEVERITIES else "error",
                data=dict(found.get("data", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no finding ({error!r}): {str(dict(found))[:200]}") from error
        return finding


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
