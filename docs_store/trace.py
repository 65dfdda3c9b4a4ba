"""A thread's story, from the first report to the approval: as text, as JSON, as a Mermaid sequence diagram. Pure.

It tells what the state knows: messages and reports in the order of the history. Making foreign text harmless on a
terminal or in a page is the business of who shows it; in the diagram it is done here, because its syntax is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .messages import SUPERVISOR, USER, State, report_key
from .topology import Topology

MOST_LABEL = 80  # characters of a text in the diagram


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One thing that happened in a thread: a message from `by` to `to`, or the report of phase `by` about task `id`."""

    n: int
    at: str
    what: Literal["message", "report"]
    by: str
    to: str
    id: str
    head: str  # the kind of a message, the result of a report
    text: str
    status: str
    joined: str | None = None
    late: bool = False


def story(state: State, thread: str) -> tuple[Told, ...]:
    """All that happened in the thread, in the order of the history; empty for an unknown one."""
    return tuple(sorted(_told(state, thread), key=lambda told: (told.n, told.what == "message")))


def _told(state: State, thread: str) -> Iterator[Told]:
    ids = state.threads.get(thread, ())
    for message in (state.messages[id] for id in ids):  # noqa: A001
        yield Told(
            n=message.n,
            at=message.at,
            what="message",
            by=message.by,
            to=message.to,
            id=message.id,
            head=message.kind,
            text=message.text,
            status=str(message.status),
            joined=message.joined,
        )
    for message in (state.messages[id] for id in ids):  # noqa: A001
        for round in range(message.round + 1):  # noqa: A001  (the field's name)
            report = state.finished.get(report_key(message.id, round))
            if report is None:
                continue
            yield Told(
                n=report.n,
                at=report.at,
                what="report",
                by=report.phase,
                to=report.phase,
                id=report.task,
                head=report.result,
                text=report.detail,
                status=report.result,
                late=report.late,
            )


def text(state: State, thread: str, topology: Topology) -> str:
    """The story as lines for people; what a message says goes on under it, indented."""
    lines = []
    for told in story(state, thread):
        by, to = _title(topology, told.by), _title(topology, told.to)
        if told.what == "message":
            joined = f", joined {told.joined}" if told.joined else ""
            lines.append(f"{told.n:>6}  {told.at}  {by} → {to}  {told.head}  ({told.id}, {told.status}{joined})")
        else:
            late = ", late" if told.late else ""
            lines.append(f"{told.n:>6}  {told.at}  {by} reports {told.head}{late}  ({told.id})")
        lines += [f"        {line}" for line in told.text.split("\n")]
    return "\n".join(lines)


def as_json(state: State, thread: str) -> dict[str, Any]:
    """The story as JSON values."""
    return {
        "thread": thread,
        "renewed": state.renewed.get(thread, 0),
        "story": [
            {
                "n": told.n,
                "at": told.at,
                "what": told.what,
                "by": told.by,
                "to": told.to,
                "id": told.id,
                "head": told.head,
                "text": told.text,
                "status": told.status,
                "joined": told.joined,
                "late": told.late,
            }
            for told in story(state, thread)
        ],
    }


def mermaid(state: State, thread: str, topology: Topology) -> str:
    """The story as a Mermaid sequence diagram: an arrow for each message, a note for each report."""
    told = story(state, thread)
    known = (USER, SUPERVISOR, *(phase.key for phase in topology.phases))
    there = {who for one in told for who in (one.by, one.to)}
    names = [*(who for who in known if who in there), *sorted(there - set(known))]
    actors = {who: f"p{number}" for number, who in enumerate(names)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {actors[who]} as {_label(_title(topology, who))}" for who in names]
    for one in told:
        if one.what == "message":
            arrow = "-)" if one.joined else "->>"
            lines.append(f"    {actors[one.by]}{arrow}{actors[one.to]}: {_label(f'{one.head}: {one.text}')}")
        else:
            late = " (late)" if one.late else ""
            lines.append(f"    Note over {actors[one.by]}: {_label(f'{one.head}{late}: {one.text}')}")
    return "\n".join(lines)


def _title(topology: Topology, who: str) -> str:
    if who in (USER, SUPERVISOR):
        return who.capitalize()
    return next((phase.title for phase in topology.phases if phase.key == who), who)


def _label(words: str) -> str:
    """One line that Mermaid takes as plain text: everything that means something to it becomes an entity or a space."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    short = line if len(line) <= MOST_LABEL else f"{line[: MOST_LABEL - 1]}…"
    return re.sub(r"[#;<>&\"%{}\[\]()|`\\]", lambda found: f"#{ord(found[0])};", short) or "…"
