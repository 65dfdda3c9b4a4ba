"""What a person's save of a document did: a three-way merge against the view that the text began as. Pure.

`read_edit` says it as effects on items, questions where only the user can decide, and the text around the items.
`merge_text` is the merge of lines underneath, also for the strategic documents that Planning rewrites. Files, locks and
records are for `reconcile` and the store.

A person changes an item by its line: ticked closes, unticked reopens, deleted withdraws, pasted back restores. A new
line under Priority Tasks becomes a message, with the lines that stand under it. Who rewords a task of his own that
nobody has taken up yet replaces it; rewording anybody else's adds his words to it (`Effect.re`), and lines written
under an item do the same. What is not an item stays where it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from hashlib import sha256
from typing import Any, NamedTuple

from .markdown import (
    BOM,
    Item,
    Page,
    Span,
    body,
    find_section,
    line_end,
    parse,
    revision,
    split,
    trailer,
    unescape,
)
from .messages import (
    APPLY,
    KINDS,
    LEAVE,
    MOST_TEXT,
    PRIORITIES,
    SECTIONS,
    UNFINISHED,
    USER,
    DocumentState,
    Edit,
    Effect,
    Kind,
    Message,
    Priority,
    Question,
    State,
    Status,
)
from .topology import Document, Topology
from .views import HAND, is_pristine, is_ticked, item_body, render, shown_items, template

StateAt = Callable[[int], State | None]
_DEFAULT_KINDS: Mapping[str, Kind] = {"debugging": "Issue", "qa": "Review", "planning": "Assess"}
_PRIORITY = re.compile(rf"Priority: *({'|'.join(PRIORITIES)})\b *-? *", re.IGNORECASE)
_KIND = re.compile(rf"({'|'.join(KINDS)}): +(?=\S)")
_LOOSE_BOX = re.compile(r"\[([xX -]?)\](?![(\[:])[ \t]*")
_PLACE = re.compile(r"<!-- (?:id:\S+|more|status) -->\s*$")
_ALIKE = 0.6  # of two texts, from which on a line typed further is the same task


def read_edit(topology: Topology, document: Document, text: str, state: State, state_at: StateAt) -> Edit | None:
    """What this text of the document changes in `state`, or None if nothing.

    `state_at(n)` is the state after record n, or None if there is none; it is asked only for a revision that is not
    the present one. Where the text's revision is unknown to this history (none, two, another hash), only what it adds
    counts, and the other differences become a question. The same text read twice, or saved again from the same
    buffer, changes nothing the second time.
    """
    view = render(topology, document, state)
    if text == view:
        return None
    before = _known(topology, document, text, state, state_at)
    base = before.text if before else None
    if document.role == "strategic":
        return _strategic_edit(document, text, state, view, before)
    reading = _Reading(topology, document, text, state, before)
    if document.role == "read":
        reading.read()
    reading.merge_around(view, base)
    return reading.edit()


class _Before(NamedTuple):
    """The view that a text began as: its revision, the state then, and its text."""

    n: int
    state: State
    text: str


def _known(topology: Topology, document: Document, text: str, state: State, state_at: StateAt) -> _Before | None:
    found = revision(text)
    if found is None:
        return None
    n, start = found
    now = state.documents.get(document.name, DocumentState())
    if n > now.n:
        return None
    then = state if n == now.n else state_at(n)
    if then is None:
        return None
    known = then.documents.get(document.name, DocumentState())
    if known.n != n or (known.hash[:16] or "0") != start:
        return None
    return _Before(n, then, render(topology, document, then))


def _strategic_edit(document: Document, text: str, state: State, view: str, before: _Before | None) -> Edit | None:
    questions: tuple[Question, ...] = ()
    if before is not None:
        merged = merge_text(before.text, view, text)
    elif is_pristine(document, state.documents.get(document.name, DocumentState()).base):
        merged = text if text.strip() else view
    else:
        merged, questions = _union(document, state, body(view), text)
    merged_base = None if _equal(body(merged), body(view)) else merged
    if merged_base is None and not questions:
        return None
    return Edit(
        document=document.name,
        rev=before.n if before else None,
        base=merged_base,
        questions=questions,
        heard=text if before else None,
    )


def _equal(one: str, other: str) -> bool:
    """The same but for a line end at the end."""
    return one == other or one.rstrip("\r\n") == other.rstrip("\r\n")


def _union(document: Document, state: State, mine: str, theirs: str) -> tuple[str, tuple[Question, ...]]:
    """Both texts' lines, and a question about those that only the history's has: the text's origin is unknown."""
    theirs = body(theirs).replace("\r\n", "\n").replace("\n", line_end(mine)) + trailer(theirs)
    ours, new = split(_ended(body(mine))), split(_ended(body(theirs)))
    shared = _matches(ours, new)
    common = "".join(ours[at] for at in sorted(shared))
    ready = {line.strip() for line in split(template(document))}  # comes back by itself
    missing = [line.strip() for at, line in enumerate(ours) if at not in shared and _is_free(line)]
    missing = [line for line in missing if line not in ready]
    merged = merge_text(common, mine, theirs)
    mark = f"text|{_digest(*missing)}"
    if not missing or mark in _asked(state, document):
        return merged, ()
    told = "; ".join(f"“{line[:80]}”" for line in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    words = (
        f"A save of {document.file} whose revision line is missing or unknown lacks {len(missing)} lines that the "
        f"document has: {told}{more}. They were kept; delete them in the present file if they should go."
    )
    return merged, (_question(document, state, words, [mark]),)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + line_end(text)


# --- Items ------------------------------------------------------------------------------------------------------------


class _Typed(NamedTuple):
    """What a line says, however it was typed."""

    text: str
    kind: Kind | None
    priority: Priority | None
    done: bool


@dataclass(slots=True)
class _Save:
    """One text of the document, each of its item lines with the message that it stands for.

    `lines` maps line numbers to ids; `added` are lines that no message has yet; `says` is what the text says of each
    id: its tick, or False where there is no box.
    """

    page: Page
    lines: dict[int, str]
    added: dict[str, Item]
    says: dict[str, bool]
    first: dict[str, Item]


class _Reading:
    """One save against one state: collects effects, questions and the text around the items."""

    def __init__(self, topology: Topology, document: Document, text: str, state: State, before: _Before | None) -> None:
        self.topology, self.document, self.text, self.state, self.before = (
            topology,
            document,
            text,
            state,
            before,
        )
        self.effects: dict[tuple[str, str], Effect] = {}
        self.questions: list[Question] = []
        self.base: str | None = None
        self.save = self.resolve(text)

    def edit(self) -> Edit | None:
        if not self.effects and not self.questions and self.base is None:
            return None
        questions = self.questions
        if len(questions) > 1:  # one save, one question
            marks = [mark for question in questions for mark in question.data["marks"]]
            items = [item for question in questions for item in question.data["items"]]
            text = " ".join(question.text for question in questions)
            questions = [_question(self.document, self.state, text, marks, items)]
        return Edit(
            document=self.document.name,
            rev=self.before.n if self.before else None,
            effects=tuple(self.effects.values()),
            questions=tuple(questions),
            base=self.base,
            heard=self.text if self.before else None,
        )

    def read(self) -> None:
        state, save = self.state, self.save
        shown = shown_items(self.document, self.before.state) if self.before else {}
        for key, item in save.added.items():
            self.add(key, item)
        for key, ticked in save.says.items():
            if key in save.added:
                continue
            message, seen = state.messages[key], shown.get(key)
            typed = save.first[key].key != key  # a line without an id that was imported before, or by its text
            if ticked and message.status in UNFINISHED and (typed or (seen is not None and not is_ticked(seen))):
                self.effect("tick", message, seen)
            elif not ticked and message.status is Status.DONE and seen is not None and is_ticked(seen):
                if save.first[key].ticked is not None:
                    self.effect("untick", message, seen)
            elif self.before and message.status is Status.WITHDRAWN and seen is None and not typed:
                self.effect("restore", message, None)
            if not typed:
                self.reworded(message, seen, save.first[key])
        for key, seen in shown.items():
            gone = key not in save.says and f"id:{key} -->" not in self.text
            if gone and state.messages[key].status in UNFINISHED:
                self.effect("delete", state.messages[key], seen)
        self.ask_about_items()

    # Which line is which message.

    def resolve(self, text: str) -> _Save:
        page = parse(text)
        save = _Save(page, {}, {}, {}, {})
        tasks = find_section(page, SECTIONS["tasks"]) if self.document.role == "read" else None
        copies: dict[str, list[Item]] = {}
        for item in page.items:
            if item.key and not item.drawn and self.is_mine(item.key):
                copies.setdefault(item.key, []).append(item)
        chosen = {key: self.original(key, items) for key, items in copies.items()}
        ordinals: dict[str, int] = {}
        for item in page.items:
            if item.drawn:
                continue
            if item.key in chosen:
                original = chosen[item.key]
                if item is original or _words(item.body) == _words(original.body):
                    save.lines[item.line] = item.key
                    save.first.setdefault(item.key, original)
                    save.says[item.key] = self.ticks(item.key, copies[item.key])
                    continue
            if tasks is None or not _is_task(item, tasks):
                continue
            words = _typed_words(item)
            if not words:
                continue
            ordinals[words] = ordinals.get(words, -1) + 1
            key = self.hand_id(item, words, ordinals[words])
            save.lines[item.line] = key
            save.first.setdefault(key, item)
            save.says[key] = save.says.get(key, False) or self.typed(item).done
            if key not in self.state.messages:
                save.added[key] = item
        return save

    def is_mine(self, key: str) -> bool:
        """Whether a line with this id is one of ours in this document, and not a copy from another one."""
        message = self.state.messages.get(key)
        if self.document.role == "read":
            return message is not None and message.to == self.document.phase and message.status is not Status.JOINED
        if message is not None:
            return self.document.phase in (message.to, message.by)
        return bool(re.search(r"\.\d+\.\d+$", key))  # task, round, record: a finished task

    def original(self, key: str, items: Sequence[Item]) -> Item:
        """Of several lines with one id, the one whose text is the item's; the others are copies."""
        if self.document.role == "read":
            body = _words(item_body(self.topology, self.state, self.state.messages[key]))
            for item in items:
                if _words(item.body) == body:
                    return item
        return items[0]

    def ticks(self, key: str, items: Sequence[Item]) -> bool:
        """What equal lines of one id say together: the one that was changed counts."""
        then = self.before.state.messages.get(key) if self.before else self.state.messages.get(key)
        ticked = bool(then and is_ticked(then))
        same = [item for item in items if _words(item.body) == _words(items[0].body)]
        return next((bool(i.ticked) for i in same if i.ticked is not None and i.ticked != ticked), bool(same[0].ticked))

    def hand_id(self, item: Item, words: str, ordinal: int) -> str:
        if self.before is None:  # without a revision the text alone tells
            said = {words, _words(self.typed(item).text)}
            for message in self.in_document():
                first = _words(message.text.partition("\n")[0])
                if said & {first, _words(message.text), _words(item_body(self.topology, self.state, message))}:
                    return message.id
        rev = revision(self.text) if self.before else None
        return HAND + _digest(self.document.name, str(rev), words, str(ordinal))

    def in_document(self) -> Iterable[Message]:
        """The messages of this document, unfinished ones first."""
        mine = [
            m
            for m in self.state.messages.values()
            if m.to == self.document.phase and m.status is not Status.JOINED and m.section == "tasks"
        ]
        return sorted(mine, key=lambda m: (m.status not in UNFINISHED, -m.n))

    # What it does.

    def effect(self, what: Any, message: Message, seen: Message | None) -> None:
        parts = seen.parts if seen else message.parts[:1]
        self.effects[what, message.id] = Effect(
            what=what, id=message.id, seen=parts, round=seen.round if seen else message.round
        )

    def typed(self, item: Item) -> _Typed:
        text, done = item.body, bool(item.ticked)
        if item.ticked is None and (box := _LOOSE_BOX.match(text)):
            text, done = text[box.end() :], box[1] in ("x", "X")
        priority = kind = None
        if found := _PRIORITY.match(text):
            priority, text = found[1].upper(), text[found.end() :]
        if found := _KIND.match(text):
            kind, text = found[1], text[found.end() :]
        names = [*(p.title for p in self.topology.phases), "User", "Supervisor"]
        text = re.sub(rf"\s*\(from (?:{'|'.join(map(re.escape, names))})\)$", "", text)
        return _Typed(text.strip(), kind, priority, done)  # type: ignore[arg-type]  # the patterns allow no other

    def add(self, key: str, item: Item) -> None:
        typed = self.typed(item)
        text = "\n".join([typed.text or item.body, *self.below(self.save.page, item)]).strip()
        self.effects["add", key] = Effect(
            what="add",
            id=key,
            kind=typed.kind or _DEFAULT_KINDS.get(self.document.phase or "", "Implement"),
            text=_bounded(text),
            priority=typed.priority or "MEDIUM",
            done=typed.done,
        )

    def below(self, page: Page, item: Item) -> list[str]:
        """The lines under an item that belong to it and are no items of their own, with less indentation."""
        others = [i for i in page.items if item.line < i.line < item.end and (i.key or i.ticked is not None)]
        inner = {line for other in others for line in range(other.line, other.end)}
        lines = [page.lines[at].rstrip() for at in range(item.line + 1, item.end) if at not in inner]
        indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
        return [line[min(indents, default=0) :] for line in lines]

    def reworded(self, message: Message, seen: Message | None, item: Item) -> None:
        """The line of an item we know says something else than what we wrote there, or has new lines under it."""
        known = {_words(item_body(self.topology, self.state, message))}
        if self.before and seen:
            known.add(_words(item_body(self.topology, self.before.state, seen)))
        words = _words(item.body)
        new: list[str] = []
        changed = words not in known and bool(words)
        if changed and self.before is None:  # of an unknown revision: older wordings of ours are no news
            changed = not any(
                _words(first) in _words(unescape(item.body)) for first in [message.text.partition("\n")[0]]
            )
        typed = self.typed(replace(item, body=unescape(item.body)))
        if changed:
            same = _words(typed.text) == _words(message.text)
            new.append(f"Priority: {typed.priority or 'MEDIUM'}" if same else typed.text)
        if self.before and seen:
            page = parse(self.before.text)
            then = next((i for i in page.items if i.key == message.id), None)
            was = self.below(page, then) if then else []
            new += [line for line in self.below(self.save.page, item) if line.strip() and line not in was]
        alone = message.by == USER and message.status is Status.OPEN and len(message.parts) == 1
        if changed and alone:
            new = [typed.text, *self.below(self.save.page, item)]
        text = _bounded("\n".join(new).strip())
        key = HAND + _digest(self.document.name, str(revision(self.text)), message.id, text)
        if not text or key in self.state.messages:
            return
        if message.status not in UNFINISHED:
            if ("untick", message.id) not in self.effects and ("restore", message.id) not in self.effects:
                words = f"You changed {message.id} in {self.document.file}, but it is {message.status}: “{text}”. "
                self.ask(f"text|{key}", words + "Nothing was done; write it as a new line if it is a task.")
            return
        if changed and alone:
            self.effect("delete", message, message)
        self.effects["add", key] = Effect(
            what="add",
            id=key,
            kind=typed.kind or message.kind,
            text=text,
            section=message.section,
            priority=typed.priority or "MEDIUM",
            re=None if changed and alone else message.id,
        )
        if changed and alone:
            self.save.lines[item.line] = key

    # What only the user can decide.

    def ask_about_items(self) -> None:
        state, says = self.state, self.save.says
        touched = {key for _, key in self.effects}
        odds = self.at_odds(says) - touched
        if self.before is not None:
            heard = state.documents[self.document.name].heard.get(self.before.n)
            if heard is None or heard == self.text:
                return
            earlier = self.resolve(heard).says
            odds = {key for key in odds if earlier.get(key) != says.get(key)}
            odds -= self.typed_further(odds)
        marks, told, wanted = [], [], []
        asked = _asked(state, self.document)
        for key in sorted(odds, key=lambda key: state.messages[key].n):
            message, says_it = state.messages[key], says.get(key)
            mark = f"{key}|{says_it}|{message.round}|{message.status}"
            if mark in asked:
                continue
            did = {True: "ticked", False: "not ticked", None: "not there"}[says_it]
            marks.append(mark)
            told.append(f"{key} “{message.text.partition(chr(10))[0][:80]}” is {message.status} and there it is {did}")
            wanted.append({"id": key, "says": says_it, "seen": list(message.parts), "round": message.round})
        if not marks:
            return
        why = "takes back what an earlier save did" if self.before else "began as a version we do not know"
        words = f"A save of {self.document.file} {why}: {'; '.join(told[:10])}"
        words += f"; and {len(told) - 10} more" if len(told) > 10 else ""
        words += f". Nothing of that was done; answer '{APPLY}' if you mean it, '{LEAVE}' if not."
        self.questions.append(_question(self.document, state, words, marks, wanted))

    def ask(self, mark: str, words: str) -> None:
        if mark not in _asked(self.state, self.document):
            self.questions.append(_question(self.document, self.state, words, [mark]))

    def at_odds(self, says: Mapping[str, bool]) -> set[str]:
        """Items of which the text says something else than the history."""
        now = shown_items(self.document, self.state)
        out = set()
        for key in now.keys() | (says.keys() & self.state.messages.keys()):
            message, said = self.state.messages[key], says.get(key)
            if said is None:
                agrees = message.status not in UNFINISHED or f"id:{key} -->" in self.text
            elif said:
                agrees = message.status is Status.DONE
            else:
                agrees = message.status in UNFINISHED or self.save.first[key].ticked is None
            if not agrees:
                out.add(key)
        return out

    def typed_further(self, odds: set[str]) -> set[str]:
        """Lines that an earlier save of this buffer had half typed: what is typed now replaces them."""
        replaced = set()
        new = [effect for effect in self.effects.values() if effect.what == "add" and effect.re is None]
        for key in odds:
            message = self.state.messages[key]
            gone = key.startswith(HAND) and message.by == USER and key not in self.save.says
            if gone and message.status is Status.OPEN and any(_alike(message.text, e.text) for e in new):
                self.effect("delete", message, message)
                replaced.add(key)
        return replaced

    # The text around the items.

    def merge_around(self, view: str, base: str | None) -> None:
        mine, theirs = self.around(view), self.around(self.text, self.save)
        known = self.state.documents.get(self.document.name, DocumentState())
        if self.before is not None and known.heard.get(self.before.n) == self.text:
            merged = mine  # the same save, read again
        elif base is not None:
            merged = merge_text(self.around(base), mine, theirs)
        elif not theirs.strip():  # somebody emptied the file: what it held comes back
            merged = mine
        elif is_pristine(self.document, known.base):
            merged = theirs
        else:
            merged, questions = _union(self.document, self.state, mine, theirs)
            self.questions += questions
        start = _start(view if base is None else base, view, view if merged is mine else self.text)
        changed = _free(merged) != _free(mine) or (start == BOM) != view.startswith(BOM)
        if changed or any(effect.what == "add" and effect.re is None for effect in self.effects.values()):
            if merged and not merged.endswith("\n"):
                merged += line_end(self.text)
            self.base = f"{start}{merged}{trailer(self.text)}"

    def around(self, text: str, save: _Save | None = None) -> str:
        """The text without our trailer, each item reduced to its place: bullet and id."""
        page = parse(text)
        lines = list(page.lines)
        for item in page.items:
            end = line_end(text) if lines[item.line].endswith("\n") else ""
            if item.drawn:
                lines[item.line] = f"{item.prefix}<!-- {item.key} -->{end}"
            elif save is not None and self.document.role == "read" and (key := save.lines.get(item.line)):
                lines[item.line] = f"{item.prefix}<!-- id:{key} -->{end}"
            elif item.key and (save is None or self.is_mine(item.key)):
                lines[item.line] = f"{item.prefix}<!-- id:{item.key} -->{end}"
            elif item.key:  # a copy from elsewhere: the person's text, not our item
                lines[item.line] = lines[item.line].replace(f"<!-- id:{item.key} -->", "").rstrip() + end
        return "".join(line for at, line in enumerate(lines) if at not in page.trailer)


def _is_task(item: Item, tasks: Span) -> bool:
    return tasks.body <= item.line < tasks.end and (item.depth == 0 or item.ticked is not None)


def _typed_words(item: Item) -> str:
    text = item.body
    if item.ticked is None and (box := _LOOSE_BOX.match(text)):
        text = text[box.end() :]
    return _words(text)


def _words(text: str) -> str:
    return " ".join(text.split())


def _alike(one: str, other: str) -> bool:
    one, other = _words(one), _words(other)
    if one.startswith(other) or other.startswith(one):
        return True
    return SequenceMatcher(None, one[:500], other[:500], autojunk=False).ratio() >= _ALIKE


def _is_free(line: str) -> bool:
    return bool(line.strip()) and not _PLACE.search(line)


def _free(text: str) -> list[str]:
    """The lines that are not an item's place."""
    return [line for line in split(text) if not _PLACE.search(line)]


def _bounded(text: str) -> str:
    """As much of a text as a message takes; what UTF-8 cannot hold is replaced."""
    data = text.encode(errors="replace")
    return (
        text
        if len(data) <= MOST_TEXT and data == text.encode(errors="ignore")
        else data[: MOST_TEXT - 4].decode(errors="ignore")
    )


def _digest(*words: str) -> str:
    return sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:12]


