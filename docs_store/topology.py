"""Phases, documents, and who may do what with which: a table of data, no behaviour beyond looking things up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar

from .messages import SUPERVISOR, USER

T = TypeVar("T")

Role = Literal["read", "write", "strategic"]


class Operation(StrEnum):
    """What can be asked of the store about a document."""

    READ = "read"
    POST = "post"  # a message into a READ document
    REPORT = "report"  # into the phase's WRITE document
    REWRITE = "rewrite"  # a strategic document's text
    EDIT = "edit"  # by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One of the Markdown files. `phase` is whose READ or WRITE document it is; None for the strategic ones."""

    name: str  # "QA_READ"
    role: Role
    phase: str | None = None

    @property
    def file(self) -> str:
        return f"{self.name}.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase: `key` is its name everywhere in code, `title` in messages to people, `prefix` in file names.

    `readers` are the phases that look at its WRITE document in each of their cycles. It is no right: everybody may.
    """

    key: str
    title: str
    prefix: str
    plans: bool = False  # may rewrite the strategic documents
    readers: tuple[str, ...] = ()


MASTER_PLAN = "MASTER_PLAN"
PRIMARY = "PRIMARY_OBJECTIVES"
SECONDARY = "SECONDARY_OBJECTIVES"
TERTIARY = "TERTIARY_OBJECTIVES"
ARCHITECTURE = "ARCHITECTURE"
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,63}")  # it names files, too
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
STRATEGIC = (MASTER_PLAN, PRIMARY, SECONDARY, TERTIARY, ARCHITECTURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Which phases there are; their documents follow from that. ValueError names everything that cannot be so."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        wrong = list(_contradictions(self.phases))
        if wrong:
            raise ValueError(f"these phases contradict each other: {'; '.join(wrong)}")

    def read_by(self, phase: str) -> tuple[Document, ...]:
        """The WRITE documents of others that the phase looks at: all, if it plans, else those that name it a reader."""
        reader = self.phase(phase)
        others = (other for other in self.phases if other.key != phase)
        return tuple(self.write_document(other.key) for other in others if reader.plans or phase in other.readers)

    @property
    def documents(self) -> tuple[Document, ...]:
        read = (Document(name=f"{p.prefix}_READ", role="read", phase=p.key) for p in self.phases)
        write = (Document(name=f"{p.prefix}_WRITE", role="write", phase=p.key) for p in self.phases)
        strategic = (Document(name=name, role="strategic") for name in STRATEGIC)
        return (*read, *write, *strategic)

    def phase(self, key: str) -> Phase:
        """The phase of that key; KeyError names the known ones."""
        return _named(key, ((p.key, p) for p in self.phases), "phase")

    def document(self, name: str) -> Document:
        """The document of that name, with or without `.md`; KeyError names the known ones."""
        return _named(name.removesuffix(".md"), ((d.name, d) for d in self.documents), "document")

    def read_document(self, phase: str) -> Document:
        return self.document(f"{self.phase(phase).prefix}_READ")

    def write_document(self, phase: str) -> Document:
        return self.document(f"{self.phase(phase).prefix}_WRITE")

    def allows(self, who: str, document: Document, operation: Operation) -> bool:
        """Whether `who` (a phase key, "user", "supervisor") may do that. An unknown name may do nothing."""
        if operation is Operation.READ:
            return who in (USER, SUPERVISOR) or any(p.key == who for p in self.phases)
        if who == USER:
            return operation is Operation.EDIT or (operation is Operation.POST and document.role == "read")
        if who == SUPERVISOR:
            return operation is Operation.POST and document.role == "read"
        phase = next((p for p in self.phases if p.key == who), None)
        if phase is None:
            return False
        match operation:
            case Operation.POST:
                return document.role == "read" and document.phase != who
            case Operation.REPORT:
                return document.role == "write" and document.phase == who
            case Operation.REWRITE:
                return document.role == "strategic" and phase.plans
            case _:
                return False


def as_data(topology: Topology) -> dict[str, Any]:
    """A topology as JSON values, for a worker's assignment."""
    return {"phases": [asdict(phase) for phase in topology.phases]}


def from_data(data: Mapping[str, Any]) -> Topology:
    """The topology that `as_data` wrote; the default one for an empty mapping."""
    if not data:
        return DEFAULT
    phases = (Phase(**{**phase, "readers": tuple(phase.get("readers", ()))}) for phase in data["phases"])
    return Topology(phases=tuple(phases))


def _contradictions(phases: Sequence[Phase]) -> Iterator[str]:
    keys = [phase.key for phase in phases]
    files: dict[str, str] = {}
    for at, phase in enumerate(phases):
        if phase.key in (USER, SUPERVISOR) or not _KEY.fullmatch(phase.key):
            yield f"{phase.key!r} cannot be a phase's key"
        if phase.key in keys[:at]:
            yield f"there are two phases {phase.key}"
            continue
        if not _PREFIX.fullmatch(phase.prefix):
            yield f"{phase.prefix!r} of {phase.key} cannot begin a file's name"
        elif (owner := files.setdefault(phase.prefix.casefold(), phase.key)) != phase.key:  # as some file systems do
            yield f"{phase.prefix}_READ.md would belong to {owner} and to {phase.key}"
        for reader in phase.readers:
            if reader not in keys:
                yield f"{phase.key} is read by {reader}, which is no phase"
            elif reader == phase.key:
                yield f"{phase.key} is its own reader"


def _named(name: str, pairs: Iterable[tuple[str, T]], what: str) -> T:
    known = dict(pairs)
    if name not in known:
        raise KeyError(f"no {what} named {name!r}; there are: {', '.join(known)}")
    return known[name]


DEFAULT = Topology(
    phases=(
        Phase(key="planning", title="Planning", prefix="PLANNING", plans=True),
        Phase(key="developer", title="Developer", prefix="DEVELOPER"),
        Phase(key="qa", title="QA", prefix="QA"),
        Phase(key="debugging", title="Debugging", prefix="DEBUG"),
    )
)
