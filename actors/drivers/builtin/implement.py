"""Reads what TERTIARY_OBJECTIVES spells out, and carries it out in a tree: new files, diffs, functions put in place.

`specs` and everything that computes new content is pure; `apply` reads and writes the tree, all of a task or nothing.
Whether the result is any good, the tests say; what follows from that, the phases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .analysis import module_name
from .patch import PatchError, patched, touched
from .splice import SpliceError, spliced
from .symbols import UndecodableError, decode, parse
from .wants import wanted

_GENERAL = frozenset(
    {"objectives", "tasks", "tertiary objectives", "code examples", "examples", "features", "implementation tasks"}
)
_PATH = r"[\w@+][\w@+ .-]*(?:/[\w@+. -]+)*\.\w+|(?:[\w@+.-]+/)+[\w@+.-]+|Makefile|Dockerfile"
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*")
_FENCE = re.compile(r"(\s*(?:>\s?)?)(`{3,}|~{3,})([^`]*)")
_DEPENDS = re.compile(r"\s*(?:[-*+] )?\**(?:Depends on|Needs|After|Requires)\**:\**\s*(.+?)\.?\s*", re.IGNORECASE)
_SAYS_FILE = (
    r"(?:[-*+] )?\**(?:File|In|New file|Create|Add|Change|Edit|Update)\**\s*:?\**\s*"
    rf"[`*]*({_PATH})[`*]*\s*(?:\(.*\))?:?"
)
_SHELL = frozenset({"bash", "sh", "shell", "console", "shell-session", "zsh", "powershell", "bat", "cmd", "output"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One fenced block that changes something. `file` is "" for a diff, which names its files itself.

    `whole` replaces the file; `inside` names the class that a bare method belongs to; `line` is the block's first line
    in the document.
    """

    kind: Literal["code", "diff"]
    file: str
    text: str
    whole: bool = False
    inside: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One task of TERTIARY_OBJECTIVES: its heading, its text, and the changes that it spells out.

    `ticked` when its heading says so, or all of its task items; `depends` are titles it names after "Depends on:";
    `problems` say which blocks could not be understood, for the person who wrote them.
    """

    title: str
    body: str
    ticked: bool = False
    changes: tuple[Change, ...] = ()
    files: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Done: the files written or removed. Empty when everything was there already."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing was written. `needs` are modules, and names in modules, that would have to be there first."""

    reason: str
    needs: tuple[str, ...] = ()


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Section:
    level: int
    title: str
    first: int
    lines: list[str]


def specs(text: str) -> tuple[Spec, ...]:
    """The tasks of a TERTIARY_OBJECTIVES document: a section each, or a subsection under "Objectives" and the like."""
    general = False
    parts: list[_Section] = []
    for section in _sections(text):
        if section.level <= 2:
            general = section.level == 2 and section.title.lower() in _GENERAL
            parts.append(section)
        elif parts and section.level == 3 and (general or parts[-1].level == 1):
            parts.append(section)
        elif parts:
            parts[-1].lines.append(f"{'#' * section.level} {section.title}")
            parts[-1].lines.extend(section.lines)
    return tuple(_spec(part) for part in parts if part.level >= 2 and part.title.lower() not in _GENERAL)


def _sections(text: str) -> Iterable[_Section]:
    section = _Section(0, "", 1, [])
    fence = ""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        mark = _FENCE.fullmatch(line)
        if fence:
            if mark and mark[2].startswith(fence) and not mark[3].strip():
                fence = ""
        elif mark:
            fence = mark[2]
        heading = None if fence or mark else _HEADING.fullmatch(line)
        if heading:
            yield section
            section = _Section(len(heading[1]), heading[2], number + 1, [])
        else:
            section.lines.append(line)
    yield section


def _spec(section: _Section) -> Spec:
    title = re.sub(r"^\[[ xX]\]\s*|^(✅|☑)\s*", "", section.title)
    ticked = re.match(r"\[[xX]\]|✅|☑", section.title) is not None
    lines = _without_trailer(section.lines)
    prose, changes, problems = _blocks(lines, section.first)
    boxes = re.findall(r"(?m)^\s*[-*+] \[([ xX])\] ", prose)
    depends: list[str] = []
    for line in prose.split("\n"):
        match = _DEPENDS.fullmatch(line)
        if match:
            depends.extend(part.strip(" `*\"'") for part in match[1].split(","))
    files: list[str] = []
    for change in changes:
        try:
            files.extend(touched(change.text) if change.kind == "diff" else [change.file])
        except PatchError as error:
            problems.append(f"the diff in line {change.line}: {error}")
    return Spec(
        title=title.strip().strip("`*"),
        body="\n".join(lines).strip(),
        ticked=ticked or (bool(boxes) and all(box != " " for box in boxes)),
        changes=tuple(changes),
        files=tuple(dict.fromkeys(files)),
        depends=tuple(name for name in depends if name),
        problems=tuple(problems),
    )


