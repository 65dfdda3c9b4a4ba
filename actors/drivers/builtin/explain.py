"""Explains a finding: the failing line of the project's own code, the expression there, values, its last change.

Reads sources and asks who last changed them; runs nothing. It says what the traceback shows and
marks as a suspicion what it concludes; what should be done is decided elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...blame import LastChange
from .checks import Failure, Frame, clean
from .findings import Finding
from .symbols import Symbol, UndecodableError, decode, parse, symbols

_COMPARED = re.compile(r"^(?:AssertionError: )?assert (.+?) (==|!=|<=|>=|<|>|not in|in|is not|is) (.+)$", re.DOTALL)
_WHERE = re.compile(r"^\s*\+\s+where (.+?) = ([\w.]+)\(")
_MOST_VALUES = 5

Blame = Callable[[str, str, int, int], LastChange | None]  # of a file with that text: its lines from, to


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of code and what it is part of."""

    file: str
    line: int
    function: str = ""
    source: str = ""

    def __str__(self) -> str:
        inside = f" in {self.function}" if self.function and self.function != "<module>" else ""
        return f"{self.file}:{self.line}{inside}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something failed, as far as reading tells. `text` is a paragraph for people.

    `where` is the failing line, `suspects` functions of the project that produced a wrong value without failing
    themselves; `expected` and `actual` are what a comparison said; `change` is the last change of `where`, or of the
    first suspect where that is only the test's assertion.
    """

    text: str
    exception: str = ""
    message: str = ""
    where: Place | None = None
    expression: str = ""
    condition: str = ""  # under which a `raise` was reached
    expected: str = ""
    actual: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    suspects: tuple[Place, ...] = ()
    change: LastChange | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""

        def place(one: Place | None) -> dict[str, Any] | None:
            if one is None:
                return None
            return {"file": one.file, "line": one.line, "function": one.function, "source": one.source}

        return {
            "text": self.text,
            "exception": self.exception,
            "message": self.message[:2000],
            "where": place(self.where),
            "expression": self.expression,
            "condition": self.condition,
            "expected": self.expected,
            "actual": self.actual,
            "values": dict(self.values),
            "suspects": [place(one) for one in self.suspects],
            "change": None
            if self.change is None
            else {
                "commit": self.change.commit,
                "author": self.change.author,
                "date": self.change.date,
                "summary": self.change.summary,
            },
        }


def explain(finding: Finding, tree: Path, *, last_change: Blame | None = None) -> Cause:
    """Explain a finding of the tests in a tree; `last_change` asks the user's git. Blocks."""
    failure = Failure.from_dict(finding.data)
    sources = _Sources(tree)
    where = _failing_frame(failure.frames)
    if where is None:
        text = f"{finding}."
        if finding.detail.strip():
            text += f" All that was said is: {finding.detail.strip().splitlines()[-1][:300]}"
        return Cause(text=text, exception=failure.exception, message=failure.message)
    module = sources.tree(where.file)
    statement = _statement(module, where.line) if module else None
    expression = _expression(statement, where, failure) or where.source
    condition = _condition(module, where.line) if module and isinstance(statement, ast.Raise) else ""
    expected, actual = _compared(failure, statement)
    suspects = _suspects(failure, where, statement, sources) if is_test(where.file) else ()
    function = sources.symbol(where.file, where.line) or where.function
    place = Place(file=where.file, line=where.line, function=function, source=where.source)
    blamed = suspects[0] if suspects else place
    last = None
    if last_change is not None:
        first, end = sources.span(blamed) if suspects else (blamed.line, blamed.line)
        last = last_change(blamed.file, sources.text(blamed.file) or "", first, end)
        if last is not None:
            last = replace(last, author=clean(last.author), summary=clean(last.summary))
    cause = Cause(
        text="",
        exception=failure.exception,
        message=failure.message,
        where=place,
        expression=expression,
        condition=condition,
        expected=expected,
        actual=actual,
        values=dict(list(_values(where, statement).items())[:_MOST_VALUES]),
        suspects=suspects,
        change=last,
    )
    return _with_text(cause, finding, failure, blamed)


