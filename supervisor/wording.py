"""The crew's state and doings in words: one harmless line per thing, for terminals, logs and pipes alike.

Pure, and light to import; `console` puts the same words into boxes and colours.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from .status import CrewStatus, ShownEvent, Summary, first_line

WORDS: Final[Mapping[str, str]] = {
    "phase_start": "starts",
    "phase_complete": "done",
    "phase_error": "failed",
    "finding": "found",
    "screenshot": "picture",
    "log_entry": "says",
    "audit_complete": "audit",
}


def clean(text: str) -> str:
    """One harmless line: no terminal escapes, control or direction characters; line breaks become spaces."""
    if text.isprintable():
        return text
    joined = " ".join(part for part in text.split("\n") if part.strip())
    return "".join(_harmless(char) for char in joined)


def _harmless(char: str) -> str:
    if char == "\t":
        return " "
    category = unicodedata.category(char)
    if category in {"Cc", "Cs", "Zl", "Zp"}:
        return "\N{REPLACEMENT CHARACTER}"
    return "" if category == "Cf" else char


def clock(timestamp: float) -> str:
    """The local time of day; dashes for what is no time."""
    try:
        return datetime.fromtimestamp(timestamp).astimezone().strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def duration(seconds: float) -> str:
    """12 s, 3:05, 2:00:01, 3 d 04:10; rounded to seconds."""
    whole = round(max(seconds, 0))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def told(event: ShownEvent) -> str:
    """What the event says, as a person would: `found F401 …`, `fixing 40 % …`."""
    word = WORDS.get(event.type) or (event.step if event.type == "progress" else event.type.replace("_", " "))
    pct = f"{event.pct} %" if event.type == "progress" and event.pct else ""
    return " ".join(part for part in (clean(word), pct, clean(event.detail)) if part)


def brief(text: str, most: int = 80) -> str:
    """The first line, cleaned, cut with an ellipsis where it is longer than `most` characters."""
    line = clean(first_line(text))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def title_of(key: str, status: CrewStatus | None) -> str:
    """The phase's name for people, short enough for a column; an event without a phase is the supervisor's."""
    phase = status.phases.get(key) if status else None
    title = phase.title if phase else "QA" if key == "qa" else key.capitalize() or "Supervisor"
    return clean(title)[:10]


def shortened(path: str, most: int) -> str:
    """The path's end, where it is longer than `most` characters."""
    return path if len(path) <= most else "…" + path[-(most - 1) :]


def summary_lines(summary: Summary) -> list[tuple[str, list[str]]]:
    """The closing summary as (heading, lines), in the order in which a person wants to know."""
    groups: list[tuple[str, list[str]]] = []

    def group(word: str, lines: Iterable[str]) -> None:
        listed = [clean(line) for line in lines]
        if listed:
            groups.append((f"{word} ({len(listed)})", listed))

    group("Found", summary.found)
    group("Fixed", summary.fixed)
    group("Implemented", summary.implemented)
    group("Approved by QA", summary.approved)
    group("Delivered into your files", summary.delivered)
    group("Not delivered: you changed these files meanwhile", summary.conflicts)
    group(
        "Waiting for you",
        (
            f"{item.id}  {item.phase or item.about}: {brief(item.text, 100)}"
            + (f" -> {first_line(item.request)}" if item.request else "")
            for item in summary.waiting
        ),
    )
    group(
        "Given up",
        (f"{key}: see PLANNING_READ.md; supervisor restart {key}" for key in summary.given_up),
    )
    group("Paused by you", (f"{key}: supervisor resume {key}" for key in summary.paused))
    return groups


def verdict_line(summary: Summary) -> str:
    """How it ended, in one sentence."""
    rest = summary.open - sum(item.what != "question" for item in summary.waiting)
    reasons = []
    if summary.waiting:
        count = len(summary.waiting)
        reasons.append("one thing waits for you" if count == 1 else f"{count} things wait for you")
    if rest > 0:
        reasons.append("one task is open" if rest == 1 else f"{rest} tasks are open")
    if summary.given_up:
        reasons.append(f"{', '.join(summary.given_up)} given up")
    if summary.paused:
        reasons.append(f"{', '.join(summary.paused)} paused")
    if summary.unapproved:
        reasons.append("QA has not approved everything")
    if summary.exit == 130:
        return "Interrupted; everything is on record, and the next run goes on from here."
    if summary.exit == 0:
        return "Done, and approved by QA."
    return f"Not finished: {', '.join(reasons)}." if reasons else f"Ended with exit code {int(summary.exit)}."


def summary_footer(summary: Summary) -> list[str]:
    """Where to read it all, and what to type next."""
    lines = [f"Read it in {summary.where}/: QA_WRITE.md, DEBUG_WRITE.md, DEVELOPER_WRITE.md, PLANNING_WRITE.md"]
    if summary.waiting:
        lines.append(f'Answer with: supervisor answer {summary.waiting[0].id} "…"   (all: supervisor inbox)')
    if summary.delivered:
        lines.append("See what was changed: supervisor changes   (take it back: supervisor undo TASK)")
    if summary.restarts:
        times = "once" if summary.restarts == 1 else f"{summary.restarts} times"
        lines.append(f"A worker was restarted {times}; supervisor events shows when")
    return lines


def plain_summary(summary: Summary) -> list[str]:
    """The closing summary as lines of text."""
    lines = ["", verdict_line(summary)]
    for heading, items in summary_lines(summary):
        lines += [f"{heading}:", *(f"  {item}" for item in items)]
    return [*lines, "", *summary_footer(summary)]
