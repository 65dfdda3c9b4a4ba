"""Checks the document protocol by trying every interleaving within small bounds; says nothing about speed or bytes.

What is checked is told in words in docs/explanation/documents.md; `docs_store` is built to it, and
tests/docs_store/test_mailbox.py drives the real store along the steps of the crew model.

    python documents_protocol.py            the table: case, states explored, result; exit code 1 on a surprise
    python documents_protocol.py -v         the same, with a counterexample for every violation
    python documents_protocol.py WORD …     only the cases whose name contains one of these words, with counterexamples

Models, on one search:

  crew    history, epochs, claims, finish(), threads and their budget, approvals, the user's ticks and answers,
          doorbells, --until-idle
  view    one Markdown view at file level: editors that save in four styles, the three-way merge, the swap, crashes
  author  who made an edit, when agents and people write in the same folder
  order   a report and an edit by hand in both orders: the transition table by itself

`CrewRules` and `ViewRules` are the protocol as it should be. A case changes one rule (or none) and bounds what the
environment may do. 'design' cases are a literal reading of the page as it was first written, 'mutant' cases leave out a
rule on purpose: both must show a violation, so that the models prove they can fail.

Properties
  D1  a message whose post returned is in the history exactly once, for ever, with all that joined it, and is shown
  D2  a hand-added item is imported exactly once; hand text never vanishes; a hand edit takes effect or is asked about
  D3  what the user never saw is neither closed nor withdrawn by his save
  D4  one epoch at a time works on a message; what is completed is not done again
  D5  a killed cycle leaves nothing half-posted; its redo doubles nothing
  D6  ownership holds for every actor
  D7  views reach the history and then stay still
  D8  --until-idle ends, and never with work left that a phase could do
  D9  a report and a tick give the same result in either order

How termination is checked: what the environment may do (kills, saves, lost bells) is bounded, so an endless run would
repeat a state or grow for ever. The search fails on any cycle, on growth past a bound, and on any state in which the
system has no step left although its goal is not reached.

Time is abstract. Two assumptions stand for it: a save's bytes land within the stability window (A1), and a killed
process is gone in the end (A2). Appending a record is one step: a torn tail is repaired by the next holder of the lock.
A state holds what a replay of the history yields, not the records: two histories with one replay are one state.

Not in here: several documents at once, two reconcilers at once (there is one), failed fsyncs and power loss,
priorities and ageing, pause, items put back by hand.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

# --- The search -------------------------------------------------------------------------------------------------------

State = Any  # hashable; each model has its own


class Step(NamedTuple):
    """One thing that can happen next. The system must be able to finish without any step of the environment."""

    says: str
    after: State
    by_system: bool = True


class Model(Protocol):
    @property
    def endless(self) -> str: ...  # the property that a cycle breaks
    def start(self) -> State: ...
    def steps(self, state: State, /) -> Iterator[Step]: ...
    def wrong(self, state: State, /) -> str: ...  # the property that this state breaks, or nothing
    def wrong_at_rest(self, state: State, /) -> str: ...  # the same, asked where the system has no step left


@dataclass(frozen=True)
class Result:
    states: int
    problem: str = ""
    trace: tuple[str, ...] = ()


def explore(model: Model, most: int = 1_500_000) -> Result:
    """Visit every reachable state, shortest way first, and return the first problem with the steps that lead to it."""
    start = model.start()
    number = {start: 0}
    states = [start]
    came: list[tuple[int, str]] = [(-1, "")]
    following: list[list[int]] = []

    def result(at: int, problem: str, *more: str) -> Result:
        way: list[str] = []
        while at > 0:
            at, says = came[at]
            way.append(says)
        return Result(len(states), problem, (*reversed(way), *more))

    for at, state in enumerate(states):  # the list grows while it is read: breadth first
        if problem := model.wrong(state):
            return result(at, problem)
        if len(states) > most:
            return result(at, "the bounds are too wide for this search")
        following.append([])
        at_rest = True
        for says, after, by_system in model.steps(state):
            at_rest = at_rest and not by_system
            to = number.setdefault(after, len(states))
            if to == len(states):
                states.append(after)
                came.append((at, says))
            following[at].append(to)
        if at_rest and (problem := model.wrong_at_rest(state)):
            return result(at, problem)
    if (turning := on_a_cycle(following)) is not None:
        return result(turning, model.endless, "… and from here round and round")
    return Result(len(states))


def on_a_cycle(following: list[list[int]]) -> int | None:
    """Some state on a cycle. Take away states without a predecessor, again and again; walk back among what is left."""
    before = [0] * len(following)
    for targets in following:
        for to in targets:
            before[to] += 1
    free = [state for state, count in enumerate(before) if not count]
    for state in free:
        for to in following[state]:
            before[to] -= 1
            if not before[to]:
                free.append(to)
    back = {to: state for state, targets in enumerate(following) if before[state] for to in targets}
    met: set[int] = set()
    at = next(iter(back), None)
    while at is not None and at not in met:
        met.add(at)
        at = back[at]
    return at


def put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    return (*items[:at], item, *items[at + 1 :])


# --- The history of messages: what its records mean -------------------------------------------------------------------

OPEN, HELD, DONE, BLOCKED = "open", "held", "done", "blocked"  # held: claimed, and from then on in progress
QUARANTINED, WITHDRAWN = "quarantined", "withdrawn"
PLANNING, DEVELOPER = 0, 1
NAMES = ("Planning", "Developer")


class Message(NamedTuple):
    id: str
    to: int
    thread: str
    status: str = OPEN
    round: int = 0  # how often it was opened again
    parts: int = 1  # itself, and what joined it while it was open
    known: int = 0  # of these the first so many are no work: reported on, or closed by a save that saw no more
    said: int = 0  # of these the first so many were in a report; to check D4
    news: int = 0  # the last part that is an approval or the user's answer, as long as no report was about it
    holder: int = 0  # the epoch that claimed it
    closer: int = 0  # the epoch whose report closed this round
    deaths: int = 0


class Post(NamedTuple):
    id: str
    origin: str  # which post of which round of which task this is in truth; the protocol cannot see it
    thread: str


class History(NamedTuple):
    messages: tuple[Message, ...] = ()
    posts: frozenset[Post] = frozenset()  # of all time: an id is never forgotten
    epochs: tuple[int, ...] = (1, 1)  # the present one of each phase; below 0 once the phase was given up
    finished: frozenset[tuple[str, int]] = frozenset()  # task and round of every report; to check D4
    renewed: tuple[tuple[str, int], ...] = ()  # thread, and how many messages it had when its budget was last renewed
    broken: str = ""

    def message(self, id: str) -> Message:  # noqa: A002
        return next(message for message in self.messages if message.id == id)


@dataclass(frozen=True, kw_only=True)
class CrewRules:
    """The protocol of the crew. The first value of each rule is how it should be."""

    fence: Literal["by epoch", "none"] = "by epoch"
    claims: Literal["live as long as their epoch", "are timed leases"] = "live as long as their epoch"
    handover: Literal["when the old tree is empty", "at once"] = "when the old tree is empty"
    finish: Literal["one record", "posts, then completion"] = "one record"
    ids: Literal["task, round, ordinal", "task, ordinal", "random"] = "task, round, ordinal"
    closing: Literal["what was seen", "everything, by a report", "everything, by a save"] = "what was seen"
    untick: Literal["of the round that was seen", "of any round"] = "of the round that was seen"
    late_report: Literal["keeps its posts", "is dropped"] = "keeps its posts"
    thread: Literal["inherited", "fresh"] = "inherited"
    own_read: Literal["refused", "accepted"] = "refused"
    claiming: Literal["looks under the lock", "looked before"] = "looks under the lock"
    idle: Literal["at the head it looked at", "at the head when sent", "ever"] = "at the head it looked at"
    bell: Literal["everybody", "those concerned"] = "everybody"
    timer: Literal["rings whose idle is old", "none"] = "rings whose idle is old"
    end: Literal["files, then heads", "heads, then files", "heads and the watcher"] = "files, then heads"
    deaths: Literal["seen and not asked for", "every end"] = "seen and not asked for"
    giving_up: Literal["closes the epoch", "leaves it open"] = "closes the epoch"
    quarantine: Literal["with its alert", "alert afterwards"] = "with its alert"
    joins: Literal["count as hops", "are free"] = "count as hops"
    budget: Literal["is renewed", "is never renewed", "is renewed by every report"] = "is renewed"
    approval: Literal["opens what is blocked", "opens nothing", "opens what is quarantined"] = "opens what is blocked"
    late_news: Literal["opens what a report blocks", "waits in it"] = "opens what a report blocks"
    heard: Literal["is no news", "is news again", "is settled"] = "is no news"  # what a report that blocked was about
    opening: Literal["the next round", "the same round"] = "the next round"  # what an answer opens
    most_hops: int = 2  # messages of a thread; 20 in the product
    most_deaths: int = 2  # 3 in the product


def post(
    history: History,
    rules: CrewRules,
    to: int,
    thread: str,
    origin: str,
    ordinal_id: str,
    *,
    approves: bool = False,
) -> History:
    """One message, once: a known id changes nothing; an open task of the same receiver and thread takes it in."""
    id = f"{origin}~{len(history.posts)}" if rules.ids == "random" else ordinal_id  # noqa: A001
    for known in history.posts:
        if known.id == id:
            return history if known.origin == origin else history._replace(broken=f"D1: {origin} swallowed as {id}")
        if known.origin == origin:
            return history._replace(broken=f"D5: {origin} is there twice")
    history = history._replace(posts=history.posts | {Post(id, origin, thread)})
    if approves:
        history = renew(history, thread)
    for message in history.messages:
        if (message.to, message.thread) == (to, thread) and message.status in (OPEN, HELD, BLOCKED):
            parts = message.parts + 1
            history = change(history, message.id, parts=parts, news=parts if approves else message.news)
            if approves and message.status == BLOCKED and rules.approval != "opens nothing":
                history = reopen(history, rules, message.id)
            return history
        same = (message.to, message.thread, message.status) == (to, thread, QUARANTINED)
        if same and approves and rules.approval == "opens what is quarantined":
            return history._replace(
                broken=f"D8: {message.id}, which ended its workers, is open by no word of the user's"
            )
    status = BLOCKED if is_spent(history, rules, thread) else OPEN
    if status == BLOCKED and hops(history, thread) <= rules.most_hops:
        history = history._replace(broken=f"D8: {id} waits for the user, who has said that {thread} may go on")
    messages = tuple(sorted((*history.messages, Message(id, to, thread, status))))  # order of posting does not matter
    return history._replace(messages=messages)


def hops(history: History, thread: str) -> int:
    """All messages of a thread since its budget was renewed, also those that joined another."""
    return sum(known.thread == thread for known in history.posts) - dict(history.renewed).get(thread, 0)


def is_spent(history: History, rules: CrewRules, thread: str) -> bool:
    """Whether the thread's next message, over the budget, waits for the user."""
    if rules.budget == "is never renewed":
        history = history._replace(renewed=())
    return hops(history, thread) > rules.most_hops


