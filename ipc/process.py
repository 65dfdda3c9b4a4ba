"""Starts a process with a tree of its own, sees its exit by its handle, and ends the whole tree.

A tree is what shares the process's session (POSIX) or Job Object (Windows), whatever carries its environment marker,
wherever that has moved to, and on Linux whatever descends from any of these. Who calls `adopt_orphans` there becomes
the parent of descendants whose own has died, so that also a daemon with a session and an environment of its own stays
within reach. An exit is seen by pidfd, by a `wait` in a thread where there is none, or by
WaitForSingleObject: neither a grandchild that holds the pipes nor a busy tick delays it. On Linux an exited process is
left unreaped until `aclose`, so that its number, which is also its group's and its session's, means nobody else
meanwhile. Whether anything is started again is for others to decide.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from .cgroup import Cgroup
from .pipes import AnyPipeReader, PipeWriter, reader
from .threads import in_thread, make_in_thread

if sys.platform == "win32":
    from . import console, job_object

T = TypeVar("T")

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

MARKER_PREFIX = "PHASE_SUPERVISOR_TREE_"  # a key of its own for each tree: one within another carries both
_PF_KTHREAD = 0x00200000
_YOUNG, _LOOKS = 2.0, 50  # seconds, times: how long a process without an environment may be in its exec
_SET_ADOPTER, _GET_ADOPTER = 36, 37  # PR_SET_CHILD_SUBREAPER and its counterpart, of prctl
_SURE = 3  # looks at one that has a command line by now
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds between looks at processes that are no children of ours


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A process for ever, where a bare pid is one only until it is reused.

    `created` is in seconds: since boot on Linux, whose clock may jump without harm; since 1970 elsewhere.
    """

    pid: int
    created: float


class SpawnError(OSError):
    """The program could not be started: the message names it and says why."""


