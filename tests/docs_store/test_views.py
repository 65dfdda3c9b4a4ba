"""What people see of a state: formats of all thirteen documents, bounds, and that rendering twice changes nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs_store.markdown import body, parse, revision, section_text, sections
from docs_store.messages import DocumentState, Message, Report, State, Status, report_key
from docs_store.topology import DEFAULT, Document
from docs_store.views import completion, is_pristine, render, template

READ = ("Priority Tasks", "Context", "Requirements", "Notes")
WRITE = ("Status", "Completed", "In Progress", "Blockers", "Messages to Other Phases")
STRATEGIC = {
    "MASTER_PLAN": ("Vision", "Goals", "Achievements"),
    "PRIMARY_OBJECTIVES": ("Objectives",),
    "SECONDARY_OBJECTIVES": (
        "Objectives",
        "Architectural Changes",
        "Testing Requirements",
        "Known Issues",
        "Integration Issues",
    ),
    "TERTIARY_OBJECTIVES": (),
    "ARCHITECTURE": ("Current", "Intended", "Patterns", "Modules"),
}


def message(key: str, n: int, **values: Any) -> Message:
    fields: dict[str, Any] = {"to": "qa", "by": "developer", "kind": "Review", "text": f"look at {key}"}
    return Message(**{**fields, "id": key, "thread": key, "n": n, "at": "", "changed": n, "parts": (key,), **values})


def state_with(document: Document, *messages: Message, **more: Any) -> State:
    known = DocumentState(
        n=9, hash="0123456789abcdef" * 4, at="2026-11-20T10:00:00Z", by="developer", base=template(document)
    )
    return State(n=9, messages={m.id: m for m in messages}, documents={document.name: known}, **more)


def shown(name: str, *messages: Message, **more: Any) -> str:
    document = DEFAULT.document(name)
    return render(DEFAULT, document, state_with(document, *messages, **more))


@pytest.mark.parametrize("document", DEFAULT.documents, ids=lambda document: document.name)
def test_every_document_has_its_sections_in_order(document: Document) -> None:
    """Template and view have title, sections, rule and dates as SPEC lists them; the revision is the last line."""
    expected = {"read": READ, "write": WRITE, "strategic": STRATEGIC.get(document.name, ())}[document.role]
    text = render(DEFAULT, document, state_with(document))
    for each in (template(document), text):
        assert each.startswith(f"# {document.name}\n")
        assert tuple(sections(each)) == expected
        assert ("\nUpdated By: " in each) == (document.role == "read")
    by = "Updated By: Developer\n" if document.role == "read" else ""
    assert text.endswith(f"\n\n---\n\nLast Updated: 2026-11-20T10:00:00Z\n{by}<!-- rev:9 0123456789abcdef -->\n")
    assert is_pristine(document, template(document))
    assert not is_pristine(document, text + "x")


@pytest.mark.parametrize("document", DEFAULT.documents, ids=lambda document: document.name)
def test_a_view_without_any_record_can_be_shown(document: Document) -> None:
    """A store that knows nothing of a document yet shows its template."""
    text = render(DEFAULT, document, State())
    assert revision(text) == (0, "0")
    assert body(text).rstrip() == body(template(document)).rstrip()


def test_an_item_s_line_is_as_specified() -> None:
    """Priority (MEDIUM is not shown), kind, text, author, id."""
    text = shown("QA_READ", message("a", 1, priority="HIGH", kind="Issue", by="planning"), message("b", 2, by="user"))
    assert "- [ ] Priority: HIGH - Issue: look at a (from Planning) <!-- id:a -->\n" in text
    assert "- [ ] Review: look at b (from User) <!-- id:b -->\n" in text


def test_items_stand_in_their_sections() -> None:
    """Only tasks have a box."""
    text = shown("QA_READ", message("a", 1, section="context"), message("b", 2))
    assert section_text(text, "Context") == "\n- Review: look at a (from Developer) <!-- id:a -->\n\n"
    assert "- [ ] Review: look at b" in section_text(text, "Priority Tasks")


def test_only_the_receiver_s_items_that_are_not_gone_are_shown() -> None:
    """Withdrawn and joined ones and those of others are not; what joined is told by the first."""
    text = shown(
        "QA_READ",
        message("a", 1, parts=("a", "j")),
        message("j", 2, status=Status.JOINED, joined="a", text="and more", by="planning"),
        message("w", 3, status=Status.WITHDRAWN),
        message("o", 4, to="planning"),
    )
    assert [item.key for item in parse(text).items] == ["a"]
    assert "look at a (from Developer) ⏎ also Review: and more (from Planning) <!-- id:a -->" in text


def test_at_most_fifty_open_and_twenty_closed_are_shown() -> None:
    """The most urgent and oldest open ones, a count of the others, and those that were ticked last."""
    still = [message(f"o{n}", n, priority="LOW" if n < 10 else "MEDIUM") for n in range(60)]
    closed = [message(f"d{n}", 100 + n, status=Status.DONE, changed=300 - n) for n in range(30)]
    items = parse(shown("QA_READ", *still, *closed)).items
    assert [item.key for item in items if item.ticked is False] == [f"o{n}" for n in range(10, 60)]
    assert [item.body for item in items if item.drawn] == ["… and 10 more"]
    assert [item.key for item in items if item.ticked] == [f"d{n}" for n in range(20)]


def test_a_long_text_is_cut_and_says_so() -> None:
    """A view is for reading; the history has the whole."""
    text = shown("QA_READ", message("a", 1, text="x" * 5000))
    assert "… (5000 characters) (from Developer)" in text
    assert len(text) < 2500


def test_a_traceback_stays_on_its_line() -> None:
    """Lines of a text are shown with a sign for their ends."""
    text = shown("QA_READ", message("a", 1, text='Traceback:\n  File "x.py", line 1\nKeyError: 1'))
    assert 'Traceback: ⏎ File "x.py", line 1 ⏎ KeyError: 1 (from' in text


def test_a_write_document_reports() -> None:
    """Status lines, finished tasks, what is in work, what waits for a person, and what was posted to whom."""
    report = Report(
        n=5,
        at="",
        phase="qa",
        epoch=1,
        task="f",
        round=0,
        result="done",
        late=False,
        detail="3 tests",
        posts=("p",),
        tree=None,
        data={},
    )
    text = shown(
        "QA_WRITE",
        message("f", 1, status=Status.DONE),
        message("c", 2, status=Status.CLAIMED, attempts=2),
        message("b", 3, status=Status.BLOCKED, detail="needs a key"),
        message("q", 4, status=Status.QUARANTINED),
        message("p", 5, to="debugging", by="qa", kind="Issue", priority="HIGH"),
        status_lines={"qa": ("all # green", "no `x`")},
        finished={report_key(report.task, report.round): report},
    )
    assert section_text(text, "Status") == "\n- all # green <!-- status -->\n- no `x` <!-- status -->\n\n"
    assert section_text(text, "Completed") == "\n- [x] Review: look at f - 3 tests <!-- id:f.0.5 -->\n\n"
    assert section_text(text, "In Progress") == "\n- [ ] Review: look at c - in work, attempt 2 <!-- id:c -->\n\n"
    assert section_text(text, "Blockers") == (
        "\n- [ ] Review: look at b - blocked: needs a key <!-- id:b -->\n"
        "- [ ] Review: look at q - quarantined <!-- id:q -->\n\n"
    )
    assert section_text(text, "Messages to Other Phases").rstrip() == (
        "\n### To Debugging\n\n- Priority: HIGH - Issue: look at p <!-- id:p -->"
    )


def test_completion_counts_boxes_under_objectives_only() -> None:
    """Ticked of all in PRIMARY and SECONDARY; 19 of 20 is 0.95; 0 without any."""
    assert completion(State()) == 0.0
    lines = "\n".join(["- [x] a"] * 19)
    bases = {
        "PRIMARY_OBJECTIVES": f"# P\n\n## Objectives\n\n{lines}\n\n## More\n\n- [ ] not this\n",
        "SECONDARY_OBJECTIVES": "# S\n\n## Objectives\n\n- [ ] one\n- no box\n\n## Known Issues\n\n- [ ] nor this\n",
        "TERTIARY_OBJECTIVES": "## Objectives\n\n- [ ] nor that\n",
    }
    state = State(documents={name: DocumentState(base=base) for name, base in bases.items()})
    assert completion(state) == pytest.approx(0.95)


def test_strategic_texts_are_left_alone_with_their_ids() -> None:
    """Lines that look like items of ours are Planning's own there."""
    document = DEFAULT.document("SECONDARY_OBJECTIVES")
    base = "# S\n\n## Known Issues\n\n- [ ] a leak <!-- id:a -->\n"
    state = state_with(document)
    state.documents[document.name] = replace(state.documents[document.name], base=base)
    assert render(DEFAULT, document, state).startswith(base + "\n---\n")


STATUSES = st.sampled_from([s for s in Status if s is not Status.JOINED])


@settings(deadline=None)
@given(
    st.sampled_from(DEFAULT.documents),
    st.lists(st.tuples(STATUSES, st.sampled_from(["tasks", "notes"]), st.text(max_size=20)), max_size=8),
    st.text(alphabet="# abT\n-[]x`>", max_size=60),
)
def test_rendering_a_rendered_document_changes_nothing(
    document: Document, given_messages: list[tuple[Status, Any, str]], free: str
) -> None:
    """With the view itself as the base, the same state gives the same view; the revision is its last line."""
    phase = document.phase or "qa"
    messages = [
        message(f"m{n}", n, status=status, section=section, text=text, to=phase)
        for n, (status, section, text) in enumerate(given_messages)
    ]
    state = state_with(document, *messages)
    known = state.documents[document.name]
    state.documents[document.name] = replace(known, base=known.base.replace("---\n", f"{free}\n\n---\n"))
    once = render(DEFAULT, document, state)
    state.documents[document.name] = replace(known, base=once)
    assert render(DEFAULT, document, state) == once
    assert re.fullmatch(r"<!-- rev:9 [0-9a-f]{16} -->", once.rstrip("\n").rsplit("\n", 1)[1])
