"""What a source imports from its own project, and what of that is not there. Pure: it asks a function for files."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .symbols import parse

Source = Callable[[str], str | None]  # a file's text, None if there is no such file


@dataclass(frozen=True, slots=True, order=True)
class Want:
    """One import: a module, and a name in it ("" for the module itself, "*" for whatever there is)."""

    module: str
    name: str = ""

    def gaps(self, source: Source, is_folder: Callable[[str], bool], roots: tuple[str, ...]) -> Iterator[str]:
        """Dotted names that nobody provides; nothing for what does not belong to the project.

        For a name that its module does not define, the name and the module, which would have to get it.
        """
        top = self.module.partition(".")[0]
        if not any(source(f"{p}.py") is not None or is_folder(p) for p in _places(top, roots)):
            return  # somebody else's package
        found: str | None = None
        is_there = False
        for place in _places(self.module, roots):
            for file in (f"{place}/__init__.py", f"{place}.py"):
                text = source(file)
                if text is not None and found is None:
                    found, is_there = text, True
            is_there = is_there or is_folder(place)
        if not is_there:
            yield self.module
            return
        if self.name in ("", "*"):
            return
        inside = [p for place in _places(self.module, roots) for p in (f"{place}/{self.name}",)]
        if any(source(f"{p}.py") is not None or is_folder(p) for p in inside):
            return
        if found is None or not provides(found, self.name):
            yield f"{self.module}.{self.name}"
            yield self.module


def wanted(text: str, *, package: str) -> frozenset[Want]:
    """Every import of a source that must succeed: not those inside `try`, nor those for type checkers only.

    `package` is the dotted package that relative imports start from. SyntaxError where it does not parse.
    """
    found: set[Want] = set()
    pending: list[ast.AST] = [parse(text)]
    while pending:
        node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(Want(alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parts = package.split(".") if package else []
                    kept = parts[: len(parts) - child.level + 1]
                    base = ".".join([*kept, base] if base else kept)
                if base:
                    found.update(Want(base, alias.name) for alias in child.names)
            elif isinstance(child, ast.Try) or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
                continue
            else:
                pending.append(child)
    return frozenset(found)


def provides(text: str, name: str) -> bool:
    """Whether a module's source gives that name at its top level, as far as reading it can tell."""
    try:
        tree = parse(text)
    except (SyntaxError, ValueError):
        return True  # broken: another matter
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                if child.name in (name, "__getattr__"):
                    return True
            elif isinstance(child, (ast.Import, ast.ImportFrom)):
                for alias in child.names:
                    if alias.name == "*" or (alias.asname or alias.name.partition(".")[0]) == name:
                        return True
            elif _stores(child, name) or _calls_globals(child):
                return True
            else:
                pending.append(child)
    return False


def _stores(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name


def _calls_globals(node: ast.AST) -> bool:
    """It makes names in ways that reading cannot follow."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "globals"


def _places(module: str, roots: tuple[str, ...]) -> Iterator[str]:
    path = module.replace(".", "/")
    for root in roots:
        yield path if root == "." else f"{root}/{path}"