class Process:
    """A process that `spawn` started, its pipes, and its tree. Use it as an async context manager, or `aclose` it."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        *,
        marker: Mapping[str, str],
        adopting: bool,
        stdin: PipeWriter | None,
        stdout: AnyPipeReader | None,
        stderr: AnyPipeReader | None,
    ) -> None:
        self.pid = popen.pid
        self.marker = dict(marker)
        self._adopting = adopting
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._popen = popen
        self._code: int | None = None
        self._reaped = False
        self._watching = anyio.Lock()
        self._exited: anyio.Event | None = None
        self._pidfd = _pidfd(popen.pid)
        self.identity = identify(popen.pid) or Identity(popen.pid, 0.0)
        if sys.platform == "win32":
            self._job: job_object.JobObject | None = None

    @property
    def returncode(self) -> int | None:
        """The exit code once `wait` has seen it (negative for a signal); None before."""
        return self._code

    @property
    def has_exited(self) -> bool:
        """Whether it is known to have exited; on Linux also when nobody has waited for it yet."""
        if self._code is None and sys.platform == "linux" and not self._reaped:
            return _peek_code(self.pid) is not None
        return self._code is not None

    async def wait(self) -> int:
        """The exit code, as soon as the process itself has exited; any number of tasks may wait."""
        if self._code is None:
            async with self._watching:
                if self._code is None:
                    self._code = await self._exit()
        return self._code

    def terminate(self) -> None:
        """Ask the whole group to end: SIGTERM, or CTRL_BREAK on Windows. ProcessLookupError if it has exited."""
        if self._code is not None:
            raise ProcessLookupError(f"process {self.pid} has exited")
        if sys.platform == "win32":
            console.send_break(self.pid)
        else:
            os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process group (POSIX) or the job (Windows) at once; nothing happens if they are gone."""
        if sys.platform == "win32":
            job = self._job
            if job is not None:
                job.terminate()
            elif self._code is None:
                self._popen.kill()
        elif not self._reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
                os.killpg(self.pid, signal.SIGKILL)

    def members(self) -> list[Identity]:
        """Who of the tree is alive, itself included. Reads the process table: call it in a thread."""
        if sys.platform == "win32":
            job = self._job
            if job is not None:
                return [found for pid in job.pids() if (found := identify(pid)) is not None]
            return escapees(self.marker)
        session = self.pid if not self._reaped else None
        found = set(_matching(self.marker, session=session, since=self.identity.created))
        if self._adopting:
            found.update(_adopted())
        return sorted(found)

    async def end_tree(self, *, within: float = 5.0) -> tuple[Identity, ...]:
        """Kill every process of the tree; return when none is left, or after `within` seconds with those that are."""
        return await _until_none(self.members, self.kill, within)

    async def aclose(self) -> None:
        """End the tree, reap, close the pipes; runs to its end even when the caller is being cancelled."""
        with anyio.CancelScope(shield=True):
            if not self._reaped:
                await self.end_tree()
                with anyio.move_on_after(5.0):  # an unkillable process must not hold us for ever
                    await self.wait()
                if self._code is not None:
                    with _children.lock:
                        self._popen.wait()
                        _children.leaders.discard(self.pid)
                    self._reaped = True
            if self._pidfd is not None:
                if sys.platform != "win32":
                    anyio.notify_closing(self._pidfd)  # somebody may still wait for an unkillable one
                os.close(self._pidfd)
                self._pidfd = None
            for pipe in (self.stdin, self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
            if sys.platform == "win32" and self._job is not None:
                self._job.close()
                self._job = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _exit(self) -> int:
        if sys.platform == "linux" and self._pidfd is not None:
            while (code := _peek_code(self.pid)) is None:
                await anyio.wait_readable(self._pidfd)
            return code
        if self._exited is None:
            self._exited = anyio.Event()
            token = anyio.lowlevel.current_token()
            threading.Thread(
                target=self._block, args=(token, self._exited), name=f"wait-{self.pid}", daemon=True
            ).start()
        await self._exited.wait()
        assert self._popen.returncode is not None
        self._reaped = sys.platform != "win32"
        return self._popen.returncode

    def _block(self, token: anyio.lowlevel.EventLoopToken, exited: anyio.Event) -> None:
        self._popen.wait()
        with contextlib.suppress(anyio.RunFinishedError):  # nobody waits any more
            anyio.from_thread.run_sync(exited.set, token=token)


async def spawn(
    cmd: Sequence[str | os.PathLike[str]],
    *,
    stdin: int = DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    marker: Mapping[str, str] | None = None,
    session: bool = True,
    adopting: bool = False,
) -> Process:
    """Start `cmd` with a process tree of its own.

    `stdin`, `stdout` and `stderr` are PIPE, DEVNULL, a descriptor, or None to inherit; `marker` is added to `env`
    (None: ours) and finds the tree's members later (None: one of its own). `session=False` gives it a group of its own
    within our session, so that it stays a part of our own tree; the markers of the trees that we are in are carried
    over in any case. `adopting`: orphans that we have adopted (`adopt_orphans`) count to its tree, whoever
    left them; only for processes all of whose children that lead a session come from here. Raises SpawnError.
    """
    ours: list[int] = []
    theirs: list[int] = []

    marker = marker or new_marker()

    def end_for(what: int | None, *, writes: bool) -> tuple[int | None, int | None]:
        """What the child gets, and our end of the pipe."""
        if what != PIPE:
            return what, None
        readable, writable = os.pipe()
        mine, its = (readable, writable) if writes else (writable, readable)
        ours.append(mine)
        theirs.append(its)
        return its, mine

    try:
        child_in, write_to = end_for(stdin, writes=False)
        child_out, read_out = end_for(stdout, writes=True)
        child_err, read_err = end_for(stderr, writes=True)
        carried = {key: value for key, value in os.environ.items() if key.startswith(MARKER_PREFIX)}
        environ = {**carried, **(os.environ if env is None else env), **marker}

        def start() -> subprocess.Popen[bytes]:
            with _children.lock:
                started = _popen(cmd, child_in, child_out, child_err, cwd=cwd, environ=environ, session=session)
                if session:
                    _children.leaders.add(started.pid)
                return started

        try:
            popen = await make_in_thread(start, undo=lambda started: _take_back(started, marker))
        except (OSError, ValueError) as error:
            raise SpawnError(f"{os.fspath(cmd[0])} could not be started: {error}") from error
        process = Process(
            popen,
            marker=marker,
            adopting=adopting,
            stdin=None if write_to is None else PipeWriter(write_to),
            stdout=None if read_out is None else reader(read_out),
            stderr=None if read_err is None else reader(read_err),
        )
        ours.clear()
        if sys.platform == "win32":
            await _into_job(process, popen)
        return process
    finally:
        for descriptor in (*ours, *theirs):
            os.close(descriptor)


async def stop(process: Process, *, grace: float) -> int | None:
    """Ask, wait up to `grace` seconds, insist; then end what is left of the tree. The process's exit code.

    None if not even SIGKILL has ended it (a process in the middle of a system call that hangs). Runs to its end even
    when the caller is being cancelled.
    """
    with anyio.CancelScope(shield=True):
        with contextlib.suppress(OSError):  # it was quicker than we were, or has no console to be asked through
            process.terminate()
        with anyio.move_on_after(grace):
            await process.wait()
        if not await process.end_tree():
            await process.wait()
    return process.returncode


def new_marker() -> dict[str, str]:
    """An environment entry that no other tree has."""
    return {f"{MARKER_PREFIX}{secrets.token_hex(8).upper()}": "1"}


def python_command(*, executable: str | None = None) -> tuple[list[str], dict[str, str]]:
    """The start of a command that runs this Python, and what its environment needs beside ours.

    On Windows a venv's python.exe only starts the real one, which would then be a grandchild: the real one is started.
    """
    executable = executable or sys.executable
    base: str | None = getattr(sys, "_base_executable", None)
    if sys.platform == "win32" and base and executable == sys.executable and base != executable:
        return [base], {"__PYVENV_LAUNCHER__": executable}
    return [executable], {}


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None if nobody has, or only a zombie."""
    if sys.platform == "linux":
        entry = _stat(pid)
        return None if entry is None else Identity(pid, entry.created)
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else Identity(pid, process.create_time())
    except psutil.Error:
        return None


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(identity.pid) == identity


def is_suspended(identity: Identity) -> bool:
    """Whether that very process has been stopped by a signal, not by a debugger; False where this cannot be told."""
    if sys.platform == "linux":
        entry = _stat(identity.pid)
        return entry is not None and entry.created == identity.created and entry.state == "T"
    import psutil

    try:
        process = psutil.Process(identity.pid)
        return process.create_time() == identity.created and process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def kill(identity: Identity) -> bool:
    """SIGKILL that very process; False if it is gone. PermissionError if it is not ours to end."""
    if sys.platform == "linux":
        pidfd = _pidfd(identity.pid)
        try:
            if identify(identity.pid) != identity:
                return False
            if pidfd is None:
                os.kill(identity.pid, signal.SIGKILL)
            else:  # the descriptor means the process that was just looked at, or a dead one
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            if pidfd is not None:
                os.close(pidfd)
        return True
    import psutil

    try:
        process = psutil.Process(identity.pid)
        if process.create_time() != identity.created:
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied as error:
        raise PermissionError(f"process {identity.pid} may not be ended by this user") from error
    return True


def escapees(marker: Mapping[str, str]) -> list[Identity]:
    """Every live process, but this one, that was started with all of `marker` in its environment.

    Sees this user's processes only, and not those that were given an empty environment. Call it in a thread.
    """
    if not marker:
        raise ValueError("an empty marker would match every process")
    return sorted(_matching(marker, session=None, since=0.0))


def own_tree(marker: Mapping[str, str]) -> list[Identity]:
    """Every live process, but this one, that descends from it, is of the session it leads, or has `marker`.

    Call it in a thread.
    """
    session = os.getpid() if sys.platform != "win32" and os.getsid(0) == os.getpid() else None
    if sys.platform != "linux" and session is None and not marker:
        return []
    return sorted(_matching(marker, session=session, since=0.0, descend=True))


def adopt_orphans() -> bool:
    """From now on descendants whose parent dies become children of this process; False where that is not to be had.

    Linux only. Who calls this sees to it that they are found (`spawn(adopting=True)`) or at least reaped
    (`reap_orphans`) when they end.
    """
    return _prctl(_SET_ADOPTER, 1) == 0


def reap_orphans() -> None:
    """Let go of adopted processes that have ended. Cheap, and never takes an exit code from whoever waits for a child.

    A child that we, or a library, started is in our session or leads its own; what is neither was adopted.
    """
    if sys.platform != "linux":
        return
    for pid, entry in _our_children():
        if entry.state == "Z" and entry.session not in (pid, os.getsid(0)):
            _reap(pid)


async def sweep(marker: Mapping[str, str], *, within: float = 5.0) -> tuple[Identity, ...]:
    """Kill every process that carries `marker`; those that outlive `within` seconds are returned."""
    return await _until_none(lambda: escapees(marker), lambda: None, within)


def in_group(cgroup: Cgroup) -> list[Identity]:
    """Every live process, but this one, of a control group and those within it."""
    return [found for pid in cgroup.pids() if pid != os.getpid() and (found := identify(pid)) is not None]


async def end_group(cgroup: Cgroup, *, within: float = 5.0) -> tuple[Identity, ...]:
    """Kill every process of a control group, which this one is not in; those that outlive `within` s are returned."""
    return await _until_none(lambda: in_group(cgroup), cgroup.kill, within)


async def _until_none(
    find: Callable[[], Iterable[Identity]], kill_more: Callable[[], None], within: float
) -> tuple[Identity, ...]:
    """Look, kill what was found and `kill_more`, until nothing is found.

    Looking comes first: a death breaks the line of parents by which its descendants are found. And it comes last: new
    ones may be born meanwhile.
    """
    deadline = time.monotonic() + within
    pause = _FIRST_PAUSE
    while found := await in_thread(lambda: _kill_all(find, kill_more)):
        if time.monotonic() >= deadline:
            break
        await anyio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return tuple(found)


def _kill_all(find: Callable[[], Iterable[Identity]], kill_more: Callable[[], None]) -> list[Identity]:
    found = list(find())
    kill_more()
    for identity in found:
        with contextlib.suppress(PermissionError):  # it stays in the list, which names it in the end
            kill(identity)
    return found


def _take_back(popen: subprocess.Popen[bytes], marker: Mapping[str, str]) -> None:
    """End what was started for a caller that was cancelled meanwhile. Blocks."""
    if sys.platform == "win32":
        popen.kill()  # it is suspended, and has started nothing
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        for identity in escapees(marker):
            kill(identity)
    with contextlib.suppress(subprocess.TimeoutExpired), _children.lock:
        popen.wait(5.0)
        _children.leaders.discard(popen.pid)


def _popen(
    cmd: Sequence[str | os.PathLike[str]],
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    *,
    cwd: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    session: bool,
) -> subprocess.Popen[bytes]:
    command = [os.fspath(part) for part in cmd]
    if sys.platform == "win32":
        suspended = 0x00000004  # CREATE_SUSPENDED: it joins its job before it can start anything
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | suspended
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=dict(environ), creationflags=flags
        )
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=dict(environ),
        start_new_session=session,
        process_group=None if session else 0,
    )


if sys.platform == "win32":

    async def _into_job(process: Process, popen: subprocess.Popen[bytes]) -> None:
        handle = int(popen._handle)  # type: ignore[attr-defined]  # noqa: SLF001 - the only way to it
        try:
            job = job_object.JobObject()
            job.add(handle)
            process._job = job  # noqa: SLF001 - the same room
        finally:
            job_object.resume(handle)


def _pidfd(pid: int) -> int | None:
    """A handle of that process, where the system has such; None also when a sandbox forbids it."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError:
        return None


def _peek_code(pid: int) -> int | None:
    """The exit code of a child of ours, leaving it unreaped; None while it runs."""
    if sys.platform == "win32" or sys.platform == "darwin":
        raise NotImplementedError("only Linux leaves a child unreaped here")
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return 0  # somebody else reaped it, as `subprocess` says in that case too
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


class _Children:
    """Which children of this process lead a session: `spawn` started them, all others that do were adopted."""

    def __init__(self) -> None:
        self.leaders: set[int] = set()
        self.lock = threading.Lock()  # a child between its start and its entry must not be taken for an orphan


_children = _Children()  # one for the process, as the children themselves are


def _adopted() -> list[Identity]:
    """Live orphans that this process has adopted; those that have ended are reaped. None where it is no adopter."""
    if sys.platform != "linux" or not _is_adopter():
        return []
    found = []
    with _children.lock:
        for pid, entry in _our_children():
            if entry.session == os.getsid(0) or pid in _children.leaders:
                continue
            if entry.state in "ZXx":
                _reap(pid)
            else:
                found.append(Identity(pid, entry.created))
    return found


def _our_children() -> Iterator[tuple[int, _Entry]]:
    """Children of this process, zombies too: each thread lists its own, where the kernel keeps such lists."""
    names: list[str] = []
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - quicker, and names are all we want
            with (
                contextlib.suppress(ProcessLookupError),  # the thread has ended, and another has its children
                open(f"/proc/self/task/{thread}/children", encoding="ascii") as file,  # noqa: PTH123 - kept quick
            ):
                names += file.read().split()
    except FileNotFoundError:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - as above
    for pid in map(int, names):
        entry = _read_stat(pid)
        if entry is not None and entry.parent == os.getpid():
            yield pid, entry


def _is_adopter() -> bool:
    import ctypes

    answer = ctypes.c_int(0)
    return _prctl(_GET_ADOPTER, ctypes.byref(answer)) == 0 and bool(answer.value)


def _prctl(option: int, value: object) -> int:
    if sys.platform != "linux":
        return -1
    import ctypes

    try:
        return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))
    except (OSError, AttributeError):  # no C library to ask
        return -1


