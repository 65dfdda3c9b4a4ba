"""One cycle's working place, shared by the four built-in performers: documents, threads, a tree of the work branch.

It looks things up and runs tools in threads; what follows from what it finds is the performers'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio.to_thread import run_sync

from docs_store.messages import Message, Task

from ...driver import Context
from .analysis import Analysis, analyse
from .findings import Finding
from .project import Project, discover


class Desk:
    """What one task of one phase needs at hand. `read` collects the revision of each strategic document read."""

    def __init__(self, task: Task, context: Context) -> None:
        self.task = task
        self.context = context
        self.read: dict[str, int] = {}

    def documents(self, *names: str) -> dict[str, str]:
        """The texts of these documents as of the claim; `read` gets the revisions that rewrites are merged against."""
        texts = {}
        for name in names:
            texts[name], self.read[name] = self.context.documents[name]
        return texts

    async def threads(self, names: Iterable[str]) -> dict[str, tuple[Message, ...]]:
        """All messages of these threads."""
        mailbox = self.context.mailbox.mailbox
        return await run_sync(lambda: {name: mailbox.thread(name) for name in dict.fromkeys(names)})

    async def thread(self) -> tuple[Message, ...]:
        """All messages of the task's thread."""
        return (await self.threads((self.task.thread,)))[self.task.thread]

    async def waiting_findings(self) -> tuple[Finding, ...]:
        """The findings about which a message of whatever phase waits for the user, one per thread."""
        mailbox = self.context.mailbox.mailbox
        found = {}
        for message in await run_sync(mailbox.waiting_anywhere):
            for part in await run_sync(mailbox.thread, message.thread):
                if isinstance(part.data.get("finding"), dict):
                    finding = Finding.from_dict(part.data["finding"])
                    if finding.fingerprint == message.thread:
                        found[message.thread] = finding
        return tuple(found.values())

    # -- the work branch

    async def head(self) -> str | None:
        """The work branch as the history has it; None before the first snapshot."""
        return await run_sync(lambda: self.context.mailbox.mailbox.tree)

    async def checkout(self, commit: str) -> Path:
        """This phase's own tree, reset to that commit: nothing of an earlier attempt is left in it."""
        return await run_sync(self.context.trees.checkout, self.context.phase, commit)

    async def ignored(self, folders: Iterable[str]) -> tuple[str, ...]:
        """The user's generated files below these folders, which ignore rules keep out of every tree."""
        return await run_sync(self.context.trees.ignored, tuple(folders))

    async def project(self, tree: Path) -> Project:
        """The Python project in that tree, tested with the interpreter of the user's workspace."""
        python = str(self.context.project.get("python", "")) or None
        return await run_sync(lambda: discover(tree, python=python, workspace=self.context.workspace))

    async def analyse(self, commit: str) -> Analysis:
        """The code base at that commit."""
        tree = await self.checkout(commit)
        return await run_sync(lambda: analyse(tree, on_progress=self._progress))

    def _progress(self, done: int, total: int) -> None:
        self.context.say("analyzing", round(100 * done / total) if total else 0, f"{done} of {total} files")


def fresh(task: Task) -> tuple[Message, ...]:
    """The parts that want an answer: all in the first round, later what no report has settled."""
    return task.parts or (task.message,)


def last_finding(messages: Sequence[Message]) -> Finding | None:
    """The latest finding that any of these messages is about."""
    for message in reversed(messages):
        found = message.data.get("finding")
        if isinstance(found, dict):
            return Finding.from_dict(found)
    return None


def one_line(text: str, most: int = 160) -> str:
    """The first line that says something, shortened for a list."""
    line = next((line.strip() for line in text.split("\n") if line.strip()), "")
    return line if len(line) <= most else line[: most - 1] + "…"