def _asked(state: State, document: Document) -> set[str]:
    """What the user was asked about this document before."""
    return {
        mark
        for question in state.questions.values()
        if question.about == document.name
        for mark in question.data.get("marks", ())
    }


def _question(
    document: Document, state: State, words: str, marks: Sequence[str], items: Sequence[Mapping[str, Any]] = ()
) -> Question:
    return Question(
        id=f"q-{_digest(document.name, *marks)}",
        n=state.n,
        at=state.at,
        about=document.name,
        text=words,
        options=(APPLY, LEAVE) if items else (),
        data={"document": document.name, "marks": list(marks), "items": list(items)},
    )


# --- Lines ------------------------------------------------------------------------------------------------------------


def merge_text(base: str, mine: str, theirs: str) -> str:
    """Both sides' changes of `base`; where they touch the same lines both stay, `theirs` first.

    No line that either side added is lost, and what one side deleted goes unless the other changed it. Our trailer is
    not merged: the result has that of `theirs`.
    """
    merged = _merged(split(_bare(base)), split(_bare(mine)), split(_bare(theirs)))
    start = _start(base, mine, theirs)
    end = trailer(theirs)
    if end and merged and not merged[-1].endswith("\n"):
        merged[-1] += "\n"
    return start + "".join(merged) + end