def renew(history: History, thread: str) -> History:
    """From here on the thread may go on as long as a new one."""
    now = sum(known.thread == thread for known in history.posts)
    return history._replace(renewed=tuple(sorted({**dict(history.renewed), thread: now}.items())))


def reopen(history: History, rules: CrewRules, id: str, *, anew: bool = False) -> History:  # noqa: A002
    """The next round, with a new budget; all of it is work `anew` only if the user took a tick away."""
    message = history.message(id)
    known = 0 if anew or rules.heard == "is news again" else message.known
    said = 0 if anew else message.said
    round = message.round if rules.opening == "the same round" and not anew else message.round + 1  # noqa: A001
    history = change(history, id, status=OPEN, round=round, known=known, said=said, holder=0, closer=0, deaths=0)
    return renew(history, message.thread)


def change(history: History, id: str, **values: Any) -> History:  # noqa: A002
    at = next(at for at, message in enumerate(history.messages) if message.id == id)
    return history._replace(messages=put(history.messages, at, history.messages[at]._replace(**values)))


def claim(history: History, id: str, epoch: int) -> History:  # noqa: A002
    message = history.message(id)
    if message.status != OPEN:
        return history._replace(broken=f"D4: {id} is claimed although it is {message.status}")
    if any(known.origin.startswith(f"{id}.{message.round}.") for known in history.posts):
        return history._replace(broken=f"D5: {id} is claimed although this round of it has already posted")
    if (id, message.round) in history.finished:
        return history._replace(broken=f"D4: {id} is claimed although this round of it was reported")
    if message.known >= message.parts:
        return history._replace(broken=f"D4: {id} is claimed although nothing of it is work")
    if message.known < message.said:
        return history._replace(broken=f"D4: {id} is claimed with a part that was reported on")
    return change(history, id, status=HELD, holder=epoch)


def close(history: History, rules: CrewRules, id: str, status: str, seen: int, closer: int = 0) -> History:  # noqa: A002
    """Close what the author saw. What joined later stays open, as the next round."""
    message = history.message(id)
    all_of_it = rules.closing == ("everything, by a report" if closer else "everything, by a save")
    if rules.heard == "is settled" and message.known >= message.parts:
        all_of_it = True
    if message.parts > seen and not all_of_it:
        known = max(message.known, seen)
        if not closer:  # a user's save; whoever holds the message goes on with it
            return change(history, id, known=known)
        spent = rules.joins == "count as hops" and is_spent(history, rules, message.thread)
        status = BLOCKED if spent else OPEN
        news = message.news if message.news > known and not spent else 0
        return change(history, id, status=status, round=message.round + 1, known=known, said=seen, news=news, holder=0)
    if message.parts > seen:
        whose = "D1: its report" if closer else "D3: a save"
        history = history._replace(broken=f"{whose} closed {id} with a part that joined unseen")
    return change(history, id, status=status, known=0, said=0, news=0, holder=0, closer=closer)


def block(history: History, rules: CrewRules, id: str, seen: int) -> History:  # noqa: A002
    """The report says that it waits for the user, unless what it waits for has come while it was at work."""
    message = history.message(id)
    known = max(message.known, seen)
    news = message.news if message.news > known else 0
    history = change(history, id, status=BLOCKED, known=known, said=max(message.said, seen), news=news, holder=0)
    if news and rules.late_news == "opens what a report blocks":
        return reopen(history, rules, id)
    return history


def report(
    history: History,
    rules: CrewRules,
    epoch: int,
    id: str,  # noqa: A002
    round: int,  # noqa: A002
    seen: int,
    outcome: str,
    half: str = "both",
) -> History:
    """The finish record. It closes the task only for the claimant; its posts stand in any case."""
    message = history.message(id)
    mine = message.status == HELD and message.round == round and (message.holder == epoch or rules.fence == "none")
    if message.status == DONE and message.round == round and message.closer not in (0, epoch):
        return history._replace(broken=f"D4: {id} was completed by epoch {message.closer} and again by {epoch}")
    history = history._replace(finished=history.finished | {(id, round)})
    if rules.budget == "is renewed by every report":
        history = renew(history, message.thread)
    if outcome in ("tell", "approve") and half != "completion" and (mine or rules.late_report == "keeps its posts"):
        origin, short = f"{id}.{round}.1", f"{id}.1"
        thread = message.thread if rules.thread == "inherited" else origin
        other = 1 - message.to
        known = short if rules.ids == "task, ordinal" else origin
        history = post(history, rules, other, thread, origin, known, approves=outcome == "approve")
    if mine and half != "posts":
        if outcome == "blocked":
            return block(history, rules, id, seen)
        return close(history, rules, id, DONE, seen, closer=epoch)
    return history


def answer(history: History, rules: CrewRules, id: str) -> History:  # noqa: A002
    """The user's answer joins the task; what waits for him opens again. One record, like everything of his."""
    message = history.message(id)
    name = f"answer {len(history.posts)}"
    history = history._replace(posts=history.posts | {Post(name, name, message.thread)})
    if message.status in (BLOCKED, QUARANTINED):
        history = reopen(history, rules, id)
    history = renew(history, message.thread)
    return change(history, id, parts=message.parts + 1, news=message.parts + 1)


def may_answer(history: History, id: str) -> bool:  # noqa: A002
    """Whether an answer to it is taken: not what is closed, and not what is quarantined while its thread goes on."""
    asked = history.message(id)
    if asked.status == QUARANTINED:
        same = (message for message in history.messages if (message.to, message.thread) == (asked.to, asked.thread))
        return all(message.status not in (OPEN, HELD, BLOCKED) for message in same)
    return asked.status not in (DONE, WITHDRAWN)


def by_hand(history: History, rules: CrewRules, edit: str, id: str, seen: int, round: int) -> History:  # noqa: A002
    """What an imported save says about one message: the user's tick beats a report, his untick opens it again."""
    message = history.message(id)
    if edit == "untick":
        if message.status != DONE or (message.round != round and rules.untick == "of the round that was seen"):
            return history
        return reopen(history, rules, id, anew=True)
    if message.status in (DONE, WITHDRAWN):
        return history
    return close(history, rules, id, DONE if edit == "tick" else WITHDRAWN, seen)


def succeed(history: History, rules: CrewRules, phase: int, *, died: bool, give_up: bool = False) -> History:
    """A new epoch, in one record: the old one is fenced, its claims end, a death counts, the N-th one quarantines."""
    old = history.epochs[phase]
    history = history._replace(epochs=put(history.epochs, phase, -old if give_up else old + 1))
    if rules.claims == "are timed leases" or (give_up and rules.giving_up == "leaves it open"):
        return history
    for message in history.messages:
        if message.status == HELD and message.to == phase and message.holder == old:
            deaths = message.deaths + died
            status = QUARANTINED if deaths >= rules.most_deaths else OPEN
            history = change(history, message.id, status=status, holder=0, deaths=deaths)
            if status == QUARANTINED and rules.quarantine == "with its alert":
                history = alert(history, rules, message.id)
    return history


def alert(history: History, rules: CrewRules, id: str) -> History:  # noqa: A002
    origin = f"alert {id}.{history.message(id).round}"
    return post(history, rules, PLANNING, origin, origin, origin)


# --- Model: the crew --------------------------------------------------------------------------------------------------


class Worker(NamedTuple):
    """A worker process. at: scan, work, half, unsure, ring, sleep; or how it ended: died, stopped, given up."""

    epoch: int = 1
    at: str = "scan"
    task: str = ""
    round: int = 0
    seen: int = 0  # parts of the task that were there when it was claimed
    outcome: str = ""

    @property
    def alive(self) -> bool:
        return self.at not in ("died", "stopped", "given up")


class Left(NamedTuple):
    """What the environment may still do."""

    kills: int = 0
    hangs: int = 0  # a live worker is held for dead; a successor starts while it lingers
    crashes: int = 0  # of the supervisor
    losses: int = 0  # of a doorbell
    unsure: int = 0  # a record is committed but its author sees an error
    looks: int = 0  # the user loads the documents
    saves: int = 0
    answers: int = 0
    approvals: int = 0  # of Developer, who stands for QA here: what it has to approve is bounded


