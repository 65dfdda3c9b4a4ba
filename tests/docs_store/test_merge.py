"""What a save means, against views written by `views.render`; the cases are those of the document model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs_store.markdown import body, revision
from docs_store.merge import merge_text, read_edit
from docs_store.messages import DocumentState, Edit, Message, Question, State, Status
from docs_store.topology import DEFAULT
from docs_store.views import item_body, render, template

QA_READ = DEFAULT.document("QA_READ")
QA_WRITE = DEFAULT.document("QA_WRITE")
SECONDARY = DEFAULT.document("SECONDARY_OBJECTIVES")
STATUS = {"tick": Status.DONE, "untick": Status.OPEN, "delete": Status.WITHDRAWN, "restore": Status.OPEN}


@dataclass
class Desk:
    """A small history of one document: what the store does with an edit, without a store."""

    document: Any = QA_READ
    state: State = field(default_factory=State)
    states: dict[int, State] = field(default_factory=dict)
    life: str = "a"

    def __post_init__(self) -> None:
        self.record(base=template(self.document))

    @property
    def view(self) -> str:
        return render(DEFAULT, self.document, self.state)

    def record(self, **document: Any) -> None:
        n = self.state.n + 1
        name = self.document.name
        known = self.state.documents.get(name, DocumentState())
        stamped = replace(known, n=n, hash=f"{self.life}{n:015}", at=f"2026-11-20T00:00:{n:02}Z", **document)
        self.state = replace(
            self.state,
            n=n,
            documents={name: stamped},
        )
        self.states[n] = self.state
        self.state = replace(
            self.state,
            messages=dict(self.state.messages),
            questions=dict(self.state.questions),
            status_lines=dict(self.state.status_lines),
        )

    def post(self, key: str, text: str, by: str = "developer", **more: Any) -> None:
        n = self.state.n + 1
        values = {"kind": "Review", "thread": key, "parts": (key,), **more}
        self.state.messages[key] = Message(id=key, to="qa", by=by, text=text, n=n, at="", changed=n, **values)
        self.record()

    def set(self, key: str, **values: Any) -> None:
        self.state.messages[key] = replace(self.state.messages[key], changed=self.state.n + 1, **values)
        self.record()

    def read(self, text: str) -> Edit | None:
        return read_edit(DEFAULT, self.document, text, self.state, self.states.get)

    def save(self, text: str) -> Edit | None:
        edit = self.read(text)
        if edit is None:
            return None
        for effect in edit.effects:
            if effect.what == "add":
                assert effect.kind is not None
                self.state.messages[effect.id] = Message(
                    id=effect.id,
                    to="qa",
                    by="user",
                    kind=effect.kind,
                    text=effect.text,
                    thread=effect.id,
                    n=self.state.n + 1,
                    at="",
                    priority=effect.priority,
                    parts=(effect.id,),
                    status=Status.DONE if effect.done else Status.OPEN,
                )
                if effect.re:
                    joined = self.state.messages[effect.re]
                    self.state.messages[effect.re] = replace(joined, parts=(*joined.parts, effect.id))
                    self.state.messages[effect.id] = replace(
                        self.state.messages[effect.id], status=Status.JOINED, joined=effect.re
                    )
            else:
                message = self.state.messages[effect.id]
                opened = effect.what in ("untick", "restore")
                self.state.messages[effect.id] = replace(
                    message,
                    status=STATUS[effect.what],
                    round=message.round + opened,
                    changed=self.state.n + 1,
                )
        for question in edit.questions:
            self.state.questions[question.id] = question
        known = self.state.documents[self.document.name]
        heard = {**known.heard, edit.rev: edit.heard} if edit.rev is not None and edit.heard else known.heard
        self.record(heard=heard, **({} if edit.base is None else {"base": edit.base}))
        assert self.read(text) is None, "the same text read again does something"
        assert self.read(self.view) is None, "the new view does something"
        return edit


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.post("a", "look at a")
    desk.post("b", "look at b")
    return desk


def effects(edit: Edit | None) -> list[tuple[str, str]]:
    return [(effect.what, effect.id) for effect in edit.effects] if edit else []


def ticked(text: str, key: str) -> str:
    return "\n".join(line.replace("[ ]", "[x]") if f"id:{key} " in line else line for line in text.split("\n"))


def without(text: str, key: str) -> str:
    return "\n".join(line for line in text.split("\n") if f"id:{key} " not in line)


def with_line(text: str, line: str, under: str = "## Priority Tasks\n") -> str:
    return text.replace(under, f"{under}\n{line}\n")


def unmarked(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if "<!-- rev:" not in line)


def test_an_unchanged_view_is_no_edit(desk: Desk) -> None:
    """The view as it was written says nothing, nor does an older one."""
    old = desk.view
    desk.post("c", "look at c")
    assert desk.read(desk.view) is None
    assert desk.read(old) is None


def test_a_ticked_box_completes_what_was_shown(desk: Desk) -> None:
    """A tick names the parts and the round that the saved view showed, not what joined since."""
    old = desk.view
    desk.post("c", "more about a", status=Status.JOINED, joined="a")
    desk.set("a", parts=("a", "c"))
    edit = desk.read(ticked(old, "a"))
    assert edit is not None
    assert [(e.what, e.id, e.seen, e.round) for e in edit.effects] == [("tick", "a", ("a",), 0)]


def test_an_unticked_box_reopens_the_round_that_was_seen(desk: Desk) -> None:
    """Untick names the round of the view; a later round is for the store to leave alone."""
    desk.set("a", status=Status.DONE)
    old = desk.view
    desk.set("a", status=Status.OPEN, round=1)
    desk.set("a", status=Status.DONE)
    edit = desk.read(old.replace("[x]", "[ ]"))
    assert edit is not None
    assert [(e.what, e.id, e.round) for e in edit.effects] == [("untick", "a", 0)]


def test_a_deleted_line_withdraws_only_what_was_shown(desk: Desk) -> None:
    """What came after the buffer was loaded is not withdrawn by its absence."""
    old = desk.view
    desk.post("c", "look at c")
    assert effects(desk.save(without(old, "a"))) == [("delete", "a")]
    assert desk.state.messages["c"].status is Status.OPEN


def test_hidden_items_are_not_withdrawn() -> None:
    """Items beyond the fifty shown are counted, not listed; a save without them says nothing of them."""
    desk = Desk()
    for n in range(55):
        desk.post(f"i{n}", f"look at {n}")
    assert "… and 5 more" in desk.view
    assert effects(desk.save(without(desk.view, "i3"))) == [("delete", "i3")]


def test_a_line_pasted_back_restores(desk: Desk) -> None:
    """A withdrawn item's line, put back with its id into a view that did not show it, restores it."""
    line = next(line for line in desk.view.split("\n") if "id:a " in line)
    desk.save(without(desk.view, "a"))
    assert effects(desk.save(with_line(desk.view, line))) == [("restore", "a")]


