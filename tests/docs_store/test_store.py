"""The store's promises: rights, one record per cycle, epochs that end, threads that stay bounded, faults that pass."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docs_store import history as history_module
from docs_store.archive import remove
from docs_store.errors import (
    AlreadyReportedError,
    DamageError,
    FencedError,
    InvalidMessageError,
    LockBusyError,
    NotAllowedError,
    StoreError,
    StoreUnavailableError,
    UnknownNameError,
)
from docs_store.messages import (
    SUPERVISOR,
    USER,
    Draft,
    Edit,
    Effect,
    Limits,
    Outcome,
    Question,
    State,
    Status,
    Task,
)
from docs_store.replay import Record, apply
from docs_store.store import Store
from docs_store.topology import DEFAULT, Operation, Phase, Topology
from docs_store.views import completion, render, template

PHASES = tuple(phase.key for phase in DEFAULT.phases)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return opened(tmp_path)


def opened(tmp_path: Path, **given: object) -> Store:
    return Store.open(tmp_path / "crew", head_file=tmp_path / "head", **given)  # type: ignore[arg-type]


def issue(text: str = "it is broken", to: str = "debugging", **more: object) -> Draft:
    return Draft(to=to, kind="Issue", text=text, **more)  # type: ignore[arg-type]


def done(*posts: Draft, detail: str = "did it", **more: object) -> Outcome:
    return Outcome(result="done", detail=detail, posts=posts, **more)  # type: ignore[arg-type]


def blocked(*posts: Draft) -> Outcome:
    return Outcome(result="blocked", detail="needs a person", posts=posts)


def claimed(store: Store, phase: str = "debugging", epoch: int = 1) -> Task:
    """The phase's next task, claimed by a fresh or the present epoch."""
    if store.state.epochs.get(phase) is None or store.state.epochs[phase].number < epoch:
        store.start_epoch(phase, epoch, died=False)
    task = store.claim(phase, epoch)
    assert task is not None
    return task


def status(store: Store, known: str) -> Status:
    return store.state.messages[known].status


def by_hand(store: Store, *effects: Effect, document: str = "DEBUG_READ") -> int | None:
    return store.import_edit(document, lambda _: Edit(document=document, rev=1, effects=effects))


def tick(store: Store, known: str, *seen: str) -> None:
    by_hand(store, Effect(what="tick", id=known, seen=seen or store.state.messages[known].parts))


def untick(store: Store, known: str, of_round: int | None = None) -> None:
    present = store.state.messages[known].round
    by_hand(store, Effect(what="untick", id=known, round=present if of_round is None else of_round))


def killed(store: Store, epoch: int, phase: str = "debugging") -> None:
    store.start_epoch(phase, epoch, died=True, reason="SIGKILL")


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", PHASES)
@pytest.mark.parametrize("by", [*PHASES, USER, SUPERVISOR, "nobody"])
def test_the_store_asks_the_table_for_every_post(store: Store, by: str, to: str) -> None:
    """A post by anybody to anybody is taken exactly if the table of rights allows it, and else leaves no trace."""
    before = store.head
    if DEFAULT.allows(by, DEFAULT.read_document(to), Operation.POST):
        assert store.post(by, issue(to=to)).new
    else:
        with pytest.raises(NotAllowedError, match=f"{by} may not post"):
            store.post(by, issue(to=to))
        assert store.refresh().n == before


def test_a_forbidden_post_refuses_the_whole_cycle(store: Store) -> None:
    """A cycle that asks for one thing it may not do has done nothing; it can report as blocked then."""
    store.post(USER, issue())
    task = claimed(store)
    before = store.head
    with pytest.raises(NotAllowedError):
        store.finish("debugging", 1, task, done(issue(to="qa"), issue(to="debugging")))
    assert store.refresh().n == before
    assert not store.finish("debugging", 1, task, blocked()).late


def test_only_planning_rewrites_strategic_documents(store: Store) -> None:
    """Every other phase is refused, whatever the document."""
    for phase in PHASES:
        store.post(USER, issue(to=phase))
        task = claimed(store, phase)
        outcome = done(strategic={"ARCHITECTURE": "# ARCHITECTURE\nnew\n"}, read={"ARCHITECTURE": 0})
        if phase == "planning":
            store.finish(phase, 1, task, outcome)
        else:
            with pytest.raises(NotAllowedError, match="may not rewrite ARCHITECTURE"):
                store.finish(phase, 1, task, outcome)


@pytest.mark.parametrize(("ticked", "allowed"), [(18, False), (19, True), (20, True)])
def test_master_plan_waits_for_95_percent(store: Store, ticked: int, *, allowed: bool) -> None:
    """MASTER_PLAN is taken from 19 of 20 task items on, counted with what the same cycle ticks."""
    store.create_documents({document.name: template(document) for document in DEFAULT.documents})
    store.post(USER, issue(to="planning"))
    task = claimed(store, "planning")
    items = "".join(f"- [{'x' if n < ticked else ' '}] item {n}\n" for n in range(20))
    objectives = store.text("PRIMARY_OBJECTIVES").replace("## Objectives\n", f"## Objectives\n\n{items}")
    plan = store.text("MASTER_PLAN").replace("## Achievements\n", "## Achievements\n\nAll of it.\n")
    read = {name: store.state.documents[name].n for name in ("PRIMARY_OBJECTIVES", "MASTER_PLAN")}
    outcome = done(strategic={"PRIMARY_OBJECTIVES": objectives, "MASTER_PLAN": plan}, read=read)
    if allowed:
        store.finish("planning", 1, task, outcome)
        assert "All of it." in store.text("MASTER_PLAN")
        assert completion(store.state) >= 0.95
    else:
        with pytest.raises(NotAllowedError, match=r"it is 90\.0%"):
            store.finish("planning", 1, task, outcome)
        assert "All of it." not in store.text("MASTER_PLAN")


def test_an_unchanged_master_plan_is_no_update(store: Store) -> None:
    """Handing back what was read asks for nothing, so that no rule is broken by it."""
    store.create_documents({document.name: template(document) for document in DEFAULT.documents})
    store.post(USER, issue(to="planning"))
    task = claimed(store, "planning")
    text, n = store.text("MASTER_PLAN"), store.state.documents["MASTER_PLAN"].n
    store.finish("planning", 1, task, done(strategic={"MASTER_PLAN": text}, read={"MASTER_PLAN": n}))
    assert store.state.documents["MASTER_PLAN"].n == n


