"""What the crew changed in the user's files, from the history; and taking such a change back through the same door.

Which change is whose and whether it was delivered, the history says; what is in it, and what may be written where,
`actors.trees` does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from docs_store.messages import USER, State

from .exits import Exit, UsageError, UserError
from .workspace import Workspace

if TYPE_CHECKING:
    from actors.trees import Trees
    from docs_store.store import Store

ChangeState = Literal["made", "delivered", "partly delivered", "not delivered", "taken back"]


class UndoConflictError(UserError):
    """The change cannot be taken out any more without touching what came after it."""

    exit = Exit.WORK_REMAINS


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewChange:
    """One change. `files` were written into the user's files, `conflicts` left as the user has them, with the reason.

    "made" is not approved, or approved and still to be delivered.
    """

    task: str
    phase: str
    commit: str
    at: str
    note: str
    state: ChangeState = "made"
    files: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def listed(state: State) -> tuple[CrewChange, ...]:
    """Every change that the crew reported, oldest first."""
    made: dict[str, CrewChange] = {}
    for report in state.reports:
        commit = str(report.data.get("commit") or "")
        if commit and report.phase != "qa":
            made.setdefault(
                commit,
                CrewChange(task=report.task, phase=report.phase, commit=commit, at=report.at, note=report.detail),
            )
    for delivery in state.deliveries:
        commit = str(delivery.get("undoes") or delivery.get("commit") or "")
        files = tuple(map(str, delivery.get("written", ())))
        conflicts = tuple(map(str, delivery.get("conflicts", ())))
        known = made.get(commit) or CrewChange(
            task=str(delivery.get("task", "")),
            phase="",
            commit=commit,
            at=str(delivery.get("at", "")),
            note=str(delivery.get("note", "")),
        )
        if delivery.get("undoes"):
            made[commit] = known if conflicts else replace(known, state="taken back")
            continue
        verdict: ChangeState = "delivered"
        if conflicts:
            verdict = "partly delivered" if files else "not delivered"
        made[commit] = replace(known, state=verdict, files=files, conflicts=conflicts)
    return tuple(made.values())


def chosen(made: tuple[CrewChange, ...], word: str) -> tuple[CrewChange, ...]:
    """The changes of the task (or the one commit) that the word begins; raises `UsageError`."""
    found = [change for change in made if word in {change.task, change.commit}]
    found = found or [change for change in made if word and (change.task + " ").startswith(word)]
    found = found or [change for change in made if len(word) >= 6 and change.commit.startswith(word)]
    if not found:
        raise UsageError(f"the crew has no change of a task {word!r}; `supervisor changes` lists them")
    tasks = dict.fromkeys(change.task for change in found)
    if len(tasks) > 1:
        raise UsageError(f"{word!r} begins the tasks {', '.join(list(tasks)[:5])}; type more of it")
    return tuple(found)


def diff(workspace: Workspace, made: tuple[CrewChange, ...], word: str) -> str:
    """What the task's changes did, as unified diffs, oldest first."""
    trees = _trees(workspace)
    return "\n".join(_diff(trees, change) for change in chosen(made, word))


def _diff(trees: Trees, change: CrewChange) -> str:
    log = trees.log(change.commit, most=2)
    if len(log) < 2:
        return f"{change.commit[:12]} is a beginning; it changed nothing"
    return f"# {change.commit[:12]} {change.phase}: {change.note}\n{trees.diff(log[1].commit, change.commit)}"


def take_back(workspace: Workspace, store: Store, word: str) -> CrewChange:
    """Take the task's delivered changes out of the user's files, newest first, each on record.

    Raises `UndoConflictError` where later changes of the same lines stand in the way: then nothing was touched.
    """
    from actors.trees import Conflict

    trees = _trees(workspace)
    with trees.lock():  # the lock order is always trees before store
        store.refresh()
        changes = chosen(listed(store.state), word)
        delivered = [change for change in changes if change.state in {"delivered", "partly delivered"}]
        if not delivered:
            raise UsageError(f"{changes[0].task} is {changes[-1].state}; there is nothing of it to take back")
        base = trees.snapshot(f"before undo of {delivered[0].task}").commit
        target = base
        for change in reversed(delivered):
            merged = trees.revert(target, change.commit)
            if isinstance(merged, Conflict):
                raise UndoConflictError(
                    f"{change.task} cannot be taken back: {', '.join(merged.paths)} was changed again since. "
                    f"`supervisor changes {change.task}` shows the change; take out by hand what you do not want"
                )
            target = merged.head
        done = trees.deliver(base, target)
        problems = tuple(f"{problem.path}: {problem.why}" for problem in done.conflicts)
        for change in reversed(delivered):
            store.record_delivery(
                {
                    "commit": f"undo-{change.commit}",
                    "undoes": change.commit,
                    "by": USER,
                    "task": change.task,
                    "head": target,
                    "note": f"taken back: {change.note}",
                    "written": list(done.written),
                    "conflicts": list(problems),
                }
            )
    return replace(delivered[-1], state="taken back", files=done.written, conflicts=problems)


def _trees(workspace: Workspace) -> Trees:
    from actors.trees import Trees as Shadow

    return Shadow.open(workspace.root, workspace.state)