def test_a_new_line_becomes_a_message_and_stays_where_it_was_typed(desk: Desk) -> None:
    """Kind, priority and text are read from the line; the view then shows it in the same place, with an id."""
    line = "- [ ] Priority: HIGH - Issue: the door is open"
    edit = desk.save(with_line(desk.view, line, "## Priority Tasks\n"))
    assert edit is not None
    (add,) = edit.effects
    assert (add.what, add.kind, add.priority, add.text) == ("add", "Issue", "HIGH", "the door is open")
    assert f"## Priority Tasks\n\n{line} (from User) <!-- id:{add.id} -->\n" in desk.view


@pytest.mark.parametrize(
    ("name", "kind"),
    [("DEVELOPER_READ", "Implement"), ("DEBUG_READ", "Issue"), ("QA_READ", "Review"), ("PLANNING_READ", "Assess")],
)
def test_the_default_kind_is_the_phase_s(name: str, kind: str) -> None:
    """A line without an opening word gets the kind that its receiver mostly works on."""
    desk = Desk(document=DEFAULT.document(name))
    edit = desk.read(with_line(desk.view, "- do it"))
    assert edit is not None
    assert [(e.kind, e.text) for e in edit.effects] == [(kind, "do it")]


def test_lines_under_a_new_item_are_part_of_its_text_and_stay(desk: Desk) -> None:
    """What stands under a typed item reaches the phase and stays in the file byte for byte."""
    typed = "- [ ] look at d\n  because of this\n\n      code()\n"
    edit = desk.save(with_line(desk.view, typed))
    assert edit is not None
    assert edit.effects[0].text == "look at d\nbecause of this\n\n    code()"
    assert "-->\n  because of this\n\n      code()\n" in desk.view
    assert desk.view.count("because of this") == 1


