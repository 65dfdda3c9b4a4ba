"""Reads a code base: modules and what they import, cycles, size, complexity, what no test touches, TODOs, broken files.

Only reads sources, never imports them. `analyse_sources` is the decision, a pure function; `analyse` reads the files.
What is worth changing is for Planning to say.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .findings import Finding
from .project import Project, discover
from .symbols import Symbol, UndecodableError, decode, parse, symbols

MOST_COMPLEX = 10  # branches of a function, from which it is named
MOST_LINES = 60  # of a function
_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b[\s:(]*(.*)")
_WORDS_BYTES = re.compile(rb"TODO|FIXME|XXX|HACK")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module: `imports` are modules of the same project, `outside` top-level names of others."""

    name: str
    file: str
    lines: int
    imports: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    functions: int = 0
    classes: int = 0
    doc: str = ""  # the first line of its docstring


@dataclass(frozen=True, slots=True, kw_only=True)
class Complex:
    """A function with many branches or lines."""

    file: str
    line: int
    name: str
    lines: int
    complexity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """A comment that asks for something: `word` is TODO, FIXME, XXX or HACK."""

    file: str
    line: int
    word: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A source that cannot be decoded or parsed. `rule` is "undecodable", "syntax-error" or "unreadable"."""

    file: str
    line: int
    rule: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A code base at a glance. Names are dotted; `cycles` begin and end with the same module."""

    modules: tuple[Module, ...] = ()
    test_modules: tuple[str, ...] = ()
    lines: int = 0
    cycles: tuple[tuple[str, ...], ...] = ()
    untested: tuple[str, ...] = ()  # the longest first
    complex: tuple[Complex, ...] = ()  # the worst first
    todos: tuple[Todo, ...] = ()
    broken: tuple[Broken, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What of it is a fault: broken sources are errors, cycles warnings."""
        broken = (
            Finding(
                tool="analysis",
                rule=one.rule,
                file=one.file,
                line=one.line,
                message=one.why,
                severity="error",
            )
            for one in self.broken
        )
        files = {module.name: module.file for module in self.modules}
        cycles = (
            Finding(
                tool="analysis",
                rule="import-cycle",
                file=files.get(cycle[0], ""),
                symbol=" → ".join(sorted(set(cycle))),
                message=f"import cycle: {' → '.join(cycle)}",
                severity="warning",
            )
            for cycle in self.cycles
        )
        return (*broken, *cycles)


def analyse(tree: Path, *, project: Project | None = None, on_progress: Progress | None = None) -> Analysis:
    """Analyse the Python project in a folder; blocks, so call it from a thread."""
    project = project or discover(tree)
    files = [*project.modules, *project.tests]
    sources: dict[str, bytes] = {}
    broken: list[Broken] = []
    for file in files:
        try:
            sources[file] = (tree / file).read_bytes()
        except OSError as error:
            broken.append(Broken(file=file, line=0, rule="unreadable", why=f"cannot be read: {error.strerror}"))
    return analyse_sources(
        sources, tests=project.tests, roots=project.source_roots, broken=broken, on_progress=on_progress
    )


def analyse_sources(
    sources: Mapping[str, bytes],
    *,
    tests: Collection[str] = (),
    roots: Iterable[str] = (".",),
    broken: Iterable[Broken] = (),
    on_progress: Progress | None = None,
) -> Analysis:
    """Analyse sources given as path → bytes. `tests` are the paths that are tests, `roots` where packages begin."""
    tests = frozenset(tests)
    names = {path: module_name(path, roots) for path in sources}
    known = {name: path for path, name in names.items()}
    trouble = list(broken)
    modules: list[Module] = []
    runtime: dict[str, set[str]] = {}
    used_by_tests: set[str] = set()
    heavy: list[Complex] = []
    todos: list[Todo] = []
    for done, (path, data) in enumerate(sources.items(), 1):
        if on_progress and (done % 200 == 0 or done == len(sources)):
            on_progress(done, len(sources))
        found = _read(path, data)
        if isinstance(found, Broken):
            trouble.append(found)
            continue
        text, tree = found
        if _WORDS_BYTES.search(data):
            todos.extend(_todos(path, text))
        package = names[path] if path.endswith("__init__.py") else names[path].rpartition(".")[0]
        inside: set[str] = set()
        at_import: set[str] = set()
        outside: set[str] = set()
        for targets, immediate in _imports(tree, package):
            hit = next((t for t in targets if t in known), None)
            if hit is None:
                outside.add(targets[-1].partition(".")[0])
            elif hit != names[path]:
                inside.add(hit)
                if immediate:
                    at_import.add(hit)
        if path in tests:
            used_by_tests |= inside
            continue
        defined = list(symbols(tree))
        heavy.extend(_heavy(path, defined))
        runtime[names[path]] = at_import
        modules.append(
            Module(
                name=names[path],
                file=path,
                lines=text.count("\n") + (not text.endswith("\n") and bool(text)),
                imports=tuple(sorted(inside)),
                outside=tuple(sorted(outside)),
                functions=sum(not isinstance(s.node, ast.ClassDef) for s in defined),
                classes=sum(isinstance(s.node, ast.ClassDef) for s in defined),
                doc=(ast.get_docstring(tree) or "").strip().partition("\n")[0],
            )
        )
    modules.sort(key=lambda module: module.name)
    return Analysis(
        modules=tuple(modules),
        test_modules=tuple(sorted(names[path] for path in tests if path in names)),
        lines=sum(module.lines for module in modules),
        cycles=_cycles(runtime),
        untested=_untested(modules, used_by_tests, tests),
        complex=tuple(sorted(heavy, key=lambda c: (-c.complexity, -c.lines, c.file, c.line))),
        todos=tuple(sorted(todos, key=lambda t: (t.file, t.line))),
        broken=tuple(sorted(trouble, key=lambda b: (b.file, b.line))),
    )


def module_name(path: str, roots: Iterable[str]) -> str:
    """The dotted name of a file, seen from the innermost root that holds it."""
    best = ""
    for root in roots:
        prefix = "" if root == "." else root.strip("/") + "/"
        if path.startswith(prefix) and len(prefix) > len(best):
            best = prefix
    dotted = path[len(best) :].removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__") if dotted != "__init__" else dotted


def _read(path: str, data: bytes) -> tuple[str, ast.Module] | Broken:
    try:
        text = decode(data)
    except UndecodableError as error:
        line = re.match(r"line (\d+)", str(error))
        return Broken(file=path, line=int(line[1]) if line else 1, rule="undecodable", why=str(error))
    try:
        return text, parse(text)
    except SyntaxError as error:
        why = f"syntax error: {error.msg}"
        return Broken(file=path, line=error.lineno or 0, rule="syntax-error", why=why)
    except ValueError as error:
        return Broken(file=path, line=0, rule="syntax-error", why=f"cannot be parsed: {error}")


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """What each import may mean, the most exact name first; whether it happens when the module is imported.

    Imports for type checkers only are left out.
    """
    pending: list[tuple[ast.AST, bool]] = [(tree, True)]
    while pending:
        node, immediate = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield _prefixes(alias.name), immediate
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parts = package.split(".") if package else []
                    kept = parts[: len(parts) - child.level + 1]
                    base = ".".join([*kept, base] if base else kept)
                for alias in child.names:
                    names = (f"{base}.{alias.name}" if base else alias.name, base)
                    yield tuple(name for name in names if name), immediate
            elif isinstance(child, ast.If) and _is_type_checking(child.test):
                pending.extend((other, immediate) for other in child.orelse)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                pending.append((child, immediate and not function))


def _prefixes(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    return tuple(".".join(parts[:n]) for n in range(len(parts), 0, -1))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _heavy(path: str, defined: Iterable[Symbol]) -> Iterator[Complex]:
    for symbol in defined:
        if isinstance(symbol.node, ast.ClassDef):
            continue
        branches, lines = _complexity(symbol.node), symbol.last - symbol.first + 1
        if branches > MOST_COMPLEX or lines > MOST_LINES:
            yield Complex(file=path, line=symbol.node.lineno, name=symbol.name, lines=lines, complexity=branches)


def _complexity(function: ast.AST) -> int:
    """McCabe's number: one, and one for each place where the way forks. Functions inside count for themselves."""
    count = 1
    pending = list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(
            node, (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.Assert)
        ):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        pending.extend(ast.iter_child_nodes(node))
    return count


def _todos(path: str, text: str) -> Iterator[Todo]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                match = _WORDS.search(token.string)
                if match:
                    said = match[2].strip(" ):-")
                    yield Todo(file=path, line=token.start[0], word=match[1], text=said or "(no words)")
    except (tokenize.TokenError, IndentationError):
        return  # the parser took it; odd layouts at the very end are no comments


def _untested(modules: Iterable[Module], used: set[str], tests: Collection[str]) -> tuple[str, ...]:
    """Modules with code that no test imports, by itself or through its package, and none is named after."""
    by_name = {module.name: module for module in modules}
    touched = set(used)
    for name in used:
        module = by_name.get(name)
        if module is not None and module.file.endswith("__init__.py"):
            touched |= set(module.imports)  # the package hands them on
    named = {re.sub(r"^test_|_test$|^tests?$", "", p.rpartition("/")[2].removesuffix(".py")) for p in tests}
    left = [
        module
        for module in by_name.values()
        if module.functions + module.classes
        and module.name not in touched
        and module.name.rpartition(".")[2] not in named
        and module.name.replace(".", "_") not in named
    ]
    return tuple(module.name for module in sorted(left, key=lambda m: (-m.lines, m.name)))


def _cycles(graph: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """One shortest way around for each knot of modules that import each other while being imported."""
    found = []
    for knot in _knots(graph):
        start = min(knot)
        before: dict[str, str] = {}
        queue = [start]
        while queue:
            here = queue.pop(0)
            step = sorted(graph.get(here, set()) & knot)
            if start in step:
                way = [start, here] if here != start else [start]
                while way[-1] != start:
                    way.append(before[way[-1]])
                found.append((*reversed(way[1:]), start) if len(way) > 1 else (start, start))
                break
            for name in step:
                if name not in before and name != start:
                    before[name] = here
                    queue.append(name)
    return tuple(sorted(found))


def _knots(graph: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """Strongly connected parts of more than one module (Tarjan), without recursion."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    for root in sorted(graph):
        if root in index:
            continue
        work: list[tuple[str, Iterator[str]]] = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            here, children = work[-1]
            for child in children:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    on_stack.add(child)
                    work.append((child, iter(sorted(graph.get(child, set())))))
                    break
                if child in on_stack:
                    low[here] = min(low[here], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[here])
                if low[here] == index[here]:
                    knot = set()
                    while True:
                        name = stack.pop()
                        on_stack.discard(name)
                        knot.add(name)
                        if name == here:
                            break
                    if len(knot) > 1:
                        yield knot
