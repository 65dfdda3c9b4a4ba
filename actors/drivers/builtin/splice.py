"""Puts functions, classes, constants and imports of a code example in their places in a Python file.

Pure. What the example does not mention stays byte for byte; what has no clear place is refused with a reason.
"""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from .symbols import UndecodableError, decode, parse

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class SpliceError(ValueError):
    """An example has no clear place in the file; the text says which part, and what to write instead."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """Lines `first` to `last` (1-based, inclusive; last = first - 1 to insert before) become `lines`."""

    first: int
    last: int
    lines: tuple[str, ...]


def spliced(old: bytes, snippet: str, *, inside: str = "") -> bytes:
    """The file with the snippet's parts in place. `inside` names the class that bare methods belong to.

    A function or class takes the place of the one of its name; a class whose body holds a bare `...` only replaces and
    adds the members it spells out; a new one goes to the end, before `if __name__ == "__main__":`. SpliceError, or
    UndecodableError for a file that cannot be read.
    """
    decode(old)  # says what is wrong, if anything is
    encoding, _ = tokenize.detect_encoding(io.BytesIO(old).readline)
    bom = old.startswith(codecs.BOM_UTF8)
    text = old.decode(encoding)
    if re.search(r"\r(?!\n)", text):
        raise SpliceError("its lines end in bare carriage returns; give a diff, or the whole file")
    ending = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    mixed = ending == "\r\n" and text.count("\r\n") != text.count("\n")
    if mixed:
        raise SpliceError("it mixes line ends; give a diff, or the whole file")
    try:
        tree = parse("\n".join(lines))
    except (SyntaxError, ValueError) as error:
        raise SpliceError(
            f"it does not parse ({error}), so nothing can be put in its place; give the whole file"
        ) from error
    edits = list(_edits(tree, lines, parse(snippet), snippet.split("\n"), inside))
    for edit in sorted(edits, key=lambda e: (e.first, e.last), reverse=True):
        lines[edit.first - 1 : edit.last] = edit.lines
    result = "\n".join(lines)
    if not result.endswith("\n"):
        result += "\n"
    try:
        parse(result)
    except (SyntaxError, ValueError) as error:
        raise SpliceError(f"with the example in place it would not parse ({error}); give a diff") from error
    out = result.replace("\n", ending)
    try:
        return (codecs.BOM_UTF8 if bom else b"") + out.encode(encoding.removesuffix("-sig"))
    except UnicodeEncodeError as error:
        raise UndecodableError(f"the example holds {error.object[error.start]!r}, which {encoding} has not") from error


def _edits(tree: ast.Module, lines: list[str], new: ast.Module, snippet: list[str], inside: str) -> Iterator[_Edit]:
    defined = {node.name: node for node in tree.body if isinstance(node, Definition)}
    constants = {name: node for node in tree.body for name in _assigned(node)}
    appended: list[str] = []
    imports: list[ast.Import | ast.ImportFrom] = []
    top: list[str] = []
    before = 0
    for position, node in enumerate(new.body):
        first, last = _span(node)
        leading = snippet[before : first - 1]
        before = last
        body = snippet[first - 1 : last]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(node)
        elif isinstance(node, Definition):
            home = None if node.name in defined else _home(tree, node, inside)
            if inside and home is None and node.name not in defined:
                raise SpliceError(f"it has no class {inside} to put {node.name} into")
            if home is not None:
                yield from _member(home, lines, node, body)
            elif node.name in defined:
                there = defined[node.name]
                if isinstance(node, ast.ClassDef) and isinstance(there, ast.ClassDef) and _is_partial(node):
                    yield from _members(there, lines, node, snippet)
                else:
                    yield _replace(tree, there, body)
            else:
                appended.extend(["", "", *_comments(leading), *body])
        elif _assigned(node):
            names = _assigned(node)
            known = [constants[name] for name in names if name in constants]
            if known:
                yield _replace(tree, known[0], body)
            elif _names_used(node) & (defined.keys() | {n.name for n in new.body if isinstance(n, Definition)}):
                appended.extend(["", "", *_comments(leading), *body])
            else:
                top.extend([*_comments(leading), *body])
        elif _is_docstring(node) and position == 0:
            continue  # the file has one of its own, or does without
        elif _is_main_guard(node):
            guard = next((n for n in tree.body if _is_main_guard(n)), None)
            if guard is not None:
                yield _replace(tree, guard, body)
            else:
                appended.extend(["", "", *body])
        else:
            raise SpliceError(
                f"`{snippet[first - 1].strip()[:60]}` in the example has no clear place; give a diff, or the whole file"
            )
    yield from _imports(tree, imports, top)
    if appended:
        yield _append(tree, lines, appended)


def _span(node: ast.stmt) -> tuple[int, int]:
    decorators = node.decorator_list if isinstance(node, Definition) else []
    return min([node.lineno, *(d.lineno for d in decorators)]), node.end_lineno or node.lineno


def _replace(tree: ast.Module | ast.ClassDef, node: ast.stmt, body: list[str]) -> _Edit:
    first, last = _span(node)
    for other in tree.body:
        if other is not node:
            start, end = _span(other)
            if start <= last and end >= first:
                raise SpliceError(f"line {first} holds more than one statement; give a diff")
    return _Edit(first, last, tuple(body))


def _home(tree: ast.Module, node: Definition, inside: str) -> ast.ClassDef | None:
    """The class that a bare definition belongs to: the one named, or the only one with a method of that name."""
    if inside:
        return next(
            (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == inside.rpartition(".")[2]), None
        )
    if isinstance(node, ast.ClassDef) or not node.args.args or node.args.args[0].arg not in ("self", "cls"):
        return None
    homes = [
        n
        for n in tree.body
        if isinstance(n, ast.ClassDef) and any(isinstance(m, Definition) and m.name == node.name for m in n.body)
    ]
    if len(homes) == 1:
        return homes[0]
    raise SpliceError(f"it is not clear which class the method {node.name} belongs to; write the class around it")


def _is_partial(node: ast.ClassDef) -> bool:
    return any(
        isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and n.value.value is ... for n in node.body
    ) and any(isinstance(n, Definition) for n in node.body)


def _members(home: ast.ClassDef, lines: list[str], node: ast.ClassDef, snippet: list[str]) -> Iterator[_Edit]:
    for member in node.body:
        if isinstance(member, Definition) or _assigned(member):
            first, last = _span(member)
            yield from _member(home, lines, member, snippet[first - 1 : last])


def _member(home: ast.ClassDef, lines: list[str], node: ast.stmt, body: list[str]) -> Iterator[_Edit]:
    """One method or class attribute into a class: in the place of the one of its name, or at the end."""
    indent = re.match(r"\s*", lines[home.body[0].lineno - 1])
    assert indent is not None
    if home.body[0].lineno == home.lineno:
        raise SpliceError(f"class {home.name} is written on one line; give the whole class")
    shifted = _shifted(body, indent[0])
    names = {node.name} if isinstance(node, Definition) else set(_assigned(node))
    for member in home.body:
        theirs = {member.name} if isinstance(member, Definition) else set(_assigned(member))
        if names & theirs:
            yield _replace(home, member, shifted)
            return
    if isinstance(node, Definition):
        end = home.end_lineno or home.lineno
        yield _Edit(end + 1, end, ("", *shifted))
    else:
        first, _ = _span(home.body[1] if _is_docstring(home.body[0]) and len(home.body) > 1 else home.body[0])
        yield _Edit(first, first - 1, tuple(shifted))


def _shifted(body: list[str], indent: str) -> list[str]:
    """The lines with their first one's indentation exchanged; inside of long strings, nothing is touched."""
    own = re.match(r"\s*", body[0])
    assert own is not None
    if own[0] == indent:
        return body
    inside_string: set[int] = set()
    try:
        stripped = "\n".join(line.removeprefix(own[0]) for line in body) + "\n"
        for token in tokenize.generate_tokens(io.StringIO(stripped).readline):
            if token.type == tokenize.STRING and token.start[0] != token.end[0]:
                inside_string.update(range(token.start[0] + 1, token.end[0] + 1))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        inside_string.clear()
    return [
        line if number in inside_string or not line.strip() else indent + line.removeprefix(own[0])
        for number, line in enumerate(body, 1)
    ]


