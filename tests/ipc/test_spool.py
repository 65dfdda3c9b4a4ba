"""The spool: what `append` returned for is there, whatever happened to the process or the bytes after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import spool as spool_module
from ipc.errors import SpoolFullError, SpoolLockedError
from ipc.spool import DamagedSegment, Record, Spool, SpoolLock, create_folder, read_last, read_spool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_folder(tmp_path / "qa-1")
    return tmp_path / "qa-1"


def records(folder: Path) -> list[int]:
    return [found.seq for found in read_spool(folder) if isinstance(found, Record)]


def test_records_come_back(folder: Path) -> None:
    """Records are read in order over several segments, with the last seq given."""
    with Spool.open(folder, segment=200) as spool:
        for seq in range(1, 21):
            spool.append(seq, seq - 1, b"x" * seq)
            spool.last.cell[0] = seq
    assert list(read_spool(folder)) == [Record(seq, seq - 1, b"x" * seq) for seq in range(1, 21)]
    assert len(list(folder.glob("*.seg"))) > 2
    assert read_last(folder) == 20


def test_trim_removes_only_what_is_durable(folder: Path) -> None:
    """Trimming never removes a segment with an event that is not durable."""
    with Spool.open(folder, segment=100) as spool:
        for seq in range(1, 11):
            spool.append(seq, seq - 1, b"x" * 20)
        before = spool.size
        spool.trim(5)
        assert spool.size < before
        assert set(range(6, 11)) <= set(records(folder))
        spool.trim(10)
        assert len(list(folder.glob("*.seg"))) == 1  # the one being written


def test_the_quota_refuses(folder: Path) -> None:
    """Beyond the quota nothing is taken, and there is room again after a trim."""
    with Spool.open(folder, quota=300, segment=100) as spool:
        seq = 0
        while spool.size + 44 <= 300:
            spool.append(seq + 1, seq, b"x" * 20)
            seq += 1
        with pytest.raises(SpoolFullError, match="of at most 300"):
            spool.append(seq + 1, seq, b"x" * 20)
        assert records(folder) == list(range(1, seq + 1))
        spool.trim(seq)
        spool.append(seq + 1, seq, b"x")
        assert records(folder)[-1] == seq + 1


def test_a_record_that_was_being_written_ends_its_segment(folder: Path) -> None:
    """Cut after any byte of a write, the records before it are whole, and nothing is called damaged."""
    with Spool.open(folder) as spool:
        spool.append(1, 0, b"one")
        spool.append(2, 1, b"two\0\0")
    (path,) = folder.glob("*.seg")
    whole = path.read_bytes()
    first = whole.index(b"one") + 3
    assert whole.endswith(b"two\0\0")
    for written in range(len(whole) - first - 8):  # the body, then the head
        path.write_bytes(whole[:first] + bytes(8) + whole[first + 8 :][:written] + bytes(500))
        found = list(read_spool(folder))
        assert found[0] == Record(1, 0, b"one")
        assert all(isinstance(f, DamagedSegment) and f.torn for f in found[1:])
    path.write_bytes(whole + bytes(500))
    assert list(read_spool(folder)) == [Record(1, 0, b"one"), Record(2, 1, b"two\0\0")]


def test_what_is_not_used_of_a_segment_is_given_back(folder: Path) -> None:
    """The disk holds one segment's room more than the records, and nothing more once the spool is closed."""
    with Spool.open(folder, segment=4096) as spool:
        for seq in range(1, 201):
            spool.append(seq, seq - 1, b"x" * 100)
        assert spool.size < sum(path.stat().st_size for path in folder.glob("*.seg")) < spool.size + 4096
    assert sum(path.stat().st_size for path in folder.glob("*.seg")) == spool.size


def test_an_event_larger_than_a_segment_has_one_of_its_own(folder: Path) -> None:
    """Its room is what it takes."""
    with Spool.open(folder, segment=100) as spool:
        spool.append(1, 0, b"x" * 10_000)
        spool.append(2, 1, b"y")
    assert list(read_spool(folder)) == [Record(1, 0, b"x" * 10_000), Record(2, 1, b"y")]


