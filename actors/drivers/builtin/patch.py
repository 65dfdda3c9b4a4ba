"""Applies a unified diff of a person or a program: exactly where it fits, then by ignoring white space, else not.

Pure: files are asked for by a function, and the new contents are handed back. Counts in hunk headers are not trusted,
since people who write diffs by hand do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_HUNK = re.compile(r"@@+(?: -(\d+)(?:,\d+)? \+\d+(?:,\d+)?)? ?@*.*")
_NOWHERE = "/dev/null"


class PatchError(ValueError):
    """The diff cannot be understood, or does not fit; the text names the file and the line that is not there."""


@dataclass(slots=True)
class Hunk:
    """Lines with their mark (" ", "-", "+"); `at` is where the header says they begin, None if it does not."""

    at: int | None
    lines: list[tuple[str, str]] = field(default_factory=list)
    no_newline: bool = False  # the new text does not end with one


@dataclass(slots=True)
class FilePatch:
    """The part of a diff about one file; `old` or `new` is None for a file that is made or deleted."""

    old: str | None
    new: str | None
    hunks: list[Hunk] = field(default_factory=list)


def read(text: str) -> list[FilePatch]:
    """The diff's parts; PatchError where there are none."""
    found: list[FilePatch] = []
    current: FilePatch | None = None
    hunk: Hunk | None = None
    old = ""
    rename: list[str] = []
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("--- ") and following.startswith("+++ "):
            old, hunk = _path(line[4:]), None
        elif line.startswith("+++ ") and number and lines[number - 1].startswith("--- "):
            current = _file(old, _path(line[4:]))
            found.append(current)
        elif line.startswith("diff --git "):
            current, hunk = None, None
            rename = []
        elif line.startswith(("rename from ", "rename to ")):
            rename.append(line.split(" ", 2)[2].strip())
            if len(rename) == 2 and rename[0] != rename[1]:
                raise PatchError(
                    f"it renames {rename[0]} to {rename[1]}; write the new file out, and delete the old one"
                )
        elif line.startswith("@@"):
            if current is None:
                raise PatchError("a hunk comes before the lines `--- file` and `+++ file`")
            header = _HUNK.fullmatch(line)
            hunk = Hunk(int(header[1]) if header and header[1] else None)
            current.hunks.append(hunk)
        elif hunk is not None:
            if line.startswith("\\"):
                hunk.no_newline = hunk.lines[-1][0] != "-" if hunk.lines else False
            elif line[:1] in (" ", "-", "+"):
                hunk.lines.append((line[0], line[1:]))
            elif not line:
                hunk.lines.append((" ", ""))  # an empty line of context that lost its blank
            else:
                raise PatchError(f"this line of it begins with neither blank, - nor +: {line[:80]!r}")
        elif line.startswith(("deleted file mode", "index ", "new file", "old mode", "new mode")):
            continue
    if not found:
        raise PatchError("it has no lines `--- file` and `+++ file`")
    for one in found:
        if one.old is None and one.new is None:
            raise PatchError("it is from nothing to nothing")
        for each in one.hunks:
            while each.lines and each.lines[-1] == (" ", ""):
                each.lines.pop()  # blank lines before the next header, or before the end of the block
        if not one.hunks and one.new is not None and one.old is not None:
            raise PatchError(f"it has no hunks for {one.new}")
    return found


def touched(text: str) -> list[str]:
    """The files of a diff."""
    return [name for one in read(text) for name in (one.new or one.old,) if name]


def patched(text: str, content: Callable[[str], bytes | None]) -> dict[str, bytes | None]:
    """New contents (None: deleted) of the files in a diff. A hunk that is there already changes nothing."""
    after: dict[str, bytes | None] = {}
    for one in read(text):
        name = one.new or one.old
        assert name is not None
        now = after[name] if name in after else content(name)
        if one.old is None:
            made = "\n".join(body for hunk in one.hunks for mark, body in hunk.lines if mark != "-")
            end = "" if not made or (one.hunks and one.hunks[-1].no_newline) else "\n"
            new = (made + end).encode()
            if now is not None and now != new:
                raise PatchError(f"{name} would be made, but it is there already with other content")
            after[name] = new
        elif now is None:
            if one.new is not None:
                raise PatchError(f"{name} is not there")
            after[name] = None
        else:
            after[name] = _patch_file(one, name, now)
            if one.new is None:
                after[name] = None
    return after