def is_test(file: str) -> bool:
    """Whether a file is test code, by its name or folder."""
    *folders, name = file.split("/")
    return (
        name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
        or bool({"tests", "test", "testing"} & set(folders))
    )


def _failing_frame(frames: Sequence[Frame]) -> Frame | None:
    """The innermost line of the project's own code; of its tests where no other ran."""
    inside = [frame for frame in frames if frame.inside and frame.line]
    own = [frame for frame in inside if not is_test(frame.file)]
    chosen = own or inside
    return chosen[-1] if chosen else None


class _Sources:
    """Sources of a tree, read and parsed once."""

    def __init__(self, tree: Path) -> None:
        self.root = tree
        self._texts: dict[str, str | None] = {}
        self._trees: dict[str, ast.Module | None] = {}

    def text(self, file: str) -> str | None:
        if file not in self._texts:
            try:
                self._texts[file] = decode((self.root / file).read_bytes())
            except (OSError, UndecodableError):
                self._texts[file] = None
        return self._texts[file]

    def tree(self, file: str) -> ast.Module | None:
        if file not in self._trees:
            try:
                self._trees[file] = parse(self.text(file) or "")
            except (SyntaxError, ValueError):
                self._trees[file] = None
        return self._trees[file]

    def symbols(self, file: str) -> Iterator[Symbol]:
        module = self.tree(file)
        return symbols(module) if module is not None else iter(())

    def symbol(self, file: str, line: int) -> str:
        around = [s for s in self.symbols(file) if s.first <= line <= s.last]
        return max(around, key=lambda s: s.first).name if around else ""

    def span(self, place: Place) -> tuple[int, int]:
        for one in self.symbols(place.file):
            if one.name == place.function:
                return one.first, one.last
        return place.line, place.line

    def file_of(self, module: str) -> str | None:
        path = module.replace(".", "/")
        for prefix in ("", "src/", "lib/"):
            for name in (f"{prefix}{path}.py", f"{prefix}{path}/__init__.py"):
                if self.text(name) is not None:
                    return name
        return None

    def imported(self, file: str) -> dict[str, tuple[str, str]]:
        """Names that a file imports: name → (module, name there or "")."""
        found: dict[str, tuple[str, str]] = {}
        module = self.tree(file)
        for node in ast.walk(module) if module else ():
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name] = (alias.name, "")
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = file.split("/")[: -node.level]
                    base = ".".join([*(p for p in parts if p != "src"), *([base] if base else [])])
                for alias in node.names:
                    found[alias.asname or alias.name] = (base, alias.name)
        return found

    def definition(self, file: str, dotted: str, depth: int = 0) -> Place | None:
        """Where the function or class that a file calls `dotted` is defined, in the project's own code."""
        if depth > 4:
            return None
        head, _, rest = dotted.partition(".")
        imported = self.imported(file)
        for name in (dotted.rpartition(".")[0], head):
            if name and name in imported:
                module, there = imported[name]
                rest = dotted[len(name) :].lstrip(".")
                target = self.file_of(f"{module}.{there}") if there else self.file_of(module)
                if target is not None and rest:
                    return self.definition(target, rest, depth + 1)
                target = self.file_of(module)
                wanted = ".".join(part for part in (there, rest) if part)
                return self.definition(target, wanted, depth + 1) if target is not None and wanted else None
        found = {s.name: s for s in self.symbols(file)}
        symbol = found.get(dotted)
        if symbol is None or is_test(file):
            return None
        line = (self.text(file) or "").split("\n")[symbol.node.lineno - 1].strip()
        return Place(file=file, line=symbol.node.lineno, function=symbol.name, source=line)


# -- the line ------------------------------------------------------------------------------------------------------


def _statement(module: ast.Module, line: int) -> ast.stmt | None:
    """The innermost statement around a line; of compound ones only their heads."""
    best: ast.stmt | None = None
    for node in ast.walk(module):
        here = isinstance(node, ast.stmt) and node.lineno <= line <= _head_end(node)
        if here and isinstance(node, ast.stmt) and (best is None or node.lineno >= best.lineno):
            best = node
    return best


def _head_end(node: ast.stmt) -> int:
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
        return max(node.lineno, body[0].lineno - 1)
    return node.end_lineno or node.lineno


