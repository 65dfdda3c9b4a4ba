"""Splicing leaves every other byte alone, and no text gets out of its item."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from docs_store.markdown import (
    Block,
    Owned,
    add_item,
    body,
    escape,
    parse,
    replace_section,
    revision,
    section_text,
    sections,
    splice,
    split,
    task_items,
    tick,
    trailer,
    unescape,
)

TAIL = ("---", "", "Last Updated: 2026-11-20T10:00:00Z", "Updated By: QA", "<!-- rev:7 0123456789abcdef -->")
BLOCKS = (Block("QA_READ", level=1), Block("Priority Tasks"), Block("Notes"))

BY_HAND = (
    "\ufeff# QA_READ\n\n## Priority Tasks\n\ntext\n",
    "---\ntitle: x\n---\n\n# QA_READ\r\n\r\n## Priority Tasks\r\n\r\n* [ ] mine\r\n\ttabbed\r\n\r\n## Notes\r\nx",
    "QA_READ\n=======\n\nPriority Tasks\n--------------\n\n1) one\n2) two\n\nNotes\n---\nend",
    "# QA_READ\n## Priority Tasks\n| a | b |\n|---|---|\n| 1 | 2 |\n## Notes\n~~~py\n## Notes\n~~~\n  \n",
    "# QA_READ\n\n## Priority Tasks\n\n> - [ ] quoted <!-- id:q -->\n\n## Notes\n\nhard  \nbreak\n",
    "# QA_READ\n\n## Notes\n\n&amp; \x0b\x0c\u2028\u0085 end\n",
    "# QA_READ\n\n## Priority Tasks\n\n<!-- a\ncomment\n-->\n\n## Notes\n\nLast Updated: by me\n",
    "a lone \r return\n\n## Notes\n\n```\nopen fence\n## Priority Tasks\n",
    "",
    "\n\n\n",
)
PAYLOADS = (
    "a\n# heading",
    "a\n   ## heading",
    "a\n\t# heading",
    "a\r\n# heading",
    "a\r# heading",
    "a\n- [x] task",
    "a\n\n- [ ] task <!-- id:forged -->",
    "a\n---",
    "a\n===",
    "a\n```\nfence",
    "a\n~~~",
    "a\n<div>\n\n<script>alert(1)</script>",
    "a <!-- id:forged -->",
    "a <!-- rev:9 abcdef -->",
    "`a <!-- id:forged -->`",
    "a -->",
    "<!-->",
    "a\u2028# heading\u2029- [ ] x\u0085# y\x0b# z\x0c",
    "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "\u202eevil\u2066\u200f\ufeff",
    "![img](http://example.org/x.png) [link](javascript:alert(1)) <http://x.y>",
    "&lt; &#60; \\",
    "a\udc80b\x00",
    "`` ` `unbalanced",
    "",
)


def free(text: str) -> list[str]:
    """The lines that are not ours, blank ones aside."""
    page = parse(text)
    ours = page.trailer | {item.line for item in page.items if item.key}
    return [line.rstrip("\r\n") for at, line in enumerate(page.lines) if at not in ours and line.strip()]


@pytest.mark.parametrize("text", BY_HAND)
def test_splicing_keeps_every_line_of_a_person(text: str) -> None:
    """Items and trailer come and go, sections come back; everything else is there, in order, byte for byte."""
    items = (Owned("a", "[ ] Issue: one <!-- id:a -->"), Owned("b", "[x] two <!-- id:b -->"))
    blocks = (BLOCKS[0], Block("Priority Tasks", lines=items), Block("Notes"))
    spliced = splice(text, blocks, TAIL)
    kept = iter(split(spliced.removeprefix("\ufeff")))
    for line in split(text.removeprefix("\ufeff")):
        assert any(line in (other, other.rstrip("\r\n")) for other in kept), line
    assert spliced.startswith("\ufeff") == text.startswith("\ufeff")
    assert spliced.endswith("\n") == (text.endswith("\n") or not text)
    assert revision(spliced) == (7, "0123456789abcdef")
    assert splice(spliced, blocks, TAIL) == spliced
    again = splice(spliced, BLOCKS, TAIL)
    assert free(again) == free(spliced)
    assert "id:a" not in again


@pytest.mark.parametrize("text", BY_HAND)
def test_line_ends_are_those_of_the_text(text: str) -> None:
    """New lines end as the first line of the text does."""
    spliced = splice(text, (Block("More", lines=(Owned("a", "[ ] x <!-- id:a -->"),)),), TAIL)
    end = "\r\n" if "\r\n" in text.partition("\n")[0] + "\n" else "\n"
    assert f"- [ ] x <!-- id:a -->{end}" in spliced


def test_a_line_stays_where_its_id_is() -> None:
    """Items keep their place among what people wrote between them; new ones follow the last."""
    text = "# D\n\n## T\n\n* [ ] old <!-- id:b -->\n  about b\n* [ ] older <!-- id:a -->\n  about a\n\nend\n"
    lines = tuple(Owned(key, f"[ ] {key} <!-- id:{key} -->") for key in "abc")
    spliced = splice(text, (Block("D", level=1), Block("T", lines=lines)), TAIL)
    assert (
        "* [ ] b <!-- id:b -->\n  about b\n* [ ] a <!-- id:a -->\n  about a\n* [ ] c <!-- id:c -->\n\nend\n" in spliced
    )


def test_nested_sections_are_made_and_left_out() -> None:
    """A group without lines is not there; one with lines stands in its section."""
    blocks = (
        Block("S"),
        Block("To A", level=3, lines=(Owned("a", "x <!-- id:a -->"),)),
        Block("To B", level=3),
        Block("E"),
    )
    assert splice("", blocks, TAIL).startswith("## S\n\n### To A\n\n- x <!-- id:a -->\n\n## E\n\n---\n")


def test_text_after_the_trailer_stays_and_the_trailer_moves_to_the_end() -> None:
    """Somebody who types at the end of the file loses nothing, and the revision is still the last line."""
    text = splice("# D\n", (Block("D", level=1),), TAIL) + "one more thing\n"
    spliced = splice(text, (Block("D", level=1),), TAIL)
    assert "one more thing\n" in spliced
    assert spliced.endswith("<!-- rev:7 0123456789abcdef -->\n")
    assert spliced.count("Last Updated") == 1


def test_a_person_s_own_words_are_no_trailer() -> None:
    """Only our dates and our rule go; a line that merely begins like one stays."""
    text = "# D\n\nLast Updated: by me\n\n---\n\nUpdated By: me\n\nmore\n"
    assert body(text) == text
    assert trailer(text) == ""


def test_a_trailer_inside_an_open_fence_at_the_end_is_found() -> None:
    """Also when somebody forgot to close a fence, the file's revision is known."""
    text = "# D\n\n```\nopen\n\n" + "\n".join(TAIL) + "\n"
    assert revision(text) == (7, "0123456789abcdef")
    assert body(text) == "# D\n\n```\nopen\n\n"


