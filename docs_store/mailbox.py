"""What an actor sees of the store: the rights of one phase in one epoch, and nothing else.

`Mailbox` claims, finishes and reads; `AsyncMailbox` is the same for an event loop: each call, with its wait for the
lock, is one call in a thread. What the work is, and when to look for it, is the actor's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .messages import UNFINISHED, DocumentState, Message, Outcome, Status, Task
from .replay import refused_fixes, unfinished

if TYPE_CHECKING:
    from .store import FinishResult, Store, Unread

T = TypeVar("T")


class Mailbox:
    """A capability: one phase, one epoch. Reading does not refresh: a cycle sees the history as of its claim."""

    def __init__(self, store: Store, phase: str, epoch: int) -> None:
        self._store = store
        self.phase = store.topology.phase(phase).key
        self.epoch = epoch

    @property
    def head(self) -> int:
        """The last record seen; what `idle` reports after a claim that found nothing."""
        return self._store.head

    def refresh(self) -> int:
        """Read what others appended; the new head."""
        return self._store.refresh().n

    def claim(self) -> Task | None:
        """The next task, or the one already held; None if there is nothing to do. FencedError: end."""
        return self._store.claim(self.phase, self.epoch)

    def finish(self, task: Task, outcome: Outcome) -> FinishResult:
        """All of the cycle's writing as one record; see `Store.finish`."""
        return self._store.finish(self.phase, self.epoch, task, outcome)

    def read(self, document: str) -> str:
        """The document's whole text."""
        return self._store.text(document)

    def revision(self, document: str) -> int:
        """The last record that touched the document: what `Outcome.read` wants for a strategic text."""
        name = self._store.topology.document(document).name
        with self._store.reading() as state:
            return state.documents.get(name, DocumentState()).n

    def look(self, document: str) -> tuple[str, int]:
        """The text and its revision, of one moment."""
        with self._store.reading():
            return self.read(document), self.revision(document)

    def open_tasks(self) -> tuple[Message, ...]:
        """This phase's tasks that could be claimed, oldest first."""
        with self._store.reading() as state:
            return tuple(m for m in unfinished(state, self.phase) if m.status is Status.OPEN and m.section == "tasks")

    def waiting(self) -> tuple[Message, ...]:
        """This phase's messages that wait for a person."""
        with self._store.reading() as state:
            waiting = (Status.BLOCKED, Status.QUARANTINED)
            return tuple(m for m in unfinished(state, self.phase) if m.status in waiting)

    def waiting_anywhere(self) -> tuple[Message, ...]:
        """Messages of every phase that wait for a person."""
        with self._store.reading() as state:
            return tuple(m for m in unfinished(state) if m.status in (Status.BLOCKED, Status.QUARANTINED))

    def notes(self) -> tuple[Message, ...]:
        """What stands in the other sections of this phase's READ document: context, requirements, notes."""
        with self._store.reading() as state:
            return tuple(m for m in unfinished(state, self.phase) if m.section != "tasks")

    def message(self, id: str) -> Message | None:  # noqa: A002  (the field's name)
        """A message by its id."""
        with self._store.reading() as state:
            return state.messages.get(id)

    def thread(self, thread: str) -> tuple[Message, ...]:
        """The messages of a thread, in order."""
        with self._store.reading() as state:
            return tuple(state.messages[id] for id in state.threads.get(thread, ()))  # noqa: A001

    @property
    def tree(self) -> str | None:
        """The head of the work branch, as the history has it."""
        with self._store.reading() as state:
            return state.tree

    def reported(self, thread: str) -> bool:
        """Whether anything of the thread is unfinished: a finding is reported once while it is."""
        return any(message.status in UNFINISHED for message in self.thread(thread))

    def refused_fixes(self, thread: str) -> int:
        """How often fixes of the thread were refused since its budget was last renewed."""
        with self._store.reading() as state:
            return refused_fixes(state, thread)

    def unread(self, document: str) -> Unread:
        """What the document got since this phase last marked it as read."""
        return self._store.unread(self.phase, document)

    def mark_read(self, document: str, n: int | None = None) -> None:
        """This phase has seen the document up to record n (the head)."""
        self._store.mark_read(self.phase, document, n)


class AsyncMailbox:
    """The same for an event loop: lock, work and release are one call in a thread. Look-ups go to `mailbox`."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def claim(self) -> Task | None:
        return await _in_thread(self.mailbox.claim)

    async def finish(self, task: Task, outcome: Outcome) -> FinishResult:
        return await _in_thread(lambda: self.mailbox.finish(task, outcome))

    async def refresh(self) -> int:
        return await _in_thread(self.mailbox.refresh)

    async def read(self, document: str) -> str:
        return await _in_thread(lambda: self.mailbox.read(document))

    async def look(self, document: str) -> tuple[str, int]:
        return await _in_thread(lambda: self.mailbox.look(document))

    async def reported(self, thread: str) -> bool:
        """Whether anything of the thread is unfinished: a finding is reported once while it is."""
        return await _in_thread(lambda: self.mailbox.reported(thread))

    async def unread(self, document: str) -> Unread:
        return await _in_thread(lambda: self.mailbox.unread(document))

    async def mark_read(self, document: str, n: int | None = None) -> None:
        await _in_thread(lambda: self.mailbox.mark_read(document, n))


async def _in_thread(work: Callable[[], T]) -> T:
    """Run to its end even when the caller is cancelled: what is half done would come out as an unsure commit."""
    from anyio.to_thread import run_sync

    return await run_sync(work)
