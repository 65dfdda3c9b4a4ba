"""The supervisor's hands on the documents and the work branch: views, hand edits, snapshots, delivery.

Everything here blocks and belongs to one thread, which the crew's owner calls with `anyio.to_thread`; the lock order is
always trees before store. What to do and when is the owner's; what a delivery may touch is `actors.trees`'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.trees import Conflict, MissingCommitError, Snapshot
from actors.trees_process import TreesProcess
from docs_store.errors import StoreError
from docs_store.messages import SUPERVISOR, Draft, Question, Report, State, Status
from docs_store.reconcile import Reconciler
from docs_store.replay import at_work
from docs_store.store import Store
from docs_store.topology import Topology

from .workspace import Workspace

SETTLE = 5.0  # seconds at the start for files that are just being saved
ASSESSORS = ("planning", "qa")  # and the phases of the user's own that want it


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the documents brought: edits taken in, views that cannot be written, what the history says."""

    head: int
    imported: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    undelivered: int = 0
    paused: frozenset[str] = frozenset()
    dirty: tuple[str, ...] = ()  # files that lag behind the history, for whatever reason


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFacts:
    """What the end of a run depends on, taken in one hold of the store's lock."""

    head: int
    claimed: tuple[str, ...]
    views_clean: bool
    undelivered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One approved change brought into the user's files; `conflicts` are the files left as the user has them."""

    commit: str
    task: str
    note: str
    written: tuple[str, ...]
    conflicts: tuple[str, ...]


class Documents:
    """One workspace's documents and work branch, as the supervisor handles them."""

    def __init__(self, store: Store, reconciler: Reconciler, trees: TreesProcess) -> None:
        self.store = store
        self.reconciler = reconciler
        self.trees = trees
        self._undelivered: tuple[tuple[Report, str], ...] = ()
        self._approvals_of = 0  # the record up to which `_undelivered` is right
        self._taken = ""  # the last snapshot of ours

    @classmethod
    def open(cls, workspace: Workspace, topology: Topology, *, marks: Mapping[str, str] | None = None) -> Documents:
        """Open or create the store; raises `StoreError` with what is wrong with it. `marks` find what it starts."""
        store = Store.open(workspace.crew, topology=topology, head_file=workspace.head)
        return cls(
            store=store,
            reconciler=Reconciler(store, workspace.crew),
            trees=TreesProcess(workspace.root, workspace.state, marks=marks),
        )

    def close(self) -> None:
        """End what was started for the work branch."""
        self.trees.close()

    # -- views and hand edits

    def start(self) -> Look:
        """Import what was edited or left lying about since the last run, then bring everything up to date."""
        self.reconciler.start()
        first = self.reconciler.settle(SETTLE)
        look = self.look()
        imported = tuple(dict.fromkeys((*first.imported, *look.imported)))
        return replace(look, imported=imported)

    def look(self) -> Look:
        """Import edits that have settled, write views that are behind."""
        self.store.refresh()
        step = self.reconciler.step(time.monotonic())
        state = self.store.refresh()
        return Look(
            head=state.n,
            imported=tuple(step.imported),
            problems=tuple(str(problem) for problem in step.problems),
            undelivered=len(self.undelivered()),
            paused=frozenset(phase for phase, epoch in state.epochs.items() if epoch.paused),
            dirty=tuple(sorted({*step.waiting, *(problem.file for problem in step.problems)})),
        )

    def head(self) -> int:
        """The history's last record, read from disk."""
        return self.store.refresh().n

    # -- the beginning of a run

    def snapshot(self, note: str, *, on_progress: Callable[[int, int], None] | None = None) -> Snapshot | None:
        """Take the user's files as they are into the work branch; None when nothing has changed since.

        Where the user's changes and the crew's undelivered work do not go together, the user's files win: the work
        branch starts anew from them, and Planning is told which commits that leaves behind.
        """
        if self._taken and self._taken == self.store.refresh().snapshot == self.trees.unchanged_since():
            return None
        with self.trees.lock():
            taken = self.trees.snapshot(note, on_progress=on_progress)
            state = self.store.refresh()
            lost = state.tree is not None and not self.trees.exists(state.tree)  # the shadow repository was removed
            state_tree = None if lost else state.tree
            if taken.commit == state.snapshot and state_tree is not None:
                self._settle(state_tree)
                self._taken = taken.commit
                return None
            head: str = taken.commit
            left: tuple[str, ...] = ()
            if state_tree is not None:
                merged = self.trees.merge(state_tree, taken.commit)
                if isinstance(merged, Conflict):
                    left = merged.paths
                else:
                    head = merged.head
            self.store.record_tree(head=head, snapshot=taken.commit, note=note)
            self._settle(head)
            self._taken = taken.commit
        if left:
            self.store.post(SUPERVISOR, _left_behind(left, taken.commit), id=f"left.{taken.commit[:16]}")
        return taken

    def _settle(self, head: str) -> None:
        """The history says where the branch is; the ref follows, whoever died in between."""
        if self.trees.head != head:
            self.trees.set_head(head)

    def assess(self, run: str, why: str, phases: Iterable[str] = ASSESSORS) -> None:
        """Ask phases to look at everything: at the start of a run, and when files or objectives change. Asks once."""
        known = {phase.key for phase in self.store.topology.phases}
        for phase in phases:
            if phase in known:
                draft = Draft(to=phase, kind="Assess", text=why, thread=f"assess-{run}-{phase}")
                self.store.post(SUPERVISOR, draft, id=f"assess.{run}.{phase}")

    def assess_one(self, phase: str, why: str) -> None:
        """Ask a phase to look at everything again; while the last such request is open, this one joins it."""
        self.store.post(SUPERVISOR, Draft(to=phase, kind="Assess", text=why, thread=f"interval-{phase}"))

    # -- delivery

    def undelivered(self, state: State | None = None) -> tuple[tuple[Report, str], ...]:
        """What QA approved and the user's files do not have yet, oldest first: report and commit."""
        state = state or self.store.state
        if state.n != self._approvals_of:  # asked for at every look: only what is new is gone through
            new = (
                (report, commit) for report in state.reports.since(self._approvals_of) for commit in approved(report)
            )
            found = (*self._undelivered, *new)
            done = {str(delivery.get("commit")) for delivery in state.deliveries} if found else set()
            self._undelivered = tuple(pair for pair in found if pair[1] not in done)
            self._approvals_of = state.n
        return self._undelivered

    def deliver(self) -> tuple[Delivered, ...]:
        """Bring every approved change into the user's files, each as one record; conflicts go to the inbox."""
        made: list[Delivered] = []
        self.store.refresh()
        for report, commit in self.undelivered():
            if any(one.commit == commit for one in made):
                continue
            made.append(self._deliver_one(report, commit))
        return tuple(made)

    def _deliver_one(self, report: Report, commit: str) -> Delivered:
        with self.trees.lock():
            base = self.store.refresh().snapshot or self.trees.snapshot("before delivery").commit
            note, head = "", base
            written: tuple[str, ...] = ()
            problems: tuple[str, ...] = ()
            try:
                picked = self.trees.cherry_pick(base, commit)
                note = next((change.note for change in self.trees.log(commit, most=1)), "")
            except MissingCommitError as error:
                problems = (str(error),)
                picked = None
            if isinstance(picked, Conflict):
                problems = tuple(f"{path}: changed by you since" for path in picked.paths)
            elif picked is not None:
                done = self.trees.deliver(base, picked.head)
                written, head = done.written, picked.head
                problems = tuple(f"{problem.path}: {problem.why}" for problem in done.conflicts)
            self.store.record_delivery(
                {
                    "commit": commit,
                    "task": report.task,
                    "head": head,
                    "note": note,
                    "written": list(written),
                    "conflicts": list(problems),
                }
            )
            if problems:
                self.store.ask(_conflict(commit, report, problems))
        self.snapshot("after delivery")
        return Delivered(commit=commit, task=report.task, note=note, written=written, conflicts=problems)

    # -- the end

    def end_facts(self, living: Mapping[str, int]) -> EndFacts:
        """Look at views, then heads and claims, in one hold of the lock. `living` maps phases to live epochs."""
        with self.store.hold():
            state = self.store.refresh()
            clean = self.reconciler.clean()
            claimed = tuple(
                message.id
                for message in at_work(state)
                if message.status is Status.CLAIMED and living.get(message.to) == message.holder
            )
            return EndFacts(head=state.n, claimed=claimed, views_clean=clean, undelivered=len(self.undelivered(state)))

    def last_epochs(self) -> dict[str, int]:
        """The greatest epoch of each phase that the history knows."""
        return {phase: epoch.number for phase, epoch in self.store.state.epochs.items()}

    def reports_of(self, phase: str, epoch: int) -> tuple[Report, ...]:
        """The finish records of one epoch: each must have its event."""
        self.store.refresh()
        return tuple(r for r in self.store.state.reports if r.phase == phase and r.epoch == epoch)


