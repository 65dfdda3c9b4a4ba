"""The comparison of the same work in both modes: equal where it should be, and every planted difference found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs_store.store import Store
from supervisor.config import Config, IpcConfig
from supervisor.exits import UserError
from supervisor.validation import (
    Event,
    Outcome,
    compare,
    copy_workspace,
    require_markable,
    side_by_side,
)
from supervisor.workspace import Workspace

SHOT = b"\x89PNG" + bytes(200)


def event(n: int, **changes: Any) -> Event:
    made = Event("progress", "qa", "testing", n, f"{n} of 9 tests", {"message": "m1", "n": n}, None)
    return replace(made, **changes)


def outcome(*more: Event, **changes: Any) -> Outcome:
    events = {
        "qa": [event(1), event(2), event(3, type="screenshot", data=SHOT), event(4), *more],
        "planning": [event(9, phase="planning")],
    }
    made = Outcome(events=events, documents={"QA_READ.md": "# QA_READ\n\ntext\n"}, files={"a.py": b"x = 1\n"})
    return replace(made, **changes)


def planted(change: Callable[[list[Event]], object]) -> Outcome:
    made = outcome()
    events = list(made.events["qa"])
    change(events)
    return replace(made, events={**made.events, "qa": events})


def test_the_same_is_the_same() -> None:
    """No difference between two equal outcomes."""
    assert compare(outcome(), outcome()) == []


def test_a_dropped_event_is_found() -> None:
    """One difference, on the side that has it."""
    (found,) = compare(outcome(), planted(lambda events: events.pop(1)))
    assert (found.where, found.field, found.stdout) == ("qa, event 2", "event", "")
    assert "2 of 9 tests" in found.queue


def test_a_doubled_event_is_found() -> None:
    """One difference, on the other side."""
    (found,) = compare(outcome(), planted(lambda events: events.insert(1, events[1])))
    assert (found.field, found.queue) == ("event", "")


def test_a_changed_detail_is_found_with_both_sides() -> None:
    """Both texts, and how to mark the field."""

    def change(events: list[Event]) -> None:
        events[1] = event(2, detail="3 of 9 tests")

    (found,) = compare(outcome(), planted(change))
    assert (found.where, found.field) == ("qa, event 2", "detail")
    assert (found.queue, found.stdout, found.mark) == ("2 of 9 tests", "3 of 9 tests", "detail")


def test_a_flipped_byte_of_a_screenshot_is_found() -> None:
    """One bit of 204 bytes."""

    def change(events: list[Event]) -> None:
        events[2] = event(3, type="screenshot", data=SHOT[:-1] + b"\x01")

    (found,) = compare(outcome(), planted(change))
    assert (found.where, found.field) == ("qa, event 3", "data")
    assert "204 bytes" in found.queue


def test_two_events_in_the_other_order_are_found() -> None:
    """Order counts, per worker."""

    def change(events: list[Event]) -> None:
        events[0], events[1] = events[1], events[0]

    assert compare(outcome(), planted(change))


def test_documents_files_and_exit_codes_are_compared() -> None:
    """A line, a byte, a code: one difference each."""
    other = outcome(documents={"QA_READ.md": "# QA_READ\n\ntexts\n"}, files={"a.py": b"x = 2\n"}, exit=1)
    assert [(d.where, d.field) for d in compare(outcome(), other)] == [
        ("QA_READ.md", "line 3"),
        ("a.py", "file"),
        ("the run", "exit code"),
    ]
    assert [d.where for d in compare(outcome(), outcome(documents={}, files={}))] == ["QA_READ.md", "a.py"]


def hashed(commit: str, other: str) -> Outcome:
    event_ = event(5, detail=f"made {commit[:12]} on {other}", summary={"commit": commit, "seconds": 1.5})
    text = f"Last Updated: 2026-11-20T12:00:0{commit[0]}Z\n<!-- rev:7 {commit[:16]} -->\nran {commit[0]}.5 s\n"
    return outcome(event_, documents={"QA_READ.md": text}, hashes=[commit, other])


def test_times_processes_and_hashes_over_them_may_differ() -> None:
    """Other commits and other moments, the same work."""
    assert compare(hashed("1" * 40, "2" * 40), hashed("3" * 40, "4" * 40)) == []


def test_a_hash_stands_for_the_same_thing_on_both_sides() -> None:
    """The second commit where the other side names the first is a difference."""
    one, other = hashed("1" * 40, "2" * 40), hashed("3" * 40, "4" * 40)
    swapped = replace(other, events={**other.events, "qa": [*other.events["qa"][:-1], event(5, detail="x")]})
    swapped.events["qa"][-1] = replace(  # type: ignore[index]
        other.events["qa"][-1], detail=f"made {'3' * 12} on {'3' * 40}"
    )
    assert [d.field for d in compare(one, swapped)] == ["detail"]


def test_what_only_looks_like_a_hash_is_compared_as_it_is() -> None:
    """Hexadecimal text that is no commit's or record's counts, letter by letter."""
    one, other = outcome(event(5, detail="colour deadbeef")), outcome(event(5, detail="colour deadbeee"))
    assert [d.field for d in compare(one, other)] == ["detail"]


@pytest.mark.parametrize("mark", ["detail", "summary.cost", "summary"])
def test_marked_fields_are_left_out(mark: str) -> None:
    """And no others: the unmarked key beside it still counts."""
    one = outcome(event(5, detail="a", summary={"cost": 1}))
    other = outcome(event(5, detail="a" if mark != "detail" else "b", summary={"cost": 1 if mark == "detail" else 2}))
    assert compare(one, other)
    assert compare(one, other, [mark]) == []
    more = outcome(event(5, detail=other.events["qa"][-1].detail, summary={"cost": 1}, pct=6))
    assert [d.field for d in compare(one, more, [mark])] == ["pct"]


def test_the_report_shows_both_sides_and_how_to_mark() -> None:
    """Side under side, and the line for supervisor.toml."""

    def change(events: list[Event]) -> None:
        events[1] = event(2, summary={"message": "m1", "n": 7})

    lines = side_by_side(compare(outcome(), planted(change)))
    assert lines[:3] == ["qa, event 2: summary.n", "  queue  | 2", "  stdout | 7"]
    assert lines[-1] == 'supervisor.toml: [ipc] validation_ignores = ["summary.n"]'


def test_a_mark_that_names_nothing_is_a_mistake() -> None:
    """A typing error must not look like agreement."""
    require_markable(Config(ipc=IpcConfig(validation_ignores=("detail", "summary.cost", "summary.a.b"))))
    with pytest.raises(UserError, match="details"):
        require_markable(Config(ipc=IpcConfig(validation_ignores=("details",))))


events_ = st.lists(
    st.builds(
        Event,
        type=st.sampled_from(["progress", "finding"]),
        phase=st.just("qa"),
        step=st.sampled_from(["", "testing"]),
        pct=st.integers(0, 3),
        detail=st.text(max_size=3),
        summary=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=1),
        data=st.none() | st.binary(max_size=2),
    ),
    max_size=5,
)


@given(events_, events_)
def test_only_equal_sequences_match(left: list[Event], right: list[Event]) -> None:
    """Without times and hashes in them, two sequences match exactly when they are equal."""
    empty = Outcome(events={}, documents={}, files={})
    found = compare(replace(empty, events={"qa": left}), replace(empty, events={"qa": right}))
    assert (found == []) == (left == right)


def test_the_copy_has_the_history_and_not_the_runtime_state(tmp_path: Path) -> None:
    """Files, documents and their history come along; journal, spools, environments and caches do not."""
    root = tmp_path / "shop"
    for name in ("a.py", "crew/MASTER_PLAN.md", ".supervisor/journal.db", ".venv/pyvenv.cfg", "pkg/__pycache__/x.pyc"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    workspace = Workspace(root)
    before = Store.open(workspace.crew, head_file=workspace.head).state.store_id
    copy_workspace(workspace, Config(), tmp_path / "copy")
    files = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert {"a.py", "crew/MASTER_PLAN.md"} <= files
    assert not any(name.startswith((".supervisor", ".venv", "pkg/__pycache__")) for name in files)
    assert Store.open(tmp_path / "copy" / "crew", create=False).state.store_id == before