class Run(NamedTuple):
    history: History
    left: Left
    workers: tuple[Worker, ...] = (Worker(), Worker())
    lingering: tuple[Worker | None, ...] = (None, None)  # of an older epoch, not yet gone
    supervisor: bool = True
    ringing: bool = False  # a commit's bell on its way to the supervisor
    bells: tuple[bool, ...] = (False, False)  # in the workers' pipes
    idle: tuple[str, ...] = ("", "")  # last idle(h) of the present epoch; h is the head "now", or it is "old"
    alerts: tuple[str, ...] = ()  # only if an alert is a record of its own
    shown: tuple[tuple[str, int, int, bool], ...] = ()  # the user's buffer: id, parts, round, ticked
    save: tuple[str, str, int, int] | None = None  # in the file, not imported yet: edit, id, parts and round seen
    heads_fine: bool = False  # only if the end looks at the heads first
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Two phases, their supervisor and a user."""

    rules: CrewRules = CrewRules()
    left: Left = Left()  # noqa: RUF009
    roots: tuple[tuple[int, str], ...] = ((PLANNING, "a"),)  # receiver and thread of the first messages: a, b
    outcomes: tuple[str, ...] = ("done", "tell")
    give_up_after: int = 99  # deaths of one phase
    endless: str = "D8: goes on for ever"

    def start(self) -> Run:
        history = History()
        for name, (to, thread) in zip("ab", self.roots, strict=False):
            history = post(history, CrewRules(), to, thread, name, name)
        return Run(history, self.left)

    def wrong(self, run: Run) -> str:
        if run.history.broken:
            return run.history.broken
        for phase in (PLANNING, DEVELOPER):
            old, new = run.lingering[phase], run.workers[phase]
            if old and old.at == new.at == "work" and old.task == new.task:
                return f"D4: two epochs work on {old.task}"
        fell = self.left.kills + self.left.hangs - run.left.kills - run.left.hangs
        if fell < self.rules.most_deaths and any(m.status == QUARANTINED for m in run.history.messages):
            return "D8: a task is quarantined for ends it did not cause"
        waiting = [(m.to, m.thread) for m in run.history.messages if m.status in (OPEN, HELD, BLOCKED)]
        if len(waiting) > len(set(waiting)) and not self.left.saves:  # his untick may put a second one beside it
            return "D1: two open tasks of one receiver and thread"
        if len(run.history.posts) > 12:
            return "D8: messages without end"
        if run.ended:
            return self.wrong_end(run)
        return ""

    def wrong_end(self, run: Run) -> str:
        if run.save:
            return "D8: ended with a saved edit not imported"
        for message in run.history.messages:
            if message.status in (OPEN, HELD) and run.history.epochs[message.to] > 0:
                return f"D8: ended with {message.id} {message.status}"
            origin = f"alert {message.id}.{message.round}"
            if message.status == QUARANTINED and all(known.origin != origin for known in run.history.posts):
                return f"D1: {message.id} is quarantined and nobody was told"
            if message.status == BLOCKED and message.news:
                return f"D8: ended with {message.id} waiting for what has come"
        return ""

    def wrong_at_rest(self, run: Run) -> str:
        return "" if run.ended else "D8: never ends"

    def steps(self, run: Run) -> Iterator[Step]:
        if run.ended:
            return
        for phase in (PLANNING, DEVELOPER):
            if run.workers[phase].alive:
                yield from self.work(run, phase, run.workers[phase], lingers=False)
                yield from self.misfortunes(run, phase)
            elif run.supervisor and run.workers[phase].at != "given up":
                yield self.restart(run, phase)
            if old := run.lingering[phase]:
                yield from self.work(run, phase, old, lingers=True)
                yield Step(f"the old {NAMES[phase]} is gone", run._replace(lingering=put(run.lingering, phase, None)))
        yield from self.supervise(run)
        yield from self.edit(run)

    # A worker's cycle: claim, work, finish, ring; or nothing to do: report idle, sleep, wake at a bell.

    def work(self, run: Run, phase: int, worker: Worker, *, lingers: bool) -> Iterator[Step]:
        rules, history = self.rules, run.history
        name = f"{'the old ' if lingers else ''}{NAMES[phase]}"

        def now(worker: Worker, history: History = history, **more: Any) -> Run:
            if worker.at == "ring" and not (run.left.kills or run.left.hangs or run.left.crashes):
                worker, more["ringing"] = worker._replace(at="scan"), True  # nothing can come in between
            slot = "lingering" if lingers else "workers"
            more[slot] = put(getattr(run, slot), phase, worker)
            return committed(run, history, **more)

        if rules.fence == "by epoch" and worker.epoch != history.epochs[phase]:
            return  # the store refuses whatever it appends
        if worker.at == "scan":
            busy = run.lingering[phase]
            if not lingers and busy and busy.at == "work" and rules.handover == "when the old tree is empty":
                return
            open_to_me = [m for m in history.messages if (m.to, m.status) == (phase, OPEN)]
            if open_to_me and rules.claiming == "looked before":
                for message in open_to_me:
                    chosen = worker._replace(at="choose", task=message.id)
                    yield Step(f"{name} looks and chooses {message.id}", now(chosen))
                return
            for message in open_to_me:
                held = worker._replace(at="work", task=message.id, round=message.round, seen=message.parts)
                bells = run.bells if lingers else put(run.bells, phase, False)
                after = now(held, claim(history, message.id, worker.epoch), bells=bells)
                yield Step(f"{name} claims {message.id}", after)
            if not open_to_me and not lingers and rules.idle == "at the head when sent":
                bells = put(run.bells, phase, False)
                yield Step(f"{name} looks and finds nothing", now(worker._replace(at="doze"), bells=bells))
            elif not open_to_me and not lingers:
                idle, bells = put(run.idle, phase, "now"), put(run.bells, phase, False)
                yield Step(f"{name} reports idle at the head", now(worker._replace(at="sleep"), idle=idle, bells=bells))
        elif worker.at == "choose":
            message = history.message(worker.task)
            held = worker._replace(at="work", round=message.round, seen=message.parts)
            yield Step(f"{name} claims {message.id}", now(held, claim(history, message.id, worker.epoch)))
        elif worker.at == "doze":
            yield Step(f"{name} reports idle", now(worker._replace(at="sleep"), idle=put(run.idle, phase, "now")))
        elif worker.at == "work":
            may_approve = run.left.approvals and phase == DEVELOPER
            for outcome in (*self.outcomes, *(("approve",) if may_approve else ())):
                yield from self.finish(run, phase, worker._replace(outcome=outcome), name, now)
        elif worker.at == "half":
            done = self.report(history, phase, worker, half="completion")
            yield Step(f"{name} completes {worker.task}", now(Worker(worker.epoch, "ring"), done))
        elif worker.at == "unsure":
            again = self.report(history, phase, worker)
            yield Step(f"{name} retries its finish of {worker.task}", now(Worker(worker.epoch, "ring"), again))
        elif worker.at == "ring":
            yield Step(f"{name} rings", now(Worker(worker.epoch), ringing=True))
        elif worker.at == "sleep" and run.bells[phase] and not lingers:
            yield Step(f"{name} wakes", now(worker._replace(at="scan")))

    def finish(self, run: Run, phase: int, worker: Worker, name: str, now: Callable[..., Run]) -> Iterator[Step]:
        says = f"{name} finishes {worker.task} ({worker.outcome})"
        if self.rules.finish == "posts, then completion" and worker.outcome == "tell":
            posted = self.report(run.history, phase, worker, half="posts")
            yield Step(f"{name} posts for {worker.task}", now(worker._replace(at="half"), posted))
            return
        after, left = self.report(run.history, phase, worker), run.left
        if worker.outcome == "approve":
            left = left._replace(approvals=left.approvals - 1)
        yield Step(says, now(Worker(worker.epoch, "ring"), after, left=left))
        if left.unsure:
            left = left._replace(unsure=left.unsure - 1)
            unsure = now(worker._replace(at="unsure"), after, left=left)
            yield Step(f"{says}; it is committed, but it sees an error", unsure, False)

    def report(self, history: History, phase: int, worker: Worker, half: str = "both") -> History:
        task, outcome = worker.task, worker.outcome
        if outcome == "tell itself":  # a driver that asks for what its phase may not do: the store refuses the record
            if self.rules.own_read == "accepted":
                return history._replace(broken=f"D6: {NAMES[phase]} wrote its own READ document")
            outcome = "blocked"
        return report(history, self.rules, worker.epoch, task, worker.round, worker.seen, outcome, half)

    # What happens to workers, and what the supervisor does about it.

    def misfortunes(self, run: Run, phase: int) -> Iterator[Step]:
        worker, left, name = run.workers[phase], run.left, NAMES[phase]
        dead = put(run.workers, phase, Worker(worker.epoch, "died"))
        fresh: dict[str, Any] = {
            "workers": dead,
            "bells": put(run.bells, phase, False),
            "idle": put(run.idle, phase, ""),
        }
        if left.kills:
            yield Step(f"{name} is killed", run._replace(left=left._replace(kills=left.kills - 1), **fresh), False)
        if left.hangs and run.supervisor and not run.lingering[phase]:
            lingering = put(run.lingering, phase, worker)
            after = run._replace(left=left._replace(hangs=left.hangs - 1), lingering=lingering, **fresh)
            yield Step(f"{name} is held for dead and lingers", after, False)

    def restart(self, run: Run, phase: int) -> Step:
        worker = run.workers[phase]
        died = worker.at == "died" or self.rules.deaths == "every end"
        if died and worker.epoch >= self.give_up_after:
            history = succeed(run.history, self.rules, phase, died=True, give_up=True)
            workers = put(run.workers, phase, Worker(worker.epoch, "given up"))
            return Step(f"{NAMES[phase]} is given up", rung(committed(run, history, workers=workers)))
        history = succeed(run.history, self.rules, phase, died=died)
        told = {message.id for message in run.history.messages if message.status == QUARANTINED}
        late = tuple(m.id for m in history.messages if m.status == QUARANTINED and m.id not in told)
        alerts = run.alerts + (late if self.rules.quarantine == "alert afterwards" else ())
        workers = put(run.workers, phase, Worker(history.epochs[phase]))
        after = committed(run, history, workers=workers, alerts=alerts)
        return Step(f"{NAMES[phase]} starts as epoch {history.epochs[phase]}", rung(after))

    def supervise(self, run: Run) -> Iterator[Step]:
        rules, left = self.rules, run.left
        if not run.supervisor:
            yield Step("the supervisor starts again", run._replace(supervisor=True))
            return
        for id in run.alerts:  # noqa: A001
            after = committed(run, alert(run.history, rules, id), alerts=tuple(a for a in run.alerts if a != id))
            yield Step(f"an alert about {id}", rung(after))
        if run.ringing:
            concerned = {message.to for message in run.history.messages if message.status == OPEN}
            yield Step("the supervisor rings", rung(run, concerned if rules.bell == "those concerned" else None))
        elif rules.timer != "none":
            asleep_too_long = {
                phase
                for phase in (PLANNING, DEVELOPER)
                if run.workers[phase].at == "sleep" and run.idle[phase] == "old" and not run.bells[phase]
            }
            if asleep_too_long:
                yield Step("the slow timer rings whose idle is old", rung(run, asleep_too_long))
        for message in run.history.messages:
            if rules.claims == "are timed leases" and message.status == HELD:
                after = committed(run, change(run.history, message.id, status=OPEN, holder=0))
                yield Step(f"the lease of {message.id} runs out", rung(after))
        yield from self.ending(run)
        if left.losses and run.ringing:
            after = run._replace(ringing=False, left=left._replace(losses=left.losses - 1))
            yield Step("the bell is lost", after, False)
        for phase in (PLANNING, DEVELOPER):
            if left.losses and run.bells[phase]:
                bells = put(run.bells, phase, False)
                after = run._replace(bells=bells, left=left._replace(losses=left.losses - 1))
                yield Step(f"the bell of {NAMES[phase]} is lost", after, False)
        if left.crashes:
            yield Step("the supervisor is killed", self.crashed(run), False)

    def crashed(self, run: Run) -> Run:
        """Workers see the end of their pipe and leave within two seconds; until then they linger."""
        lingering = tuple(
            old or (worker if worker.alive else None) for old, worker in zip(run.lingering, run.workers, strict=True)
        )
        workers = tuple(w if w.at == "given up" else Worker(w.epoch, "stopped") for w in run.workers)
        left = run.left._replace(crashes=run.left.crashes - 1)
        return Run(run.history, left, workers, lingering, supervisor=False, shown=run.shown, save=run.save)

    def ending(self, run: Run) -> Iterator[Step]:
        """First the files, then the heads, in one hold of the lock: an import in between would move the head."""
        ended = Step("the run ends", run._replace(ended=True))
        if self.rules.end == "heads, then files":
            if run.heads_fine and not run.save:
                yield ended
            elif not run.heads_fine and self.heads_fine(run):
                yield Step("the heads are fine", run._replace(heads_fine=True))
        elif self.heads_fine(run) and (not run.save or self.rules.end == "heads and the watcher"):
            yield ended

    def heads_fine(self, run: Run) -> bool:
        """Every phase that was not given up is idle at the head, and nothing is claimed."""
        enough = ("now", "old") if self.rules.idle == "ever" else ("now",)
        for worker, idle in zip(run.workers, run.idle, strict=True):
            if worker.at != "given up" and not (worker.alive and idle in enough):
                return False
        return not run.alerts and all(message.status != HELD for message in run.history.messages)

    # The user: answers; loads all documents, later saves one edit of what was shown then.

    def edit(self, run: Run) -> Iterator[Step]:
        left = run.left
        for message in run.history.messages if left.answers else ():
            if may_answer(run.history, message.id):
                history = answer(run.history, self.rules, message.id)
                after = committed(run, history, left=left._replace(answers=left.answers - 1))
                yield Step(f"the user answers {message.id}", rung(after), False)
        if left.looks:
            shown = tuple(
                (m.id, m.parts, m.round, m.status == DONE) for m in run.history.messages if m.status != WITHDRAWN
            )
            yield Step("the user loads", run._replace(shown=shown, left=left._replace(looks=left.looks - 1)), False)
        if left.saves and run.shown and not run.save:
            fewer = left._replace(saves=left.saves - 1)
            for id, parts, round, ticked in run.shown:  # noqa: A001
                for edit in ("untick",) if ticked else ("tick", "delete"):
                    saved = run._replace(save=(edit, id, parts, round), left=fewer)
                    yield Step(f"the user saves: {edit} {id} as shown with {parts} part(s)", saved, False)
        if run.save and run.supervisor:
            after = committed(run, by_hand(run.history, self.rules, *run.save), save=None)
            yield Step("the save is imported", rung(after))


def committed(run: Run, history: History, **more: Any) -> Run:
    """The run after an append, if there was one: every idle(h) reported so far is at an older head now."""
    if history != run.history:
        more["idle"] = tuple("old" if idle else "" for idle in run.idle)
    return run._replace(history=history, **more)


def rung(run: Run, phases: set[int] | None = None) -> Run:
    """Bells for those who sleep; everybody else empties the pipe and looks again before sleeping."""
    bells = tuple(
        bell or ((phases is None or phase in phases) and run.workers[phase].at == "sleep")
        for phase, bell in enumerate(run.bells)
    )
    return run._replace(bells=bells, ringing=False)


# --- Model: one view --------------------------------------------------------------------------------------------------

Line = tuple[str, bool]  # key and tick. Keys: an id, "+text" without an id, "#text" for a note, MORE for hidden items
Lines = frozenset[Line]
MORE = "…"


class Text(NamedTuple):
    """What a file holds. `rev` is the marker: number and life; `shown` is the view that it names, for the merge."""

    rev: tuple[int, int] | None
    shown: Lines
    lines: Lines


EMPTY = Text(None, frozenset(), frozenset())  # truncated, not yet written
TORN = Text(None, frozenset(), frozenset({("+torn", False)}))  # half a line, no marker yet


class Doc(NamedTuple):
    """What the history says about one document."""

    n: int = 0  # its last record that touches this document
    life: int = 0  # raised when the history is restored from a backup: same numbers, other hashes
    cut: int = 0  # records up to here are from before that
    items: tuple[tuple[str, str], ...] = ()  # id, status
    notes: frozenset[str] = frozenset()
    heard: tuple[tuple[tuple[int, int], Lines], ...] = ()  # the last save imported with each revision
    asked: frozenset[str] = frozenset()  # what the user was asked about
    views: tuple[Lines, ...] = ()  # only if a marker is just a number
    touched: Text | None = None  # only if every change is put on record


@dataclass(frozen=True, kw_only=True)
class ViewRules:
    """The protocol of views. The first value of each rule is how it should be."""

    marker: Literal["number and hash", "number", "none"] = "number and hash"
    base: Literal["what was shown", "what was open"] = "what was shown"
    hand_ids: Literal["from revision and text", "random"] = "from revision and text"
    settle: Literal["file and displaced file", "file only", "nothing"] = "file and displaced file"
    swap: Literal["exchange", "move away, then link", "hard link, then rename", "rename over"] = "exchange"
    leftovers: Literal["are read as saves", "are swept"] = "are read as saves"
    names: Literal["temp and swap differ", "one for both"] = "temp and swap differ"
    missing: Literal["is restored", "is a deletion"] = "is restored"
    restoring: Literal["never replaces", "may replace"] = "never replaces"
    rewrite: Literal["for body or revision", "for the body"] = "for body or revision"
    record: Literal["effects", "every change"] = "effects"
    taken_back: Literal["is asked about", "is ignored", "is applied"] = "is asked about"
    unknown: Literal["additions count, the rest is asked about", "ticks count too"] = (
        "additions count, the rest is asked about"
    )
    plan: Literal["is merged with what came since", "replaces"] = "is merged with what came since"
    most_shown: int = 9


def name(key: str) -> str:
    """The text behind a key: each text is used once here, so it tells which item is meant."""
    return key.lstrip("+").split("@")[0]


def lines_of(doc: Doc, most: int) -> Lines:
    still_open = [id for id, status in doc.items if status == OPEN]  # noqa: A001
    hidden = len(still_open) - most
    lines = {(id, False) for id in still_open[:most]} | {(id, True) for id, status in doc.items if status == DONE}  # noqa: A001
    more = {(f"{MORE}{hidden}", False)} if hidden > 0 else set()
    return frozenset(lines | {(note, False) for note in doc.notes} | more)


def render(doc: Doc, rules: ViewRules) -> Text:
    lines = lines_of(doc, rules.most_shown)
    shown = lines if rules.base == "what was shown" else lines_of(doc, 99)
    return Text((doc.n, doc.life if rules.marker == "number and hash" else 0), shown, lines)


def base_of(doc: Doc, text: Text, rules: ViewRules) -> Lines | None:
    """The view a text began as; None if the history does not know it: then nothing in it is taken as withdrawn."""
    if rules.marker == "none":
        return lines_of(doc, rules.most_shown)
    if text.rev is None:
        return None
    n, life = text.rev
    if rules.marker == "number":
        return doc.views[n] if n < len(doc.views) else None
    return text.shown if n <= (doc.n if life == doc.life else doc.cut) else None


Effect = tuple[str, str]  # what an import does, and to which id or note


def merge(doc: Doc, text: Text | None, rules: ViewRules) -> tuple[Effect, ...]:
    """The three-way merge: what the text changed since the view it began as, less what is so already."""
    if text is None:
        return tuple(("withdraw", id) for id, status in doc.items if status == OPEN)  # noqa: A001
    status, base = dict(doc.items), base_of(doc, text, rules)
    shown = dict(base or ())
    out: set[Effect] = set()
    for key, ticked in text.lines:
        if key.startswith(MORE):
            continue
        if key.startswith("#"):
            if key not in doc.notes and key not in shown:
                out.add(("note", key))
            continue
        id = hand_id(doc, text, key, rules) if key.startswith("+") else key  # noqa: A001
        if id not in status:  # also an id that the history does not know
            out.add(("add done" if ticked else "add", id))
        elif ticked and status[id] == OPEN and (key.startswith("+") or shown.get(key) is False):
            out.add(("tick", id))
        elif not ticked and status[id] == DONE and shown.get(key) is True:
            out.add(("untick", id))
        elif base is not None and status[id] == WITHDRAWN and key not in shown and not key.startswith("+"):
            out.add(("restore", id))
    kept = {key for key, _ in text.lines}
    for key in shown.keys() - kept:
        if key.startswith("#") and key in doc.notes:
            out.add(("strike", key))
        elif status.get(key) == OPEN:
            out.add(("withdraw", key))
    if base is None:
        if rules.unknown == "ticks count too":
            out |= {("tick", key) for key, ticked in text.lines if ticked and status.get(key) == OPEN}
        out |= {("ask", what) for what in at_odds(doc, text) - {name(id) for _, id in out}}  # noqa: A001
    elif rules.taken_back == "is asked about":
        out |= {("ask", what) for what in taken_back(doc, text) - {name(id) for _, id in out}}  # noqa: A001
    elif rules.taken_back == "is applied":
        boxes, ids = {name(key): ticked for key, ticked in text.lines}, {name(id): id for id in status}  # noqa: A001
        undo = {None: "withdraw", True: "tick", False: "untick"}
        out |= {(undo[boxes.get(what)], ids[what]) for what in taken_back(doc, text)}
    if rules.record == "every change" and text != doc.touched:
        out.add(("touch", ""))
    return tuple(sorted(out))


def hand_id(doc: Doc, text: Text, key: str, rules: ViewRules) -> str:
    """The id of a line without one. The same save, read again, and a later save of the same buffer give the same id."""
    if base_of(doc, text, rules) is None:  # without a revision the text alone tells
        for id, _ in doc.items:  # noqa: A001
            if name(id) == name(key):
                return id
    return f"{key[1:]}@{text.rev if rules.hand_ids == 'from revision and text' else doc.n}"


def at_odds(doc: Doc, text: Text) -> set[str]:
    """Items of which the text says something else than the history, and about which nobody was asked yet."""
    says = {name(key): ticked for key, ticked in text.lines}
    agrees = {True: (DONE,), False: (OPEN,), None: (DONE, WITHDRAWN)}
    states = {name(id): status for id, status in doc.items}  # noqa: A001
    return {what for what, status in states.items() if status not in agrees[says.get(what)]} - doc.asked


def taken_back(doc: Doc, text: Text) -> set[str]:
    """Where a save undoes what an earlier save of the same revision did: against that view it changed nothing."""
    earlier = next((lines for rev, lines in doc.heard if rev == text.rev), None)
    if earlier is None:
        return set()
    then, now = ({name(key): ticked for key, ticked in lines} for lines in (earlier, text.lines))
    return {what for what in at_odds(doc, text) if then.get(what) != now.get(what)}


def imported(doc: Doc, text: Text | None, effects: tuple[Effect, ...], rules: ViewRules) -> Doc:
    """The history after the one record of an import."""
    items, notes, asked = dict(doc.items), set(doc.notes), set(doc.asked)
    result = {"tick": DONE, "untick": OPEN, "withdraw": WITHDRAWN, "restore": OPEN, "add": OPEN, "add done": DONE}
    for effect, what in effects:
        if effect in result:
            items[what] = result[effect]
        elif effect == "ask":
            asked.add(what)
        elif effect != "touch":
            (notes.add if effect == "note" else notes.discard)(what)
    heard = doc.heard
    if text and text.rev and rules.taken_back != "is ignored":
        heard = (*(pair for pair in heard if pair[0] != text.rev), (text.rev, text.lines))
    return recorded(
        doc._replace(
            items=tuple(items.items()), notes=frozenset(notes), heard=heard, asked=frozenset(asked),
            touched=text if rules.record == "every change" else None,
        ),
        rules,
    )  # fmt: skip


def recorded(doc: Doc, rules: ViewRules) -> Doc:
    doc = doc._replace(n=doc.n + 1)
    return doc._replace(views=(*doc.views, lines_of(doc, rules.most_shown))) if rules.marker == "number" else doc


class Editor(NamedTuple):
    """An editor on this file. at: ready, begun (opened, or the old file moved away), empty, torn."""

    style: str = "in place"  # or: opens first, renames, moves away first
    edits: tuple[str, ...] = ("add x", "toggle", "delete")
    loads: int = 1
    saves: int = 1
    careful: bool = False  # saves only a buffer that is what the file holds at that time
    buffer: Text | None = None
    at: str = "ready"
    writing: Any = None  # the Text of a save that is under way
    fd: str = ""  # which file its descriptor names: path, left, gone (by us), own (replaced by another editor)


class Job(NamedTuple):
    """Where the reconciler is: rest, import, swap, between (the two halves of a swap), down."""

    at: str = "rest"
    text: Any = None  # what was read, or what was rendered


class Desk(NamedTuple):
    doc: Doc
    path: Text | None
    editors: tuple[Editor, ...]
    crew: tuple[str, ...] = ()  # what the crew will do at some time: "post b", "report a", "plan reads", "plan writes"
    plan: Doc | None = None  # what Planning read at the start of its cycle
    left: Any = None  # what a swap displaced, under the swap name; "alias": a second name of path
    job: Job = Job()
    crashes: int = 0  # of the reconciler
    checkouts: int = 0  # of an old version of the file, by git or a restored backup
    editor_crashes: int = 0
    backups: int = 0  # restores of the history
    old: tuple[Text, ...] = ()  # versions that a checkout may bring
    meant: frozenset[Effect] = frozenset()  # every edit of every completed save
    must: frozenset[str] = frozenset()  # hand text that has to stay
    want: tuple[tuple[Any, ...], ...] = ()  # the user's last word, open or closed; the revision, if that showed it so
    by_save: tuple[tuple[Any, ...], ...] = ()  # items whose last change came from a save, and that save's revision
    posted: frozenset[str] = frozenset()
    read_last: Text | None = None  # only if ids are random: what this reconciler knows that it has imported
    broken: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """One document, its reconciler, one or two editors; the crew posts and reports meanwhile."""

    rules: ViewRules = ViewRules()
    items: tuple[tuple[str, str], ...] = (("a", OPEN),)
    crew: tuple[str, ...] = ("post b",)
    editors: tuple[Editor, ...] = (Editor(),)
    crashes: int = 0
    checkouts: int = 0
    editor_crashes: int = 0
    backups: int = 0
    endless: str = "D7: goes on for ever"

    def start(self) -> Desk:
        doc = recorded(Doc(n=-1, items=self.items), self.rules)
        text = render(doc, self.rules)
        return Desk(
            doc, text, self.editors, self.crew, crashes=self.crashes, checkouts=self.checkouts,
            backups=self.backups, editor_crashes=self.editor_crashes, old=(text,) if self.checkouts else (),
            posted=frozenset(id for id, _ in self.items),  # noqa: A001
        )  # fmt: skip

    def wrong(self, desk: Desk) -> str:
        if desk.broken:
            return desk.broken
        names = [name(id) for id, _ in desk.doc.items]  # noqa: A001
        if len(names) != len(set(names)):
            return "D2: a hand-added item was imported twice"
        if desk.doc.n > 14:
            return "D7: imports and rewrites without end"
        return ""

    def wrong_at_rest(self, desk: Desk) -> str:
        if any(editor.at != "ready" for editor in desk.editors):
            return ""  # the system waits for a save to end
        doc, status = desk.doc, {name(id): status for id, status in desk.doc.items}  # noqa: A001
        if desk.path is None or desk.path.lines != render(doc, self.rules).lines or desk.left is not None:
            return "D7: the view does not show the history"
        if missing := desk.posted - status.keys():
            return f"D1: {', '.join(sorted(missing))} is gone from the history"
        boxes = [key for key, ticked in desk.path.lines if not ticked and not key.startswith("#")]
        shown = sum(int(key[1:]) if key.startswith(MORE) else 1 for key in boxes)
        if shown != sum(state == OPEN for state in status.values()):
            return "D1: an open item is neither shown nor counted"
        if lost := desk.must - status.keys() - doc.notes:
            return f"D2: hand text {', '.join(sorted(lost))} has vanished"
        for what, wanted, shown_by in desk.want if not doc.life else ():
            if shown_by and (what, shown_by) not in desk.by_save:
                continue  # he took back what nobody had heard yet
            if (status.get(what) == OPEN) != (wanted == OPEN) and what not in doc.asked:
                return f"D2: the user's last word on {what} was '{wanted}', and nobody asked"
        return ""

    def steps(self, desk: Desk) -> Iterator[Step]:
        yield from self.reconcile(desk)
        for at, editor in enumerate(desk.editors):
            yield from self.user(desk, at, editor)
        for event in desk.crew:
            if event == "plan reads":
                rest = tuple(other for other in desk.crew if other != event)
                yield Step("Planning reads the document", desk._replace(plan=desk.doc, crew=rest), False)
            elif event == "plan writes":
                yield from self.plan(desk)
            else:
                yield self.crew_step(desk, event)
        yield from self.accidents(desk)

    def crew_step(self, desk: Desk, event: str) -> Step:
        did, id = event.split()  # noqa: A001
        items = dict(desk.doc.items)
        after = desk._replace(crew=tuple(other for other in desk.crew if other != event), posted=desk.posted | {id})
        if did == "post" or items.get(id) == OPEN:  # else it was closed already, and the report has no effect
            items[id] = OPEN if did == "post" else DONE
            after = after._replace(
                doc=recorded(desk.doc._replace(items=tuple(items.items())), self.rules),
                want=tuple(word for word in desk.want if word[0] != id),
                by_save=tuple(pair for pair in desk.by_save if pair[0] != id),
            )
        return Step(f"the crew: {event}", after, False)

    def plan(self, desk: Desk) -> Iterator[Step]:
        """Planning finishes a cycle that rewrites this document, from what it read when the cycle began."""
        rest = tuple(other for other in desk.crew if other != "plan writes")
        if desk.plan is None:
            return
        doc, read = desk.doc, render(desk.plan, self.rules)
        if self.rules.plan == "replaces":
            doc = recorded(doc._replace(items=desk.plan.items, notes=desk.plan.notes | {"#p"}), self.rules)
        else:
            effects = merge(doc, read._replace(lines=read.lines | {("#p", False)}), self.rules)
            doc = imported(doc, None, tuple(pair for pair in effects if pair[0] != "ask"), self.rules)
        after = desk._replace(doc=doc, plan=None, crew=rest, must=desk.must | {"#p"})
        yield Step("Planning finishes and rewrites the document", after, False)

    # The reconciler: leftovers first, then the file; import, then bring the view up to date.

    def reconcile(self, desk: Desk) -> Iterator[Step]:
        rules, job = self.rules, desk.job
        if job.at == "down":
            left = desk.left if rules.leftovers == "are read as saves" else None
            yield Step("the reconciler starts again", gone(desk, left)._replace(job=Job()))
        elif job.at == "import":
            yield self.bring_in(desk, job.text, Job(), "what was read ")
        elif job.at == "swap":
            yield self.swap(desk, job.text)
        elif job.at == "between":
            yield self.second_half(desk, job.text)
        elif job.at == "restore" and rules.restoring == "never replaces":
            yield Step("the view is linked, if the name is free", desk._replace(path=desk.path or job.text, job=Job()))
        elif job.at == "restore":
            yield Step("the view is renamed in place", self.overwrite(desk, job.text))
        elif desk.left == "alias":
            yield Step("the second name is removed", desk._replace(left=None))
        elif desk.left is not None:
            if rules.settle == "file and displaced file" and self.being_saved(desk, "left"):
                return
            if desk.left != desk.read_last and merge(desk.doc, desk.left, rules):
                yield self.bring_in(desk, desk.left, job, "the displaced file ")
            else:
                yield Step("the displaced file holds nothing new and goes", gone(desk, None))
        elif desk.path is None:
            if rules.missing == "is a deletion" and any(status == OPEN for _, status in desk.doc.items):
                yield Step("a missing file is read", desk._replace(job=Job("import", None)))
            else:
                view = render(desk.doc, rules)
                yield Step("a missing file is rendered anew", desk._replace(job=Job("restore", view)))
        elif rules.settle == "nothing" or not self.being_saved(desk, "path"):
            view = render(desk.doc, rules)
            same = desk.path.lines == view.lines and (rules.rewrite == "for the body" or desk.path.rev == view.rev)
            if desk.path != desk.read_last and merge(desk.doc, desk.path, rules):
                yield Step("a changed file is read", desk._replace(job=Job("import", desk.path)))
            elif not same:
                yield Step(f"revision {desk.doc.n} is rendered", desk._replace(job=Job("swap", view)))

    def being_saved(self, desk: Desk, which: str) -> bool:
        return any(editor.fd == which for editor in desk.editors)

    def bring_in(self, desk: Desk, text: Text | None, job: Job, whose: str = "") -> Step:
        effects = merge(desk.doc, text, self.rules)
        broken = desk.broken
        for effect, what in effects:
            if effect in ("ask", "touch"):
                continue
            if (effect.removesuffix(" done"), name(what)) not in desk.meant:
                which = "D2" if effect in ("add", "add done", "note") else "D3"
                broken = f"{which}: imported '{effect} {name(what)}', which no user ever saved"
        doc = imported(desk.doc, text, effects, self.rules) if effects else desk.doc
        says = ", ".join(f"{effect} {name(what)}" for effect, what in effects) or "nothing"
        changed = {name(what) for effect, what in effects if effect not in ("ask", "touch")}
        by_save = [pair for pair in desk.by_save if pair[0] not in changed] + [(w, text and text.rev) for w in changed]
        read_last = text if self.rules.hand_ids == "random" else None
        after = desk._replace(doc=doc, job=job, broken=broken, read_last=read_last, by_save=tuple(sorted(by_save)))
        return Step(f"{whose}is imported: {says}", after)

    def swap(self, desk: Desk, new: Text) -> Step:
        kept = desk._replace(path=new, left=desk.path, editors=moved(desk.editors, "path", "left"), job=Job())
        if self.rules.swap == "rename over":
            return Step("the view replaces the file", self.overwrite(desk, new))
        if desk.path is None:
            return Step("the view is linked in place", desk._replace(path=new, job=Job()))
        if self.rules.swap == "exchange":
            return Step("view and file change places", kept)
        if self.rules.swap == "move away, then link":
            return Step("the file is moved away", kept._replace(path=None, job=Job("between", new)))
        return Step("the file gets a second name", desk._replace(left="alias", job=Job("between", new)))

    def second_half(self, desk: Desk, new: Text) -> Step:
        if self.rules.swap == "move away, then link":
            return Step("the view is linked, if the name is free", desk._replace(path=desk.path or new, job=Job()))
        if desk.left == "alias":
            editors = moved(desk.editors, "path", "left")
            return Step("the view is renamed over", desk._replace(path=new, left=desk.path, editors=editors, job=Job()))
        return Step("the view is renamed over", self.overwrite(desk, new))

    def overwrite(self, desk: Desk, new: Text) -> Desk:
        """What the path held until now is gone for good."""
        return desk._replace(path=new, editors=moved(desk.editors, "path", "gone"), job=Job())

    # The user.

    def user(self, desk: Desk, at: int, editor: Editor) -> Iterator[Step]:
        who = f"editor {at + 1}" if len(desk.editors) > 1 else "the editor"

        def now(editor: Editor, desk: Desk = desk, **more: Any) -> Desk:
            return desk._replace(editors=put(desk.editors, at, editor), **more)

        if editor.at == "ready":
            if editor.loads and desk.path not in (None, EMPTY, TORN) and desk.path != editor.buffer:
                loaded = editor._replace(buffer=desk.path, loads=editor.loads - 1)
                yield Step(f"{who} loads revision {desk.path.rev and desk.path.rev[0]}", now(loaded), False)
            alone = all(other.at == "ready" for other in desk.editors)  # two saves at once: editors, not the crew
            if editor.careful and editor.buffer != desk.path:
                return
            if editor.saves and editor.buffer and alone and (desk.path is not None or editor.style == "renames"):
                for says, lines in edited(editor.buffer.lines, editor.edits, desk.meant):
                    text = editor.buffer._replace(lines=lines)
                    if says == "drop the marker":
                        text = Text(None, frozenset(), lines)
                    saving = editor._replace(writing=text, saves=editor.saves - 1)
                    yield self.begin(desk, at, saving, f"{who} saves ({says})", now)
        elif editor.at == "empty":
            half = written(now(editor._replace(at="torn")), editor.fd, TORN)
            yield Step(f"{who} has written half a line", half, False)
            if desk.editor_crashes:
                after = now(editor._replace(at="ready", writing=None, buffer=None, fd=""))
                safe = {name(id) for id, _ in desk.doc.items} | desk.doc.notes  # what was only in the file is his loss  # noqa: A001
                after = after._replace(editor_crashes=desk.editor_crashes - 1, must=desk.must & safe, want=())
                yield Step(f"{who} crashes", after, False)
        else:
            yield Step(f"{who} has written all", self.end_save(desk, at, editor), False)

    def begin(self, desk: Desk, at: int, editor: Editor, says: str, now: Callable[..., Desk]) -> Step:
        desk = overwritten(desk, desk.path, editor.writing, self.rules)
        if editor.style == "in place":
            after = written(now(editor._replace(at="empty", fd="path"), desk), "path", EMPTY)
            return Step(f"{says}: the file is truncated", after, False)
        if editor.style == "opens first":
            return Step(f"{says}: the file is opened", now(editor._replace(at="begun", fd="path"), desk), False)
        if editor.style == "moves away first":
            after = replaced(now(editor._replace(at="begun"), desk), None)
            return Step(f"{says}: the old file is moved away", after, False)
        return Step(f"{says} by renaming", self.end_save(desk, at, editor), False)

    def end_save(self, desk: Desk, at: int, editor: Editor) -> Desk:
        text = editor.writing
        if editor.style == "renames":
            desk = replaced(desk, text)
        elif editor.style == "moves away first":
            desk = desk._replace(path=text)
        elif editor.fd == "gone":
            return desk._replace(broken="D2: a save ended in a file that has no name any more")
        else:
            desk = written(desk, editor.fd, text)
        if editor.fd != "own":  # else he wrote into a file that his other editor had replaced
            desk = said(desk, editor.buffer, text)
        if desk.checkouts:
            desk = desk._replace(old=(desk.old[0], text))
        done = editor._replace(at="ready", writing=None, fd="", buffer=text)
        return desk._replace(editors=put(desk.editors, at, done))

    # What else may happen.

    def accidents(self, desk: Desk) -> Iterator[Step]:
        job = desk.job
        if desk.crashes and job.at != "down" and (job.at != "rest" or desk.left):
            down = desk._replace(crashes=desk.crashes - 1, job=Job("down"), read_last=None)
            yield Step("the reconciler is killed", down, False)
            if job.at in ("swap", "restore"):
                torn = TORN if self.rules.names == "one for both" else None
                yield Step("the reconciler is killed in the middle of the temp file", down._replace(left=torn), False)
                yield Step("the reconciler is killed before the swap", down._replace(left=job.text), False)
        quiet = all(editor.at == "ready" for editor in desk.editors)
        if desk.checkouts and quiet:
            for old in desk.old:
                if old != desk.path:
                    after = overwritten(desk, desk.path, old, self.rules)
                    after = replaced(after, old)._replace(checkouts=desk.checkouts - 1)
                    yield Step(f"a checkout brings back revision {old.rev and old.rev[0]}", after, False)
        if desk.backups and quiet and job.at == "rest":
            yield Step("the history is restored from a backup", self.from_backup(desk), False)

    def from_backup(self, desk: Desk) -> Desk:
        first = recorded(Doc(n=-1, items=self.items), self.rules)
        known = {id for id, _ in self.items}  # noqa: A001
        return desk._replace(
            doc=first._replace(life=1), backups=desk.backups - 1, posted=desk.posted & known, want=(), must=frozenset(),
            meant=desk.meant | {("add", key) for key in desk.posted | desk.must},
        )  # fmt: skip


def moved(editors: tuple[Editor, ...], old: str, new: str) -> tuple[Editor, ...]:
    """Descriptors follow their file, whatever its name is now."""
    return tuple(editor._replace(fd=new) if editor.fd == old else editor for editor in editors)


def written(desk: Desk, fd: str, text: Text) -> Desk:
    if fd == "path":
        return desk._replace(path=text)
    return desk._replace(left=text) if fd == "left" else desk


def gone(desk: Desk, left: Text | str | None) -> Desk:
    return desk if left is desk.left else desk._replace(left=left, editors=moved(desk.editors, "left", "gone"))


def replaced(desk: Desk, text: Text | None) -> Desk:
    """Somebody else than us puts another file at the path, or takes the file away."""
    if desk.left == "alias":
        return desk._replace(path=text, left=desk.path, editors=moved(desk.editors, "path", "left"))
    return desk._replace(path=text, editors=moved(desk.editors, "path", "own"))


def edited(lines: Lines, edits: tuple[str, ...], meant: frozenset[Effect]) -> Iterator[tuple[str, Lines]]:
    """Every result of one edit of a buffer. Nobody types the same text twice."""
    texts = {name(key) for key, _ in lines} | {what for effect, what in meant if effect == "add"}
    for edit in edits:
        if edit.startswith(("add ", "note ")):
            key = ("+" if edit.startswith("add ") else "#") + edit.split()[1]
            if name(key) not in texts:
                yield edit, lines | {(key, False)}
        elif edit == "drop the marker":
            yield edit, lines
        else:
            for line in sorted(lines):
                if line[0].startswith(MORE) or (edit == "toggle" and line[0].startswith("#")):
                    continue
                if edit == "toggle":
                    yield f"{'un' * line[1]}tick {name(line[0])}", lines - {line} | {(line[0], not line[1])}
                else:
                    yield f"delete {name(line[0])}", lines - {line}


def said(desk: Desk, before: Any, after: Text) -> Desk:
    """Note what the user changed with a save that is complete."""
    texts = (before.lines, after.lines, after.shown)
    old, new, shown = ({name(key): ticked for key, ticked in lines} for lines in texts)
    meant, must, want = set(desk.meant), set(desk.must), {pair[0]: pair for pair in desk.want}
    for what in old.keys() | new.keys():
        if old.get(what) == new.get(what):
            continue
        if what not in new:
            meant |= {("withdraw", what), ("strike", what)}
            must.discard(what)
        else:
            meant |= {("tick", what)} if new[what] else {("untick", what)}
            if what not in old:
                meant |= {("add", what), ("note", what), ("restore", what)}
                must.add(what)
        if not what.startswith("#"):
            wanted = OPEN if new.get(what) is False else "closed"
            want[what] = (what, wanted, after.rev if new.get(what) == shown.get(what) else None)
    return desk._replace(meant=frozenset(meant), must=frozenset(must), want=tuple(sorted(want.values())))


def overwritten(desk: Desk, old: Text | None, new: Text | None, rules: ViewRules) -> Desk:
    """The user's own next save or checkout may write over one that nobody has read yet: that is his doing."""
    if old is None or new is None:
        return desk

    def touched(text: Text) -> set[str]:
        return {name(what) for _, what in merge(desk.doc, text, rules)}

    lost = touched(old) - touched(new)
    words = set(lost)
    for earlier in (desk.left, desk.job.text):  # saves on their way, of which `old` took something back
        if isinstance(earlier, Text) and earlier.rev == old.rev:
            then, now = ({name(key): ticked for key, ticked in text.lines} for text in (earlier, old))
            words |= {what for what in touched(earlier) if then.get(what) != now.get(what)}
    return desk._replace(must=desk.must - lost, want=tuple(word for word in desk.want if word[0] not in words))


