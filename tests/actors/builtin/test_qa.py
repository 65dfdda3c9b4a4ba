"""What the built-in QA decides: a pure function from an inspection and what is known to one outcome."""

from __future__ import annotations

from typing import Any

from actors.drivers.builtin.checks import LintRun, Test, TestRun
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.inspection import MOST_FILES, Inspection, grouped
from actors.drivers.builtin.qa import MOST_REFUSALS, Facts, review
from actors.phases import QA
from docs_store.messages import Kind, Message, Outcome, Status, Task
from docs_store.topology import DEFAULT

FAILING = Finding(tool="pytest", rule="failure", file="tests/test_a.py", symbol="test_a", message="test_a fails")
UNUSED = Finding(tool="ruff", rule="F401", file="a.py", line=3, message="`os` unused", severity="warning")
NOTE = Finding(tool="pytest", rule="no-tests", message="pytest found no tests", severity="note")


def inspection(*findings: Finding) -> Inspection:
    tests = TestRun(status="ran", collected=1, tests={"t": Test(id="t", outcome="passed")}, findings=findings)
    return Inspection(commit="c1", tests=tests, lint=LintRun(), findings=findings)


def message(kind: Kind, *, by: str = "debugging", thread: str = "t", **more: Any) -> Message:
    return Message(**{"id": f"{kind}.{by}.{thread}", "to": "qa", "by": by, "kind": kind, "text": "it", "thread": thread,
                      "n": 5, "at": "", **more})  # fmt: skip


def facts(asked: Message, seen: Inspection, **more: Any) -> Facts:
    task = Task(message=asked, parts=(asked,), epoch=1, attempt=1, head=9)
    return Facts(**{"task": task, "parts": (asked,), "inspection": seen, "threads": {}, **more})


def posts(outcome: Outcome) -> list[tuple[str, str, str]]:
    QA.check(outcome, DEFAULT)
    return [(draft.to, draft.kind, draft.priority) for draft in outcome.posts]


def test_a_new_finding_goes_to_debugging_and_planning_in_its_own_thread() -> None:
    """Bugs to Debugging with the evidence, concerns to Planning; the thread is the fingerprint."""
    outcome = review(facts(message("Assess", by="supervisor"), inspection(FAILING)))
    assert posts(outcome) == [("debugging", "Issue", "HIGH"), ("planning", "Issue", "HIGH")]
    assert {draft.thread for draft in outcome.posts} == {FAILING.fingerprint}
    assert outcome.data["approved"] is False


def test_a_finding_is_reported_once_while_anything_about_it_is_unfinished() -> None:
    """Known and open: not again. Known and closed, but there again: reported again."""
    known = message("Issue", thread=FAILING.fingerprint, status=Status.OPEN)
    closed = message("Issue", thread=FAILING.fingerprint, status=Status.DONE)
    asked = message("Assess", by="supervisor")
    assert posts(review(facts(asked, inspection(FAILING), threads={FAILING.fingerprint: (known,)}))) == []
    assert posts(review(facts(asked, inspection(FAILING), threads={FAILING.fingerprint: (closed,)})))


def test_when_nothing_is_wrong_everything_is_approved() -> None:
    """A clean assessment is an approval, on record."""
    outcome = review(facts(message("Assess", by="supervisor"), inspection()))
    assert posts(outcome) == [("planning", "Approved", "MEDIUM")]
    assert outcome.data["approved"] is True


def test_a_note_is_for_planning_and_said_once() -> None:
    """That there are no tests is no bug for Debugging, and no reason to refuse."""
    outcome = review(facts(message("Assess", by="supervisor"), inspection(NOTE)))
    assert [post[:2] for post in posts(outcome)] == [("planning", "Issue"), ("planning", "Approved")]
    told = message("Issue", thread=NOTE.fingerprint, status=Status.DONE)
    again = review(facts(message("Assess", by="supervisor"), inspection(NOTE), threads={NOTE.fingerprint: (told,)}))
    assert [post[:2] for post in posts(again)] == [("planning", "Approved")]


