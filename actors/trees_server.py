"""The other end of `actors.trees_process`: `python -P -m actors.trees_server SECONDS` does what its pipe asks for.

It ends when its owner's end of the pipe is closed, at once and whatever is in hand, as a crash would: everything in
`actors.trees` stands that. It ends itself when one call of libgit2 takes `SECONDS`: reading a loose object that was cut
short never returns, and holds the interpreter meanwhile. No signal that is meant for others ends it.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # before anything that takes time
    for _name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, _name):
            signal.signal(getattr(signal, _name), signal.SIG_IGN)

import contextlib
import faulthandler
import pickle
import struct
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import FrameType

    from .trees import Trees

RESULT, ERROR, PROGRESS = "result", "error", "progress"  # the kinds of answers
HOLD, RELEASE = "hold", "release"  # this process's part of the lock

LOOKS = 6  # of a watch within its limit
_HUNG = "Timeout ("  # as faulthandler begins
_EXIT_HUNG = 1  # as it ends
_PLAIN = (str, bytes, int, float, type(None))


def write_frame(pipe: IO[bytes], message: tuple[Any, ...]) -> None:
    """One message, whole."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(struct.pack(">Q", len(data)) + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """The next message as it was written; None at the pipe's end, also one in the middle of a message."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack(">Q", head)
    data = pipe.read(size)
    return data if len(data) == size else None


def has_hung(code: int, said: str) -> bool:
    """Whether such an exit code and standard error are of a process that has ended itself for hanging."""
    return code == _EXIT_HUNG and said.startswith(_HUNG)


class Watch(threading.Thread):
    """Ends this process when one call into libgit2 takes longer than `limit` seconds.

    The alarm is faulthandler's, which needs no interpreter. It is put off again and again while Python runs: by this
    thread, which gets its turn unless libgit2 keeps the interpreter to itself. A few functions of libgit2 let go of it
    meanwhile (those that pygit2 calls through cffi, from Python code of its own): there, the same invocation at the
    same instruction is the same call. Waiting for a lock or for the disk in our own code is no hanging.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(name="watch", daemon=True)
        self._limit = limit
        self._main = threading.get_ident()
        self._changed = threading.Condition()
        self._busy = False
        self._last: tuple[FrameType, int] | None = None

    def begin(self) -> None:
        with self._changed:
            self._busy, self._last = True, None
            self._put_off()
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._busy, self._last = False, None
            faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(self._limit / LOOKS if self._busy else None)
                if self._busy and not self._is_in_the_same_call():
                    self._put_off()

    def _put_off(self) -> None:
        faulthandler.dump_traceback_later(self._limit, exit=True)

    def _is_in_the_same_call(self) -> bool:
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - there is no other way
        if frame is None or Path(frame.f_code.co_filename).parent.name != "pygit2":
            self._last = None
            return False
        last, self._last = self._last, (frame, frame.f_lasti)
        return last is not None and last[0] is frame and last[1] == frame.f_lasti


class Server:
    """Does one call after the other."""

    def __init__(self, answers: IO[bytes], limit: float) -> None:
        self._answers = answers
        self._watch = Watch(limit)
        self._watch.start()
        self._trees: Trees | None = None
        self._lock = contextlib.ExitStack()

    def serve(self, requests: SimpleQueue[tuple[Any, ...]]) -> NoReturn:
        opening = requests.get()
        while True:
            method, args, kwargs, wants_progress = requests.get()
            if wants_progress:
                kwargs["on_progress"] = lambda done, total: write_frame(self._answers, (PROGRESS, done, total))
            self._watch.begin()
            answer: tuple[Any, ...]
            try:
                answer = (RESULT, self._do(opening, method, args, kwargs))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller is to see it
                answer = (ERROR, *_told(error))
            finally:
                self._watch.end()
            write_frame(self._answers, answer)

    def _do(
        self, opening: tuple[Path, Path, tuple[str, ...]], method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        from .trees import LONGEST_WAIT, Trees, locks

        workspace, state, skip = opening
        if self._trees is None:
            self._trees = Trees.open(workspace, state, skip=skip)
        if method == HOLD:
            self._lock.enter_context(locks(state)[1].hold(LONGEST_WAIT))
            return None
        if method == RELEASE:
            self._lock.close()
            return None
        what = getattr(Trees, method)
        found = getattr(self._trees, method) if isinstance(what, property) else what(self._trees, *args, **kwargs)
        return None if isinstance(found, Path) else found  # the owner knows the way


def main() -> NoReturn:
    """The whole life of the process."""
    faulthandler.enable()
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)  # what anybody prints is no answer
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (requests, answers):
            msvcrt.setmode(descriptor, os.O_BINARY)
    heard: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
    threading.Thread(target=_hear, args=(os.fdopen(requests, "rb"), heard), name="owner", daemon=True).start()
    Server(os.fdopen(answers, "wb"), float(sys.argv[1])).serve(heard)


def _hear(pipe: IO[bytes], into: SimpleQueue[tuple[Any, ...]]) -> None:
    while (frame := read_frame(pipe)) is not None:
        into.put(pickle.loads(frame))  # noqa: S301 - our owner's, who has started us
    os._exit(0)  # nobody waits for an answer any more; locks go with the process


def _told(error: Exception) -> tuple[str, tuple[Any, ...], dict[str, Any], str]:
    """An exception as plain values: its type's name, arguments and attributes, and where it came from."""
    import traceback

    kind = type(error)
    args = error.args
    if isinstance(error, OSError) and error.errno is not None:
        args = (error.errno, error.strerror, error.filename)
        if error.filename2 is not None:
            args = (*args, getattr(error, "winerror", None), error.filename2)
    args = tuple(one if isinstance(one, _PLAIN) else str(one) for one in args)
    more = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
    return f"{kind.__module__}.{kind.__qualname__}", args, more, "".join(traceback.format_exception(error))


if __name__ == "__main__":
    main()
