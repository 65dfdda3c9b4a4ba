"""Checks what a run needs of this machine and this workspace, and says what to do about what is wrong. Changes nothing.

Each check is a function from facts to a `Check`; the facts are gathered here, where they are cheap to get.
"""

from __future__ import annotations

import importlib.metadata
import os
import queue as queue_module
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ipc import cgroup
from ipc.process import python_command

from .config import Config
from .exits import UserError
from .workspace import NoWorkspaceError, Workspace, find, holder, require_writable, runtime_folder, state_folder

LEAST_PYTHON = (3, 11)
QUEUE_PATIENCE = 30.0  # seconds, on a machine that is busy
ROUND_TRIP = "import ipc; ipc.deserialize_queue_from_env().put('there and back', timeout=10)"
LEAST_FREE = 200 * 1024 * 1024  # bytes; trees, journal and history of a few days


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: "ok", a "warning" (a run works, but …) or an "error" (it does not)."""

    name: str
    level: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(folder: Path) -> tuple[Check, ...]:
    """All checks; those of the workspace only where there is one."""
    checks = [
        python(sys.version_info[:3]),
        sqlite(sqlite3.sqlite_version_info),
        import_name(_installed(), Path(__file__)),
        *_tools(),
        queue_round_trip(),
        trees(sys.platform, grouped=cgroup.ours() is not None),
        private("runtime folder", runtime_folder),
        private("state folder", state_folder),
    ]
    try:
        workspace = find(folder)
    except NoWorkspaceError as error:
        return (*checks, Check("workspace", "error", str(error), "supervisor init"))
    return (*checks, *_workspace(workspace))


def python(version: tuple[int, int, int]) -> Check:
    """Whether this interpreter is new enough."""
    shown = ".".join(map(str, version))
    if version[:2] < LEAST_PYTHON:
        return Check("python", "error", f"{shown} is too old", "install Python 3.11 or newer")
    return Check("python", "ok", f"{shown} at {sys.executable}")


def sqlite(version: tuple[int, int, int]) -> Check:
    """Whether the SQLite below the journal is new enough.

    Many versions can damage a write-ahead log that several connections write to; we write through one.
    """
    shown = ".".join(map(str, version))
    if version < (3, 35, 0):
        return Check("sqlite", "error", f"{shown} is too old", "use a Python built with SQLite 3.35 or newer")
    return Check("sqlite", "ok", f"{shown} (one writing connection)")


def import_name(installed: frozenset[str], here: Path) -> Check:
    """Whether PyPI's `supervisor` is installed beside us: it has the same import name, and one overwrites the other."""
    if "supervisor" in installed:
        return Check(
            "import name",
            "error",
            f"the distribution `supervisor` (supervisord) is here too, with the import name of {here.parent}",
            "use a virtual environment of its own for one of the two, then reinstall phase-supervisor",
        )
    return Check("import name", "ok", "no other distribution named supervisor")


def queue_round_trip(environ: Mapping[str, str] = os.environ) -> Check:
    """Whether another process could reach the queue that events travel by; without it the crew uses standard output."""
    from ipc import create_queue, serialize_queue

    fix = "the crew works all the same, by stdout; see the text, and whether something here forbids local sockets"
    began = time.perf_counter()
    try:
        with create_queue(maxsize=1) as queue:
            handed_over = {**environ, "AUDIT_QUEUE_KEY": serialize_queue(queue)[1]}
            command, worker_environ = python_command()
            done = subprocess.run(
                [*command, "-P", "-c", ROUND_TRIP],
                env={**handed_over, **worker_environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                capture_output=True,
                text=True,
                timeout=QUEUE_PATIENCE,
                check=False,
            )
            if done.returncode:
                said = done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}"
                return Check("queue", "warning", f"another process cannot use it: {said}", fix)
            came = queue.get_nowait()
    except (OSError, RuntimeError, subprocess.TimeoutExpired, queue_module.Empty) as error:
        return Check("queue", "warning", f"no round trip: {type(error).__name__}: {error}", fix)
    if came != "there and back":
        return Check("queue", "warning", f"something else came out of it: {came!r:.100}", fix)
    return Check("queue", "ok", f"there and back from another process in {time.perf_counter() - began:.1f} s")


def trees(platform: str, *, grouped: bool) -> Check:
    """By what the processes of a crew are found when they are to end."""
    means = {"win32": "found by job objects", "linux": "found by session, mark and descent"}
    text = means.get(platform, "found by session and mark")
    if platform == "linux":
        text += ", and by a control group" if grouped else "; no control group may be made here"
    return Check("processes", "ok", text)


def private(name: str, find_it: Callable[[], Path]) -> Check:
    """Whether there is a place for sockets, the control API's key, and what was agreed to."""
    try:
        folder = find_it()
        require_writable(folder)
    except UserError as error:
        return Check(name, "error", str(error), "see the text; then `supervisor doctor` again")
    return Check(name, "ok", str(folder))


