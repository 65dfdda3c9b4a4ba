"""Writes the documents' history as a git repository, one commit per record, for sharing and for git's own tools."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

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


def export(store: Store, topology: Topology, folder: Path, *, git: str | None = None) -> int:
    """Make the repository in `folder` (new or empty) and say how many commits it has. Raises `UsageError`.

    `git` is the program whose `fast-import` does it; without one it is done commit by commit, with the same result.
    """
    require_folder(folder)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder, so that nothing of yours is overwritten")
    return _by_fast_import(store, topology, folder, git) if git else _by_library(store, topology, folder)


def revisions(store: Store, topology: Topology) -> Iterator[tuple[Record, dict[str, bytes]]]:
    """Each record that touched documents, with their new texts by file name."""
    state = State()
    for record in store.records():
        apply(state, record, topology)
        texts = {
            f"{name}.md": render(topology, topology.document(name), state).encode("utf-8", "surrogateescape")
            for name, document in state.documents.items()
            if document.n == record.n
        }
        if texts:
            yield record, texts


def stream(store: Store, topology: Topology) -> Iterator[bytes]:
    """The history in the language of `git fast-import`, one commit after the other."""
    for record, texts in revisions(store, topology):
        who = f"{record.by} <{_mail(record)}> {_seconds(record.at)} +0000"
        yield f"commit {BRANCH}\nauthor {who}\ncommitter {who}\n".encode()
        note = _note(record, [*texts]).encode()
        yield b"data %d\n%b\n" % (len(note), note)
        for name, text in texts.items():
            yield b"M 100644 inline %b\ndata %d\n%b\n" % (name.encode(), len(text), text)
    yield b"done\n"


def _by_fast_import(store: Store, topology: Topology, folder: Path, git: str) -> int:
    count = 0
    with tempfile.TemporaryFile() as file:
        for piece in stream(store, topology):
            count += piece.startswith(b"commit ")
            file.write(piece)
        file.seek(0)
        inside = [git, "-C", str(folder), "-c", "core.autocrlf=false"]
        try:
            _run([*inside, "init", "--quiet"])
            _run([*inside, "symbolic-ref", "HEAD", BRANCH])
            _run([*inside, "fast-import", "--quiet", "--done"], file)
            if count:
                _run([*inside, "reset", "--quiet", "--hard"])
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()
            raise UsageError(f"git could not write {folder}: {said or error}") from error
    return count


def _run(command: list[str], file: IO[bytes] | None = None) -> None:
    subprocess.run(command, stdin=file or subprocess.DEVNULL, check=True, capture_output=True)


def _by_library(store: Store, topology: Topology, folder: Path) -> int:
    import pygit2

    repository = pygit2.init_repository(str(folder), initial_head="main")
    blobs: dict[str, pygit2.Oid] = {}
    parent: list[pygit2.Oid] = []
    count = 0
    for record, texts in revisions(store, topology):
        blobs |= {name: repository.create_blob(text) for name, text in texts.items()}
        builder = repository.TreeBuilder()
        for name, blob in sorted(blobs.items()):
            builder.insert(name, blob, pygit2.enums.FileMode.BLOB)
        who = pygit2.Signature(record.by, _mail(record), _seconds(record.at), 0)
        parent = [repository.create_commit(BRANCH, who, who, _note(record, [*texts]), builder.write(), parent)]
        count += 1
    if count:
        repository.checkout_head()  # type: ignore[no-untyped-call]
    return count


def _mail(record: Record) -> str:
    return f"{record.by}@phase-supervisor.invalid"


def _note(record: Record, touched: list[str]) -> str:
    return f"{record.kind} by {record.by}: {', '.join(touched)}\n\nRecord {record.n}, {record.hash}\n"


def _seconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp())
