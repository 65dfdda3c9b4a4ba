"""The built-in Planning: what it makes of the messages, the documents and the code base.

`plan` is the decision, a pure function from `Facts` to an `Outcome`; `BuiltinPlanning` only gathers the facts. Every
part of a task is answered, since a later message about the same thing joins the open one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from docs_store import markdown
from docs_store.messages import Draft, Message, Outcome, Priority, Task
from docs_store.topology import ARCHITECTURE, MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY

from ...driver import Context
from .analysis import Analysis
from .desk import Desk, fresh, one_line
from .implement import Spec, specs

OBJECTIVES = "Objectives"
KNOWN_ISSUES = "Known Issues"
INTEGRATION = "Integration Issues"
TESTING = "Testing Requirements"
CHANGES = "Architectural Changes"
ACHIEVEMENTS = "Achievements"
ENOUGH = 0.95  # completion from which MASTER_PLAN may be updated (SPEC §2)
MOST_LISTED = 12

CALLED_FOR: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Database Changes Needed", ("database", "migration", "schema", "sql ")),
    ("Configuration Needed", ("credential", "api key", "environment variable", "secret", "certificate")),
    ("Dependencies Needed", ("no module named", "not installed", "dependency")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a planning cycle knows. `threads` maps a thread to all its messages, in order of posting."""

    task: Task
    parts: tuple[Message, ...]  # of the task, those not answered yet
    documents: Mapping[str, str]
    threads: Mapping[str, tuple[Message, ...]]
    analysis: Analysis | None = None
    specs: tuple[Spec, ...] = ()


@dataclass(slots=True)
class Plan:
    """The outcome in the making: documents as they become, what to tell whom."""

    facts: Facts
    texts: dict[str, str]
    posts: list[Draft] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)

    def tell(self, to: str, kind: Any, text: str, thread: str, **more: Any) -> None:
        self.posts.append(Draft(to=to, kind=kind, text=text, thread=thread, **more))

    def item(self, document: str, section: str, text: str) -> None:
        self.texts[document] = markdown.add_item(self.texts[document], section, text)

    def tick(self, document: str, section: str, text: str) -> None:
        self.texts[document] = markdown.tick(self.texts[document], section, text)

    def knows(self, thread: str) -> bool:
        return bool(self.facts.threads.get(thread)) or any(draft.thread == thread for draft in self.posts)


def plan(facts: Facts) -> Outcome:
    """Decide about every part of the task, and put it all into one outcome."""
    draft = Plan(facts, dict(facts.documents))
    for part in facts.parts:
        if _is_moot(part, facts.parts):
            draft.decisions.append(f"approved meanwhile: {one_line(part.text)}")
            continue
        match part.kind:
            case "Assess":
                assess(draft)
            case "Issue":
                issue(draft, part)
            case "Fixed" | "Implemented":
                reported(draft, part)
            case "Resolved":
                resolved(draft, part)
            case "Approved":
                approved(draft, part)
            case "Blocker":
                blocker(draft, part)
            case "Answer":
                answered(draft, part)
            case "Question":
                draft.blocked.append(f"{part.by} asks: {part.text}")
            case _:
                noted(draft, part)
    strategic = {name: text for name, text in draft.texts.items() if text != facts.documents[name]}
    done = completion(draft.texts)
    if done >= ENOUGH and any(part.kind == "Approved" for part in facts.parts):
        strategic |= achievements(draft)
    else:
        strategic.pop(MASTER_PLAN, None)
    detail = "; ".join(draft.decisions) or "nothing to decide"
    if draft.blocked:
        detail = "\n\n".join(draft.blocked)
    return Outcome(
        result="blocked" if draft.blocked else "done",
        detail=detail,
        report=status_lines(draft, done),
        posts=tuple(draft.posts),
        strategic=strategic,
    )


def _is_moot(part: Message, parts: Sequence[Message]) -> bool:
    """Whether a later part says that what this one waits for has come about."""
    return part.kind in ("Blocker", "Question") and any(
        later.kind == "Approved" and later.thread == part.thread and later.n > part.n for later in parts
    )


# --- One part -----------------------------------------------------------------------------------------------------