def test_our_trailer_is_neither_front_matter_nor_part_of_an_item() -> None:
    """A rule at the top and ours at the end frame nothing; a date right under an item is not the item's."""
    page = parse("---\n# D\n\n---\n\nLast Updated: never\n")
    assert (page.first, [heading.title for heading in page.headings]) == (0, ["D"])
    assert [item.end for item in parse("## T\n- [ ] a\nLast Updated: never\n").items] == [2]


def test_a_revision_quoted_in_a_fence_is_text() -> None:
    """A pasted copy of a document is not its revision."""
    text = "# D\n\n```\n<!-- rev:1 aa -->\n```\n\n" + "\n".join(TAIL) + "\n"
    assert revision(text) == (7, "0123456789abcdef")
    assert revision(text + "<!-- rev:1 aa -->\n") is None


def test_our_rule_under_a_person_s_line_makes_it_no_heading() -> None:
    """Where the blank line before our rule was deleted, the text above is not taken for a section."""
    text = "# D\n\n## Notes\n\nlast words\n" + "\n".join(TAIL) + "\n"
    assert list(sections(text)) == ["Notes"]
    assert "last words" in section_text(text, "notes")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_in_its_item(payload: str) -> None:
    """The document has the same blocks as with a harmless text, and only our id."""
    check_harmless(payload)


@settings(deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("#-*_`~<>![]()&\\\n\r\t |x1.:=id"), st.characters()), max_size=60))
def test_any_text_stays_in_its_item(payload: str) -> None:
    """The same for whatever comes."""
    check_harmless(payload)


def check_harmless(payload: str) -> None:
    """Parse with a full CommonMark parser, before and after."""
    shape = []
    for text in ("harmless", payload):
        line = f"[ ] Issue: {escape(text)} (from QA) <!-- id:real -->"
        document = splice("# D\n", (Block("T", lines=(Owned("real", line), Owned("z", "[ ] z <!-- id:z -->"))),), TAIL)
        document.encode()
        tokens = MarkdownIt("commonmark").parse(document)
        shape.append([(token.type, token.map) for token in tokens])
        assert [(item.key, item.ticked) for item in parse(document).items] == [("real", False), ("z", False)]
        inline = next(token for token in tokens if "Issue:" in token.content)
        kinds = [child.type for child in inline.children or ()]
        assert set(kinds) <= {"text", "text_special", "code_inline", "html_inline"}
        assert [child.content for child in inline.children or () if child.type == "html_inline"] == ["<!-- id:real -->"]
        assert not {unicodedata.category(char) for char in document.replace("\n", "")} & {"Cc", "Cs", "Zl", "Zp"}
        assert not set(document) & set("\x1b\x9b\u202e\u2028\u2029\x85\r\x0b\x0c")
    assert shape[0] == shape[1]


