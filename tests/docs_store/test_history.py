"""The chain on disk: torn ends are repaired, all else that differs is noticed, a failing disk changes nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from docs_store import history as module
from docs_store.errors import (
    DamageError,
    InvalidMessageError,
    NewerFormatError,
    StoreError,
    StoreUnavailableError,
)
from docs_store.history import Head, History, Position, encode


def begun(folder: Path, count: int = 4, **given: object) -> History:
    """A history with `count` records."""
    folder.mkdir(exist_ok=True)
    history = History(folder, **given)  # type: ignore[arg-type]
    for number in range(count):
        write(history, f"text ✓ {number}")
    return history


def write(history: History, text: str) -> None:
    history.append(at="2026-01-01T00:00:00Z", by="user", epoch=0, kind="note", data={"text": text})


def texts(folder: Path, head_file: Path | None = None) -> list[str]:
    """What somebody who opens the history now and takes the lock gets from it."""
    history = History(folder, head_file=head_file)
    before = history.outside_head()
    found = [record.data["text"] for record in history.read()]
    history.repair()
    found += [record.data["text"] for record in history.read()]
    history.check_outside_head(before)
    return found


def unsynced(fd: int) -> None:
    """For tests that do a thing hundreds of times, and are not about power."""


def segment(folder: Path, first: int = 1) -> Path:
    return folder / f"{first:010d}.jsonl"


def test_records_come_back(tmp_path: Path) -> None:
    """What was appended is read again by another reader, chained from the first record on."""
    history = begun(tmp_path / "h")
    records = list(History(tmp_path / "h").read())
    assert [record.n for record in records] == [1, 2, 3, 4]
    assert [record.prev for record in records[1:]] == [record.hash for record in records[:-1]]
    assert history.head == Head(4, records[-1].hash)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A second reader sees just what is new."""
    history = begun(tmp_path / "h")
    other = History(tmp_path / "h")
    assert len(list(other.read())) == 4
    write(history, "more")
    assert [record.data["text"] for record in other.read()] == ["more"]
    assert list(other.read()) == []


def test_torn_anywhere_in_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the last write stopped, the records before it stand, and the next append continues the chain."""
    monkeypatch.setattr(module, "sync", unsynced)
    begun(tmp_path / "h")
    path = segment(tmp_path / "h")
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        expected = 4 if cut == len(whole) - 1 else 3  # only the newline is missing: it was all there
        assert len(texts(tmp_path / "h")) == expected, cut
        history = History(tmp_path / "h")
        list(history.read())
        write(history, "after")
        assert texts(tmp_path / "h")[expected:] == ["after"]


def test_a_long_torn_line_leaves_nothing_behind_a_short_one(tmp_path: Path) -> None:
    """The torn line is gone before anything is written in its place."""
    begun(tmp_path / "h")
    with segment(tmp_path / "h").open("ab") as file:
        file.write(b'{"v":1,' + b"x" * 10_000)
    assert len(texts(tmp_path / "h")) == 4
    assert segment(tmp_path / "h").read_bytes().endswith(b"}\n")
    history = History(tmp_path / "h")
    list(history.read())
    write(history, "short")
    assert texts(tmp_path / "h")[4:] == ["short"]


def test_cut_anywhere_is_noticed_with_the_head_outside(tmp_path: Path) -> None:
    """With a head kept outside, a history that lost anything that was written is damage, at every length."""
    head = tmp_path / "head"
    begun(tmp_path / "h", head_file=head)
    path = segment(tmp_path / "h")
    whole = path.read_bytes()
    for cut in range(len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamageError):
            texts(tmp_path / "h", head)
        assert path.stat().st_size == cut, "damage is left as it is"
    path.unlink()
    with pytest.raises(DamageError, match="wiped or cut"):
        texts(tmp_path / "h", head)


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    """One changed byte anywhere names the record it is in (or the one after, where it joins two lines)."""
    head = tmp_path / "head"
    begun(tmp_path / "h", 3, head_file=head)
    path = segment(tmp_path / "h")
    whole = path.read_bytes()
    for at in range(len(whole)):
        flip = (0x01, 0x20, 0x80)[at % 3]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
        with pytest.raises(DamageError) as caught:
            texts(tmp_path / "h", head)
        assert caught.value.n in (whole[:at].count(b"\n") + 1, whole[:at].count(b"\n") + 2)


def test_a_missing_line_in_the_middle(tmp_path: Path) -> None:
    """A record taken out, with everything else sound, breaks the chain at its place."""
    begun(tmp_path / "h")
    lines = segment(tmp_path / "h").read_bytes().splitlines(keepends=True)
    segment(tmp_path / "h").write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(DamageError, match="does not follow record 1") as caught:
        texts(tmp_path / "h")
    assert caught.value.n == 2


def test_another_history_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """A sound history that is not the one whose head was kept is refused."""
    head = tmp_path / "head"
    begun(tmp_path / "h", head_file=head)
    kept = head.read_bytes()
    segment(tmp_path / "h").unlink()
    history = History(tmp_path / "h")
    for number in range(6):
        write(history, f"other {number}")
    head.write_bytes(kept)
    with pytest.raises(DamageError, match="another history"):
        texts(tmp_path / "h", head)


def test_segments_roll_over(tmp_path: Path) -> None:
    """Past its size a segment is followed by the next; reading from any record finds the right one."""
    history = begun(tmp_path / "h", 50, segment_bytes=1000)
    assert len(history.segments()) > 5
    assert len(texts(tmp_path / "h")) == 50
    for n in range(1, 51):
        assert history.record(n).data["text"] == f"text ✓ {n - 1}"
    assert [record.n for record in history.records(since=17)] == list(range(18, 51))


def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    """A segment taken out of the middle strands those behind it, and the head outside tells too."""
    head = tmp_path / "head"
    history = begun(tmp_path / "h", 50, segment_bytes=1000, head_file=head)
    assert not history.stranded()
    third, fourth = history.segments()[2:4]
    segment(tmp_path / "h", third).unlink()
    other = History(tmp_path / "h")
    assert [record.n for record in other.read()][-1] == third - 1
    assert other.stranded() == fourth
    with pytest.raises(DamageError, match="wiped or cut"):
        texts(tmp_path / "h", head)


def test_bytes_behind_a_full_segment_are_damage(tmp_path: Path) -> None:
    """What stands behind the last record of a segment that has a successor was put there by nobody."""
    history = begun(tmp_path / "h", 20, segment_bytes=1000)
    with segment(tmp_path / "h").open("ab") as file:
        file.write(b"half a li")
    with pytest.raises(DamageError, match="belong to no record"):
        texts(tmp_path / "h")
    assert history.segments()[1] > 1


def test_a_newer_format_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a later format is neither read nor called damage."""
    begun(tmp_path / "h", 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "VERSION", 2)
        newer = encode(History(tmp_path / "h").head, at="", by="", epoch=0, kind="note", data={})
    segment(tmp_path / "h").write_bytes(newer)
    with pytest.raises(NewerFormatError, match="format 2"):
        texts(tmp_path / "h")


