"""Which function or class a line of a Python file belongs to, and how a Python file is read.

Reading obeys the file's own encoding declaration; a file that cannot be decoded or parsed still has lines.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class UndecodableError(ValueError):
    """A source that is not in the encoding it claims, or holds null bytes."""


def decode(data: bytes) -> str:
    """The text of a Python source, line ends as newlines; UndecodableError says where it is not what it claims."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UndecodableError(
            f"line {line}: byte 0x{data[error.start]:02x} is not {error.encoding}; say `# -*- coding: … -*-` in the "
            "first line, or save it as UTF-8"
        ) from error
    except (SyntaxError, LookupError) as error:
        raise UndecodableError(f"its encoding declaration cannot be followed: {error}") from error
    if "\0" in text:
        raise UndecodableError(f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}: it holds null bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(text: str) -> ast.Module:
    """The syntax tree, without the warnings that a compiler would print; SyntaxError as always."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (RecursionError, MemoryError) as error:
            raise SyntaxError(f"too deeply nested to be parsed ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function or class: its qualified name, and its lines from the first decorator to the last."""

    name: str
    first: int
    last: int
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def symbols(tree: ast.Module) -> Iterator[Symbol]:
    """Every function and class, outer before inner."""
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        prefix, node = pending.pop(0)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = prefix + child.name
                first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                yield Symbol(name, first, child.end_lineno or child.lineno, child)
                pending.append((f"{name}.", child))
            else:
                pending.append((prefix, child))


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """The functions and classes of one file by line."""

    spans: tuple[tuple[int, int, str], ...] = ()

    @classmethod
    def read(cls, path: Path) -> SymbolTable:
        """Of a file; empty where it cannot be read or parsed."""
        try:
            tree = parse(decode(path.read_bytes()))
        except (OSError, UndecodableError, SyntaxError, ValueError):
            return cls()
        return cls(tuple((s.first, s.last, s.name) for s in symbols(tree)))

    def at(self, line: int) -> str:
        """The innermost function or class around a line; "" at module level."""
        around = [(first, name) for first, last, name in self.spans if first <= line <= last]
        return max(around)[1] if around else ""