def _reap(pid: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ChildProcessError):  # somebody was quicker
            os.waitpid(pid, os.WNOHANG)


@dataclass(frozen=True, slots=True)
class _Entry:
    state: str
    parent: int
    group: int
    session: int
    created: float
    is_kernels: bool  # a thread of the kernel's


def _stat(pid: int) -> _Entry | None:
    """A live process's line in the table; None if it is gone or a zombie."""
    entry = _read_stat(pid)
    return None if entry is None or entry.state in "ZXx" else entry


def _read_stat(pid: int) -> _Entry | None:
    """A process's line in the table, also a zombie's; None if it is gone."""
    if sys.platform == "win32":
        raise NotImplementedError("there is no /proc here")
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - read often, kept quick
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not fields:
        return None
    return _Entry(
        fields[0].decode(),
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        int(fields[19]) / os.sysconf("SC_CLK_TCK"),
        bool(int(fields[6]) & _PF_KTHREAD),
    )


def _matching(
    marker: Mapping[str, str], *, session: int | None, since: float, descend: bool = False
) -> Iterator[Identity]:
    """Live processes of the session or its leader's group, or with the marker; this process is never one of them.

    On Linux those that descend from any of them too, and with `descend` those that descend from this process.
    """
    if sys.platform == "linux":
        wanted = [f"{key}={value}".encode() for key, value in marker.items()]
        entries: dict[int, _Entry] = {}
        for name in os.listdir("/proc"):  # noqa: PTH208 - quicker, and names are all we want
            entry = _stat(int(name)) if name.isdigit() and int(name) != os.getpid() else None
            if entry is not None and entry.created >= since:
                entries[int(name)] = entry
        found = {
            pid
            for pid, entry in entries.items()
            if (session is not None and session in (entry.session, entry.group))
            or (wanted and _carries(str(pid), wanted, entry))
        }
        found |= _descendants({pid: entry.parent for pid, entry in entries.items()}, found, os.getpid() * descend)
        for pid in found:
            yield Identity(pid, entries[pid].created)
        return
    yield from _matching_elsewhere(marker, session=session, since=since)