@pytest.mark.parametrize(
    "line", ["- [ ]no space", "- [x]no space", "- [-] odd", "* plain", "1. numbered", "+ [X] done"]
)
def test_odd_items_are_not_dropped(desk: Desk, line: str) -> None:
    """A list item under Priority Tasks becomes a message however its box is written."""
    edit = desk.save(with_line(desk.view, line))
    assert edit is not None
    (add,) = edit.effects
    assert add.text in ("no space", "odd", "plain", "numbered", "done")
    assert add.done == ("x]" in line.lower())


def test_a_hand_added_item_is_imported_once_from_every_save_of_a_buffer(desk: Desk) -> None:
    """design: a hand-added item gets some id — the same save read again and a later one give the same id."""
    text = with_line(desk.view, "- [ ] look at d")
    assert [what for what, _ in effects(desk.save(text))] == ["add"]
    again = desk.save(with_line(text, "- [ ] look at e"))
    assert [what for what, _ in effects(again)] == ["add"]
    assert sorted(m.text for m in desk.state.messages.values()) == ["look at a", "look at b", "look at d", "look at e"]


def test_two_equal_lines_are_two_messages(desk: Desk) -> None:
    """The ordinal tells lines with one text apart."""
    edit = desk.save(with_line(desk.view, "- [ ] again\n- [ ] again"))
    assert edit is not None
    assert len({effect.id for effect in edit.effects}) == 2


def test_what_a_stale_buffer_takes_back_is_asked(desk: Desk) -> None:
    """design: taken back in a stale buffer — neither applied nor ignored, and asked once."""
    view = desk.view
    desk.save(ticked(view, "a"))
    edit = desk.save(with_line(view, "note", "## Notes\n"))
    assert edit is not None
    assert not edit.effects
    (question,) = edit.questions
    assert "takes back" in question.text
    assert "a “look at a” is done" in question.text
    assert desk.state.messages["a"].status is Status.DONE


def test_without_a_marker_only_additions_count(desk: Desk) -> None:
    """design: without a marker ticks count — they are put to the user, once."""
    text = unmarked(with_line(ticked(without(desk.view, "b"), "a"), "- [ ] look at d"))
    edit = desk.save(text)
    assert edit is not None
    assert [what for what, _ in effects(edit)] == ["add"]
    (question,) = edit.questions
    assert "b “look at b” is open and there it is not there" in question.text
    assert {item["id"] for item in question.data["items"]} == {"a", "b"}


def test_without_a_marker_a_line_with_an_item_s_text_is_that_item(desk: Desk) -> None:
    """A text without revision and ids does not double the items that it copies."""
    text = unmarked(desk.view).replace(" <!-- id:a -->", "").replace(" <!-- id:b -->", "")
    assert desk.save(text) is None
    assert effects(desk.save(text.replace("[ ] Review: look at a", "[x] Review: look at a"))) == [("tick", "a")]


def test_a_marker_of_another_history_is_unknown(desk: Desk) -> None:
    """design: a marker with a number only — the hash tells a restored history's numbers apart."""
    text = without(desk.view, "a")
    other = Desk(life="b")
    other.post("a", "look at a")
    other.post("b", "look at b")
    other.post("c", "look at c")
    edit = other.save(text)
    assert edit is not None
    assert not edit.effects
    assert len(edit.questions) == 1


