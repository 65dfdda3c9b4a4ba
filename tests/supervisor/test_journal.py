"""The journal: what was committed can be read, once, under a cursor that never means anything else."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.events import ProgressEvent
from ipc.frames import fields_of, join
from ipc.sequence import Marks
from supervisor.journal import (
    ClosedRow,
    Cursor,
    CursorGoneError,
    FrameRow,
    Journal,
    JournalError,
    JournalReader,
    NewerFormatError,
    OpenedRow,
    OwnRow,
)


def frame(
    seqs: list[int], *, worker: str = "qa", epoch: int = 1, type_: str = "finding", phase: str = "qa", missed: int = 0
) -> FrameRow:
    events = [ProgressEvent(type_, phase, detail=str(seq), timestamp=1.0) for seq in seqs]
    return FrameRow(
        worker=worker,
        epoch=epoch,
        transport="queue",
        seqs=seqs,
        tags=[(phase, type_)],
        blob=join([fields_of(event) for event in events]),
        marks=Marks(seqs[-1], seqs[-1], missed),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".supervisor" / "journal.sqlite3"


def test_rows_come_back_as_events(path: Path) -> None:
    """Each event of a frame is read under its own cursor, with the keys of `events --json`."""
    with Journal.open(path) as journal:
        committed = journal.commit([frame([1, 2, 4]), frame([1], worker="developer", phase="developer")]).result()
        assert (committed.head, committed.events) == (4, 4)
        events = journal.read()
        assert [(e.n, e.worker, e.seq) for e in events] == [
            (1, "qa", 1),
            (2, "qa", 2),
            (3, "qa", 4),
            (4, "developer", 1),
        ]
        assert [e.n for e in journal.read(events[1].cursor, 1)] == [3]
        assert list(events[0].as_json()) == [
            "cursor", "worker", "epoch", "seq", "type", "phase", "step", "pct", "detail", "summary", "data",
            "timestamp", "transport",
        ]  # fmt: skip
        assert Cursor.parse(str(events[0].cursor)) == events[0].cursor


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 5)), max_size=12),
    phase=st.sampled_from([None, "a", "b"]),
    type_=st.sampled_from([None, "x", "y"]),
    limit=st.integers(1, 7),
    whole_rows=st.booleans(),
)
def test_reading_in_pieces_reads_all(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, int]],
    phase: str | None,
    type_: str | None,
    limit: int,
    whole_rows: bool,  # noqa: FBT001 - hypothesis passes it by name
) -> None:
    """With any filter and any limit, going on from the cursor gives each matching event once, in order."""
    with Journal.open(tmp_path_factory.mktemp("journal") / "j.sqlite3") as journal:
        expected: list[int] = []
        n = 1
        for p, t, count in rows:
            journal.commit([frame(list(range(n, n + count)), type_=t, phase=p)]).result()
            if phase in (None, p) and type_ in (None, t):
                expected += range(n, n + count)
            n += count
        found: list[int] = []
        at = None
        while True:
            events, at = journal.reader.read_up_to(at, limit, phase, type_, whole_rows=whole_rows)
            found += [e.n for e in events]
            if not events and at == journal.reader.head():
                break
        assert found == expected


def test_whole_rows_are_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that reaches the limit is read to its end, one begun is read from there, and bytes are bounded."""
    with Journal.open(path) as journal:
        for first in (1, 6, 11):
            journal.commit([frame(list(range(first, first + 5)))]).result()
        reader, at = journal.reader, None
        sizes = []
        while at != reader.head():
            events, at = reader.read_up_to(at, 2, whole_rows=True)
            sizes.append(len(events))
        assert sizes == [5, 5, 5]
        (_, second), _ = reader.read_up_to(None, 2)
        assert [e.n for e in reader.read_up_to(second.cursor, 3, whole_rows=True)[0]] == [3, 4, 5]
        assert len(reader.read_up_to(None, 100, whole_rows=True)[0]) == 15
        mixed = [fields_of(ProgressEvent(type_)) for type_ in ("even", "odd") * 3]
        tags = [("", "even"), ("", "odd")]
        row = FrameRow(worker="qa", epoch=1, transport="queue", seqs=range(16, 22), tags=tags, blob=join(mixed))
        journal.commit([row]).result()
        assert [e.n for e in reader.read_up_to(at, 2, None, "odd", whole_rows=True)[0]] == [17, 19, 21]
        monkeypatch.setattr("supervisor.journal_reader._READ_BYTES", 1)
        assert len(reader.read_up_to(None, 100, whole_rows=True)[0]) == 5


