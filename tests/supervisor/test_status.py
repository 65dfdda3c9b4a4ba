"""What is shown about a crew and a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docs_store.messages import Epoch, Message, Question, Report, State, Status
from docs_store.topology import DEFAULT
from supervisor.exits import Exit
from supervisor.status import (
    CrewStatus,
    PhaseStatus,
    Summary,
    at_rest,
    load_status,
    save_status,
    summarise,
    waiting,
)
from supervisor.workspace import Workspace

AT = "2026-01-01T00:00:00Z"
RUNNING = CrewStatus(
    workspace="/w",
    pid=42,
    phases={
        phase.key: PhaseStatus(title=phase.title, pid=7, epoch=3, state="working", task="m1", text="Fix it", pct=40)
        for phase in DEFAULT.phases
    },
    queue_depth=3,
    queue_capacity=1000,
    counters={"events": 9},
    workers={"qa": {"stored": 9, "waiting": 1}},
    latency={"qa": {0.0002: 4, float("inf"): 1}, "developer": {0.0002: 2, float("inf"): 0}},
    head=12,
)


def message(n: int, kind: Any, **values: Any) -> Message:
    known: dict[str, Any] = {
        "id": f"m{n}",
        "to": "planning",
        "by": "qa",
        "text": f"text {n}",
        "thread": f"t{n}",
        "n": n,
        "at": AT,
        "status": Status.DONE,
    }
    return Message(kind=kind, **{**known, **values})


def state_of(*messages: Message, **values: Any) -> State:
    state = State(n=99, **values)
    for one in messages:
        put(state, one)
        state.threads.setdefault(one.thread, []).append(one.id)
    return state


def put(state: State, message: Message) -> None:
    state.messages[message.id] = message
    state.index.moved(None, message)


def test_status_json_has_the_stable_keys() -> None:
    """The shape that programs rely on; more keys may be there."""
    said = json.loads(json.dumps(RUNNING.as_json()))
    assert {"pid", "workspace", "phases", "queue", "counters"} <= said.keys()
    assert list(said["phases"]) == ["planning", "developer", "qa", "debugging"]
    for phase in said["phases"].values():
        assert {"pid", "epoch", "state", "task", "pct", "restarts", "mode"} <= phase.keys()
    assert said["queue"] == {"depth": 3, "capacity": 1000}
    assert said["workers"] == {"qa": {"stored": 9, "waiting": 1}}
    assert said["latency"] == {"qa": {"0.0002": 4, "inf": 1}, "developer": {"0.0002": 2, "inf": 0}}
    assert said["latency_total"] == {"0.0002": 6, "inf": 1}


def test_a_saved_status_comes_back_as_it_was(tmp_path: Path) -> None:
    """Another process can show it."""
    place = Workspace(tmp_path)
    place.state.mkdir()
    save_status(place, RUNNING)
    assert load_status(place) == RUNNING


@pytest.mark.parametrize("said", ["", "{", "[]", "{}", '{"phases": {"qa": {"state": "flying"}}}', '{"phases": 3}'])
def test_a_damaged_status_file_is_no_status(tmp_path: Path, said: str) -> None:
    """What cannot be read is not shown, and breaks nothing."""
    place = Workspace(tmp_path)
    place.state.mkdir()
    place.status.write_text(said)
    assert load_status(place) is None


def test_a_crew_at_rest_shows_what_the_history_knows() -> None:
    """Paused and given-up phases are told apart from stopped ones."""
    state = state_of(epochs={"qa": Epoch(number=4, paused=True), "developer": Epoch(number=2, given_up=True)})
    now = at_rest("/w", DEFAULT, state)
    assert {key: phase.state for key, phase in now.phases.items()} == {
        "planning": "stopped",
        "developer": "quarantined",
        "qa": "paused",
        "debugging": "stopped",
    }
    assert (now.pid, now.head, now.phases["qa"].epoch) == (None, 99, 4)


def test_what_waits_for_the_user_is_listed_oldest_first() -> None:
    """Blocked, quarantined, and unanswered questions; nothing else."""
    state = state_of(
        message(5, "Fix", to="debugging", status=Status.BLOCKED, detail="Which bound is meant?"),
        message(2, "Implement", to="developer", status=Status.QUARANTINED, detail="3 deaths"),
        message(3, "Issue", status=Status.OPEN),
        questions={
            "q1": Question(id="q1", n=4, at=AT, about="m2", text="Take it?", options=("yes", "no")),
            "q2": Question(id="q2", n=1, at=AT, about="QA_READ", text="Old", answered=True),
        },
    )
    found = waiting(state)
    assert [(item.id, item.what, item.phase) for item in found] == [
        ("m2", "quarantined", "developer"),
        ("q1", "question", "developer"),
        ("m5", "blocked", "debugging"),
    ]
    assert found[2].request == "Which bound is meant?"
    assert json.loads(json.dumps(found[1].as_json()))["options"] == ["yes", "no"]


def finished() -> State:
    """A bug found, fixed and approved; a feature built; both delivered."""
    state = state_of(
        message(1, "Issue", thread="old", text="Before this run"),
        message(2, "Fixed", thread="old", by="debugging"),
        message(10, "Issue", thread="F401", text="F401 unused import\nmore"),
        message(11, "Fix", thread="F401", by="planning", to="debugging"),
        message(12, "Fixed", thread="F401", by="debugging"),
        message(13, "Implement", thread="digest", by="planning", to="developer", text="A daily digest"),
        message(14, "Approved", thread="F401"),
        message(15, "Issue", thread="F401", text="again"),
    )
    state.reports.append(
        Report(
            n=16,
            at=AT,
            phase="developer",
            epoch=1,
            task="m13",
            round=0,
            result="done",
            late=False,
            detail="built",
            posts=(),
            tree=None,
            data={},
        )
    )
    state.deliveries.append({"n": 4, "commit": "a", "written": ["old.py"], "conflicts": []})
    state.deliveries.append(
        {"n": 17, "commit": "b", "written": ["digest.py", "rules.py"], "conflicts": ["cli.py: changed"]}
    )
    return state


def test_a_summary_counts_threads_of_this_run() -> None:
    """One line per thread, told as it began; what was before the run is not counted again."""
    summary = summarise(finished(), since=5, restarts=2)
    assert summary.found == summary.fixed == summary.approved == ("F401 unused import",)
    assert summary.implemented == ("A daily digest",)
    assert summary.delivered == ("digest.py", "rules.py")
    assert summary.conflicts == ("cli.py: changed",)
    assert (summary.restarts, summary.exit) == (2, Exit.DONE)
    assert json.loads(json.dumps(summary.as_json()))["exit"] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: put(state, message(20, "Fix", id="m20", status=Status.OPEN)),
        lambda state: put(state, message(20, "Fix", id="m20", status=Status.BLOCKED)),
        lambda state: state.questions.update(q=Question(id="q", n=1, at=AT, about="", text="?")),
        lambda state: state.epochs.update(qa=Epoch(number=1, given_up=True)),
        lambda state: state.epochs.update(qa=Epoch(number=1, paused=True)),
    ],
    ids=["open", "blocked", "question", "given up", "paused"],
)
def test_anything_left_over_is_exit_code_1(spoil: Any) -> None:
    """Open work, what waits for the user, a phase that is held: each alone is enough."""
    state = finished()
    spoil(state)
    assert summarise(state).exit == Exit.WORK_REMAINS


def test_a_note_that_is_no_task_does_not_hold_the_end() -> None:
    """Items of Context and Notes are never claimed."""
    state = finished()
    put(state, message(20, "Assess", id="m20", status=Status.OPEN, section="notes"))
    assert summarise(state).exit == Exit.DONE


def test_changes_without_approval_are_exit_code_1_and_interruption_130() -> None:
    """What the documents alone do not say is told by the caller."""
    assert summarise(finished(), unapproved=1).exit == Exit.WORK_REMAINS
    assert summarise(finished(), interrupted=True).exit == Exit.INTERRUPTED
    assert replace(Summary(), exit=Exit.DONE).exit == 0


def test_documents_that_lag_show_in_the_status() -> None:
    """`dirty` names the files whose views are behind the history, and survives being saved and read."""
    status = CrewStatus(workspace="/w", pid=1, dirty=("QA_READ.md",))
    assert status.as_json()["dirty"] == ["QA_READ.md"]
    assert CrewStatus.from_json(status.as_json()).dirty == ("QA_READ.md",)
