"""Every interleaving of the event protocol, checked: what a worker emits is journaled once, in order, in the end.

docs/explanation/events.md says how an event travels from ``emit()`` to the journal. This module says the same as a
small state machine and walks through *all* of its states, faults included, so that a rule which is missing or wrong
shows up as a trace of a dozen steps instead of one lost event in ten thousand kills.

What is modelled
    One worker identity with two epochs, 0 and 1, that may overlap, and a program of a few events for each: ``C``
    critical, ``P`` progress, ``F`` critical and about a finish record that is already in the documents' history.
    Worker: ``emit()`` (seq, prev, spool append, coalescing), feeder (queue offers as request and reply, marker lines,
    spool-only, switches, acks, sending again, trimming), first acts (folder, lock), death at any step, torn tails.
    Wire: one offer under way per worker, one abandoned offer (a *ghost*) that arrives at any later time or never, a
    bounded pipe whose lines may be damaged, acks over stdin that may be old by the time they are read.
    Supervisor: inbox, sequencer, events accepted but not committed (lost when it dies), commits that fail or only seem
    to, closing an epoch step by step, holding the successor's events, its death at any step, the start of a new one.
    Disk: the journal and its (worker, epoch) table, the spool folders. Power loss may cost any suffix of what is not
    synced, and may bring back what was trimmed or removed.

What is left out, and why that is sound
    Time: a time-out may fire at any moment (within a budget); a stalled process is one that is not scheduled.
    Bytes: a frame is a list of seqs; nonces, encoding and CRCs are taken to do their job.
    Credits: an offer that finds the inbox full waits; being refused and offering again later is the same.
    More workers: they share nothing but the inbox, and the successor's frames already compete for that.

Properties
    P1  a critical event whose ``emit()`` returned is in the journal exactly once, nothing is there twice, a finish
        record has its one event, and no loss is reported that did not happen
    P2  the journal holds a worker's events in the order of (epoch, seq)
    P3  no progress is stored after a newer critical event
    P4  events given = stored + counted as missed, for every closed epoch and whenever all has come to rest
    P5  what a client was shown is, and stays, what the journal holds under that cursor
    P6  ``emit()`` never waits
    P7  from every reachable state the work can still be finished without further faults: everything durable or closed,
        the newest progress arrived, spools trimmed, folders gone. A deadlock or a livelock has no such way out; where
        every step that is possible again and again is taken in the end (strong fairness), "can" is "will".
    After power loss, P1 asks for "not twice" only, and P4 for nothing, of the epochs that were hit.

How to read the result
    Each field of `Rules` is one rule of the protocol. The first group of runs keeps them all and must hold in every
    state. The second takes out or bends one rule per run and must be caught: a checker that cannot fail proves nothing.
    The third takes out rules that turn out to be matters of speed or neatness, not of safety, and must hold.

Run ``python event_protocol.py`` for the table: run → states explored → result (standard library only, under a minute,
exit status 1 on a surprise). ``--only TEXT`` picks the runs whose name has the text, ``--trace`` prints
counterexamples, ``--deep`` adds larger bounds (about four minutes and a gigabyte).
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# --- the rules --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol, one rule per field; False is the tempting alternative that the comment names after "else"."""

    # Sequencer
    prev_check: bool = True  # else: a critical event is accepted when it is newer than the last one
    progress_checks_prev: bool = True  # else: progress may overtake a critical event that is still missing
    progress_checks_seq: bool = True  # else: progress is only compared with the last critical event
    late_progress_refused: bool = True  # else: late progress is stored unless it already was
    two_marks: bool = True  # the table keeps last critical and last seq; else: one high-water mark for both
    cut_overlap: bool = True  # else: a frame that is partly new is stored whole
    duplicate_is_no_gap: bool = True  # else: whatever critical event is not accepted is answered with Gap
    closed_is_final: bool = True  # else: frames of a closed epoch are judged by their seq alone
    hold_successor: bool = True  # else: the successor's events are accepted while the old epoch is open
    hold_aside: bool = True  # else: held frames stay at the head of the shared inbox
    count_by_seq: bool = True  # missed = holes in seq; else: what was coalesced there + what arrives late here

    # Journal and hub
    trim_on_durable: bool = True  # else: acks say what was received, and the spool is trimmed by that
    same_transaction: bool = True  # else: the table follows the rows in a transaction of its own
    table_kept: bool = True  # else: retention removes closed epochs from the table
    reset_on_failed_commit: bool = True  # marks go back to the table; else: they stay where they were
    reread_on_failed_commit: bool = True  # the table says what came of it; else: the batch is simply tried again
    show_after_commit: bool = True  # else: the hub shows what was accepted
    show_from_journal: bool = True  # by cursor; else: the batch in memory whose commit succeeded
    new_store_id: bool = True  # after power loss; else: cursors are given a second time

    # Worker and feeder
    emit_takes_no_io_lock: bool = True  # else: the feeder writes while it holds emit's lock
    refusal_takes_no_seq: bool = True  # else: an event that the full spool refused has used up a seq
    progress_until_durable: bool = True  # the newest is kept; else: progress is forgotten once it was sent
    resend_on_switch: bool = True  # from durable + 1; else: the new transport goes on where the old one stopped
    resend_timer: bool = True  # else: only Gap and switches make the feeder send again
    gap_answer: bool = True  # else: only the timer and switches do
    poll: bool = True  # empty offers while something is not durable; else: acks come with event offers only

    # Epochs, folders, closing
    fsynced_counter: bool = True  # else: epochs count on from what journal and spools still hold
    opened_first: bool = True  # opened row and folder before the assignment; else: the worker makes its folder
    lock_or_exit: bool = True  # else: a worker whose folder is locked or gone goes on
    eof_after_lock: bool = True  # with the lock it looks at stdin, and may exit; else: it emits until it notices
    lock_not_inherited: bool = True  # else: the worker's agents hold the folder's lock too
    kill_holder: bool = True  # else: a new supervisor waits for a live holder for ever
    known_from_history: bool = True  # else: a new supervisor closes what journal and spools tell of
    closing_waits_for_process_only: bool = True  # else: for its whole tree
    drain_first: bool = True  # pipe and taken offers are read before salvage; else: they are thrown away
    drained_counts: bool = True  # what is drained is accepted; else: only salvage may add to a fenced epoch
    ascending: bool = True  # else: salvage does not wait for the older epoch
    salvage: bool = True  # else: a fenced epoch is closed as it is
    salvage_needs_lock: bool = True  # else: a new supervisor salvages at once
    salvage_cuts_torn_records: bool = True  # else: a torn record ends the reading
    salvage_skips_gaps: bool = True  # and reports them; else: prev must match there as well
    salvage_through_sequencer: bool = True  # else: above the table's mark, whatever still waits for its commit
    finish_after_salvage: bool = True  # else: missing events about a finish are added before the spool is read
    last_seq_survives: bool = True  # the last seq given is on disk; else: it dies with the worker
    closed_before_removal: bool = True  # else: the folder goes once it was read


# --- the state --------------------------------------------------------------------------------------------------------

ABSENT, STARTING, RUNNING, DEAD = "absent", "starting", "running", "dead"
QUEUE, STDOUT, SPOOL = "queue", "stdout", "spool-only"
MISSING, PRESENT, REMOVED = "missing", "present", "removed"
OPEN, FENCED, SALVAGED, CLOSED = "open", "fenced", "salvaged", "closed"
EVENT, OPENED_ROW, CLOSED_ROW, LOSS_ROW = "event", "opened", "closed", "loss"

Seqs = tuple[int, ...]
Frame = tuple[int, Seqs]  # epoch, seqs
Row = tuple[str, int, int]  # what, epoch, and a seq (of an event or a loss) or a count (of a closing)
Mark = tuple[int, int]  # last critical event accepted, last event accepted
Ack = tuple[int, bool, int]  # durable up to; is it a Gap; if so, the last critical event accepted
DAMAGED = 0  # a marker line that cannot be read
WHOLE = 99  # where a spool ends that has lost nothing


class Worker(NamedTuple):
    """One process, that is one epoch: its memory, its connections, and (for the properties) what it has done."""

    life: str = ABSENT
    attached: bool = True  # the supervisor that started it still lives
    stopped: bool = False  # by SIGSTOP, for good
    agent: bool = False  # a child that outlives it holds the lock (only where locks are inherited)
    stuck: bool = False  # a child cannot be killed
    excused: bool = False  # power was lost: its events may be lost, not doubled
    reused: bool = False  # its epoch's number was given before (only where the counter can be lost)
    given: int = 0  # emit() has returned for 1..given
    refused: int = 0  # a seq that a full spool refused
    coalesced: int = 0  # (only where that is how it is counted)
    finished: int = 0  # history holds the finish record that this event is about
    progress: Seqs = ()  # progress not yet durable, in memory
    mode: str = SPOOL
    sent: int = 0  # in this mode
    durable: int = 0  # as far as it knows
    request: Seqs = ()  # the offer under way
    reply: Ack | None = None  # its answer under way
    pipe: Seqs = ()  # lines in the marker pipe
    stdin: Ack | None = None  # an ack in the control pipe


