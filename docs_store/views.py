"""The Markdown that people see of a state: pure, deterministic, and only ever a splice into what they wrote.

`template` is a document before anybody wrote in it; `render` puts today's items, reports and trailer into
`state.documents[name].base`. Reading what people change in it is for `merge`; files are for `reconcile`.
"""

from __future__ import annotations

from typing import NamedTuple

from .markdown import Block, Owned, escape, line_end, splice, task_items
from .messages import (
    MOST_SHOWN_CLOSED,
    MOST_SHOWN_OPEN,
    SECTIONS,
    SUPERVISOR,
    UNFINISHED,
    USER,
    WAITING,
    DocumentState,
    Message,
    Report,
    Section,
    State,
    Status,
)
from .queues import Queue, Recent
from .topology import ARCHITECTURE, MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY, Document, Topology

MOST_CHARACTERS = 1200  # of one text in a line; the history has the whole
MOST_PARTS = 5  # of what joined an item; `docs trace` shows them all
HAND = "hand-"  # begins the ids of items that were typed into a document

STRATEGIC_SECTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    MASTER_PLAN: (
        ("Vision", "What this project is to become, in a few sentences."),
        ("Goals", "What must be reached, most important first."),
        ("Achievements", "Planning adds what is done, once 95 % of the objectives are."),
    ),
    PRIMARY: (("Objectives", "One line each: `- [ ] what must be true`."),),
    SECONDARY: (
        ("Objectives", "One line each: `- [ ] what must be true`."),
        ("Architectural Changes", ""),
        ("Testing Requirements", ""),
        ("Known Issues", ""),
        ("Integration Issues", ""),
    ),
    TERTIARY: (),
    ARCHITECTURE: (("Current", ""), ("Intended", ""), ("Patterns", ""), ("Modules", "")),
}
_TERTIARY_HINT = "One `## Task` section for each task, with a fenced example that names its file."
_READ_HINTS = {
    "tasks": "Add a line like `- [ ] Priority: HIGH - Issue: what is wrong`. Tick closes, deleting withdraws.",
    "context": "",
    "requirements": "",
    "notes": "Anything you write here stays as it is.",
}
_COMPLETED, _IN_PROGRESS, _BLOCKERS, _MESSAGES = (
    "Completed",
    "In Progress",
    "Blockers",
    "Messages to Other Phases",
)


def template(document: Document) -> str:
    """The text of a document in which nobody has written yet."""
    parts = [f"# {document.name}\n"]
    match document.role:
        case "read":
            parts += [_section(title, _READ_HINTS[key]) for key, title in SECTIONS.items()]
        case "write":
            parts += [_section(t, "") for t in ("Status", _COMPLETED, _IN_PROGRESS, _BLOCKERS, _MESSAGES)]
        case "strategic":
            parts += [_section(title, hint) for title, hint in STRATEGIC_SECTIONS[document.name]]
            if document.name == TERTIARY:
                parts.append(f"<!-- {_TERTIARY_HINT} -->\n")
    by = "Updated By: Supervisor\n" if document.role == "read" else ""
    return "\n".join([*parts, f"---\n\nLast Updated: never\n{by}"])


def render(topology: Topology, document: Document, state: State) -> str:
    """The whole text of a document as it should stand in its file now; rendering that again changes nothing."""
    known = state.documents.get(document.name, DocumentState())
    tail = ["---", "", f"Last Updated: {known.at or 'never'}"]
    if document.role == "read":
        tail.append(f"Updated By: {title_of(topology, known.by)}")
    tail.append(f"<!-- rev:{known.n} {known.hash[:16] or '0'} -->")
    base = known.base or template(document)
    match document.role:
        case "read":
            blocks = _read_blocks(topology, document, state)
        case "write":
            blocks = _write_blocks(topology, document, state)
        case _:
            blocks = ()
    return splice(base, (Block(document.name, level=1), *blocks) if blocks else (), tail)


def completion(state: State) -> float:
    """The share of ticked task items under Objectives in the PRIMARY and SECONDARY documents, 0.0 without any."""
    items = [
        item.ticked
        for name in (PRIMARY, SECONDARY)
        if name in state.documents
        for item in task_items(state.documents[name].base, "Objectives")
    ]
    return sum(items) / len(items) if items else 0.0


