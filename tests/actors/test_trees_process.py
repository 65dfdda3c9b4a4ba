"""Git in a process of its own: there while it is used, its death and its hanging are errors, nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import psutil
import pytest

from actors import trees_process, trees_server
from actors.trees import Conflict, Merged, MissingCommitError, Problem, Trees, locks
from actors.trees_process import GitHangsError, GitProcessError, TreesProcess, in_brief
from docs_store.errors import LockBusyError
from docs_store.lock import Lock
from ipc.process import escapees, identify, new_marker, sweep
from tests.systems import SIGKILL, hold, let_go

LONG = 15.0  # seconds for what takes a moment on a quiet machine


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n", newline="\n")
    (folder / "b.txt").write_text("two\n", newline="\n")
    return folder


@pytest.fixture
def trees(work: Path) -> Iterator[TreesProcess]:
    made = TreesProcess(work, work / ".supervisor", idle=60.0)
    yield made
    made.close()


def becomes(what: Callable[[], bool]) -> bool:
    """Whether it becomes true within a long time; looks again and again, since nobody tells of it."""
    deadline = time.monotonic() + LONG
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_there(pid: int) -> bool:
    return identify(pid) is not None


def end(pid: int) -> None:
    """Kill a process; its parent, which is us, still has to take note of it."""
    os.kill(pid, SIGKILL)
    assert becomes(lambda: not is_there(pid))


def kill(trees: TreesProcess) -> None:
    """Kill the child between two calls, and wait until its owner can know it."""
    child = trees._child
    assert child is not None
    child.popen.kill()
    child.popen.wait(LONG)


def test_it_does_what_trees_does(trees: TreesProcess, work: Path) -> None:
    """Values, progress and exceptions come as themselves; libgit2 is loaded in the child alone."""
    assert trees.pid is None
    seen: list[tuple[int, int]] = []
    base = trees.snapshot("start", on_progress=lambda done, total: seen.append((done, total)))
    assert (base.files, base.changed, seen[-1]) == (2, 2, (2, 2))
    assert trees.head is None
    assert trees.snapshot_head == base.commit
    with trees.lock():
        trees.set_head(base.commit)
    assert trees.head == base.commit
    assert trees.exists(base.commit)
    tree = trees.checkout("developer", base.commit)
    assert tree == trees.tree("developer") == Trees.open(work, work / ".supervisor").tree("developer")
    (tree / "a.txt").write_text("1\n", newline="\n")
    (tree / "b.txt").write_text("2\n", newline="\n")
    commit = trees.commit(tree, "note", "Developer", only=["a.txt"])
    assert commit is not None
    assert trees.changed_files(base.commit, commit) == ("a.txt",)
    assert trees.files(commit) == ("a.txt", "b.txt")
    assert trees.read(commit, "a.txt") == b"1\n"
    assert trees.merge(base.commit, commit) == Merged(commit)
    assert isinstance(trees.cherry_pick(base.commit, commit), Merged)
    assert [change.note for change in trees.log(commit, most=1)] == ["note"]
    assert trees.ignored(["none"]) == ()
    assert trees.last_change("a.txt", "one\n", 1, 1) is None
    (work / "b.txt").write_text("mine\n")
    (tree / "b.txt").write_text("theirs\n", newline="\n")
    (tree / "a.txt").write_text("one\n", newline="\n")
    other = trees.commit(tree, "other", "Developer")
    assert other is not None
    assert trees.deliver(base.commit, other).conflicts == (Problem("b.txt", "you have changed it"),)
    with pytest.raises(MissingCommitError, match=r"deleted or cut") as caught:
        trees.merge("a" * 40, commit)
    assert "trees.py" in caught.value.__notes__[0]
    trees.snapshot("changed")
    assert isinstance(trees.cherry_pick(trees.snapshot_head or "", other), Conflict)


def test_an_error_of_the_system_keeps_its_number(trees: TreesProcess, work: Path) -> None:
    """`errno` and the file arrive: who waits for room on the disk knows by them."""
    base = trees.snapshot("start").commit
    (work / ".supervisor" / "trees").write_text("in the way")
    with pytest.raises(OSError, match="trees") as caught:
        trees.checkout("developer", base)
    assert caught.value.errno is not None
    assert not isinstance(caught.value, GitProcessError)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "a.txt"),
        OSError("without a number"),
        KeyError("a"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        LockBusyError(Path("lock"), 1.0, 77),
        MissingCommitError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was(error: Exception) -> None:
    """Type, text, number, file and attributes."""
    there = trees_process._error("call", *trees_server._told(error))
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert getattr(there, "pid", None) == getattr(error, "pid", None)
    assert getattr(there, "filename", None) == getattr(error, "filename", None)


def test_an_error_that_nobody_here_knows_is_git_s(trees: TreesProcess) -> None:
    """libgit2's own exceptions are not looked for where libgit2 is not loaded."""
    base = trees.snapshot("start").commit
    path = trees.state / "shadow.git" / "objects" / base[:2] / base[2:]
    path.chmod(0o600)
    path.write_bytes(b"rubbish")
    trees.close()
    with pytest.raises(GitProcessError, match="git could not do 'merge'"):
        trees.merge(base, base)


