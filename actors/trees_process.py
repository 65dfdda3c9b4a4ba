"""`actors.trees` in a process of its own, which is there while it is used and for a few seconds more.

Importing libgit2 costs each process some 15 MB that it never gives back, and a call into it that crashes or never
returns takes its process along. So workers and the supervisor have it done by a child (`actors.trees_server`), one call
at a time, and get the result, the progress, or the exception as it was. The child is part of its owner's process tree
and ends with the owner's end of the pipe, however that went. One that is stopped in the middle of a call cannot end
itself for hanging: its owner sees that, and ends it after the same time.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeAlias, TypeVar

from docs_store import errors
from ipc.process import Identity, identify, is_suspended

from . import blame, glance, trees, trees_server
from .blame import LastChange
from .command import own_command
from .environment import environment
from .trees import SKIPPED, Change, Conflict, Delivery, Merged, Progress, Snapshot, Trees

P = ParamSpec("P")
T = TypeVar("T")

IDLE = 10.0  # seconds for which a child without work is kept: a cycle that runs tests comes back for it
HANG = 60.0  # seconds that one call of libgit2 may take, the largest that we know less than three; or be stopped for
_ENDING = 5.0  # seconds for a child to go that was told to
_LAST_LINES = 12
_WORKSPACE_MARK = "PHASE_SUPERVISOR_WORKSPACE"

_VALUES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (trees.Problem, Snapshot, Merged, Conflict, Delivery, Change, blame.LastChange)
}
_ERRORS = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (trees.MissingCommitError, errors.LockBusyError, errors.StoreUnavailableError)
}


class GitProcessError(OSError):
    """The process that does git's work died or hung, or met an error that has no other name; its first line says which.

    What was in hand is half done at worst, and done by asking again: the next call has a new process.
    """


class GitHangsError(GitProcessError):
    """A call did not come back and was ended; asked again it would hang again. The first line says what to do."""


def in_brief(error: Exception) -> str:
    """What it says, by its first line: the others of git's name a process, which is another each time."""
    return str(error).partition("\n")[0]