# --- Model: whose edit is it ------------------------------------------------------------------------------------------


class Shop(NamedTuple):
    agent: str = "not started"  # running, over
    edits: frozenset[str] = frozenset({"the user's", "the agent's"})  # still to be made
    file: frozenset[str] = frozenset()  # in the document, not looked at yet
    copy: frozenset[str] = frozenset()  # in the agent's own work tree
    imported: frozenset[str] = frozenset()  # as the user's word
    aside: frozenset[str] = frozenset()  # reverted, kept as a conflict file, on record


@dataclass(frozen=True, kw_only=True)
class Author:
    """An agent ticks its own task in a file, the user adds an item: the importer sees bytes, not hands."""

    rule: Literal["by place", "by time", "while claimed", "everything is the user's"] = "by place"
    endless: str = "D7: goes on for ever"

    def start(self) -> Shop:
        return Shop()

    def wrong(self, shop: Shop) -> str:
        return "D6: an agent's edit was taken for the user's" if "the agent's" in shop.imported else ""

    def wrong_at_rest(self, shop: Shop) -> str:
        made = {"the user's", "the agent's"} - shop.edits
        if made - shop.imported - shop.aside:
            return "D2: an edit has vanished"
        return "D2: the user's edit does not count" if "the user's" in shop.aside else ""

    def steps(self, shop: Shop) -> Iterator[Step]:
        apart = self.rule == "by place"  # the agent's work tree is its own, its crew/ a copy that nobody imports
        bracketed = self.rule == "by time" and shop.file  # looked at before the agent starts and after it has ended
        if shop.agent == "not started" and not bracketed:
            yield Step("the agent starts", shop._replace(agent="running"))
        if shop.agent == "running" and not bracketed:
            over = shop._replace(agent="over", copy=frozenset(), aside=shop.aside | shop.copy)
            yield Step("the agent ends", over)
        if shop.file:
            suspect = shop.agent == "running" and self.rule in ("by time", "while claimed")
            where = "aside" if suspect else "imported"
            after = shop._replace(file=frozenset(), **{where: getattr(shop, where) | shop.file})
            yield Step(f"the file is looked at: {where}", after)
        for edit in sorted(shop.edits):
            if edit == "the user's" or shop.agent == "running":
                where = "copy" if apart and edit == "the agent's" else "file"
                after = shop._replace(edits=shop.edits - {edit}, **{where: getattr(shop, where) | {edit}})
                yield Step(f"{edit} edit is made", after, False)


