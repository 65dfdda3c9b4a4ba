"""Which files of a folder are the user's work: git's ignore rules, read as data, and a walk that honours them.

Decides nothing about what happens to the files. Paths are bytes with `/`, relative to the folder walked, because a
file's name need not be text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Never the user's work, whatever a .gitignore says: histories, environments, caches. Tracked files still count.
NEVER = frozenset(
    {
        b".git",
        b".hg",
        b".svn",
        b".jj",
        b"__pycache__",
        b".venv",
        b"node_modules",
        b".tox",
        b".nox",
        b".eggs",
        b".mypy_cache",
        b".ruff_cache",
        b".pytest_cache",
        b".hypothesis",
        b".coverage",
        b".DS_Store",
    }
)
TEMPORARY = b".crew-tmp"  # the end of a name that a delivery writes under before it renames
_NEVER_ENDS = (b".pyc", b".pyo", TEMPORARY)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .gitignore. `pattern` matches a whole path relative to the file's folder."""

    pattern: re.Pattern[bytes]
    negated: bool
    folders_only: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """One .gitignore: `base` is its folder within the walk (with `/` at its end, or empty).

    A file that lies above the walked folder has an empty base, and `above` is the way from it down to the walk.
    """

    rules: tuple[Rule, ...]
    base: bytes = b""
    above: bytes = b""
    any_of: re.Pattern[bytes] | None = None  # quick: no match here means no rule speaks

    def verdict(self, path: bytes, *, folder: bool) -> bool | None:
        """True: ignored, False: taken in again by a `!` line, None: nothing said."""
        relative = self.above + path[len(self.base) :]
        if self.any_of is None or not self.any_of.fullmatch(relative):
            return None
        for rule in reversed(self.rules):
            if rule.folders_only and not folder:
                continue
            if rule.pattern.fullmatch(relative):
                return not rule.negated
        return None


def parse(text: bytes, *, base: bytes = b"", above: bytes = b"") -> Rules:
    """The rules of one .gitignore; lines that git would not understand match nothing."""
    rules = []
    for raw in text.split(b"\n"):
        rule = _rule(raw.removesuffix(b"\r"))
        if rule is not None:
            rules.append(rule)
    any_of = re.compile(b"|".join(b"(?:" + r.pattern.pattern + b")" for r in rules), re.DOTALL) if rules else None
    return Rules(tuple(rules), base, above, any_of)


def read(sources: Iterable[tuple[Path, bytes]]) -> tuple[Rules, ...]:
    """The rules of these files, those that are there: (file, the way from its folder to the top)."""
    rules: list[Rules] = []
    for source, above in sources:
        with suppress(OSError):  # most of them are not there
            rules.append(parse(source.read_bytes(), above=above))
    return tuple(rules)


def ignored(stack: Sequence[Rules], path: bytes, *, folder: bool) -> bool:
    """Whether the deepest rules that speak of the path say so; folders above it are the caller's business."""
    for rules in reversed(stack):
        verdict = rules.verdict(path, folder=folder)
        if verdict is not None:
            return verdict
    return False


def _rule(line: bytes) -> Rule | None:
    if not line.strip() or line.startswith(b"#"):
        return None
    while line.endswith(b" ") and not line.endswith(b"\\ "):
        line = line[:-1]
    negated = line.startswith(b"!")
    if negated:
        line = line[1:]
    folders_only = line.endswith(b"/")
    if folders_only:
        line = line[:-1]
    if not line:
        return None
    anchored = b"/" in line
    body = _translate(line.removeprefix(b"/"))
    if body is None:
        return None
    pattern = body if anchored else b"(?:.*/)?" + body
    return Rule(re.compile(pattern, re.DOTALL), negated, folders_only)


def _translate(glob: bytes) -> bytes | None:
    """The regular expression of one wildmatch pattern; None for one that can match nothing."""
    out, i = b"", 0
    while i < len(glob):
        rest = glob[i:]
        char = rest[:1]
        if rest.startswith(b"**/") and (i == 0 or glob[i - 1 : i] == b"/"):
            out, i = out + b"(?:.*/)?", i + 3
        elif rest == b"**" and i > 0 and glob[i - 1 : i] == b"/":
            out, i = out + b".+", i + 2
        elif char == b"*":
            out, i = out + b"[^/]*", i + len(rest) - len(rest.lstrip(b"*"))
        elif char == b"?":
            out, i = out + b"[^/]", i + 1
        elif char == b"\\":
            if len(rest) == 1:
                return None
            out, i = out + re.escape(rest[1:2]), i + 2
        elif char == b"[":
            match = re.match(rb"\[([!^]?)(\]?(?:\\.|\[:[a-z]+:\]|[^\]\\])*)\]", rest, re.DOTALL)
            if match is None:
                return None
            inside = match[2].replace(b"[:alpha:]", b"a-zA-Z").replace(b"[:digit:]", b"0-9")
            inside = inside.replace(b"[:alnum:]", b"a-zA-Z0-9").replace(b"[:space:]", b"\\s").replace(b"[", b"\\[")
            inside = b"\\]" + inside[1:] if inside.startswith(b"]") else inside
            out += b"(?!/)[" + (b"^" if match[1] else b"") + inside + b"]"
            i += match.end()
        else:
            out, i = out + re.escape(char), i + 1
    try:
        re.compile(out)
    except re.error:
        return None
    return out


@dataclass(frozen=True, slots=True)
class Found:
    """One file or symbolic link: its path within the walk, and its `lstat` as the walk saw it."""

    path: bytes
    stat: os.stat_result


def walk(
    root: bytes,
    *,
    outer: Sequence[Rules] = (),
    skip: frozenset[bytes] = frozenset(),
    obey: bool = True,
    problem: Callable[[bytes, str], None],
) -> Iterator[Found]:
    """Every file and link below `root` that is somebody's work, folder by folder in no promised order.

    `outer` are rules from outside the folder, weakest first; `skip` are names at the top that are not entered; without
    `obey`, the rules of the folder itself are passed over, and only what is never anybody's work stays out. What cannot
    be read, is a repository of its own, or is neither file nor link goes to `problem(path, why)`.
    """
    pending: list[tuple[bytes, tuple[Rules, ...]]] = [(b"", tuple(outer))]
    while pending:
        here, stack = pending.pop()
        try:
            with os.scandir(os.path.join(root, here) if here else root) as listing:
                entries = list(listing)
        except OSError as error:
            problem(here, f"the folder cannot be read: {error.strerror}")
            continue
        names = {entry.name for entry in entries}
        if here and b".git" in names:
            problem(here, "a repository of its own")
            continue
        if here and b"pyvenv.cfg" in names:
            continue  # a virtual environment, whatever it is called
        if b".gitignore" in names and obey:
            try:
                with open(os.path.join(root, here, b".gitignore"), "rb") as file:
                    stack = (*stack, parse(file.read(), base=here))
            except OSError as error:
                problem(here + b".gitignore", f"cannot be read: {error.strerror}")
        for entry in entries:
            name, path = entry.name, here + entry.name
            if name in NEVER or name.endswith(_NEVER_ENDS) or (not here and name in skip):
                continue
            try:
                folder = entry.is_dir(follow_symlinks=False)
                if ignored(stack, path, folder=folder):
                    continue
                if folder:
                    pending.append((path + b"/", stack))
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    yield Found(path, entry.stat(follow_symlinks=False))
                else:
                    problem(path, "neither a file nor a link")
            except OSError as error:
                problem(path, f"cannot be looked at: {error.strerror}")
