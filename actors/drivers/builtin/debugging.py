"""The built-in Debugging: safe fixes, kept only if the tests stay as green as they were; explanations for the rest.

Lint findings with a safe fix are fixed. A failing test is run again; where a safe fix of the code it runs through makes
it pass, that is the fix. What is left is explained (failing frame, expression, last change of the line) and handed to
Developer; what no tool of ours can decide waits for the user, with a clear request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio.to_thread import run_sync

from docs_store.messages import Draft, Message, Outcome, Task

from ...driver import Context
from .checks import TestRun, run_ruff
from .desk import Desk, fresh, last_finding, one_line
from .explain import Cause, explain
from .findings import Finding
from .fixes import as_green, safe_fixes
from .inspection import KnownRuns, again, as_it_is, inspect, test
from .project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A change that stays: its commit, and the files it touched."""

    commit: str
    files: tuple[str, ...]
    tests: TestRun


class BuiltinDebugging:
    """Works on one finding at a time, in a tree of its own."""

    def __init__(self) -> None:
        self._runs = KnownRuns()

    async def perform(self, task: Task, context: Context) -> Outcome:
        desk = Desk(task, context)
        parts = fresh(task)
        head = await desk.head()
        if head is None:
            return Outcome(result="blocked", detail="There is no snapshot of the repository yet; start the run again.")
        tree = await desk.checkout(head)
        project = await desk.project(tree)
        thread = await desk.thread()
        if crossed(parts, thread):
            said = f"answered before it came: {one_line(parts[-1].text)}"
            return Outcome(result="done", detail=said, report=(f"{said[0].upper()}{said[1:]}",))
        finding = last_finding(parts) or last_finding(thread) or await self._guess(desk, head, tree, project)
        if finding is None:
            return _hand_on(parts)
        if finding.tool == "ruff":
            return await self._lint(desk, head, tree, project, finding)
        return await self._test(desk, head, tree, project, finding)

    # -- lint

    async def _lint(self, desk: Desk, head: str, tree: Path, project: Project, finding: Finding) -> Outcome:
        desk.context.say("fixing", 10, f"safe fixes for {finding.rule}")
        before = await self._runs.at(desk, head, tree, project)
        there = [f for f in (await run_ruff(project, tree)).findings if _belongs(f, finding)]
        if not there:
            return _gone(finding, "it is not there any more")
        fixed = await safe_fixes(project, tree, there)
        if not fixed.files:
            return _ask(finding, "ruff has no safe fix for it")
        note = f"Fix {finding.rule} in {_where(finding)}"
        kept = await self._keep_if_green(desk, tree, project, before, note, fixed.files)
        if isinstance(kept, str):
            return _ask(finding, f"the safe fix was undone, since {kept}")
        left = [f for f in there if f not in fixed.gone]
        if left:
            return _fixed(finding, kept, f"{places(len(fixed.gone))} of {len(there)}; the rest has no safe fix")
        return _fixed(finding, kept, places(len(fixed.gone)))

    async def _keep_if_green(
        self, desk: Desk, tree: Path, project: Project, before: TestRun, note: str, files: Sequence[str]
    ) -> Kept | str:
        """Run the tests over the change; commit it if they are as green as before, else say why not."""
        desk.context.say("verifying", 50, "the tests, over the change")
        after = await test(desk, tree, project)
        verdict = as_green(before, after)
        if not verdict.ok:
            return "; ".join(verdict.reasons)
        commit = await desk.context.commit(note, files)
        if commit is None:
            return "it changed nothing"
        self._runs.remember(commit, after)
        return Kept(commit=commit, files=tuple(files), tests=after)

    # -- tests

    async def _test(self, desk: Desk, head: str, tree: Path, project: Project, finding: Finding) -> Outcome:
        desk.context.say("investigating", 10, f"again: {finding.data.get('id') or finding.file or finding.message}")
        there, run = await again(desk, head, tree, project, finding, self._runs)
        if there is None:
            return _gone(finding, f"it passes now: {run}")
        cause = await run_sync(lambda: explain(there, tree, last_change=desk.context.trees.last_change))
        fixed = await self._by_safe_fixes(desk, head, tree, project, there, cause)
        if fixed is not None:
            return _fixed(finding, fixed, "a safe fix of the code it runs through makes it pass")
        return _explained(there, cause)

    async def _by_safe_fixes(
        self, desk: Desk, head: str, tree: Path, project: Project, finding: Finding, cause: Cause
    ) -> Kept | None:
        """Try the safe fixes of the files that the failing test runs through."""
        files = _through(finding, cause, project)
        if not files:
            return None
        lint = await run_ruff(project, tree, paths=files)
        if not lint.fixable:
            return None
        desk.context.say("fixing", 30, f"safe fixes in {', '.join(files)}")
        before = await self._runs.at(desk, head, tree, project)
        fixed = await safe_fixes(project, tree, lint.fixable)
        if not fixed.files:
            return None
        concerned = str(finding.data.get("id", "")) or finding.file
        if as_it_is(finding, await test(desk, tree, project, concerned)) is not None:
            return None
        note = f"Make {finding.symbol or finding.file} pass"
        kept = await self._keep_if_green(desk, tree, project, before, note, fixed.files)
        return None if isinstance(kept, str) else kept

    async def _guess(self, desk: Desk, head: str, tree: Path, project: Project) -> Finding | None:
        """A message in a person's own words: the finding that it names, if it names one."""
        words = desk.task.message.text
        inspection = await inspect(desk, head, tree, project)
        named = [
            finding
            for finding in inspection.problems
            if (finding.symbol and finding.symbol in words) or (finding.file and finding.file in words)
        ]
        await desk.checkout(head)
        return named[0] if len(named) == 1 else None


