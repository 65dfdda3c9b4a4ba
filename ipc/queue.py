"""The Manager queue: served by a daemon thread of its owner, used by other processes through a proxy.

The server offers only operations that never wait: `offer` for frames of the crew's emitters, `try_put`, `try_get` and
`evict_put` for plain use; whoever wants to wait does so on the client's side. The owner reads locally, without a call,
and is woken by a callback. Only the manager's own tokens, plain values and ProgressEvents are ever unpickled, clients
cannot shut the server down, and each incarnation has a new address and a new key. What an offered frame is worth is for
`ipc.sequence`; when to give up a queue is for `ipc.emitter`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
import pickle
import queue as stdlib_queue
import secrets
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, managers
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias

from .errors import QueueBrokenError
from .events import STARTING_STEPS, ProgressEvent, is_critical
from .frames import MOST_FRAME
from .receiver import Receiver
from .seldom import Seldom, again
from .sockets import SocketFolder, sweep

FD_VARIABLE = "AUDIT_QUEUE_FD"
KEY_VARIABLE = "AUDIT_QUEUE_KEY"
KEY_VERSION = 1  # of what stands in it
ANSWER_WITHIN = 2.0  # seconds a server may take to answer before it counts as broken

_MOST_MESSAGE = MOST_FRAME + 64 * 1024  # bytes of one call
_HANDSHAKE = 5.0  # seconds a stranger may take to prove that it has the key
_MOST_CONNECTIONS = 256
_MOST_PATH = 100  # bytes of a UNIX socket's path
_INBOX_BYTES = 64 * 1024 * 1024
_MOST_TEXT = 120  # characters of a reason in the log
_WRONG_KEY = b"#FAILURE#"  # what the standard library's handshake answers to one
_REFUSED = {"handshakes": "a client that has not its key", "messages": "a message", "connections": "a connection"}
_SERIALIZER = "phase-supervisor"
_EXPOSED = ("offer", "try_put", "try_get", "evict_put", "qsize", "capacity")
_log = logging.getLogger("ipc.queue")


# --- values -----------------------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """What an offer is answered with: see `control.Ack` for `durable`, `received` and `gap`.

    `status` is "taken", "full" (offer again later) or "closed" (this epoch's events are no longer taken here).
    `credits` says how much room is left: at 0 an emitter offers no frame, but asks with empty offers until there is
    some.
    """

    status: str
    durable: int = 0
    received: int = 0
    credits: int = 1
    gap: int | None = None


class Offer(NamedTuple):
    """A frame as it lies in the owner's inbox, unread."""

    worker: str
    epoch: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class PutResult:
    """What `safe_put` did; true when the event was placed.

    "placed" (after dropping `dropped` older ones), "dropped" (this one, it was progress), or "refused" (it is critical
    and there was no room: the caller keeps it).
    """

    outcome: Literal["placed", "dropped", "refused"]
    dropped: int = 0

    def __bool__(self) -> bool:
        return self.outcome == "placed"


class AnyQueue(Protocol):
    """What `create_queue` and `deserialize_queue_from_env` give. `starts` is the last starting step put, by phase."""

    starts: dict[str, str]

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None: ...  # noqa: FBT001, FBT002 - as queue.Queue
    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...  # noqa: FBT001, FBT002 - as queue.Queue
    def put_nowait(self, item: Any) -> None: ...
    def get_nowait(self) -> Any: ...
    def qsize(self) -> int: ...
    def empty(self) -> bool: ...
    def full(self) -> bool: ...
    def try_put(self, item: Any, droppable: bool = False) -> bool: ...  # noqa: FBT001, FBT002 - travels by position
    def evict_put(self, item: Any, droppable: bool = False) -> tuple[bool, int]: ...  # noqa: FBT001, FBT002 - the same


# --- the object that is served ----------------------------------------------------------------------------------------


class EventQueue(stdlib_queue.Queue[Any]):
    """A `queue.Queue` with the operations that a server may offer, and an inbox for frames.

    `wake` is called, from a server's thread, after something came in. `board` holds what emitters are told.
    """

    def __init__(self, maxsize: int = 1000, *, wake: Callable[[], None] | None = None) -> None:
        if maxsize < 1:
            raise ValueError(f"a queue of size {maxsize}; it must hold at least 1")
        super().__init__(maxsize)
        self.starts: dict[str, str] = {}
        self._wake = wake
        self._offers: deque[Offer] = deque()
        self._offer_bytes = 0
        self._offer_lock = threading.Lock()
        self._board: dict[tuple[str, int], Reply] = {}
        self._handler: Callable[[Offer], Reply] | None = None

    # Entries are (droppable, item); what is put from elsewhere by name is judged without knowing its emitter.

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as queue.Queue
        _check(item)
        super().put((_droppable(item, None), item), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as queue.Queue
        return super().get(block, timeout)[1]

    def try_put(self, item: Any, droppable: bool = False) -> bool:  # noqa: FBT001, FBT002 - travels by position
        """Put if there is room."""
        _check(item)
        try:
            super().put((droppable, item), block=False)
        except stdlib_queue.Full:
            return False
        self.woken()
        return True

    def try_get(self) -> tuple[bool, Any]:
        """`(True, item)`, or `(False, None)` when there is none."""
        try:
            return True, super().get(block=False)[1]
        except stdlib_queue.Empty:
            return False, None

    def evict_put(self, item: Any, droppable: bool = False) -> tuple[bool, int]:  # noqa: FBT001, FBT002 - travels by position
        """Put, dropping the oldest droppable item if there is no room: `(placed, dropped)`, in one atomic step."""
        _check(item)
        with self.mutex:
            dropped = 0
            if len(self.queue) >= self.maxsize:
                place = next((i for i, (loose, _) in enumerate(self.queue) if loose), None)
                if place is None:
                    return False, 0
                del self.queue[place]
                self.unfinished_tasks -= 1
                dropped = 1
            self.queue.append((droppable, item))
            self.unfinished_tasks += 1
            self.not_empty.notify()
        self.woken()
        return True, dropped

    def capacity(self) -> int:
        return self.maxsize

    # Frames

    def offer(self, worker: str, epoch: int, frame: bytes) -> Reply:
        """Take a frame, or none (empty bytes), and say how things stand with this epoch's events."""
        if frame.__class__ is not bytes or len(frame) > MOST_FRAME:
            raise ValueError(f"a frame is at most {MOST_FRAME:,} bytes")
        if self._handler is not None:
            return self._handler(Offer(worker, epoch, frame))
        key = (worker, epoch)
        with self._offer_lock:
            known = self._board.get(key)
            if known is None or known.status == "closed":
                return Reply("closed")
            room = self.maxsize - len(self._offers)
            if frame and (room <= 0 or self._offer_bytes + len(frame) > _INBOX_BYTES):
                return known._replace(status="full", credits=0)
            if frame:
                self._offers.append(Offer(worker, epoch, frame))
                self._offer_bytes += len(frame)
                room -= 1
            if known.gap is not None:
                self._board[key] = known._replace(gap=None)  # told once; the emitter's timer does the rest
        if frame:
            self.woken()
        return known._replace(credits=room)

    def take_offers(self, most: int) -> list[Offer]:
        """The oldest offered frames; for the owner only."""
        with self._offer_lock:
            taken = [self._offers.popleft() for _ in range(min(most, len(self._offers)))]
            self._offer_bytes -= sum(len(o.frame) for o in taken)
        return taken

    def offered(self, worker: str | None = None, epoch: int = 0) -> int:
        """How many frames wait, in all or of one epoch; for the owner only."""
        with self._offer_lock:
            if worker is None:
                return len(self._offers)
            return sum(1 for o in self._offers if (o.worker, o.epoch) == (worker, epoch))

    def tell(self, worker: str, epoch: int, reply: Reply) -> None:
        """What emitters of this epoch are told from now on; a `gap` not told yet stays. For the owner only."""
        with self._offer_lock:
            known = self._board.get((worker, epoch))
            if reply.gap is None and known is not None and known.gap is not None:
                reply = reply._replace(gap=known.gap if known.gap >= reply.durable else None)
            self._board[worker, epoch] = reply

    def forget(self, worker: str, epoch: int) -> None:
        """Answer "closed" to whoever still speaks for this epoch. For the owner only."""
        with self._offer_lock:
            self._board.pop((worker, epoch), None)

    def handle_offers(self, handler: Callable[[Offer], Reply] | None) -> None:
        """Have offers answered by a function of the owner's (called in server threads) instead of the inbox."""
        self._handler = handler

    def woken(self) -> None:
        if self._wake is not None:
            self._wake()


def _droppable(item: Any, last_starting_step: str | None) -> bool:
    if isinstance(item, ProgressEvent):
        return not is_critical(item, last_starting_step)
    return isinstance(item, dict) and item.get("type") == "progress"


_PLAIN: frozenset[type] = frozenset({bool, int, float, str, bytes, type(None)})


def _check(item: Any, depth: int = 32) -> None:
    kind = type(item)
    if kind in _PLAIN:
        return
    if kind is ProgressEvent:
        _check(dict(item.summary), depth)
        return
    if depth and kind in (list, tuple):
        for part in item:
            _check(part, depth - 1)
        return
    if depth and kind is dict:
        for key, value in item.items():
            _check(key, depth - 1)
            _check(value, depth - 1)
        return
    raise TypeError(f"a queue carries ProgressEvents, dicts, lists, strings, numbers and bytes, not {kind.__name__}")


# --- the wire: connections that unpickle next to nothing --------------------------------------------------------------

_ALLOWED = {
    ("multiprocessing.managers", "Token"): managers.Token,
    ("ipc.events", "ProgressEvent"): ProgressEvent,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not accepted here")
        return found


if sys.platform == "win32":
    AnyConnection: TypeAlias = "connection.Connection | connection.PipeConnection"
else:
    AnyConnection: TypeAlias = connection.Connection


class _ServerConnection:
    """A client's connection as the server reads it: bounded messages, a deadline for the handshake, safe values.

    What is refused is told to `refuse`, by kind and reason; a client that merely leaves is not.
    """

    def __init__(self, inner: AnyConnection, left: Callable[[], None], refuse: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._refuse = refuse
        self._left: Callable[[], None] | None = left
        self._deadline: float | None = time.monotonic() + _HANDSHAKE
        self._has_key = False
        _receive_timeout(inner, _HANDSHAKE)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        try:
            if self._deadline is not None and not self._inner.poll(max(self._deadline - time.monotonic(), 0)):
                raise TimeoutError("no handshake within the time allowed")
            return self._inner.recv_bytes(maxlength if maxlength is not None else _MOST_MESSAGE)
        except OSError as error:
            if self._left is not None and not isinstance(error, ConnectionError):
                self._refuse("messages" if self._has_key else "handshakes", _short(error))
            raise

    def recv(self) -> Any:
        self._has_key = True  # objects are for those who have proved it
        data = self.recv_bytes()
        first, self._deadline = self._deadline is not None, None
        if first:  # the first real message: the handshake is over
            _receive_timeout(self._inner, 0)
        try:
            request = _Unpickler(io.BytesIO(data)).load()
            if first:
                _check_call(request)
        except Exception as error:
            self._refuse("messages", _short(error))
            raise
        return request

    def send_bytes(self, data: bytes) -> None:
        if data == _WRONG_KEY and not self._has_key:
            self._refuse("handshakes", "a wrong key")
        self._inner.send_bytes(data)

    def send(self, value: Any) -> None:
        if not self._has_key:
            raise ConnectionError("a stranger is told nothing")
        self._inner.send(value)

    def fileno(self) -> int:
        return self._inner.fileno()

    def close(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left()
        with suppress(OSError):  # closed by a failed read already
            self._inner.close()


def _check_call(request: Any) -> None:
    """The standard library asks the same with `assert`, which python -O leaves out."""
    if not (isinstance(request, tuple) and len(request) == 4 and request[1] in _Server.public):
        raise PermissionError("an unrecognized call of the queue's server")


def _short(error: Exception) -> str:
    """For a log: what a stranger has sent may be in it."""
    return repr(error)[:_MOST_TEXT]


def _receive_timeout(inner: AnyConnection, seconds: float) -> None:
    """Bound each blocking read of the handshake; pipes of Windows are bounded by `poll` alone."""
    if sys.platform == "win32":
        return
    whole = int(seconds)
    packed = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    with socket.socket(fileno=os.dup(inner.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)


class _Listener(connection.Listener):
    """Accepts into `_ServerConnection`s, at most so many at a time."""

    def __init__(self, address: str, backlog: int = 16) -> None:
        super().__init__(address=address, backlog=max(backlog, 128))
        self._open: set[_ServerConnection] = set()
        self._open_lock = threading.Lock()
        self.refuse: Callable[[str, str], None] = lambda _kind, _why: None

    def accept(self) -> _ServerConnection:  # type: ignore[override]  # all that the server uses of it
        inner = super().accept()
        served = _ServerConnection(inner, lambda: self._gone(served), self.refuse)
        with self._open_lock:
            full = len(self._open) >= _MOST_CONNECTIONS
            if not full:
                self._open.add(served)
        if full:
            served.close()
            self.refuse("connections", f"there are {_MOST_CONNECTIONS} already")
            raise ConnectionError(f"more than {_MOST_CONNECTIONS} connections")
        return served

    def cut(self) -> int:
        """Cut all connections; how many there were."""
        with self._open_lock:
            served = list(self._open)
        for one in served:
            if sys.platform == "win32":
                one.close()
            else:
                with suppress(OSError), socket.socket(fileno=os.dup(one.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it; it closes the rest
        return len(served)

    def _gone(self, served: _ServerConnection) -> None:
        with self._open_lock:
            self._open.discard(served)


class _Server(managers.Server):
    """The manager's server without `serve_forever`, which would take over stdout, and without its dangerous calls."""

    public: list[str] = [  # noqa: RUF012 - typeshed knows it as an attribute of the object
        "accept_connection",
        "create",
        "incref",
        "decref",
        "dummy",
    ]
    listener: _Listener

    def __init__(self, registry: dict[str, Any], address: str, key: bytes) -> None:
        super().__init__(registry, address, key, _SERIALIZER)
        self.stop_event = threading.Event()

    def accept_for_ever(self) -> None:
        while not self.stop_event.is_set():
            try:
                served = self.listener.accept()
            except (OSError, EOFError):
                self.stop_event.wait(0.02)  # closed, out of descriptors, or a client that left at once
                continue
            if self.stop_event.is_set():
                served.close()
                return
            threading.Thread(target=self.handle_request, args=(served,), name="ipc-queue-client", daemon=True).start()


class _QueueProxy(managers.BaseProxy):
    """Calls the served queue; each thread has a connection of its own. A call may hang: never on a main thread."""

    _exposed_ = _EXPOSED

    def call(self, method: str, *arguments: Any) -> Any:
        return self._callmethod(method, arguments)


class _Manager(managers.BaseManager):
    def proxy(self) -> _QueueProxy:
        """A proxy that needs no goodbye: the served object is pinned, so nothing is counted."""
        token, exposed = self._create("queue")  # type: ignore[attr-defined]
        return _QueueProxy(token, _SERIALIZER, manager=self, authkey=self._authkey, exposed=exposed, incref=False)  # type: ignore[attr-defined]


_Manager.register("queue", proxytype=_QueueProxy, exposed=_EXPOSED, create_method=False)
managers.listener_client[_SERIALIZER] = (_Listener, connection.Client)  # type: ignore[attr-defined]


def connect(address: str, key: bytes) -> _QueueProxy:
    """A proxy of the queue served there; connects with a few retries, since backlogs are short.

    QueueBrokenError when nobody answers or the key is wrong. May hang where a server does: see `_QueueProxy`.
    """
    last: Exception | None = None
    for attempt in range(4):
        if attempt:
            threading.Event().wait(0.005 * 4**attempt * (1 + secrets.randbelow(1000) / 1000))
        # With no context given it would settle the host program's start method.
        manager = _Manager(address, key, _SERIALIZER, get_context("spawn"))
        try:
            manager.connect()
            return manager.proxy()
        except (BlockingIOError, ConnectionRefusedError, ConnectionResetError) as error:
            last = error
        except (OSError, EOFError, managers.RemoteError, connection.AuthenticationError) as error:  # type: ignore[attr-defined]
            last = error
            break
    raise QueueBrokenError(f"no queue at {address}: {last.__class__.__name__}: {last}") from last


# --- the owner's side -------------------------------------------------------------------------------------------------


class QueueServer:
    """Serves one `EventQueue` to other processes for as long as it is open.

    `address` and `key` (base64) are what a client needs. `restart` serves the same queue at a new address under a new
    key, whatever state the old server was in.
    """

    def __init__(self, queue: EventQueue) -> None:
        self.queue = queue
        self.address = ""
        self.key = ""
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._folder: SocketFolder | None = None
        self.incarnation = 0
        self._refused = dict.fromkeys(_REFUSED, 0)
        self._refused_lock = threading.Lock()
        self._seldom = Seldom()

    def refused(self) -> dict[str, int]:
        """How many handshakes, messages and connections were refused, over all incarnations."""
        with self._refused_lock:
            return dict(self._refused)

    def _refuse(self, kind: str, why: str) -> None:
        """Called by the server's threads."""
        with self._refused_lock:
            self._refused[kind] += 1
            times = self._seldom.happened(kind, now=time.monotonic())
        if times:
            _log.warning("the queue refused %s: %s%s", _REFUSED[kind], why, again(times))

    def start(self) -> None:
        """Listen; OSError when that is impossible here."""
        secret = secrets.token_bytes(32)
        address, self._folder = _new_address()
        registry = {"queue": (lambda: self.queue, _EXPOSED, None, _QueueProxy)}
        try:
            server = _Server(registry, address, secret)
        except BaseException:
            self._remove_folder()
            raise
        server.listener.refuse = self._refuse
        nobody: Any = None
        server.create(nobody, "queue")  # pinned: a last client that leaves must not take it along
        self._thread = threading.Thread(target=server.accept_for_ever, name="ipc-queue", daemon=True)
        self._thread.start()
        self._server = server
        self.address = address
        self.key = base64.b64encode(secret).decode("ascii")
        self.incarnation += 1

    def is_listening(self) -> bool:
        """Whether clients could still come, as far as a look without a call tells."""
        if self._server is None or self._thread is None or not self._thread.is_alive():
            return False
        return sys.platform == "win32" or Path(self.address).is_socket()

    def answers(self) -> bool:
        """Whether a client gets an answer; takes up to some seconds, so never on an event loop."""
        try:
            with RemoteQueue(self.address, base64.b64decode(self.key)):
                return True
        except QueueBrokenError:
            return False

    def restart(self) -> None:
        """Leave the old address and listen at a new one."""
        self.close()
        self.start()

    def cut(self) -> int:
        """Cut all connections, as a fault; clients may come back. Returns how many there were."""
        return self._server.listener.cut() if self._server is not None else 0

    def close(self) -> None:
        """Stop listening, cut all connections, remove the socket. What lies in the queue stays there."""
        server, self._server = self._server, None
        if server is not None:
            server.stop_event.set()
            with suppress(OSError, EOFError):  # nobody there any more: then nobody needs waking
                connection.Client(self.address).close()
            with suppress(OSError):
                server.listener.close()
            server.listener.cut()
        self.address = self.key = ""
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_address() -> tuple[str, SocketFolder | None]:
    name = secrets.token_hex(6)
    if sys.platform == "win32":
        return rf"\\.\pipe\phase-supervisor-{os.getpid()}-{secrets.token_hex(16)}", None
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a 0700 folder inside
        if not base or len(os.fsencode(base)) > _MOST_PATH - 24:
            continue
        try:
            folder = SocketFolder.make(base)
        except OSError:
            continue
        sweep(base)
        return str(folder.path / name), folder
    raise OSError("no folder with a short path and write permission for the queue's socket: set XDG_RUNTIME_DIR")


class ManagedQueue(EventQueue):
    """What `create_queue` gives: used locally here, through a proxy elsewhere.

    Frames that a tool's `Emitter` offers are unpacked at once, each event put once. `receiver` judges them; `receive`
    has a line of the same tool's stdout judged by it too.
    """

    def __init__(self, maxsize: int = 1000, *, wake: Callable[[], None] | None = None) -> None:
        super().__init__(maxsize, wake=wake)
        self.receiver = Receiver()
        self._receiving = threading.Lock()
        self.handle_offers(self._receive)
        self.server = QueueServer(self)
        self.server.start()

    def close(self) -> None:
        """Stop serving; idempotent."""
        self.server.close()

    def receive_line(self, line: bytes) -> list[ProgressEvent] | None:
        """The new events of a line of stdout, judged together with what came by queue; None if it is log text."""
        with self._receiving:
            return self.receiver.line(line)

    def _receive(self, offer: Offer) -> Reply:
        with self._receiving:
            durable = self.receiver.durable(offer.worker, offer.epoch)
            room = self.maxsize - self.qsize()
            if not offer.frame:
                return Reply("taken", durable, durable, max(room, 0))
            if room <= 0:
                return Reply("full", durable, durable, 0)
            received = self.receiver.frame(offer.frame, room=room)
            with self.mutex:  # beyond the size if somebody was quicker: a server's thread must not wait
                self.queue.extend((_droppable(event, None), event) for event in received.events)
                self.unfinished_tasks += len(received.events)
                self.not_empty.notify(len(received.events))
        if received.events:
            self.woken()
        status = "taken" if received.whole else "full"
        return Reply(status, received.durable, received.durable, max(room - len(received.events), 0), received.gap)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[str], RemoteQueue], tuple[str]]:
        if get_spawning_popen() is None:
            raise TypeError("a queue can be passed to a process being spawned; for others use serialize_queue")
        return _attach, (serialize_queue(self)[1],)


def create_queue(maxsize: int = 1000) -> ManagedQueue:
    """A bounded queue that other processes can use too; a context manager. ValueError for a size below 1."""
    return ManagedQueue(maxsize)


def serialize_queue(queue: ManagedQueue | RemoteQueue) -> tuple[str, str]:
    """The values of AUDIT_QUEUE_FD (reserved, "-1") and AUDIT_QUEUE_KEY, which is enough by itself and a secret."""
    where = queue.server if isinstance(queue, ManagedQueue) else queue
    if not where.address:
        raise ValueError("this queue is closed: nobody could connect to it")
    text = json.dumps({"v": KEY_VERSION, "address": where.address, "key": where.key}, separators=(",", ":"))
    return "-1", base64.urlsafe_b64encode(text.encode()).decode("ascii")


def deserialize_queue_from_env(environ: Mapping[str, str] = os.environ) -> RemoteQueue | None:
    """The queue that AUDIT_QUEUE_KEY names; None, and an ERROR in the log, when it is missing, damaged or dead."""
    found = environ.get(KEY_VARIABLE)
    if not found:
        _log.error("%s is not set: there is no queue to send events to", KEY_VARIABLE)
        return None
    try:
        return _attach(found)
    except (ValueError, QueueBrokenError) as error:
        _log.error("%s cannot be used: %s", KEY_VARIABLE, error)
        return None


def read_key(text: str) -> tuple[str, bytes]:
    """Address and secret of an AUDIT_QUEUE_KEY. ValueError if it is damaged; nothing is unpickled."""
    try:
        found = json.loads(base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True))
        version, address, key = found["v"], found["address"], base64.b64decode(found["key"], validate=True)
    except (UnicodeError, binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is damaged") from None
    if version != KEY_VERSION:
        raise ValueError(f"it is of version {version!r}; this side knows {KEY_VERSION}")
    if not isinstance(address, str) or not address or len(key) < 16:
        raise ValueError("it is damaged")
    return address, key


def _attach(key: str) -> RemoteQueue:
    address, secret = read_key(key)
    return RemoteQueue(address, secret)


# --- the client's side ------------------------------------------------------------------------------------------------


class _Caller:
    """Makes calls on a thread that can be given up, because a call on a proxy has no time-out of its own."""

    def __init__(self, address: str, key: bytes) -> None:
        self._calls: stdlib_queue.SimpleQueue[Callable[[], None] | None] = stdlib_queue.SimpleQueue()
        self._address, self._key = address, key
        self._proxy: _QueueProxy | None = None
        threading.Thread(target=self._run, name="ipc-queue-caller", daemon=True).start()

    def call(self, method: str, arguments: tuple[Any, ...], within: float) -> Any:
        answer: stdlib_queue.SimpleQueue[tuple[bool, Any]] = stdlib_queue.SimpleQueue()

        def make() -> None:
            try:
                if self._proxy is None:
                    self._proxy = connect(self._address, self._key)
                answer.put((True, self._proxy.call(method, *arguments) if method else None))
            except Exception as error:  # noqa: BLE001 - it is raised again on the caller's thread
                answer.put((False, error))

        self._calls.put(make)
        try:
            good, value = answer.get(timeout=within)
        except stdlib_queue.Empty:
            raise QueueBrokenError(f"the queue at {self._address} did not answer within {within:g} s") from None
        if good:
            return value
        if isinstance(value, (QueueBrokenError, TypeError, ValueError)):
            raise value
        raise QueueBrokenError(f"the queue at {self._address} broke: {value!r}") from value

    def give_up(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            call()


class RemoteQueue:
    """The queue of another process. QueueBrokenError when its server does not answer within 2 s; then try again."""

    def __init__(self, address: str, key: bytes) -> None:
        self.address = address
        self.key = base64.b64encode(key).decode("ascii")
        self.starts: dict[str, str] = {}
        self._secret = key
        self._lock = threading.Lock()
        self._caller: _Caller | None = None
        self._call("")
        self._capacity = int(self._call("capacity"))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as queue.Queue
        _check(item)
        droppable = _droppable(item, None)
        if not _wait_for(lambda: self.try_put(item, droppable), block=block, timeout=timeout):
            raise stdlib_queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as queue.Queue
        found: list[Any] = []

        def attempt() -> bool:
            good, item = self._call("try_get")
            if good:
                found.append(item)
            return bool(good)

        if not _wait_for(attempt, block=block, timeout=timeout):
            raise stdlib_queue.Empty
        return found[0]

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def qsize(self) -> int:
        return int(self._call("qsize"))

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return self.qsize() >= self._capacity

    def try_put(self, item: Any, droppable: bool = False) -> bool:  # noqa: FBT001, FBT002 - travels by position
        _check(item)
        return bool(self._call("try_put", item, droppable))

    def evict_put(self, item: Any, droppable: bool = False) -> tuple[bool, int]:  # noqa: FBT001, FBT002 - the same
        _check(item)
        placed, dropped = self._call("evict_put", item, droppable)
        return bool(placed), int(dropped)

    def close(self) -> None:
        """Let go of the connection; the queue itself is its owner's."""
        with self._lock:
            caller, self._caller = self._caller, None
        if caller is not None:
            caller.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            if self._caller is None:
                self._caller = _Caller(self.address, self._secret)
            caller = self._caller
        try:
            return caller.call(method, arguments, ANSWER_WITHIN)
        except QueueBrokenError:
            with self._lock:
                if self._caller is caller:
                    self._caller = None
            caller.give_up()
            raise


def _wait_for(attempt: Callable[[], bool], *, block: bool, timeout: float | None) -> bool:
    """Try until it works or time is up, ever less often; the waiting is ours, never the server's."""
    if block and timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.001
    while not attempt():
        left = None if deadline is None else deadline - time.monotonic()
        if not block or (left is not None and left <= 0):
            return False
        threading.Event().wait(pause if left is None else min(pause, left))
        pause = min(pause * 2, 0.05)
    return True


def safe_put(queue: AnyQueue, event: Any, *, timeout: float = 1.0) -> PutResult:
    """Put, waiting at most `timeout` seconds; then the oldest droppable item makes room, or the event is not placed.

    Never raises for a full queue. QueueBrokenError when a server did not answer within 2 s: that, not a full queue, is
    the reason to fall back to stdout.
    """
    last = queue.starts.get(event.phase) if isinstance(event, ProgressEvent) else None
    droppable = _droppable(event, last)
    result = _safe_put(queue, event, droppable, timeout)
    if result and isinstance(event, ProgressEvent) and event.step in STARTING_STEPS:
        queue.starts[event.phase] = event.step
    return result


def _safe_put(queue: AnyQueue, event: Any, droppable: bool, timeout: float) -> PutResult:  # noqa: FBT001 - a helper
    if _wait_for(lambda: queue.try_put(event, droppable), block=timeout > 0, timeout=timeout):
        return PutResult("placed")
    placed, dropped = queue.evict_put(event, droppable)
    if placed:
        if dropped:
            _log.warning("the queue was full: %d older progress event dropped", dropped)
        return PutResult("placed", dropped)
    if droppable:
        _log.warning("the queue is full of critical events: 1 progress event dropped")
        return PutResult("dropped", 1)
    _log.warning("the queue is full of critical events: this one was refused, 0 dropped")
    return PutResult("refused")
