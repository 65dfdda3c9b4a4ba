r"""Where things are in a Markdown text, and how to change one line without disturbing another byte.

Renderers damage what people write, so nothing is ever rendered from a tree: `parse` finds the lines of headings, list
items and our trailer, everything else is splicing of lines. Lines end at "\n" only (a "\r" before it belongs to the
line). `escape` is the one door through which foreign text enters a document. What the lines mean is for `views` and
`merge` to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

BOM = "\ufeff"
_ITEM = re.compile(r"(\s*(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$))(?:\[([ xX])\](?:[ \t]+|$))?(.*)", re.DOTALL)
_MARK = re.compile(r"[ \t]*<!-- (?:id:([A-Za-z0-9][A-Za-z0-9._:@+~/-]{0,127})|(more|status)) -->[ \t]*$")
_REV = re.compile(r"<!-- rev:(\d{1,18}) ([0-9a-f]{1,64}) -->\s*$")
_UPDATED = re.compile(r"Last Updated: (?:never|\d{4}-\d\d-\d\dT\d\d:\d\d[0-9:.]*(?:Z|\+00:00))\s*$")
_UPDATED_BY = re.compile(r"Updated By: .*$", re.DOTALL)
_RULE = re.compile(r"---\s*$")
_FRONT_END = re.compile(r"(?:---|\.\.\.)[ \t]*\r?\n?$")
_OPEN_HTML = (("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>"), ("<script", "</script>"), ("<pre", "</pre>"))
_HTML_ENDS = (*_OPEN_HTML, ("<style", "</style>"), ("<textarea", "</textarea>"), ("<!", ">"))


class Span(NamedTuple):
    """Lines of one section: `start` is its heading's, `body` the first after it, `end` the first after the section."""

    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading at the top level of the document (none inside lists, quotes or fences); lines from `start` to `end`."""

    level: int
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Item:
    """A list item outside quotes, whose first line is `line`; its span ends before line `end`, blank lines excluded.

    `prefix` is indentation and bullet, `ticked` None without a checkbox, `key` what our comment at the end of the line
    says: a message id, or with `drawn` the kind of a line that is drawn anew each time.
    """

    line: int
    end: int
    prefix: str
    ticked: bool | None
    body: str
    key: str | None
    drawn: bool
    depth: int


@dataclass(frozen=True, slots=True)
class Page:
    """What `parse` found. `trailer` are the lines of rule, dates and revision that are ours, wherever.

    `limit` is the first line after the last section's text; `safe` the last line before which a heading or list can be
    put at the end of the document (before a fence or comment that nobody closed).
    """

    lines: tuple[str, ...]
    headings: tuple[Heading, ...]
    items: tuple[Item, ...]
    trailer: frozenset[int]
    revisions: tuple[tuple[int, str], ...]
    limit: int
    safe: int
    first: int  # the first line after front matter


@dataclass(frozen=True, slots=True)
class Owned:
    """A line that the store owns, without its bullet: `key` is a message id, or "more" or "status"."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """A section that a document must have, and the lines in it that the store owns; a title of level 1 has none.

    A section of level 3 belongs to the one of level 2 before it, and is left out while it has no lines.
    """

    title: str
    level: int = 2
    lines: tuple[Owned, ...] = field(default=())


# --- Reading ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def parse(text: str) -> Page:
    """Find headings, items and trailer of any text whatever; the last 64 answers are remembered."""
    text = text.removeprefix(BOM)
    lines = tuple(split(text))
    first = _front_matter(lines)
    plain = "".join("\n" if at < first else line for at, line in enumerate(lines))
    plain = re.sub(r"\r(?!\n)", " ", plain).replace("\r\n", "\n").replace("\0", " ")
    tokens = _parser().parse(plain)
    opaque: set[int] = set()
    headings: list[Heading] = []
    items: list[Item] = []
    quotes = depth = 0
    safe = len(lines)
    for at, token in enumerate(tokens):
        if token.type.startswith("blockquote"):
            quotes += token.nesting
        elif token.type == "list_item_close":
            depth -= 1
        elif token.type == "list_item_open":
            if token.map and not quotes and not (items and items[-1].line == token.map[0]):
                items += _item(lines, token.map[0], token.map[1], depth)
            depth += 1
        elif token.type in ("fence", "code_block", "html_block") and token.map:
            opaque |= set(range(*token.map)) if token.type != "html_block" else set()
            if token.level == 0 and _is_open(token, lines):
                safe = token.map[0]
        elif token.type == "heading_open" and token.level == 0 and token.map:
            title = " ".join(tokens[at + 1].content.split())
            headings.append(Heading(int(token.tag[1:]), title, token.map[0], token.map[1]))
    trailer, tail = _trailer(lines, opaque, first)
    headings = [h for h in headings if not _is_ours(h, lines, trailer)]
    items = [replace(item, end=_without(lines, item, trailer)) for item in items if item.line not in trailer]
    revisions = tuple(
        (int(found[1]), found[2])
        for at, line in enumerate(lines)
        if (at in trailer) and (found := _REV.match(line.rstrip("\r\n")))
    )
    return Page(lines, tuple(headings), tuple(items), trailer, revisions, tail, min(safe, tail), min(first, tail))


def split(text: str) -> list[str]:
    r"""The lines of a text with their ends, cut at "\n" and nowhere else."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def line_end(text: str) -> str:
    """The line end that a text uses: that of its first line."""
    at = text.find("\n")
    return "\r\n" if at > 0 and text[at - 1] == "\r" else "\n"