def test_what_a_person_wrote_meanwhile_stays(store: Store) -> None:
    """Planning's text is merged with an edit that came in after Planning had read."""
    store.create_documents({document.name: template(document) for document in DEFAULT.documents})
    store.post(USER, issue(to="planning"))
    task = claimed(store, "planning")
    text, n = store.text("ARCHITECTURE"), store.state.documents["ARCHITECTURE"].n
    base = store.state.documents["ARCHITECTURE"].base.replace("## Modules\n", "## Modules\n\nBy a person.\n")
    store.import_edit("ARCHITECTURE", lambda _: Edit(document="ARCHITECTURE", rev=n, base=base))
    mine = text.replace("## Current\n", "## Current\n\nBy Planning.\n")
    store.finish("planning", 1, task, done(strategic={"ARCHITECTURE": mine}, read={"ARCHITECTURE": n}))
    after = store.text("ARCHITECTURE")
    assert "By a person." in after
    assert "By Planning." in after
    assert after.count("Last Updated:") == 1
    assert after.count("<!-- rev:") == 1


def test_a_rewrite_must_say_what_it_read(store: Store) -> None:
    """Without the revision it read a rewrite would replace what came since, and is refused."""
    store.post(USER, issue(to="planning"))
    with pytest.raises(InvalidMessageError, match="without saying which revision"):
        store.finish("planning", 1, claimed(store, "planning"), done(strategic={"ARCHITECTURE": "x"}))


# --- messages ---------------------------------------------------------------------------------------------------------


def test_an_id_is_posted_once(store: Store) -> None:
    """The same id again gives the same answer and writes nothing, also after reopening and with other words."""
    first = store.post(USER, issue(), id="finding-1")
    head = store.head
    assert first.new
    again = opened(store.folder.parent).post(USER, issue("other words"), id="finding-1")
    assert (again.id, again.joined, again.new) == (first.id, first.joined, False)
    assert store.refresh().n == head


def test_ids_without_a_wish_are_new_and_repeatable(tmp_path: Path) -> None:
    """Each message gets its own id, and the same run with the same store id gives the same ones."""
    runs = []
    for name in ("a", "b"):
        store = Store.open(tmp_path / name, store_id="same")
        runs.append([store.post(USER, issue(f"{n}")).id for n in range(20)])
    assert len(set(runs[0])) == 20
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("draft", "match"),
    [
        (issue("x" * 65537), "65537 bytes; at most 65536"),
        (issue("é" * 32769), "65538 bytes"),
        (issue("  \n"), "is empty"),
        (issue("\ud800"), "not valid Unicode"),
        (issue(priority="URGENT"), "no priority; there are: HIGH"),
        (issue(section="misc"), "no section"),
        (replace(issue(), kind="Bug"), "no kind"),  # type: ignore[arg-type]
        (issue(thread=""), "cannot name a thread"),
        (issue(thread="a\nb"), "cannot name a thread"),
        (issue(data={"x": object()}), "cannot be put on record"),
        (issue(data={"x": float("nan")}), "cannot be put on record"),
    ],
)
def test_bad_messages_are_refused_by_name(store: Store, draft: Draft, match: str) -> None:
    """What cannot be a message is refused with the reason, and the store works on."""
    before = store.head
    with pytest.raises(InvalidMessageError, match=match):
        store.post(USER, draft)
    assert store.refresh().n == before
    assert store.post(USER, issue("x" * 65536)).new


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "-->", "a--b", "é", "../x\n"])
def test_bad_ids_are_refused(store: Store, bad: str) -> None:
    """An id must survive in an HTML comment and on a command line."""
    with pytest.raises(InvalidMessageError, match="cannot be an id"):
        store.post(USER, issue(), id=bad)


def test_unknown_names_list_the_known(store: Store) -> None:
    """A wrong phase, document or message id gets an error a person can act on."""
    with pytest.raises(UnknownNameError, match="planning, developer, qa, debugging"):
        store.post(USER, issue(to="tester"))
    with pytest.raises(UnknownNameError, match="QA_READ"):
        store.text("QA_REED")
    with pytest.raises(UnknownNameError, match="no message or question"):
        store.answer("nothing", "yes")


def test_one_open_task_per_receiver_and_thread(store: Store) -> None:
    """A bug that comes from two sides is one task: the second joins, raises the priority and adds its text."""
    first = store.post("qa", issue(thread="f1"))
    second = store.post("planning", issue("seen too", thread="f1", priority="HIGH"))
    elsewhere = store.post("qa", issue(to="developer", thread="f1"))
    assert second.joined == first.id
    assert elsewhere.joined is None
    message = store.state.messages[first.id]
    assert message.parts == (first.id, second.id)
    assert message.priority == "HIGH"
    task = claimed(store)
    assert [part.text for part in task.parts] == ["it is broken", "seen too"]
    assert store.claim("debugging", 1) == task, "there is no second one; the one held is given again"


def test_re_finds_the_thread(store: Store) -> None:
    """A message about another belongs to its thread; a cycle's posts inherit their task's."""
    root = store.post("qa", issue())
    store.post("developer", issue("more", re=root.id))
    task = claimed(store)
    assert len(task.parts) == 2
    result = store.finish("debugging", 1, task, done(issue(to="qa"), issue(to="planning", thread="other")))
    assert [store.state.messages[new].thread for new in result.ids] == [task.thread, "other"]


def test_notes_are_no_tasks(store: Store) -> None:
    """What goes to Context, Requirements or Notes is kept and shown, never claimed, joined or blocked."""
    note = store.post("planning", issue("use UTC", section="requirements", thread="t"))
    other = store.post("planning", issue("and ISO", section="requirements", thread="t"))
    store.start_epoch("debugging", 1, died=False)
    assert store.claim("debugging", 1) is None
    assert note.joined is None
    assert other.joined is None
    assert status(store, other.id) is Status.OPEN


# --- claims and epochs ------------------------------------------------------------------------------------------------


def test_claims_go_by_priority_then_age(store: Store) -> None:
    """HIGH before MEDIUM before LOW, first come first served within."""
    ids = [store.post(USER, issue(priority=p)).id for p in ("LOW", "MEDIUM", "HIGH", "HIGH", "MEDIUM")]
    order = []
    for _ in ids:
        task = claimed(store)
        order.append(ids.index(task.id))
        store.finish("debugging", 1, task, done())
    assert order == [2, 3, 1, 4, 0]


def test_waiting_raises_a_message(tmp_path: Path) -> None:
    """A LOW message that waited long enough goes before a fresh HIGH one: nothing starves."""
    store = opened(tmp_path, limits=Limits(ageing=5))
    low = store.post(USER, issue(priority="LOW"))
    for number in range(10):
        store.post(USER, issue(f"{number}", to="qa"))
    store.post(USER, issue(priority="HIGH"))
    assert claimed(store).id == low.id


def test_an_older_epoch_writes_nothing(store: Store) -> None:
    """Once a newer epoch started, claim and finish of the older one are refused, and its task is open again."""
    store.post(USER, issue())
    task = claimed(store)
    store.start_epoch("debugging", 2, died=False)
    before = store.head
    for attempt in (
        lambda: store.claim("debugging", 1),
        lambda: store.finish("debugging", 1, task, done()),
        lambda: store.post("debugging", issue(to="qa"), epoch=1),
    ):
        with pytest.raises(FencedError, match="epoch 1"):
            attempt()
    assert store.refresh().n == before
    again = claimed(store, epoch=2)
    assert (again.id, again.attempt) == (task.id, 2)