def title_of(topology: Topology, who: str) -> str:
    """How somebody is named in documents: a phase's title, User or Supervisor."""
    if who in (USER, SUPERVISOR):
        return who.capitalize()
    return next((phase.title for phase in topology.phases if phase.key == who), who)


def item_body(topology: Topology, state: State, message: Message) -> str:
    """An item's text as shown between its checkbox and its id: priority, kind, text, author, and what joined it."""
    texts = [_worded(topology, message)]
    joined = [state.messages[part] for part in message.parts[1:] if part in state.messages]
    texts += [_worded(topology, part) for part in joined[:MOST_PARTS]]
    if len(joined) > MOST_PARTS:
        texts.append(f"… and {len(joined) - MOST_PARTS} more about the same")
    priority = "" if message.priority == "MEDIUM" else f"Priority: {message.priority} - "
    return priority + " ⏎ also ".join(texts)


def shown_items(document: Document, state: State) -> dict[str, Message]:
    """The items that the view of a READ document shows now, by id: at most 50 open ones, and the 20 ticked last."""
    return {
        message.id: message
        for open_ones, closed, _ in _chosen(document, state).values()
        for message in (*open_ones, *closed)
    }


def is_ticked(message: Message) -> bool:
    """Whether its checkbox is ticked: only what is done is."""
    return message.status is Status.DONE


def _section(title: str, hint: str) -> str:
    return f"## {title}\n" + (f"\n<!-- {hint} -->\n" if hint else "")


def _read_blocks(topology: Topology, document: Document, state: State) -> tuple[Block, ...]:
    blocks = []
    chosen = _chosen(document, state)
    for section, title in SECTIONS.items():
        open_ones, closed, hidden = chosen[section]
        box = section == "tasks"
        lines = [_line(topology, state, message, box=box) for message in open_ones]
        if hidden:
            lines.append(Owned("more", f"… and {hidden} more <!-- more -->"))
        lines += [_line(topology, state, message, box=box) for message in closed]
        blocks.append(Block(title, lines=tuple(lines)))
    return tuple(blocks)


class _Chosen(NamedTuple):
    open: list[Message]
    closed: list[Message]
    hidden: int


def _chosen(document: Document, state: State) -> dict[Section, _Chosen]:
    """What each section shows: its most urgent unfinished items, those ticked last, and how many are left out."""
    phase = document.phase or ""
    queue = state.index.unfinished.get(phase, Queue())
    chosen: dict[Section, _Chosen] = {}
    for rank, section in enumerate(SECTIONS):
        first = [state.messages[id] for id in queue.ids(str(rank), MOST_SHOWN_OPEN)]  # noqa: A001
        start, end = queue.bounds(str(rank))
        last = state.index.closed.get(f"{phase} {section}", Recent()).ids[-MOST_SHOWN_CLOSED:]
        closed = sorted((state.messages[id] for id in last), key=lambda m: (m.n, m.order))  # noqa: A001
        chosen[section] = _Chosen(first, closed, max(0, end - start - MOST_SHOWN_OPEN))
    return chosen


def _line(topology: Topology, state: State, message: Message, *, box: bool) -> Owned:
    mark = f"[{'x' if is_ticked(message) else ' '}] " if box else ""
    return Owned(message.id, f"{mark}{item_body(topology, state, message)} <!-- id:{message.id} -->")


def _worded(topology: Topology, message: Message) -> str:
    text = message.text
    if message.id.startswith(HAND):  # what stood under the line still stands there, as it was typed
        text = text.partition("\n")[0]
    return f"{message.kind}: {_text(text, by=message.by)} (from {title_of(topology, message.by)})"


def _text(text: str, *, by: str = "") -> str:
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]} … ({len(text)} characters)"
    return escape(text, own=by == USER) or "(no text)"


