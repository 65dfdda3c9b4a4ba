"""Says what is wrong with a workspace after chaos, by comparing what its record holds with what was asked and seen.

It only reads: the history, the journal, the documents, the witnesses that each worker kept, and the process table.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs_store.messages import UNFINISHED
from docs_store.store import Store
from ipc.process import Identity, escapees, is_alive
from supervisor.journal import JournalReader, StoredEvent
from supervisor.workspace import Workspace
from tests.chaos.crews import MARK
from tests.chaos.relay import HOP

Name = tuple[str, int, int, int]  # of a finding: chain, hop, attempt, number


@dataclass(frozen=True, slots=True)
class Account:
    """What one workspace was asked to do, and where to look for what it did."""

    root: Path
    witnesses: Path
    chains: Mapping[str, int]  # chain → hops
    excused: Collection[int] = ()  # workers that died together with their supervisor: nobody could inherit a daemon

    def problems(self) -> list[str]:
        """Everything that is wrong, in words; empty when all is well."""
        workspace = Workspace(self.root)
        verdict = Store.examine(workspace.crew, head_file=workspace.head)
        if not verdict.ok:
            return [f"the history does not verify: {verdict}"]
        store = Store.open(workspace.crew, head_file=workspace.head, create=False)
        events, open_epochs = _journal(workspace)
        return [
            *self._processes(),
            *_views(store, workspace),
            *self._work(store),
            *_finishes(store, events),
            *_order(events),
            *(f"epoch {worker} {epoch} is not closed" for worker, epoch in open_epochs),
            *(f"a spool is left: {path.name}" for path in workspace.spools.glob("*-*")),
            *self._findings(events),
        ]

    def _processes(self) -> Iterator[str]:
        for identity in escapees({MARK: str(self.root)}):
            yield f"process {identity.pid} is left"
        started = self.witnesses / "started"
        for line in started.read_text(encoding="utf-8").splitlines() if started.exists() else ():
            worker, pid, created = line.split()
            if int(worker) not in self.excused and is_alive(Identity(int(pid), float(created))):
                yield f"process {pid} of an agent of {worker} is left"
        overlaps = self.witnesses / "overlaps"
        if overlaps.exists():
            found = overlaps.read_text(encoding="utf-8").splitlines()
            yield from (line for line in found if int(line.split()[0]) not in self.excused)

    def _work(self, store: Store) -> Iterator[str]:
        """Each hop of each chain was posted once and finished once; nothing else was."""
        wanted = {(chain, hop) for chain, hops in self.chains.items() for hop in range(hops)}
        posted: Counter[tuple[str, int]] = Counter()
        hop_of: dict[str, tuple[str, int]] = {}
        for posted_as, text in _posts(store):
            if found := HOP.search(text):
                posted[found[1], int(found[2])] += 1
                hop_of[posted_as] = found[1], int(found[2])
        finished = Counter(
            hop_of[record.data["task"]]
            for record in store.records()
            if record.kind == "finish" and record.data["task"] in hop_of
        )
        for what, counted in (("posted", posted), ("finished", finished)):
            for chain, hop in sorted(wanted - counted.keys()):
                yield f"hop {hop} of chain {chain} was never {what}"
            for (chain, hop), count in sorted(counted.items()):
                if count != 1 or (chain, hop) not in wanted:
                    yield f"hop {hop} of chain {chain} was {what} {count} times"
        for message in store.state.messages.values():
            if message.status in UNFINISHED:
                yield f"{message.id} is {message.status}: {message.text[:80]}"

    def _findings(self, events: Iterable[StoredEvent]) -> Iterator[str]:
        """What `emit` has taken is in the journal once and in its order, and nothing is that nobody gave."""
        stored: dict[tuple[str, int], list[Name]] = defaultdict(list)
        for event in events:
            if event.type == "finding":
                stored[event.worker, event.epoch].append(_name(event.summary["name"]))
        for path in sorted(self.witnesses.glob("witness-*")):
            _, worker, number = path.name.split("-")
            epoch = int(number)
            begun, given = _witnessed(path)
            mine = stored.pop((worker, epoch), [])
            who = f"{worker} {epoch}"
            for name, count in Counter(mine).items():
                if count != 1:
                    yield f"{who}: finding {name} is there {count} times"
            for name in sorted(set(given) - set(mine)):
                yield f"{who}: finding {name} was given and is not there"
            for name in sorted(set(mine) - set(begun)):
                yield f"{who}: finding {name} is there and was never given"
            if [name for name in begun if name in set(mine)] != list(dict.fromkeys(mine)):
                yield f"{who}: findings are out of order"
        for (worker, epoch), names in stored.items():
            yield f"{worker} {epoch}: {len(names)} findings of a worker that has no witness"


def _journal(workspace: Workspace) -> tuple[list[StoredEvent], list[tuple[str, int]]]:
    reader = JournalReader(workspace.journal)
    try:
        events: list[StoredEvent] = []
        while more := reader.read(events[-1].cursor if events else None, 10_000):
            events += more
        left = [(e.worker, e.epoch) for e in reader.epochs() if not e.closed and e.worker != "supervisor"]
    finally:
        reader.close()
    return events, left


def _views(store: Store, workspace: Workspace) -> Iterator[str]:
    for document in store.topology.documents:
        path = workspace.crew / document.file
        if not path.exists():
            yield f"{document.file} is not there"
        elif path.read_text(encoding="utf-8") != store.text(document.name):
            yield f"{document.file} is not what the history says"
    for path in workspace.crew.glob("*~"):
        yield f"{path.name} is left"


def _posts(store: Store) -> Iterator[tuple[str, str]]:
    """Every message that was ever posted: its id and text."""
    for record in store.records():
        for post in record.data.get("posts", ()):
            yield post["id"], post["text"]
        for effect in record.data.get("effects", ()):
            if effect["what"] == "add":
                yield effect["id"], effect["draft"]["text"]


def _finishes(store: Store, events: Iterable[StoredEvent]) -> Iterator[str]:
    """Each finish on record has its one event, and no attempt was begun twice."""
    done = Counter(
        (record.data["task"], record.data["round"], record.data["attempt"])
        for record in store.records()
        if record.kind == "finish"
    )
    told, begun = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
    for event in events:
        if event.type in ("phase_complete", "phase_start"):
            what = (event.summary["message"], event.summary["round"], event.summary["attempt"])
            (told if event.type == "phase_complete" else begun)[what] += 1
    for what in sorted(done.keys() | told.keys()):
        if done[what] != 1 or told[what] != 1:
            yield f"{what} was finished {done[what]} times and told {told[what]} times"
    for what, times in sorted(begun.items()):
        if times > 1:
            yield f"{what} was begun {times} times"


def _order(events: Iterable[StoredEvent]) -> Iterator[str]:
    last: dict[str, tuple[int, int]] = {}
    for event in events:
        place = (event.epoch, event.seq)
        if event.worker != "supervisor" and place <= last.get(event.worker, (0, 0)):
            yield f"{event.worker}: event {place} comes after {last[event.worker]}"
        last[event.worker] = place


def _witnessed(path: Path) -> tuple[list[Name], list[Name]]:
    """What was about to be given, and what `emit` had taken; the last line may be torn."""
    begun: list[Name] = []
    given: list[Name] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            when, *name = json.loads(line)
            (begun if when == "before" else given).append(_name(name))
    return begun, given


def _name(said: list[Any]) -> Name:
    chain, hop, attempt, number = said
    return str(chain), int(hop), int(attempt), int(number)