@pytest.mark.parametrize("epoch", [0, 2, 7])
def test_an_epoch_that_never_started_writes_nothing(store: Store, epoch: int) -> None:
    """Only the epoch on record may claim."""
    store.start_epoch("debugging", 1, died=False)
    with pytest.raises(FencedError):
        store.claim("debugging", epoch)


def test_starting_the_same_epoch_twice_is_once(store: Store) -> None:
    """A start that is repeated after an unsure commit ends no claim; an older number is refused."""
    store.post(USER, issue())
    task = claimed(store, epoch=3)
    head = store.head
    assert store.start_epoch("debugging", 3, died=True) == head
    assert status(store, task.id) is Status.CLAIMED
    with pytest.raises(FencedError, match="not newer"):
        store.start_epoch("debugging", 2, died=False)


def test_the_third_death_quarantines_with_its_alert(store: Store) -> None:
    """A message that kills its worker is set aside by the same record that tells planning; the crew goes on."""
    bad, good = store.post(USER, issue("deadly")), store.post(USER, issue("fine"))
    claimed(store)
    for epoch in (2, 3):
        killed(store, epoch)
        assert claimed(store, epoch=epoch).id == bad.id
    before = store.head
    killed(store, 4)
    assert store.head == before + 1
    assert status(store, bad.id) is Status.QUARANTINED
    alerts = [m for m in store.state.messages.values() if m.kind == "Alert"]
    assert [(m.to, m.by, m.priority) for m in alerts] == [("planning", SUPERVISOR, "HIGH")]
    assert bad.id in alerts[0].text
    assert claimed(store, epoch=4).id == good.id
    assert [m.id for m in store.waiting_for_user().quarantined] == [bad.id]


def test_ends_that_were_asked_for_are_no_deaths(store: Store) -> None:
    """However often a worker is stopped and started, its task is not held responsible."""
    post = store.post(USER, issue())
    for epoch in range(1, 10):
        assert claimed(store, epoch=epoch).attempt == epoch
    assert store.state.messages[post.id].deaths == 0


def test_planning_can_be_quarantined_too(store: Store) -> None:
    """The alert about planning's own message goes to planning all the same."""
    store.post(USER, issue(to="planning"))
    claimed(store, "planning")
    for epoch in (2, 3):
        killed(store, epoch, "planning")
        claimed(store, "planning", epoch)
    killed(store, 4, "planning")
    assert claimed(store, "planning", 4).message.kind == "Alert"


def test_giving_up_ends_the_epoch(store: Store) -> None:
    """A phase that is given up writes nothing more, holds nothing, planning is told once; a new epoch revives it."""
    post = store.post(USER, issue())
    task = claimed(store)
    store.give_up("debugging", died=True, reason="5 restarts in 60 s")
    head = store.head
    assert store.give_up("debugging", died=True, reason="again") == head
    assert status(store, post.id) is Status.OPEN
    with pytest.raises(FencedError, match="given up"):
        store.finish("debugging", 1, task, done())
    assert ["5 restarts" in m.text for m in store.state.messages.values() if m.kind == "Alert"] == [True]
    assert claimed(store, epoch=2).id == post.id


def test_a_paused_phase_claims_nothing(store: Store) -> None:
    """Pausing stops new claims; what is in hand can be finished."""
    store.post(USER, issue())
    task = claimed(store)
    store.post(USER, issue("next"))
    store.pause("debugging", True)
    assert not store.finish("debugging", 1, task, done()).late
    assert store.claim("debugging", 1) is None
    store.pause("debugging", False)
    assert store.claim("debugging", 1) is not None


# --- finish -----------------------------------------------------------------------------------------------------------


def test_a_cycle_is_one_record(store: Store) -> None:
    """Completion, posts, report, tree: one record more, whatever the cycle did."""
    store.post(USER, issue())
    task = claimed(store)
    before = store.head
    outcome = done(issue(to="qa"), issue(to="planning"), report=("all well",), tree="abc", data={"commit": "abc"})
    result = store.finish("debugging", 1, task, outcome)
    assert result.n == store.head == before + 1
    assert status(store, task.id) is Status.DONE
    assert store.state.status_lines["debugging"] == ("all well",)
    assert store.state.tree == "abc"
    assert store.state.reports[-1].data == {"commit": "abc"}


def test_a_finish_said_twice_is_one(store: Store) -> None:
    """After an error that hid a commit the retry gets the first answer, also from a store opened anew."""
    store.post(USER, issue())
    task = claimed(store)
    first = store.finish("debugging", 1, task, done(issue(to="qa")))
    head = store.head
    other = opened(store.folder.parent)
    assert other.finish("debugging", 1, task, done(issue(to="qa"))) == first
    assert other.head == head


def test_a_round_has_one_report(store: Store) -> None:
    """A report of another attempt at a round that has one already is refused."""
    store.post(USER, issue())
    task = claimed(store)
    store.finish("debugging", 1, task, done())
    with pytest.raises(AlreadyReportedError, match="epoch 1, attempt 1"):
        store.finish("debugging", 1, replace(task, attempt=2), done())


def test_ids_come_from_task_round_and_ordinal(store: Store) -> None:
    """A killed cycle's redo gives the ids that the cycle would have given; the next round gives others."""
    post = store.post(USER, issue())
    copy = Store.open(store.folder.parent / "copy", store_id=store.state.store_id)
    copy.post(USER, issue(), id=post.id)
    first = store.finish("debugging", 1, claimed(store), done(issue(to="qa")))
    claimed(copy)
    killed(copy, 2)
    redo = copy.finish("debugging", 2, claimed(copy, epoch=2), done(issue(to="qa")))
    assert redo.ids == first.ids
    untick(store, post.id)
    second = store.finish("debugging", 1, claimed(store), done(issue(to="qa")))
    assert second.ids != first.ids


def test_what_joined_unseen_stays_open(store: Store) -> None:
    """A report closes what its author saw; the rest is the next round's, and only that."""
    first = store.post("qa", issue(thread="t"))
    task = claimed(store)
    late = store.post("planning", issue("also this", thread="t"))
    assert late.joined == first.id
    assert not store.finish("debugging", 1, task, done()).late
    message = store.state.messages[first.id]
    assert (message.status, message.round, message.settled) == (Status.OPEN, 1, (first.id,))
    again = claimed(store)
    assert [part.text for part in again.parts] == ["also this"]
    store.finish("debugging", 1, again, done())
    assert status(store, first.id) is Status.DONE


def test_a_tick_closes_only_what_was_shown(store: Store) -> None:
    """A person's tick on an older view leaves open what joined since."""
    first = store.post("qa", issue(thread="t"))
    second = store.post("planning", issue("also this", thread="t"))
    tick(store, first.id, first.id)
    assert status(store, first.id) is Status.OPEN
    assert [part.id for part in claimed(store).parts] == [second.id]
    tick(store, first.id)
    assert status(store, first.id) is Status.DONE


