"""The one write of a cycle: with a change of the work branch, or without.

A commit that a cycle made is merged onto the branch under the trees' lock, and the merged head goes into the finish
record: the record is the truth, the branch's ref follows it. A cycle killed before the record has changed nothing; one
killed between record and ref is completed by whoever holds the lock next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from docs_store.mailbox import Mailbox
from docs_store.messages import Outcome, Task
from docs_store.store import FinishResult

from .trees import Conflict
from .trees_process import AnyTrees


@dataclass(frozen=True, slots=True)
class Overtaken:
    """What the cycle changed does not go together with what others changed meanwhile; nothing was written."""

    paths: tuple[str, ...]


def finish(mailbox: Mailbox, task: Task, outcome: Outcome, trees: AnyTrees) -> FinishResult | Overtaken:
    """Write the outcome; `trees` has the work branch, if the outcome names a commit. Blocks."""
    commit = outcome.data.get("commit")
    if not commit:
        return mailbox.finish(task, outcome)
    with trees.lock():
        mailbox.refresh()
        head = settle(trees, mailbox.tree)
        merged = trees.merge(head, str(commit)) if head is not None else None
        if isinstance(merged, Conflict):
            return Overtaken(merged.paths)
        tree = merged.head if merged is not None else str(commit)
        done = mailbox.finish(task, replace(outcome, tree=tree))
        trees.set_head(tree)
        return done


def settle(branch: AnyTrees, recorded: str | None) -> str | None:
    """Bring the branch's ref to where the history says it is; returns that."""
    if recorded is not None and branch.head != recorded:
        branch.set_head(recorded)
    return recorded