def assess(draft: Plan) -> None:
    """Look at everything: keep ARCHITECTURE and SECONDARY, give Developer what TERTIARY spells out."""
    facts = draft.facts
    if facts.analysis is not None:
        describe(draft, facts.analysis)
    given = 0
    for spec in facts.specs:
        thread = thread_of(spec.title)
        if spec.ticked or not spec.changes or draft.knows(thread):
            continue
        draft.item(SECONDARY, OBJECTIVES, spec.title)
        draft.tell(
            "developer",
            "Implement",
            f"{spec.title} (as TERTIARY_OBJECTIVES spells out)",
            thread,
            data={"section": spec.title},
        )
        given += 1
    draft.decisions.append(f"analysed the code base; {given} task(s) from TERTIARY_OBJECTIVES given to Developer")


def issue(draft: Plan, part: Message) -> None:
    """A finding becomes a known issue and, unless that has been done already, a priority fix."""
    title = known_issue(part)
    draft.item(SECONDARY, KNOWN_ISSUES, title)
    others = draft.facts.threads.get(part.thread, ())
    if any(m.to == "planning" and m.kind in ("Fixed", "Approved", "Blocker") and m.n > part.n for m in others):
        draft.decisions.append(f"known issue: {one_line(part.text)}")
        return
    severe: Priority = "HIGH" if part.priority == "HIGH" else "MEDIUM"
    draft.tell("debugging", "Fix", part.text, part.thread, priority=severe, re=part.id, data=dict(part.data))
    draft.decisions.append(f"{severe.lower()} priority for Debugging: {one_line(part.text)}")


def reported(draft: Plan, part: Message) -> None:
    """Something was fixed or implemented; QA has the word now."""
    draft.decisions.append(f"waiting for QA: {one_line(part.text)}")


def resolved(draft: Plan, part: Message) -> None:
    """What held somebody up is out of the way."""
    close_entries(draft, part.thread)
    draft.decisions.append(f"resolved: {one_line(part.text)}")


def approved(draft: Plan, part: Message) -> None:
    """QA approved: tick what this was about, wherever it stands."""
    close_entries(draft, part.thread)
    for message in draft.facts.threads.get(part.thread, ()):
        section = str(message.data.get("section", ""))
        if section:
            for document in (PRIMARY, SECONDARY):
                draft.tick(document, OBJECTIVES, section)
    draft.decisions.append(f"approved: {one_line(part.text)}")


def blocker(draft: Plan, part: Message) -> None:
    """An entry in SECONDARY; then either what it needs first, or a clear request to the user."""
    heading = heading_for(part)
    draft.item(SECONDARY, heading, entry(part))
    section = str(part.data.get("section", ""))
    needs = tuple(str(name) for name in part.data.get("needs", ()))
    first = [spec for spec in draft.facts.specs if spec.title != section and provides(spec, needs)]
    tried = [m for m in draft.facts.threads.get(part.thread, ()) if m.kind == "Blocker" and m.id != part.id]
    if section and first and len(tried) < len(first):
        for spec in first:
            draft.tell(
                "developer",
                "Implement",
                f"{spec.title} (first: {section} needs it)",
                thread_of(spec.title),
                priority="HIGH",
                data={"section": spec.title},
            )
        draft.tell(
            "developer",
            "Implement",
            f"{section} (again, after {', '.join(spec.title for spec in first)})",
            part.thread,
            re=part.id,
            data={"section": section},
        )
        draft.decisions.append(
            f"{section} waits for {', '.join(spec.title for spec in first)}; both given to Developer"
        )
        return
    draft.blocked.append(str(part.data.get("request", "")) or part.text)


def answered(draft: Plan, part: Message) -> None:
    """The user's answer goes to whoever was held up, as a priority, with all that is known about the matter."""
    thread = draft.facts.threads.get(part.thread, ())
    held_up = [m for m in thread if m.to == "planning" and m.kind in ("Blocker", "Question") and m.n < part.n]
    last = held_up[-1] if held_up else None
    receiver = last.by if last is not None and last.by in ("developer", "debugging", "qa") else "developer"
    data = {**(dict(last.data) if last else {}), "answer": part.text}
    kind = "Fix" if receiver in ("developer", "debugging") else "Answer"
    draft.tell(receiver, kind, f"The user says: {part.text}", part.thread, priority="HIGH", re=part.id, data=data)
    draft.decisions.append(f"the user's answer handed to {receiver.capitalize()}")


