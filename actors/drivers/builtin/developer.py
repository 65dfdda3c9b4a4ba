"""The built-in Developer: implements what TERTIARY_OBJECTIVES or the user's answer spells out, if the tests agree.

A unified diff, or fenced code that names its file, is applied in a tree of its own; the tests decide whether it stays.
What nobody has spelled out is not invented: it becomes a blocker that says exactly what is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync

from docs_store.messages import Draft, Message, Outcome, Task
from docs_store.topology import TERTIARY

from ...driver import Context
from .desk import Desk, fresh, last_finding, one_line
from .findings import Finding
from .fixes import as_green
from .implement import Applied, Change, Refused, Spec, apply, specs
from .inspection import KnownRuns, again, test
from .project import Project


class BuiltinDeveloper:
    """Works on one task at a time, in a tree of its own."""

    def __init__(self) -> None:
        self._runs = KnownRuns()

    async def perform(self, task: Task, context: Context) -> Outcome:
        desk = Desk(task, context)
        parts = fresh(task)
        described = specs(desk.documents(TERTIARY)[TERTIARY])
        thread = await desk.thread()
        spec = _spec(parts, thread, described)
        title = spec.title if spec is not None else one_line(_first(parts, thread))
        changes = _changes(parts, spec)
        head = await desk.head()
        if head is None:
            return Outcome(result="blocked", detail="There is no snapshot of the repository yet; start the run again.")
        finding = last_finding((*thread, *parts))
        if not changes and (finding is None or finding.tool != "pytest"):
            return _nothing_spelled_out(parts, thread, spec, title)
        tree = await desk.checkout(head)
        project = await desk.project(tree)
        if not changes:
            assert finding is not None
            return await self._look_again(desk, head, tree, project, finding, parts, thread, title)
        return await self._implement(desk, tree, project, head, title, spec, changes, parts, thread)

    async def _look_again(
        self,
        desk: Desk,
        head: str,
        tree: Path,
        project: Project,
        finding: Finding,
        parts: Sequence[Message],
        thread: Sequence[Message],
        title: str,
    ) -> Outcome:
        """Nothing is spelled out; perhaps the user has mended it by hand meanwhile."""
        desk.context.say("verifying", 30, f"again: {finding.data.get('id') or finding.file or finding.message}")
        there, _ = await again(desk, head, tree, project, finding, self._runs)
        if there is not None:
            return _nothing_spelled_out(parts, thread, None, title)
        return _already(f"what makes {finding.name} pass", None, thread)

    async def _implement(
        self,
        desk: Desk,
        tree: Path,
        project: Project,
        head: str,
        title: str,
        spec: Spec | None,
        changes: Sequence[Change],
        parts: Sequence[Message],
        thread: Sequence[Message],
    ) -> Outcome:
        say = desk.context.say
        before = await self._runs.at(desk, head, tree, project)
        say("implementing", 40, f"{len(changes)} change(s)")
        applied = await run_sync(lambda: apply(tree, changes, roots=project.source_roots))
        if isinstance(applied, Refused):
            return _refused(title, spec, applied, thread)
        say("verifying", 60, "the tests, over the change")
        after = await test(desk, tree, project)
        verdict = as_green(before, after)
        if not verdict.ok:
            return _not_green(title, spec, applied, verdict.reasons, thread)
        commit = await desk.context.commit(f"{title}\n\nFor {desk.task.id}.\n", applied.files)
        if commit is None:
            return _already(title, spec, thread)
        self._runs.remember(commit, after)
        return _implemented(title, spec, applied, commit, str(after), parts, thread)


def _spec(parts: Sequence[Message], thread: Sequence[Message], described: Sequence[Spec]) -> Spec | None:
    """The section of TERTIARY that a task is about: named by Planning, or by its title in the text or the finding."""
    by_title = {spec.title: spec for spec in described}
    for part in (*reversed(parts), *reversed(thread)):
        named = by_title.get(str(part.data.get("section", "")))
        if named is not None:
            return named
    finding = last_finding((*thread, *parts))
    for spec in described:
        if spec.ticked or not spec.changes:
            continue
        if any(spec.title.lower() in part.text.lower() for part in parts):
            return spec
        if finding is not None and finding.symbol and finding.symbol in spec.body:
            return spec
    return None


def _changes(parts: Sequence[Message], spec: Spec | None) -> tuple[Change, ...]:
    """What to apply: the user's latest answer beats what TERTIARY says."""
    for part in reversed(parts):
        for text in (str(part.data.get("answer", "")), part.text):
            found = _spelled_out(text)
            if found:
                return found
    return spec.changes if spec is not None else ()


def _spelled_out(text: str) -> tuple[Change, ...]:
    """The changes in a message's own text: a diff, or fenced code that names its file."""
    return tuple(change for spec in specs(f"## Answer\n\n{text}\n") for change in spec.changes)


def _first(parts: Sequence[Message], thread: Sequence[Message]) -> str:
    finding = last_finding((*thread, *parts))
    return finding.name if finding is not None else parts[0].text


# --- Outcomes -----------------------------------------------------------------------------------------------------