class Spool(NamedTuple):
    """An epoch's folder on disk: the critical events in (trimmed, end], a torn record before one of them."""

    folder: str = MISSING
    trimmed: int = 0
    end: int = WHOLE
    torn: int = 0


class Supervisor(NamedTuple):
    """The supervisor's memory, all of which dies with it; what comes in pairs is per epoch."""

    up: bool = False
    queue_ok: bool = True
    inbox: tuple[Frame, ...] = ()
    ghosts: tuple[Frame, ...] = ()
    held: tuple[Frame, ...] = ()
    marks: tuple[Mark, ...] = ((0, 0), (0, 0))
    gaps: tuple[bool, ...] = (False, False)  # to be told
    late: tuple[int, ...] = (0, 0)  # progress that came late (only where that is how it is counted)
    pending: tuple[Row, ...] = ()  # accepted, not committed
    stages: tuple[str, ...] = (OPEN, OPEN)
    known: tuple[bool, ...] = (False, False)


class Journal(NamedTuple):
    """Rows in order of commit. The table is a function of them, unless a bent rule makes it lag or forget."""

    rows: tuple[Row, ...] = ()
    synced: int = 0  # rows that power loss cannot take (counted only where power can be lost)
    folded: int = 0  # rows that the table knows of (only where it has its own transaction)
    forgotten: tuple[bool, ...] = (False, False)


class Client(NamedTuple):
    """Somebody who watches: what it holds under each cursor of this store id, and every identity it ever saw."""

    view: tuple[tuple[int, int], ...] = ()
    seen: frozenset[tuple[int, int]] = frozenset()


class Faults(NamedTuple):
    """How many faults of each kind may still happen."""

    worker_kills: int = 0
    supervisor_kills: int = 0
    power_losses: int = 0
    cuts: int = 0  # the queue server breaks: replies are lost, requests may come later
    switches: int = 0  # time-outs, premature ones included, and returns; the transport may stay the same
    damages: int = 0  # a marker line becomes unreadable
    failed_commits: int = 0  # or commits that are reported as failed
    short_writes: int = 0  # of a spool record, which is then written again in a new segment
    refusals: int = 0  # disk full, or over the quota
    drops: int = 0  # memory is short: progress that is not the newest goes
    stops: int = 0  # SIGSTOP of a worker, never continued
    stuck: int = 0  # an agent that cannot be killed
    retentions: int = 0


class State(NamedTuple):
    """All there is."""

    workers: tuple[Worker, ...]
    spools: tuple[Spool, ...]
    supervisor: Supervisor
    journal: Journal
    client: Client
    left: Faults


class Entry(NamedTuple):
    """The table's row for one epoch."""

    opened: bool = False
    closed: bool = False
    critical: int = 0
    seq: int = 0
    missed: int = 0


