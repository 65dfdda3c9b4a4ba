"""The built-in QA: runs the project's tests and ruff on the work branch, reports what is wrong, approves what is right.

`review` is the decision, a pure function; `BuiltinQA` checks out the branch into a tree of its own and runs the tools,
once per commit. A finding is reported once while anything about it is unfinished.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from docs_store.messages import UNFINISHED, Draft, Message, Outcome, Priority, Task

from ...driver import Context
from .desk import Desk, fresh, one_line
from .findings import Finding
from .inspection import Inspection, inspect

MOST_REPORTED = 40  # findings in one cycle; the rest is found again when these are dealt with
MOST_REFUSALS = 3  # of one thread's fixes, before a person is asked
KEPT = 4  # inspections kept in memory
_CLIPPED = 6000  # characters of evidence in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a review knows. `threads` holds the messages of every finding's thread, `refusals` those of the task's."""

    task: Task
    parts: tuple[Message, ...]
    inspection: Inspection
    threads: Mapping[str, tuple[Message, ...]]
    waiting: tuple[Finding, ...] = ()  # findings about which somebody waits for the user
    refusals: int = 0
    notes: tuple[str, ...] = ()


def review(facts: Facts) -> Outcome:
    """Judge what was asked for, report what is new."""
    asked = next((part for part in reversed(facts.parts) if part.kind in ("Verify", "Review")), None)
    if asked is not None and (asked.data.get("commit") or asked.data.get("finding") or asked.data.get("section")):
        return _judge(facts, asked)
    return _assess(facts)


def _assess(facts: Facts) -> Outcome:
    """Everything that was found and nobody works on yet, to Debugging and Planning."""
    posts, new = _news(facts)
    known = len(facts.inspection.problems) - new
    clean = not facts.inspection.problems
    if clean:
        posts = (*posts, Draft(to="planning", kind="Approved", text=f"Everything is in order: {facts.inspection}"))
    detail = f"{facts.inspection}; {new} new finding(s) reported" + (f", {known} known" if known else "")
    return Outcome(
        result="done",
        detail=detail,
        report=_status(facts, "approved" if clean else f"not approved: {len(facts.inspection.problems)} finding(s)"),
        posts=posts,
        data={"approved": clean, "commits": [], "tree": facts.inspection.commit},
    )


def _judge(facts: Facts, asked: Message) -> Outcome:
    """Whether a fix or an implementation is what it should be; anything else that is new is reported as well."""
    wrong = _wrong_with(facts, asked)
    posts, _ = _news(facts)
    commits = [str(part.data["commit"]) for part in facts.parts if part.data.get("commit")]
    subject = _subject(asked)
    if not wrong:
        approval = Draft(
            to="planning",
            kind="Approved",
            text=f"{subject}: {facts.inspection.tests}",
            thread=asked.thread,
            re=asked.id,
            data={"commits": commits, **({"section": asked.data["section"]} if asked.data.get("section") else {})},
        )
        return Outcome(
            result="done",
            detail=f"approved: {subject}",
            report=_status(facts, f"approved: {subject}"),
            posts=(approval, *posts),
            data={"approved": True, "commits": commits, "tree": facts.inspection.commit},
        )
    refusal = _refusal(facts, asked, subject, wrong)
    return Outcome(
        result="done",
        detail=f"not approved: {subject}: {wrong}",
        report=_status(facts, f"not approved: {subject}"),
        posts=(refusal, *posts),
        data={"approved": False, "commits": [], "tree": facts.inspection.commit},
    )


def _subject(asked: Message) -> str:
    """What is judged, in a few words."""
    if asked.data.get("section"):
        return str(asked.data["section"])
    found = asked.data.get("finding")
    return Finding.from_dict(found).name if isinstance(found, Mapping) else one_line(asked.text)


def _refusal(facts: Facts, asked: Message, subject: str, wrong: str) -> Draft:
    data = {key: asked.data[key] for key in ("finding", "section") if key in asked.data}
    if facts.refusals + 1 >= MOST_REFUSALS:
        request = f"{subject} was fixed {facts.refusals + 1} times and is still not right: {wrong}. Say how to go on."
        return Draft(
            to="planning",
            kind="Blocker",
            text=request,
            priority="HIGH",
            thread=asked.thread,
            re=asked.id,
            data={**data, "request": request},
        )
    receiver = "developer" if asked.by == "developer" else "debugging"
    return Draft(
        to=receiver,
        kind="Issue",
        text=f"{subject}: {wrong}",
        priority="HIGH",
        thread=asked.thread,
        re=asked.id,
        data=data,
    )