class TreesProcess:
    """The shadow repository of one workspace, like `Trees`; from any thread, one call at a time. Starts nothing yet."""

    def __init__(
        self,
        workspace: Path,
        state: Path,
        *,
        skip: Collection[str] = SKIPPED,
        idle: float = IDLE,
        hang: float = HANG,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        """`idle` and `hang` are seconds; `marks` are further entries of the child's environment, to find it by."""
        self.workspace = workspace.resolve()
        self.state = state.resolve()
        self._skip = tuple(skip)
        self._idle = idle
        self._hang = hang
        self._marks = dict(marks or {})
        self._between, _ = trees.locks(self.state)
        self._turn = threading.RLock()
        self._child: _Child | None = None
        self._used = 0.0
        self._held = False  # the caller has the lock: a child takes its own before it does anything

    @property
    def pid(self) -> int | None:
        """The child's, if there is one now."""
        child = self._child
        return child.popen.pid if child is not None else None

    def close(self) -> None:
        """End the child; a later call would start another."""
        with self._turn:
            self._let_go()

    # -- what `Trees` has ------------------------------------------------------------------------------------------

    @property
    def head(self) -> str | None:
        """The commit of the work branch; None before the first."""
        return self._call(_head)

    @property
    def snapshot_head(self) -> str | None:
        """The last snapshot of the user's files; None before the first."""
        return self._call(_snapshot_head)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time; waits. Both processes hold their part: neither's death lets anybody else in."""
        self.state.mkdir(parents=True, exist_ok=True)
        with self._between.hold(trees.LONGEST_WAIT):
            if self._held:
                yield
                return
            self._held = True
            try:
                yield
            finally:
                self._held = False
                with self._turn:
                    if self._child is not None and self._child.holds:
                        self._release(self._child)

    def set_head(self, commit: str) -> None:
        """Move the work branch. Take `lock()` around reading it and this."""
        self._call(Trees.set_head, commit)

    def exists(self, commit: str) -> bool:
        """Whether the shadow repository has that commit."""
        return self._call(Trees.exists, commit)

    def log(self, head: str | None = None, *, since: str | None = None, most: int = 1000) -> tuple[Change, ...]:
        """The work branch from `head` (default: its head) back to `since`, newest first, first parents only."""
        return self._call(Trees.log, head, since=since, most=most)

    def snapshot(self, note: str, *, on_progress: Progress | None = None) -> Snapshot:
        """Commit the user's files as they are now; the same commit as before when nothing has changed."""
        return self._call(Trees.snapshot, note, on_progress=on_progress)

    def unchanged_since(self) -> str | None:
        """The last snapshot if the files are still what it holds; None where only another can tell. Needs no child."""
        return glance.unchanged_since(
            self.workspace, self.state, trees.left_out(self.workspace, self.state, self._skip)
        )

    def ignored(self, folders: Collection[str]) -> tuple[str, ...]:
        """The user's files below these folders that no snapshot holds, since an ignore rule says so."""
        return self._call(Trees.ignored, tuple(folders))

    def last_change(self, file: str, text: str, first: int, last: int) -> LastChange | None:
        """The newest commit of the user's own git that touched these lines of a file of that text; None if none did."""
        return self._call(Trees.last_change, file, text, first, last)

    def deliver(self, base: str, target: str) -> Delivery:
        """Bring the user's files from `base` to `target`, file by file, never over a change of the user's."""
        return self._call(Trees.deliver, base, target)

    def checkout(self, task: str, commit: str) -> Path:
        """The task's own folder, holding exactly that commit and nothing else; made or reset."""
        self._call(Trees.checkout, task, commit)
        return self.tree(task)

    def tree(self, task: str) -> Path:
        """Where the task's folder is, or would be."""
        return trees.tree_of(self.state, task)

    def commit(self, tree: Path, note: str, author: str, *, only: Collection[str] | None = None) -> str | None:
        """Commit what was done in a task's folder since it was checked out, or since the last commit of it."""
        return self._call(Trees.commit, tree, note, author, only=only if only is None else tuple(only))

    def merge(self, base_head: str, commit: str) -> Merged | Conflict:
        """Bring `commit` together with `base_head`, three-way from where they parted. Does not move the branch."""
        return self._call(Trees.merge, base_head, commit)

    def cherry_pick(self, onto: str, commit: str, *, base: str | None = None) -> Merged | Conflict:
        """What `commit` changed (since `base`, by default its first parent), upon `onto`, as one commit."""
        return self._call(Trees.cherry_pick, onto, commit, base=base)

    def changed_files(self, a: str, b: str) -> tuple[str, ...]:
        """Paths that differ between two commits, sorted."""
        return self._call(Trees.changed_files, a, b)

    def files(self, commit: str) -> tuple[str, ...]:
        """Every path of a commit, sorted."""
        return self._call(Trees.files, commit)

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's content in a commit; None if it has none."""
        return self._call(Trees.read, commit, path)

    # -- the child -------------------------------------------------------------------------------------------------

    def _call(self, method: Callable[Concatenate[Trees, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            child = self._running()
            if self._held and not child.holds:
                self._ask(child, trees_server.HOLD, (), {})
                child.holds = True
            found: T = self._ask(child, method.__name__.lstrip("_"), args, kwargs)
            return found

    def _ask(self, child: _Child, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        on_progress = kwargs.pop("on_progress", None)
        try:
            child.send((method, args, kwargs, on_progress is not None))
            while True:
                kind, *found = child.receive()
                if kind != trees_server.PROGRESS:
                    break
                on_progress(*found)
        except _GoneError as error:
            self._lost(method, error)
        except BaseException:  # what comes of the call is not waited for: nobody could tell it from the next answer
            self._let_go(at_once=True)
            raise
        finally:
            self._used = time.monotonic()
        if kind == trees_server.ERROR:
            raise _error(method, *found)
        return found[0]

    def _running(self) -> _Child:
        if self._child is not None and self._child.popen.poll() is not None:
            self._let_go()  # between two calls: nothing was in its hands
        if self._child is None:
            self._used = time.monotonic()
            try:
                self._child = _Child((self.workspace, self.state, self._skip), self._hang, self._marks)
            except OSError as error:
                raise GitProcessError(f"the process for git could not be started: {error}") from error
            threading.Thread(target=self._attend, args=(self._child,), name="git-attend", daemon=True).start()
        return self._child

    def _release(self, child: _Child) -> None:
        with contextlib.suppress(GitProcessError):  # it is gone, and its lock with it
            self._ask(child, trees_server.RELEASE, (), {})
            child.holds = False

    def _attend(self, child: _Child) -> None:
        """One thread for each child: ends it when it has been idle for long enough, or stopped in a call for too long.

        What it counts is its own pauses, not the clock: in one that was longer nobody could let the child go on.
        """
        every, stopped = min(self._hang / trees_server.LOOKS, self._idle), 0.0
        pause = every
        while not child.ended.wait(pause):
            stopped = stopped + pause if child.look(every) else 0.0
            pause = every
            if not self._turn.acquire(blocking=False):  # in the middle of a call
                if stopped > self._hang:
                    child.end_stopped()
                continue
            try:
                stopped = 0.0  # what waits for nothing may be stopped
                left = self._used + self._idle - time.monotonic()
                if left > 0:
                    pause = min(every, left)
                elif self._child is child and not self._held:
                    self._let_go()
            finally:
                self._turn.release()

    def _let_go(self, *, at_once: bool = False) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(at_once=at_once)

    def _lost(self, method: str, error: Exception) -> NoReturn:
        child, self._child = self._child, None
        assert child is not None
        code, said = child.end()
        lines = [*said.strip().splitlines()[-_LAST_LINES:], f"(process {child.popen.pid}, exit code {code})"]
        kind: type[GitProcessError] = GitProcessError
        if child.was_ended_stopped:
            text = (
                f"somebody stopped git's process and did not let it go on for {self._hang:g} s: it was ended, in the "
                f"middle of {method!r}; the next call starts another"
            )
        elif not trees_server.has_hung(code, said):
            text = f"git's process {_ended(code)}, in the middle of {method!r}; the next call starts another"
        elif child.was_away(self._hang / trees_server.LOOKS):
            text = (
                f"git's process took {method!r} for hanging after a pause of its own or of ours, and ended; the next "
                "call starts another"
            )
        else:
            kind = GitHangsError
            text = (
                f"git does not come back from {method!r}: one call of libgit2 was ended after {self._hang:g} s. Most "
                f"likely an object in {self.state / 'shadow.git'} was cut short when the machine lost power. Stop the "
                "crew and move that folder away: the next run makes it anew from your files, without the crew's "
                "undelivered changes"
            )
        raise kind("\n".join([text, *lines])) from error


class _GoneError(Exception):
    """The child's end of a pipe is closed."""


AnyTrees: TypeAlias = Trees | TreesProcess


class _Child:
    """The process, and the two ends of its pipes."""

    def __init__(self, opening: tuple[Any, ...], hang: float, marks: Mapping[str, str]) -> None:
        command, environ = own_command("actors.trees_server", environment(os.environ, marks, allow=(_WORKSPACE_MARK,)))
        # A group of its own, in our session: it is of our tree, and what is sent to our group or terminal ends it not
        # in the middle of a call.
        if sys.platform == "win32":
            own: dict[str, int] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        else:
            own = {"process_group": 0}
        self.holds = False  # its part of the lock
        self.ended = threading.Event()
        self.was_ended_stopped = False
        self._looked_at = time.monotonic()
        self._was_away = False
        self.popen: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            [*command, str(hang)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            **own,
        )
        self._identity = identify(self.popen.pid) or Identity(self.popen.pid, 0.0)
        with contextlib.suppress(_GoneError):  # it has died already; the first call says so
            self.send(opening)

    def send(self, message: tuple[Any, ...]) -> None:
        assert self.popen.stdin is not None
        try:
            trees_server.write_frame(self.popen.stdin, message)
        except OSError as error:
            raise _GoneError from error

    def receive(self) -> tuple[Any, ...]:
        """The next thing it says."""
        assert self.popen.stdout is not None
        frame = trees_server.read_frame(self.popen.stdout)
        if frame is None:
            raise _GoneError
        found: tuple[Any, ...] = _Answers(io.BytesIO(frame)).load()
        return found

    def look(self, every: float) -> bool:
        """Whether it is stopped now; asked about each `every` seconds."""
        suspended = is_suspended(self._identity)
        self._was_away = self.was_away(every) or suspended
        self._looked_at = time.monotonic()
        return suspended

    def was_away(self, every: float) -> bool:
        """Whether it, or we who should have looked, did not run for some time: its own alarm counted that, too."""
        return self._was_away or time.monotonic() - self._looked_at > 2 * every

    def end_stopped(self) -> None:
        """Kill it for being stopped; whoever waits for its answer sees the pipe end."""
        self.was_ended_stopped = True
        self.popen.kill()

    def end(self, *, at_once: bool = False) -> tuple[int, str]:
        """Close its pipes and wait for it; its exit code, and what it wrote on standard error."""
        self.ended.set()
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        if at_once:
            self.popen.kill()
        with contextlib.suppress(OSError):  # what waits to be written has no reader any more
            self.popen.stdin.close()
        try:
            code = self.popen.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = self.popen.wait()
        said = self.popen.stderr.read().decode("utf-8", "backslashreplace")
        self.popen.stdout.close()
        self.popen.stderr.close()
        return code, said


class _Answers(pickle.Unpickler):
    """Reads values, and runs no code of whoever may have got hold of the child: it is the one that reads files."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _VALUES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"git's process sent a {module}.{name}, which is no value of ours") from None


def _ended(code: int) -> str:
    if code >= 0:
        return "ended"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + ("; the machine may be short of memory" if name == "SIGKILL" else "")


def _error(method: str, name: str, args: tuple[Any, ...], more: dict[str, Any], where: str) -> Exception:
    """The exception that a call ended with, as itself where it is one that callers know."""
    plain = getattr(builtins, name.removeprefix("builtins."), None) if name.startswith("builtins.") else None
    if isinstance(plain, type) and issubclass(plain, Exception):
        error: Exception = plain(*args)
    elif name in _ERRORS:
        error = _ERRORS[name].__new__(_ERRORS[name], *args)
        error.__dict__.update(more)
    else:
        told = f"{name.rpartition('.')[2]}: {' '.join(map(str, args))}"
        error = GitProcessError(
            f"git could not do {method!r}: {told}. If .supervisor/shadow.git is damaged, stop the crew and move it "
            "away: the next run makes it anew from your files"
        )
    error.add_note(f"in git's process:\n{where}")
    return error


def _head(trees: Trees) -> str | None:
    return trees.head


def _snapshot_head(trees: Trees) -> str | None:
    return trees.snapshot_head
