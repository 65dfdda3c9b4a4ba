"""The Manager queue: here, through a proxy, full, broken, and under attack."""

from __future__ import annotations

import base64
import json
import logging
import multiprocessing
import os
import pickle
import queue as stdlib_queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from multiprocessing import connection, managers
from pathlib import Path
from typing import Any

import pytest

from ipc.errors import QueueBrokenError
from ipc.events import ProgressEvent
from ipc.queue import (
    FD_VARIABLE,
    KEY_VARIABLE,
    EventQueue,
    ManagedQueue,
    PutResult,
    QueueServer,
    RemoteQueue,
    Reply,
    connect,
    create_queue,
    deserialize_queue_from_env,
    read_key,
    safe_put,
    serialize_queue,
)
from tests.systems import hold, let_go


@pytest.fixture
def served() -> Iterator[ManagedQueue]:
    with create_queue(3) as queue:
        yield queue


@pytest.fixture
def remote(served: ManagedQueue) -> Iterator[RemoteQueue]:
    queue = deserialize_queue_from_env({KEY_VARIABLE: serialize_queue(served)[1]})
    assert queue is not None
    with queue:
        yield queue


def test_sizes_below_one_are_refused() -> None:
    """A queue holds at least one item."""
    with pytest.raises(ValueError, match="at least 1"):
        create_queue(0)


@pytest.mark.parametrize("which", ["served", "remote"])
def test_it_is_a_queue(which: str, request: pytest.FixtureRequest) -> None:
    """Put, get, sizes, Full and Empty are as `queue.Queue` has them, here and through a proxy."""
    queue: Any = request.getfixturevalue(which)
    items = [ProgressEvent("finding", data=b"\x00"), {"a": [1, 2.5, None, True]}, "text"]
    assert queue.empty()
    for item in items:
        queue.put_nowait(item)
    assert queue.qsize() == 3
    assert queue.full()
    with pytest.raises(stdlib_queue.Full):
        queue.put_nowait(1)
    with pytest.raises(stdlib_queue.Full):
        queue.put(1, timeout=0.02)
    assert [queue.get(), queue.get(timeout=1), queue.get_nowait()] == items
    with pytest.raises(stdlib_queue.Empty):
        queue.get_nowait()
    with pytest.raises(stdlib_queue.Empty):
        queue.get(timeout=0.02)
    with pytest.raises(TypeError, match="ValueError"):
        queue.put(ValueError())


def test_a_waiting_put_goes_through(served: ManagedQueue, remote: RemoteQueue) -> None:
    """A put that waits on the client's side is placed as soon as there is room."""
    for i in range(3):
        served.put(i)
    waiting = threading.Thread(target=remote.put, args=(3,), kwargs={"timeout": 10})
    waiting.start()
    assert [served.get(timeout=5) for _ in range(4)] == [0, 1, 2, 3]
    waiting.join()