def sections(text: str) -> dict[str, Span]:
    """The sections of level 2 by title, in order; of two with one title the first counts."""
    found: dict[str, Span] = {}
    for heading, span in _spans(parse(text), 2):
        found.setdefault(heading.title, span)
    return found


def section_text(text: str, title: str) -> str:
    """What stands under that heading of level 2, or "" if there is none."""
    page = parse(text)
    span = find_section(page, title)
    return "".join(page.lines[span.body : span.end]) if span else ""


def find_section(page: Page, title: str, level: int = 2, within: Span | None = None) -> Span | None:
    """The first section of that title and level; case and spacing of titles do not matter."""
    wanted = _folded(title)
    for heading, span in _spans(page, level):
        if _folded(heading.title) == wanted and (within is None or within.start <= span.start < within.end):
            return span
    return None


class TaskItem(NamedTuple):
    """A list item with a checkbox; `text` as written, without bullet, box and our comment."""

    ticked: bool
    text: str


def task_items(text: str, section: str) -> list[TaskItem]:
    """The items with a checkbox under that heading of level 2, nested ones too."""
    page = parse(text)
    span = find_section(page, section)
    if span is None:
        return []
    return [
        TaskItem(item.ticked, item.body)
        for item in page.items
        if item.ticked is not None and span.body <= item.line < span.end
    ]


def revision(text: str) -> tuple[int, str] | None:
    """Record number and hash of the view that a text began as; None without a revision comment, or with several."""
    found = set(parse(text).revisions)
    return found.pop() if len(found) == 1 else None


def body(text: str) -> str:
    """The text without our trailer."""
    page = parse(text)
    bom = BOM if text.startswith(BOM) else ""
    return bom + "".join(line for at, line in enumerate(page.lines) if at not in page.trailer)


def trailer(text: str) -> str:
    """Our trailer alone, as it stands in the text."""
    page = parse(text)
    return "".join(line for at, line in enumerate(page.lines) if at in page.trailer)


# --- Foreign text -----------------------------------------------------------------------------------------------------

_NEWLINE = re.compile(r"\s*(?:\r\n?|\n)\s*")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # would hide the next character
    r"|`|<"
    r"|&(?=#|\w+;)"
    r"|\*(?!\s)|(?<!\s)\*"
    r"|(?<![^\W_])_|_(?![^\W_])"
    r"|~(?=~)|(?<=~)~"
    r"|\](?=\s*[(\[:])"
)
_OWN_MARKUP = re.compile(r"<(?=[!?/A-Za-z])")


def escape(text: str, *, own: bool = False) -> str:
    r"""One line of Markdown that shows `text` and cannot be anything but a part of its item.

    Line ends become " ⏎ "; control, bidi, separator and unpaired surrogate characters become visible \uXXXX;
    markup shows as typed, but for whole code spans, which stay. With `own` (a person's own Markdown) emphasis and
    links stay too. The text itself is in the history; this is a view of it.
    """
    text = _NEWLINE.sub(" ⏎ ", text.strip()).replace("\t", " ")
    text = "".join(_visible(char) if ord(char) > 0x7E or char < " " else char for char in text)
    out, at = [], 0
    for code in _CODE.finditer(text):
        if text[: code.start()].endswith("\\"):
            continue
        out += [_escaped(text[at : code.start()], own=own), code[0]]
        at = code.end()
    return "".join([*out, _escaped(text[at:], own=own)])