def test_it_is_there_only_while_it_is_used(work: Path) -> None:
    """The child goes when it has been idle; the next call has another, which finds all as it was."""
    seen: list[int | None] = []
    trees = TreesProcess(work, work / ".supervisor", idle=0.2)
    base = trees.snapshot("start", on_progress=lambda _done, _total: seen.append(trees.pid)).commit
    first = seen[-1]
    assert first is not None
    assert becomes(lambda: trees.pid is None)
    assert becomes(lambda: not is_there(first))
    assert trees.exists(base)
    trees.close()
    assert trees.pid is None
    assert "git-attend" not in {thread.name for thread in threading.enumerate() if thread.is_alive()} or becomes(
        lambda: "git-attend" not in {thread.name for thread in threading.enumerate()}
    )


def test_a_lock_keeps_it(work: Path) -> None:
    """While the caller holds the lock the child is not ended for idleness: it holds its part."""
    trees = TreesProcess(work, work / ".supervisor", idle=0.05)
    with trees.lock():
        trees.snapshot("start")
        pid = trees.pid
        time.sleep(0.3)  # long enough to be ended, if it were
        assert trees.pid == pid
    assert becomes(lambda: trees.pid is None)


def test_its_death_is_told_and_the_next_call_has_another(trees: TreesProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a call: the caller hears of what; killed between two: nobody does."""
    base = trees.snapshot("start").commit
    pid = trees.pid
    assert pid is not None
    failed: list[GitProcessError] = []
    asked = threading.Event()
    send = trees_process._Child.send

    def tell(child: trees_process._Child, message: tuple[object, ...]) -> None:
        send(child, message)
        asked.set()

    monkeypatch.setattr(trees_process._Child, "send", tell)

    def wait_for_the_lock() -> None:
        try:
            with trees.lock():
                trees.set_head(base)
        except GitProcessError as error:
            failed.append(error)

    caller = threading.Thread(target=wait_for_the_lock)
    with locks(trees.state)[1].hold():  # it waits for that, and so is in the middle of a call
        caller.start()
        assert asked.wait(LONG)
        end(pid)
        caller.join()
    (told,) = map(str, failed)
    assert "in the middle of 'hold'; the next call starts another" in told
    assert f"process {pid}" in told
    if sys.platform != "win32":
        assert "killed by SIGKILL; the machine may be short of memory" in told
    assert trees.files(base) == ("a.txt", "b.txt")
    assert trees.pid not in (None, pid)
    kill(trees)
    assert trees.files(base) == ("a.txt", "b.txt")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["in a call", "between two"])
def test_one_that_somebody_stopped_is_ended_by_its_owner(work: Path, when: str) -> None:
    """It cannot see its own limit: the call is told of as one that was killed, and asked again it is done."""
    trees = TreesProcess(work, work / ".supervisor", idle=60.0, hang=2.0)
    base = trees.snapshot("start").commit
    pid = trees.pid
    assert pid is not None
    began = time.monotonic()
    if when == "between two":
        hold(pid)
        with pytest.raises(GitProcessError, match="stopped git's process and did not let it go on for 2 s") as caught:
            trees.files(base)
    else:

        def stop(_done: int, _total: int) -> None:
            if trees.pid is not None and psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                hold(pid)

        with pytest.raises(
            GitProcessError, match="in the middle of 'snapshot'; the next call starts another"
        ) as caught:
            trees.snapshot("again", on_progress=stop)
    assert not isinstance(caught.value, GitHangsError)  # which nobody would ask again
    assert 2.0 <= time.monotonic() - began < LONG
    assert f"process {pid}" in str(caught.value)
    assert not is_there(pid)
    assert trees.files(base) == ("a.txt", "b.txt")
    assert trees.pid not in (None, pid)
    trees.close()


def test_one_that_goes_on_in_time_loses_nothing(trees: TreesProcess) -> None:
    """The call ends as it would have."""
    base = trees.snapshot("start").commit
    pid = trees.pid
    assert pid is not None
    hold(pid)
    later = threading.Timer(0.3, let_go, (pid,))
    later.start()
    assert trees.files(base) == ("a.txt", "b.txt")
    assert trees.pid == pid
    later.join()


def test_what_the_caller_raises_while_it_hears_of_progress_ends_the_call(trees: TreesProcess) -> None:
    """No answer of a call that nobody waits for is taken for another's."""

    class EnoughError(Exception):
        pass

    def stop(_done: int, _total: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        trees.snapshot("start", on_progress=stop)
    assert trees.pid is None
    assert trees.snapshot("start").files == 2


def cut(trees: TreesProcess, path: str) -> Path:
    """Cut the loose object of a new large file short, as a power failure does."""
    (trees.workspace / path).write_bytes(os.urandom(100_000))
    commit = trees.snapshot("with it").commit
    from actors.folders import blob_id

    oid = blob_id((trees.workspace / path).read_bytes()).hex()
    file = trees.state / "shadow.git" / "objects" / oid[:2] / oid[2:]
    file.chmod(0o600)
    with file.open("r+b") as there:
        there.truncate(50_000)
    assert commit
    return file


def test_a_cut_object_is_an_error_that_says_what_to_do(work: Path) -> None:
    """libgit2 never returns from reading one, and keeps the interpreter: the child ends itself."""
    trees = TreesProcess(work, work / ".supervisor", hang=3.0)
    cut(trees, "large.bin")
    base = trees.snapshot_head
    assert base is not None
    trees.close()
    began = time.monotonic()
    with pytest.raises(GitHangsError, match=r"was ended after 3 s.*shadow\.git") as caught:
        trees.checkout("developer", base)
    assert time.monotonic() - began < LONG
    assert "in _blob" in str(caught.value)
    assert trees.exists(base)
    trees.close()


def watched(code: str) -> subprocess.CompletedProcess[str]:
    """Run code under a watch of 1.8 s, in an interpreter of its own."""
    text = f"from actors.trees_server import Watch\nwatch = Watch(1.8)\nwatch.start()\nwatch.begin()\n{code}"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=LONG, check=False)


def test_what_takes_long_and_is_no_hanging(tmp_path: Path) -> None:
    """Waiting outside of libgit2, and many calls into it, may take longer than one call may."""
    package = tmp_path / "pygit2"
    package.mkdir()
    (package / "there.py").write_text("import time\ndef wait(long):\n    time.sleep(long)\n")
    here = f"import sys, time; sys.path.insert(0, {str(package)!r}); from there import wait\n"
    assert watched("import time; time.sleep(3)").returncode == 0
    assert watched(here + "for _ in range(120): wait(0.025)").returncode == 0
    hung = watched(here + "wait(15)")
    assert trees_server.has_hung(hung.returncode, hung.stderr)


def test_both_processes_hold_the_lock(trees: TreesProcess, work: Path) -> None:
    """Neither's death lets anybody in: what the caller holds and what the child holds are two."""
    ours, its = locks(trees.state)
    other = Trees.open(work, work / ".supervisor")
    with trees.lock():
        trees.snapshot("start")
        for lock in (ours, its):
            with pytest.raises(LockBusyError):
                _in_thread(partial(_try, lock))
        assert trees.pid is not None
        assert its.holder() == trees.pid
        kill(trees)
        with pytest.raises(LockBusyError):
            _in_thread(partial(_try, ours))
        assert trees.snapshot_head is not None  # another child, with the lock again
        assert its.holder() == trees.pid
        with trees.lock():  # entered again
            assert trees.head is None
    with other.lock():
        pass
    with trees.lock():
        assert trees.head is None


def _try(lock: Lock) -> None:
    with lock.hold(0.01):
        pass


def _in_thread(work: Callable[[], object]) -> None:
    """The same thread may enter again."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except LockBusyError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


OWNER = """
import sys, time
from pathlib import Path
from actors.trees_process import TreesProcess
trees = TreesProcess(Path(sys.argv[1]), Path(sys.argv[1]) / ".supervisor")
with trees.lock():
    trees.snapshot("start")
    print(trees.pid, flush=True)
    def say(*_):
        print("in a call", flush=True)
        time.sleep(600)
    trees.snapshot("again", on_progress=say)
"""


def test_it_ends_with_its_owner(work: Path) -> None:
    """A killed owner leaves neither a process nor a lock, also in the middle of a call."""
    mark = new_marker()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(work)], stdout=subprocess.PIPE, text=True, env=os.environ | mark
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert owner.stdout.readline() == "in a call\n"
    assert pid in {one.pid for one in escapees(mark)}, "whoever ends the owner's tree finds it"
    if sys.platform != "win32":
        assert os.getsid(pid) == os.getsid(owner.pid)
        assert os.getpgid(pid) == pid, "a signal to the owner's group is not for it"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert becomes(lambda: not is_there(pid))
    with Trees.open(work, work / ".supervisor").lock():
        pass


WAITING = """
import sys, threading
from pathlib import Path
from actors.trees import locks
from actors.trees_process import GitHangsError, GitProcessError, TreesProcess, in_brief
trees = TreesProcess(Path(sys.argv[1]), Path(sys.argv[1]) / ".supervisor", hang=2.0)
base = trees.snapshot("start").commit
print(trees.pid, flush=True)
sys.stdin.readline()  # somebody else has the child's part of the lock now
try:
    with trees.lock():
        trees.set_head(base)
except GitProcessError as error:
    print(type(error).__name__, str(error).splitlines()[0], flush=True)
else:
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.only_on("posix", reason="SIGSTOP")
def test_a_pause_of_all_is_no_hanging(work: Path) -> None:
    """A tree that is stopped and let go on (a container that is paused): the child's alarm counted that time."""
    owner = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    with locks(work / ".supervisor")[1].hold():
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert becomes(lambda: psutil.Process(pid).num_threads() > 3), "the alarm is a thread of its own"
        for one in (owner.pid, pid):
            hold(one)
        time.sleep(2.5)  # longer than one call may take
        for one in (owner.pid, pid):
            let_go(one)
        time.sleep(0.5)  # for the alarm to be heard, if it is
    said = owner.communicate(timeout=LONG)[0]
    assert owner.returncode == 0
    assert said == "done\n" or said.startswith("GitProcessError git's process took 'hold' for hanging after a pause")


@pytest.mark.parametrize(
    "ended",
    [
        pytest.param("killed", marks=pytest.mark.only_on("posix", reason="orphaned process groups are let go on")),
        "swept with its tree",
    ],
)
def test_a_stopped_one_does_not_outlive_its_owner(work: Path, ended: str) -> None:
    """Who ends its tree ends it too; where only the owner dies, the system lets it go on, and it hears of that."""
    mark = new_marker()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(work)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | mark,
        start_new_session=sys.platform != "win32",  # as a worker is
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert owner.stdout.readline() == "in a call\n"
    hold(pid)
    if ended == "killed":
        owner.kill()
    else:
        assert anyio.run(sweep, mark) == ()
    owner.wait()
    owner.stdout.close()
    assert becomes(lambda: not is_there(pid))
    with Trees.open(work, work / ".supervisor").lock():
        pass


def test_it_gets_no_secrets(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is what a program needs to run; its owner's keys and the user's PYTHONPATH stay."""
    monkeypatch.setenv("SHOP_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(work))
    (work / "struct.py").write_text("raise SystemExit(9)")
    trees = TreesProcess(work, work / ".supervisor", marks={"PHASE_SUPERVISOR_WORKSPACE": "here"})
    assert trees.snapshot("start").files == 3
    environ = psutil.Process(trees.pid).environ()
    assert "SHOP_API_KEY" not in environ
    assert str(work) not in environ.get("PYTHONPATH", "")
    assert environ["PHASE_SUPERVISOR_WORKSPACE"] == "here"
    trees.close()


def test_it_loads_little() -> None:
    """A child starts for each cycle: no event loop, no logging library, not the whole document store."""
    code = "import sys, actors.trees_server, actors.trees; print(*{m.split('.')[0] for m in sys.modules})"
    more = "; print(*[m for m in sys.modules if m.startswith('docs_store')])"
    done = subprocess.run([sys.executable, "-P", "-c", code + more], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert not set(first.split()) & {"anyio", "asyncio", "structlog", "rich", "psutil", "supervisor", "ipc"}
    assert set(second.split()) == {"docs_store", "docs_store.errors", "docs_store.lock"}


def test_the_first_line_of_an_error_is_the_same_each_time() -> None:
    """What is shown once must not differ by the number of a process; an error without a text has none."""
    assert {in_brief(GitProcessError(f"git died\n(process {pid})")) for pid in (1, 2)} == {"git died"}
    assert in_brief(OSError()) == ""


def test_an_answer_runs_no_code() -> None:
    """What the child says is read as values: it reads files of whoever, and is believed no more than they."""
    import io
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, ("true",))

    with pytest.raises(pickle.UnpicklingError, match="no value of ours"):
        trees_process._Answers(io.BytesIO(pickle.dumps(Evil()))).load()
