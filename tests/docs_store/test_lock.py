"""The lock: waits without polling, names its holder, and is gone with it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docs_store.errors import LockBusyError
from docs_store.lock import Lock

HOLD = """
import sys, pathlib
from docs_store.lock import Lock
with Lock(pathlib.Path(sys.argv[1])).hold(5):
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"ready"
        yield child
        child.kill()


def test_a_busy_lock_names_its_holder(tmp_path: Path) -> None:
    """Who waits in vain learns the pid of the process that holds the lock."""
    with holding(tmp_path / "lock") as child, pytest.raises(LockBusyError, match=str(child.pid)) as caught:
        Lock(tmp_path / "lock").hold(0.05).__enter__()
    assert caught.value.pid == child.pid


def test_death_releases_it(tmp_path: Path) -> None:
    """A holder that is killed leaves the lock to the one who waits."""
    with holding(tmp_path / "lock") as child:
        entered = threading.Event()

        def wait() -> None:
            with Lock(tmp_path / "lock").hold(10):
                entered.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not entered.is_set()
        child.kill()
        waiter.join(10)
        assert entered.is_set()


def test_a_waiter_that_gave_up_holds_nothing(tmp_path: Path) -> None:
    """The thread left behind by a deadline lets go at once when the lock comes to it."""
    lock = Lock(tmp_path / "lock")
    with holding(tmp_path / "lock"), pytest.raises(LockBusyError):
        Lock(tmp_path / "lock").hold(0.05).__enter__()
    with lock.hold(5):
        assert lock.holder() > 0


def test_threads_exclude_each_other_even_on_one_object(tmp_path: Path) -> None:
    """Two threads of one process never hold it at the same time."""
    lock, inside, worst = Lock(tmp_path / "lock"), [0], [0]

    def work() -> None:
        for _ in range(50):
            with lock.hold(10):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1]


def test_the_same_thread_may_enter_again(tmp_path: Path) -> None:
    """What is done under the lock may take it itself, and the outer hold stays one."""
    lock = Lock(tmp_path / "lock")
    with lock.hold(1):
        with lock.hold(1):
            pass
        with pytest.raises(LockBusyError):
            Lock(tmp_path / "lock").hold(0.05).__enter__()


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    """A child started under the lock does not keep it when its parent lets go."""
    lock = Lock(tmp_path / "lock")
    with lock.hold(1):
        child = subprocess.Popen(
            [sys.executable, "-c", "print('ready', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"ready"
    with child, Lock(tmp_path / "lock").hold(1):
        assert child.poll() is None
        child.kill()