def unescape(text: str) -> str:
    """What a person meant who typed or left standing this line: escapes and line end signs undone."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text).replace(" ⏎ ", "\n").strip()


def _escaped(text: str, *, own: bool) -> str:
    return (_OWN_MARKUP if own else _MARKUP).sub(lambda found: "\\" + found[0], text)


def _visible(char: str) -> str:
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and char not in _HARMLESS_FORMAT):
        return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"
    return char


_HARMLESS_FORMAT = "\u00ad\u200c\u200d"  # soft hyphen and the joiners of scripts and emoji


# --- Changing strategic documents ------------------------------------------------------------------------------------


def replace_section(text: str, title: str, content: str) -> str:
    """Put `content` (Markdown) under that heading of level 2, which is added at the end if it is missing."""
    end = line_end(text)
    content = content.replace("\r\n", "\n").strip("\n").replace("\n", end)
    page = parse(text)
    span = find_section(page, title)
    if span is None:
        return _with_section(text, page, title, content)
    lines = list(page.lines)
    after = [] if span.end >= len(lines) else [end]
    lines[span.body : span.end] = [end, content, end, *after] if content else [end]
    if span.body and not lines[span.body - 1].endswith("\n"):
        lines[span.body - 1] += end
    return (BOM if text.startswith(BOM) else "") + "".join(lines)


def add_item(text: str, section: str, item: str, *, ticked: bool = False) -> str:
    """Add a task item at the end of that section's list; nothing changes if it is there already, ticked or not."""
    item = escape(item)
    if any(_same(item, known.text) for known in task_items(text, section)):
        return text
    end = line_end(text)
    line = f"- [{'x' if ticked else ' '}] {item}"
    page = parse(text)
    span = find_section(page, section)
    if span is None:
        return _with_section(text, page, section, line)
    lines = list(page.lines)
    tops = [known for known in page.items if known.depth == 0 and span.body <= known.line < span.end]
    at = tops[-1].end if tops else _last_text(lines, span.body, span.end)
    lines[at:at] = _between(lines, at, [line], end)
    return (BOM if text.startswith(BOM) else "") + "".join(lines)


def tick(text: str, section: str, item: str, *, ticked: bool = True) -> str:
    """Tick (or untick) the items of that section whose text is `item`, as given or escaped; else nothing changes."""
    page = parse(text)
    span = find_section(page, section)
    if span is None:
        return text
    lines = list(page.lines)
    for known in page.items:
        if known.ticked in (None, ticked) or not span.body <= known.line < span.end:
            continue
        if _same(item, known.body) or _same(escape(item), known.body):
            rest = lines[known.line][len(known.prefix) + 3 :]
            lines[known.line] = f"{known.prefix}[{'x' if ticked else ' '}]{rest}"
    return (BOM if text.startswith(BOM) else "") + "".join(lines)


# --- Splicing views ---------------------------------------------------------------------------------------------------


def splice(text: str, blocks: Sequence[Block], tail: Sequence[str]) -> str:
    """Today's owned lines and trailer in place of those that `text` holds; every other byte stays as it is.

    A line stays where its key stands in its section; new ones follow the last of them, or the section's text. A
    missing section is put back empty, before the next one that is there. An item of ours outside our sections goes.
    """
    spliced = _spliced(text, blocks, tail)
    for _ in range(3):  # taking a line of ours away may show a section or front matter that it hid
        again = _spliced(spliced, blocks, tail)
        if again == spliced:
            break
        spliced = again
    return spliced


def _spliced(text: str, blocks: Sequence[Block], tail: Sequence[str]) -> str:
    end = line_end(text)
    page = parse(text)
    places: dict[int, list[str]] = {}
    lines: list[str | None] = [None if at in page.trailer else line for at, line in enumerate(page.lines)]
    claimed: set[int] = set()
    for at, block in reversed(list(enumerate(blocks))):  # deeper sections first: they own their lines
        span = _span_of(page, blocks, at)
        if block.level > 1 and span is not None:
            inside = [i for i in page.items if i.key and span.body <= i.line < span.end and i.line not in claimed]
            claimed |= {item.line for item in inside}
            _fill(page, lines, places, block, inside, span, end)
    for item in page.items if blocks else ():
        if item.key and item.line not in claimed:
            lines[item.line] = None
    for at, block in enumerate(blocks):
        if _span_of(page, blocks, at) is None and (block.lines or block.level < 3):
            where = _place_for(page, blocks, at)
            new = places.setdefault(where, [])
            new += [*([end] if new else []), *_new_section(block, end)]
    out: list[str] = []
    for at in range(len(lines) + 1):
        if added := places.get(at):
            if out and not out[-1].endswith("\n"):
                out[-1] += end
            joins = bool(_ITEM.match(added[0])) and any(item.end == at for item in page.items)
            if out and out[-1].strip() and not joins and added[0].strip():
                out.append(end)
            out += added if out or added[0].strip() else added[1:]
            following = next((line for line in lines[at:] if line is not None), None)
            if following and following.strip() and out[-1].strip():
                out.append(end)
        if at < len(lines) and (line := lines[at]) is not None:
            out.append(line)
    if out and _RULE.match(out[0]) and not _RULE.match(page.lines[0]):
        out.insert(0, end)  # at the very top a rule would begin front matter
    if out and not out[-1].endswith("\n"):
        out[-1] += end
    if out and out[-1].strip():
        out.append(end)
    last = end if not text or text.endswith("\n") else ""
    return (BOM if text.startswith(BOM) else "") + "".join(out) + end.join(tail) + last