def _assigned(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _names_used(node: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.dump(node.test)


def _comments(leading: list[str]) -> list[str]:
    """The comment lines directly above a statement."""
    kept: list[str] = []
    for line in reversed(leading):
        if not line.lstrip().startswith("#"):
            break
        kept.append(line)
    return kept[::-1]


def _imports(tree: ast.Module, wanted: list[ast.Import | ast.ImportFrom], top: list[str]) -> Iterator[_Edit]:
    """The imports that the file has not got, and new constants, below the imports that it has."""
    have = {key for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for key in _keys(node)}
    future: list[str] = []
    lines: list[str] = []
    for node in wanted:
        missing = [alias for key, alias in zip(_keys(node), node.names, strict=True) if key not in have]
        if not missing:
            continue
        have.update(_keys(node))
        names = ", ".join(a.name + (f" as {a.asname}" if a.asname else "") for a in missing)
        if isinstance(node, ast.Import):
            lines.append(f"import {names}")
        elif node.module == "__future__":
            future.append(f"from __future__ import {names}")
        else:
            lines.append(f"from {'.' * node.level}{node.module or ''} import {names}")
    start = 1
    if tree.body and _is_docstring(tree.body[0]):
        start = (tree.body[0].end_lineno or 1) + 1
    elif tree.body:
        start = _span(tree.body[0])[0]
    at, has_imports = start, False
    for there in tree.body:
        if isinstance(there, (ast.Import, ast.ImportFrom)):
            at, has_imports = (there.end_lineno or there.lineno) + 1, True
        elif not _is_docstring(there) or there is not tree.body[0]:
            break
    if future:
        yield _Edit(start, start - 1, tuple(future) if has_imports else (*future, ""))
    added = [*lines, *(["", *top] if top else [])]
    if added:
        if not has_imports:
            docstring = bool(tree.body) and _is_docstring(tree.body[0])
            added = [*([""] if docstring else []), *added, *([] if docstring or not tree.body else ["", ""])]
            added = added[1:] if added and not added[0] and not docstring else added
        yield _Edit(at, at - 1, tuple(added))


def _keys(node: ast.Import | ast.ImportFrom) -> list[tuple[str, str, str]]:
    module = f"{'.' * node.level}{node.module or ''}" if isinstance(node, ast.ImportFrom) else ""
    return [(module, alias.name, alias.asname or "") for alias in node.names]


def _append(tree: ast.Module, lines: list[str], appended: list[str]) -> _Edit:
    guard = next((n for n in tree.body if _is_main_guard(n)), None)
    if guard is not None:
        return _Edit(guard.lineno, guard.lineno - 1, (*appended[2:], "", ""))
    last = len(lines)
    while last and not lines[last - 1].strip():
        last -= 1
    block = appended if last else appended[2:]
    return _Edit(last + 1, len(lines), (*block, ""))
