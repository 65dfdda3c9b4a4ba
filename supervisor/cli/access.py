"""How a command gets at a workspace: its paths, configuration, documents and events, with or without a supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from docs_store.topology import DEFAULT, Topology
from ipc.events import WELL_KNOWN_TYPES
from supervisor.config import Config
from supervisor.exits import UsageError, UserError
from supervisor.wording import clean
from supervisor.workspace import Workspace, WorkspaceBusyError, WorkspaceLock, find, holder

from .output import warn

SUPERVISOR = "supervisor"  # whose events those of nobody's phase are
SETTLE = 1.0  # seconds to wait for files that somebody is saving just now

if TYPE_CHECKING:
    from docs_store.store import Store


@dataclass(frozen=True, slots=True)
class Session:
    """What the options before the command say. `folder` is where the search for the workspace begins."""

    folder: Path
    verbose: int = 0

    def workspace(self) -> Workspace:
        """The workspace of this folder; refuses one of a newer release."""
        workspace = find(self.folder)
        if workspace.state.is_dir():
            workspace.check_format()
        return workspace


@dataclass(frozen=True, slots=True)
class Opened:
    """A workspace with its documents."""

    workspace: Workspace
    config: Config
    store: Store

    def phase(self, word: str) -> str:
        """The key of the phase that the user means, in any case; raises `UsageError`."""
        return meant(self.config.topology, word)


def meant(topology: Topology, word: str) -> str:
    """The key of the phase that this word names: its key, title or prefix in any case. Raises `UsageError`."""
    wanted = word.casefold()
    for phase in topology.phases:
        if wanted in {phase.key, phase.title.casefold(), phase.prefix.casefold()}:
            return phase.key
    known = ", ".join(phase.key for phase in topology.phases)
    raise UsageError(f"there is no phase named {word!r}; there are: {known}")


def phase_key(session: Session, word: str) -> str:
    """The same for the workspace of this session."""
    return meant(session.workspace().read_config().topology, word)


def complete_phase(ctx: typer.Context, incomplete: str) -> list[str]:
    """The phases that begin so, for the shell; the usual ones where there is no workspace."""
    return [phase.key for phase in _topology(ctx).phases if phase.key.startswith(incomplete.casefold())]


def complete_source(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and the supervisor, whose events can be asked for like a phase's."""
    ours = [SUPERVISOR] if SUPERVISOR.startswith(incomplete.casefold()) else []
    return complete_phase(ctx, incomplete) + ours


def complete_type(incomplete: str) -> list[str]:
    """The well-known types of events that begin so."""
    return [name for name in WELL_KNOWN_TYPES if name.startswith(incomplete)]


def complete_document(ctx: typer.Context, incomplete: str) -> list[str]:
    """The documents that begin so."""
    return [one.name for one in _topology(ctx).documents if one.name.startswith(incomplete)]


def complete_waiting(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What waits in the inbox and begins so, with its text; nothing where the documents cannot be read."""
    from docs_store.errors import StoreError
    from docs_store.store import Store
    from supervisor.status import waiting

    try:
        workspace = _workspace(ctx)
        topology = workspace.read_config().topology
        store = Store.open(workspace.crew, topology=topology, head_file=workspace.head, create=False, damaged=True)
    except (UserError, StoreError, OSError):
        return []
    return [(item.id, clean(item.text)[:60]) for item in waiting(store.state) if item.id.startswith(incomplete)]


def _topology(ctx: typer.Context) -> Topology:
    try:
        return _workspace(ctx).read_config().topology
    except UserError:
        return DEFAULT


def _workspace(ctx: typer.Context) -> Workspace:
    """That of the command line so far: the options before the command are not carried out when the shell asks."""
    folder = next((c.params["workspace"] for c in _up(ctx) if c.params.get("workspace") is not None), Path())
    return find(Path(folder))


def _up(ctx: typer.Context) -> Iterator[Any]:
    at: Any = ctx
    while at is not None:
        yield at
        at = at.parent


PhaseName = Annotated[str, typer.Argument(metavar="PHASE", help="Such as developer.", autocompletion=complete_phase)]


@contextmanager
def opened(session: Session, *, writes: bool = False, damaged: bool = False) -> Iterator[Opened]:
    """The workspace with its store; after something was written, the documents are brought up to date.

    A running supervisor does that itself; without one we do, holding its lock for that moment. With `damaged`, a
    history that is not sound is shown up to there, with a warning.
    """
    from docs_store.store import Store

    workspace = session.workspace()
    config = workspace.read_config()
    if writes:
        workspace.make_folders()
    store = Store.open(workspace.crew, topology=config.topology, head_file=workspace.head, damaged=damaged)
    if store.damage is not None:
        warn(
            f"The history is damaged; this is what was before: {clean(str(store.damage))}. `supervisor docs set-aside` "
            "tells what can be done; the documents in crew/ are as they were written last"
        )
    yield Opened(workspace, config, store)
    if writes:
        show_in_documents(workspace, store)


def show_in_documents(workspace: Workspace, store: Store) -> None:
    """Bring the Markdown files up to date, unless a supervisor runs: it sees to that by itself."""
    from docs_store.errors import StoreError
    from docs_store.reconcile import Reconciler

    if holder(workspace) is not None:
        return
    try:
        with WorkspaceLock(workspace, role="command").acquire():
            reconciler = Reconciler(store, workspace.crew)
            reconciler.start()
            settled = reconciler.settle(SETTLE)
    except WorkspaceBusyError:
        return  # one has started in between
    except (StoreError, OSError) as error:
        warn(f"It is on record, but crew/*.md could not be brought up to date: {error}. The next run does that")
    else:
        for problem in settled.problems:
            warn(clean(str(problem)))
