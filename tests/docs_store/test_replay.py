"""What records mean, without a disk: the order table, and that replaying is all there is to a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from docs_store.errors import DamageError, UnknownRecordError
from docs_store.messages import Draft, Limits, State, Status
from docs_store.replay import Record, apply, entry, next_task, refused_fixes, waiting_for_user
from docs_store.topology import DEFAULT

Happening = Callable[[State], None]


def happened(state: State, kind: str, by: str = "user", epoch: int = 0, /, **data: Any) -> None:
    """One more record, applied."""
    record = Record(
        n=state.n + 1,
        at=f"t{state.n + 1}",
        by=by,
        epoch=epoch,
        kind=kind,
        data=data,
        prev=state.hash,
        hash=f"h{state.n + 1}",
    )
    apply(state, record, DEFAULT)


def posted(state: State, known: str, thread: str = "t", to: str = "developer", by: str = "qa", **more: Any) -> None:
    draft = Draft(to=to, kind=more.pop("kind", "Issue"), text=known, **more)
    happened(state, "post", by, posts=[entry(draft, known, thread)])


def claimed(state: State, known: str, epoch: int = 1) -> None:
    happened(state, "claim", state.messages[known].to, epoch, phase=state.messages[known].to, id=known)


def reported(state: State, known: str, outcome: str, round_: int, seen: list[str]) -> None:
    """The finish record of a worker of Developer; "tell" posts one message to QA."""
    posts = [entry(Draft(to="qa", kind="Verify", text="x"), f"{known}.{round_}.1", "t")] if outcome == "tell" else []
    happened(
        state,
        "finish",
        "developer",
        1,
        phase="developer",
        task=known,
        round=round_,
        attempt=1,
        seen=seen,
        result="blocked" if outcome == "blocked" else "done",
        detail="so",
        report=[],
        posts=posts,
        strategic={},
        tree=None,
        data={},
    )


def by_hand(state: State, what: str, known: str, seen: list[str], round_: int = 0) -> None:
    effect = {"what": what, "id": known, "seen": seen, "round": round_, "done": False}
    happened(state, "import", document="DEVELOPER_READ", rev=1, effects=[effect], questions=[], base=None, heard=None)


def begun() -> State:
    state = State()
    happened(state, "created", store="s", limits={"hops": 99, "deaths": 3, "ageing": 100})
    happened(state, "epoch", phase="developer", epoch=1, died=False, reason="", posts=[])
    posted(state, "a")
    claimed(state, "a")
    return state


def held() -> State:
    return begun()


def held_and_joined() -> State:
    state = begun()
    posted(state, "b", by="planning")
    return state


def ticked_while_at_work() -> State:
    state = begun()
    by_hand(state, "tick", "a", ["a"])
    return state


def held_a_second_time() -> State:
    state = ticked_while_at_work()
    by_hand(state, "untick", "a", ["a"])
    claimed(state, "a")
    return state


SITUATIONS: Mapping[str, Callable[[], State]] = {
    "held": held,
    "held, one joined": held_and_joined,
    "ticked while at work": ticked_while_at_work,
    "held a second time": held_a_second_time,
}


def left(state: State) -> tuple[str, tuple[str, ...]]:
    """What is left to do in the thread, and what was posted: what must not depend on the order."""
    states = {m.status for m in state.messages.values() if m.to == "developer" and m.status is not Status.JOINED}
    rest = "open" if states & {Status.OPEN, Status.CLAIMED} else "blocked" if Status.BLOCKED in states else "closed"
    return rest, tuple(sorted(state.messages))


def pairs() -> list[Any]:
    """Every report and every join or edit by hand, from every situation in which both can arrive."""
    cases = []
    for where, situation in SITUATIONS.items():
        task = situation().messages["a"]
        others: dict[str, Happening] = {"one joins": lambda state: posted(state, "c")}
        others["an approval joins"] = lambda state: posted(state, "c", kind="Approved")
        for what in ("tick", "delete"):
            for count in range(1, len(task.parts) + 1):
                seen = list(task.parts[:count])
                others[f"{what} of {count}"] = lambda state, what=what, seen=seen: by_hand(state, what, "a", seen)  # type: ignore[misc]
        if task.status is Status.DONE or task.round:
            others["untick of round 0"] = lambda state: by_hand(state, "untick", "a", ["a"], 0)
        for outcome in ("done", "tell", "blocked"):
            report = lambda state, outcome=outcome, task=task: reported(state, "a", outcome, task.round, ["a"])  # noqa: E731
            for name, other in others.items():
                cases.append(pytest.param(situation, report, other, id=f"{where}: {outcome}, {name}"))
    return cases


@pytest.mark.parametrize(("situation", "report", "other"), pairs())
def test_a_report_and_an_edit_in_either_order(
    situation: Callable[[], State], report: Happening, other: Happening
) -> None:
    """Whichever of the two is put on record first, the same is left to do and the same was posted."""
    one, two = situation(), situation()
    report(one)
    other(one)
    other(two)
    report(two)
    assert left(one) == left(two)


def test_an_unknown_kind_is_refused_by_name_and_changes_nothing() -> None:
    """A record of a newer version names its kind, and leaves the state as it was."""
    state = begun()
    before = state.n
    with pytest.raises(UnknownRecordError, match="'dance'"):
        happened(state, "dance")
    assert state.n == before


@pytest.mark.parametrize("kind", ["claim", "finish", "post", "import", "answer", "epoch"])
def test_a_record_that_makes_no_sense_is_damage(kind: str) -> None:
    """A known kind without what it needs is reported with its number, not as a programming error."""
    with pytest.raises(DamageError, match="record 5: its"):
        happened(begun(), kind)


def test_a_gap_in_the_numbers_is_damage() -> None:
    """A record is applied only to the state before it."""
    record = Record(n=9, at="", by="user", epoch=0, kind="post", data={"posts": []}, prev="", hash="")
    with pytest.raises(DamageError, match="follows record 4"):
        apply(begun(), record, DEFAULT)


def test_a_claim_of_what_is_not_open_is_damage() -> None:
    """The table decides: a message that is claimed cannot be claimed."""
    state = begun()
    with pytest.raises(DamageError):
        claimed(state, "a")


def test_refused_fixes_are_counted() -> None:
    """Each time an issue follows a fix in a thread, that fix was refused; an approval begins anew."""
    state = begun()
    for number in range(3):
        posted(state, f"fixed{number}", by="developer", to="qa", kind="Fixed")
        posted(state, f"again{number}", by="qa", to="developer")
    assert refused_fixes(state, "t") == 3
    posted(state, "good", by="qa", to="planning", kind="Approved")
    assert refused_fixes(state, "t") == 0


def test_the_index_of_unfinished_messages_is_what_a_search_finds() -> None:
    """After anything that happened, the shortcut and the whole agree."""
    for situation in SITUATIONS.values():
        state = situation()
        by_hand(state, "delete", "a", list(state.messages["a"].parts))
        posted(state, "late", thread="u")
        searched = {m.id for m in state.messages.values() if m.status in ("open", "claimed", "blocked", "quarantined")}
        assert {known for ids in state.index.unfinished.values() for known in ids} == searched


def test_limits_come_from_the_first_record() -> None:
    """A history counts by the limits that it was begun with."""
    state = State()
    happened(state, "created", store="s", limits={"hops": 1, "deaths": 1, "ageing": 7})
    assert state.limits == Limits(hops=1, deaths=1, ageing=7)
    posted(state, "a")
    posted(state, "b", to="qa", by="planning")
    assert [m.id for m in waiting_for_user(state).blocked] == ["b"]
    message = next_task(state, "developer")
    assert message is not None
    assert message.id == "a"