def noted(draft: Plan, part: Message) -> None:
    """An alert or a message of the user's own: kept where people look for it."""
    if part.kind == "Alert":
        draft.item(SECONDARY, KNOWN_ISSUES, one_line(part.text))
        draft.decisions.append(f"noted an alert: {one_line(part.text)}")
        return
    if part.kind in ("Implement", "Fix"):
        draft.tell("developer", part.kind, part.text, part.thread, priority=part.priority, re=part.id)
        draft.decisions.append(f"given to Developer: {one_line(part.text)}")
        return
    draft.item(SECONDARY, OBJECTIVES, one_line(part.text))
    draft.decisions.append(f"made an objective: {one_line(part.text)}")


# --- Words and places -----------------------------------------------------------------------------------------------


def thread_of(title: str) -> str:
    """The thread of a TERTIARY section: the same for ever, whoever speaks of it."""
    return "task-" + "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())[:80]


def known_issue(part: Message) -> str:
    """The line under Known Issues; the thread's name keeps two findings with one text apart."""
    return f"{one_line(part.text)} ({part.thread})"


def entry(part: Message) -> str:
    return f"Blocked: {one_line(part.text)} ({part.thread})"


def heading_for(part: Message) -> str:
    """Where in SECONDARY a blocker belongs, by what it calls for."""
    if part.data.get("needs"):
        return INTEGRATION
    text = part.text.lower()
    return next((title for title, words in CALLED_FOR if any(word in text for word in words)), KNOWN_ISSUES)


def close_entries(draft: Plan, thread: str) -> None:
    """Tick every line of SECONDARY that is about the thread."""
    headings = (KNOWN_ISSUES, INTEGRATION, *(title for title, _ in CALLED_FOR))
    for heading in headings:
        for item in markdown.task_items(draft.texts[SECONDARY], heading):
            if not item.ticked and item.text.rstrip().endswith(f"({markdown.escape(thread)})"):
                draft.tick(SECONDARY, heading, item.text)


def provides(spec: Spec, needs: Sequence[str]) -> bool:
    """Whether a TERTIARY section brings one of the modules that something else needs."""
    made = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in spec.files}
    made |= {name.removeprefix("src.") for name in made}
    return any(need in made for need in needs)


def describe(draft: Plan, analysis: Analysis) -> None:
    """ARCHITECTURE and SECONDARY as the code base is now, each in a block of Planning's own."""
    draft.texts[ARCHITECTURE] = block(draft.texts[ARCHITECTURE], "Current", current(analysis))
    draft.texts[ARCHITECTURE] = block(draft.texts[ARCHITECTURE], "Modules", modules(analysis))
    draft.texts[SECONDARY] = block(draft.texts[SECONDARY], TESTING, untested(analysis))
    draft.texts[SECONDARY] = block(draft.texts[SECONDARY], CHANGES, worth_changing(analysis))
    constraint = current(analysis)
    if constraint and not draft.knows("architecture"):
        draft.tell(
            "developer",
            "Review",
            f"Keep to the shape of the code base: {constraint[0].removeprefix('- ')}",
            "architecture",
            section="context",
        )
    if analysis.untested and not draft.knows("criteria"):
        names = ", ".join(analysis.untested[:MOST_LISTED])
        draft.tell(
            "qa",
            "Verify",
            f"New code comes with tests, and the suite stays as green as it was. Imported by no test so far: {names}",
            "criteria",
            section="requirements",
        )


def block(text: str, section: str, lines: Sequence[str]) -> str:
    """Planning's own lines in a section: what a person wrote around them stays."""
    begin, end = "<!-- planning: kept by the crew, edit around it -->", "<!-- /planning -->"
    old = markdown.section_text(text, section)
    body = "\n".join((begin, *lines, end)) if lines else ""
    before, mark, rest = old.partition(begin)
    if mark:
        after = rest.partition(end)[2]
        new = before.rstrip("\n") + ("\n\n" if before.strip() else "") + body + after
    else:
        new = old.rstrip("\n") + ("\n\n" if old.strip() and body else "") + body
    if new.strip() == old.strip():
        return text
    return markdown.replace_section(text, section, new.strip("\n"))


def current(analysis: Analysis) -> list[str]:
    counted = f"- {len(analysis.modules)} modules, {analysis.lines} lines"
    lines = [f"{counted}; {len(analysis.test_modules)} test modules" if analysis.test_modules else counted]
    lines += [f"- import cycle: {' → '.join(cycle)}" for cycle in analysis.cycles[:MOST_LISTED]]
    return lines