def test_the_table_is_of_the_same_transaction(path: Path) -> None:
    """A commit that fails leaves neither rows nor marks; one that only seemed to has left both."""
    with Journal.open(path) as journal:
        journal.commit([OpenedRow(worker="qa", epoch=1, pid=5, created=1.0), frame([1])]).result()
        journal.fail_next(sqlite3.OperationalError("disk full"))
        with pytest.raises(JournalError, match="disk full"):
            journal.commit([frame([2])]).result()
        entry = journal.entry("qa", 1).result()
        assert entry is not None
        assert (entry.marks.seq, entry.pid, entry.closed) == (1, 5, False)
        assert [e.seq for e in journal.read()] == [1]
        journal.fail_next(sqlite3.OperationalError("I/O error"), stored=True)
        with pytest.raises(JournalError):
            journal.commit([frame([2])]).result()
        entry = journal.entry("qa", 1).result()
        assert entry is not None
        assert entry.marks.seq == 2
        journal.commit([frame([3])]).result()
        assert [(e.n, e.seq) for e in journal.read()] == [(1, 1), (2, 2), (3, 3)]


def test_own_rows_are_stored_once(path: Path) -> None:
    """A row of the supervisor's own that is committed twice is there once."""
    with Journal.open(path) as journal:
        row = OwnRow(seq=1, event=ProgressEvent("spawn", "qa"))
        journal.commit([row]).result()
        journal.commit([row, OwnRow(seq=2, event=ProgressEvent("exit", "qa"))]).result()
        assert [(e.type, e.transport) for e in journal.read()] == [("spawn", "supervisor"), ("exit", "supervisor")]


def test_closing_adds_only_missing_finishes(path: Path) -> None:
    """An event about a finish record that had arrived is not added again; one that had not is, once."""
    told = ProgressEvent("phase_complete", "qa", summary={"message": "m1", "attempt": 1})
    lost = ProgressEvent("phase_complete", "qa", summary={"message": "m2", "attempt": 1})
    again = ProgressEvent("phase_complete", "qa", summary={"message": "m1", "round": 1, "attempt": 1})
    stored = FrameRow(
        worker="qa", epoch=1, transport="queue", seqs=[1], tags=[("qa", "phase_complete")],
        blob=join([fields_of(told)]), marks=Marks(1, 1),
    )  # fmt: skip
    with Journal.open(path) as journal:
        journal.commit([stored]).result()
        finishes = [OwnRow(seq=n, event=event) for n, event in enumerate((told, lost, again), 1)]
        for _ in range(2):
            journal.commit([ClosedRow(worker="qa", epoch=1, missed=3, finishes=finishes)]).result()
        found = [(e.summary["message"], e.transport) for e in journal.read()]
        assert found == [("m1", "queue"), ("m2", "supervisor"), ("m1", "supervisor")]
        (entry,) = [e for e in journal.reader.epochs() if e.worker == "qa"]
        assert entry.closed
        assert entry.marks.missed == 3