def _without_trailer(lines: list[str]) -> list[str]:
    """Without the rule, date and revision that end every document."""
    for at in range(len(lines) - 1, -1, -1):
        if lines[at].strip() == "---" and any(line.startswith("Last Updated:") for line in lines[at:]):
            return lines[:at]
    return lines


def _blocks(lines: list[str], first: int) -> tuple[str, list[Change], list[str]]:
    """The prose, the changes in fenced blocks, and what is wrong with others."""
    prose: list[str] = []
    changes: list[Change] = []
    problems: list[str] = []
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        if opening is None:
            prose.append(lines[at])
            at += 1
            continue
        indent, mark, info = opening[1], opening[2], opening[3].strip()
        start = at + 1
        end = start
        while end < len(lines):
            closing = _FENCE.fullmatch(lines[end])
            if closing and closing[2].startswith(mark) and not closing[3].strip():
                break
            end += 1
        if end == len(lines):
            problems.append(f"the block in line {first + at} is never closed")
        else:
            content = [line.removeprefix(indent) if line.strip() else "" for line in lines[start:end]]
            before = next((line for line in reversed(prose) if line.strip()), "")
            change = _change(info, content, before, first + at)
            if isinstance(change, Change):
                changes.append(change)
            elif change:
                problems.append(change)
        prose.append("")
        at = end + 1
    return "\n".join(prose), changes, problems


def _change(info: str, content: list[str], before: str, line: int) -> Change | str:
    """What a fenced block asks for; a sentence about what is unclear; "" for one that is only shown."""
    language, options, words = _info(info)
    if language in ("diff", "patch", "udiff"):
        return Change(kind="diff", file="", text="\n".join(content) + "\n", line=line)
    if language in _SHELL:
        return ""
    whole = bool(words & {"whole", "full", "replace", "whole-file"}) or options.get("mode") in (
        "whole",
        "full",
        "replace",
    )
    inside = options.get("class", "") or options.get("symbol", "").rpartition(".")[0]
    file = next((options[key] for key in ("file", "title", "path", "filename") if options.get(key)), "")
    if not file:
        file = _path_in_info(info) or _path_before(before)
    if not file and content:
        comment = re.fullmatch(rf"\s*(?:#|//|--|;)\s*(?:file:\s*)?({_PATH})\s*", content[0], re.IGNORECASE)
        if comment and " " not in comment[1].strip():
            file, content = comment[1].strip(), content[1:]
            while content and not content[0].strip():
                content = content[1:]
    if not file:
        if language in ("python", "py", "python3"):
            return (
                f"the code in line {line} names no file; write ```python file=path/to/module.py to have it carried out"
            )
        return ""
    text = "\n".join(content)
    return Change(
        kind="code",
        file=file.strip().removeprefix("./"),
        text=text.rstrip("\n") + "\n" if text.strip() else "",
        whole=whole,
        inside=inside,
        line=line,
    )


def _info(info: str) -> tuple[str, dict[str, str], set[str]]:
    """Language, `key=value` options and single words of a fence's info string."""
    plain = info.strip("{} ")
    options = {
        m[1].lower(): m[3] or m[4] or m[5]
        for m in re.finditer(r"([\w-]+)\s*[=:]\s*(\"([^\"]*)\"|'([^']*)'|([^\s}]+))", plain)
    }
    rest = re.sub(r"[\w-]+\s*[=:]\s*(\"[^\"]*\"|'[^']*'|[^\s}]+)", " ", plain)
    words = rest.replace(",", " ").split()
    language = words[0].lower().strip(".") if words else ""
    return language, options, {word.lower() for word in words[1:]}


def _path_in_info(info: str) -> str:
    """A path standing by itself in the info string: ```python alerts/digest.py, or ```python:alerts/digest.py."""
    for word in re.split(r"[\s:]+", info.strip("{} ")):
        if re.fullmatch(r"[\w@+./-]*\.\w+", word) and not word.startswith(".") and "=" not in word:
            return word
    return ""


def _path_before(line: str) -> str:
    """The file that the line before a block names, if it is there to name one."""
    plain = line.strip()
    patterns = (
        _SAYS_FILE,
        rf"(?:#{{1,6}} )?[*_`]+({_PATH})[*_`]+\s*(?:\(.*\))?:?",
        rf"#{{1,6}} ({_PATH}):?",
    )
    for pattern in patterns:
        match = re.fullmatch(pattern, plain, re.IGNORECASE)
        if match and " " not in match[1]:
            return match[1]
    named = re.findall(r"`([\w@+./-]+\.\w+)`", plain)
    if plain.endswith(":") and len(named) == 1:
        return str(named[0])
    return ""


# -- carrying out --------------------------------------------------------------------------------------------------