def _implemented(
    title: str,
    spec: Spec | None,
    applied: Applied,
    commit: str,
    tests: str,
    parts: Sequence[Message],
    thread: Sequence[Message],
) -> Outcome:
    files = list(applied.files)
    finding = last_finding((*thread, *parts))
    data = {
        "commit": commit,
        "files": files,
        **({"section": spec.title} if spec is not None else {}),
        **({"finding": finding.to_dict()} if finding is not None else {}),
    }
    posts = [
        Draft(to="planning", kind="Implemented", text=f"{title} ({', '.join(files)})", data=data),
        Draft(to="qa", kind="Review", text=f"{title}: {', '.join(files)}", priority="HIGH", data=data),
    ]
    if _was_blocked(thread):
        posts.insert(
            1, Draft(to="planning", kind="Resolved", text=f"{title}: what it was blocked by is there", data=data)
        )
    return Outcome(
        result="done",
        detail=f"implemented: {title} ({', '.join(files)})",
        report=(
            f"Implemented: {title}",
            f"Code changes: {', '.join(files)}",
            f"Decided: {'as TERTIARY_OBJECTIVES spells out' if spec is not None else 'as the user answered'}",
            f"Tests after it: {tests}",
        ),
        posts=tuple(posts),
        data={"commit": commit, "files": files},
    )


def _already(title: str, spec: Spec | None, thread: Sequence[Message]) -> Outcome:
    finding = last_finding(thread)
    data: dict[str, Any] = {
        **({"section": spec.title} if spec is not None else {}),
        **({"finding": finding.to_dict()} if finding is not None else {}),
    }
    text = f"{title} is already there"
    posts = [
        Draft(to="planning", kind="Implemented", text=text, data=data),
        Draft(to="qa", kind="Review", text=text, data=data),
    ]
    if _was_blocked(thread):
        posts.insert(1, Draft(to="planning", kind="Resolved", text=text, data=data))
    return Outcome(
        result="done", detail=f"already there: {title}", report=(f"Already there: {title}",), posts=tuple(posts)
    )


def _was_blocked(thread: Sequence[Message]) -> bool:
    return any(message.kind == "Blocker" and message.by == "developer" for message in thread)


def _refused(title: str, spec: Spec | None, refused: Refused, thread: Sequence[Message]) -> Outcome:
    needs = ", ".join(refused.needs)
    why = f"it needs {needs}, which is not there" if refused.needs else refused.reason
    request = (
        f"{title} cannot be implemented as spelled out: {refused.reason}. Correct the example in "
        "TERTIARY_OBJECTIVES.md, or answer with a diff."
    )
    return _blocked(title, why, request, spec, thread, needs=refused.needs)


def _not_green(
    title: str, spec: Spec | None, applied: Applied, reasons: Sequence[str], thread: Sequence[Message]
) -> Outcome:
    why = "; ".join(reasons)
    request = (
        f"{title} was implemented as spelled out ({', '.join(applied.files)}) and undone, since {why}. Correct the "
        "example in TERTIARY_OBJECTIVES.md, or answer with a diff."
    )
    return _blocked(title, f"undone, since {why}", request, spec, thread)


def _nothing_spelled_out(parts: Sequence[Message], thread: Sequence[Message], spec: Spec | None, title: str) -> Outcome:
    finding = last_finding((*thread, *parts))
    cause: Mapping[str, Any] = next(
        (m.data["cause"] for m in reversed(thread) if isinstance(m.data.get("cause"), dict)), {}
    )
    where = _blamed(cause) or (finding.place if finding is not None else "")
    request = " ".join(
        word
        for word in (
            f"{finding if finding is not None else title}.",
            str(cause.get("text", "")),
            "Nobody has spelled out the change, and the built-in crew does not guess.",
            f"Correct it yourself (start at {where})," if where else "Make the change yourself,",
            "or answer with a diff or with fenced code that names its file,",
            "or describe it in a section of TERTIARY_OBJECTIVES.md.",
        )
        if word
    )
    return _blocked(title, "nobody has spelled out the change", request, spec, thread)


def _blamed(cause: Mapping[str, Any]) -> str:
    """The place that an explanation points at: code of the project before the test that shows it."""
    for place in (*cause.get("suspects", ()), cause.get("where")):
        if isinstance(place, dict) and place.get("file"):
            return f"{place['file']}:{place.get('line', 0)}"
    return ""


def _blocked(
    title: str,
    why: str,
    request: str,
    spec: Spec | None,
    thread: Sequence[Message],
    *,
    needs: Sequence[str] = (),
) -> Outcome:
    finding = last_finding(thread)
    data = {
        "request": request,
        "needs": list(needs),
        **({"section": spec.title} if spec is not None else {}),
        **({"finding": finding.to_dict()} if finding is not None else {}),
    }
    return Outcome(
        result="done",
        detail=f"blocked, reported to Planning: {title}: {why}",
        report=(f"Blocked: {title}", f"Why: {why}"),
        posts=(Draft(to="planning", kind="Blocker", text=f"{title}: {why}", priority="HIGH", data=data),),
    )
