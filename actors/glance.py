"""Whether the user's files are as the last snapshot left them, told without a repository: for who looks often.

A snapshot leaves behind what it went by. A glance says which commit the files still are, or that only a snapshot can
tell; it is never wrong about files, and takes notice of ignore rules, the user's index and git's settings by their
files' times. What git's settings include from further files is noticed with the next change of anything else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from . import folders, ignore
from .folders import Known
from .ignore import Found, walk

Stamp = tuple[int, int, int]  # size, mtime in ns, inode; of a folder only that it is one
Stamped = tuple[bytes, Stamp | None]  # a path and its stamp, None where nothing is

VERSION = 1


class Left(msgspec.Struct, array_like=True):
    """What a snapshot went by, beside the stat cache that was `taken` with it (ns since 1970)."""

    taken: int
    commit: str
    watched: list[Stamped]
    sources: list[tuple[bytes, bytes]]  # files of ignore rules outside the workspace, with the way from there
    absent: list[bytes]  # what the user's git tracks and the walk did not see
    unseen: list[tuple[bytes, str]]  # what the walk could not look at
    left: list[Known]  # files that were found and not read: too large, not readable
    version: int = VERSION


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Left).decode


def stamped(paths: Iterable[Path]) -> list[Stamped]:
    """These paths with their stamps of now."""
    return [(os.fsencode(path), _stamp(os.fsencode(path))) for path in paths]


def leave(state: Path, left: Left) -> None:
    """Write it where a glance looks."""
    folders.put(_file(state), _encode(left))


def unchanged_since(workspace: Path, state: Path, skip: frozenset[bytes]) -> str | None:
    """The commit of the last snapshot if the files are still what it holds; None where only a snapshot can tell."""
    try:
        left = _decode(_file(state).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    taken, known = folders.read_cache_of(stat_cache(state))
    if left.version != VERSION or left.taken != taken or any(_stamp(path) != stamp for path, stamp in left.watched):
        return None
    known.update((one.path, one) for one in left.left)
    top, unseen, seen = os.fsencode(workspace), list[tuple[bytes, str]](), set[bytes]()

    def problem(path: bytes, why: str) -> None:
        unseen.append((path, why))

    def is_as_it_was(one: Found) -> bool:
        seen.add(one.path)
        old = known.get(one.path)
        return old is not None and folders.same_stat(old, one.stat)

    outer = ignore.read((Path(os.fsdecode(path)), above) for path, above in left.sources)
    if not all(is_as_it_was(one) for one in walk(top, outer=outer, skip=skip, problem=problem)):
        return None
    if not all(is_as_it_was(one) for one in folders.ignored_but_tracked(top, left.absent, set(seen), skip)):
        return None
    return left.commit if len(seen) == len(known) and sorted(unseen) == sorted(left.unseen) else None


def stat_cache(state: Path) -> Path:
    """Where a snapshot leaves what it knows of each file."""
    return state / "shadow.git" / "crew-workspace.stat"


def _file(state: Path) -> Path:
    return state / "shadow.git" / "crew-workspace.left"


def _stamp(path: bytes) -> Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path of bytes
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return (-1, 0, 0)
    return (found.st_size, found.st_mtime_ns, found.st_ino)
