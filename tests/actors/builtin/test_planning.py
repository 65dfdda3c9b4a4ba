"""What the built-in Planning decides: a pure function from what it knows to one outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.drivers.builtin.analysis import analyse_sources
from actors.drivers.builtin.implement import specs
from actors.drivers.builtin.planning import Facts, completion, plan, thread_of
from actors.phases import PLANNING
from docs_store import markdown
from docs_store.messages import Draft, Kind, Message, Outcome, Task
from docs_store.topology import ARCHITECTURE, DEFAULT, MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY
from docs_store.views import template

TEXTS = {name: template(DEFAULT.document(name)) for name in (MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY, ARCHITECTURE)}
TWO_SECTIONS = """# TERTIARY_OBJECTIVES

## The digest command

```diff
--- a/app/cli.py
+++ b/app/cli.py
@@ -1 +1,2 @@
 import sys
+from app.digest import digest
```

## A digest

```python file=app/digest.py
def digest() -> str:
    return ""
```
"""


def message(kind: Kind, text: str = "it", *, by: str = "qa", n: int = 5, thread: str = "t", **more: Any) -> Message:
    return Message(id=f"{kind}.{n}", to="planning", by=by, kind=kind, text=text, thread=thread, n=n, at="", **more)


def facts(*parts: Message, **more: Any) -> Facts:
    task = Task(message=parts[0], parts=parts, epoch=1, attempt=1, head=9)
    return Facts(**{"task": task, "parts": parts, "documents": TEXTS, "threads": {}, **more})


def posts(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Receiver, kind and priority of each message."""
    PLANNING.check(outcome, DEFAULT)
    return [(draft.to, draft.kind, draft.priority) for draft in outcome.posts]


def after(outcome: Outcome, texts: Mapping[str, str] = TEXTS) -> dict[str, str]:
    return {**texts, **outcome.strategic}


def test_a_finding_becomes_a_known_issue_and_a_priority_fix() -> None:
    """Issue from QA: one line under Known Issues, one HIGH fix for Debugging in the same thread."""
    issue = message("Issue", "test_a fails", priority="HIGH", data={"finding": {}})
    outcome = plan(facts(issue))
    assert posts(outcome) == [("debugging", "Fix", "HIGH")]
    assert outcome.posts[0].thread == issue.thread
    (item,) = markdown.task_items(outcome.strategic[SECONDARY], "Known Issues")
    assert item.text.startswith("test_a fails")
    assert not item.ticked


def test_a_finding_that_was_fixed_meanwhile_is_not_given_out_again() -> None:
    """A later Fixed in the thread means that Debugging has been there."""
    issue = message("Issue", n=5)
    outcome = plan(facts(issue, threads={"t": (issue, message("Fixed", by="debugging", n=7))}))
    assert posts(outcome) == []


def test_every_part_of_a_task_is_answered() -> None:
    """What joined the open message is decided about as well."""
    outcome = plan(facts(message("Issue", "one", thread="a"), message("Issue", "two", thread="b", n=6)))
    assert [draft.thread for draft in outcome.posts] == ["a", "b"]


def test_an_approval_ticks_the_known_issue_and_the_objectives() -> None:
    """Approved: the line of that thread is ticked, in SECONDARY and where the section is an objective."""
    issue = message("Issue", "test_a fails")
    known = after(plan(facts(issue)))
    known[PRIMARY] = markdown.add_item(known[PRIMARY], "Objectives", "A digest")
    implement = message("Implemented", by="developer", data={"section": "A digest"})
    outcome = plan(facts(message("Approved", n=8), documents=known, threads={"t": (issue, implement)}))
    done = after(outcome, known)
    assert [item.ticked for item in markdown.task_items(done[SECONDARY], "Known Issues")] == [True]
    assert [item.ticked for item in markdown.task_items(done[PRIMARY], "Objectives")] == [True]


def test_two_known_issues_with_one_text_are_kept_apart() -> None:
    """Approving one thread leaves the other's line open."""
    known = after(plan(facts(message("Issue", thread="a"), message("Issue", thread="b", n=6))))
    done = after(plan(facts(message("Approved", thread="b", n=8), documents=known)), known)
    ticked = {item.text: item.ticked for item in markdown.task_items(done[SECONDARY], "Known Issues")}
    assert sorted(ticked.values()) == [False, True]


def test_the_master_plan_is_updated_only_when_the_objectives_are_reached() -> None:
    """Below 95 % MASTER_PLAN stays; at it, what was reached is written there."""
    texts = {**TEXTS, PRIMARY: markdown.add_item(TEXTS[PRIMARY], "Objectives", "A digest")}
    texts[PRIMARY] = markdown.add_item(texts[PRIMARY], "Objectives", "Another")
    threads = {"t": (message("Implemented", by="developer", data={"section": "A digest"}),)}
    half = plan(facts(message("Approved", n=8), documents=texts, threads=threads))
    assert completion(after(half, texts)) == 0.5
    assert MASTER_PLAN not in half.strategic
    texts[PRIMARY] = markdown.tick(texts[PRIMARY], "Objectives", "Another")
    whole = plan(facts(message("Approved", n=8), documents=texts, threads=threads))
    assert "- A digest" in markdown.section_text(whole.strategic[MASTER_PLAN], "Achievements")


