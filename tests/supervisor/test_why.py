"""Why a phase is as it is: which records count, in which order, and how they read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ipc.events import ProgressEvent
from supervisor.journal import Journal, OwnRow, StoredEvent
from supervisor.restart import CrewPolicy, Exit, History, RestartPolicy, after_exit
from supervisor.why import KINDS, gathered, last_words, reasons, sentence

ORDER = ("planning", "qa")


def stored(
    step: str, *, phase: str = "qa", detail: str = "", n: int = 1, transport: str = "supervisor", **summary: Any
) -> StoredEvent:
    return StoredEvent("s", n, "supervisor", 1, n, transport, "log_entry", phase, step, 0, detail, summary, None, 9.0)


def decision(*, ran_for: float = 1.0, asked: bool = False, restarts: int = 5) -> tuple[str, Mapping[str, Any]]:
    """What the restart policy decides about an exit of QA, as the crew puts it on record."""
    made = after_exit(
        Exit(child="qa", code=-9, ready=True, ran_for=ran_for, asked=asked),
        history=History(),
        policy=RestartPolicy(restarts=restarts),
        crew=CrewPolicy(),
        order=ORDER,
        now=100.0,
        jitter=0.5,
    )
    return made.reason, made.inputs


def test_a_decision_reads_as_a_sentence_with_all_its_inputs() -> None:
    """How long it ran and whether that counts as stable, what was used up, which wait was drawn."""
    text, inputs = decision()
    told = sentence("decision", text, inputs)
    for part in ("signal 9", "ran for 1.0 s, which is not stable", "0 of 5 restarts", "0 of 20 of the crew", "0.12 s"):
        assert part in told
    assert "which is stable" in sentence("decision", *decision(ran_for=60.0))


def test_giving_up_says_whose_limit_was_passed() -> None:
    """No wait was drawn then, and none is told."""
    told = sentence("decision", *decision(restarts=0))
    assert "0 are allowed" in told
    assert "drawn" not in told


def test_only_the_supervisors_own_records_count() -> None:
    """What a worker emits under a decision's name explains nothing."""
    assert reasons([stored("decision", detail="mine", transport="queue")], "qa") == ()
    assert reasons([stored("testing")], "qa") == ()
    assert len(reasons([stored("decision")], "qa")) == 1


def test_what_concerns_all_explains_each() -> None:
    """The transport's choice and people's commands; another phase's restarts do not."""
    shared = [stored(step, phase="supervisor") for step in ("mode", "command", "spare")]
    assert len(reasons(shared, "qa")) == 3
    assert reasons([stored("exit", phase="planning"), stored("exit", phase="supervisor")], "qa") == ()


def test_a_command_about_other_phases_explains_nothing() -> None:
    """Where it names some, it is a reason for those only; older records name none, and are for all."""
    restarted = stored("command", phase="supervisor", detail="qa has a new worker", ok=True, phases=["qa"])
    assert reasons([restarted], "planning") == ()
    assert len(reasons([restarted], "qa")) == 1
    assert len(reasons([stored("command", phase="supervisor", ok=True, phases=None)], "planning")) == 1


def test_giving_up_says_so_and_what_to_do() -> None:
    """In the line, and in short; one that was asked to go is not given up."""
    text, inputs = decision(restarts=0)
    ended = text.partition(";")[0]
    (_, given_up) = found = reasons([stored("exit", detail=ended), stored("decision", detail=text, **inputs)], "qa")
    assert given_up.text.startswith("Given up: it was restarted 0 times")
    assert last_words(found) == f"Given up: {text} `supervisor restart qa` starts it again."
    assert sentence("decision", *decision(asked=True)).startswith("Decided: ")


@pytest.mark.parametrize("step", sorted(KINDS))
def test_every_kind_of_record_has_its_words(step: str) -> None:
    """Whatever of its figures is missing, and with nothing that a terminal would obey."""
    told = sentence(step, "because\x1b[31m of\nthis", {})
    assert "because" in told
    assert told.isprintable()


def test_a_journal_is_read_to_its_end_in_order(tmp_path: Path) -> None:
    """Records of the phase and of all, crashes among them, by their place in the journal."""
    rows = []
    for n in range(1, 2101):
        kind = "phase_error" if n % 7 == 0 else "log_entry"
        phase = "supervisor" if n % 3 == 0 else "qa"
        step = "mode" if phase == "supervisor" else "exit"
        rows.append(OwnRow(seq=n, event=ProgressEvent(kind, phase, step, detail=str(n))))
    with Journal.open(tmp_path / "journal.db") as journal:
        journal.commit(rows).result()
        found = gathered(journal.reader, "qa")
    assert len(found) == 2100
    assert [int(reason.cursor.rpartition(":")[2]) for reason in found] == list(range(1, 2101))


def test_what_was_said_is_not_said_again() -> None:
    """How it ended stands once, so does what was decided about it; in short, both, without the figures."""
    text, inputs = decision(ran_for=4.8)
    ended = text.partition(";")[0]
    spawn = stored("spawn", detail=f"epoch 6, pid 9: {text}", epoch=6, mode="queue", mode_reason="drawn")
    events = [stored("exit", detail=f"{ended}: KeyError"), stored("decision", detail=text, **inputs), spawn]
    found = reasons(events, "qa")
    page = "\n".join(reason.text for reason in found)
    assert page.count(ended) == 1
    assert page.count("it is started again in") == 1
    assert found[1].text.startswith("Decided: it is started again in 0.12 s")
    assert "it ran for 4.8 s" in found[1].text
    assert found[2].text == "Started: epoch 6, pid 9: as was decided, events by queue (drawn)."
    assert last_words(found) == f"Decided: {text}"
    assert set(found[0].as_json()) == {"at", "cursor", "what", "text", "inputs"}


def test_in_short_is_of_the_present_run() -> None:
    """A decision of an earlier one says nothing about what this one has started; until it has, it does."""
    before = stored("decision", detail="A")
    begin = stored("begin", phase="supervisor", detail="it begins")
    start = stored("spawn", detail="the run begins", epoch=2)
    assert "the run begins" in last_words(reasons([before, begin, start], "qa"))
    assert last_words(reasons([before, begin], "qa")) == "Decided: A"


def test_in_short_is_the_last_decision() -> None:
    """Not what happened since; without any, the last start; without that, what is known; or so much."""
    found = reasons([stored("decision", detail="A"), stored("exit", detail="B")], "qa")
    assert last_words(found) == "Decided: A"
    assert "B" in last_words(found[1:])
    assert last_words(reasons([stored("spawn", detail="A", epoch=1), stored("mode", detail="B")], "qa")) == (
        "Started: A, events by ? (?)."
    )
    assert last_words(()) == "Nothing is on record about it yet."
