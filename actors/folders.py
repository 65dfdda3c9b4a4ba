"""A folder of files as git sees it: modes and ids, what has changed since last time, cleaning it, writing durably.

Knows paths and bytes, no repository. Paths are bytes, because a file's name need not be text.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from .ignore import Found

FILE, PROGRAM, LINK, FOLDER = 0o100644, 0o100755, 0o120000, 0o040000

Entry = tuple[int, bytes]  # mode, object id
Entries = dict[bytes, Entry]  # path → entry


class Known(msgspec.Struct, array_like=True):
    """What was last seen of one file: enough to tell that it has not changed without reading it."""

    path: bytes
    mode: int
    size: int
    mtime: int
    ctime: int
    inode: int
    oid: bytes


class _Cache(msgspec.Struct, array_like=True):
    """The stat cache of one folder; what changed about when it was `taken` (ns) is read again."""

    version: int
    taken: int
    files: list[Known]


CACHE_VERSION = 1
_encode = msgspec.msgpack.Encoder().encode
_decode_cache = msgspec.msgpack.Decoder(_Cache).decode


def blob_id(data: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest()


def mode_of(found: os.stat_result, before: Entry | None) -> int:
    if stat.S_ISLNK(found.st_mode):
        return LINK
    if sys.platform == "win32":  # it has no such bit: what it was, it stays
        return before[0] if before is not None and before[0] == PROGRAM else FILE
    return PROGRAM if found.st_mode & stat.S_IXUSR else FILE


def knowing(path: bytes, mode: int, found: os.stat_result, oid: bytes) -> Known:
    return Known(path, mode, found.st_size, found.st_mtime_ns, _ctime(found), found.st_ino, oid)


def _ctime(found: os.stat_result) -> int:
    return 0 if sys.platform == "win32" else found.st_ctime_ns


def unchanged(old: Known, found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and same_stat(old, found)


def same_stat(old: Known, found: os.stat_result) -> bool:
    """Whether nobody has touched it since, whatever it is."""
    return (
        old.size == found.st_size
        and old.mtime == found.st_mtime_ns
        and old.ctime == _ctime(found)
        and old.inode in (0, found.st_ino)
    )


def read_cache(path: Path) -> dict[bytes, Known]:
    """What may be trusted of a stat cache; nothing of one that is missing, damaged or of another version."""
    return read_cache_of(path)[1]


def read_cache_of(path: Path) -> tuple[int, dict[bytes, Known]]:
    """The same, and when the cache was taken: 0 where there is none."""
    try:
        cache = _decode_cache(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return 0, {}
    if cache.version != CACHE_VERSION:
        return 0, {}
    # A file written in the clock tick in which it was read may have changed without showing it. Coarse file systems
    # (whole seconds) need a wider guard than others.
    return cache.taken, {
        k.path: k
        for k in cache.files
        if max(k.mtime, k.ctime) < cache.taken - (2_000_000_000 if k.mtime % 1_000_000_000 == 0 else 50_000_000)
    }


def write_cache(path: Path, taken: int, known: list[Known]) -> None:
    put(path, _encode(_Cache(CACHE_VERSION, taken, known)))


def ignored_but_tracked(
    top: bytes, tracked: Collection[bytes], seen: set[bytes], skip: frozenset[bytes]
) -> Iterator[Found]:
    for path in tracked:
        if path in seen or path.split(b"/")[0] in skip or b".git" in path.split(b"/"):
            continue
        try:
            found = os.lstat(os.path.join(top, path))
        except (OSError, ValueError):
            continue
        if (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)) and crosses(top, path) is None:
            yield Found(path, found)


def crosses(top: bytes, path: bytes) -> str | None:
    """Why the way to a path is no chain of plain folders: "link" or "file"; None if it is (or ends early)."""
    here = top
    for part in path.split(b"/")[:-1]:
        here = os.path.join(here, part)
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(found.st_mode):
            return "link"
        if not stat.S_ISDIR(found.st_mode):
            return "file"
    return None


def clean(top: bytes, entries: Entries, cache: Mapping[bytes, Known]) -> dict[bytes, os.stat_result]:
    """Remove everything that is not in `entries` as it should be; what may stay, with its stat."""
    folders = {b""}
    for path in entries:
        here = path.rpartition(b"/")[0]
        while here and here not in folders:
            folders.add(here)
            here = here.rpartition(b"/")[0]
    kept: dict[bytes, os.stat_result] = {}
    pending = [b""]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(os.path.join(top, here) if here else top) as listing:
                children = list(listing)
        except PermissionError:
            os.chmod(os.path.join(top, here), 0o700)
            with os.scandir(os.path.join(top, here)) as listing:
                children = list(listing)
        for child in children:
            path = here + b"/" + child.name if here else child.name
            if not here and child.name == b".git":
                if child.is_dir(follow_symlinks=False):
                    remove(child.path)
            elif child.is_dir(follow_symlinks=False):
                if path in folders:
                    if sys.platform != "win32" and child.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                        os.chmod(child.path, 0o700)
                    pending.append(path)
                else:
                    remove(child.path)
            else:
                entry = entries.get(path)
                found = child.stat(follow_symlinks=False)
                if entry is not None and _is_as(child.path, found, entry, cache.get(path)):
                    kept[path] = found
                else:
                    remove(child.path)
    return kept


def _is_as(full: bytes, found: os.stat_result, entry: Entry, known: Known | None) -> bool:
    """Whether a file holds exactly that entry; read unless the cache knows it."""
    mode, oid = entry
    if found.st_nlink > 1 and not stat.S_ISLNK(found.st_mode):
        return False  # writing to it would reach a file elsewhere
    if stat.S_ISLNK(found.st_mode):
        return mode == LINK and blob_id(os.readlink(full)) == oid
    if not stat.S_ISREG(found.st_mode) or mode_of(found, entry) != mode:
        return False
    if known is not None and unchanged(known, found):
        return known.oid == oid
    try:
        with open(full, "rb") as file:
            return blob_id(file.read()) == oid
    except OSError:
        return False


def make_link(target: bytes, path: bytes) -> bool:
    """Make a symbolic link; False where the system does not let us, then its target is written as text."""
    try:
        os.symlink(os.fsdecode(target) if sys.platform == "win32" else target, path)
    except (OSError, ValueError, NotImplementedError):
        if sys.platform == "win32":
            return False
        raise
    return True


def dress(temporary: bytes, full: bytes, *, program: bool) -> None:
    """Give a new file the permissions of the one it replaces; only the run bit is ours to change."""
    if sys.platform == "win32":
        return
    try:
        found = os.lstat(full)
    except FileNotFoundError:
        plain = stat.S_IMODE(os.lstat(temporary).st_mode)
        os.chmod(temporary, plain | (plain & 0o444) >> 2 if program else plain)
        return
    bits = stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else 0o644
    if program:
        bits |= (bits & 0o444) >> 2
    else:
        bits &= ~0o111
    with contextlib.suppress(PermissionError):  # somebody else's file in our folder: it becomes ours
        os.chown(temporary, found.st_uid, found.st_gid)
    os.chmod(temporary, bits)


def put(path: Path, data: bytes) -> None:
    """Make `data` the content of a file of ours, wholly or not at all; it need not survive a power loss."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    replace(os.fsencode(temporary), os.fsencode(path))