def _expression(statement: ast.stmt | None, frame: Frame, failure: Failure) -> str:
    """The part of the line that the exception is about, where its kind tells; else the statement's head."""
    if statement is None:
        return ""
    nodes = [
        n for n in ast.walk(statement) if isinstance(n, ast.expr) and n.lineno <= frame.line <= (n.end_lineno or 0)
    ]
    kind, message = failure.exception, failure.message
    picked: list[ast.expr] = []
    if kind == "AttributeError":
        name = re.search(r"attribute '(\w+)'", message)
        picked = [n for n in nodes if isinstance(n, ast.Attribute) and name is not None and n.attr == name[1]]
    elif kind in ("KeyError", "IndexError"):
        picked = [n for n in nodes if isinstance(n, ast.Subscript)]
    elif kind == "ZeroDivisionError":
        picked = [n for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Div, ast.FloorDiv, ast.Mod))]
    elif kind in ("NameError", "UnboundLocalError"):
        name = re.search(r"'(\w+)'", message)
        picked = [n for n in nodes if isinstance(n, ast.Name) and name is not None and n.id == name[1]]
    elif kind == "TypeError" and "subscriptable" in message:
        picked = [n for n in nodes if isinstance(n, ast.Subscript)]
    elif kind == "TypeError" and "operand" in message:
        picked = [n for n in nodes if isinstance(n, (ast.BinOp, ast.Compare, ast.UnaryOp))]
    elif kind == "TypeError" and "argument" in message:
        picked = [n for n in nodes if isinstance(n, ast.Call)]
    if len(picked) == 1:
        return ast.unparse(picked[0])
    if isinstance(statement, ast.Assert):
        return ast.unparse(statement.test)
    if isinstance(statement, (ast.If, ast.While)):
        return ast.unparse(statement.test)
    if isinstance(statement, ast.Return) and statement.value is not None:
        return ast.unparse(statement.value)
    return ""


def _condition(module: ast.Module, line: int) -> str:
    """The `if` directly around a raise."""
    best: ast.If | None = None
    negated = False
    for node in ast.walk(module):
        if isinstance(node, ast.If):
            for part, other in ((node.body, False), (node.orelse, True)):
                inside = part and part[0].lineno <= line <= (part[-1].end_lineno or 0)
                if inside and (best is None or node.lineno >= best.lineno):
                    best, negated = node, other
    if best is None:
        return ""
    test = ast.unparse(best.test)
    return f"not ({test})" if negated else test


def _compared(failure: Failure, statement: ast.stmt | None) -> tuple[str, str]:
    """What a failed assertion wanted, and what it got, in pytest's words: (expected, actual)."""
    if failure.exception != "AssertionError":
        return "", ""
    first = next((line for line in failure.message.split("\n") if "assert " in line), "")
    match = _COMPARED.match(first.strip())
    if match is None:
        return "", ""
    left, operator, right = match[1].strip(), match[2], match[3].strip()
    # The side that is written as a constant is what was wanted; by custom, else, the right one.
    compare = statement.test if isinstance(statement, ast.Assert) else None
    if (
        isinstance(compare, ast.Compare)
        and _is_written_out(compare.left)
        and not _is_written_out(compare.comparators[0])
    ):
        left, right = right, left
    return (right if operator == "==" else f"{operator} {right}"), left


def _is_written_out(node: ast.expr) -> bool:
    return isinstance(node, (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set))


def _values(frame: Frame, statement: ast.stmt | None) -> dict[str, str]:
    """Plain local values that the statement uses; all of them where it is not known."""
    if statement is None:
        return dict(frame.values)
    used = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    return {name: value for name, value in frame.values.items() if name in used}


def _suspects(failure: Failure, frame: Frame, statement: ast.stmt | None, sources: _Sources) -> tuple[Place, ...]:
    """Functions of the project whose results a failed assertion compared."""
    calls: list[str] = [m[2] for line in failure.message.split("\n") if (m := _WHERE.match(line))]
    if statement is not None:
        calls += list(_calls(statement))
        module = sources.tree(frame.file)
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        for node in ast.walk(module) if module else ():
            if (
                isinstance(node, (ast.Assign, ast.AnnAssign))
                and frame.line - 60 < node.lineno < frame.line
                and sources.symbol(frame.file, node.lineno) == sources.symbol(frame.file, frame.line)
            ):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if names & {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}:
                    calls += list(_calls(node))
    found = _defined(calls, frame, sources)
    return found or _defined(list(_calls_before(frame, sources)), frame, sources)