class Step(NamedTuple):
    """One move: what happens, whether it takes bad luck, and the state after it."""

    says: str
    fault: bool
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One run: programs, faults, rules, bounds, and the properties of which one must break (none: it must hold)."""

    name: str
    programs: tuple[str, ...]
    faults: Faults = Faults()  # noqa: RUF009 - it is frozen
    rules: Rules = Rules()
    modes: tuple[str, ...] = (QUEUE,)  # the first is where a feeder starts
    slow_start: bool = False  # assignment and the worker's first acts are two steps
    torn: bool = False  # a kill may leave half a record
    viewer: bool = False  # a client watches, one event at a time
    inbox: int = 1  # frames
    pipe: int = 2  # lines
    door: int = 1  # frames held for the successor; more are refused with Gap
    ghosts: int = 1
    expect: tuple[str, ...] = ()


# --- the protocol -----------------------------------------------------------------------------------------------------


class Model:
    """The steps that are possible in a state, and what must be true of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = config.rules
        self.epochs = range(len(config.programs))
        self.criticals: list[Seqs] = []
        self.prev: list[Seqs] = []  # indexed by seq
        for program in config.programs:
            criticals = tuple(s for s, kind in enumerate(program, 1) if kind != "P")
            self.criticals.append(criticals)
            before = [max((c for c in criticals if c < s), default=0) for s in range(len(program) + 1)]
            self.prev.append(tuple(before))
        self._tables: dict[tuple[tuple[Row, ...], int], tuple[Entry, ...]] = {}
        self._verdicts: dict[tuple[Row, ...], str | None] = {}

    def initial(self) -> State:
        """Supervisor up; epoch 0 running, or still to be opened where starts take several steps."""
        nobody = State(
            workers=tuple(Worker() for _ in self.epochs),
            spools=tuple(Spool() for _ in self.epochs),
            supervisor=Supervisor(up=True),
            journal=Journal(),
            client=Client(),
            left=self.config.faults,
        )
        return nobody if self.config.slow_start else self._open(nobody, 0)

    def steps(self, s: State) -> Iterator[Step]:
        """Whatever can happen next."""
        for e in self.epochs:
            if s.workers[e].life in (STARTING, RUNNING) and not s.workers[e].stopped:
                yield from self._worker(s, e)
        if s.supervisor.up:
            for e in self.epochs:
                yield from self._wire(s, e)
                yield from self._closing(s, e)
            yield from self._pump(s)
            yield from self._successor(s)
        else:
            yield Step("a new supervisor starts", False, self._start(s))
        yield from self._faults(s)

    # -- how things are called

    def name(self, e: int, seq: int) -> str:
        """An event as people read it: ``e0:C1``."""
        return f"e{e}:{self.config.programs[e][seq - 1]}{seq}"

    def frame(self, e: int, seqs: Seqs) -> str:
        """A batch as people read it."""
        return "[" + " ".join(self.name(e, seq) for seq in seqs) + "]"

    def listed(self, rows: tuple[Row, ...]) -> str:
        """Rows as people read them."""
        return " ".join(("a loss before " if what == LOSS_ROW else "") + self.name(e, seq) for what, e, seq in rows)

    # -- the table: what the journal's transactions add up to

    def table(self, journal: Journal) -> tuple[Entry, ...]:
        """The (worker, epoch) table."""
        known = len(journal.rows) if self.rules.same_transaction else journal.folded
        key = (journal.rows, known)
        entries = self._tables.get(key)
        if entries is None:
            entries = self._tables[key] = self._fold(journal.rows, known)
        if any(journal.forgotten):
            return tuple(Entry() if journal.forgotten[e] else entries[e] for e in self.epochs)
        return entries

    def _fold(self, rows: tuple[Row, ...], known: int) -> tuple[Entry, ...]:
        entries = [Entry() for _ in self.epochs]
        for n, (what, e, seq) in enumerate(rows):
            entry = entries[e]._replace(opened=True)
            if what == CLOSED_ROW:
                entry = entry._replace(closed=True, missed=seq)
            elif what == EVENT and n < known:
                critical = seq if seq in self.criticals[e] else entry.critical
                holes = max(seq - entry.seq - 1, 0)
                entry = entry._replace(critical=critical, seq=max(seq, entry.seq), missed=entry.missed + holes)
            entries[e] = entry
        return tuple(entries)

    def _marks(self, journal: Journal) -> tuple[Mark, ...]:
        """What a sequencer believes that has just read the table."""
        table = self.table(journal)
        if self.rules.two_marks:
            return tuple((entry.critical, entry.seq) for entry in table)
        return tuple((entry.seq, entry.seq) for entry in table)

    def _older_open(self, s: State, e: int) -> bool:
        table = self.table(s.journal)
        return any(s.supervisor.known[old] and not table[old].closed for old in range(e))

    # -- the worker

    def _worker(self, s: State, e: int) -> Iterator[Step]:
        w = s.workers[e]
        if w.life == STARTING:
            yield from self._first_acts(s, e)
        else:
            yield from self._emit(s, e)
            if w.attached and s.supervisor.up:
                yield from self._feeder(s, e)
        if not w.attached:
            gone = with_worker(s, e, dead(w)._replace(agent=False))
            yield Step(f"orphan e{e} sees its stdin end, ends its agents and exits", False, gone)

    def _first_acts(self, s: State, e: int) -> Iterator[Step]:
        """Lock the folder; then see whether the supervisor is still there; only then the first event."""
        w, spool = s.workers[e], s.spools[e]
        running = with_worker(s, e, w._replace(life=RUNNING, mode=self.config.modes[0]))
        locked_by_us = s.supervisor.up and s.supervisor.stages[e] in (FENCED, SALVAGED)
        refused = self.rules.opened_first and (spool.folder != PRESENT or locked_by_us)
        if refused and self.rules.lock_or_exit:
            yield Step(f"worker e{e} finds its folder locked or gone and exits", False, with_worker(s, e, dead(w)))
        elif not w.attached and self.rules.eof_after_lock:
            return  # its stdin has ended, so it exits
        elif self.rules.opened_first:
            yield Step(f"worker e{e} starts {'without' if refused else 'with'} its folder's lock", False, running)
        else:
            made = running._replace(spools=put(s.spools, e, spool._replace(folder=PRESENT)))
            yield Step(f"worker e{e} makes its folder and locks it", False, made)

    def _emit(self, s: State, e: int) -> Iterator[Step]:
        w, program = s.workers[e], self.config.programs[e]
        seq = w.given + 1
        if seq > len(program) or self._emit_waits(s, e):
            return
        name = self.name(e, seq)
        given = w._replace(given=seq)
        if program[seq - 1] == "P":
            unsent = w.progress[-1:] if w.progress and w.progress[-1] > max(w.sent, self.prev[e][seq]) else ()
            held = (*(p for p in w.progress if p not in unsent), seq) if w.attached else ()
            coalesced = w.coalesced + (0 if self.rules.count_by_seq else len(unsent))
            how = f", replacing {self.name(e, unsent[0])}" if unsent else ""
            after = given._replace(progress=held, coalesced=coalesced)
            yield Step(f"emit {name} returns{how}", False, with_worker(s, e, after))
            return
        if program[seq - 1] == "F" and w.finished < seq:
            after = w._replace(finished=seq)
            yield Step(f"worker e{e} commits a finish record to the history", False, with_worker(s, e, after))
            return
        yield Step(f"emit {name} returns (spooled)", False, with_worker(s, e, given))
        if s.left.short_writes:
            torn = with_worker(s, e, given)._replace(spools=put(s.spools, e, s.spools[e]._replace(torn=seq)))
            says = f"emit {name} returns (spooled in a new segment, after a short write)"
            yield Step(says, True, spend(torn, "short_writes"))
        if s.left.refusals and not self.rules.refusal_takes_no_seq:
            refused = with_worker(s, e, given._replace(refused=seq))
            yield Step(f"emit {name} is refused: disk full", True, spend(refused, "refusals"))

    def _emit_waits(self, s: State, e: int) -> bool:
        w = s.workers[e]
        if self.rules.emit_takes_no_io_lock:
            return False
        return bool(w.request or (w.mode == STDOUT and len(w.pipe) >= self.config.pipe and self._outbox(w, e, w.sent)))

    # -- its feeder

    def _outbox(self, w: Worker, e: int, above: int) -> Seqs:
        """What the feeder holds above a seq, in order: critical events of the spool and progress in memory."""
        spooled = tuple(c for c in self.criticals[e] if above < c <= w.given and c != w.refused)
        return tuple(sorted(spooled + tuple(p for p in w.progress if p > above))) if w.progress else spooled

    def _feeder(self, s: State, e: int) -> Iterator[Step]:
        w = s.workers[e]
        calling = bool(w.request) or w.reply is not None
        if w.stdin is not None:
            after = self._hear(s, e, w.stdin)
            after = with_worker(after, e, after.workers[e]._replace(stdin=None))
            yield Step(f"feeder e{e} reads {said(w.stdin)} from stdin", False, after)
        if w.reply is not None:
            after = self._hear(s, e, w.reply)
            after = with_worker(after, e, after.workers[e]._replace(reply=None))
            yield Step(f"feeder e{e} hears {said(w.reply)}", False, after)
        unsent = self._outbox(w, e, w.sent)
        if w.mode == QUEUE and not calling and s.supervisor.queue_ok:
            if unsent:
                offering = with_worker(s, e, self._sent(w, unsent)._replace(request=unsent))
                yield Step(f"feeder e{e} offers {self.frame(e, unsent)}", False, offering)
            yield from self._poll(s, e)
        if w.mode == QUEUE and not calling and not s.supervisor.queue_ok and STDOUT in self.config.modes:
            yield Step(f"feeder e{e} finds the queue broken and falls back", False, self._switch(s, e, STDOUT))
        if w.mode == STDOUT and unsent and len(w.pipe) < self.config.pipe:
            written = with_worker(s, e, self._sent(w, unsent[:1])._replace(pipe=(*w.pipe, unsent[0])))
            yield Step(f"feeder e{e} writes {self.name(e, unsent[0])} to stdout", False, written)
        if w.mode == SPOOL:
            for mode in self.config.modes:
                if mode != SPOOL:
                    yield Step(f"feeder e{e} tries {mode} again", False, self._switch(s, e, mode))
        if self.rules.resend_timer and self._overdue(s, e):
            again = with_worker(s, e, w._replace(sent=w.durable))
            yield Step(f"feeder e{e} has waited long enough and sends again from {w.durable + 1}", False, again)

    def _sent(self, w: Worker, seqs: Seqs) -> Worker:
        forgotten = () if self.rules.progress_until_durable else seqs
        return w._replace(sent=seqs[-1], progress=tuple(p for p in w.progress if p not in forgotten))

    def _poll(self, s: State, e: int) -> Iterator[Step]:
        """An empty offer; drawn only when the answer is news, since otherwise nothing changes."""
        w, ack = s.workers[e], self._ack(s, e)
        if self.rules.poll and self._outbox(w, e, w.durable) and (ack[0] > w.durable or ack[1]):
            told = self._hear(self._told(s, e), e, ack)
            yield Step(f"feeder e{e} makes an empty offer and hears {said(ack)}", False, told)

    def _overdue(self, s: State, e: int) -> bool:
        """Sent, not durable, and nothing under way that could still make it so."""
        w, sup = s.workers[e], s.supervisor
        if w.sent <= w.durable or w.mode == SPOOL or w.request or w.reply is not None or w.pipe or w.stdin is not None:
            return False
        if any(row[1] == e for row in sup.pending) or any(frame[0] == e for frame in sup.inbox + sup.held):
            return False
        return bool(self._outbox(w, e, w.durable)) and self._ack(s, e)[0] <= w.durable

    def _hear(self, s: State, e: int, ack: Ack) -> State:
        """Trim what is durable; after a Gap go back to what was missing. An ack that comes late does no harm."""
        w, spool = s.workers[e], s.spools[e]
        durable, gap, critical = ack
        durable = max(durable, w.durable)
        sent = max(w.sent, durable)
        if gap and self.rules.gap_answer:
            sent = min(sent, max(critical, durable))
        heard = w._replace(durable=durable, sent=sent, progress=tuple(p for p in w.progress if p > durable))
        trimmed = spool._replace(trimmed=max(spool.trimmed, durable)) if spool.folder == PRESENT else spool
        return s._replace(workers=put(s.workers, e, heard), spools=put(s.spools, e, trimmed))

    def _switch(self, s: State, e: int, mode: str) -> State:
        """Give up one transport for another; a request under way becomes a ghost."""
        w = s.workers[e]
        sent = w.durable if self.rules.resend_on_switch else w.sent
        switched = with_worker(s, e, w._replace(mode=mode, request=(), reply=None, sent=sent))
        return switched._replace(supervisor=self._haunted(s.supervisor, e, w.request))

    def _haunted(self, sup: Supervisor, e: int, request: Seqs) -> Supervisor:
        if not request or len(sup.ghosts) >= self.config.ghosts:
            return sup
        return sup._replace(ghosts=(*sup.ghosts, (e, request)))

    # -- between worker and supervisor: server threads, marker reader, control pipe

    def _wire(self, s: State, e: int) -> Iterator[Step]:
        w, sup = s.workers[e], s.supervisor
        if w.request and sup.queue_ok and len(sup.inbox) < self.config.inbox:
            ack = self._ack(s, e)
            taken = with_worker(self._told(s, e), e, w._replace(request=(), reply=ack))
            inbox = (*sup.inbox, (e, w.request))
            taken = taken._replace(supervisor=taken.supervisor._replace(inbox=inbox))
            yield Step(f"the queue takes {self.frame(e, w.request)} and answers {said(ack)}", False, taken)
        if w.attached and w.pipe and not (self.rules.hold_successor and self._older_open(s, e)):
            read = with_worker(s, e, w._replace(pipe=w.pipe[1:]))
            if w.pipe[0] == DAMAGED:
                yield Step("the marker reader counts a damaged line", False, read)
            else:
                after, verdict = self._admit_frame(read, e, w.pipe[:1])
                yield Step(f"the marker reader reads {self.name(e, w.pipe[0])}: {verdict}", False, after)
        if w.life == RUNNING and w.attached and w.mode == STDOUT and w.stdin is None:
            ack = self._ack(s, e)
            if ack[0] > w.durable or ack[1]:
                told = with_worker(self._told(s, e), e, w._replace(stdin=ack))
                yield Step(f"the supervisor writes {said(ack)} to e{e}'s stdin", False, told)

    def _ack(self, s: State, e: int) -> Ack:
        critical, seq = s.supervisor.marks[e]
        gap = s.supervisor.gaps[e]
        return (self.table(s.journal)[e].seq if self.rules.trim_on_durable else seq, gap, critical if gap else 0)

    def _told(self, s: State, e: int) -> State:
        """A Gap is told once; if that is lost, the feeder's timer is there."""
        sup = s.supervisor
        return s._replace(supervisor=sup._replace(gaps=put(sup.gaps, e, False))) if sup.gaps[e] else s

    # -- the supervisor: pump, sequencer, journal, hub

    def _pump(self, s: State) -> Iterator[Step]:
        sup = s.supervisor
        if sup.inbox:
            yield from self._take(s, *sup.inbox[0])
        if sup.held and not self._older_open(s, sup.held[0][0]):
            e, seqs = sup.held[0]
            after, verdict = self._admit_frame(s._replace(supervisor=sup._replace(held=sup.held[1:])), e, seqs)
            yield Step(f"the sequencer lets the held {self.frame(e, seqs)} in: {verdict}", False, after)
        if sup.pending:
            yield Step(f"the journal commits {self.listed(sup.pending)}", False, self._commit(s))
        if not self.rules.same_transaction and s.journal.folded < len(s.journal.rows):
            follows = s._replace(journal=s.journal._replace(folded=len(s.journal.rows)))
            yield Step("the table follows", False, follows)
        if self.config.faults.power_losses and s.journal.synced < len(s.journal.rows):
            synced = s._replace(journal=s.journal._replace(synced=len(s.journal.rows)))
            yield Step("the journal is synced to the disk", False, synced)
        if self.config.viewer and self.rules.show_from_journal:
            for e, seq in journaled(s.journal)[len(s.client.view) :][:1]:
                shown = s._replace(client=s.client._replace(view=(*s.client.view, (e, seq))))
                yield Step(f"the hub shows {self.name(e, seq)}", False, shown)
        if not sup.queue_ok:
            served = s._replace(supervisor=sup._replace(queue_ok=True))
            yield Step("the queue is served again, at a new address", False, served)

    def _take(self, s: State, e: int, seqs: Seqs) -> Iterator[Step]:
        """The pump takes the frame at the inbox's head: to the sequencer, or to the successor's waiting room."""
        sup = s.supervisor._replace(inbox=s.supervisor.inbox[1:])
        if self.rules.hold_successor and self._older_open(s, e):
            if not self.rules.hold_aside:
                return
            if len(sup.held) < self.config.door:
                held = s._replace(supervisor=sup._replace(held=(*sup.held, (e, seqs))))
                yield Step(f"the sequencer holds {self.frame(e, seqs)}: the older epoch is not closed", False, held)
            else:
                refused = s._replace(supervisor=sup._replace(gaps=put(sup.gaps, e, True)))
                yield Step(f"no room to hold {self.frame(e, seqs)}: Gap", False, refused)
        elif all(frame[0] != e for frame in sup.held):  # those first
            after, verdict = self._admit_frame(s._replace(supervisor=sup), e, seqs)
            yield Step(f"the sequencer reads {self.frame(e, seqs)}: {verdict}", False, after)

    def _admit_frame(self, s: State, e: int, seqs: Seqs) -> tuple[State, str]:
        """Judge a frame's events one by one; the first that comes too early ends it."""
        sup = s.supervisor
        if not sup.known[e] or (self.rules.closed_is_final and self.table(s.journal)[e].closed):
            return s, "refused, not an open epoch"
        if sup.stages[e] != OPEN and not self.rules.drained_counts:
            return s, "refused, fenced"
        mark, gap, late = sup.marks[e], False, sup.late[e]
        accepted: list[int] = []
        for seq in seqs:
            verdict, mark = self._admit(mark, e, seq)
            stored = (EVENT, e, seq) in s.journal.rows + sup.pending
            if verdict == "accepted" or (verdict == "late" and not stored and not self.rules.late_progress_refused):
                accepted.append(seq)
            elif verdict == "gap":
                gap = True
                break
            elif verdict == "duplicate":
                gap = gap or (seq in self.criticals[e] and not self.rules.duplicate_is_no_gap)
            elif not self.rules.count_by_seq:
                late += 1
        if accepted and not self.rules.cut_overlap:
            accepted = list(seqs)
        events = tuple((e, seq) for seq in accepted)
        judged = sup._replace(
            marks=put(sup.marks, e, mark),
            gaps=put(sup.gaps, e, gap or sup.gaps[e]),
            late=put(sup.late, e, late),
            pending=sup.pending + tuple((EVENT, e, seq) for seq in accepted),
        )
        after = s._replace(supervisor=judged)
        if self.config.viewer and not self.rules.show_after_commit:
            after = after._replace(client=s.client._replace(view=s.client.view + events))
        says = f"accepts {self.frame(e, tuple(accepted))}" if accepted else "nothing new"
        return after, says + (", Gap" if gap else "")

    def _admit(self, mark: Mark, e: int, seq: int) -> tuple[str, Mark]:
        """The sequencer's judgement of one event, and its marks after it."""
        critical, last = mark
        prev = self.prev[e][seq]
        if seq in self.criticals[e]:
            if seq <= (critical if self.rules.two_marks else last):
                return "duplicate", mark
            if prev != critical and self.rules.prev_check:
                return "gap", mark
            return "accepted", (seq, max(seq, last))
        if prev < critical:
            return "late", mark
        if seq <= last and self.rules.progress_checks_seq:
            return "duplicate", mark
        if prev > critical and self.rules.progress_checks_prev:
            return "gap", mark
        return "accepted", (critical, seq)

    def _commit(self, s: State) -> State:
        sup = s.supervisor
        journal = s.journal._replace(rows=s.journal.rows + sup.pending)
        after = s._replace(supervisor=sup._replace(pending=()), journal=journal)
        if self.config.viewer and not self.rules.show_from_journal:
            batch = tuple((e, seq) for what, e, seq in sup.pending if what == EVENT)
            after = after._replace(client=s.client._replace(view=s.client.view + batch))
        return self._seen(after)

    def _seen(self, s: State) -> State:
        """Where power can be lost, everything is shown at its commit: that is the worst case."""
        if not self.config.faults.power_losses:
            return s
        events = journaled(s.journal)
        return s._replace(client=Client(events, s.client.seen | frozenset(events)))

    # -- the supervisor: starts

    def _start(self, s: State) -> State:
        """A new supervisor reads the journal, the history and the names of the spool folders."""
        table = self.table(s.journal)
        known = tuple(
            table[e].opened
            or s.spools[e].folder == PRESENT
            or (s.workers[e].finished > 0 and self.rules.known_from_history)
            for e in self.epochs
        )
        stages = tuple(CLOSED if entry.closed else OPEN for entry in table)
        started = s._replace(supervisor=Supervisor(up=True, marks=self._marks(s.journal), known=known, stages=stages))
        if s.left.power_losses < self.config.faults.power_losses and self.rules.new_store_id:
            started = started._replace(client=s.client._replace(view=()))
        return started

    def _successor(self, s: State) -> Iterator[Step]:
        """The next epoch, once the last one's process is dead or another supervisor's."""
        for e in self.epochs:
            if s.workers[e].life == ABSENT:
                older = s.workers[e - 1] if e else None
                if older is None or older.life == DEAD or not older.attached:
                    yield Step(f"the supervisor opens e{e} and assigns it to a worker", False, self._open(s, e))
                return

    def _open(self, s: State, e: int) -> State:
        """Epoch from the counter, opened row, folder, assignment, in this order; a crash in between changes nothing."""
        traces = any(row[1] < e for row in s.journal.rows) or any(spool.folder == PRESENT for spool in s.spools[:e])
        worker = Worker(
            life=STARTING if self.config.slow_start else RUNNING,
            mode=SPOOL if self.config.slow_start else self.config.modes[0],
            agent=not self.rules.lock_not_inherited,
            reused=e > 0 and not traces and not self.rules.fsynced_counter,
        )
        sup = s.supervisor._replace(known=put(s.supervisor.known, e, True))
        opened = with_worker(s, e, worker)._replace(supervisor=sup)
        if self.rules.opened_first:
            opened = opened._replace(journal=s.journal._replace(rows=(*s.journal.rows, (OPENED_ROW, e, 0))))
        if self.rules.opened_first or not self.config.slow_start:
            opened = opened._replace(spools=put(s.spools, e, Spool(folder=PRESENT)))
        return opened

    # -- the supervisor: closing an epoch

    def _closing(self, s: State, e: int) -> Iterator[Step]:
        if not s.supervisor.known[e]:
            return
        stage, spool = s.supervisor.stages[e], s.spools[e]
        if stage == OPEN:
            yield from self._fence(s, e)
        elif stage == FENCED and self._drained(s, e):
            yield from self._salvage(s, e)
        elif stage == SALVAGED and self._settled(s, e):
            yield Step(f"the journal commits: e{e} closed", False, self._commit_closed(s, e))
        removable = stage == CLOSED or (stage == SALVAGED and not self.rules.closed_before_removal)
        in_use = s.workers[e].life == RUNNING and self.rules.salvage_needs_lock
        if removable and spool.folder == PRESENT and not in_use:
            removed = s._replace(spools=put(s.spools, e, Spool(folder=REMOVED)))
            yield Step(f"the supervisor removes e{e}'s folder", False, removed)

    def _fence(self, s: State, e: int) -> Iterator[Step]:
        """Our own child is reaped; of another supervisor's, only the lock tells whether it still lives."""
        w, sup = s.workers[e], s.supervisor
        pending = sup.pending + (() if self.rules.finish_after_salvage else self._unreported_finish(s, e))
        fenced = s._replace(supervisor=sup._replace(stages=put(sup.stages, e, FENCED), pending=pending))
        if w.attached:
            if w.life == DEAD and (self.rules.closing_waits_for_process_only or not w.stuck):
                reaped = w._replace(agent=False, pipe=w.pipe if self.rules.drain_first else ())
                yield Step(f"the supervisor reaps e{e} and fences it", False, with_worker(fenced, e, reaped))
            elif w.stopped:
                yield Step(f"the supervisor kills the hung e{e}", False, with_worker(s, e, dead(w)))
            return
        if w.life == RUNNING and w.stopped and self.rules.kill_holder:
            yield Step(f"the supervisor kills e{e}, which still holds its lock", False, with_worker(s, e, dead(w)))
        if w.life != RUNNING and not w.agent:
            yield Step(f"the supervisor has e{e}'s lock", False, fenced)
        elif not self.rules.salvage_needs_lock:
            yield Step(f"the supervisor does not wait for e{e}'s lock", False, fenced)

    def _drained(self, s: State, e: int) -> bool:
        """Whether salvage may begin; a pipe is drained when it is empty, whoever still has its other end."""
        if self.rules.ascending and self._older_open(s, e):
            return False
        if s.workers[e].attached and s.workers[e].pipe:
            return False
        return not self.rules.drain_first or all(frame[0] != e for frame in s.supervisor.inbox + s.supervisor.held)

    def _salvage(self, s: State, e: int) -> Iterator[Step]:
        """Read the spool through the sequencer. A gap here is final: nobody is left to send again."""
        w, spool, sup = s.workers[e], s.spools[e], s.supervisor
        mark = sup.marks[e] if self.rules.salvage_through_sequencer else self._marks(s.journal)[e]
        end = min(w.given, spool.end if spool.folder == PRESENT and self.rules.salvage else 0)
        if spool.torn and not self.rules.salvage_cuts_torn_records:
            end = min(end, spool.torn - 1)
        rows: list[Row] = []
        for seq in self.criticals[e]:
            if not spool.trimmed < seq <= end or seq == w.refused:
                continue
            verdict, after = self._admit(mark, e, seq)
            if verdict == "gap":
                if not self.rules.salvage_skips_gaps:
                    return  # for ever
                rows.append((LOSS_ROW, e, seq))
                verdict, after = "accepted", (seq, max(seq, mark[1]))
            if verdict == "accepted":
                rows.append((EVENT, e, seq))
                mark = after
        salvaged = sup._replace(
            stages=put(sup.stages, e, SALVAGED),
            marks=put(sup.marks, e, mark),
            pending=sup.pending + tuple(rows),
        )
        says = f"salvage of e{e}'s spool finds {self.listed(tuple(rows)) or 'nothing new'}"
        yield Step(says if self.rules.salvage else f"e{e}'s spool is not read", False, s._replace(supervisor=salvaged))

    def _settled(self, s: State, e: int) -> bool:
        """Whether all that was salvaged is committed."""
        if any(row[1] == e for row in s.supervisor.pending):
            return False
        return self.rules.same_transaction or s.journal.folded == len(s.journal.rows)

    def _commit_closed(self, s: State, e: int) -> State:
        """One transaction: the event that a finish record lacks, how many events were missed in all, and closed."""
        w, sup = s.workers[e], s.supervisor
        entry = self.table(s.journal)[e]
        extra = self._unreported_finish(s, e) if self.rules.finish_after_salvage else ()
        last = w.given if self.rules.last_seq_survives else sup.marks[e][1]
        holes = entry.missed + max(last - entry.seq, 0)
        missed = holes if self.rules.count_by_seq else sup.late[e] + w.coalesced
        rows = (*s.journal.rows, *extra, (CLOSED_ROW, e, missed))
        closed = s._replace(
            journal=s.journal._replace(rows=rows, forgotten=put(s.journal.forgotten, e, False)),
            supervisor=sup._replace(stages=put(sup.stages, e, CLOSED)),
        )
        return self._seen(closed)

    def _unreported_finish(self, s: State, e: int) -> tuple[Row, ...]:
        row = (EVENT, e, s.workers[e].finished)
        return (row,) if row[2] and row not in s.journal.rows + s.supervisor.pending else ()

    # -- faults

    def _faults(self, s: State) -> Iterator[Step]:
        left, sup = s.left, s.supervisor
        if left.worker_kills:
            for e in self.epochs:
                if s.workers[e].life in (STARTING, RUNNING):
                    yield from self._kill_worker(s, e)
        if left.supervisor_kills and sup.up:
            yield Step("the supervisor is killed", True, spend(orphaned(s), "supervisor_kills"))
        if left.power_losses:
            yield from self._lose_power(s)
        if not sup.up:
            return
        if sup.ghosts and len(sup.inbox) < self.config.inbox:
            arrived = sup._replace(ghosts=sup.ghosts[1:], inbox=(*sup.inbox, sup.ghosts[0]))
            yield Step(f"the ghost {self.frame(*sup.ghosts[0])} arrives", True, s._replace(supervisor=arrived))
        if left.cuts and sup.queue_ok:
            yield Step("the queue server breaks", True, spend(self._cut(s), "cuts"))
        if left.failed_commits and sup.pending:
            says = f"the commit of {self.listed(sup.pending)} fails"
            yield Step(says, True, spend(self._fail_commit(s), "failed_commits"))
            stored = self._seen(s._replace(journal=s.journal._replace(rows=s.journal.rows + sup.pending)))
            yield Step(f"{says}, but it is stored", True, spend(self._fail_commit(stored), "failed_commits"))
        for e in self.epochs:
            yield from self._trouble(s, e)
            if left.retentions and not self.rules.table_kept and self.table(s.journal)[e].closed:
                journal = s.journal._replace(forgotten=put(s.journal.forgotten, e, True))
                yield Step(f"retention forgets e{e}", True, spend(s._replace(journal=journal), "retentions"))

    def _trouble(self, s: State, e: int) -> Iterator[Step]:
        """What may befall one worker short of death."""
        w, left = s.workers[e], s.left
        if left.damages and w.attached:
            for i, line in enumerate(w.pipe):
                if line != DAMAGED:
                    damaged = with_worker(s, e, w._replace(pipe=put(w.pipe, i, DAMAGED)))
                    yield Step(f"the line {self.name(e, line)} is damaged", True, spend(damaged, "damages"))
        if w.life != RUNNING or w.stopped:
            return
        if left.switches and w.attached and w.mode != SPOOL:
            for mode in self.config.modes:
                says = f"switches from {w.mode} to {mode}" if mode != w.mode else "times out too early and sends again"
                yield Step(f"feeder e{e} {says}", True, spend(self._switch(s, e, mode), "switches"))
        if left.drops and len(w.progress) > 1:
            dropped = with_worker(s, e, w._replace(progress=w.progress[1:]))
            yield Step(f"feeder e{e} drops {self.name(e, w.progress[0])}", True, spend(dropped, "drops"))
        if left.stops:
            stopped = with_worker(s, e, w._replace(stopped=True))
            yield Step(f"worker e{e} is stopped (SIGSTOP)", True, spend(stopped, "stops"))
        if left.stuck and not w.stuck:
            stuck = with_worker(s, e, w._replace(stuck=True))
            yield Step(f"an agent of e{e} becomes unkillable", True, spend(stuck, "stuck"))

    def _kill_worker(self, s: State, e: int) -> Iterator[Step]:
        w = s.workers[e]
        killed = with_worker(s, e, dead(w))._replace(supervisor=self._haunted(s.supervisor, e, w.request))
        killed = spend(killed, "worker_kills")
        yield Step(f"worker e{e} is killed", True, killed)
        if w.mode == STDOUT and w.pipe and w.pipe[-1] != DAMAGED:
            torn_line = with_worker(killed, e, dead(w)._replace(pipe=(*w.pipe[:-1], DAMAGED)))
            yield Step(f"worker e{e} is killed while it writes the line {self.name(e, w.pipe[-1])}", True, torn_line)
        if self.config.torn and w.life == RUNNING and w.given + 1 in self.criticals[e]:
            torn = killed._replace(spools=put(s.spools, e, s.spools[e]._replace(torn=w.given + 1)))
            yield Step(f"worker e{e} is killed in the middle of a spool record", True, torn)

    def _cut(self, s: State) -> State:
        """Replies are lost, requests may still arrive; the next connection is a switch like any other."""
        sup = s.supervisor._replace(queue_ok=False)
        workers = s.workers
        for e in self.epochs:
            w = workers[e]
            if w.life == RUNNING and w.attached and w.mode == QUEUE:
                sup = self._haunted(sup, e, w.request)
                sent = w.durable if self.rules.resend_on_switch else w.sent
                workers = put(workers, e, w._replace(request=(), reply=None, sent=sent))
        return s._replace(workers=workers, supervisor=sup)

    def _fail_commit(self, s: State) -> State:
        """The sequencer, and a salvage in progress, go back to where the table says they are."""
        sup = s.supervisor
        if not self.rules.reread_on_failed_commit:
            return s
        hit = {row[1] for row in sup.pending}
        gaps = tuple(gap or e in hit for e, gap in enumerate(sup.gaps))
        after = sup._replace(pending=(), gaps=gaps)
        if self.rules.reset_on_failed_commit:
            stages = tuple(FENCED if stage == SALVAGED and e in hit else stage for e, stage in enumerate(sup.stages))
            after = after._replace(marks=self._marks(s.journal), stages=stages)
        return s._replace(supervisor=after)

    def _lose_power(self, s: State) -> Iterator[Step]:
        """All processes die; each file falls back to any state since it was last synced."""
        dark = spend(orphaned(s), "power_losses")
        workers = tuple(
            dead(w)._replace(excused=True, agent=False, stuck=False) if w.life != ABSENT else w for w in dark.workers
        )
        for rows in range(s.journal.synced, len(s.journal.rows) + 1):
            journal = s.journal._replace(rows=s.journal.rows[:rows], synced=rows)
            for spools in self._fallen_back(s):
                after = dark._replace(workers=workers, journal=journal, spools=spools)
                found = " ".join(f"e{e} {remains(spools[e])}" for e in self.epochs if spools[e].folder != MISSING)
                lost = len(s.journal.rows) - rows
                yield Step(f"power is lost, and with it {lost} rows; spools after it: {found}", True, after)

    def _fallen_back(self, s: State) -> Iterator[tuple[Spool, ...]]:
        choices: list[list[Spool]] = []
        for e in self.epochs:
            spool = s.spools[e]
            ends = (0, *(c for c in self.criticals[e] if c <= s.workers[e].given))
            starts = [c for c in ends if c <= spool.trimmed or spool.folder == REMOVED]
            kept = [Spool(PRESENT, start, end) for start in starts for end in ends if end > start or not end]
            choices.append([spool] if spool.folder == MISSING else [Spool(folder=REMOVED), *kept])
        combined: list[tuple[Spool, ...]] = [()]
        for choice in choices:
            combined = [(*some, one) for some in combined for one in choice]
        yield from combined

    # -- what must be true

    def broken(self, s: State) -> str | None:
        """The first property that a state breaks, in words; None if all is well."""
        rows = s.journal.rows
        if rows not in self._verdicts:
            self._verdicts[rows] = self._misordered(rows)
        return self._verdicts[rows] or self._lost(s) or self._miscounted(s) or self._misshown(s) or self._waiting(s)

    def _misordered(self, rows: tuple[Row, ...]) -> str | None:
        stored: list[tuple[int, int]] = []
        for what, e, seq in rows:
            if what == LOSS_ROW and not self.config.faults.power_losses:
                return f"P1: a loss before {self.name(e, seq)} is reported, and nothing was lost"
            if what != EVENT:
                continue
            if (e, seq) in stored:
                return f"P1: {self.name(e, seq)} is in the journal twice"
            if stored and (e, seq) < stored[-1]:
                property_ = "P3" if e == stored[-1][0] and seq not in self.criticals[e] else "P2"
                return f"{property_}: {self.name(e, seq)} is stored after {self.name(*stored[-1])}"
            stored.append((e, seq))
        return None

    def _lost(self, s: State) -> str | None:
        for e in self.epochs:
            w, spool = s.workers[e], s.spools[e]
            for seq in self.criticals[e] if w.given and not w.excused else ():
                if seq > w.given or seq == w.refused or (EVENT, e, seq) in s.journal.rows:
                    continue
                if any(what == CLOSED_ROW and of == e for what, of, _ in s.journal.rows):
                    return f"P1: {self.name(e, seq)} is lost, its epoch was closed without it"
                if spool.folder != PRESENT or seq <= spool.trimmed:
                    return f"P1: {self.name(e, seq)} is lost, neither journal nor spool has it"
        return None

    def _miscounted(self, s: State) -> str | None:
        for what, e, missed in s.journal.rows:
            if what == CLOSED_ROW and not s.workers[e].excused:
                given = s.workers[e].given
                stored = sum(1 for row in s.journal.rows if row[0] == EVENT and row[1] == e and row[2] <= given)
                if stored + missed != given:
                    return f"P4: e{e} gave {given} events, {stored} are stored, {missed} counted as missed"
        return None

    def _misshown(self, s: State) -> str | None:
        if not (self.config.viewer or self.config.faults.power_losses):
            return None
        events = journaled(s.journal)
        view = s.client.view
        if s.supervisor.up and events[: len(view)] != view:
            names = [" ".join(self.name(e, seq) for e, seq in these) or "nothing" for these in (view, events)]
            return f"P5: shown from cursor 0 on: {names[0]}; journaled there: {names[1]}"
        for e, seq in events:
            if s.workers[e].reused and (e - 1, seq) in s.client.seen:
                return f"P1: (epoch {e - 1}, seq {seq}) was shown before power was lost, and now names another event"
        return None

    def _waiting(self, s: State) -> str | None:
        for e in self.epochs:
            w = s.workers[e]
            more = w.given < len(self.config.programs[e])
            if w.life == RUNNING and not w.stopped and more and self._emit_waits(s, e):
                return f"P6: emit in e{e} waits for the feeder"
        return None

    def unfinished(self, s: State) -> str | None:
        """What there is still to do; None when all has come to rest."""
        sup = s.supervisor
        if not sup.up or not sup.queue_ok:
            return "supervisor or queue server is down"
        if sup.inbox or sup.held or sup.pending:
            return "frames wait in the supervisor"
        if self.config.viewer and len(s.client.view) < len(journaled(s.journal)):
            return "something is not shown"
        table = self.table(s.journal)
        for e in self.epochs:
            w = s.workers[e]
            if w.life == ABSENT:
                if e == 0 or s.workers[e - 1].life == DEAD or not s.workers[e - 1].attached:
                    return f"e{e} is not opened"
            elif w.life == RUNNING and w.attached and not w.stopped:
                if w.given < len(self.config.programs[e]) or w.request or w.reply or w.pipe:
                    return f"e{e} is at work"
                if not w.given == table[e].seq == w.durable:
                    return f"e{e} gave {w.given} events, {table[e].seq} are durable and {w.durable} known to be"
            elif w.life != DEAD:
                return f"e{e} is {'stopped' if w.stopped else w.life}"
            elif sup.known[e] and not table[e].closed:
                return f"e{e} is not closed"
            elif sup.known[e] and s.spools[e].folder == PRESENT:
                return f"e{e}'s folder is still there"
        return None

    def disappointing(self, s: State) -> str | None:
        """What is wrong with a finished state, and could not be called wrong before."""
        for e in self.epochs:
            w, entry = s.workers[e], self.table(s.journal)[e]
            if w.finished and (EVENT, e, w.finished) not in s.journal.rows and w.life == DEAD:
                return f"P1: no event is about e{e}'s finish record"
            for seq in self.criticals[e]:
                if seq <= w.given and seq != w.refused and not w.excused and (EVENT, e, seq) not in s.journal.rows:
                    return f"P1: {self.name(e, seq)} lies in a spool that nobody knows of"
            missed = entry.missed if self.rules.count_by_seq else s.supervisor.late[e] + w.coalesced
            stored = sum(1 for row in s.journal.rows if row[0] == EVENT and row[1] == e)
            if w.life == RUNNING and stored + missed != w.given - (w.refused > 0):
                return f"P4: e{e} gave {w.given} events, {stored} are stored, {missed} counted as missed"
        return None