def test_two_markers_are_no_marker(desk: Desk) -> None:
    """With two revision lines nobody knows where the text came from."""
    old = desk.view
    desk.post("c", "look at c")
    text = f"{without(old, 'a')}\n{desk.view.split(chr(10))[-2]}\n"
    assert revision(text) is None
    assert not effects(desk.save(text))


def test_an_empty_file_asks_one_question_and_withdraws_nothing(desk: Desk) -> None:
    """A file that somebody emptied is no wish to withdraw everything."""
    edit = desk.save("")
    assert edit is not None
    assert not edit.effects
    assert desk.state.messages["a"].status is Status.OPEN
    assert "look at a" in desk.view


def test_free_text_is_kept_and_merged(desk: Desk) -> None:
    """Text of two stale buffers is in the document in the end, each where it was written."""
    view = desk.view
    desk.save(with_line(view, "first thought", "## Notes\n"))
    desk.save(with_line(view, "second thought", "## Context\n"))
    assert desk.view.index("## Context") < desk.view.index("second thought") < desk.view.index("## Requirements")
    assert desk.view.index("## Notes") < desk.view.index("first thought")


def test_a_blank_line_is_the_person_s_too(desk: Desk) -> None:
    """Spacing that somebody changed stays as he made it."""
    text = desk.view.replace("## Context\n", "\n\n## Context\n\n\n")
    desk.save(text)
    assert body(desk.view) == body(text)


def test_only_effects_go_on_record(desk: Desk) -> None:
    """mutant: every change of a file is put on record — a tick carries no base."""
    edit = desk.read(ticked(desk.view, "a"))
    assert edit is not None
    assert edit.base is None


def test_a_lost_section_comes_back_empty_and_its_text_stays(desk: Desk) -> None:
    """A renamed heading keeps its text; the section is there again."""
    text = with_line(desk.view, "mine", "## Notes\n").replace("## Notes", "## My Notes")
    desk.save(text)
    assert "## My Notes\n\nmine" in desk.view
    assert desk.view.count("## Notes") == 1


def test_an_unclosed_fence_withdraws_nothing(desk: Desk) -> None:
    """Items that a half typed fence swallows are still there; the view shows them before it."""
    text = desk.view.replace("## Priority Tasks\n", "## Priority Tasks\n\n```\n")
    edit = desk.save(text)
    assert not effects(edit)
    closed = desk.save(desk.view.replace("\n---\n", "\n```\n\n---\n"))
    assert not effects(closed)
    assert desk.state.messages["a"].status is Status.OPEN


def test_a_line_of_another_phase_s_document_leaves_that_one_s_message_alone(desk: Desk) -> None:
    """A ticked line pasted here is a task of its own, done; the message that has the id is the other phase's."""
    desk.post("other", "theirs")
    desk.set("other", to="developer")
    edit = desk.save(with_line(desk.view, "- [x] Issue: theirs (from QA) <!-- id:other -->"))
    assert edit is not None
    (add,) = edit.effects
    assert (add.what, add.text, add.done, add.id != "other") == ("add", "theirs", True, True)
    assert desk.state.messages["other"].status is Status.OPEN


def test_a_reworded_item_of_another_gets_the_words_added(desk: Desk) -> None:
    """The user's wording joins the item; the author's stays."""
    edit = desk.save(desk.view.replace("look at a", "look at a and its friends"))
    assert edit is not None
    (add,) = edit.effects
    assert (add.what, add.re, add.text) == ("add", "a", "look at a and its friends")
    assert "also Review: look at a and its friends (from User)" in desk.view


def test_a_reworded_item_of_the_user_s_is_replaced(desk: Desk) -> None:
    """Nobody works on it yet: the new wording takes its place."""
    edit = desk.save(with_line(desk.view, "- [ ] look at d"))
    assert edit is not None
    edit = desk.save(desk.view.replace("look at d", "look at d, please"))
    assert [what for what, _ in effects(edit)] == ["delete", "add"]
    assert "look at d, please (from User)" in desk.view
    assert desk.view.index("look at d, please") < desk.view.index("look at a")