def test_the_strings_are_enough(served: ManagedQueue) -> None:
    """An unrelated subprocess gets a working queue from the environment."""
    fd, key = serialize_queue(served)
    assert fd == "-1"
    code = "from ipc import *; q = deserialize_queue_from_env(); q.put(ProgressEvent('finding', 'qa')); print(q.get())"
    environ = {**os.environ, FD_VARIABLE: fd, KEY_VARIABLE: key}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert "finding" in done.stdout


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "!",
        base64.b64encode(b"{}").decode(),
        base64.b64encode(pickle.dumps(ValueError())).decode(),
        base64.urlsafe_b64encode(json.dumps({"v": 9, "address": "/x", "key": "a" * 44}).encode()).decode(),
        base64.urlsafe_b64encode(json.dumps({"v": 1, "address": 5, "key": "a" * 44}).encode()).decode(),
        base64.urlsafe_b64encode(json.dumps({"v": 1, "address": "/nowhere", "key": "a" * 44}).encode()).decode(),
    ],
)
def test_a_damaged_environment_is_none(value: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Missing or damaged variables give None and an ERROR that names the variable; nothing is unpickled."""
    environ = {} if value is None else {KEY_VARIABLE: value}
    assert deserialize_queue_from_env(environ) is None
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert KEY_VARIABLE in caplog.text


def test_safe_put_says_what_happened(remote: RemoteQueue, caplog: pytest.LogCaptureFixture) -> None:
    """Placed, placed after dropping the oldest progress, dropped, refused: the return value and a warning say it."""
    progress = ProgressEvent("progress", "qa", "reading")
    critical = ProgressEvent("finding", "qa")
    assert safe_put(remote, progress) == PutResult("placed")
    assert safe_put(remote, critical) == PutResult("placed")
    assert safe_put(remote, {"type": "finding"}) == PutResult("placed")
    assert safe_put(remote, critical, timeout=0.01) == PutResult("placed", 1)
    assert "1 older" in caplog.text
    dropped = safe_put(remote, progress, timeout=0.01)
    assert dropped.outcome == "dropped"
    assert not dropped
    assert safe_put(remote, critical, timeout=0.01) == PutResult("refused")
    assert [remote.get() for _ in range(3)] == [critical, {"type": "finding"}, critical]


def test_a_starting_step_is_critical_once(served: ManagedQueue) -> None:
    """A starting step is kept under pressure; the same step again may go."""
    first, again = (ProgressEvent("progress", "qa", "scanning", pct) for pct in (1, 2))
    assert safe_put(served, first)
    assert safe_put(served, again)
    assert safe_put(served, ProgressEvent("finding"))
    assert safe_put(served, ProgressEvent("finding"), timeout=0) == PutResult("placed", 1)
    assert [served.get().pct for _ in range(3)] == [1, 0, 0]


def test_a_dead_server_is_broken_not_full(served: ManagedQueue, remote: RemoteQueue) -> None:
    """After cut connections the next call fails as broken, and the one after works; without a server both fail."""
    served.server.cut()
    with pytest.raises(QueueBrokenError):
        remote.put(1)
    remote.put(2)
    served.close()
    for _ in range(2):
        with pytest.raises(QueueBrokenError):
            safe_put(remote, 3)


def test_a_restart_has_a_new_address_and_key(served: ManagedQueue) -> None:
    """After a restart the old address is dead, the new one serves the same queue under another key."""
    before = read_key(serialize_queue(served)[1])
    served.put("kept")
    served.server.restart()
    after = read_key(serialize_queue(served)[1])
    assert before[0] != after[0]
    assert before[1] != after[1]
    with pytest.raises(QueueBrokenError):
        RemoteQueue(*before)
    with pytest.raises(QueueBrokenError):
        RemoteQueue(after[0], before[1])
    assert RemoteQueue(*after).get() == "kept"


def test_the_socket_goes_with_the_queue() -> None:
    """Closing removes the socket and its folder, which only its owner may enter; closing twice is harmless."""
    queue = create_queue()
    folder = Path(queue.server.address).parent
    if sys.platform != "win32":
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(queue.server.address) < 100
    queue.close()
    queue.close()
    assert sys.platform == "win32" or not folder.exists()
    with pytest.raises(ValueError, match="closed"):
        serialize_queue(queue)


def _evil() -> Any:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, ("/tmp/never-made-by-the-queue",)

    return Evil()


def test_no_code_runs_through_pickle(served: ManagedQueue) -> None:
    """Someone with the key cannot make the server unpickle anything but plain values and events."""
    address, key = read_key(serialize_queue(served)[1])
    proxy = connect(address, key)
    with pytest.raises(managers.RemoteError, match="not accepted"):
        proxy.call("try_put", _evil())
    assert not Path("/tmp/never-made-by-the-queue").exists()
    assert proxy.call("qsize") == 0  # the connection goes on


@pytest.mark.parametrize("method", ["shutdown", "debug_info", "number_of_objects", "get_methods"])
def test_clients_cannot_manage_the_server(served: ManagedQueue, method: str) -> None:
    """The manager's own calls beyond connecting are not public."""
    address, key = read_key(serialize_queue(served)[1])
    with connection.Client(address, authkey=key) as client, pytest.raises(managers.RemoteError, match="unrecognized"):
        managers.dispatch(client, None, method)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="put"):
        connect(address, key).call("put", 1)
    assert served.empty()