def approved(report: Report) -> tuple[str, ...]:
    """The commits that a report of QA approves; none if it refuses or speaks of nothing."""
    commits = report.data.get("commits", ())
    if report.late or not report.data.get("approved") or not isinstance(commits, Collection):
        return ()
    return tuple(str(commit) for commit in commits)


def unapproved(state: State) -> tuple[str, ...]:
    """Commits that were reported and that QA has neither approved nor the user decided about."""
    made = _commits(report for report in state.reports if report.tree is not None)
    judged = {commit for report in state.reports for commit in approved(report)}
    return tuple(commit for commit in made if commit not in judged)


def _commits(reports: Iterable[Report]) -> tuple[str, ...]:
    return tuple(str(report.data["commit"]) for report in reports if report.data.get("commit"))


def _left_behind(paths: tuple[str, ...], commit: str) -> Draft:
    files = ", ".join(paths[:10]) + (" …" if len(paths) > 10 else "")
    return Draft(
        to="planning",
        kind="Alert",
        priority="HIGH",
        thread=f"left-{commit[:16]}",
        text=(
            f"Your user changed {files}, and the crew's undelivered work on the same lines does not go together with "
            "that. The user's files win: the work branch starts anew from them."
        ),
        data={"paths": list(paths)},
    )


def _conflict(commit: str, report: Report, problems: tuple[str, ...]) -> Question:
    lines = "\n".join(f"- {problem}" for problem in problems)
    data: dict[str, Any] = {"commit": commit, "task": report.task, "problems": list(problems)}
    return Question(
        id=f"delivery.{commit[:12]}",
        n=0,
        at="",
        about=report.task,
        text=(
            f"An approved change was not (wholly) delivered, because these files are not as it expects:\n{lines}\n"
            f"`supervisor changes {report.task}` shows the change. Apply what you want of it by hand, "
            "then answer 'done'."
        ),
        options=("done",),
        data=data,
    )


__all__ = ["Delivered", "Documents", "EndFacts", "StoreError", "approved", "unapproved"]