# --- small moves ------------------------------------------------------------------------------------------------------


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    """The tuple with one item replaced."""
    return (*items[:index], item, *items[index + 1 :])


def with_worker(s: State, e: int, worker: Worker) -> State:
    """The state with one worker replaced."""
    return s._replace(workers=put(s.workers, e, worker))


def deaf(w: Worker) -> Worker:
    """A feeder that is gone, or has nobody to talk to."""
    return w._replace(progress=(), mode=SPOOL, sent=0, durable=0, request=(), reply=None, stdin=None)


def dead(w: Worker) -> Worker:
    """What is left of a killed worker: what it has done, and its lines in the pipe."""
    return deaf(w)._replace(life=DEAD, stopped=False)


def orphaned(s: State) -> State:
    """The supervisor is gone, with its memory, its ends of the pipes and its sockets."""
    workers = tuple(w if w.life == ABSENT else deaf(w)._replace(attached=False, pipe=()) for w in s.workers)
    return s._replace(workers=workers, supervisor=Supervisor())


def spend(s: State, fault: str) -> State:
    """One fault of this kind fewer to come."""
    return s._replace(left=s.left._replace(**{fault: getattr(s.left, fault) - 1}))


def journaled(journal: Journal) -> tuple[tuple[int, int], ...]:
    """The events in the journal; their place is their cursor."""
    return tuple((e, seq) for what, e, seq in journal.rows if what == EVENT)