# --- Table: a report and an edit in either order ----------------------------------------------------------------------

Event = Callable[[History], History]


def check_order(rules: CrewRules) -> Result:
    """Every report, join and edit by hand, in both orders, from every situation in which both can arrive."""
    rules = replace(rules, most_hops=99)  # the last message within a budget is whichever comes first
    held = claim(post(History(), rules, DEVELOPER, "t", "a", "a"), "a", 1)
    joined = post(held, rules, DEVELOPER, "t", "b", "b")
    ticked = by_hand(held, rules, "tick", "a", 1, 0)
    again = claim(by_hand(ticked, rules, "untick", "a", 1, 0), "a", 1)
    starts = {"held": held, "held, one joined": joined, "ticked while at work": ticked, "held a second time": again}
    tried = 0
    for where, start in starts.items():
        task = start.message("a")
        reports: dict[str, Event] = {
            f"report {said}": partial(report, rules=rules, epoch=1, id="a", round=task.round, seen=1, outcome=said)
            for said in ("done", "tell", "blocked")
        }
        hand = partial(by_hand, rules=rules, id="a", round=0)
        others: dict[str, Event] = {
            f"{edit} of {seen} part(s)": partial(hand, edit=edit, seen=seen)
            for edit in ("tick", "delete")
            for seen in range(1, task.parts + 1)
        }
        one_more = partial(post, rules=rules, to=DEVELOPER, thread="t", origin="c", ordinal_id="c")
        others |= {"one joins": one_more, "an approval joins": partial(one_more, approves=True)}
        if task.status == DONE or task.round:  # he saw it ticked in round 0
            others["untick of round 0"] = partial(hand, edit="untick", seen=1)
        for first, one in reports.items():
            for second, two in others.items():
                tried += 1
                ends = {f"{first}, then {second}": two(one(start)), f"{second}, then {first}": one(two(start))}
                if len({outcome(end) for end in ends.values()}) > 1:
                    told = (f"{way}: {outcome(end)}" for way, end in ends.items())
                    return Result(tried, "D9: the order decides", (f"the task is {where}", *told))
    return Result(tried)