def test_lines_under_somebody_s_item_are_told_to_the_receiver(desk: Desk) -> None:
    """A remark under an item stays there and joins the item."""
    lines = desk.view.replace("<!-- id:a -->\n", "<!-- id:a -->\n  only on Tuesdays\n")
    edit = desk.save(lines)
    assert edit is not None
    assert [(e.re, e.text) for e in edit.effects] == [("a", "only on Tuesdays")]
    assert "<!-- id:a -->\n  only on Tuesdays\n" in desk.view


def test_a_line_that_is_typed_further_replaces_its_half(desk: Desk) -> None:
    """An editor that saves by itself leaves one task, not one for each pause in typing."""
    view = desk.view
    desk.save(with_line(view, "- [ ] look at the do"))
    desk.save(with_line(view, "- [ ] look at the door, please"))
    still_open = [m.text for m in desk.state.messages.values() if m.status is Status.OPEN]
    assert sorted(still_open) == ["look at a", "look at b", "look at the door, please"]
    assert not desk.state.questions


def test_rewording_a_closed_item_is_asked(desk: Desk) -> None:
    """A changed text of something done is neither a task nor lost."""
    desk.set("a", status=Status.DONE)
    edit = desk.save(desk.view.replace("look at a", "look at a once more"))
    assert edit is not None
    assert not edit.effects
    assert "once more" in edit.questions[0].text


def test_a_raised_priority_reaches_the_item(desk: Desk) -> None:
    """Typing a priority before an item raises it."""
    edit = desk.save(desk.view.replace("[ ] Review: look at a", "[ ] Priority: HIGH - Review: look at a"))
    assert edit is not None
    assert [(e.priority, e.re) for e in edit.effects] == [("HIGH", "a")]


def test_a_line_copied_from_another_document_is_a_new_item(desk: Desk) -> None:
    """An id of another document's item is reissued; elsewhere than under the tasks the line stays as text."""
    text = with_line(desk.view, "- [ ] Issue: theirs (from QA) <!-- id:other -->")
    text = with_line(text, "- kept <!-- id:other -->", "## Notes\n")
    edit = desk.save(text)
    assert edit is not None
    assert [(e.what, e.kind, e.text) for e in edit.effects] == [("add", "Issue", "theirs")]
    assert edit.effects[0].id != "other"
    assert "\n- kept\n" in desk.view


def test_an_exact_copy_of_a_line_is_nothing_and_a_changed_copy_is_new(desk: Desk) -> None:
    """Of two lines with one id the one with the item's text is the item."""
    line = next(line for line in desk.view.split("\n") if "id:a " in line)
    assert not effects(desk.save(with_line(desk.view, line)))
    edit = desk.save(with_line(desk.view, line.replace("look at a", "look elsewhere")))
    assert edit is not None
    assert [(e.what, e.text, e.re) for e in edit.effects] == [("add", "look elsewhere", None)]


def test_owned_lines_of_a_write_document_are_undone_and_text_stays() -> None:
    """A WRITE document is the phase's: a changed line comes back, free text stays."""
    desk = Desk(document=QA_WRITE)
    desk.state.status_lines["qa"] = ("all green",)
    desk.post("a", "look", status=Status.CLAIMED)
    text = desk.view.replace("all green", "all red").replace("[ ] Review", "[x] Review")
    assert desk.save(text) is None
    edit = desk.save(with_line(text, "says who?", "## Status\n"))
    assert edit is not None
    assert not edit.effects
    assert "says who?" in desk.view
    assert "- all green" in desk.view


def test_strategic_text_is_merged_with_what_planning_wrote() -> None:
    """design: Planning's text replaces the document — both sides' lines stay."""
    desk = Desk(document=SECONDARY)
    old = desk.view
    planned = old.replace("## Known Issues\n", "## Known Issues\n\n- [ ] a leak\n")
    desk.record(base=planned)
    edit = desk.save(old.replace("## Objectives\n", "## Objectives\n\n- [ ] be quick\n"))
    assert edit is not None
    assert "- [ ] a leak" in desk.view
    assert "- [ ] be quick" in desk.view


