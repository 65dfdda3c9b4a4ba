"""A backend for tests of the control API: a real journal and hub, everything else as the test says."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from docs_store.topology import DEFAULT, Topology
from ipc.events import ProgressEvent
from supervisor.commands import Command, Reply
from supervisor.control.service import DocumentFacts, Figures
from supervisor.hub import Hub, Subscription
from supervisor.journal import Cursor, Journal, OwnRow, StoredEvent
from supervisor.rollout import Progress, Tally, shown
from supervisor.status import CrewStatus, PhaseStatus, Waiting
from supervisor.why import Reason, gathered


@dataclass
class FakeBackend:
    """`asked` keeps the commands; `reply` is what each gets."""

    journal: Journal
    hub: Hub
    asked: list[Command] = field(default_factory=list)
    reply: Reply = field(default_factory=lambda: Reply(ok=True, text="done"))
    shown: CrewStatus = field(
        default_factory=lambda: CrewStatus(
            workspace="/somewhere",
            pid=4711,
            phases={phase.key: PhaseStatus(title=phase.title, state="ready") for phase in DEFAULT.phases},
            queue_depth=3,
            queue_capacity=1000,
            counters={"stored": 7, "bytes": 1500, "lost": 0, "refused_handshakes": 2},
            workers={
                "qa": {"stored": 4, "bytes": 900, "waiting": 2},
                "developer": {"stored": 3, "bytes": 0, "waiting": 0},
            },
            latency={"qa": {0.001: 1, 0.01: 2, float("inf"): 1}},
            head=12,
        )
    )
    read: list[str] = field(default_factory=list)
    broken: bool = False

    @classmethod
    def over(cls, folder: Path) -> FakeBackend:
        journal = Journal.open(folder / "journal.db")
        return cls(journal, Hub(journal))

    async def add(self, *events: ProgressEvent) -> None:
        """Commit these, and say so."""
        first = self.hub.head + 1
        rows = [OwnRow(seq=first + n, event=event) for n, event in enumerate(events)]
        committed = await asyncio.wrap_future(self.journal.commit(rows))
        self.hub.committed(committed.head)

    def becomes(self, **changes: Any) -> None:
        self.shown = replace(self.shown, **changes)

    def status(self) -> CrewStatus:
        if self.broken:
            raise ZeroDivisionError("a secret of the inside")
        return self.shown

    def figures(self) -> Figures:
        return Figures(pending=0, failed_commits=0, subscribers=1)

    def topology(self) -> Topology:
        return DEFAULT

    def here(self) -> Cursor:
        return self.journal.reader.head()

    def follow(
        self, after: Cursor | None, *, phase: str | None, type_: str | None
    ) -> AbstractContextManager[Subscription]:
        return self.hub.subscribe(after, phase=phase, type=type_)

    async def command(self, command: Command) -> Reply:
        self.asked.append(command)
        return self.reply

    async def events(
        self, after: Cursor | None, limit: int, phase: str | None, type_: str | None
    ) -> tuple[list[StoredEvent], Cursor, bool]:
        found, cursor = self.journal.reader.read_up_to(after, limit, phase, type_)
        return found, cursor, cursor.n < self.hub.head

    async def documents(self) -> list[DocumentFacts]:
        return [
            DocumentFacts(name=d.name, file=d.file, role=d.role, phase=d.phase, record=1, updated="")
            for d in DEFAULT.documents
        ]

    async def document(self, name: str) -> tuple[int, str]:
        self.read.append(name)
        return 5, f"# {name}\n"

    async def inbox(self) -> tuple[Waiting, ...]:
        return (
            Waiting(
                id="abc",
                what="blocked",
                phase="debugging",
                kind="Fix",
                priority="HIGH",
                text="it fails",
                request="Is the bound inclusive?",
                since="2026-01-01T00:00:00.000Z",
            ),
        )

    async def why(self, phase: str) -> tuple[Reason, ...]:
        return gathered(self.journal.reader, phase)

    async def rollout(self) -> dict[str, Any]:
        return shown(Progress(), Tally().figures(), rate=0.1, source="the default", max_fallback_rate=0.1)