def _write_blocks(topology: Topology, document: Document, state: State) -> tuple[Block, ...]:
    phase = document.phase or ""
    status = [Owned("status", f"{_text(line)} <!-- status -->") for line in state.status_lines.get(phase, ())]
    done = state.index.completed.get(phase, Recent())
    last = [state.finished[key] for key in done.ids[-MOST_SHOWN_CLOSED:]]
    completed = [
        Owned(f"{r.task}.{r.round}.{r.n}", f"[x] {_told(state, r)} <!-- id:{r.task}.{r.round}.{r.n} -->") for r in last
    ]
    if earlier := done.count - len(completed):
        completed.insert(0, Owned("more", f"… and {earlier} before <!-- more -->"))
    mine = [state.messages[id] for id in state.index.at_work.get(phase, ())]  # noqa: A001
    mine.sort(key=lambda m: (m.n, m.order))
    claimed = [m for m in mine if m.status is Status.CLAIMED]
    blocked = [m for m in mine if m.status in WAITING]
    reported = [state.messages[id] for id in state.index.blockers.get(phase, ())]  # noqa: A001
    reported = sorted((m for m in reported if m.to != phase), key=lambda m: (m.n, m.order))
    to_others = [
        Block(f"To {other.title}", level=3, lines=_posted(state, state.index.sent.get(f"{phase} {other.key}")))
        for other in topology.phases
        if other.key != phase
    ]
    return (
        Block("Status", lines=tuple(status)),
        Block(_COMPLETED, lines=tuple(completed)),
        Block(_IN_PROGRESS, lines=tuple(_open(m, _attempt(m)) for m in claimed)),
        Block(
            _BLOCKERS,
            lines=tuple(
                _capped(
                    [_open(m, f"{m.status}: {_text(m.detail)}" if m.detail else str(m.status)) for m in blocked]
                    + [_reported(topology, m) for m in reported]
                )
            ),
        ),
        Block(_MESSAGES),
        *to_others,
    )


def _told(state: State, report: Report) -> str:
    task = state.messages.get(report.task)
    what = f"{task.kind}: {_text(task.text.partition(chr(10))[0])}" if task else report.task
    late = " (late: the task was closed or opened again meanwhile)" if report.late else ""
    return f"{what} - {_text(report.detail)}{late}"


def _open(message: Message, status: str) -> Owned:
    first = _text(message.text.partition("\n")[0])
    return Owned(message.id, f"[ ] {message.kind}: {first} - {status} <!-- id:{message.id} -->")


def is_reported_blocker(message: Message) -> bool:
    """Whether a phase told another one what holds it up, and that is not settled: it stays among its blockers."""
    return message.kind == "Blocker" and message.section == "tasks" and message.status in UNFINISHED


def _reported(topology: Topology, message: Message) -> Owned:
    first = _text(message.text.partition("\n")[0])
    to = topology.phase(message.to).title
    key = f"{message.id}.0.{message.n}"  # its plain id stands under the messages to others
    return Owned(key, f"[ ] {first} - told {to}, {message.status} <!-- id:{key} -->")


def _attempt(message: Message) -> str:
    return "in work" if message.attempts < 2 else f"in work, attempt {message.attempts}"


def _posted(state: State, sent: Recent | None) -> tuple[Owned, ...]:
    """What was posted there, under the ids that it has there; the last ones."""
    if sent is None:
        return ()
    last = [state.messages[id] for id in sent.ids[-MOST_SHOWN_CLOSED:]]  # noqa: A001
    lines = [Owned(m.id, f"{_brief(m)} <!-- id:{m.id} -->") for m in last]
    if earlier := sent.count - len(last):
        lines.insert(0, Owned("more", f"… and {earlier} before <!-- more -->"))
    return tuple(lines)


def _brief(message: Message) -> str:
    priority = "" if message.priority == "MEDIUM" else f"Priority: {message.priority} - "
    return f"{priority}{message.kind}: {_text(message.text)}"


def _capped(lines: list[Owned]) -> list[Owned]:
    if len(lines) <= MOST_SHOWN_OPEN:
        return lines
    hidden = len(lines) - MOST_SHOWN_OPEN
    return [*lines[:MOST_SHOWN_OPEN], Owned("more", f"… and {hidden} more <!-- more -->")]


def is_pristine(document: Document, base: str) -> bool:
    """Whether nobody has written into a document yet; it may be replaced by a text that a person brings."""
    return not base or base == template(document) or base.replace(line_end(base), "\n") == template(document)
