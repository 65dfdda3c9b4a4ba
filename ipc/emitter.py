"""How a process reports progress: `emit` returns in microseconds as a rule, a feeder thread does the rest.

`emit` gives the event its seq and, if it is critical, a record in the spool, under one lock that is never held during
the feeder's I/O. The feeder alone talks to the queue or writes markers; it sends what has gathered while the last call
was under way, keeps everything until it is durable, and sends again after a gap, a switch, or silence. A call that
hangs is noticed by a watcher: the feeder is given up, never sends again, and its successor goes on in stdout mode.
Whether an event is new is not decided here but by `ipc.sequence`, on the other side.
"""

from __future__ import annotations

import atexit
import base64
import logging
import os
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing import connection, managers
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from .backlog import SMALL, Backlog, Gathered, Lot, Quota
from .control import Ack
from .errors import ModeError, QueueBrokenError, SpoolFullError
from .events import ENDING_STEPS, PROGRESS, STARTING_STEPS, ProgressEvent
from .frames import Fields, Meta, cleaned, encode_fields, encode_frame, fields_of, plain
from .markers import encode_marker
from .modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT, MODE_VARIABLE, determine_ipc_mode
from .queue import ANSWER_WITHIN, KEY_VARIABLE, Reply, connect, read_key
from .spool import QUOTA, Spool

_BATCH_EVENTS = 1024  # decoding more at once is slower for each: they no longer fit the processor's caches
_BATCH_BYTES = 1024 * 1024
_LINES_EVENTS = 256
_LINES = 64 * 1024  # bytes of markers written in one go
_WINDOW_EVENTS = 32_768  # sent and not yet durable
_WINDOW_BYTES = 32 * 1024 * 1024
_SWEEP = 512  # events that may gather before progress is coalesced
_LOOK = 2048  # the same, where nothing is, before it is counted
_MOST_LOOSE = 4096  # progress events kept while nobody takes them
_MOST_UNCOALESCED = 200_000  # the same where nothing is coalesced
_MOST_LOOSE_BYTES = 32 * 1024 * 1024
_POLL = (0.002, 0.1)  # seconds between empty offers: first, longest
_FULL = (0.005, 0.1)  # seconds before an inbox that is full is asked again: first, longest
_RESEND = (1.0, 16.0)  # seconds without news before everything is sent again: first, longest
_PROBE = (1.0, 30.0)  # seconds before a broken queue is tried again: first, longest
_SMALL_TEXT = 512
_NOTABLE_STEPS = STARTING_STEPS | ENDING_STEPS
_UNENCODABLE = (TypeError, ValueError, OverflowError)  # text that is not Unicode, above all
_NONE: dict[str, Any] = {}  # no summary; one for all, never written to
_PIPES_WAIT = sys.platform == "win32"  # a pipe there is neither non-blocking nor fit for select
_TROUBLES = (OSError, EOFError, QueueBrokenError, managers.RemoteError, connection.AuthenticationError)  # type: ignore[attr-defined]
_log = logging.getLogger("ipc.emitter")


class Transport(Enum):
    """Where events go at the moment."""

    QUEUE = "queue"
    STDOUT = "stdout"
    SPOOL = "spool-only"  # nobody answers: critical events wait on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitterStatistics:
    """Counts since the start; `waiting` is what is not durable yet."""

    transport: str
    given: int
    durable: int
    sent: int
    resent: int
    coalesced: int
    dropped: int
    refused: int
    fallbacks: int
    returns: int
    waiting: int
    spool_bytes: int

    def counts(self) -> dict[str, int]:
        """What the supervisor cannot see for itself. `sent` are the events given, however often they travelled."""
        return {
            "sent": self.given,
            "resent": self.resent,
            "coalesced": self.coalesced,
            "dropped": self.dropped,
            "withheld": self.refused,
            "fallbacks": self.fallbacks,
            "returns": self.returns,
        }