@pytest.mark.only_on("posix", reason="symbolic links need rights on Windows")
def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A segment that is a link to another file is refused for reading and for writing."""
    history = begun(tmp_path / "h")
    segment(tmp_path / "h").rename(tmp_path / "elsewhere")
    segment(tmp_path / "h").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        texts(tmp_path / "h")
    with pytest.raises(StoreError, match="symbolic link"):
        write(history, "x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failed_sync_takes_the_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """When the disk does not confirm a record, the file is as before and the caller hears of it."""
    history = begun(tmp_path / "h")
    before = segment(tmp_path / "h").read_bytes()

    def failing(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sync", failing)
        with pytest.raises(StoreUnavailableError, match="nothing was changed"):
            write(history, "lost")
    assert segment(tmp_path / "h").read_bytes() == before
    write(history, "kept")
    assert texts(tmp_path / "h")[-1] == "kept"


def test_a_short_write_takes_the_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a line leaves no half line behind."""
    history = begun(tmp_path / "h")
    before = segment(tmp_path / "h").read_bytes()
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(StoreUnavailableError):
            write(history, "lost")
    assert segment(tmp_path / "h").read_bytes() == before


def test_a_record_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record too large for the history is the caller's mistake, not the disk's."""
    history = begun(tmp_path / "h")
    monkeypatch.setattr(module, "MOST_RECORD", 1000)
    with pytest.raises(InvalidMessageError, match="too large"):
        write(history, "x" * 1000)


def test_reading_can_begin_at_a_place_that_the_history_holds(tmp_path: Path) -> None:
    """A place kept from before is where reading goes on; a cut or another history does not hold it."""
    history = begun(tmp_path / "h")
    place = history.position
    write(history, "later")
    other = History(tmp_path / "h")
    assert other.holds(place)
    other.rewind(place)
    assert [record.data["text"] for record in other.read()] == ["later"]
    with pytest.raises(DamageError, match="not the record"):
        other.holds(Position(place.segment, place.offset, Head(place.head.n, "0" * 64)))
    lines = segment(tmp_path / "h").read_bytes().splitlines(keepends=True)
    segment(tmp_path / "h").write_bytes(b"".join(lines[:3]))
    with pytest.raises(DamageError, match="wiped or cut"):
        other.holds(place)


def test_a_garbled_head_outside_is_as_none(tmp_path: Path) -> None:
    """What a power loss left of the outside head does not make a sound history unsound."""
    head = tmp_path / "head"
    begun(tmp_path / "h", head_file=head)
    for garbled in (b"", b"\0" * 90, head.read_bytes()[:50], b"\xff\xfe", head.read_bytes().replace(b"4", b"5")):
        head.write_bytes(garbled)
        assert History(tmp_path / "h", head_file=head).outside_head() is None
        assert len(texts(tmp_path / "h", head)) == 4


@pytest.mark.only_on("posix", reason="a folder cannot be synced there")
def test_a_new_segment_s_name_is_on_the_disk_before_its_record_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record of a segment syncs the folder too; the next ones need not."""
    history = begun(tmp_path, 1)
    synced: list[int] = []
    fsync = os.fsync

    def seen(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", seen)
    write(history, "the same segment")
    assert tmp_path.stat().st_ino not in synced
    again = History(tmp_path, segment_bytes=1)
    assert [*again.read()]
    write(again, "a new one")
    assert synced[-1] == tmp_path.stat().st_ino
    assert len(again.segments()) == 2