def outcome(history: History) -> tuple[str, tuple[str, ...]]:
    """What is left to do in the thread, and what was posted."""
    states = {message.status for message in history.messages if message.to == DEVELOPER}
    left = "open" if states & {OPEN, HELD} else "blocked" if BLOCKED in states else "closed"
    return left, tuple(sorted(known.origin for known in history.posts))


# --- The cases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """The order table, in the shape of a case."""

    rules: CrewRules = CrewRules()


class Case(NamedTuple):
    """`breaks` names the property that must be violated; without it the case has to hold."""

    name: str
    model: Model | Table
    breaks: str = ""


def sorted_out(given: dict[str, Any], *kinds: Any) -> list[dict[str, Any]]:
    """Which of the given values belong to which dataclass or named tuple."""
    known = [getattr(kind, "_fields", None) or tuple(field.name for field in fields(kind)) for kind in kinds]
    return [{key: given[key] for key in given.keys() & names} for names in map(set, known)]


def crew(name: str, *, breaks: str = "", **given: Any) -> Case:
    left, rules, more = sorted_out(given, Left, CrewRules, Crew)
    return Case(name, Crew(**more, left=Left(**left), rules=CrewRules(**rules)), breaks)


def view(name: str, *editors: Editor, breaks: str = "", **given: Any) -> Case:
    rules, more = sorted_out(given, ViewRules, View)
    return Case(name, View(**more, editors=editors, rules=ViewRules(**rules)), breaks)


