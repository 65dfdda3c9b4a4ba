"""Makes a folder a workspace, and remembers which workspaces' commands the user trusts.

`init` creates what is missing and overwrites nothing: twice is the same as once. What the documents begin as is
`docs_store.views`' decision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from docs_store.topology import DEFAULT, Topology

from .config import TEMPLATE, Config, ConfigError
from .exits import Exit, UserError
from .workspace import Workspace, WorkspaceError, require_folder, require_writable, state_folder, write_text

IGNORED = ("/.supervisor/", "/crew/.history/")


class NotTrustedError(UserError):
    """The configuration names commands or code, and the user has not agreed to them."""

    exit = Exit.CONFIGURATION

    def __init__(self, workspace: Workspace, commands: Iterable[str]) -> None:
        listed = "\n".join(f"  {command}" for command in commands)
        super().__init__(
            f"{workspace.config} names commands or code that would run as you:\n{listed}\n"
            f"If they are fine, run `supervisor trust` in {workspace.root}; it is asked again only when they change"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """What `init` did: paths relative to `root`, `/` between their parts."""

    root: Path
    created: tuple[str, ...]
    changed: tuple[str, ...]  # appended to
    kept: tuple[str, ...]


def init(folder: Path) -> InitReport:
    """Create what a workspace needs in `folder`. Raises `WorkspaceError` where that is impossible."""
    require_folder(folder)
    workspace = Workspace(folder.resolve())
    require_writable(workspace.root)
    created: list[str] = []
    changed: list[str] = []
    kept: list[str] = []

    def note(path: Path, *, is_new: bool) -> None:
        (created if is_new else kept).append(path.relative_to(workspace.root).as_posix())

    note(workspace.config, is_new=_create(workspace.config, TEMPLATE))
    try:
        topology = workspace.read_config().topology
    except ConfigError:
        topology = DEFAULT  # init helps all the same; `run` and `doctor` name the mistakes
    for path in (workspace.crew, workspace.state):
        is_new = not path.is_dir()
        require_folder(path)
        if is_new:
            created.append(path.relative_to(workspace.root).as_posix() + "/")
    _create_documents(workspace, topology, note)
    workspace.check_format()
    workspace.mark_format()
    gitignore = workspace.root / ".gitignore"
    before = _read_bytes(gitignore)
    after = ignoring(before or b"")
    if after == before:
        note(gitignore, is_new=False)
    elif before is None:
        note(gitignore, is_new=_create(gitignore, after.decode()))
    else:
        with gitignore.open("ab") as file:  # append only: the user's bytes stay where they are
            file.write(after[len(before) :])
        changed.append(".gitignore")
    return InitReport(root=workspace.root, created=tuple(created), changed=tuple(changed), kept=tuple(kept))


def _create_documents(workspace: Workspace, topology: Topology, note: Callable[..., None]) -> None:
    """Put the documents' first text on record, then write those that are not there; a file that is there stays."""
    from docs_store.store import Store
    from docs_store.views import template

    store = Store.open(workspace.crew, topology=topology, head_file=workspace.head)
    store.create_documents({document.name: template(document) for document in topology.documents})
    for document in topology.documents:
        path = workspace.crew / document.file
        note(path, is_new=_create(path, store.text(document.name)))


def ignoring(before: bytes) -> bytes:
    """The .gitignore with our lines in it: what was there first, byte for byte, then only the missing lines."""
    newline = b"\r\n" if b"\r\n" in before else b"\n"
    present = {line.strip().strip(b"/") for line in before.split(b"\n")}
    missing = [line for line in IGNORED if line.strip("/").encode() not in present]
    if not missing:
        return before
    gap = newline if before and not before.endswith(b"\n") else b""
    lines = ["# what `supervisor` keeps for itself; crew/*.md are yours to commit", *missing]
    return before + gap + b"".join(line.encode() + newline for line in lines)


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error.strerror or error}") from None


def _create(path: Path, content: str) -> bool:
    """Write the file unless something of that name is there, even a dangling link; say whether it was written."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be created: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a file would be kept the next time
        raise WorkspaceError(f"{path} cannot be written: {error.strerror or error}") from None
    return True


def fingerprint(workspace: Workspace, config: Config) -> str:
    """What is agreed to: this folder, and exactly these commands."""
    said = json.dumps([str(workspace.root), *sorted(config.commands())])
    return hashlib.sha256(said.encode()).hexdigest()


def trust(workspace: Workspace, config: Config, *, folder: Path | None = None) -> bool:
    """Remember the user's agreement to the commands of this configuration; False if there was nothing new to it."""
    if is_trusted(workspace, config, folder=folder):
        return False
    path = (folder or state_folder()) / "trusted.json"
    known = _trusted(path)
    known[str(workspace.root)] = fingerprint(workspace, config)
    write_text(path, json.dumps(known, indent=1) + "\n")
    return True


def is_trusted(workspace: Workspace, config: Config, *, folder: Path | None = None) -> bool:
    """Whether the configuration runs nothing of its own, or the user has agreed to exactly that."""
    if not config.commands():
        return True
    known = _trusted((folder or state_folder()) / "trusted.json")
    return known.get(str(workspace.root)) == fingerprint(workspace, config)


def require_trust(workspace: Workspace, config: Config, *, folder: Path | None = None) -> None:
    """Raise `NotTrustedError` with the list of commands, unless `is_trusted`."""
    if not is_trusted(workspace, config, folder=folder):
        raise NotTrustedError(workspace, config.commands())


def _trusted(path: Path) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError, ValueError):  # damaged: nothing is trusted, and it is asked again
        known = json.loads(path.read_text("utf-8"))
        if isinstance(known, dict):
            return {str(key): str(value) for key, value in known.items()}
    return {}
