"""What the control API can ask of the running supervisor: its owner, its event plane, its documents, as one object.

Everything that reads files goes to a thread; what changes something is a command to the owner. How it looks in JSON
is `app`'s.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anyio.to_thread import run_sync

from docs_store.topology import Topology
from supervisor.commands import Command, Reply
from supervisor.hub import Subscription
from supervisor.journal import Cursor, StoredEvent
from supervisor.status import CrewStatus, Waiting, inbox
from supervisor.why import Reason, gathered

if TYPE_CHECKING:
    from supervisor.crew import Crew
    from supervisor.plane import EventPlane


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `/metrics` shows beside the status."""

    pending: int
    failed_commits: int
    subscribers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFacts:
    """One document of the store: the record that last touched it, and when."""

    name: str
    file: str
    role: str
    phase: str | None
    record: int
    updated: str


class Backend(Protocol):
    """What `app` needs; `Service` is the real one."""

    def status(self) -> CrewStatus: ...
    def figures(self) -> Figures: ...
    def topology(self) -> Topology: ...
    def here(self) -> Cursor: ...
    def follow(
        self, after: Cursor | None, *, phase: str | None, type_: str | None
    ) -> AbstractContextManager[Subscription]: ...
    async def command(self, command: Command) -> Reply: ...
    async def events(
        self, after: Cursor | None, limit: int, phase: str | None, type_: str | None
    ) -> tuple[list[StoredEvent], Cursor, bool]: ...
    async def documents(self) -> list[DocumentFacts]: ...
    async def document(self, name: str) -> tuple[int, str]: ...
    async def inbox(self) -> tuple[Waiting, ...]: ...
    async def why(self, phase: str) -> tuple[Reason, ...]: ...
    async def rollout(self) -> dict[str, Any]: ...


class Service:
    """The running supervisor as the API sees it."""

    def __init__(self, crew: Crew, plane: EventPlane) -> None:
        self._crew = crew
        self._plane = plane

    def status(self) -> CrewStatus:
        return self._crew.status()

    def figures(self) -> Figures:
        statistics = self._plane.pump.statistics()
        return Figures(
            pending=statistics.pending,
            failed_commits=statistics.failed_commits,
            subscribers=self._plane.pump.hub.statistics().subscribers,
        )

    def topology(self) -> Topology:
        return self._crew.config.topology

    def here(self) -> Cursor:
        return self._plane.here()

    def follow(
        self, after: Cursor | None, *, phase: str | None, type_: str | None
    ) -> AbstractContextManager[Subscription]:
        """What comes after the cursor; None: what comes from now on."""
        return self._plane.pump.hub.subscribe(after, phase=phase, type=type_, live_only=after is None)

    async def command(self, command: Command) -> Reply:
        return await self._crew.command(command)

    async def events(
        self, after: Cursor | None, limit: int, phase: str | None, type_: str | None
    ) -> tuple[list[StoredEvent], Cursor, bool]:
        """A page of the journal, where to go on, and whether there was more."""

        def read() -> tuple[list[StoredEvent], Cursor, bool]:
            reader = self._plane.journal.reader
            found, cursor = reader.read_up_to(after, limit, phase, type_)
            return found, cursor, cursor.n < reader.head().n

        return await run_sync(read)

    async def documents(self) -> list[DocumentFacts]:
        store = self._crew.documents.store

        def read() -> list[DocumentFacts]:
            state = store.refresh()
            found = []
            for document in store.topology.documents:
                known = state.documents.get(document.name)
                found.append(
                    DocumentFacts(
                        name=document.name,
                        file=document.file,
                        role=document.role,
                        phase=document.phase,
                        record=known.n if known else 0,
                        updated=known.at if known else "",
                    )
                )
            return found

        return await self._crew.at_desk(read)

    async def document(self, name: str) -> tuple[int, str]:
        """The record up to which it was read, and the text as it is on record. `name` is one of the topology's."""
        store = self._crew.documents.store

        def read() -> tuple[int, str]:
            n = store.refresh().n
            return n, store.text(name)

        return await self._crew.at_desk(read)

    async def inbox(self) -> tuple[Waiting, ...]:
        store = self._crew.documents.store
        return await self._crew.at_desk(lambda: inbox(store.refresh()))

    async def why(self, phase: str) -> tuple[Reason, ...]:
        return await run_sync(gathered, self._plane.journal.reader, phase)

    async def rollout(self) -> dict[str, Any]:
        transport = self._crew.transport
        return await run_sync(transport.status, self._plane.journal.reader)