def test_an_assessment_gives_developer_what_is_spelled_out_once() -> None:
    """Each section of TERTIARY with an example becomes one task; a thread that exists is left alone."""
    sections = specs(TWO_SECTIONS)
    outcome = plan(facts(message("Assess", by="supervisor"), specs=sections))
    assert posts(outcome) == [("developer", "Implement", "MEDIUM")] * 2
    again = {thread_of(spec.title): (message("Implement", n=3),) for spec in sections}
    assert posts(plan(facts(message("Assess", by="supervisor"), specs=sections, threads=again))) == []


def test_an_assessment_writes_down_the_code_base_around_what_a_person_wrote() -> None:
    """ARCHITECTURE gets the modules; a person's own lines in the section stay."""
    analysis = analyse_sources({"app/__init__.py": b"", "app/core.py": b"import app\n"})
    texts = {**TEXTS, ARCHITECTURE: markdown.replace_section(TEXTS[ARCHITECTURE], "Modules", "Mine: keep this.")}
    first = after(plan(facts(message("Assess"), documents=texts, analysis=analysis)), texts)
    modules = markdown.section_text(first[ARCHITECTURE], "Modules")
    assert "`app.core`" in modules
    assert "Mine: keep this." in modules
    second = plan(facts(message("Assess"), documents=first, analysis=analysis))
    assert ARCHITECTURE not in second.strategic


def test_a_blocker_that_needs_another_section_puts_that_first() -> None:
    """Developer needs a module that TERTIARY spells out elsewhere: that comes first, then the task again."""
    sections = specs(TWO_SECTIONS)
    blocker = message(
        "Blocker", by="developer", data={"section": "The digest command", "needs": ["app.digest"], "request": "?"}
    )
    outcome = plan(facts(blocker, specs=sections))
    assert outcome.result == "done"
    assert [(draft.data["section"], draft.priority) for draft in outcome.posts] == [
        ("A digest", "HIGH"),
        ("The digest command", "MEDIUM"),
    ]
    assert markdown.task_items(outcome.strategic[SECONDARY], "Integration Issues")


def test_a_blocker_that_came_back_is_put_to_the_user() -> None:
    """What was tried after its prerequisite and is still blocked is not tried for ever."""
    data = {"section": "The digest command", "needs": ["app.digest"], "request": "Correct the example."}
    first, second = (message("Blocker", by="developer", data=data, n=n) for n in (5, 15))
    outcome = plan(facts(second, specs=specs(TWO_SECTIONS), threads={"t": (first, second)}))
    assert outcome.result == "blocked"
    assert outcome.detail == "Correct the example."


def test_a_blocker_that_an_approval_overtook_waits_for_nobody() -> None:
    """Blocker and approval in one hand: the thread is over. The other way around, it is blocked."""
    assert plan(facts(message("Blocker", n=5), message("Approved", n=6))).result == "done"
    assert plan(facts(message("Approved", n=5), message("Blocker", n=6))).result == "blocked"
    assert plan(facts(message("Blocker", n=5), message("Approved", n=6, thread="another"))).result == "blocked"


def test_what_nobody_has_spelled_out_waits_for_the_user_with_a_clear_request() -> None:
    """A blocker without a way out ends as a blocked task whose detail is the request."""
    blocker = message("Blocker", "a > b", by="developer", data={"request": "Correct app/cpu.py:3, or answer."})
    outcome = plan(facts(blocker))
    assert (outcome.result, outcome.detail) == ("blocked", "Correct app/cpu.py:3, or answer.")
    assert posts(outcome) == []


def test_the_users_answer_goes_to_who_was_held_up_with_all_that_is_known() -> None:
    """An answer becomes a HIGH priority for Developer, with the finding and the words of the user."""
    blocker = message("Blocker", by="developer", data={"finding": {"tool": "pytest"}}, n=5)
    answer = message("Answer", "use >=", by="user", n=9)
    outcome = plan(facts(answer, threads={"t": (blocker, answer)}))
    assert posts(outcome) == [("developer", "Fix", "HIGH")]
    assert outcome.posts[0].data == {"finding": {"tool": "pytest"}, "answer": "use >="}


def test_where_a_blocker_is_noted_depends_on_what_it_calls_for() -> None:
    """A missing column is a database change, a missing key configuration."""
    outcome = plan(facts(message("Blocker", "the schema lacks a column", by="developer")))
    assert markdown.task_items(outcome.strategic[SECONDARY], "Database Changes Needed")


def test_it_reads_the_same_twice() -> None:
    """The same facts give the same outcome: a killed cycle's redo doubles nothing."""
    given = facts(message("Issue", priority="HIGH"))
    assert plan(given) == plan(replace(given))


def test_nothing_is_sent_that_the_policy_forbids() -> None:
    """Whatever kind comes in, the outcome passes the phase's policy."""
    kinds: tuple[Kind, ...] = ("Alert", "Question", "Resolved", "Verify", "Fix", "Implement", "Review", "Fixed")
    for kind in kinds:
        assert isinstance(plan(facts(message(kind, by="user"))), Outcome)
        posts(plan(facts(message(kind, by="user"))))


def test_drafts_name_their_threads() -> None:
    """A task's thread is made from its title, so that everybody who speaks of it means the same."""
    assert thread_of("The digest command!") == "task-the-digest-command"
    assert isinstance(plan(facts(message("Assess"))).posts, tuple)
    assert all(isinstance(draft, Draft) for draft in plan(facts(message("Issue"))).posts)