def apply(tree: Path, changes: Iterable[Change], *, roots: Iterable[str] | None = None) -> Applied | Refused:
    """Carry out all changes in a tree, or refuse them all; blocks.

    `roots` are the folders that module names begin in (by default "src", if there is one, and the tree itself).
    """
    changes = tuple(changes)
    if not changes:
        return Refused(reason="nothing is spelled out: there is no diff, and no code that names its file")
    if roots is None:
        roots = ("src", ".") if (tree / "src").is_dir() else (".",)
    roots = tuple(roots)
    after: dict[str, bytes | None] = {}
    for change in changes:
        try:
            after.update(_carried_out(tree, change, after))
        except _CannotError as error:
            return Refused(reason=f"{error} (line {change.line} of the document)" if change.line else str(error))
    different = {file: content for file, content in after.items() if content != _content(tree, file)}
    missing = _missing(tree, different, roots)
    if missing:
        named = ", ".join(name for name in missing if not any(n != name and n.startswith(f"{name}.") for n in missing))
        return Refused(reason=f"it imports what is not there yet: {named}", needs=missing)
    for file, content in different.items():
        path = tree / file
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = path.stat().st_mode & 0o777 if path.exists() else None
            path.write_bytes(content)
            if mode is not None:
                path.chmod(mode)
    return Applied(files=tuple(sorted(different)))


class _CannotError(Exception):
    """One change cannot be carried out; the text says why."""


def _carried_out(tree: Path, change: Change, after: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    """The content of each file that a change touches, upon what the changes before it made."""

    def now(file: str) -> bytes | None:
        _safe(tree, file)
        return after[file] if file in after else _content(tree, file)

    if change.kind == "diff":
        try:
            return patched(change.text, now)
        except PatchError as error:
            raise _CannotError(str(error)) from error
    old = now(change.file)
    if change.file.endswith(".py"):
        try:
            parse(change.text)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise _CannotError(
                f"the code for {change.file} does not parse: {getattr(error, 'msg', error)}"
                + (f", in its line {line}" if line else "")
            ) from error
    if old is None or change.whole:
        return {change.file: change.text.encode()}
    if old == change.text.encode():
        return {change.file: old}
    if not change.file.endswith(".py"):
        raise _CannotError(
            f"{change.file} is there already; write `whole` beside its name to replace it, or give a diff"
        )
    try:
        return {change.file: spliced(old, change.text, inside=change.inside)}
    except (SpliceError, UndecodableError) as error:
        raise _CannotError(f"{change.file}: {error}") from error


def _safe(tree: Path, file: str) -> None:
    """Raise unless the path stays inside the tree, and out of what is not the crew's."""
    parts = file.replace("\\", "/").split("/")
    if (
        not file
        or file.startswith(("/", "~"))
        or re.match(r"[A-Za-z]:", file)
        or any(part in ("", ".", "..") for part in parts)
        or any(ord(c) < 32 for c in file)
    ):
        raise _CannotError(f"{file!r} is no path inside the project")
    if parts[0] in ("crew", ".supervisor") or ".git" in (part.lower() for part in parts):
        raise _CannotError(f"{file} is not the crew's to write")
    top = Path(os.path.realpath(tree))
    if not Path(os.path.realpath(tree / file)).is_relative_to(top):
        raise _CannotError(f"{file} leads out of the project by a symbolic link")
    if (tree / file).is_dir():
        raise _CannotError(f"{file} is a folder")
    for above in list((tree / file).parents)[: len(parts) - 1]:
        if above.exists() and not above.is_dir():
            raise _CannotError(f"{file} would lie in {above.name}, which is a file")


def _content(tree: Path, file: str) -> bytes | None:
    try:
        return (tree / file).read_bytes()
    except FileNotFoundError:
        return None


def _missing(
    tree: Path,
    after: Mapping[str, bytes | None],
    roots: tuple[str, ...],
) -> tuple[str, ...]:
    """Modules of this project, and names in them, that the changed files import and nobody provides."""

    def source(file: str) -> str | None:
        data = after[file] if file in after else _content(tree, file)
        try:
            return None if data is None else decode(data)
        except UndecodableError:
            return ""

    def is_folder(folder: str) -> bool:
        return (tree / folder).is_dir() or any(f.startswith(f"{folder}/") for f, c in after.items() if c is not None)

    missing: dict[str, None] = {}
    for file, content in after.items():
        if content is None or not file.endswith(".py"):
            continue
        old = _content(tree, file)
        name = module_name(file, roots)
        package = name if file.endswith("__init__.py") else name.rpartition(".")[0]
        try:
            wants = wanted(source(file) or "", package=package)
        except (SyntaxError, ValueError):
            continue  # the tests will say
        try:
            unchanged = wanted(decode(old), package=package) if old is not None else frozenset()
        except (SyntaxError, ValueError):
            unchanged = frozenset()
        for want in sorted(wants - unchanged):
            for gap in want.gaps(source, is_folder, roots):
                missing[gap] = None
    return tuple(missing)