def _start(base: str, mine: str, theirs: str) -> str:
    """The BOM, or none: whoever changed it counts."""
    had, has = base.startswith(BOM), theirs.startswith(BOM)
    return BOM if (has if has != had else mine.startswith(BOM)) else ""


def _bare(text: str) -> str:
    return body(text).removeprefix(BOM)


def _merged(base: list[str], mine: list[str], theirs: list[str]) -> list[str]:
    base, mine, theirs = ([*lines] for lines in (base, mine, theirs))
    for lines in (base, mine, theirs):  # a missing last line end is no change of that line
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
    out: list[str] = []
    for ours, old, new in _regions(base, mine, theirs):
        if ours == old:
            out += new
        elif new in (old, ours):
            out += ours
        else:
            out += [*new, *_added(old, ours, besides=new)]
    return out


def _added(old: Sequence[str], ours: Sequence[str], besides: Sequence[str]) -> list[str]:
    """The lines of `ours` that are not in `old`, less those that `besides` has as well."""
    known = [*old, *besides]
    out: list[str] = []
    for line in ours:
        if line in known:
            known.remove(line)
        elif line.strip() or out:
            out.append(line)
    return out


def _regions(base: list[str], mine: list[str], theirs: list[str]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Cut the three into pieces (mine, base, theirs) between lines that all three share; the shared ones too."""
    to_mine, to_theirs = _matches(base, mine), _matches(base, theirs)
    b = m = t = 0
    for at in range(len(base)):
        if at in to_mine and at in to_theirs:
            i, j = to_mine[at], to_theirs[at]
            if (b, m, t) != (at, i, j):
                yield mine[m:i], base[b:at], theirs[t:j]
            yield [mine[i]], [base[at]], [theirs[j]]
            b, m, t = at + 1, i + 1, j + 1
    yield mine[m:], base[b:], theirs[t:]


def _matches(old: list[str], new: list[str]) -> dict[int, int]:
    """Which line of `old` is which of `new`."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    same = {at: at for at in range(start)}
    same |= {len(old) - 1 - at: len(new) - 1 - at for at in range(end)}
    middle = SequenceMatcher(None, old[start : len(old) - end], new[start : len(new) - end], autojunk=False)
    for block in middle.get_matching_blocks():
        same |= {start + block.a + at: start + block.b + at for at in range(block.size)}
    return _slid(old, new, same)


def _slid(old: list[str], new: list[str], same: dict[int, int]) -> dict[int, int]:
    """The same match with each insertion and deletion as late as it can be, so that equal changes look equal."""
    back = {at: where for where, at in same.items()}
    i = j = 0
    while i < len(old) or j < len(new):
        if same.get(i) == j:
            i, j = i + 1, j + 1
            continue
        gone, come = i, j
        while gone < len(old) and gone not in same:
            gone += 1
        while come < len(new) and come not in back:
            come += 1
        if gone == i:  # an insertion of new[j:come]
            while come < len(new) and same.get(i) == come and new[j] == new[come]:
                del back[come]
                same[i], back[j] = j, i
                i, j, come = i + 1, j + 1, come + 1
            j = come
        elif come == j:  # a deletion of old[i:gone]
            while gone < len(old) and same.get(gone) == j and old[i] == old[gone]:
                del same[gone]
                same[i], back[j] = j, i
                i, j, gone = i + 1, j + 1, gone + 1
            i = gone
        else:
            i, j = gone, come
    return same