def _file(old: str, new: str) -> FilePatch:
    if old.startswith("a/") and (new.startswith("b/") or new == _NOWHERE):
        old = old[2:]
    new = new.removeprefix("b/")
    return FilePatch(None if old == _NOWHERE else old, None if new == _NOWHERE else new)


def _path(text: str) -> str:
    plain = text.partition("\t")[0].strip()
    return plain[1:-1] if plain.startswith('"') and plain.endswith('"') else plain


def _patch_file(patch: FilePatch, name: str, now: bytes) -> bytes:
    try:
        text = now.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        text, encoding = now.decode("latin-1"), "latin-1"  # every byte has its place there and comes back as it was
    ending = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    lines = [line.removesuffix("\r") if ending == "\r\n" else line for line in text.split("\n")]
    had_newline = bool(lines) and lines[-1] == ""
    if had_newline:
        lines.pop()
    shift = 0
    for number, hunk in enumerate(patch.hunks, 1):
        old = [body for mark, body in hunk.lines if mark != "+"]
        new = [body for mark, body in hunk.lines if mark != "-"]
        hint = None if hunk.at is None else hunk.at - 1 + shift
        place = _find(lines, old, hint, same=lambda a, b: a == b) if old else _end_or(hint, lines)
        if place is None and _find(lines, new, hint, same=lambda a, b: a == b) is not None and new:
            continue  # somebody has done it already
        if place is None:
            place = _find(lines, old, hint, same=lambda a, b: a.split() == b.split())
            if place is None:
                which = f"hunk {number}" if len(patch.hunks) > 1 else "the diff"
                raise PatchError(f"{which} does not fit {name}: {_why(lines, old)}")
            replacement = list(_in_their_space(hunk, lines[place : place + len(old)]))
        else:
            replacement = new
        lines[place : place + len(old)] = replacement
        shift += len(replacement) - len(old)
        if hunk.no_newline and place + len(replacement) == len(lines):
            had_newline = False
    out = ending.join(lines) + (ending if had_newline and lines else "")
    try:
        return out.encode(encoding)
    except UnicodeEncodeError as error:
        raise PatchError(f"{name} is not UTF-8, and {error.object[error.start]!r} cannot be written there") from error


def _end_or(hint: int | None, lines: list[str]) -> int:
    """Where lines go that say nothing of their surroundings: where the header says, or at the end."""
    return len(lines) if hint is None else max(0, min(hint + 1, len(lines)))


def _find(lines: list[str], old: list[str], hint: int | None, *, same: Callable[[str, str], bool]) -> int | None:
    """Where the old lines lie: nearest to the hint; without one, only if there is a single such place."""
    if not old:
        return None
    first = old[0]
    places = [
        at
        for at in range(len(lines) - len(old) + 1)
        if same(lines[at], first) and all(same(lines[at + n], body) for n, body in enumerate(old))
    ]
    if not places:
        return None
    if hint is None:
        return places[0] if len(places) == 1 else None
    return min(places, key=lambda at: abs(at - hint))


def _why(lines: list[str], old: list[str]) -> str:
    have = {" ".join(line.split()) for line in lines}
    for body in old:
        if body.strip() and " ".join(body.split()) not in have:
            return f"there is no line `{body.strip()[:100]}`"
    return "its lines are there, but not in this order, or in several places"


def _in_their_space(hunk: Hunk, there: list[str]) -> Iterator[str]:
    """The new lines where only white space differs: context stays as it is, added lines take over the indentation."""
    indents: dict[str, str] = {}
    at = 0
    for mark, body in hunk.lines:
        if mark != "+":
            indents.setdefault(_indent(body), _indent(there[at]))
            at += 1
    at = 0
    for mark, body in hunk.lines:
        if mark == " ":
            yield there[at]
        elif mark == "+":
            ours = _indent(body)
            yield indents.get(ours, _nearest(ours, indents)) + body[len(ours) :]
        if mark != "+":
            at += 1


def _nearest(ours: str, indents: dict[str, str]) -> str:
    """An indentation that the context does not show: the longest shorter one's, and the rest as written."""
    for known in sorted(indents, key=len, reverse=True):
        if ours.startswith(known):
            return indents[known] + ours[len(known) :]
    return ours


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