def _descendants(parents: Mapping[int, int], roots: Iterable[int], root: int) -> set[int]:
    """Whose line of parents leads to one of the roots."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    left = [*roots, *([root] if root else [])]
    while left:
        for pid in children.get(left.pop(), ()):
            if pid not in found:
                found.add(pid)
                left.append(pid)
    return found


def _carries(pid: str, wanted: list[bytes], entry: _Entry) -> bool:
    environ, begun = _environ(pid), 0
    # In the middle of its exec a process has no environment yet, nor a command line, which comes just before: look
    # again, for a moment, before letting it escape. One that has the other and still none was given none.
    for _ in range(_LOOKS):
        if environ or begun == _SURE or entry.is_kernels or not _is_young(entry):
            break
        begun += bool(_read_of(pid, "cmdline"))
        time.sleep(_FIRST_PAUSE)
        environ = _environ(pid)
    block = b"\0" + environ
    return all(b"\0" + pair + b"\0" in block for pair in wanted)


def _is_young(entry: _Entry) -> bool:
    if sys.platform != "linux":
        raise NotImplementedError("there is no /proc here")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - entry.created < _YOUNG


def _environ(pid: str) -> bytes:
    return _read_of(pid, "environ")


def _read_of(pid: str, what: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{what}", "rb", buffering=0) as file:  # noqa: PTH123 - read often, kept quick
            return file.read()
    except OSError:  # gone, or another user's
        return b""


def _matching_elsewhere(marker: Mapping[str, str], *, session: int | None, since: float) -> Iterator[Identity]:
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            identity = Identity(process.pid, process.create_time())
            if identity.created < since:
                continue
            if _in_session(process.pid, session):
                yield identity
            elif marker:
                environ = process.environ()
                if all(environ.get(key) == value for key, value in marker.items()):
                    yield identity
        except psutil.Error:  # gone, or another user's
            continue


def _in_session(pid: int, session: int | None) -> bool:
    if session is None or sys.platform == "win32":
        return False
    try:
        return session in (os.getsid(pid), os.getpgid(pid))
    except OSError:
        return False
