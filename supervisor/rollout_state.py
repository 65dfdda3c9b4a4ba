"""Keeps the rollout's progress in `.supervisor/rollout.json`, and gathers its figures from the journal.

Every change is read, decided and written under one lock, so that commands and a running supervisor do not undo each
other; the file is replaced at one stroke and synced. What a change means is `rollout`'s.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from docs_store.files import durable_replace
from docs_store.lock import Lock
from ipc.modes import IPC_MODE_QUEUE, RATE_VARIABLE, Terms, terms

from .config import Config
from .exits import Exit, UserError
from .journal import SUPERVISOR, Cursor, JournalError, JournalReader, StoredEvent
from .rollout import (
    MODES,
    Figures,
    Progress,
    RolloutError,
    Tally,
    fact_of,
    from_data,
    observe,
    percentiles,
    rate_in_force,
    shown,
    to_data,
)
from .workspace import Workspace

PAGE = 1000


class RolloutStateError(UserError):
    """The file does not say what it should."""

    exit = Exit.CONFIGURATION


class RefusedError(UserError):
    """The rollout does not allow it as it stands."""

    exit = Exit.WORK_REMAINS


def load(workspace: Workspace) -> Progress:
    """The progress on disk; that of nothing begun where there is none. Raises `RolloutStateError`."""
    path = workspace.rollout
    try:
        return from_data(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Progress()
    except ValueError as error:
        raise RolloutStateError(
            f"{path} cannot be understood: {error}. Put back a copy of it, or remove it: the rollout then has not begun"
        ) from None
    except OSError as error:
        raise RolloutStateError(f"{path} cannot be read: {error.strerror or error}") from None


def change(workspace: Workspace, now: float, decide: Callable[[Progress], Progress]) -> Progress:
    """Credit the time until `now`, decide, and keep what comes of it. Raises `RefusedError` with what is missing."""
    workspace.make_folders()
    with Lock(workspace.state / "rollout.lock").hold():
        before = load(workspace)
        try:
            after = decide(observe(before, now))
        except RolloutError as error:
            raise RefusedError(str(error)) from None
        if after != before:
            durable_replace(workspace.rollout, (json.dumps(to_data(after), indent=1) + "\n").encode())
    return after


def stamp(workspace: Workspace) -> tuple[int, int] | None:
    """Changes whenever the file does; None while there is none."""
    try:
        found = workspace.rollout.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def terms_in_force(
    progress: Progress,
    config: Config,
    environ: Mapping[str, str] = os.environ,
    *,
    queue: bool = False,
    stdout: bool = False,
) -> Terms:
    """Flags (`queue`, `stdout`) beat variables, which beat the stage or its rollback, which beat supervisor.toml.

    Raises `UserError` for a variable with a bad value.
    """
    rate, source = rate_in_force(progress, config.ipc.rollout)
    try:
        found = terms(
            cli_use_queue_ipc=queue, cli_use_stdout=stdout, environ=environ, default_rate=rate, default_source=source
        )
    except ValueError as error:
        raise UserError(str(error), exit_code=Exit.CONFIGURATION) from None
    if progress.rolled_back and found.forced is None and not environ.get(RATE_VARIABLE, "").strip():
        return found._replace(forced="stdout", reason=f"rolled back: {progress.rolled_back}")
    return found


def status(workspace: Workspace, config: Config, reader: JournalReader | None = None) -> dict[str, Any]:
    """What `rollout status --json` says: for a supervisor that is started now. `reader` reads the journal."""
    progress = load(workspace)
    found = terms_in_force(progress, config)
    rate, source = found.rate, found.source
    if found.forced is not None:
        rate, source = float(found.forced == IPC_MODE_QUEUE), found.reason
    return shown(
        progress, figures(workspace, reader), rate=rate, source=source, max_fallback_rate=config.ipc.max_fallback_rate
    )


def figures(workspace: Workspace, reader: JournalReader | None = None) -> dict[str, Figures]:
    """Figures by mode, of all that the journal still knows."""
    tally = Tally()
    if reader is None:
        try:
            reader = JournalReader(workspace.journal)
        except JournalError:
            return tally.figures()  # nothing has run here yet
        try:
            return figures(workspace, reader)
        finally:
            reader.close()
    kinds = [_all(reader, kind) for kind in ("log_entry", "phase_error")]  # an exit that was not asked for is an error
    for event in heapq.merge(*kinds, key=lambda event: event.n):
        if event.worker == SUPERVISOR:
            fact = fact_of(phase=event.phase, step=event.step, timestamp=event.timestamp, summary=event.summary)
            if fact is not None:
                tally.take(fact)
    return tally.figures({mode: percentiles(reader.latencies(mode)) for mode in MODES})


def _all(reader: JournalReader, kind: str) -> Iterator[StoredEvent]:
    after: Cursor | None = None
    while True:
        found, reached = reader.read_up_to(after, PAGE, None, kind)
        yield from found
        if len(found) < PAGE:
            return
        after = reached
