"""What does the work of one cycle, and what it is given to do it with.

A phase's policy (`actors.phases`) decides what a cycle reads and whom it tells; a driver finds out and changes things:
the built-in one with pytest, ruff and what the documents spell out, others with an agent of the user's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.to_thread import run_sync

from docs_store.mailbox import AsyncMailbox
from docs_store.messages import Outcome, Task

if TYPE_CHECKING:
    from docs_store.store import Unread

    from .trees_process import AnyTrees

Say = Callable[..., None]  # step, pct, detail, *, type, summary, data: what `Emitter.emit` takes after the phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a driver may use: its phase's mailbox, the workspace's paths, a way to say how far it is.

    `say(step, pct, detail, type=…, summary=…)` emits a progress event and never waits. `options` are the phase's of
    `supervisor.toml` with the project's under "project". A driver writes nothing but through its outcome, and changes
    files only in trees of its own.
    """

    phase: str
    epoch: int
    workspace: Path
    state: Path  # .supervisor
    mailbox: AsyncMailbox
    say: Say
    documents: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # name → text and revision, as of the claim
    news: Mapping[str, Unread] = field(default_factory=dict)  # of others' WRITE documents: since the last cycle
    options: Mapping[str, Any] = field(default_factory=dict)
    trees: AnyTrees = field(repr=False)
    retirement: anyio.Event = field(default_factory=anyio.Event)

    def retire(self) -> None:
        """This phase is done for good: its worker ends by itself once this task's outcome is written.

        That is a normal exit: whether the phase is started again is `permanence`'s in `supervisor.toml`.
        """
        self.retirement.set()

    @property
    def project(self) -> Mapping[str, Any]:
        found = self.options.get("project", {})
        return found if isinstance(found, Mapping) else {}

    async def checkout(self) -> Path:
        """This phase's own tree of files, reset to where the crew's work is now: to be read, changed and run.

        Raises LookupError while the repository has not been read yet, which a run does before its first task.
        """
        head = await run_sync(lambda: self.mailbox.mailbox.tree)
        if head is None:
            raise LookupError("there is no snapshot of the repository yet")
        return await run_sync(lambda: self.trees.checkout(self.phase, head))

    async def commit(self, note: str, files: Collection[str]) -> str | None:
        """What was changed in these files of the checked-out tree, for `Outcome.data["commit"]`; None if nothing was.

        With it goes a Review to QA that names it, `data={"commit": …, "files": […]}`: only what QA approves is brought
        into the user's files.
        """
        tree, author = self.trees.tree(self.phase), self.phase.capitalize()
        return await run_sync(lambda: self.trees.commit(tree, note, author, only=tuple(files)))


class Driver(Protocol):
    """Does the work of one task; may be cancelled at any await, and is then started over with the next attempt."""

    async def perform(self, task: Task, context: Context) -> Outcome: ...