def test_a_person_s_own_file_replaces_the_template() -> None:
    """Where nobody has written yet, a text of unknown origin is the document; no template is mixed into it."""
    desk = Desk(document=SECONDARY)
    desk.save("# Ours\n\n## Objectives\n\n- [ ] be quick")
    assert desk.view.startswith("# Ours\n\n## Objectives\n\n- [ ] be quick\n\n---\n\nLast Updated: 2026")
    assert "Known Issues" not in desk.view


def test_a_text_of_unknown_origin_deletes_no_lines() -> None:
    """What a strategic text without its revision lacks is kept and asked about, once."""
    desk = Desk(document=SECONDARY)
    desk.save(desk.view.replace("## Objectives\n", "## Objectives\n\n- [ ] be quick\n"))
    text = unmarked(desk.view).replace("- [ ] be quick\n", "- [ ] be slow\n")
    edit = desk.save(text)
    assert edit is not None
    assert isinstance(edit.questions[0], Question)
    assert "- [ ] be quick" in desk.view
    assert "- [ ] be slow" in desk.view


def test_other_line_ends_without_a_revision_double_nothing(desk: Desk) -> None:
    """A text of unknown origin is compared by its lines, not by how they end."""
    desk.save(with_line(desk.view, "first thought", "## Notes\n"))
    desk.save(unmarked(desk.view).replace("\n", "\r\n").replace("first", "second"))
    assert desk.view.count("## Notes") == 1
    assert desk.view.count("thought") == 2


def test_windows_line_ends_are_taken_over(desk: Desk) -> None:
    """A document saved with CRLF is rendered with CRLF from then on, and nothing is doubled."""
    desk.save(desk.view.replace("\n", "\r\n"))
    assert desk.view.count("\r\n") == desk.view.count("\n")
    assert desk.view.count("look at a") == 1
    desk.post("c", "look at c")
    assert desk.view.count("\r\n") == desk.view.count("\n")
    assert effects(desk.save(ticked(desk.view, "c"))) == [("tick", "c")]


KEPT: dict[str, Callable[[str], str]] = {
    "a BOM": lambda text: "\ufeff" + text,
    "Windows line ends and a BOM": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "front matter": lambda text: "---\ntitle: ours\ntags: [a, b]\n---\n\n" + text,
    "tabs and blanks at line ends": lambda text: in_between(text, "\tindented\t\n  \t\na break  \nhere"),
    "setext headings": lambda text: in_between(text, "What we know\n============\n\nand\n\nWhat we do not\n---\n"),
    "a table": lambda text: in_between(text, "| a | b |\n|:--|--:|\n| `x|y` | <!-- no item --> |"),
    "a fence with an item in it": lambda text: in_between(text, "````md\n- [ ] not a task <!-- id:a -->\n```\n````"),
    "other line ends of Unicode": lambda text: in_between(text, "one\u2028two\x0cthree\x85four\x0bfive"),
    "HTML": lambda text: in_between(text, "<details>\n<summary>more</summary>\n\n* [X] done\n</details>"),
}


def in_between(text: str, lines: str) -> str:
    """The text with these lines in a section of the person's own, ending as its lines do."""
    end = "\r\n" if "\r\n" in text else "\n"
    heading = next(heading for heading in ("## Context", "## Known Issues") if heading in text)
    return text.replace(f"{heading}{end}", f"{heading}{end}{end}{lines}{end}")


@pytest.mark.parametrize("document", [QA_READ, SECONDARY], ids=lambda document: document.name)
@pytest.mark.parametrize("how", KEPT)
def test_what_is_not_understood_is_kept_byte_for_byte(document: Any, how: str) -> None:
    """It survives its own import, the next message, and another save; only items and the last lines are ours."""
    desk = Desk(document=document)
    desk.post("a", "look at a")
    written = KEPT[how](desk.view)
    desk.save(written)
    assert body(desk.view) == body(written)
    desk.post("b", "look at b")
    desk.save(in_between(desk.view, "a last word"))
    desk.post("c", "look at c")
    kept = [line for line in body(desk.view).split("\n") if not re.search(r"<!-- id:[bc] -->", line)]
    assert "\n".join(kept) == body(in_between(written, "a last word"))