def test_an_optimised_interpreter_guards_the_server_too() -> None:
    """Under python -O, where the standard library's own check is gone, clients still cannot end the server."""
    code = """
        from multiprocessing import connection, managers
        from ipc.queue import connect, create_queue, read_key, serialize_queue

        queue = create_queue()
        address, key = read_key(serialize_queue(queue)[1])
        with connection.Client(address, authkey=key) as client:
            try:
                managers.dispatch(client, None, "shutdown")
            except managers.RemoteError as error:
                print("refused" if "unrecognized" in str(error) else error)
        print(connect(address, key).call("qsize"))
        queue.close()
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-O", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.split() == ["refused", "0"]


def test_strangers_are_not_let_in(served: ManagedQueue) -> None:
    """A wrong key, garbage and mute sockets get nothing, and others are served meanwhile."""
    address, key = read_key(serialize_queue(served)[1])
    with pytest.raises(QueueBrokenError):
        connect(address, b"x" * 32)
    mute = [connection.Client(address) for _ in range(50)]
    if sys.platform != "win32":
        os.write(mute[0].fileno(), b"\xff" * 64)  # no message; a pipe carries nothing else
    with connection.Client(address, authkey=key) as client, pytest.raises((EOFError, OSError)):
        _send_too_much(client)
    assert connect(address, key).call("qsize") == 0
    for one in mute:
        one.close()


def _send_too_much(client: Any) -> None:
    client.send_bytes(bytes(16 * 1024 * 1024))
    client.recv_bytes()


def test_too_many_connections_are_refused(served: ManagedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit connections are closed at once; there is room again when one leaves."""
    monkeypatch.setattr("ipc.queue._MOST_CONNECTIONS", 2)
    address, key = read_key(serialize_queue(served)[1])
    one, two = (connection.Client(address, authkey=key) for _ in range(2))
    with pytest.raises((EOFError, OSError)):
        connection.Client(address, authkey=key)
    one.close()
    for _ in range(1000):
        try:
            connection.Client(address, authkey=key).close()
            break
        except (EOFError, OSError):
            continue
    else:
        pytest.fail("there was no room again")
    two.close()


HUNG = """
import sys
import textwrap
from ipc.queue import create_queue, serialize_queue
queue = create_queue(3)
print(serialize_queue(queue)[1], flush=True)
sys.stdin.read()
"""


def test_a_stopped_server_is_broken_within_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is broken after the time allowed, not for ever; once continued it works."""
    monkeypatch.setattr("ipc.queue.ANSWER_WITHIN", 0.3)
    owner = subprocess.Popen([sys.executable, "-c", HUNG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        remote = deserialize_queue_from_env({KEY_VARIABLE: owner.stdout.readline().strip()})
        assert remote is not None
        hold(owner.pid)
        with pytest.raises(QueueBrokenError, match="did not answer"):
            safe_put(remote, 1)
        with pytest.raises(QueueBrokenError, match="did not answer"):
            safe_put(remote, 2)
        let_go(owner.pid)
        assert safe_put(remote, 3)
    finally:
        owner.kill()
        owner.communicate()


def _put_from_child(queue: Any) -> None:
    queue.put("from a spawned child")


def test_it_can_be_passed_to_a_spawned_child(served: ManagedQueue) -> None:
    """A queue is an argument of a process being spawned, and of nothing else that pickles."""
    with pytest.raises(TypeError, match="serialize_queue"):
        pickle.dumps(served)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_put_from_child, args=(served,))
    child.start()
    assert served.get(timeout=15) == "from a spawned child"
    child.join()


def test_offers_are_bounded_and_answered() -> None:
    """An epoch that is not known gets "closed"; a full inbox says so; a gap is told once."""
    queue = EventQueue(2)
    assert queue.offer("qa", 1, b"x") == Reply("closed")
    queue.tell("qa", 1, Reply("taken", 5, 6, 0, 4))
    assert queue.offer("qa", 1, b"x") == Reply("taken", 5, 6, 1, 4)
    assert queue.offer("qa", 1, b"y") == Reply("taken", 5, 6, 0)
    assert queue.offer("qa", 1, b"z").status == "full"
    assert queue.offer("qa", 1, b"").status == "taken"
    assert [o.frame for o in queue.take_offers(9)] == [b"x", b"y"]
    queue.forget("qa", 1)
    assert queue.offer("qa", 1, b"") == Reply("closed")


def test_the_global_start_method_is_left_alone() -> None:
    """Serving and connecting do not set a host program's start method, and leave its stdout alone."""
    code = (
        "import multiprocessing, sys; from ipc.queue import *; out = sys.stdout\n"
        "with create_queue() as q: deserialize_queue_from_env({KEY_VARIABLE: serialize_queue(q)[1]}).put(1)\n"
        "assert multiprocessing.get_start_method(allow_none=True) is None\n"
        "assert sys.stdout is out; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"


def test_a_random_key_per_incarnation() -> None:
    """Keys are 32 random bytes."""
    with QueueServer(EventQueue(1)) as one, QueueServer(EventQueue(1)) as two:
        assert one.key != two.key
        assert len(base64.b64decode(one.key)) == 32