def editor(style: str = "renames", edits: str = "add x, toggle, delete", **more: Any) -> Editor:
    return Editor(style, tuple(edits.split(", ")), **more)


TWO = ((PLANNING, "a"), (DEVELOPER, "b"))
SAME = ((PLANNING, "a"), (DEVELOPER, "a"))  # one finding that reaches two phases
EVERY = ("done", "tell", "blocked", "tell itself")
BLOCKS = ("done", "tell", "blocked")
REPORT = ("report a",)
BOTH = ("post b", "report a")
TWO_POSTS = ("post b", "post c")
PLANS = ("plan reads", "plan writes")
ALL = "add x, note t, toggle, delete"
A_AND_C = (("a", OPEN), ("c", OPEN))
CAREFUL = editor(edits="toggle", saves=2, careful=True)
UNMARKED = (editor(edits="toggle"), editor(edits="drop the marker"))

HOLD = (
    crew("crew: workers are killed twice", roots=TWO, kills=2),
    crew("crew: a worker is held for dead and lingers", roots=TWO, hangs=1),
    crew("crew: one lingers, one is killed", hangs=1, kills=1),
    crew("crew: the supervisor is killed", roots=TWO, crashes=1),
    crew("crew: supervisor and worker are killed", crashes=1, kills=1),
    crew("crew: the supervisor is killed twice", crashes=2),
    crew("crew: committed, but its author sees an error", roots=TWO, unsure=1, kills=1),
    crew("crew: bells are lost", roots=TWO, losses=2),
    crew("crew: bells are lost, a worker is killed", losses=2, kills=1),
    crew("crew: bells only to those concerned, and the timer", roots=TWO, losses=1, bell="those concerned"),
    crew("crew: a phase is given up", roots=TWO, kills=2, give_up_after=2),
    crew("crew: every outcome, also a forbidden post", roots=TWO, outcomes=EVERY, kills=1),
    crew("crew: one thread from two sides, a kill", roots=SAME, most_hops=3, kills=1),
    crew("crew: one thread from two sides, a save", roots=SAME, most_hops=3, looks=1, saves=1),
    crew("crew: a save", roots=TWO, looks=1, saves=1),
    crew("crew: a save and a kill", looks=1, saves=1, kills=1),
    crew("crew: two saves", looks=2, saves=2),
    crew("crew: an answer and a kill", outcomes=BLOCKS, answers=1, kills=1),
    crew("crew: two answers", outcomes=("tell", "blocked"), answers=2),
    crew("crew: an answer, a task is quarantined", answers=1, kills=1, most_deaths=1),
    crew("crew: an answer and a save", outcomes=("done", "blocked"), answers=1, looks=1, saves=1),
    crew("crew: an approval and a kill", roots=SAME, outcomes=("done", "blocked"), approvals=1, kills=1),
    crew("crew: approvals and an answer", roots=SAME, outcomes=("done", "blocked"), approvals=2, answers=1),
    crew("crew: an approval and a save", roots=SAME, outcomes=("blocked",), approvals=1, looks=1, saves=1),
    view("view: in place, two saves, a crash", editor("in place", ALL, loads=2, saves=2), crew=BOTH, crashes=1),
    view("view: in place, three saves of one buffer", editor("in place", saves=3), crew=BOTH),
    view("view: opens first, two saves, two crashes", editor("opens first", loads=2, saves=2), crashes=2),
    view("view: renames, two saves, a crash", editor("renames", ALL, loads=2, saves=2), crew=BOTH, crashes=1),
    view("view: moves away, two saves, a crash", editor("moves away first", loads=2, saves=2), crew=BOTH, crashes=1),
    view("view: no exchange, in place", editor("in place", saves=2), crashes=1, swap="move away, then link"),
    view("view: no exchange, renames", editor(saves=2), crashes=1, swap="move away, then link"),
    view("view: two editors, renaming", editor(), editor(edits="add y, toggle, delete"), crashes=1),
    view("view: two editors, other styles", editor("in place"), editor("moves away first", "add y, toggle")),
    view("view: a checkout of an old version", editor(loads=2, saves=2), checkouts=1, crashes=1),
    view("view: the editor crashes in a save", editor("in place", loads=2, saves=2), editor_crashes=1, crashes=1),
    view("view: the marker is dropped", editor(edits="add x, drop the marker, toggle", saves=3), crew=REPORT),
    view("view: more items than are shown", editor(loads=2, saves=2), items=A_AND_C, crew=BOTH, most_shown=1),
    view("view: an item that was done", editor(edits="toggle", loads=2, saves=3), items=(("a", DONE),), crashes=1),
    view("view: the history comes from a backup", editor(loads=2, saves=2), backups=1),
    view("view: Planning rewrites the document", editor(loads=2, saves=2), crew=PLANS, crashes=1),
    Case("author: agents have a work tree of their own", Author()),
    Case("order: reports, joins and edits by hand", Table()),
)