def test_a_late_report_keeps_its_posts(store: Store) -> None:
    """The user's tick beats a report: the task is left alone, what the cycle posted stands."""
    post = store.post(USER, issue())
    task = claimed(store)
    tick(store, post.id)
    result = store.finish("debugging", 1, task, done(issue(to="qa")))
    assert result.late
    assert store.state.messages[post.id].closer == 0
    assert store.state.messages[result.ids[0]].to == "qa"


def test_a_report_of_an_older_round_closes_nothing(store: Store) -> None:
    """Ticked and unticked while at work: the report belongs to the round before, and the task stays open."""
    post = store.post(USER, issue())
    task = claimed(store)
    tick(store, post.id)
    untick(store, post.id)
    assert store.finish("debugging", 1, task, done()).late
    assert status(store, post.id) is Status.OPEN


def test_a_report_of_an_older_round_spares_the_present_claim(store: Store) -> None:
    """Even where the same epoch holds the next round, a report of the one before closes nothing."""
    post = store.post(USER, issue())
    task = claimed(store)
    tick(store, post.id)
    untick(store, post.id)
    again = claimed(store)
    assert store.finish("debugging", 1, task, done()).late
    assert status(store, post.id) is Status.CLAIMED
    assert not store.finish("debugging", 1, again, done()).late


def test_an_untick_is_of_the_round_it_saw(store: Store) -> None:
    """A stale untick does not reopen a later round."""
    post = store.post(USER, issue())
    for _ in range(2):
        store.finish("debugging", 1, claimed(store), done())
        untick(store, post.id)
    store.finish("debugging", 1, claimed(store), done())
    untick(store, post.id, 0)
    assert status(store, post.id) is Status.DONE
    untick(store, post.id, 2)
    assert status(store, post.id) is Status.OPEN


def test_deleted_and_restored(store: Store) -> None:
    """A withdrawn message is no work; restored it is, in a new round."""
    post = store.post(USER, issue())
    by_hand(store, Effect(what="delete", id=post.id, seen=(post.id,)))
    store.start_epoch("debugging", 1, died=False)
    assert store.claim("debugging", 1) is None
    by_hand(store, Effect(what="restore", id=post.id))
    assert claimed(store).round == 1


def test_only_its_receiver_finishes_a_task(store: Store) -> None:
    """A phase cannot report on another's task, with whatever epoch."""
    store.post(USER, issue())
    task = claimed(store)
    store.start_epoch("qa", 1, died=False)
    with pytest.raises(NotAllowedError, match="is a task of debugging"):
        store.finish("qa", 1, task, done())


@pytest.mark.parametrize(
    "outcome",
    [
        done(detail=" "),
        Outcome(result="maybe", detail="x"),  # type: ignore[arg-type]
        done(report=("x" * 70000,)),
        done(issue("\ud800", to="qa")),
    ],
)
def test_bad_outcomes_are_refused(store: Store, outcome: Outcome) -> None:
    """An outcome that cannot be put on record is the driver's mistake, and changes nothing."""
    store.post(USER, issue())
    task = claimed(store)
    before = store.head
    with pytest.raises(InvalidMessageError):
        store.finish("debugging", 1, task, outcome)
    assert store.refresh().n == before


# --- budget and answers -----------------------------------------------------------------------------------------------


def ping_pong(store: Store, kind: str = "Issue", rounds: int = 100) -> int:
    """QA and debugging hand one thread to and fro until nobody has anything to do; the number of cycles."""
    for cycle in range(rounds):
        phase, other = (("debugging", "qa"), ("qa", "debugging"))[cycle % 2]
        store.start_epoch(phase, store.state.epochs[phase].number + 1 if phase in store.state.epochs else 1, died=False)
        task = store.claim(phase, store.state.epochs[phase].number)
        if task is None:
            return cycle
        store.finish(phase, task.epoch, task, done(Draft(to=other, kind=kind, text="your turn")))  # type: ignore[arg-type]
    return rounds


def test_a_thread_has_a_budget(store: Store) -> None:
    """After 20 messages about one thing the next waits for the user."""
    store.post(USER, issue())
    assert ping_pong(store) == 20
    waiting = store.waiting_for_user().blocked
    assert len(waiting) == 1
    assert "20 messages" in waiting[0].detail


def test_an_answer_renews_the_budget(store: Store) -> None:
    """The user's answer opens what was blocked, with the answer joined to it, and the thread may go on as long."""
    store.post(USER, issue())
    ping_pong(store)
    message = store.waiting_for_user().blocked[0]
    store.answer(message.id, "try the other way")
    task = claimed(store, message.to, store.state.epochs[message.to].number)
    assert task.id == message.id
    assert [part.text for part in task.parts][-1] == "try the other way"
    assert task.round == 1
    assert not store.waiting_for_user()


def test_an_approval_renews_the_budget(store: Store) -> None:
    """A thread that was approved begins to count anew, so that a later finding about it is no hop too many."""
    root = store.post(USER, issue(thread="t"))
    store.finish("debugging", 1, claimed(store), done())
    for number in range(30):
        store.post("qa", Draft(to="planning", kind="Approved", text=f"good {number}", thread="t"))
    assert status(store, root.id) is Status.DONE
    assert not store.waiting_for_user().blocked


def test_joining_costs_a_hop(tmp_path: Path) -> None:
    """What joins counts too: else two phases could feed a task for ever."""
    store = opened(tmp_path, limits=Limits(hops=3))
    store.post("qa", issue(thread="t"))
    for number in range(3):
        task = claimed(store)
        store.post("qa", issue(f"again {number}", thread="t"))
        store.finish("debugging", 1, task, done())
    assert [m.detail[:10] for m in store.waiting_for_user().blocked] == ["3 messages"]


def test_blocked_work_is_answered(store: Store) -> None:
    """A blocked report puts the task to the user; the answer brings it back; a done one takes no answer."""
    post = store.post(USER, issue())
    store.finish("debugging", 1, claimed(store), blocked())
    assert [m.detail for m in store.waiting_for_user().blocked] == ["needs a person"]
    store.answer(post.id, "here is the key")
    task = claimed(store)
    assert (task.message.kind, [part.kind for part in task.parts]) == ("Issue", ["Answer"])
    store.finish("debugging", 1, task, done())
    with pytest.raises(StoreError, match="is done and takes no answer"):
        store.answer(post.id, "more")


def test_an_answer_to_a_quarantined_message_forgives_its_deaths(store: Store) -> None:
    """After an answer it takes three new deaths to quarantine the message again."""
    post = store.post(USER, issue())
    claimed(store)
    for epoch in (2, 3, 4):
        killed(store, epoch)
        store.claim("debugging", epoch)
    assert status(store, post.id) is Status.QUARANTINED
    store.answer(post.id, "fixed your memory")
    claimed(store, epoch=4)
    killed(store, 5)
    assert status(store, post.id) is Status.OPEN