@pytest.mark.parametrize("document", [QA_READ, SECONDARY], ids=lambda document: document.name)
def test_a_bom_goes_when_somebody_takes_it_away(document: Any) -> None:
    """And only then: a stale buffer without one, from before it came, does not."""
    desk = Desk(document=document)
    before = desk.view
    desk.save("\ufeff" + desk.view)
    desk.save(in_between(before, "from before"))
    assert desk.view.startswith("\ufeff")
    desk.save(desk.view.removeprefix("\ufeff"))
    assert not desk.view.startswith("\ufeff")
    assert "from before" in desk.view


def test_an_emptied_file_comes_back_with_its_bom(desk: Desk) -> None:
    """As with all that it held."""
    desk.save("\ufeff" + with_line(desk.view, "mine", "## Notes\n"))
    desk.save("")
    assert desk.view.startswith("\ufeff# QA_READ")


def test_a_missing_last_line_end_is_no_line_of_its_own(desk: Desk) -> None:
    """What stands there is kept, and what is ours begins on a line of its own."""
    written = f"{body(desk.view).rstrip()}\n\nno end"
    desk.save(written)
    assert "\nno end\n" in desk.view
    assert desk.view.count("no end") == 1
    assert body(desk.view).rstrip("\n") == written.rstrip("\n")


def test_an_item_s_line_is_what_the_view_says(desk: Desk) -> None:
    """The model's shape of a line, as SPEC has it."""
    body = item_body(DEFAULT, desk.state, desk.state.messages["a"])
    assert f"- [ ] {body} <!-- id:a -->\n" in desk.view
    assert body == "Review: look at a (from Developer)"


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "## s\n", "- [ ] x\n", "- [x] x\n"]), max_size=9)


@settings(deadline=None)
@given(LINES, LINES, LINES)
def test_a_merge_loses_no_line_that_either_side_added(base: list[str], mine: list[str], theirs: list[str]) -> None:
    """Every line that is new on one side is in the result."""
    merged = merge_text("".join(base), "".join(mine), "".join(theirs)).split("\n")
    for side in (mine, theirs):
        for line in {line for line in side if line.strip()} - set(base):
            assert line.rstrip("\n") in merged


@settings(deadline=None)
@given(LINES, LINES)
def test_a_merge_with_one_changed_side_is_that_side(base: list[str], other: list[str]) -> None:
    """Where only one side changed something, the result is its text."""
    one, two = "".join(base), "".join(other)
    assert merge_text(one, one, two) == two
    assert merge_text(one, two, one) == two
    assert merge_text(one, two, two) == two


@settings(deadline=None)
@given(st.lists(st.sampled_from(["tick a", "tick b", "drop a", "drop b", "add", "note", "old", "unmark"]), max_size=8))
def test_whatever_is_saved_in_whatever_order_comes_to_rest(steps: list[str]) -> None:
    """After each save the same text again, and the new view, do nothing (asserted in `Desk.save`)."""
    desk = Desk()
    desk.post("a", "look at a")
    desk.post("b", "look at b")
    text = first = desk.view
    for at, step in enumerate(steps):
        match step.split():
            case ["tick", key]:
                text = ticked(text, key)
            case ["drop", key]:
                text = without(text, key)
            case ["add"]:
                text = with_line(text, f"- [ ] look at {at}")
            case ["note"]:
                text = with_line(text, f"note {at}", "## Notes\n")
            case ["old"]:
                text = first
            case _:
                text = unmarked(text)
        desk.save(text)
        if at % 2:
            text = desk.view
    added = [f"look at {at}" for at, step in enumerate(steps) if step == "add"]
    texts = [message.text for message in desk.state.messages.values()]
    assert all(texts.count(text) == 1 for text in added)
    for at, step in enumerate(steps):
        if step == "note" and "old" not in steps:
            assert f"note {at}" in desk.view
