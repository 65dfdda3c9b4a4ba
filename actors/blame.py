"""Who last touched some lines, by the user's own git, which is only read.

Blocks, and goes through libgit2: `actors.trees_process` has it done in a process of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LastChange:
    """The commit of the user's that last touched a line. `date` is ISO 8601, UTC."""

    commit: str
    author: str
    date: str
    summary: str

    def __str__(self) -> str:
        return f"{self.commit[:10]} by {self.author} on {self.date[:10]}: {self.summary}"


def last_change(workspace: Path, file: str, text: str, first: int, last: int) -> LastChange | None:
    """The newest commit of the user's HEAD that touched these lines of `text`; None without git, or if none did."""
    import pygit2

    from .drivers.builtin.symbols import decode

    found = pygit2.discover_repository(str(workspace))
    if found is None:
        return None
    try:
        repo = pygit2.Repository(found)
        if repo.head_is_unborn or not repo.workdir:
            return None
        path = (workspace.resolve() / file).relative_to(Path(repo.workdir).resolve()).as_posix()
        head = repo.head.peel(pygit2.Commit)
        blob = head.tree[path]
        if not isinstance(blob, pygit2.Blob):
            return None
        committed = decode(blob.data).split("\n")
        lines = _lines_then(committed, text.split("\n"), first, last)
        if not lines:
            return None
        blame = repo.blame(path, newest_commit=head.id, min_line=min(lines), max_line=max(lines))
        newest: pygit2.Commit | None = None
        for hunk in blame:
            start = hunk.final_start_line_number
            if any(start <= line < start + hunk.lines_in_hunk for line in lines):
                commit = repo[hunk.final_commit_id]
                if isinstance(commit, pygit2.Commit) and (newest is None or commit.commit_time > newest.commit_time):
                    newest = commit
    except (pygit2.GitError, KeyError, ValueError, OSError):
        return None  # shallow, damaged, or the file is new: the explanation goes without
    if newest is None:
        return None
    return LastChange(
        commit=str(newest.id),
        author=newest.author.name,
        date=datetime.fromtimestamp(newest.author.time, UTC).isoformat(),
        summary=newest.message.strip().partition("\n")[0],
    )


def _lines_then(committed: Sequence[str], now: Sequence[str], first: int, last: int) -> list[int]:
    """Which lines (1-based) of the committed file these lines of today's are."""
    if list(committed) == list(now):
        return list(range(first, last + 1))
    found: list[int] = []
    for a, b, size in difflib.SequenceMatcher(None, committed, now, autojunk=False).get_matching_blocks():
        found.extend(a + line - b + 1 for line in range(max(first - 1, b), min(last, b + size)))
    return found