def test_an_answer_puts_no_second_task_beside_an_open_one(store: Store) -> None:
    """What is quarantined waits while another task of its thread is open; when that is closed, it can be answered."""
    post = store.post(USER, issue(thread="one"))
    claimed(store)
    for epoch in (2, 3, 4):
        killed(store, epoch)
        store.claim("debugging", epoch)
    assert status(store, post.id) is Status.QUARANTINED
    beside = store.post("qa", issue(thread="one"))
    with pytest.raises(StoreError, match=f"goes on as {beside.id}: answer that one"):
        store.answer(post.id, "try again")
    store.finish("debugging", 4, claimed(store, epoch=4), done())
    store.answer(post.id, "try again")
    assert status(store, post.id) is Status.OPEN


def test_questions_are_asked_and_answered_once(store: Store) -> None:
    """A question waits in the inbox until it is answered; asking it again changes nothing."""
    question = Question(id="q1", n=0, at="", about="QA_READ", text="which one?", options=("a", "b"))
    n = store.ask(question)
    assert store.ask(question) == n
    assert [q.text for q in store.waiting_for_user().questions] == ["which one?"]
    store.answer("q1", "a")
    assert not store.waiting_for_user()
    assert store.state.questions["q1"].answer == "a"
    with pytest.raises(StoreError, match="answered already: a"):
        store.answer("q1", "b")


def test_only_the_user_answers(store: Store) -> None:
    """No phase takes its own task out of the user's hands."""
    store.post(USER, issue())
    task = claimed(store)
    store.finish("debugging", 1, task, blocked())
    with pytest.raises(NotAllowedError, match="in the user's place"):
        store.answer(task.id, "go on", by="debugging")


# --- hand edits -------------------------------------------------------------------------------------------------------


def test_an_import_without_effect_is_no_record(store: Store) -> None:
    """Only effects go on record."""
    before = store.head
    assert store.import_edit("QA_READ", lambda _: None) is None
    assert store.import_edit("QA_READ", lambda _: Edit(document="QA_READ", rev=1, heard="text")) is None
    assert store.head == before


def test_an_import_is_one_record(store: Store) -> None:
    """A save that adds, ticks, asks and changes the text around is one record, and moves the document's revision on."""
    post = store.post("qa", issue())
    before = store.head
    edit = Edit(
        document="DEBUG_READ",
        rev=before,
        effects=(
            Effect(what="add", id="hand-1", kind="Issue", text="typed", priority="HIGH"),
            Effect(what="add", id="hand-2", kind="Issue", text="typed and ticked", done=True),
            Effect(what="tick", id=post.id, seen=(post.id,)),
        ),
        questions=(Question(id="q", n=0, at="", about="DEBUG_READ", text="and this?"),),
        base="# DEBUG_READ\n",
        heard="the whole save",
    )
    assert store.import_edit("DEBUG_READ.md", lambda _: edit) == before + 1 == store.head
    document = store.state.documents["DEBUG_READ"]
    assert (document.n, document.by, document.base) == (before + 1, USER, "# DEBUG_READ\n")
    assert document.heard == {before: "the whole save"}
    assert [status(store, known) for known in ("hand-1", "hand-2", post.id)] == [Status.OPEN, Status.DONE, Status.DONE]
    assert store.import_edit("DEBUG_READ", lambda _: replace(edit, rev=None)) is not None
    assert len(store.state.messages) == 3, "an id that is there is not added again"


def test_templates_are_put_on_record_once(store: Store) -> None:
    """Creating the documents again leaves what was written since alone."""
    templates = {document.name: template(document) for document in DEFAULT.documents}
    assert len(store.create_documents(templates)) == 13
    head = store.head
    assert store.create_documents(templates) == ()
    assert store.head == head
    assert store.text("QA_READ").startswith("# QA_READ\n")


def test_phases_of_one_s_own_have_documents_and_rights(tmp_path: Path) -> None:
    """Any set of phases works as the four do: their documents, their flows, their rights; others are unknown."""
    phases = (
        Phase(key="author", title="Author", prefix="AUTHOR", plans=True),
        Phase(key="editor", title="Editor", prefix="EDITOR"),
    )
    store = opened(tmp_path, topology=Topology(phases=phases))
    posted = store.post("author", Draft(to="editor", kind="Review", text="chapter one"))
    assert f"- [ ] Review: chapter one (from Author) <!-- id:{posted.id} -->" in store.text("EDITOR_READ")
    task = claimed(store, "editor")
    store.finish("editor", 1, task, done(Draft(to="author", kind="Approved", text="good")))
    assert "Approved: good (from Editor)" in store.text("AUTHOR_READ")
    assert "### To Author" in store.text("EDITOR_WRITE")
    with pytest.raises(NotAllowedError):
        store.post("editor", Draft(to="editor", kind="Review", text="to myself"))
    with pytest.raises(UnknownNameError, match="author, editor"):
        store.post(USER, issue())
    again = opened(tmp_path, topology=Topology(phases=phases))
    assert again.state == store.state


# --- looking ----------------------------------------------------------------------------------------------------------