def verify(finding: Finding = FAILING) -> Message:
    return message("Verify", thread=finding.fingerprint, data={"finding": finding.to_dict(), "commit": "c0"})


def test_a_fix_is_approved_when_its_finding_is_gone_and_names_the_commit() -> None:
    """The approval carries what may be delivered."""
    outcome = review(facts(verify(), inspection()))
    assert posts(outcome) == [("planning", "Approved", "MEDIUM")]
    assert (outcome.data["approved"], outcome.data["commits"]) == (True, ["c0"])


def test_a_fix_whose_finding_is_still_there_goes_back() -> None:
    """Not approved: back to Debugging in the same thread, and nothing may be delivered."""
    outcome = review(facts(verify(), inspection(FAILING)))
    assert posts(outcome) == [("debugging", "Issue", "HIGH")]
    assert outcome.posts[0].thread == FAILING.fingerprint
    assert (outcome.data["approved"], outcome.data["commits"]) == (False, [])


def test_after_three_refusals_a_person_is_asked() -> None:
    """The third refusal of a thread is a blocker for Planning, not another round."""
    outcome = review(facts(verify(), inspection(FAILING), refusals=MOST_REFUSALS - 1))
    assert posts(outcome) == [("planning", "Blocker", "HIGH")]
    assert "request" in outcome.posts[0].data


def test_what_a_fix_broke_elsewhere_is_reported_too() -> None:
    """The fix is right, and a new finding is a new thread."""
    outcome = review(facts(verify(), inspection(UNUSED)))
    assert posts(outcome) == [
        ("planning", "Approved", "MEDIUM"),
        ("debugging", "Issue", "MEDIUM"),
        ("planning", "Issue", "MEDIUM"),
    ]


def test_an_implementation_is_refused_for_what_fails_in_its_own_files() -> None:
    """A feature whose own test fails goes back to Developer."""
    data = {"section": "A digest", "files": ["tests/test_a.py"], "commit": "c0"}
    asked = message("Review", by="developer", data=data)
    outcome = review(facts(asked, inspection(FAILING), threads={FAILING.fingerprint: ()}))
    assert posts(outcome)[0] == ("developer", "Issue", "HIGH")
    assert review(facts(asked, inspection())).data["commits"] == ["c0"]


def test_what_was_mended_by_hand_is_approved_where_somebody_waits() -> None:
    """A finding that waits for the user and is gone opens the way for Planning, without an answer."""
    outcome = review(facts(message("Assess", by="supervisor"), inspection(), waiting=(FAILING,)))
    assert ("planning", "Approved", "MEDIUM") in posts(outcome)
    assert outcome.posts[0].thread == FAILING.fingerprint
    still = review(facts(message("Assess", by="supervisor"), inspection(FAILING), waiting=(FAILING,)))
    assert all(draft.kind != "Approved" for draft in still.posts)


def lint(file: str, line: int = 1) -> Finding:
    return Finding(tool="ruff", rule="F401", file=file, line=line, message="unused", severity="warning")


def test_lint_findings_are_put_together_by_rule_and_file() -> None:
    """Three places in one file are one finding, whose fingerprint does not depend on the lines."""
    (one,) = grouped([lint("a.py", 1), lint("a.py", 5), lint("a.py", 9)])
    assert "3 times" in one.message
    (moved,) = grouped([lint("a.py", 2)])
    assert one.fingerprint == moved.fingerprint


def test_a_rule_that_is_all_over_the_place_is_one_finding() -> None:
    """From more than a few files on, a rule is one thread, not a hundred."""
    spread = [lint(f"m{n}.py") for n in range(MOST_FILES + 1)]
    assert len(grouped(spread)) == 1
    assert len(grouped(spread[:-1])) == MOST_FILES