@settings(deadline=None)
@given(st.text(alphabet="abc_*`<>&[]()!\\ -#~"))
def test_a_markdown_reader_sees_the_text_as_it_was(text: str) -> None:
    """What the escaped line shows is the text, but for its code spans."""
    if "`" in text or not text.strip():
        return
    shown = MarkdownIt("commonmark").parseInline(f"Issue: {escape(text)}")[0].children or []
    assert "".join(child.content for child in shown) == f"Issue: {text.strip()}".strip() or "  " in text


def test_names_of_code_stay_readable() -> None:
    """Nothing is escaped that need not be."""
    text = "alerts/rules.py:12 in check_all(x[0], y-1) -> C:\\dir | a > b (#3) `**kwargs`"
    assert escape(text) == text
    assert escape("**bold** [a](b)", own=True) == "**bold** [a](b)"


@settings(deadline=None)
@given(st.text(alphabet="ab_*<&[](\\ \n"))
def test_unescape_gives_back_a_line(text: str) -> None:
    """What was escaped and left standing reads as the text again, blanks around line ends aside."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    assert [line.strip() for line in unescape(escape(text)).split("\n")] == (lines or [""]) or "\\" in text


def test_a_list_of_tasks_is_read_and_ticked() -> None:
    """Planning's helpers: items with their ticks, ticking by text, adding once."""
    text = "# P\n\n## Objectives\n\n- [ ] be `quick`\n* [x] be *right*\n  - [ ] nested\n\n## Known Issues\n"
    assert [tuple(item) for item in task_items(text, "objectives")] == [
        (False, "be `quick`"),
        (True, "be *right*"),
        (False, "nested"),
    ]
    ticked = tick(text, "Objectives", "be `quick`")
    assert ticked == text.replace("[ ] be `quick`", "[x] be `quick`")
    assert tick(ticked, "Objectives", "be `quick`", ticked=False) == text
    assert tick(text, "Objectives", "unknown") == text
    more = add_item(text, "Known Issues", "a <b> leak")
    assert more.endswith("## Known Issues\n\n- [ ] a \\<b> leak\n")
    assert add_item(more, "Known Issues", "a <b> leak") == more
    assert tick(more, "Known Issues", "a <b> leak").endswith("- [x] a \\<b> leak\n")


def test_an_item_is_added_after_the_last_one() -> None:
    """In a list with text after it the new item joins the list."""
    text = "## K\n\n- [ ] one\n  more\n\nafter\n"
    assert add_item(text, "K", "two") == "## K\n\n- [ ] one\n  more\n- [ ] two\n\nafter\n"


def test_a_missing_section_is_added_before_the_trailer() -> None:
    """New sections of strategic documents come last, above rule and dates."""
    text = "# P\n\n---\n\nLast Updated: never\n"
    assert add_item(text, "Database Changes Needed", "a column") == (
        "# P\n\n## Database Changes Needed\n\n- [ ] a column\n\n---\n\nLast Updated: never\n"
    )


def test_a_section_is_replaced_and_the_others_stay() -> None:
    """Only the lines under the heading change; doing it again changes nothing."""
    text = "# P\r\n\r\n## A\r\n\r\nold\r\n\r\n## B\r\nmine"
    once = replace_section(text, "a", "new\nlines\n")
    assert once == "# P\r\n\r\n## A\r\n\r\nnew\r\nlines\r\n\r\n## B\r\nmine"
    assert replace_section(once, "A", "new\nlines") == once
    assert replace_section("## A\nold", "A", "new") == "## A\n\nnew\n"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "# D",
                "## T",
                "## N",
                "- [ ] a <!-- id:a -->",
                "- b",
                "text",
                "",
                "```",
                "---",
                "  x",
                "> q",
                "<!--",
                "-->",
                "Last Updated: never",
            ]
        ),
        max_size=14,
    )
)
@example(["---", "# D"])
@example(["## T", "- [ ] a <!-- id:a -->", "Last Updated: never"])
@example(["- [ ] a <!-- id:a -->", "---", "# D", "---"])
@example(["---", "Last Updated: never", "## T", "---"])
@example(["---", "# D", "---", "Last Updated: never", "---"])
def test_rendering_what_was_rendered_changes_nothing(lines: list[str]) -> None:
    """Splicing is a fixpoint, and keeps all lines of others, over generated Markdown."""
    text = "\n".join(lines)
    items = (Owned("a", "[ ] a <!-- id:a -->"), Owned("c", "[ ] c <!-- id:c -->"))
    blocks = (Block("D", level=1), Block("T", lines=items), Block("N"))
    once = splice(text, blocks, TAIL)
    assert splice(once, blocks, TAIL) == once
    for line in ("text", "- b", "> q", "  x", "-->"):
        assert once.split("\n").count(line) == lines.count(line)
    assert revision(once) == (7, "0123456789abcdef")
