"""Files are whole or not there, a swap loses nothing, wherever it is cut short."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from docs_store import files

OLD, NEW = b"old text of a person\n", b"new view\n"


class CrashError(BaseException):
    """The process ends here; nothing after it runs (cleanups that do are undone by `crashing`)."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "QA_READ.md"
    path.write_bytes(OLD)
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_replacing_leaves_the_new_content_and_no_temp(path: Path) -> None:
    """The content is there, the mode is kept, nothing else lies about."""
    path.chmod(0o640)
    files.durable_replace(path, NEW)
    assert path.read_bytes() == NEW
    assert names(path.parent) == [path.name]
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_is_synced_before_it_gets_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync the file, rename, sync the folder: in this order."""
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    files.durable_replace(path, NEW)
    assert done == (["file", "rename"] if sys.platform == "win32" else ["file", "rename", "folder"])


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_sync_keeps_the_old_file_and_is_not_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The pages may be gone: the error is raised, the temp goes, the old file stays."""
    calls: list[int] = []

    def fsync(fd: int) -> None:
        calls.append(fd)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(code)):
        files.durable_replace(path, NEW)
    assert len(calls) == 1
    assert path.read_bytes() == OLD
    assert names(path.parent) == [path.name]


def test_an_exchange_keeps_what_it_displaced(path: Path) -> None:
    """The view is at the path, the person's file under the swap name, with its inode: an open editor writes there."""
    inode = path.stat().st_ino
    swap = files.prepare(path, NEW)
    assert files.exchange(swap, path) in ("exchanged", "linked")
    assert path.read_bytes() == NEW
    assert swap.read_bytes() == OLD
    assert swap.stat().st_ino == inode


@pytest.mark.only_on("posix", reason="ReplaceFile is always there")
def test_without_an_exchange_the_file_is_moved_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has none, the result is the same."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    swap = files.prepare(path, NEW)
    assert files.exchange(swap, path) == "linked"
    assert path.read_bytes() == NEW
    assert swap.read_bytes() == OLD
    assert names(path.parent) == [path.name, swap.name]


@pytest.mark.only_on("posix", reason="ReplaceFile is always there")
def test_a_file_system_that_refuses_the_exchange_is_one_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has the call, this file system does not; any other error is one."""
    code = errno.EINVAL

    def refuses(one: bytes, other: bytes) -> int:
        del one, other
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(files, "_rename_call", lambda: refuses)
    swap = files.prepare(path, NEW)
    assert files.exchange(swap, path) == "linked"
    assert (path.read_bytes(), swap.read_bytes()) == (NEW, OLD)
    code = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.exchange(swap, path)


@pytest.mark.only_on("posix", reason="ReplaceFile is always there")
def test_without_an_exchange_an_editor_s_new_file_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that saves between the two halves keeps the name; what was there before is kept too."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    link = files.link_if_free

    def late(source: Path, target: Path) -> bool:
        target.write_bytes(b"saved meanwhile")
        return link(source, target)

    swap = files.prepare(path, NEW)
    monkeypatch.setattr(files, "link_if_free", late)
    assert files.exchange(swap, path) == "moved away"
    assert path.read_bytes() == b"saved meanwhile"
    assert swap.read_bytes() == OLD


def test_a_missing_file_is_restored_never_over_another(path: Path) -> None:
    """The name is taken only if it is free."""
    assert not files.restore(path, NEW)
    assert path.read_bytes() == OLD
    path.unlink()
    assert files.restore(path, NEW)
    assert path.read_bytes() == NEW
    assert names(path.parent) == [path.name]


def test_a_swap_name_in_use_is_not_taken(path: Path) -> None:
    """What was displaced and not read yet is never overwritten by the next view."""
    swap = files.prepare(path, NEW)
    with pytest.raises(FileExistsError):
        files.prepare(path, b"newer view\n")
    assert swap.read_bytes() == NEW
    assert names(path.parent) == [path.name, swap.name]


def test_an_exchange_with_a_missing_file_says_so(path: Path) -> None:
    """An editor has moved it away; the prepared view is still under the swap name."""
    swap = files.prepare(path, NEW)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.exchange(swap, path)
    assert swap.read_bytes() == NEW


def test_left_overs_are_told_apart(path: Path) -> None:
    """Temps may be torn; swap and backup names hold whole files. Other files are nobody's business."""
    for name in ("QA_READ.md.1.2.tmp~", "QA_READ.md.swap~", "QA_READ.md.back~", "QA_READ.md~", "MINE.md.tmp~"):
        (path.parent / name).write_bytes(b"")
    temps, swaps = files.left_overs(path.parent, ("QA_READ.md",))
    assert [temp.name for temp in temps] == ["QA_READ.md.1.2.tmp~"]
    assert [swap.name for swap in swaps] == ["QA_READ.md.back~", "QA_READ.md.swap~"]


class Crash:
    """Lets every file system call pass but the n-th, which raises; later ones raise too: the process is dead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, *, exchange: bool) -> None:
        self.at, self.calls = at, 0
        for name in ("open", "write", "fsync", "link"):
            monkeypatch.setattr(os, name, self.guard(getattr(os, name)))
        for name in ("rename", "replace", "unlink"):
            monkeypatch.setattr(Path, name, self.guard(getattr(Path, name)))
        real = files._exchange
        monkeypatch.setattr(files, "_exchange", self.guard(real if exchange else lambda one, other: False))

    def guard(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls > self.at:
                raise CrashError
            return call(*args, **more)

        return guarded


@pytest.mark.only_on("posix", reason="the calls are other ones there")
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("at", range(16))
def test_a_crash_at_any_call_of_a_swap_loses_nothing(path: Path, at: int, exchange: bool) -> None:  # noqa: FBT001
    """The person's text is whole at the path, or under the swap or backup name; so is the view, or it is nowhere."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        Crash(monkeypatch, at, exchange=exchange)
        try:
            files.exchange(files.prepare(path, NEW), path)
            finished = True
        except CrashError:
            finished = False
    temps, swaps = files.left_overs(path.parent, (path.name,))
    whole = [file.read_bytes() for file in (path, *swaps) if file.exists()]
    assert OLD in whole
    assert set(whole) <= {OLD, NEW}
    assert {file.name for file in (*temps, *swaps)} | {path.name} >= set(names(path.parent))
    if finished:
        assert path.read_bytes() == NEW
        assert not temps


@pytest.mark.parametrize("at", range(8))
def test_a_crash_at_any_call_of_a_replacement_leaves_old_or_new(path: Path, at: int) -> None:
    """Never a part of either."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        Crash(monkeypatch, at, exchange=True)
        with suppress(CrashError):
            files.durable_replace(path, NEW)
    assert path.read_bytes() in (OLD, NEW)


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes one byte at a time gets all of them."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:1])))
    files.durable_replace(path, NEW)
    assert path.read_bytes() == NEW


@pytest.fixture(autouse=True)
def _no_cached_library() -> Iterator[None]:
    yield
    files._rename_call.cache_clear()