def _wrong_with(facts: Facts, asked: Message) -> str:
    """Why this is not approved; "" if nothing speaks against it."""
    found = asked.data.get("finding")
    if isinstance(found, Mapping):
        fingerprint = Finding.from_dict(found).fingerprint
        if facts.inspection.has(fingerprint):
            return "it is still there"
        return ""
    touched = {str(name) for name in asked.data.get("files", ())}
    bad = [f for f in facts.inspection.problems if f.file in touched and f.severity == "error"]
    if bad:
        return "; ".join(str(finding) for finding in bad[:3])
    if facts.inspection.tests.status in ("not started", "timed out"):
        return str(facts.inspection.tests)
    return ""


def _news(facts: Facts) -> tuple[tuple[Draft, ...], int]:
    """Messages about findings of which nothing is unfinished: to Debugging (unless it is a note) and to Planning."""
    posts: list[Draft] = []
    new = 0
    asked = {part.thread for part in facts.parts}
    if facts.inspection.tests.status != "not started":
        for finding in facts.waiting:  # mended by hand, or by the fix of something else
            thread = finding.fingerprint
            if thread not in asked and not facts.inspection.has(thread):
                posts.append(
                    Draft(to="planning", kind="Approved", text=f"{finding.name} is not there any more", thread=thread)
                )
    for finding in facts.inspection.findings:
        thread = finding.fingerprint
        if thread in asked or any(m.status in UNFINISHED for m in facts.threads.get(thread, ())):
            continue
        if finding.severity == "note" and facts.threads.get(thread):
            continue  # said once
        new += finding.severity != "note"
        if new > MOST_REPORTED:
            break
        data = {"finding": finding.to_dict()}
        priority = priority_of(finding)
        if finding.severity != "note":
            text = told(finding)
            posts.append(Draft(to="debugging", kind="Issue", text=text, priority=priority, thread=thread, data=data))
        posts.append(Draft(to="planning", kind="Issue", text=str(finding), priority=priority, thread=thread, data=data))
    return tuple(posts), new


def priority_of(finding: Finding) -> Priority:
    """Errors (a failing test, a file that cannot be imported) come first, notes last."""
    if finding.severity == "error":
        return "HIGH"
    return "MEDIUM" if finding.severity == "warning" else "LOW"


def told(finding: Finding) -> str:
    """A finding with its evidence, as a message."""
    evidence = finding.detail.strip()
    if len(evidence) > _CLIPPED:
        evidence = f"… {evidence[-_CLIPPED:]}"
    return f"{finding}\n\n{evidence}" if evidence else str(finding)


def _status(facts: Facts, approval: str) -> tuple[str, ...]:
    tests = facts.inspection.tests
    found = [str(finding) for finding in facts.inspection.problems[:10]]
    more = len(facts.inspection.problems) - len(found)
    return (
        f"Approval: {approval}",
        f"Tests: {tests}",
        f"Lint: {len(facts.inspection.lint.findings)} finding(s)",
        *(f"Found: {one_line(text)}" for text in found),
        *((f"… and {more} more",) if more > 0 else ()),
        *(f"Note: {note}" for note in facts.notes),
    )


class BuiltinQA:
    """Checks out the branch, runs the tools once per commit, and calls `review`."""

    def __init__(self) -> None:
        self._inspected: OrderedDict[str, tuple[Inspection, tuple[str, ...]]] = OrderedDict()
        self._told: set[str] = set()  # findings of the last inspection: the events name what is new

    async def perform(self, task: Task, context: Context) -> Outcome:
        desk = Desk(task, context)
        parts = fresh(task)
        head = await desk.head()
        if head is None:
            return Outcome(result="blocked", detail="There is no snapshot of the repository yet; start the run again.")
        inspection, notes = await self._inspection(desk, head)
        threads = await desk.threads(finding.fingerprint for finding in inspection.findings)
        refusals = context.mailbox.mailbox.refused_fixes(task.thread)
        return review(
            Facts(
                task=task,
                parts=parts,
                inspection=inspection,
                threads=threads,
                waiting=await desk.waiting_findings(),
                refusals=refusals,
                notes=notes,
            )
        )

    async def _inspection(self, desk: Desk, head: str) -> tuple[Inspection, tuple[str, ...]]:
        if head not in self._inspected:
            desk.context.say("reviewing", 3, "checking out the work branch")
            tree = await desk.checkout(head)
            project = await desk.project(tree)
            inspection = await inspect(desk, head, tree, project)
            new = [finding for finding in inspection.problems if finding.fingerprint not in self._told]
            for finding in new[:MOST_REPORTED]:
                desk.context.say("reviewing", 90, str(finding), type="finding", summary=finding.to_dict())
            self._told = {finding.fingerprint for finding in inspection.problems}
            self._inspected[head] = (inspection, project.notes)
            while len(self._inspected) > KEPT:
                self._inspected.popitem(last=False)
        return self._inspected[head]