class Emitter:
    """See the module. Make one with `from_env` or `for_worker`; thread-safe."""

    def __init__(
        self,
        *,
        worker: str,
        epoch: int,
        nonce: str,
        spool: Spool | None,
        address: str,
        key: bytes,
        marker_fd: int,
        mode: str,
        fallback: bool = True,
        acked: bool = True,
        coalesce: bool = True,
        on_trouble: Callable[[str, str], None] | None = None,
        begins: bool = True,
    ) -> None:
        self._worker, self._epoch, self._nonce = worker, epoch, nonce
        self._spool = spool
        self._unspooled = Quota(QUOTA)  # critical events where there is no spool
        self._address, self._key = address, key
        self._marker_fd = marker_fd
        self._fallback = fallback
        self._acked = acked  # markers are acknowledged; else what is written counts as durable
        self._on_trouble = on_trouble
        # Where a pipe can only be written by waiting for it, a thread of its own waits.
        self._pipe = _PipeThread(marker_fd) if _PIPES_WAIT and acked and marker_fd >= 0 else None

        # Shared, under the lock; `emit` takes nothing else.
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._seq = 0
        self._last: memoryview | list[int] = spool.last.cell if spool is not None else [0]
        self._critical = 0
        self._starts: dict[str, str] = {}
        self._gathered = Gathered(
            coalesce=coalesce,
            step=_SWEEP if coalesce else min(_LOOK, _MOST_UNCOALESCED // 4),
            most_loose=_MOST_LOOSE if coalesce else _MOST_UNCOALESCED,
            most_loose_bytes=_MOST_LOOSE_BYTES,
        )
        self._refused = 0
        self._begun = False
        self._asleep = True  # the first event begins, if `begin` has not
        self._rung = False
        self._bell = threading.Lock()
        self._bell.acquire()
        self._heard: list[Ack] = []
        self._desired = mode
        self._reason = ""
        self._news = True  # address, mode or probe result to look at
        self._found: tuple[str, Any] | None = None  # address and proxy of a successful probe
        self._closing = False

        # The present feeder's own; `_generation` says which that is.
        self._generation = 0
        self._transport = Transport.SPOOL
        self._proxy: Any = None
        self._backlog = Backlog()  # changed only with the lock held
        self._partial = b""  # the rest of a marker line that a full pipe did not take
        self._durable = 0
        self._quiet_since = 0.0  # the last time something was sent or became durable
        self._resend = _RESEND[0]
        self._poll = _POLL[0]
        self._poll_at = 0.0
        self._credits = 1  # room for more, as far as was said
        self._full = _FULL[0]
        self._retry_at = 0.0
        self._probe = _PROBE[0]
        self._probe_at: float | None = None
        self._probing = 0
        self._count_sent = self._count_resent = self._fallbacks = self._returns = 0
        self._calling: float | None = None  # since when the feeder has been waiting for an answer

        self._watch_bell = threading.Event()
        self._threads: list[threading.Thread] = []
        if begins:
            self.begin()

    # -- making one

    @classmethod
    def for_worker(
        cls,
        *,
        worker: str,
        epoch: int,
        nonce: str,
        folder: Path,
        address: str,
        key: str,
        marker_fd: int,
        mode: str,
        fallback: bool = True,
        coalesce: bool = True,
        on_trouble: Callable[[str, str], None] | None = None,
        spool: Spool | None = None,
        begins: bool = True,
    ) -> Emitter:
        """The emitter of one of the crew's workers; `key` is base64. `spool` is given where its lock is held already.

        Without `begins` it connects with the first event, or when told to `begin`. SpoolLockedError: the folder is gone
        or taken, so this process must end.
        """
        if sys.platform != "win32" and marker_fd >= 0 and not _PIPES_WAIT:
            os.set_blocking(marker_fd, False)  # a held pipe must not hold the feeder
        return cls(
            worker=worker,
            epoch=epoch,
            nonce=nonce,
            spool=spool if spool is not None else Spool.open(folder),
            address=address,
            key=base64.b64decode(key) if key else b"",
            marker_fd=marker_fd,
            mode=mode,
            fallback=fallback,
            coalesce=coalesce,
            on_trouble=on_trouble,
            begins=begins,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Emitter:
        """The emitter of a tool: through the queue that AUDIT_QUEUE_KEY names, else as markers on stdout.

        What was emitted is flushed when the interpreter ends.
        """
        address, key, mode = "", b"", IPC_MODE_STDOUT
        found = environ.get(KEY_VARIABLE)
        if found:
            try:
                address, key = read_key(found)
                mode = determine_ipc_mode(
                    environ={k: v for k, v in environ.items() if k == MODE_VARIABLE}, default_rate=1.0
                )
            except ModeError as error:
                _log.error("%s; using markers on stdout", error)
            except ValueError as error:
                _log.error("%s cannot be used: %s", KEY_VARIABLE, error)
                _log.warning("falling back to stdout")
        emitter = cls(
            worker=f"tool-{os.getpid()}",
            epoch=time.time_ns() // 1_000_000,
            nonce=secrets.token_hex(16),
            spool=None,
            address=address,
            key=key,
            marker_fd=1,
            mode=mode,
            acked=False,
        )
        atexit.register(emitter.close, flush=ANSWER_WITHIN)
        return emitter

    def begin(self) -> None:
        """Start the threads that send, if nothing has yet."""
        with self._lock:
            self._begin()

    def _begin(self) -> None:
        if self._begun or self._closing:
            return
        self._begun = True
        self._start_feeder()
        threading.Thread(target=self._watch, name="ipc-watcher", daemon=True).start()

    # -- emitting

    def emit(
        self,
        phase: str,
        step: str,
        pct: int = 0,
        detail: str = "",
        *,
        type: str = PROGRESS,  # noqa: A002 - the event's own word
        summary: Mapping[str, Any] | None = None,
        data: bytes | None = None,
    ) -> int:
        """Report something; its seq. EventTooLargeError or SpoolFullError: it was not taken. Never waits."""
        with self._lock:
            gathered = self._gathered
            lot = gathered.lot
            if (
                step is lot.step
                and phase is lot.phase
                and type is PROGRESS
                and not summary
                and data is None
                and pct.__class__ is int
                and detail.__class__ is str
                and len(detail) <= _SMALL_TEXT
                and not self._closing
            ):  # more of the same, as nearly everything is: what follows is `_give`, written out
                lot.events.append((type, phase, step, pct, detail, _NONE, None, time.time()))
                self._seq = self._last[0] = seq = self._seq + 1
                if seq >= gathered.sweep_at:
                    gathered.sweep()
                if self._asleep:
                    self._ring()
                return seq
        return self._give((type, phase, step, pct, detail, plain(summary) if summary else _NONE, data, time.time()))

    def emit_event(self, event: ProgressEvent) -> int:
        """Report an event made elsewhere; as `emit`."""
        return self._give(fields_of(event))

    def _give(self, event: Fields) -> int:
        type_, phase, step, pct, detail, summary, data, at = event
        if not (
            type_.__class__ is phase.__class__ is step.__class__ is detail.__class__ is str
            and pct.__class__ is int
            and at.__class__ is float
            and (data is None or data.__class__ is bytes)
        ):
            event = type_, phase, step, pct, detail, summary, data, at = cleaned(event)
        starts = step in STARTING_STEPS
        if type_ != PROGRESS or step in ENDING_STEPS or (starts and self._starts.get(phase) != step):
            return self._give_critical(event, starts=starts)
        size = SMALL
        if summary or data is not None or len(phase) + len(step) + len(detail) > _SMALL_TEXT:
            size = len(encode_fields(event))
        with self._lock:
            if self._closing:
                raise RuntimeError("this emitter is closed")
            self._seq = self._last[0] = seq = self._seq + 1
            if type_ == PROGRESS and step not in _NOTABLE_STEPS and len(phase) + len(step) <= _SMALL_TEXT:
                self._gathered.lot.phase, self._gathered.lot.step = phase, step
            self._gathered.add(seq, event, critical=False, size=size)
            if self._asleep:
                self._ring()
        return seq

    def _give_critical(self, event: Fields, *, starts: bool) -> int:
        encoded = encode_fields(event)
        with self._lock:
            if self._closing:
                raise RuntimeError("this emitter is closed")
            seq = self._seq + 1
            if self._spool is None:
                if not self._unspooled.take(seq, len(encoded), self._durable):
                    self._refused += 1
                    raise SpoolFullError(
                        f"critical events wait in {self._unspooled.used:,} bytes of memory, of at most "
                        f"{self._unspooled.most:,}: nobody takes them, neither from the queue nor from stdout"
                    )
            else:
                try:
                    self._spool.append(seq, self._critical, encoded)  # a refusal takes no seq
                except Exception:
                    self._refused += 1
                    raise
            self._seq = self._critical = self._last[0] = seq
            if starts:
                self._starts[event[1]] = event[2]
            self._gathered.add(seq, event, critical=True, size=len(encoded))
            if self._asleep:
                self._ring()
        return seq

    # -- from the control thread

    def ack(self, ack: Ack) -> None:
        """News about events sent as markers."""
        with self._lock:
            self._heard.append(ack)
            self._ring()

    def redirect(self, address: str, key: str) -> None:
        """The queue is served elsewhere now; `key` is base64."""
        with self._lock:
            self._address, self._key = address, base64.b64decode(key)
            self._news = True
            self._ring()

    def switch(self, mode: str, reason: str) -> None:
        """Use this mode from now on: "queue" or "stdout"."""
        if mode not in (IPC_MODE_QUEUE, IPC_MODE_STDOUT):
            raise ModeError(f"a mode is queue or stdout, not {mode!r}")
        with self._lock:
            self._desired, self._reason = mode, reason
            self._news = True
            self._ring()

    def drain(self, timeout: float) -> bool:
        """Wait until everything emitted so far is durable, at most `timeout` seconds; whether it is."""
        with self._lock:
            target = self._seq
            self._ring()
            return self._drained.wait_for(lambda: self._durable >= target or not self._pending(target), timeout)

    def close(self, *, flush: float = 0.0) -> None:
        """Stop; with `flush`, wait so many seconds for what is under way, and print what the queue did not take."""
        if flush and not self.drain(flush) and not self._acked:
            self.switch(IPC_MODE_STDOUT, "the queue did not take the rest in time")
            self.drain(flush)
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._generation += 1
            self._ring()
        self._watch_bell.set()
        atexit.unregister(self.close)
        if self._spool is not None:
            with self._lock:
                self._spool.close()

    def statistics(self) -> EmitterStatistics:
        with self._lock:
            return EmitterStatistics(
                transport=self._transport.value,
                given=self._seq,
                durable=self._durable,
                sent=self._count_sent,
                resent=self._count_resent,
                coalesced=self._gathered.coalesced,
                dropped=self._gathered.dropped,
                refused=self._refused,
                fallbacks=self._fallbacks,
                returns=self._returns,
                waiting=len(self._gathered) + self._backlog.unsent + self._backlog.sent,
                spool_bytes=self._spool.size if self._spool is not None else 0,
            )

    @property
    def mode(self) -> str:
        """The transport in use: "queue", "stdout" or "spool-only"."""
        return self._transport.value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(flush=0.0 if self._acked else ANSWER_WITHIN)

    def _ring(self) -> None:
        """Wake the feeder; the lock is held."""
        self._asleep = False
        self._begin()
        if not self._rung:
            self._rung = True
            self._bell.release()

    def _pending(self, target: int) -> bool:
        return any(
            oldest is not None and oldest <= target for oldest in (self._backlog.oldest(), self._gathered.oldest())
        )

    # -- the feeder: everything below runs on its thread, or on the watcher's between two feeders

    def _start_feeder(self) -> None:
        generation = self._generation
        threading.Thread(target=self._feed, args=(generation,), name="ipc-feeder", daemon=True).start()

    def _feed(self, generation: int) -> None:
        while generation == self._generation:
            try:
                self._look_at_news(generation)
                if generation != self._generation:
                    return
                wait: float | None = None
                if self._transport is Transport.QUEUE:
                    wait = self._feed_queue(generation)
                elif self._transport is Transport.STDOUT:
                    wait = self._feed_stdout()
            except Exception as error:  # noqa: BLE001 - whatever it was, the feeder goes on, in another mode
                if generation == self._generation:
                    _log.debug("the feeder failed", exc_info=True)
                    self._fall_back(f"the feeder failed: {error!r}", markers=self._transport is Transport.STDOUT)
                continue
            if generation != self._generation:
                return
            self._rest(wait)

    def _rest(self, wait: float | None) -> None:
        """Sleep until there is something to do; `wait` 0 means at once, None until somebody rings."""
        if wait == 0 and (self._backlog.unsent or self._gathered):
            return
        now = time.monotonic()
        due = [at for at in (self._probe_at, self._resend_at()) if at is not None]
        if due and wait != 0:
            soonest = max(min(due) - now, 0.001)
            wait = soonest if wait is None else min(wait, soonest)
        with self._lock:
            if not (self._backlog.sent or self._backlog.unsent or self._gathered):
                self._drained.notify_all()
            if wait == 0 or self._news or self._heard:
                return
            if self._retry_at > now:  # until then nobody rings
                wait = self._retry_at - now if wait is None else min(wait, self._retry_at - now)
            open_ = self._transport is not Transport.SPOOL and now >= self._retry_at and self._window_open()
            if open_ and self._gathered:
                return
            self._asleep = open_
        if self._bell.acquire(timeout=-1 if wait is None else wait):
            with self._lock:
                self._rung = False

    def _resend_at(self) -> float | None:
        return self._quiet_since + self._resend if self._backlog.sent else None

    def _window_open(self) -> bool:
        return self._backlog.sent < _WINDOW_EVENTS and self._backlog.sent_bytes < _WINDOW_BYTES

    def _look_at_news(self, generation: int) -> None:
        """Acks, a new address, another mode, a queue that answers again, silence."""
        if self._heard or self._news or self._found is not None:  # no lock: who brings more rings after it
            self._take_news(generation)
        now = time.monotonic()
        if self._probe_at is not None and now >= self._probe_at and self._probe_at != float("inf"):
            self._probe_at = now + self._probe
            self._probe = min(self._probe * 2, _PROBE[1])
            if not self._probing:
                threading.Thread(target=self._try_again, name="ipc-prober", daemon=True).start()
        resend_at = self._resend_at()
        if resend_at is not None and now >= resend_at:
            self._send_again(above=self._durable)
            self._quiet_since = now
            self._resend = min(self._resend * 2, _RESEND[1])

    def _take_news(self, generation: int) -> None:
        with self._lock:
            heard, self._heard = self._heard, []
            news, self._news = self._news, False
            desired, reason = self._desired, self._reason
            address, key = self._address, self._key
            found, self._found = self._found, None
        for ack in heard:
            self._hear(ack.durable, ack.gap)
        if news and desired == IPC_MODE_STDOUT and self._transport is not Transport.STDOUT:
            self._probe_at = None
            self._move_to(Transport.STDOUT if self._marker_fd >= 0 else Transport.SPOOL, reason or "as assigned")
        elif found is not None and desired == IPC_MODE_QUEUE and found[0] == address:
            self._proxy = found[1]
            self._probe_at = None
            if self._transport is not Transport.QUEUE:
                self._returns += 1
                self._move_to(Transport.QUEUE, "it answers again")
        elif news and desired == IPC_MODE_QUEUE:
            if reason or (self._transport is Transport.SPOOL and not self._fallbacks):
                with self._lock:
                    self._reason = ""
                self._join(generation, address, key, reason or "as assigned")
            elif self._transport is Transport.QUEUE:
                self._join(generation, address, key, "it has a new address")
            else:
                self._probe_at = time.monotonic()

    def _join(self, generation: int, address: str, key: bytes, why: str) -> None:
        """Connect, or fall back."""
        if not address:
            self._fall_back("no queue is served")
            return
        self._calls()
        try:
            proxy = connect(address, key)
        except _TROUBLES as error:
            if self._answered(generation):
                self._fall_back(str(error))
            return
        if not self._answered(generation):
            return
        self._proxy = proxy
        self._probe_at = None
        self._move_to(Transport.QUEUE, why)

    def _try_again(self) -> None:
        """On a thread of its own, since it may hang."""
        self._probing += 1
        try:
            with self._lock:
                address, key = self._address, self._key
            proxy = connect(address, key) if address else None
        except _TROUBLES:
            return
        finally:
            self._probing -= 1
        if proxy is not None:
            with self._lock:
                self._found = (address, proxy)
                self._ring()

    def _move_to(self, transport: Transport, why: str) -> None:
        """Change the transport; the new one begins with what is not durable."""
        if transport is not self._transport:
            _log.info("events of %s go by %s now: %s", self._worker, transport.value, why)
        self._transport = transport
        self._send_again(above=self._durable)
        self._poll, self._full, self._credits, self._retry_at = _POLL[0], _FULL[0], 1, 0.0

    def _fall_back(self, cause: str, *, markers: bool = False) -> None:
        """The queue is of no use at present; with `markers`: what failed is stdout, so that nothing is left."""
        self._proxy = None
        self._fallbacks += 1
        self._probe = _PROBE[0]
        # What was printed without acks cannot be asked for again by queue: no way back from there loses nothing.
        self._probe_at = time.monotonic() + self._probe if self._acked else None
        if markers:
            _log.error("events of %s cannot be written to stdout: %s", self._worker, cause)
            self._move_to(Transport.SPOOL, "nobody takes them; critical ones wait in the spool")
            return
        _log.error("the queue for events of %s is broken: %s", self._worker, cause)
        if self._fallback and self._marker_fd >= 0:
            _log.warning("events of %s fall back to stdout", self._worker)
            if self._transport is not Transport.STDOUT:
                self._move_to(Transport.STDOUT, "fallback")
        else:
            _log.warning("events of %s wait in the spool until the queue is back: falling back is off", self._worker)
            self._move_to(Transport.SPOOL, "fallback is off")
            if self._on_trouble is not None:
                self._on_trouble("queue", f"the queue is broken and falling back is off: {cause}")

    def _send_again(self, *, above: int) -> None:
        with self._lock:
            self._count_resent += self._backlog.send_again(above)

    def _hear(self, durable: int, gap: int | None, *, sent: Sequence[Lot] = ()) -> None:
        """`sent` is under way; forget what is durable; after a gap go back to what was missing.

        What comes late does no harm.
        """
        news = durable > self._durable
        if sent or news:  # both in one hold: `emit` wants the lock as well, and whoever waits for it waits for a turn
            with self._lock:
                self._backlog.was_sent(sent)
                if news:
                    self._backlog.forget(durable)
                    self._durable = durable
                    if self._spool is not None:
                        self._spool.trim(durable)
                    self._drained.notify_all()
            self._quiet_since = time.monotonic()
        if sent:
            self._count_sent += sum([len(lot.events) for lot in sent])
            self._poll = _POLL[0]
        if news:
            self._resend, self._poll, self._poll_at = _RESEND[0], _POLL[0], 0.0
        if gap is not None:
            self._send_again(above=max(gap, self._durable))

    def _next_batch(self, most_events: int, most_bytes: int) -> list[Lot]:
        """What to send next; it stays in the backlog until it was taken."""
        with self._lock:
            if not self._backlog.unsent:
                self._backlog.take(self._gathered.take())
            return self._backlog.next_batch(most_events, most_bytes)

    # -- by queue

    def _feed_queue(self, generation: int) -> float | None:
        """One offer if there is a reason; then how long there is nothing to do."""
        now = time.monotonic()
        more = bool(self._backlog.unsent or self._gathered)
        batch: list[Lot] = []
        if more and self._credits and now >= self._retry_at and self._window_open():
            batch = self._next_batch(_BATCH_EVENTS, _BATCH_BYTES)
        if batch:
            self._poll_at = 0.0
            frame = self._encode(batch)
        else:
            at = self._ask_at(now, more=more)
            if at is None or now < at:
                return None if at is None else at - now
            self._poll = min(self._poll * 2, _POLL[1])
            self._poll_at = now + self._poll
            frame = b""
        self._calls()
        try:
            reply = Reply(*self._proxy.call("offer", self._worker, self._epoch, frame))
        except _TROUBLES as error:
            if self._answered(generation):
                self._fall_back(f"{error.__class__.__name__}: {error}")
            return 0
        if not self._answered(generation):
            return 0
        if reply.status == "closed":
            self._closed_there()
            return None
        taken = batch if reply.status == "taken" else []
        if taken:
            self._full = _FULL[0]
        self._credits = reply.credits if reply.status == "taken" else 0
        if not self._credits:
            self._retry_at = time.monotonic() + self._full
            self._full = min(self._full * 2, _FULL[1])
        self._hear(reply.durable, reply.gap, sent=taken)
        return 0

    def _ask_at(self, now: float, *, more: bool) -> float | None:
        """When to offer nothing, so as to hear how things stand; None if there is nothing to hear."""
        times = [self._retry_at] if more and not self._credits else []
        if self._backlog.sent:
            self._poll_at = self._poll_at or now + self._poll
            times.append(self._poll_at)
        return min(times, default=None)

    def _closed_there(self) -> None:
        """This epoch is not known there (any more): only a new address or mode could change that."""
        _log.error("the supervisor takes no events of epoch %s of %s any more", self._epoch, self._worker)
        self._proxy = None
        self._probe_at = None
        self._move_to(Transport.SPOOL, "the epoch is closed")
        if self._on_trouble is not None:
            self._on_trouble("epoch", "the supervisor takes no events of this epoch any more")

    def _encode(self, batch: Sequence[Lot]) -> bytes:
        events = batch[0].events if len(batch) == 1 else [event for lot in batch for event in lot.events]
        sections = [lot.section() for lot in batch]
        try:
            tags = batch[0].tags if len(batch) == 1 else {tag for lot in batch for tag in lot.tags}
            return encode_frame(self._worker, self._epoch, self._nonce, sections, tags, events)
        except _UNENCODABLE:
            events = [cleaned(event) for event in events]
            tags = {(event[1], event[0]) for event in events}
            return encode_frame(self._worker, self._epoch, self._nonce, sections, tags, events)

    # -- by stdout

    def _feed_stdout(self) -> float | None:
        """Write some lines; then how long there is nothing to do."""
        if self._partial and not self._write():
            return 0 if self._news else 0.05
        if not self._window_open():
            return None
        batch = self._next_batch(_LINES_EVENTS, _LINES)
        if not batch:
            return None
        self._partial = b"".join(
            self._line(meta, event) for lot in batch for meta, event in zip(lot.metas(), lot.events, strict=True)
        )
        whole = self._write()
        self._hear(batch[-1].last if whole and not self._acked else 0, None, sent=batch)
        return 0

    def _line(self, meta: Meta, event: Fields) -> bytes:
        try:
            return encode_marker(self._worker, self._epoch, self._nonce, meta, event)
        except _UNENCODABLE:
            return encode_marker(self._worker, self._epoch, self._nonce, meta, cleaned(event))

    def _write(self) -> bool:
        """Write what the pipe takes now; whether all is written."""
        if self._pipe is not None:
            if self._partial and self._pipe.takes(self._partial, within=0.05):
                self._partial = b""
            return not self._partial
        if not self._acked:
            while self._partial:
                self._partial = self._partial[os.write(self._marker_fd, self._partial) :]
            return True
        while self._partial:
            if not select.select([], [self._marker_fd], [], 0.05)[1]:
                return False
            try:
                self._partial = self._partial[os.write(self._marker_fd, self._partial) :]
            except BlockingIOError:
                return False
        return True

    # -- the watcher

    def _calls(self) -> None:
        self._calling = time.monotonic()
        if not self._watch_bell.is_set():
            self._watch_bell.set()

    def _answered(self, generation: int) -> bool:
        """The call is over; false if this feeder was given up meanwhile."""
        with self._lock:
            if generation != self._generation:
                return False
            self._calling = None
            return True

    def _watch(self) -> None:
        """Give up a feeder whose call hangs; asleep while no calls are made."""
        pause = threading.Event()
        while not self._closing:
            self._watch_bell.wait()
            self._watch_bell.clear()
            while not self._closing:
                pause.wait(ANSWER_WITHIN / 4)
                since, generation = self._calling, self._generation
                if since is None:
                    break
                if time.monotonic() - since >= ANSWER_WITHIN:
                    self._give_up(generation)
                    break

    def _give_up(self, generation: int) -> None:
        with self._lock:
            if self._closing or generation != self._generation or self._calling is None:
                return
            self._generation += 1
            self._calling = None
        self._fall_back(f"no answer within {ANSWER_WITHIN:g} s")
        self._start_feeder()


class _PipeThread:
    """Writes to a pipe that cannot be asked whether it has room; one chunk at a time, everything in order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._chunks: SimpleQueue[bytes] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._error: OSError | None = None
        threading.Thread(target=self._run, name="ipc-markers", daemon=True).start()

    def takes(self, data: bytes, *, within: float) -> bool:
        """Hand over a chunk once the last one is written; false after waiting so many seconds. OSError: that failed."""
        if not self._idle.wait(within):
            return False
        if self._error is not None:
            raise self._error
        self._idle.clear()
        self._chunks.put(data)
        return True

    def _run(self) -> None:
        while self._error is None:
            data = self._chunks.get()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as error:
                self._error = error
            self._idle.set()