def modules(analysis: Analysis) -> list[str]:
    rows = []
    for module in analysis.modules[:60]:
        uses = ", ".join(f"`{name}`" for name in module.imports[:8])
        rows.append(f"- `{module.name}` ({module.lines} lines)" + (f" uses {uses}" if uses else ""))
    if len(analysis.modules) > 60:
        rows.append(f"- … and {len(analysis.modules) - 60} more")
    return rows


def untested(analysis: Analysis) -> list[str]:
    return [f"- `{name}` is imported by no test" for name in analysis.untested[:MOST_LISTED]]


def worth_changing(analysis: Analysis) -> list[str]:
    lines = [
        f"- `{one.file}`:{one.line} `{one.name}` is long or deep ({one.lines} lines, complexity {one.complexity})"
        for one in analysis.complex[:MOST_LISTED]
    ]
    lines += [f"- `{one.file}`:{one.line} {one.word}: {one_line(one.text)}" for one in analysis.todos[:MOST_LISTED]]
    return lines


def completion(texts: Mapping[str, str]) -> float:
    """Ticked of all task items under Objectives in PRIMARY and SECONDARY; 0 when there are none."""
    items = [item for name in (PRIMARY, SECONDARY) for item in markdown.task_items(texts.get(name, ""), OBJECTIVES)]
    return sum(item.ticked for item in items) / len(items) if items else 0.0


def achievements(draft: Plan) -> dict[str, str]:
    """MASTER_PLAN with a line for each objective reached that it does not name yet."""
    text = draft.texts[MASTER_PLAN]
    reached = [item.text for item in markdown.task_items(draft.texts[PRIMARY], OBJECTIVES) if item.ticked]
    old = markdown.section_text(text, ACHIEVEMENTS)
    new = [line for line in (f"- {title}" for title in reached) if line not in old]
    if not new:
        return {}
    body = "\n".join((old.strip("\n"), *new)).strip("\n")
    draft.decisions.append(f"MASTER_PLAN: {len(new)} achievement(s)")
    return {MASTER_PLAN: markdown.replace_section(text, ACHIEVEMENTS, body)}


def status_lines(draft: Plan, done: float) -> tuple[str, ...]:
    to: dict[str, int] = {}
    for post in draft.posts:
        to[post.to] = to.get(post.to, 0) + 1
    lines = [f"Objectives reached: {done:.0%}"]
    lines += [f"Decided: {decision}" for decision in draft.decisions[-MOST_LISTED:]]
    lines += [f"Allocated: {count} message(s) to {phase.capitalize()}" for phase, count in sorted(to.items())]
    if draft.blocked:
        lines.append("Waiting for the user: see Blockers")
    following = "QA" if "qa" in to else "Debugging" if "debugging" in to else "Developer" if "developer" in to else ""
    lines.append(f"Next phase recommended: {following}" if following else "Next phase recommended: none")
    return tuple(lines)


# --- The shell ------------------------------------------------------------------------------------------------------


class BuiltinPlanning:
    """Gathers the facts and calls `plan`; analyses the work branch once per commit of it."""

    def __init__(self) -> None:
        self._analysed: tuple[str, Analysis] | None = None

    async def perform(self, task: Task, context: Context) -> Outcome:
        desk = Desk(task, context)
        texts = desk.documents(MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY, ARCHITECTURE)
        parts = fresh(task)
        context.say("planning", 20, f"{len(parts)} message(s) to decide about")
        analysis = await self._analysis(desk, context) if any(part.kind == "Assess" for part in parts) else None
        described = specs(texts[TERTIARY])
        wanted = {part.thread for part in parts} | {thread_of(spec.title) for spec in described}
        threads = await desk.threads((*wanted, "architecture", "criteria"))
        outcome = plan(
            Facts(
                task=task,
                parts=parts,
                documents=texts,
                threads=threads,
                analysis=analysis,
                specs=described,
            )
        )
        context.say("planning", 90, one_line(outcome.detail))
        return replace(outcome, read=desk.read)

    async def _analysis(self, desk: Desk, context: Context) -> Analysis | None:
        head = await desk.head()
        if head is None:
            return None
        if self._analysed is None or self._analysed[0] != head:
            context.say("analyzing", 30, "reading the code base")
            self._analysed = (head, await desk.analyse(head))
        return self._analysed[1]