def _defined(calls: Sequence[str], frame: Frame, sources: _Sources) -> tuple[Place, ...]:
    places = (sources.definition(frame.file, dotted) for dotted in dict.fromkeys(calls))
    return tuple(dict.fromkeys(place for place in places if place is not None))


def _calls_before(frame: Frame, sources: _Sources) -> Iterator[str]:
    """What the test called on its way to the assertion, the last first; methods by the class of their object."""
    around = [s for s in sources.symbols(frame.file) if s.first <= frame.line <= s.last]
    if not around:
        return
    function = max(around, key=lambda s: s.first).node
    made = {
        target.id: _dotted(node.value.func)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and n.lineno < frame.line]
    for call in sorted(calls, key=lambda n: n.lineno, reverse=True):
        dotted = _dotted(call.func)
        head, _, rest = dotted.partition(".")
        if rest and made.get(head):
            yield f"{made[head]}.{rest}"
        if dotted:
            yield dotted


def _calls(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            dotted = _dotted(child.func)
            if dotted:
                yield dotted


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    if isinstance(node, ast.Call):  # Digest(…).render(…)
        return _dotted(node.func)
    return ""


# -- words ---------------------------------------------------------------------------------------------------------


def _with_text(cause: Cause, finding: Finding, failure: Failure, blamed: Place) -> Cause:
    sentences: list[str] = []
    where = cause.where
    assert where is not None
    first = next((line.strip() for line in cause.message.split("\n") if line.strip()), "")
    said = ": ".join(part for part in (cause.exception, first[:200]) if part)
    code = f" `{cause.expression}`" if cause.expression else ""
    if finding.rule == "hang":
        sentences.append(f"It is stuck at {where}:{code or ' unknown'}.")
    elif cause.expected or cause.actual:
        # pytest shortens long values: two that look the same then say nothing, its diff does.
        values = f"wanted {_cut(cause.expected)}, got {_cut(cause.actual)}"
        if cause.expected == cause.actual:
            values = _difference(failure.message) or "the two differ where pytest shortens them"
        sentences.append(f"{where} asserts{code}: {values}.")
    elif cause.exception:
        sentences.append(f"{said}, at {where}:{code or f' `{where.source}`'}.")
    else:
        sentences.append(f"{finding.message}, at {where}.")
    if cause.condition:
        sentences.append(f"It is raised when `{cause.condition}`.")
    if cause.values:
        sentences.append("There, " + ", ".join(f"{name} = {_cut(value)}" for name, value in cause.values.items()) + ".")
    route = [f for f in failure.frames if f.inside]
    if len(route) > 1 and not is_test(where.file):
        caller = route[-2] if (route[-1].file, route[-1].line) == (where.file, where.line) else route[0]
        sentences.append(f"It was called from {caller.file}:{caller.line} `{caller.source[:120]}`.")
    if cause.suspects:
        named = ", ".join(f"{place.function} ({place.file}:{place.line})" for place in cause.suspects[:3])
        sentences.append(
            f"It follows from calls of {named}; the fault is there, in what is called from there, or in what the test "
            "expects."
        )
    if failure.causes:
        sentences.append(f"Behind it: {failure.causes[0][:200]}.")
    if cause.change is not None:
        what = f"{blamed.function} was" if cause.suspects else "That line was"
        sentences.append(f"{what} last changed in {cause.change}.")
    return replace(cause, text=" ".join(sentences))


def _difference(message: str) -> str:
    """The first lines of pytest's diff: what was got and what was wanted."""
    lines = [line.strip() for line in message.split("\n")]
    got = next((line[2:] for line in lines if line.startswith("+ ")), None)
    wanted = next((line[2:] for line in lines if line.startswith("- ")), None)
    if got is None or wanted is None or got == wanted:
        return ""
    return f"wanted the line {_cut(repr(wanted))}, got {_cut(repr(got))}"


def _cut(text: str, most: int = 120) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