def test_cursors_go_on_after_a_restart(path: Path) -> None:
    """A new process continues the numbers under the same store id, also after a kill; not after a lost power supply."""
    with Journal.open(path, boot_id="one") as journal:
        journal.commit([frame([1])]).result()
        head = journal.reader.head()
    code = (
        "import os, sys; from pathlib import Path; from supervisor.journal import *\n"
        "from ipc.events import ProgressEvent\n"
        "j = Journal.open(Path(sys.argv[1]), boot_id='one')\n"
        "j.commit([OwnRow(seq=1, event=ProgressEvent('spawn'))]).result(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    with Journal.open(path, boot_id="one") as journal:
        assert [e.type for e in journal.read(head)] == ["spawn"]
        assert journal.reader.head() == Cursor(head.store, 2)
    with Journal.open(path, boot_id="two") as journal:  # it had been closed in order
        assert journal.reader.head().store == head.store
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with Journal.open(path, boot_id="three") as journal:
        assert journal.reader.head().store != head.store
        with pytest.raises(CursorGoneError, match="another journal"):
            journal.read(head)


def test_a_corrected_clock_is_no_lost_power(path: Path) -> None:
    """Where a start of the machine is known by its time: a tenth of a second over a multiple of ten is not another."""
    code = (
        "import os, sys; from pathlib import Path; from supervisor.journal import *\n"
        "from ipc.events import ProgressEvent\n"
        "j = Journal.open(Path(sys.argv[1]), boot_id='1799999999.9 3600.0')\n"
        "j.commit([OwnRow(seq=1, event=ProgressEvent('spawn'))]).result()\n"
        "print(j.reader.head().store, flush=True); os._exit(9)"
    )
    died = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    with Journal.open(path, boot_id="1800000000.0 3700.0") as journal:
        assert journal.reader.head().store == died.stdout.strip()
    died = subprocess.run([sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True)
    with Journal.open(path, boot_id="1800003700.0 40.0") as journal:
        assert journal.reader.head().store != died.stdout.strip()


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    """A file that is no database is kept under another name, with an alarm, and a new one begins."""
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    alarms: list[str] = []
    with Journal.open(path, alarm=alarms.append) as journal:
        journal.commit([frame([1])]).result()
        assert len(journal.read()) == 1
    assert "set aside" in alarms[0]
    assert [p.read_bytes()[:11] for p in path.parent.glob("*.damaged-*")] == [b"no database"]


def test_a_newer_format_is_refused(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A journal of a newer program is left alone, and the error names both formats; that is all that is said."""
    Journal.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerFormatError, match="format 99"):
        Journal.open(path)
    for thread in threading.enumerate():
        if thread.name == "journal":
            thread.join(30)
    assert caplog.records == []
    with pytest.raises(NewerFormatError):
        JournalReader(path)


def test_a_damaged_row_harms_no_other(path: Path) -> None:
    """Events that cannot be decoded are shown as damaged, in their place."""
    with Journal.open(path) as journal:
        bad = FrameRow(worker="qa", epoch=1, transport="queue", seqs=[1, 2], tags=[], blob=b"\xc1")
        journal.commit([bad, frame([3])]).result()
        assert [(e.n, e.type) for e in journal.read()] == [(1, "damaged"), (2, "damaged"), (3, "finding")]


def test_retention_keeps_the_table(path: Path) -> None:
    """By age and by size the oldest frames go, of open epochs too, and the marks stay."""
    now = [100.0]
    with Journal.open(path, now=lambda: now[0]) as journal:
        journal.commit([frame([1, 2])]).result()
        journal.commit([ClosedRow(worker="qa", epoch=1, missed=0)]).result()
        now[0] = 200.0
        journal.commit([OpenedRow(worker="qa", epoch=2, pid=None, created=None), frame([1], epoch=2)]).result()
        first = journal.read()[0].cursor
        assert journal.retain(most_age=50).result() == 2
        assert [e.epoch for e in journal.read()] == [2]
        with pytest.raises(CursorGoneError, match="retention"):
            journal.read(first)
        assert journal.read(Cursor(first.store, 2))[0].n == 3
        assert journal.retain(most_bytes=1).result() == 0  # 64 frames and fewer are always kept
        assert {(e.epoch, e.marks.seq) for e in journal.reader.epochs()} == {(1, 2), (2, 1)}
        assert journal.retain(most_age=-1).result() == 1
        assert journal.reader.head().n == 3
        journal.commit([frame([1], epoch=3)]).result()
        assert journal.read()[0].n == 4


def test_a_finish_event_that_retention_removed_is_not_added_again(path: Path) -> None:
    """Closing an epoch whose finish events are too old to be kept adds only those that never came."""
    told, lost = (
        ProgressEvent("phase_complete", "qa", summary={"message": name, "round": 1, "attempt": 1}) for name in "ab"
    )
    stored = FrameRow(
        worker="qa", epoch=1, transport="queue", seqs=[1], tags=[("qa", "phase_complete")],
        blob=join([fields_of(told)]), marks=Marks(1, 1),
    )  # fmt: skip
    with Journal.open(path) as journal:
        journal.commit([OpenedRow(worker="qa", epoch=1, pid=None, created=None), stored]).result()
        assert journal.retain(most_age=-1).result() == 1
        finishes = [OwnRow(seq=n, event=event) for n, event in enumerate((told, lost), 1)]
        journal.commit([ClosedRow(worker="qa", epoch=1, missed=0, finishes=finishes)]).result()
        assert [e.summary["message"] for e in journal.read()] == ["b"]


def test_others_read_while_it_is_written(path: Path) -> None:
    """Another process reads what was committed; without a journal it is told so."""
    with pytest.raises(JournalError, match="nothing has run here"):
        JournalReader(path)
    code = (
        "import sys; from pathlib import Path; from supervisor.journal import *\n"
        "print([e.seq for e in JournalReader(Path(sys.argv[1])).read()])"
    )
    with Journal.open(path) as journal:
        journal.commit([frame([1, 2])]).result()
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == "[1, 2]\n"


@pytest.mark.parametrize("text", ["", "5", ":5", "a:", "a:-1", "a:x"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """A cursor that cannot be one is an error that shows one."""
    with pytest.raises(ValueError, match="looks like"):
        Cursor.parse(text)
