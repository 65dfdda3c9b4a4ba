"""Where everything of a workspace lies, and who may run in it: paths, the format's version, the one lock.

It finds and checks; what goes into the files is everybody else's. Folders of the user's (runtime, state) are here
too, because they are chosen by the system and not by the workspace.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from docs_store.files import patiently

from .config import FILE, Config, ConfigError, Mistake, parse
from .exits import Exit, UserError

FORMAT = 1  # of the workspace as a whole; what cannot carry a version of its own is named beside it
FORMATS: Mapping[str, int] = {"format": FORMAT, "spools": 2}  # ipc.spool.FORMAT, not imported for every command
NAME = "phase-supervisor"
COMMANDS_MOMENT = 5.0  # seconds for which a command may hold the lock while it brings the documents up to date

Role = Literal["supervisor", "command"]


class WorkspaceError(UserError):
    """The folder cannot be worked in; the text says why and what to do."""

    exit = Exit.CONFIGURATION


class NoWorkspaceError(WorkspaceError):
    """There is no supervisor.toml in the folder, or in any above it."""


class NewerFormatError(WorkspaceError):
    """A newer release wrote this workspace."""


class WorkspaceBusyError(UserError):
    """Another supervisor holds the workspace; `pid` is its process, 0 if it has not said yet."""

    exit = Exit.WORKSPACE_BUSY

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process, which is just starting"
        super().__init__(
            f"a supervisor is running in {root} already ({who}); one workspace has one supervisor. "
            "`supervisor status` shows it, `supervisor stop` ends it"
        )


@dataclass(frozen=True, slots=True)
class Workspace:
    """The paths of one workspace; `root` holds supervisor.toml. None of them needs to exist."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / FILE

    @property
    def crew(self) -> Path:
        return self.root / "crew"

    @property
    def history(self) -> Path:
        return self.crew / ".history"

    @property
    def state(self) -> Path:
        return self.root / ".supervisor"

    @property
    def head(self) -> Path:
        """The history's head, kept outside crew/ so that a history that was wiped or cut is noticed."""
        return self.state / "head"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    @property
    def spools(self) -> Path:
        return self.state / "spools"

    @property
    def shadow(self) -> Path:
        return self.state / "shadow.git"

    @property
    def trees(self) -> Path:
        return self.state / "trees"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def status(self) -> Path:
        """What the running supervisor last said about itself, for `supervisor status`."""
        return self.state / "status.json"

    @property
    def rollout(self) -> Path:
        """How far the move to the queue has come."""
        return self.state / "rollout.json"

    @property
    def format(self) -> Path:
        return self.state / "format.json"

    @property
    def group(self) -> Path:
        """Names the control groups of its crews, on Linux."""
        return self.state / "cgroup"

    def read_config(self) -> Config:
        """Parse supervisor.toml; raises `ConfigError` with all its mistakes, or `WorkspaceError`."""
        try:
            source = self.config.read_bytes().decode("utf-8")
        except FileNotFoundError:
            raise NoWorkspaceError(f"there is no {self.config}; run `supervisor init` there first") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(FILE, [Mistake(line, "", "is not UTF-8; save it as UTF-8")]) from None
        except OSError as error:
            raise WorkspaceError(f"{self.config} cannot be read: {error.strerror or error}") from None
        return parse(source)

    def make_folders(self) -> None:
        """Create .supervisor/ and what belongs into it, and see that they can be written to."""
        for folder in (self.state, self.logs, self.spools, self.crew):
            require_folder(folder)
            require_writable(folder)

    def check_format(self) -> None:
        """Refuse a workspace of a newer release by name."""
        newer = [
            f"{'workspace' if name == 'format' else name} format {number}; this one knows {FORMATS.get(name, 'none')}"
            for name, number in self._formats().items()
            if number > FORMATS.get(name, 0)
        ]
        if newer:
            raise NewerFormatError(
                f"{self.root} was written by a newer release ({'; '.join(newer)}). "
                f"Upgrade {NAME}, or work on a copy made before"
            )

    def mark_format(self) -> None:
        """From now on this release writes here: older ones are to refuse. Spools of format 1 are read as they are."""
        if self._formats() != FORMATS:
            write_text(self.format, json.dumps(FORMATS) + "\n")

    def _formats(self) -> Mapping[str, int]:
        found: object = None
        try:
            found = json.loads(self.format.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            pass
        except OSError as error:
            raise WorkspaceError(f"{self.format} cannot be read: {error.strerror or error}") from None
        if (
            not isinstance(found, dict)
            or "format" not in found
            or not all(isinstance(number, int) and number >= 1 for number in found.values())
        ):
            raise WorkspaceError(
                f"{self.format} is damaged; if this release wrote the workspace, put {json.dumps(FORMATS)} into it"
            )
        return found


def find(start: Path) -> Workspace:
    """The workspace of `start`: the nearest folder, upwards, with a supervisor.toml. Raises `NoWorkspaceError`."""
    begin = start.resolve()
    for folder in (begin, *begin.parents):
        if (folder / FILE).is_file():
            return Workspace(folder)
    raise NoWorkspaceError(
        f"no {FILE} in {begin} or any folder above it; run `supervisor init` in your repository first"
    )


def require_folder(folder: Path) -> None:
    """Create the folder unless it is there; a clear `WorkspaceError` otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise WorkspaceError(f"{folder} is in the way: a folder is needed there; move that file elsewhere") from None
    except OSError as error:
        raise WorkspaceError(
            f"the folder {folder} cannot be created: {error.strerror or error}; "
            "give yourself write permission, or choose another folder"
        ) from None


def require_writable(folder: Path) -> None:
    """Write and remove a small file: the only test of permission that holds on every system and file system."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except OSError as error:
        raise WorkspaceError(
            f"{folder} cannot be written to: {error.strerror or error}; "
            "give yourself write permission, or free some space"
        ) from None


def write_text(path: Path, content: str) -> None:
    """Put a small file in place at one stroke; readers see the old one or the new one. Not synced to disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        patiently(lambda: Path(name).replace(path))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


class WorkspaceLock:
    """The right to supervise a workspace, held until `release` or the process's death. Not inherited by children.

    The file keeps who holds it, for people and for `holder`; the lock itself is the system's.
    """

    def __init__(self, workspace: Workspace, *, role: Role = "supervisor") -> None:
        self._workspace = workspace
        self._role = role
        self._fd: int | None = None

    def acquire(self) -> Self:
        """Take the lock; raise `WorkspaceBusyError` if a supervisor has it. A command's moment is waited for."""
        fd = os.open(self._workspace.lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        until = time.monotonic() + COMMANDS_MOMENT
        while not _try_lock(fd):
            pid = holder(self._workspace)
            if pid is not None or time.monotonic() >= until:
                os.close(fd)
                raise WorkspaceBusyError(self._workspace.root, pid or _said(self._workspace.lock).pid)
            time.sleep(0.02)
        self._fd = fd
        os.ftruncate(fd, 0)
        pid = os.getpid()
        said = {"pid": pid, "created": _create_time(pid), "started": _started(pid), "role": self._role}
        os.write(fd, json.dumps(said).encode())
        return self

    def release(self) -> None:
        """Give the lock back; twice does no harm."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.ftruncate(fd, 0)
            _unlock(fd)
            os.close(fd)

    def __enter__(self) -> Self:
        return self if self._fd is not None else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()


def none_runs(root: Path | str) -> str:
    """What every command says where there is no supervisor."""
    return f"no supervisor runs in {root}; `supervisor run` starts one, `supervisor start` one in the background"


def holder(workspace: Workspace) -> int | None:
    """The pid of the supervisor that runs in the workspace, or None.

    Looks at the file and the process and never touches the lock: looking must not make a starting supervisor fail.
    """
    said = _said(workspace.lock)
    if not said.pid or said.role != "supervisor":
        return None
    if said.started:
        return said.pid if _started(said.pid) == said.started else None
    actual = _create_time(said.pid)
    return said.pid if actual is not None and abs(actual - said.created) < 2.0 else None


class _Said(NamedTuple):
    pid: int = 0
    created: float = 0.0
    role: str = ""
    started: str = ""


def _said(path: Path) -> _Said:
    try:
        said = json.loads(path.read_bytes())
        return _Said(int(said["pid"]), float(said["created"]), str(said["role"]), str(said.get("started", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return _Said()


def _started(pid: int) -> str:
    """When it was started, in the kernel's ticks since a named boot; "" where that cannot be told, or it has ended.

    Linux counts a process's create time from the wall clock of the moment in which it is asked: when that clock is set,
    no process is the one that it was.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return f"{boot} {int(fields[19])}" if fields[0] != b"Z" else ""


def _create_time(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


if sys.platform == "win32":
    import msvcrt

    LOCKED_BYTE = 1 << 30  # far behind the content, which stays readable: the lock is mandatory here

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def runtime_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own folder for sockets and tokens: private (0700), short, gone after a reboot. Created here."""
    if sys.platform == "win32":
        folder = Path(environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / NAME / "run"
    elif given := environ.get("XDG_RUNTIME_DIR"):
        folder = Path(given) / NAME
    else:
        folder = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}"
    return _private(folder, "LOCALAPPDATA" if sys.platform == "win32" else "XDG_RUNTIME_DIR")


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own folder for what must outlast reboots, such as which workspaces are trusted. Created here."""
    if sys.platform == "win32":
        folder = Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / NAME
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support" / NAME
    else:
        folder = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / NAME
    return _private(folder, "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME")


def _private(folder: Path, variable: str) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise WorkspaceError(
            f"the folder {folder} for private files cannot be created: {error.strerror or error}; "
            f"set {variable} to a folder of yours, or, where it names somebody else's, unset it"
        ) from None
    if sys.platform != "win32":
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise WorkspaceError(f"{folder} is not a folder of yours; remove it, it is used for private files")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def supervising(workspace: Workspace) -> Iterator[WorkspaceLock]:
    """All that a supervisor needs of a workspace before it begins: folders, format, lock."""
    workspace.make_folders()
    with WorkspaceLock(workspace).acquire() as lock:
        workspace.check_format()
        yield lock