def test_any_earlier_state_can_be_had(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`state_at(n)` is what the state was after record n; a number that is not there is an error."""
    monkeypatch.setattr("docs_store.store.SNAPSHOT_EVERY", 2)
    states = {}
    for number in range(5):
        store.post(USER, issue(f"{number}"))
        states[store.head] = len(store.state.messages)
    for n, count in states.items():
        assert len(store.state_at(n).messages) == count
    assert store.state_at(1).messages == {}
    with pytest.raises(StoreError, match="no record 99"):
        store.state_at(99)


def test_unread_is_what_came_since(store: Store) -> None:
    """A reader's cursor survives a restart and tells just what is new."""
    store.post(USER, issue("old"))
    assert [m.text for m in store.unread("qa", "DEBUG_READ").messages] == ["old"]
    store.mark_read("qa", "DEBUG_READ")
    store.mark_read("qa", "DEBUG_WRITE")
    assert not store.unread("qa", "DEBUG_READ")
    store.post("qa", issue("new"))
    task = claimed(store)
    store.finish("debugging", 1, task, done(detail="fixed"))
    again = opened(store.folder.parent)
    assert [m.text for m in again.unread("qa", "DEBUG_READ").messages] == ["new"]
    assert [r.detail for r in again.unread("qa", "DEBUG_WRITE.md").reports] == ["fixed"]
    assert [m.text for m in again.unread("planning", "DEBUG_READ").messages] == ["old", "new"]


def test_a_cursor_that_cannot_be_kept_is_said(store: Store, tmp_path: Path) -> None:
    """A link is not followed, and a file in the way is the disk's trouble; what was unread stays so."""
    store.post(USER, issue())
    cursors = store.folder / ".history" / "cursors"
    cursors.write_text("")
    with pytest.raises(StoreUnavailableError, match="stays unread"):
        store.mark_read("qa", "DEBUG_READ")
    cursors.unlink()
    if sys.platform != "win32":
        cursors.symlink_to(tmp_path)
        with pytest.raises(StoreError, match="symbolic link"):
            store.mark_read("qa", "DEBUG_READ")
    assert store.unread("qa", "DEBUG_READ")


def test_the_lock_can_be_held_to_look_at_the_head(store: Store) -> None:
    """Within `hold` nobody else appends, and this thread's own operations still work."""
    other = opened(store.folder.parent, deadline=0.05)
    with store.hold() as state:
        n = state.n
        with pytest.raises(LockBusyError, match=str(os.getpid())):
            other.post(USER, issue())
        store.post(USER, issue())
        assert state.n == n + 1


# --- restarts and faults ----------------------------------------------------------------------------------------------


def worked(store: Store, count: int = 30) -> None:
    """A little of everything."""
    for number in range(count):
        store.post(USER, issue(f"{number}", thread=f"t{number % 3}"))
        task = claimed(store)
        store.finish("debugging", 1, task, done(issue(to="qa"), detail=f"did {number}"))


def test_reopening_gives_the_same_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store opened anew, from the snapshot or from record 1, is in the same state as one that lived through it."""
    monkeypatch.setattr("docs_store.store.SNAPSHOT_EVERY", 7)
    worked(store)
    archive = store.folder / ".history" / "archive.db"
    assert archive.exists()
    assert opened(store.folder.parent).state == store.state
    remove(archive)
    assert opened(store.folder.parent).state == store.state
    assert store.state_at(store.head) == store.state


def test_opening_begins_at_the_snapshot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what came after the snapshot is replayed, however long the history before it."""
    monkeypatch.setattr("docs_store.store.SNAPSHOT_EVERY", 20)
    worked(store)
    applied: list[int] = []

    def counting(state: State, record: Record, topology: Topology) -> None:
        applied.append(record.n)
        apply(state, record, topology)

    monkeypatch.setattr("docs_store.store.apply", counting)
    assert opened(store.folder.parent).state == store.state
    assert len(applied) < 20 < store.head


def test_a_store_with_nothing_new_reads_nothing(store: Store) -> None:
    """Refreshing sees what another store wrote, and is the same store's own head after that."""
    other = opened(store.folder.parent)
    store.post(USER, issue())
    assert other.head != store.head
    assert other.refresh().n == store.head
    assert other.state == store.state


def test_verify_names_the_first_bad_record(store: Store) -> None:
    """A byte changed somewhere in the past is found by its record; a sound history has a good verdict."""
    worked(store)
    assert store.verify().ok
    assert store.verify().n == store.head
    path = store.folder / ".history" / "0000000001.jsonl"
    data = path.read_bytes()
    at = data.index(b"did 7")
    path.write_bytes(data[:at] + b"did 8" + data[at + 5 :])
    verdict = store.verify()
    assert not verdict.ok
    assert verdict.bad == data[:at].count(b"\n") + 1
    assert verdict.file == path


def test_damage_makes_the_store_read_only(store: Store) -> None:
    """Where the past was changed nothing is appended, and every write says why; what is known can still be read."""
    worked(store, 3)
    path = store.folder / ".history" / "0000000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(DamageError, match="was cut"):
            store.post(USER, issue())
    assert path.read_bytes() == before
    with pytest.raises(DamageError, match="wiped or cut"):
        opened(store.folder.parent)
    path.write_bytes(b"".join(lines))
    assert store.verify().ok
    assert store.post(USER, issue()).new


def test_another_history_in_its_place_is_damage(store: Store) -> None:
    """An open store does not go over to a sound history that is not the one it knows."""
    worked(store, 2)
    other = Store.open(store.folder.parent / "other")
    worked(other, 5)
    path = store.folder / ".history" / "0000000001.jsonl"
    kept = path.read_bytes()
    path.write_bytes((other.folder / ".history" / "0000000001.jsonl").read_bytes())
    with pytest.raises(DamageError, match="replaced"):
        store.refresh()
    with pytest.raises(DamageError, match="replaced"):
        store.post(USER, issue())
    assert not store.verify().ok
    path.write_bytes(kept)
    assert store.verify().ok
    assert store.post(USER, issue()).new


def test_a_history_too_damaged_to_open_can_be_examined(store: Store) -> None:
    """The verdict names the first bad record without a store, and is good where nothing is wrong."""
    worked(store, 2)
    head = store.folder.parent / "head"
    assert Store.examine(store.folder, head_file=head).n == store.head
    path = store.folder / ".history" / "0000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":3,', b'"n":4,', 1))
    verdict = Store.examine(store.folder, head_file=head)
    assert (verdict.ok, verdict.n, verdict.bad, verdict.file) == (False, 2, 3, path)
    path.unlink()
    assert "missing" in Store.examine(store.folder, head_file=head).problem


def spoil(store: Store, n: int) -> Path:
    """Change a byte of record n."""
    path = store.folder / ".history" / "0000000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[n - 1] = lines[n - 1].replace(b'"v":1', b'"v":7')
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("n", [1, 9])
def test_a_damaged_history_can_be_read_up_to_there(store: Store, n: int) -> None:
    """Whoever asks for it gets the state before the first bad record, and no way to write."""
    worked(store, 5)
    good = store.state_at(n - 1) if n > 1 else None
    spoil(store, n)
    with pytest.raises(DamageError, match=f"record {n}"):
        opened(store.folder.parent)
    reader = opened(store.folder.parent, damaged=True)
    assert reader.damage is not None
    assert (reader.head, reader.refresh().n) == (n - 1, n - 1)
    assert good is None or reader.state == good
    assert reader.text("DEBUG_READ").startswith("# DEBUG_READ")
    with pytest.raises(DamageError):
        reader.post(USER, issue())
    assert not reader.verify().ok


def test_a_damaged_end_is_set_aside_on_request(store: Store) -> None:
    """The good records stay, the rest is kept in a folder of its own, and that it was done is on record."""
    worked(store, 5)
    folder, head = store.folder, store.folder.parent / "head"
    assert Store.set_aside(folder, head_file=head) is None, "nothing is set aside of a sound history"
    path = spoil(store, 9)
    spoilt = path.read_bytes()
    done = Store.set_aside(folder, head_file=head)
    assert done is not None
    assert (done.n, done.folder.name) == (8, "aside-0000000009")
    assert (done.folder / path.name).read_bytes() == spoilt
    again = opened(folder.parent)
    assert again.verify().ok
    assert [record.kind for record in again.records(8)] == ["set aside"]
    assert [m.kind for m in again.state.messages.values() if m.n == 9] == ["Alert"]
    assert again.post(USER, issue()).new
    spoil(store, 10)
    assert Store.set_aside(folder, head_file=head) is not None


def test_a_gap_is_set_aside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind a missing segment follows nothing any more; a history without its beginning begins anew."""
    monkeypatch.setattr(history_module, "SEGMENT_BYTES", 2000)
    store = opened(tmp_path)
    worked(store, 9)
    folder, head = store.folder, store.folder.parent / "head"
    for missing, left in ((1, 1), (0, 0)):
        segments = sorted((folder / ".history").glob("*.jsonl"))
        segments[missing].unlink()
        done = Store.set_aside(folder, head_file=head)
        assert done is not None
        assert (done.n > 0) == (left > 0)
        store = opened(folder.parent)
        assert store.verify().ok
        worked(store, 9)


def test_a_wiped_history_is_not_begun_anew(store: Store) -> None:
    """Without its records the folder is damage, not a fresh start."""
    worked(store, 2)
    for path in (store.folder / ".history").glob("*.jsonl"):
        path.unlink()
    with pytest.raises(DamageError):
        opened(store.folder.parent)
    with pytest.raises(DamageError):
        store.post(USER, issue())
    shutil.rmtree(store.folder / ".history")
    with pytest.raises(DamageError, match="missing"):
        store.post(USER, issue())
    with pytest.raises(DamageError):
        opened(store.folder.parent)


def test_a_lock_that_cannot_be_opened_is_said(store: Store) -> None:
    """A folder in which this user cannot write stops nobody from looking, and writing says what to do."""
    lock = store.folder / ".history" / "lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(StoreUnavailableError, match="Make the folder writable"):
        store.post(USER, issue())
    assert Store.open(store.folder).head == store.head


def test_no_history_is_created_unless_wanted(tmp_path: Path) -> None:
    """Looking into a folder without a history leaves it as it is."""
    with pytest.raises(StoreError, match="begin one with"):
        opened(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []
    assert sorted(p.name for p in opened(tmp_path).folder.iterdir()) == [".history"]


@pytest.mark.only_on("posix", reason="symbolic links need rights on Windows")
def test_a_linked_history_folder_is_refused(tmp_path: Path) -> None:
    """A history that lives elsewhere by a symbolic link is not used."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "crew").mkdir()
    (tmp_path / "crew" / ".history").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        opened(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_changes_nothing_and_passes(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """While the disk takes nothing, operations say so and nothing is half done; once it does, work goes on."""
    store.post(USER, issue())
    task = claimed(store)
    before = store.head

    def failing(fd: int, *_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(history_module, "sync", failing)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.finish("debugging", 1, task, done(issue(to="qa")))
        assert store.refresh().n == before
    result = store.finish("debugging", 1, task, done(issue(to="qa")))
    assert (result.n, result.late) == (before + 1, False)
    assert opened(store.folder.parent).verify().ok


def test_a_commit_that_looked_failed_is_not_done_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that reached the disk although its author saw an error counts once when it is retried."""
    store.post(USER, issue())
    task = claimed(store)

    def failing(fd: int, *_: object) -> None:
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as patch:
        patch.setattr(history_module, "sync", failing)
        patch.setattr(os, "ftruncate", failing)
        with pytest.raises(StoreUnavailableError):
            store.finish("debugging", 1, task, done(issue(to="qa")))
    store.finish("debugging", 1, task, done(issue(to="qa")))
    assert [m.kind for m in store.state.messages.values() if m.to == "qa"] == ["Issue"]
    assert len(store.state.reports) == 1


def test_a_record_read_before_it_was_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another store that saw a record whose sync then failed forgets it, and is no worse for it."""
    store.post(USER, issue())
    other = opened(store.folder.parent)
    seen = []

    def failing(fd: int, *_: object) -> None:
        seen.append(other.refresh().n)
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as patch:
        patch.setattr(history_module, "sync", failing)
        with pytest.raises(StoreUnavailableError):
            store.post(USER, issue("taken back"))
    assert seen == [store.head + 1]
    store.post(USER, issue("something quite different, and longer"))
    assert other.refresh().n == store.refresh().n
    assert other.state == store.state
    assert other.post(USER, issue("and on")).new


class CrashError(BaseException):
    """The process ends here: nothing that runs afterwards may touch the disk."""


class Crashing:
    """The module `os`, until the given call of it; that call, and all after it, end the process."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if not callable(real) or name == "fdopen":
            return real

        def call(*args: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise CrashError
            return real(*args, **more)

        return call


@pytest.mark.parametrize("rolls", [False, True])
def test_a_crash_at_any_system_call_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, rolls: bool) -> None:
    """Wherever the writer stopped, the record is there whole or not at all, and the redo makes it be there once."""
    monkeypatch.setattr(history_module, "SEGMENT_BYTES", 200 if rolls else 1 << 20)
    monkeypatch.setattr("docs_store.store.SNAPSHOT_EVERY", 1)
    outcomes = set()
    for calls in range(1000):
        folder = tmp_path / f"{calls}"
        folder.mkdir()
        store = opened(folder)
        store.post(USER, issue())
        task = claimed(store)
        before = store.head
        crashing = Crashing(calls)
        with monkeypatch.context() as patch:
            patch.setattr(history_module, "os", crashing)
            try:
                store.finish("debugging", 1, task, done(issue(to="qa")))
            except CrashError:
                crashed = True
            else:
                crashed = False
        after = opened(folder)
        outcomes.add(after.head - before)
        assert after.head - before in (0, 1)
        assert after.finish("debugging", 1, task, done(issue(to="qa"))).n == before + 1
        assert opened(folder).verify().ok
        if not crashed:
            break
    assert outcomes == {0, 1}
    assert calls > 10


def test_threads_may_share_a_store(store: Store) -> None:
    """Posts from several threads of one process are each there once."""

    def work(name: str) -> None:
        for number in range(25):
            store.post(USER, issue(f"{name} {number}"), id=f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.state.messages) == 100
    assert opened(store.folder.parent).state == store.state


WRITER = """
import sys
from docs_store import Draft, Store
store = Store.open(sys.argv[1], head_file=sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    store.post("user", Draft(to="qa", kind="Issue", text=f"{sys.argv[3]} {number}"), id=f"{sys.argv[3]}-{number}")
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_loses_nothing_and_leaves_nothing_half(tmp_path: Path) -> None:
    """Two processes post; one is killed in the middle, again and again: what was confirmed is there once, in order."""
    store = opened(tmp_path)
    confirmed: dict[str, int] = {}

    def started(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path / "crew"), str(tmp_path / "head"), name]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    def read(child: subprocess.Popen[str], name: str, count: int) -> None:
        assert child.stdout is not None
        for _ in range(count):
            confirmed[name] = int(child.stdout.readline())

    with started("steady") as steady:
        for kill in range(4):
            with started(f"victim{kill}") as victim:
                read(victim, f"victim{kill}", 5 + 7 * kill)
                victim.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
                rest = (victim.stdout.read() if victim.stdout else "").split()
                confirmed[f"victim{kill}"] = int(rest[-1]) if rest else confirmed[f"victim{kill}"]
            read(steady, "steady", 20)
        steady.kill()
        rest = (steady.stdout.read() if steady.stdout else "").split()
        confirmed["steady"] = int(rest[-1]) if rest else confirmed["steady"]
    assert store.verify().ok
    store.post(USER, issue("after all that"), id="after")
    ids = list(opened(tmp_path).state.messages)
    for name, last in confirmed.items():
        mine = [known for known in ids if known.startswith(f"{name}-")]
        assert mine == [f"{name}-{n}" for n in range(len(mine))]
        assert len(mine) in (last + 1, last + 2), "at most the one that was not confirmed yet is there besides"


def test_views_change_only_where_the_record_says_so(store: Store) -> None:
    """A document whose text changed has a new revision: nothing is shown that its revision does not know."""
    templates = {document.name: template(document) for document in DEFAULT.documents}
    operations: list[Callable[[], object]] = [
        lambda: store.create_documents(templates),
        lambda: store.post("qa", issue(thread="t")),
        lambda: store.post("planning", issue(thread="t", priority="HIGH")),
        lambda: claimed(store),
        lambda: store.finish("debugging", 1, claimed(store), blocked(issue(to="qa"))),
        lambda: store.answer(store.waiting_for_user().blocked[0].id, "like this"),
        lambda: claimed(store),
        lambda: killed(store, 2),
        lambda: claimed(store, epoch=2),
        lambda: store.finish("debugging", 2, claimed(store, epoch=2), done(issue(to="planning"), report=("well",))),
        lambda: untick(store, store.state.reports[-1].task),
        lambda: store.give_up("debugging", died=False, reason="enough"),
        lambda: tick(store, store.state.reports[-1].task),
        lambda: store.pause("qa", True),
        lambda: store.record_tree(head="abc"),
        lambda: store.record_delivery({"files": []}),
    ]

    def texts(state: State) -> dict[str, str]:
        every = {d.name: render(DEFAULT, d, state) for d in DEFAULT.documents}
        return {name: text[: text.rindex("---")] for name, text in every.items()}

    for operate in operations:
        before, revisions = texts(store.state), {name: d.n for name, d in store.state.documents.items()}
        operate()
        for name, text in texts(store.state).items():
            if text != before[name]:
                assert store.state.documents[name].n > revisions.get(name, 0), name


def test_an_approval_reopens_what_was_blocked_in_its_thread(tmp_path: Path) -> None:
    """What a blocked task waited for came about without an answer: its phase looks again, in a new round."""
    store = Store.open(tmp_path / "crew")
    store.start_epoch("planning", 1, died=False)
    blocker = store.post("developer", Draft(to="planning", kind="Blocker", text="stuck", thread="t"))
    task = store.claim("planning", 1)
    assert task is not None
    store.finish("planning", 1, task, Outcome(result="blocked", detail="please decide"))
    store.post("debugging", Draft(to="planning", kind="Issue", text="more about it", thread="t"))
    assert store.state.messages[blocker.id].status is Status.BLOCKED
    store.post("qa", Draft(to="planning", kind="Approved", text="it is gone", thread="t"))
    message = store.state.messages[blocker.id]
    assert (message.status, message.round) == (Status.OPEN, 1)


def test_after_a_blocked_report_only_what_is_new_is_work(tmp_path: Path) -> None:
    """An answer reopens the task with the answer alone: what the report had seen is settled."""
    store = Store.open(tmp_path / "crew")
    store.start_epoch("planning", 1, died=False)
    blocker = store.post("developer", Draft(to="planning", kind="Blocker", text="stuck"))
    task = store.claim("planning", 1)
    assert task is not None
    store.finish("planning", 1, task, Outcome(result="blocked", detail="please decide"))
    store.answer(blocker.id, "do it so")
    again = store.claim("planning", 1)
    assert again is not None
    assert [(part.kind, part.text) for part in again.parts] == [("Answer", "do it so")]


def test_how_many_deaths_quarantine_can_be_changed_and_is_on_record(tmp_path: Path) -> None:
    """From that record on, also for whoever replays the history; what is so already writes nothing."""
    store = Store.open(tmp_path)
    store.set_limits(deaths=2)
    head = store.head
    assert store.set_limits(deaths=2) == head == store.head
    id_ = store.post(SUPERVISOR, Draft(to="qa", kind="Review", text="a task that kills")).id
    for epoch in (1, 2):
        store.start_epoch("qa", epoch, died=epoch > 1)
        assert store.claim("qa", epoch) is not None
    store.start_epoch("qa", 3, died=True, reason="signal 9")
    assert store.state.messages[id_].status == "quarantined"
    again = Store.open(tmp_path)
    assert again.state.limits.deaths == 2
    assert again.state.messages[id_].status == "quarantined"
    with pytest.raises(InvalidMessageError, match="one death at least"):
        store.set_limits(deaths=0)


def test_a_tick_that_saw_less_than_a_blocked_report_leaves_the_rest(tmp_path: Path) -> None:
    """The report heard both parts; the person's view showed one: the other stays blocked."""
    store = Store.open(tmp_path / "crew")
    store.start_epoch("qa", 1, died=False)
    first = store.post("user", Draft(to="qa", kind="Review", text="one", thread="t"))
    store.post("developer", Draft(to="qa", kind="Review", text="two", thread="t"))
    task = store.claim("qa", 1)
    assert task is not None
    store.finish("qa", 1, task, Outcome(result="blocked", detail="please decide"))
    tick = Effect(what="tick", id=first.id, seen=(first.id,), round=0)
    store.import_edit("QA_READ", lambda _state: Edit(document="QA_READ", rev=None, effects=(tick,)))
    assert store.state.messages[first.id].status is Status.BLOCKED


@pytest.mark.parametrize("news", ["answer", "approval"])
def test_what_a_blocked_report_waits_for_may_have_come_while_it_was_at_work(tmp_path: Path, news: str) -> None:
    """An answer or approval that its author had not seen is the work of the next round, as if it came just after."""
    store = Store.open(tmp_path / "crew")
    store.start_epoch("planning", 1, died=False)
    blocker = store.post("developer", Draft(to="planning", kind="Blocker", text="stuck", thread="t"))
    task = store.claim("planning", 1)
    assert task is not None
    if news == "answer":
        store.answer(blocker.id, "do it so")
    else:
        store.post("qa", Draft(to="planning", kind="Approved", text="do it so", thread="t"))
    store.post("debugging", Draft(to="planning", kind="Issue", text="more about it", thread="t"))
    store.finish("planning", 1, task, Outcome(result="blocked", detail="please decide"))
    assert not store.waiting_for_user()
    again = store.claim("planning", 1)
    assert again is not None
    assert again.round == 1
    assert [part.text for part in again.parts] == ["do it so", "more about it"]
    store.finish("planning", 1, again, Outcome(result="blocked", detail="not clear yet"))
    assert store.waiting_for_user(), "that was heard now"