def crossed(parts: Sequence[Message], thread: Sequence[Message]) -> bool:
    """Whether all that is new is Planning's request for what we have reported on since: the two letters crossed."""
    ours = max((m.n for m in thread if m.by == "debugging"), default=0)
    return bool(parts) and all(
        part.kind == "Fix" and part.by == "planning" and not part.data.get("answer") and part.n < ours for part in parts
    )


def _belongs(found: Finding, group: Finding) -> bool:
    return found.rule == group.rule and (not group.file or found.file == group.file)


def places(count: int) -> str:
    return "one place fixed" if count == 1 else f"{count} places fixed"


def _where(finding: Finding) -> str:
    return finding.file or f"{len(finding.data.get('files', ()))} files"


def _through(finding: Finding, cause: Cause, project: Project) -> tuple[str, ...]:
    """The project's own files in the traceback, innermost first, and those that made a value the test refuses."""
    frames = [frame for frame in finding.data.get("frames", ()) if frame.get("inside")]
    files = [str(frame.get("file", "")) for frame in reversed(frames)]
    files += [place.file for place in cause.suspects]
    return tuple(name for name in dict.fromkeys(files) if name in {*project.modules, *project.tests})


# --- Outcomes -----------------------------------------------------------------------------------------------------


def _fixed(finding: Finding, kept: Kept, how: str) -> Outcome:
    files = ", ".join(kept.files)
    data = {"finding": finding.to_dict(), "commit": kept.commit, "files": list(kept.files)}
    return Outcome(
        result="done",
        detail=f"fixed {finding.name}: {how} ({files})",
        report=(
            f"Fixed: {one_line(str(finding))}",
            f"How: {how}",
            f"Files: {files}",
            f"Tests after it: {kept.tests}",
        ),
        posts=(
            Draft(to="qa", kind="Verify", text=f"{finding.name}: {how} ({files})", priority="HIGH", data=data),
            Draft(to="planning", kind="Fixed", text=f"{finding.name}: {how} ({files})", data=data),
        ),
        data={"commit": kept.commit, "finding": finding.fingerprint, "files": list(kept.files)},
    )


def _gone(finding: Finding, why: str) -> Outcome:
    data = {"finding": finding.to_dict()}
    return Outcome(
        result="done",
        detail=f"nothing left to fix, {finding.name}: {why}",
        report=(f"Nothing left to fix: {one_line(str(finding))}", f"Why: {why}"),
        posts=(
            Draft(to="qa", kind="Verify", text=f"{finding.name}: {why}", data=data),
            Draft(to="planning", kind="Fixed", text=f"{finding.name}: {why}", data=data),
        ),
    )


def _explained(finding: Finding, cause: Cause) -> Outcome:
    data = {"finding": finding.to_dict(), "cause": cause.to_dict()}
    return Outcome(
        result="done",
        detail=f"root cause of {finding.name}: {one_line(cause.text, 400)} Handed to Developer.",
        report=(
            f"Root cause: {one_line(str(finding))}",
            f"Why: {cause.text}",
            "Remaining: the fix is a change of behaviour, which Developer decides about",
        ),
        posts=(Draft(to="developer", kind="Issue", text=f"{finding}\n\n{cause.text}", priority="HIGH", data=data),),
    )


def _ask(finding: Finding, why: str) -> Outcome:
    """No tool of ours may decide this: Planning puts it to the user."""
    allow = "" if finding.severity == "error" else " (or allow it in the linter's configuration)"
    request = (
        f"{finding}: {why}. Change {_where(finding)} yourself{allow} and tick this off; or answer with a diff that "
        "Developer should apply."
    )
    data = {"finding": finding.to_dict(), "request": request}
    return Outcome(
        result="done",
        detail=f"not fixed, {finding.name}: {why}",
        report=(f"Remaining: {one_line(str(finding))}", f"Why: {why}"),
        posts=(Draft(to="planning", kind="Blocker", text=f"{finding.name}: {why}", data=data),),
    )


def _hand_on(parts: Sequence[Message]) -> Outcome:
    """Nothing that our tools know: Developer is the one who can change behaviour."""
    text = "\n\n".join(part.text for part in parts)
    return Outcome(
        result="done",
        detail="nothing that tests or linter show; handed to Developer",
        report=(f"Handed to Developer: {one_line(text)}",),
        posts=(Draft(to="developer", kind="Issue", text=text, priority=parts[-1].priority),),
    )