def replace(source: bytes, target: bytes) -> None:
    """Rename over; on Windows, where an open file cannot be replaced, tried again for about a second."""
    if sys.platform == "win32":
        for pause in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4):
            try:
                os.replace(source, target)
            except PermissionError:
                time.sleep(pause)
            else:
                return
    os.replace(source, target)


def remove(path: bytes) -> None:
    """Remove a file, a link or a whole folder, also one whose permissions stand in the way."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        if sys.platform == "win32":
            os.chmod(path, stat.S_IWRITE)
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except OSError:
        for folder, _, names in os.walk(path):
            os.chmod(folder, 0o700)
            if sys.platform == "win32":
                for name in names:
                    os.chmod(os.path.join(folder, name), stat.S_IWRITE)
        shutil.rmtree(path)


def remove_empty(top: bytes, folder: bytes) -> None:
    """Remove folders that a deletion has left empty, upwards."""
    while folder:
        try:
            os.rmdir(os.path.join(top, folder))
        except OSError:  # not empty, or in use: it stays
            return
        folder = os.path.dirname(folder)


def sync_file(path: Path, *, missing_ok: bool = False) -> None:
    try:
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except PermissionError:
        if sys.platform != "win32":
            raise
        return  # git's objects are read-only, and Windows syncs only what is open for writing
    except FileNotFoundError:
        if missing_ok:
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    if sys.platform == "win32":
        return  # there is no such thing there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
