"""Whatever breaks, the journal holds every critical event once, in order, and every other one is stored or counted."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.journal import JournalReader, StoredEvent
from tests.systems import hold, let_go

STATION = str(Path(__file__).with_name("station.py"))
WORKERS = ("planning", "developer", "qa", "debugging")
slow = (pytest.mark.slow, pytest.mark.timeout(300))


class Station:
    """A station's process, seen from the test."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STATION, str(folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.folder = folder
        self.facts: list[dict[str, Any]] = []  # what its workers said of themselves
        self.end: dict[str, Any] = {}
        self._heard("open")

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self._heard("ok")

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("finish\n")
        self.process.stdin.flush()
        self.end = json.loads(self._heard("done").removeprefix("done "))
        self.process.wait()

    def emitted(self, most: int) -> None:
        """Wait until so many workers have emitted everything."""
        while sum("emitted" in fact for fact in self.facts) < most:
            self._heard("{")

    def _heard(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.facts.append(json.loads(line))
            if line.startswith(word):
                return line.strip()
        raise AssertionError(f"the station ended before it said {word!r}")


@contextmanager
def station(folder: Path, **options: Any) -> Iterator[Station]:
    one = Station(folder, **options)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def journal(folder: Path) -> tuple[list[StoredEvent], JournalReader]:
    reader = JournalReader(folder / "journal.sqlite3")
    found: list[StoredEvent] = []
    while more := reader.read(found[-1].cursor if found else None, 10_000):
        found += more
    return found, reader


def problems(folder: Path) -> list[str]:
    """Everything that is wrong with the journal, compared with what each worker's witness has seen."""
    events, reader = journal(folder)
    entries = {(e.worker, e.epoch): e for e in reader.epochs()}
    reader.close()
    found: list[str] = []
    for worker in {worker for worker, _ in entries} - {"supervisor"}:
        names = [(e.epoch, e.seq) for e in events if e.worker == worker]
        if names != sorted(names):
            found.append(f"{worker}: out of order")
        if len(names) != len(set(names)):
            found.append(f"{worker}: {len(names) - len(set(names))} doubles")
    for (worker, epoch), entry in entries.items():
        if worker == "supervisor":
            continue
        who = f"{worker} {epoch}"
        witness = folder / f"witness-{worker}-{epoch}"
        returned = witness.read_bytes() if witness.exists() else b""
        mine = [e for e in events if (e.worker, e.epoch) == (worker, epoch)]
        criticals = [int(e.detail) for e in mine if e.type != "progress"]
        wanted = returned.count(b"c")
        if criticals[:wanted] != list(range(wanted)) or len(criticals) > wanted + 1:  # one may not have returned
            found.append(f"{who}: {len(criticals)} critical events, {len(set(criticals))} different ones, of {wanted}")
        if not entry.closed:
            found.append(f"{who}: not closed")
        if not len(returned) <= len(mine) + entry.marks.missed <= len(returned) + 1:
            found.append(f"{who}: {len(mine)} stored, {entry.marks.missed} missed, {len(returned)} given")
    if left := [path.name for path in (folder / "spools").glob("*-*")]:
        found.append(f"folders left: {left}")
    return found


def counted(at: Station) -> None:
    """Of workers that came to their end: sent = stored + coalesced + dropped, by their own account too."""
    _, reader = journal(at.folder)
    entries = {(e.worker, e.epoch): e for e in reader.epochs()}
    reader.close()
    for fact in at.facts:
        if "given" in fact:
            entry = entries[fact["worker"], fact["epoch"]]
            assert fact["drained"], fact
            assert fact["given"] == entry.stored + fact["coalesced"] + fact["dropped"], (fact, entry)
            assert fact["longest"] < 1.5, fact  # each fault lasts longer: emit does not wait for it


def until_stored(folder: Path, least: int, *, more: bool = False) -> None:
    """Return once so many events are stored, or so many more than now."""
    with closing(JournalReader(folder / "journal.sqlite3")) as reader:
        least += reader.head().n if more else 0
        while reader.head().n < least:
            time.sleep(0.01)


# --- faults -----------------------------------------------------------------------------------------------------------


def cut(at: Station) -> None:
    for _ in range(5):
        at.say("cut")
        time.sleep(0.1)


def close(at: Station) -> None:
    at.say("close")


def unlink(at: Station) -> None:
    at.say("unlink")
    at.say("cut")


def withhold(at: Station) -> None:
    at.say("withhold")
    time.sleep(3)  # longer than an answer may take
    at.say("release")


def stop(at: Station) -> None:
    hold(at.process.pid)
    time.sleep(5)
    let_go(at.process.pid)


def fill(at: Station) -> None:
    at.say("pause")
    at.emitted(len(WORKERS))
    at.say("resume")


FAULTS = [
    pytest.param(cut, {"count": 600, "pause": 0.001}, id="connections-cut"),
    pytest.param(close, {"count": 2500, "pause": 0.001}, id="listener-closed", marks=slow),
    pytest.param(
        unlink,
        {"count": 2500, "pause": 0.001},
        id="socket-unlinked",
        marks=(*slow, pytest.mark.only_on("posix", reason="a named pipe has no file to remove")),
    ),
    pytest.param(withhold, {"count": 2500, "pause": 0.001}, id="replies-withheld", marks=slow),
    pytest.param(stop, {"count": 5000, "pause": 0.001}, id="supervisor-stopped", marks=slow),
    pytest.param(
        fill, {"count": 2000, "pause": 0, "progress": 20, "capacity": 4}, id="consumer-paused-until-full", marks=slow
    ),
]


@pytest.mark.parametrize(("fault", "options"), FAULTS)
def test_a_fault_loses_and_doubles_nothing(
    tmp_path: Path, fault: Callable[[Station], None], options: dict[str, Any]
) -> None:
    """During and after the fault the work goes on, and in the end each event is stored once or counted."""
    with station(tmp_path, **options) as at:
        for worker in WORKERS:
            at.say(f"start {worker} 1")
        until_stored(tmp_path, 50)
        fault(at)
        at.finish()
    assert problems(tmp_path) == []
    counted(at)
    assert at.end["drained"]
    if fault in (close, unlink):
        assert at.end["served_again"] == 1
        events, reader = journal(tmp_path)
        reader.close()
        assert {e.transport for e in events if e.n > len(events) - 20} == {"queue"}  # they have come back
    if fault is fill:
        assert sum(fact.get("coalesced", 0) for fact in at.facts) > 0


@pytest.mark.parametrize(
    ("mode", "seed"),
    [
        ("queue", 1),
        pytest.param("stdout", 2, marks=slow),
        pytest.param("queue", 3, marks=slow),
        pytest.param("stdout", 4, marks=slow),
    ],
)
def test_workers_killed_at_random(tmp_path: Path, mode: str, seed: int) -> None:
    """Workers killed at any moment, with successors at once and connections cut: nothing is lost or doubled."""
    chance = random.Random(seed)
    epochs = dict.fromkeys(WORKERS, 1)
    with station(tmp_path, count=100_000, pause=0.0005, mode=mode) as at:
        for worker in WORKERS:
            at.say(f"start {worker} 1")
        until_stored(tmp_path, 20)
        for _ in range(8):
            time.sleep(chance.random() * 0.15)
            worker = chance.choice(WORKERS)
            at.say(f"kill {worker} {epochs[worker]}")
            epochs[worker] += 1
            at.say(f"start {worker} {epochs[worker]}")
            if chance.random() < 0.3:
                at.say("cut")
        time.sleep(0.3)
        for worker in WORKERS:
            at.say(f"kill {worker} {epochs[worker]}")
        at.finish()
    assert problems(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_supervisor_and_the_next(tmp_path: Path) -> None:
    """Supervisors killed one after another, some of them stopped before: what workers had given is there."""
    for epoch in range(1, 6):
        with station(tmp_path, count=100_000, pause=0.0005, mode=("queue", "stdout")[epoch % 2]) as at:
            for worker in WORKERS:
                at.say(f"start {worker} {epoch}")
            until_stored(tmp_path, 100, more=True)
            if epoch == 3:
                hold(at.process.pid)
                time.sleep(1)
            at.process.kill()
    with station(tmp_path, count=0) as at:
        at.finish()
    assert problems(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("without", "word"), [("dedup", "doubles"), ("spool", "critical events")])
def test_the_check_can_fail(tmp_path: Path, without: str, word: str) -> None:
    """Control: with the judge or the spool left out, the same faults show doubles or loss."""
    with station(tmp_path, count=100_000, pause=0.0002, without=without) as at:
        for worker in WORKERS:
            at.say(f"start {worker} 1")
        until_stored(tmp_path, 200)
        if without == "spool":
            at.say("pause")
            time.sleep(0.2)
        else:
            withhold(at)
        for worker in WORKERS:
            at.say(f"kill {worker} 1")
        if without == "spool":
            time.sleep(0.2)
            for worker in WORKERS:
                at.say(f"start {worker} 2")
        at.process.kill()
    with station(tmp_path, count=0, without=without) as at:
        at.finish()
    assert any(word in problem for problem in problems(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_modes_give_the_same_journal(tmp_path: Path) -> None:
    """The same work by queue and by stdout, screenshots of 2 MB included, is the same in the journal."""
    found = []
    for mode in ("queue", "stdout"):
        folder = tmp_path / mode
        folder.mkdir()
        with station(folder, count=30, pause=0.01, mode=mode, screenshot=2 * 1024 * 1024) as at:
            at.say("start qa 1")
            at.finish()
        assert problems(folder) == []
        events, reader = journal(folder)
        reader.close()
        assert {e.transport for e in events} == {mode}
        assert sum(len(e.data or b"") for e in events) == 3 * 2 * 1024 * 1024
        found.append([{**e.as_json(), "timestamp": 0, "transport": "", "cursor": e.n} for e in events])
    assert found[0] == found[1]