def _fill(
    page: Page,
    lines: list[str | None],
    places: dict[int, list[str]],
    block: Block,
    inside: list[Item],
    span: Span,
    end: str,
) -> None:
    """Put a block's lines where their keys stand; collect the others for the place after the last of them."""
    waiting = {(line.key, at if _is_drawn(line.key) else 0): line for at, line in enumerate(block.lines)}
    prefix = "- "
    for item in inside:
        line = None if item.drawn else waiting.pop((item.key or "", 0), None)
        if line is None:
            lines[item.line] = None
        else:
            ending = end if page.lines[item.line].endswith("\n") else ""
            lines[item.line] = f"{item.prefix}{line.text}{ending}"
        if re.fullmatch(r" {0,3}[-*+] ", item.prefix):
            prefix = item.prefix
    if waiting:
        at = max((item.end for item in inside), default=_last_text(page.lines, span.body, span.end))
        at = max([at, *(i.end for i in page.items if i.line < at < i.end)])
        places.setdefault(at, [])[:0] = [f"{prefix}{line.text}{end}" for line in waiting.values()]


def _new_section(block: Block, end: str) -> list[str]:
    items = [f"- {line.text}{end}" for line in block.lines]
    return [f"{'#' * block.level} {block.title}{end}", *([end, *items] if items else [])]


def _span_of(page: Page, blocks: Sequence[Block], at: int) -> Span | None:
    block = blocks[at]
    if block.level < 3:
        return find_section(page, block.title, block.level) if block.level > 1 else _any_title(page)
    parent = _parent(blocks, at)
    outer = find_section(page, blocks[parent].title)
    return find_section(page, block.title, block.level, outer) if outer else None


def _any_title(page: Page) -> Span | None:
    return next((span for _, span in _spans(page, 1)), None)


def _parent(blocks: Sequence[Block], at: int) -> int:
    return max(before for before in range(at) if blocks[before].level < blocks[at].level)


def _place_for(page: Page, blocks: Sequence[Block], at: int) -> int:
    """The line before which a missing section belongs."""
    block = blocks[at]
    if block.level == 1:
        return page.first
    if block.level > 2:
        outer = find_section(page, blocks[_parent(blocks, at)].title)
        if outer is not None:
            return _last_text(page.lines, outer.body, outer.end)
    for later in range(at + 1, len(blocks)):
        if blocks[later].level <= 2 and (span := _span_of(page, blocks, later)):
            return span.start
    return page.safe


def _is_drawn(key: str) -> bool:
    return key in ("more", "status")


def _with_section(text: str, page: Page, title: str, content: str) -> str:
    """The text with a new last section."""
    end = line_end(text)
    lines = list(page.lines)
    new = [f"## {title}{end}", end, *([f"{content}{end}"] if content else [])]
    at = page.safe
    lines[at:at] = _between(lines, at, [line.removesuffix(end) for line in new], end)
    return (BOM if text.startswith(BOM) else "") + "".join(lines)


def _between(lines: list[str], at: int, new: Sequence[str], end: str) -> list[str]:
    """New lines with blank ones around them where their neighbours would run into them."""
    out = [f"{line}{end}" for line in new]
    before, after = lines[at - 1] if at else "", lines[at] if at < len(lines) else ""
    listed = bool(_ITEM.match(out[0])) and bool(_ITEM.match(before) or before.startswith((" ", "\t")))
    if before and not before.endswith("\n"):
        out[:0] = [end]
        before += "x"
    if before.strip() and not listed:
        out[:0] = [end]
    if after.strip():
        out.append(end)
    return out