def disk(free: int, folder: Path) -> Check:
    """Whether there is room for trees, journal and history; `free` in bytes."""
    shown = f"{free / 1024**3:.1f} GB free at {folder}"
    if free < LEAST_FREE:
        return Check("disk", "error", shown, "free some space: a full disk pauses the crew")
    return Check("disk", "ok", shown)


def _installed() -> frozenset[str]:
    names = (distribution.metadata["Name"] for distribution in importlib.metadata.distributions())
    return frozenset(name.lower() for name in names if name)


def _tools() -> Iterator[Check]:
    for name in ("pytest", "ruff"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "error", "is not installed beside the supervisor", f"pip install {name}")
        else:
            yield Check(name, "ok", version)


def _workspace(workspace: Workspace) -> Iterator[Check]:
    yield Check("workspace", "ok", str(workspace.root))
    config: Config | None = None
    try:
        config = workspace.read_config()
    except UserError as error:
        yield Check("supervisor.toml", "error", str(error), "correct it; `supervisor doctor` checks it again")
    else:
        yield Check("supervisor.toml", "ok", "valid")
        yield trusted(workspace, config)
        yield from actors(workspace, config)
    for place in (workspace.root, workspace.crew, workspace.state):
        yield writable(place)
    yield disk(shutil.disk_usage(workspace.root).free, workspace.root)
    if config is not None:
        yield interpreter(workspace, config)
        yield from probes(workspace, config)
    pid = holder(workspace)
    yield Check("supervisor", "ok", f"runs as process {pid}" if pid else "none runs here now")
    if config is not None:
        yield documents(workspace, config)


def trusted(workspace: Workspace, config: Config) -> Check:
    """Whether the configuration's own commands may run."""
    from .bootstrap import is_trusted

    if is_trusted(workspace, config):
        return Check("trust", "ok", "nothing to ask" if not config.commands() else "you have agreed to its commands")
    return Check("trust", "error", f"it names {'; '.join(config.commands())}", "read that, then: supervisor trust")


def actors(workspace: Workspace, config: Config) -> Iterator[Check]:
    """Whether the actors of the user's own can be used; their code is looked at only once it is trusted."""
    from .bootstrap import is_trusted
    from .own_actors import wrong_actors

    names = [phase.actor for phase in config.phases.values() if phase.actor]
    if names and is_trusted(workspace, config):
        wrong = wrong_actors(workspace, config)
        for phase, why in wrong.items():
            yield Check("actors", "error", f"phases.{phase}.actor: {why}", "correct the code or supervisor.toml")
        if not wrong:
            yield Check("actors", "ok", ", ".join(names))


def interpreter(workspace: Workspace, config: Config) -> Check:
    """Which Python the project's tests run with."""
    given = config.project.python
    if given:
        path = shutil.which(given) or shutil.which(str(workspace.root / given))
        if path is None:
            return Check(
                "project", "error", f"project.python = {given!r} is no program here", "correct supervisor.toml"
            )
        return Check("project", "ok", f"tests run with {path}")
    for name in (".venv", "venv"):
        for path_in in ("bin/python", "Scripts/python.exe"):
            if (workspace.root / name / path_in).exists():
                return Check("project", "ok", f"tests run with {name}/{path_in}")
    return Check("project", "warning", f"has no .venv: its tests run with the supervisor's own {sys.executable}")


def probes(workspace: Workspace, config: Config) -> Iterator[Check]:
    """Whether the programs that probes run are there: one that cannot be started says nothing about its phase."""
    asked = {key: phase.probe.command[0] for key, phase in config.phases.items() if phase.probe.command}
    missing = {
        key: name
        for key, name in asked.items()
        if shutil.which(name) is None and shutil.which(workspace.root / name) is None
    }
    for key, name in missing.items():
        text = f"phases.{key}.probe.command: {name!r} is no program here; nobody would be asked"
        yield Check("probes", "warning", text, "correct supervisor.toml")
    if asked and not missing:
        yield Check("probes", "ok", ", ".join(asked.values()))


def documents(workspace: Workspace, config: Config) -> Check:
    """Whether the documents' history is whole."""
    if not workspace.history.is_dir():
        return Check("documents", "error", f"there is no history in {workspace.crew}", "supervisor init")
    from docs_store.errors import StoreError
    from docs_store.store import Store

    try:
        verdict = Store.examine(workspace.crew, topology=config.topology, head_file=workspace.head)
    except StoreError as error:
        return Check("documents", "error", str(error), "supervisor docs verify")
    if not verdict.ok:
        fix = "put crew/.history back from a backup; without one: supervisor docs set-aside tells what can be kept"
        return Check("documents", "error", verdict.problem, fix)
    return Check("documents", "ok", f"{verdict.n} records, all whole")


def writable(place: Path) -> Check:
    """Whether we may write in that folder."""
    try:
        require_writable(place)
    except UserError as error:
        return Check(f"write {place.name}/", "error", str(error), "see the text; then `supervisor doctor` again")
    return Check(f"write {place.name}/", "ok", f"{place} can be written to")