def test_a_full_disk_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no room can be had nothing is taken, and nothing is left behind; later it goes on."""
    with Spool.open(folder, segment=100) as spool:
        spool.append(1, 0, b"x" * 60)
        allocate = spool_module._allocate

        def full(descriptor: int, size: int) -> None:
            os.write(descriptor, bytes(size // 2))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spool_module, "_allocate", full)
        with pytest.raises(SpoolFullError, match="No space left"):
            spool.append(2, 1, b"x" * 60)
        assert len(list(folder.glob("*.seg"))) == 1
        monkeypatch.setattr(spool_module, "_allocate", allocate)
        spool.append(2, 1, b"two")
    assert records(folder) == [1, 2]


def test_room_is_allocated_before_it_is_used(folder: Path) -> None:
    """A mapped page without a block behind it would be a signal on a full disk: zeros are there from the start."""
    with Spool.open(folder) as spool:
        spool.append(1, 0, b"one")
        (path,) = folder.glob("*.seg")
        assert path.stat().st_size == spool_module.SEGMENT
        if sys.platform != "win32":
            assert path.stat().st_blocks * 512 >= spool_module.SEGMENT


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400), flip=st.integers(0, 399))
def test_damage_ends_only_its_segment(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int) -> None:
    """Cut anywhere, with any byte changed: what is read was written, and the next segment is whole."""
    folder = tmp_path_factory.mktemp("spool") / "qa-1"
    create_folder(folder)
    with Spool.open(folder, segment=400) as spool:
        for seq in range(1, 21):
            spool.append(seq, seq - 1, b"x" * 20)
    first, *others = sorted(folder.glob("*.seg"))
    kept = [r for path in others for r in _only(path)]
    data = bytearray(first.read_bytes()[:cut])
    if flip < len(data):
        data[flip] ^= 0x40
    first.write_bytes(data)
    found = [f for f in read_spool(folder) if isinstance(f, Record)]
    assert found[len(found) - len(kept) :] == kept
    assert all(f == Record(f.seq, f.seq - 1, b"x" * 20) for f in found)
    assert [f.seq for f in found] == sorted({f.seq for f in found})


def _only(path: Path) -> list[Record]:
    alone = path.parent.parent / f"alone-{path.name}"
    alone.mkdir()
    os.link(path, alone / path.name)
    return [f for f in read_spool(alone) if isinstance(f, Record)]


CHILD = """
import os, sys, time
from pathlib import Path
from ipc.spool import Spool
spool = Spool.open(Path(sys.argv[1]))
if hasattr(os, "fork") and sys.argv[2:] == ["fork"]:
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child)
seq = 0
print("ready", flush=True)
while True:
    spool.append(seq + 1, seq, b"x" * 50)
    spool.last.cell[0] = seq + 1
    seq += 1
    print(seq)
"""


def test_a_killed_writer_loses_nothing(folder: Path) -> None:
    """After SIGKILL every record whose `append` had returned is there, and its lock is free."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(SpoolLockedError, match="another process"):
        SpoolLock.take(folder)
    said = [child.stdout.readline() for _ in range(1000)]
    child.kill()
    said += child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    promised = int(said[-1] if said[-1].isdecimal() else said[-2])
    assert records(folder)[:promised] == list(range(1, promised + 1))
    assert read_last(folder) >= promised
    SpoolLock.take(folder).release()


@pytest.mark.only_on("posix", reason="there is no fork")
def test_the_lock_is_not_inherited(folder: Path) -> None:
    """A forked child that outlives the writer does not keep its lock."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), "fork"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    try:
        assert child.stdout.readline() == "ready\n"
        child.kill()
        child.wait()
        SpoolLock.take(folder).release()
    finally:
        os.kill(grandchild, signal.SIGKILL)
        child.stdout.close()


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    """Without its folder a worker must not begin: the epoch is over."""
    with pytest.raises(SpoolLockedError, match="gone"):
        Spool.open(tmp_path / "qa-1")