def _last_text(lines: Sequence[str], start: int, end: int) -> int:
    """The line after the last one between `start` and `end` that is not blank; `start` if all are."""
    return next((at + 1 for at in range(end - 1, start - 1, -1) if lines[at].strip()), start)


def _folded(title: str) -> str:
    return " ".join(title.split()).casefold()


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()) == " ".join(other.split())


def _spans(page: Page, level: int) -> Iterator[tuple[Heading, Span]]:
    for at, heading in enumerate(page.headings):
        if heading.level == level and heading.start < page.limit:
            later = (h.start for h in page.headings[at + 1 :] if h.level <= level)
            yield heading, Span(heading.start, heading.end, min(next(later, page.limit), page.limit, page.safe))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines at the top are front matter (which Markdown would take for a rule and a heading)."""
    if lines and _RULE.match(lines[0]):
        for at, line in enumerate(lines[1:], 1):
            if _FRONT_END.match(line):
                after = next((later for later in lines[at + 1 :] if later.strip()), "")
                return 0 if _UPDATED.match(after) else at + 1  # that rule is our trailer's
    return 0


def _item(lines: Sequence[str], start: int, end: int, depth: int) -> Iterable[Item]:
    found = _ITEM.match(lines[start].rstrip("\r\n"))
    if found is None:
        return
    mark = _MARK.search(found[3])
    text = (found[3][: mark.start()] if mark else found[3]).strip()
    ticked = None if found[2] is None else found[2] != " "
    key = (mark[1] or mark[2]) if mark else None
    end = _last_text(lines, start + 1, max(end, start + 1))
    yield Item(start, end, found[1], ticked, text, key, bool(mark and mark[2]), depth)


def _without(lines: Sequence[str], item: Item, trailer: frozenset[int]) -> int:
    """The end of an item without lines of our trailer, which Markdown takes for a part of it."""
    end = item.end
    while end > item.line + 1 and (end - 1 in trailer or not lines[end - 1].strip()):
        end -= 1
    return end


def _is_open(token: Token, lines: Sequence[str]) -> bool:
    """Whether a block at the end of the document lacks its end, so that whatever follows belongs to it."""
    start, end = token.map or (0, 0)
    if _last_text(lines, end, len(lines)) > end:
        return False
    if token.type == "fence":
        closing = lines[_last_text(lines, start, end) - 1].strip()
        shut = set(closing) == set(token.markup[:1]) and len(closing) >= len(token.markup)
        return not shut or _last_text(lines, start, end) - 1 == start
    content = token.content.lstrip().lower()
    for opening, closing in _HTML_ENDS:
        if content.startswith(opening.lower()):
            return closing.lower() not in content
    return False


def _trailer(lines: Sequence[str], opaque: set[int], front: int) -> tuple[frozenset[int], int]:
    """The lines of our trailer, and where it begins if it ends the document (else the number of lines).

    At the very end it counts even inside a fence that nobody closed.
    """
    bare = [line.rstrip("\r\n") for line in lines]
    last = _last_text(lines, 0, len(lines))
    tail = last
    while tail > front and (not bare[tail - 1].strip() or _is_trailing(bare[tail - 1])):
        tail -= 1
    ours: set[int] = set()
    for at, line in enumerate(bare):
        if at < front or (at in opaque and at < tail):
            continue
        signed = at - 1 in ours or (tail <= at + 1 < len(bare) and _REV.match(bare[at + 1]))
        if _REV.match(line) or _UPDATED.match(line) or (_UPDATED_BY.match(line) and signed):
            ours.add(at)
    for at in sorted(ours):
        before = at
        while before > front and not bare[before - 1].strip():
            before -= 1
        if _UPDATED.match(bare[at]) and before > front and _RULE.match(bare[before - 1]):
            ours |= set(range(before - 1, at))
    if last - 1 in ours:
        ours |= set(range(last, len(lines)))  # blank lines after it
    start = len(lines)
    while start and (start - 1 in ours):
        start -= 1
    return frozenset(ours), start


def _is_trailing(line: str) -> bool:
    return bool(_REV.match(line) or _UPDATED.match(line) or _UPDATED_BY.match(line))


def _is_ours(heading: Heading, lines: Sequence[str], ours: frozenset[int]) -> bool:
    """Whether a heading is one only because our rule stands directly under somebody's text."""
    return heading.level == 2 and heading.end - 1 in ours and bool(_RULE.match(lines[heading.end - 1]))