def said(ack: Ack) -> str:
    """An ack as people read it."""
    return f"durable={ack[0]}" + (f", Gap after {ack[2]}" if ack[1] else "")


def remains(spool: Spool) -> str:
    """What power loss has left of a folder."""
    return f"({spool.trimmed}, {spool.end}]" if spool.folder == PRESENT else "gone"


# --- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run found."""

    states: int
    steps: int
    seconds: float
    broken: str | None
    trace: tuple[str, ...]


class Search:
    """Breadth first, so that a counterexample is a shortest one; then backwards from the finished states, for P7."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.states: list[State] = []
        self.came: list[tuple[int, str]] = []
        self.before: list[list[int]] = []  # by a step that is no fault
        self.finished: list[int] = []
        self.steps = 0

    def run(self) -> Result:
        """Explore everything, or stop at the first state that breaks a property."""
        began = time.perf_counter()
        broken, at = self._forward()
        if broken is None:
            broken, at = self._backward()
        return Result(
            states=len(self.states),
            steps=self.steps,
            seconds=time.perf_counter() - began,
            broken=broken,
            trace=self._trace(at) if broken else (),
        )

    def _forward(self) -> tuple[str | None, int]:
        first = self.model.initial()
        ids = {first: 0}
        self.states, self.came, self.before = [first], [(0, "")], [[]]
        todo = deque([0])
        while todo:
            here = todo.popleft()
            for says, fault, state in self.model.steps(self.states[here]):
                self.steps += 1
                there = ids.get(state)
                if there is None:
                    there = ids[state] = len(self.states)
                    self.states.append(state)
                    self.came.append((here, says))
                    self.before.append([])
                    broken = self._judge(there)
                    if broken:
                        return broken, there
                    todo.append(there)
                if not fault:
                    self.before[there].append(here)
        return None, 0

    def _judge(self, at: int) -> str | None:
        state = self.states[at]
        broken = self.model.broken(state)
        if broken is None and self.model.unfinished(state) is None:
            self.finished.append(at)
            broken = self.model.disappointing(state)
        return broken

    def _backward(self) -> tuple[str | None, int]:
        """Look for a state from which no finished one can be reached; rather one where nothing moves any more."""
        alive = bytearray(len(self.states))
        todo = list(self.finished)
        for at in todo:
            alive[at] = 1
        while todo:
            for at in self.before[todo.pop()]:
                if not alive[at]:
                    alive[at] = 1
                    todo.append(at)
        hopeless = [at for at in range(len(self.states)) if not alive[at]]
        for at in hopeless:
            state = self.states[at]
            if all(step.fault or step.state == state for step in self.model.steps(state)):
                return f"P7: nothing moves any more, and {self.model.unfinished(state)}", at
        if hopeless:
            return f"P7: it goes on for ever, and {self.model.unfinished(self.states[hopeless[0]])}", hopeless[0]
        return None, 0

    def _trace(self, at: int) -> tuple[str, ...]:
        says: list[str] = []
        while at:
            at, word = self.came[at]
            says.append(word)
        return tuple(reversed(says))


# --- the runs ---------------------------------------------------------------------------------------------------------

BOTH = (QUEUE, STDOUT)
ANY = (QUEUE, STDOUT, SPOOL)


def whole(name: str, *programs: str, **options: Any) -> Config:
    """A run that keeps all the rules."""
    return Config(name=name, programs=programs, **options)


def without(rules: str, expect: str, *programs: str, **options: Any) -> Config:
    """A run without some rules, which must break one of the properties named, or hold where none is."""
    bent = replace(Rules(), **dict.fromkeys(rules.split(), False))
    options.setdefault("name", " and ".join(rules.split()) + " off")
    return Config(programs=programs, rules=bent, expect=tuple(expect.split()), **options)


HOLDS = (
    whole("queue: two workers killed, ghosts", "CPC", "CP", faults=Faults(worker_kills=2)),
    whole("queue: a kill, a time-out too early", "CPC", "C", faults=Faults(worker_kills=1, switches=1)),
    whole(
        "stdout: a kill, torn line or record, short write, damage",
        "CPC",
        "C",
        modes=(STDOUT,),
        torn=True,
        faults=Faults(worker_kills=1, damages=1, short_writes=1),
    ),
    whole("three switches, both ways", "CP", modes=BOTH, faults=Faults(switches=3)),
    whole("two switches, spool-only among them", "CPC", modes=ANY, faults=Faults(switches=2)),
    whole("the queue breaks, one switch", "CPC", modes=BOTH, faults=Faults(cuts=1, switches=1)),
    whole("the queue breaks, a kill", "CP", "C", modes=BOTH, faults=Faults(cuts=1, worker_kills=1)),
    whole("one switch, a kill", "CPC", "C", modes=BOTH, faults=Faults(switches=1, worker_kills=1)),
    whole("more of the successor's events than room to hold", "CC", "CCC", inbox=2, faults=Faults(worker_kills=1)),
    whole("supervisor and worker killed", "CPC", "CP", faults=Faults(supervisor_kills=1, worker_kills=1)),
    whole("the same, one switch", "CP", "C", modes=BOTH, faults=Faults(supervisor_kills=1, worker_kills=1, switches=1)),
    whole(
        "supervisor twice, worker once, slow starts",
        "CC",
        "CC",
        slow_start=True,
        faults=Faults(supervisor_kills=2, worker_kills=1),
    ),
    whole(
        "supervisor killed, worker stopped, agent unkillable",
        "CC",
        "C",
        faults=Faults(supervisor_kills=1, stops=1, stuck=1),
    ),
    whole(
        "finish records, supervisor and worker killed", "CF", "CF", faults=Faults(supervisor_kills=1, worker_kills=1)
    ),
    whole("two commits fail, a kill", "CPC", "C", faults=Faults(failed_commits=2, worker_kills=1)),
    whole("a commit fails, one switch", "CPC", modes=BOTH, faults=Faults(failed_commits=1, switches=1)),
    whole("coalescing, memory short, the queue breaks", "PCPPC", faults=Faults(drops=1, cuts=1)),
    whole(
        "a client watches: supervisor killed, a commit fails",
        "CPC",
        "C",
        viewer=True,
        faults=Faults(supervisor_kills=1, failed_commits=1),
    ),
    whole("power lost", "CPC", "C", faults=Faults(power_losses=1)),
    whole("power lost, a kill, a finish record", "CC", "F", faults=Faults(power_losses=1, worker_kills=1)),
)

CAUGHT = (
    without("prev_check", "P1", "CC", modes=(STDOUT,), faults=Faults(damages=1)),
    without("progress_checks_prev", "P1", "CP", modes=(STDOUT,), faults=Faults(damages=1)),
    without("progress_checks_seq", "P1", "CP", modes=BOTH, faults=Faults(switches=1)),
    without("late_progress_refused", "P3", "PPC", faults=Faults(switches=1)),
    without("two_marks", "P1", "CPC", "C", faults=Faults(supervisor_kills=1)),
    without("two_marks", "P7", "CPC", faults=Faults(failed_commits=1)),
    without("cut_overlap", "P1", "CC", modes=BOTH, faults=Faults(switches=1)),
    without("closed_is_final", "P4", "CP", "C", faults=Faults(worker_kills=1)),
    without("hold_successor", "P2", "C", "C", faults=Faults(worker_kills=1)),
    without("hold_aside", "P7", "C", "C", inbox=2, faults=Faults(worker_kills=1)),
    without("count_by_seq", "P4", "PPC", faults=Faults(cuts=1)),
    without("trim_on_durable", "P1", "C", "C", faults=Faults(supervisor_kills=1)),
    without("same_transaction", "P1", "C", "C", faults=Faults(supervisor_kills=1)),
    without("table_kept", "P1", "C", "C", faults=Faults(worker_kills=1, supervisor_kills=1, retentions=1)),
    without("reset_on_failed_commit", "P1", "CC", faults=Faults(failed_commits=1)),
    without("reread_on_failed_commit", "P1", "C", faults=Faults(failed_commits=1)),
    without("show_after_commit", "P5", "C", "C", viewer=True, faults=Faults(supervisor_kills=1)),
    without("show_from_journal", "P5", "CC", viewer=True, faults=Faults(failed_commits=1)),
    without("new_store_id", "P5", "C", "C", faults=Faults(power_losses=1)),
    without("emit_takes_no_io_lock", "P6", "CC"),
    without("refusal_takes_no_seq", "P7", "CC", faults=Faults(refusals=1)),
    without("progress_until_durable", "P7", "P", modes=(STDOUT,), faults=Faults(damages=1)),
    without("resend_on_switch resend_timer", "P7", "C", modes=BOTH, faults=Faults(cuts=1)),
    without("resend_timer", "P7", "C", modes=(STDOUT,), faults=Faults(damages=1)),
    without("poll", "P7", "C"),
    without("fsynced_counter", "P1", "C", "C", faults=Faults(power_losses=1)),
    without("opened_first eof_after_lock", "P1", "C", "C", slow_start=True, faults=Faults(supervisor_kills=1)),
    without("eof_after_lock", "P1", "C", "C", slow_start=True, faults=Faults(supervisor_kills=1)),
    without("lock_or_exit eof_after_lock", "P1", "C", "C", slow_start=True, faults=Faults(supervisor_kills=1)),
    without("lock_not_inherited", "P7", "C", "C", faults=Faults(supervisor_kills=1, worker_kills=1)),
    without("kill_holder", "P7", "C", "C", faults=Faults(supervisor_kills=1, stops=1)),
    without("known_from_history", "P1", "F", "C", faults=Faults(power_losses=1, worker_kills=1)),
    without("closing_waits_for_process_only", "P7", "C", "C", faults=Faults(worker_kills=1, stuck=1)),
    without("ascending", "P2", "C", "C", faults=Faults(worker_kills=1, supervisor_kills=1)),
    without("salvage", "P1", "C", "C", faults=Faults(worker_kills=1)),
    without("salvage_needs_lock", "P1", "CC", "C", faults=Faults(supervisor_kills=1)),
    without("salvage_cuts_torn_records", "P1", "CC", "C", faults=Faults(worker_kills=1, short_writes=1)),
    without("salvage_skips_gaps", "P7", "CC", "C", faults=Faults(power_losses=1)),
    without("salvage_through_sequencer", "P1", "C", "C", faults=Faults(worker_kills=1)),
    without("finish_after_salvage", "P1", "F", "C", faults=Faults(worker_kills=1)),
    without("last_seq_survives", "P4", "P", "C", faults=Faults(worker_kills=1)),
    without("closed_before_removal", "P1", "C", "C", faults=Faults(supervisor_kills=2)),
)

SPARED = (
    without("gap_answer", "", "CPC", modes=BOTH, faults=Faults(damages=1, switches=1)),
    without("duplicate_is_no_gap", "", "CPC", modes=BOTH, faults=Faults(damages=1, switches=1)),
    without("resend_on_switch", "", "CPC", modes=BOTH, faults=Faults(cuts=1, switches=1)),
    without("drain_first", "", "CP", "C", modes=BOTH, faults=Faults(worker_kills=1, switches=1)),
    without("drained_counts", "", "CP", "C", modes=BOTH, faults=Faults(worker_kills=1, switches=1)),
    without("opened_first", "", "CC", "C", slow_start=True, faults=Faults(supervisor_kills=2, worker_kills=1)),
    without("lock_or_exit", "", "CC", "C", slow_start=True, faults=Faults(supervisor_kills=2, worker_kills=1)),
    without(
        "gap_answer duplicate_is_no_gap resend_on_switch drain_first drained_counts lock_or_exit",
        "",
        "CP",
        "C",
        modes=BOTH,
        faults=Faults(worker_kills=1, supervisor_kills=1, switches=1),
        name="all of these but opened_first off",
    ),
)

DEEP = (
    whole(
        "two switches, the queue breaks, two ghosts",
        "CPC",
        modes=BOTH,
        ghosts=2,
        inbox=2,
        faults=Faults(switches=2, cuts=1),
    ),
    whole("one switch, two kills", "CPC", "CP", modes=BOTH, faults=Faults(switches=1, worker_kills=2)),
    whole(
        "one switch, the queue breaks, a kill",
        "CPC",
        "C",
        modes=BOTH,
        faults=Faults(switches=1, cuts=1, worker_kills=1),
    ),
    whole(
        "supervisor twice, worker once, one switch",
        "CPC",
        "CP",
        modes=BOTH,
        faults=Faults(supervisor_kills=2, worker_kills=1, switches=1),
    ),
    whole(
        "two commits fail, a kill, one switch",
        "CPC",
        "C",
        modes=BOTH,
        faults=Faults(failed_commits=2, worker_kills=1, switches=1),
    ),
    whole(
        "power lost, supervisor and worker killed",
        "CC",
        "CC",
        faults=Faults(power_losses=1, supervisor_kills=1, worker_kills=1),
    ),
)


def as_expected(result: Result, config: Config) -> bool:
    """Whether a run held, or broke, as it should."""
    return result.broken[:2] in config.expect if result.broken else not config.expect


def line(result: Result, config: Config) -> str:
    """One line of the table."""
    verdict = f"{result.broken} ({len(result.trace)} steps)" if result.broken else "holds"
    surprise = "" if as_expected(result, config) else "   <-- NOT EXPECTED"
    return f"{config.name:<58}{result.states:>10,}{result.steps:>11,}{result.seconds:>7.1f}  {verdict}{surprise}"


def main() -> int:
    """Run what was asked for, print the table, say whether all came out as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs whose name has this text")
    parser.add_argument("--trace", action="store_true", help="print counterexamples step by step")
    parser.add_argument("--deep", action="store_true", help="larger bounds as well (about four minutes and a gigabyte)")
    arguments = parser.parse_args()
    gc.disable()  # nothing here is cyclic, and the states are many
    groups = [("All rules kept: must hold", HOLDS), ("Rules bent: must be caught", CAUGHT)]
    groups += [("Rules that are not needed for safety: must hold without", SPARED)]
    groups += [("Larger bounds, all rules kept", DEEP)] if arguments.deep else []
    surprises = states = 0
    began = time.perf_counter()
    for title, configs in groups:
        print(f"\n{title:<58}{'states':>10}{'steps':>11}{'s':>7}  result")  # noqa: T201
        for config in configs:
            if arguments.only not in config.name:
                continue
            result = Search(Model(config)).run()
            surprises += not as_expected(result, config)
            states += result.states
            print(line(result, config), flush=True)  # noqa: T201
            if result.trace and (arguments.trace or not as_expected(result, config)):
                print("\n".join(f"    {n:2}. {says}" for n, says in enumerate(result.trace, 1)))  # noqa: T201
    print(f"\n{states:,} states in {time.perf_counter() - began:.1f} s; {surprises or 'no'} surprises")  # noqa: T201
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
