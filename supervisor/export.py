"""Writes the documents' history as a git repository, one commit per record, for sharing and for git's own tools."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from docs_store.messages import State
from docs_store.replay import apply
from docs_store.topology import Topology
from docs_store.views import render

from .exits import UsageError
from .workspace import require_folder

if TYPE_CHECKING:
    from docs_store.replay import Record
    from docs_store.store import Store

BRANCH = "refs/heads/main"


def export(store: Store, topology: Topology, folder: Path) -> int:
    """Make the repository in `folder` (new or empty) and say how many commits it has. Raises `UsageError`."""
    import pygit2  # noqa: PLC0415 - only exporting needs it here

    require_folder(folder)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder, so that nothing of yours is overwritten")
    repository = pygit2.init_repository(str(folder), initial_head="main")
    state = State()
    blobs: dict[str, pygit2.Oid] = {}
    parent: list[pygit2.Oid] = []
    count = 0
    for record in store.records():
        apply(state, record, topology)
        touched = [name for name, document in state.documents.items() if document.n == record.n]
        for name in touched:
            text = render(topology, topology.document(name), state)
            blobs[name] = repository.create_blob(text.encode("utf-8", "surrogateescape"))
        if not touched:
            continue
        builder = repository.TreeBuilder()
        for name, blob in sorted(blobs.items()):
            builder.insert(f"{name}.md", blob, pygit2.enums.FileMode.BLOB)
        who = pygit2.Signature(record.by, f"{record.by}@phase-supervisor.invalid", _seconds(record.at), 0)
        parent = [repository.create_commit(BRANCH, who, who, _note(record, touched), builder.write(), parent)]
        count += 1
    if count:
        repository.checkout_head()  # type: ignore[no-untyped-call]
    return count


def _note(record: Record, touched: list[str]) -> str:
    return f"{record.kind} by {record.by}: {', '.join(touched)}\n\nRecord {record.n}, {record.hash}\n"


def _seconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp())