DESIGN = (
    crew("design: ids from (task, ordinal) only", breaks="D1", looks=1, saves=1, ids="task, ordinal"),
    crew("design: a report closes what joined unseen", breaks="D1", roots=SAME, closing="everything, by a report"),
    crew("design: a save closes the same", breaks="D3", roots=SAME, looks=1, saves=1, closing="everything, by a save"),
    crew("design: an alert is a record of its own", breaks="D1", kills=2, crashes=1, quarantine="alert afterwards"),
    crew("design: every end of a worker counts as a death", breaks="D8", crashes=2, deaths="every end"),
    crew("design: giving up leaves the claim", breaks="D8", kills=2, give_up_after=2, giving_up="leaves it open"),
    crew("design: bells only to those concerned", breaks="D8", bell="those concerned", timer="none"),
    crew("design: half-imported is what the watcher saw", breaks="D8", looks=1, saves=1, end="heads and the watcher"),
    crew("design: joins cost no hop", breaks="D8", roots=SAME, outcomes=("tell",), looks=1, saves=1, joins="are free"),
    crew("design: a post without re begins a thread", breaks="D8", thread="fresh"),
    Case("design: a late report is dropped", Table(CrewRules(late_report="is dropped")), breaks="D9"),
    Case("design: an untick of any round", Table(CrewRules(untick="of any round")), breaks="D9"),
    view("design: a hand-added item gets some id, crash", editor(), breaks="D2", crashes=1, hand_ids="random"),
    view("design: a hand-added item gets some id, saved again", editor(saves=2), breaks="D2", hand_ids="random"),
    view(
        "design: same body, so the marker stays", CAREFUL, breaks="D2", rewrite="for the body", taken_back="is ignored"
    ),
    view("design: taken back in a stale buffer", editor(edits="toggle", saves=2), breaks="D2", taken_back="is ignored"),
    view(
        "design: without a marker ticks count", *UNMARKED, breaks="D3", items=(("a", DONE),), unknown="ticks count too"
    ),
    view("design: hidden is present", editor(), breaks="D3", items=A_AND_C, base="what was open", most_shown=1),
    view("design: a marker with a number only", editor(), breaks="D3", backups=1, crew=TWO_POSTS, marker="number"),
    view("design: displaced file read at once, in place", editor("in place"), breaks="D2", settle="file only"),
    view("design: displaced file read at once, opens first", editor("opens first"), breaks="D2", settle="file only"),
    view("design: stray files are swept", editor(), breaks="D2", crashes=1, leftovers="are swept"),
    view("design: temp and displaced file share a name", editor(), breaks="D2", crashes=1, names="one for both"),
    view("design: hard link where there is no exchange", editor(), breaks="D2", swap="hard link, then rename"),
    view("design: a missing file is renamed back", editor("moves away first"), breaks="D2", restoring="may replace"),
    view("design: Planning's text replaces the document", editor(), breaks="D2", crew=PLANS, plan="replaces"),
    Case("design: what changes during a claim is the agent's", Author(rule="while claimed"), breaks="D"),
    Case("design: the same, looked at before and after", Author(rule="by time"), breaks="D2"),
)

MUTANTS = (
    crew("mutant: no epoch fence", breaks="D4", hangs=1, fence="none"),
    crew("mutant: timed leases", breaks="D4", claims="are timed leases"),
    crew("mutant: handover before the old tree is empty", breaks="D4", hangs=1, handover="at once"),
    crew("mutant: a claim trusts an earlier look", breaks="D4", looks=1, saves=1, claiming="looked before"),
    crew("mutant: completion is a record of its own", breaks="D5", kills=1, finish="posts, then completion"),
    crew("mutant: random ids on redo", breaks="D5", unsure=1, ids="random"),
    crew("mutant: idle without the head", breaks="D8", idle="ever"),
    crew("mutant: idle names the head when it is sent", breaks="D8", idle="at the head when sent"),
    crew("mutant: the end looks at the heads first", breaks="D8", looks=1, saves=1, end="heads, then files"),
    crew("mutant: no timer, a bell is lost", breaks="D8", losses=1, timer="none"),
    crew("mutant: the store takes a post to one's own READ", breaks="D6", outcomes=EVERY, own_read="accepted"),
    crew("mutant: an answer renews no budget", breaks="D8", answers=1, outcomes=BLOCKS, budget="is never renewed"),
    crew("mutant: a report renews the budget", breaks="D8", budget="is renewed by every report"),
    crew("mutant: what was heard is news again", breaks="D4", answers=1, outcomes=BLOCKS, heard="is news again"),
    crew(
        "mutant: what was heard is settled",
        breaks="D3",
        roots=SAME,
        outcomes=BLOCKS,
        looks=1,
        saves=1,
        heard="is settled",
    ),
    crew("mutant: an answer opens the same round", breaks="D4", answers=1, outcomes=BLOCKS, opening="the same round"),
    crew(
        "mutant: an approval opens nothing",
        breaks="D8",
        roots=SAME,
        outcomes=BLOCKS,
        approvals=1,
        approval="opens nothing",
    ),
    crew(
        "mutant: an approval opens what is quarantined",
        breaks="D8",
        roots=SAME,
        kills=2,
        approvals=1,
        approval="opens what is quarantined",
    ),
    crew("mutant: an answer in time is not heard", breaks="D8", answers=1, outcomes=BLOCKS, late_news="waits in it"),
    Case("mutant: an approval in time is not heard", Table(CrewRules(late_news="waits in it")), breaks="D9"),
    Case("mutant: every edit is taken for the user's", Author(rule="everything is the user's"), breaks="D6"),
    view("mutant: what a save takes back is applied", editor(), editor(), breaks="D3", taken_back="is applied"),
    view("mutant: no revision marker", editor(), breaks="D3", marker="none"),
    view("mutant: no stability wait", editor("in place"), breaks="D2", settle="nothing"),
    view("mutant: no look at the displaced file", editor(), breaks="D2", swap="rename over"),
    view("mutant: a missing file is a deletion", editor("moves away first"), breaks="D3", missing="is a deletion"),
    view("mutant: every change of a file is put on record", breaks="D7", crew=(), record="every change"),
)


def check(model: Model | Table) -> Result:
    return check_order(model.rules) if isinstance(model, Table) else explore(model)


def main(arguments: list[str]) -> int:
    words = [word for word in arguments if word != "-v"]
    chosen = [case for case in (*HOLD, *DESIGN, *MUTANTS) if not words or any(word in case.name for word in words)]
    gc.disable()  # states are plain tuples, without cycles; collecting costs time and finds nothing
    surprises, states, began = 0, 0, time.perf_counter()
    for case in chosen:
        start = time.perf_counter()
        result = check(case.model)
        expected = result.problem.startswith(case.breaks) if case.breaks else not result.problem
        verdict = result.problem or ("holds" if not case.breaks else f"holds, but {case.breaks} should break")
        verdict = verdict if expected else f"SURPRISE: {verdict}"
        print(f"{case.name:54}{result.states:>9,}{time.perf_counter() - start:6.1f} s  {verdict}", flush=True)  # noqa: T201
        if result.problem and (words or "-v" in arguments or not expected):
            for number, says in enumerate(shortened(result.trace), 1):
                print(f"    {number:3}  {says}")  # noqa: T201
        surprises += not expected
        states += result.states
    print(f"{len(chosen)} cases, {states:,} states, {time.perf_counter() - began:.0f} s, {surprises} surprises")  # noqa: T201
    return 1 if surprises else 0


def shortened(trace: tuple[str, ...], most: int = 24) -> tuple[str, ...]:
    return trace if len(trace) <= most else (*trace[:most], f"… and {len(trace) - most} more of the kind")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
