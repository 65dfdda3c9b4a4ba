"""Does the queue deliver what stdout delivers? The same work, once in each mode, and every difference between the two.

Comparing is pure: two `Outcome`s come in, differences come out. What may differ is normalised first: times and
durations, process identities, hashes over them (each becomes its number in order of appearance, so that two names of
one thing stay one), and the fields that the user has marked. The second half makes the copies and runs them.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actors.folders import remove
from actors.trees import Trees
from docs_store.store import Store

from .config import Config
from .exits import Exit, UserError
from .foreground import run_workspace
from .journal import Cursor, JournalReader
from .options import RunOptions
from .status import CrewStatus, ShownEvent, Summary
from .workspace import Workspace

MODES = ("queue", "stdout")
FIELDS = ("type", "phase", "step", "pct", "detail", "summary", "data")
MARKABLE = re.compile(r"(type|step|pct|detail|data|summary(\.[^.\s]+)*)")
LEFT_OUT = frozenset({".supervisor", ".git", ".hg", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
VARYING = frozenset({"pid", "seconds", "duration", "elapsed", "time"})  # numbers of a summary: identities and times
SHOWN = 400  # characters of each side of a difference

_WHEN = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_LASTED = re.compile(r"(?<![\w.])\d+(\.\d+)? ?(ms|s|seconds|min)\b")
_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,64}(?![0-9A-Za-z])")
_PID = re.compile(r"\b((?:pid|process)[ -])\d+\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it counts for the comparison."""

    type: str
    phase: str
    step: str
    pct: int
    detail: str
    summary: Mapping[str, Any]
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run left: events by worker in their order, final documents, the user's files, and its exit code.

    `hashes` are those that differ by nature: of commits and records, which hold times.
    """

    events: Mapping[str, Sequence[Event]]
    documents: Mapping[str, str]
    files: Mapping[str, bytes]
    hashes: Collection[str] = ()
    exit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same. `where` names the worker and event, or the file; `field` what in it.

    A side is "" where the other one has something that it lacks; `mark` is what to write into
    `[ipc] validation_ignores` where this is meant to differ, "" if it cannot be marked.
    """

    where: str
    field: str
    queue: str
    stdout: str
    mark: str = ""


class Normaliser:
    """Makes one side comparable: keeps its own account of which hash came how many-th."""

    def __init__(self, hashes: Collection[str], ignores: Collection[str] = ()) -> None:
        self._known = sorted(hashes)
        self._ignores = frozenset(ignores)
        self._numbers: dict[str, int] = {}

    def text(self, text: str) -> str:
        text = _WHEN.sub("<time>", text)
        text = _LASTED.sub("<duration>", text)
        text = _PID.sub(r"\1<process>", text)
        return _HEX.sub(self._hash, text)

    def event(self, event: Event) -> Event:
        marked = self._ignores
        return Event(
            type="" if "type" in marked else event.type,
            phase=event.phase,
            step="" if "step" in marked else event.step,
            pct=0 if "pct" in marked else event.pct,
            detail="" if "detail" in marked else self.text(event.detail),
            summary={} if "summary" in marked else self._value(event.summary, "summary"),
            data=None if "data" in marked else event.data,
        )

    def _value(self, value: Any, path: str) -> Any:
        if path in self._ignores:
            return "<marked>"
        if isinstance(value, Mapping):
            return {str(key): self._value(inner, f"{path}.{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(inner, path) for inner in value]
        if isinstance(value, str):
            return self.text(value)
        if path.rpartition(".")[2] in VARYING and isinstance(value, int | float):
            return "<varies>"
        return value

    def _hash(self, found: re.Match[str]) -> str:
        whole = self._whole(found[0])
        return found[0] if whole is None else f"<hash {self._numbers.setdefault(whole, len(self._numbers) + 1)}>"

    def _whole(self, beginning: str) -> str | None:
        at = bisect_left(self._known, beginning)
        if at < len(self._known) and self._known[at].startswith(beginning):
            return self._known[at]
        return None


def compare(queue: Outcome, stdout: Outcome, ignores: Collection[str] = ()) -> list[Difference]:
    """Every difference between the two: events worker by worker in order, documents, files, exit codes."""
    one, other = Normaliser(queue.hashes, ignores), Normaliser(stdout.hashes, ignores)
    found: list[Difference] = []
    for worker in sorted({*queue.events, *stdout.events}):
        left = [one.event(event) for event in queue.events.get(worker, ())]
        right = [other.event(event) for event in stdout.events.get(worker, ())]
        found += _events(worker, left, right)
    for name in sorted({*queue.documents, *stdout.documents}):
        texts = one.text(queue.documents.get(name, "")), other.text(stdout.documents.get(name, ""))
        if (name in queue.documents) != (name in stdout.documents):
            found.append(Difference(where=name, field="document", queue=texts[0], stdout=texts[1]))
        else:
            found += _lines(name, *texts)
    for name in sorted({*queue.files, *stdout.files}):
        a, b = queue.files.get(name), stdout.files.get(name)
        if a != b:
            found.append(Difference(where=name, field="file", queue=_bytes(a), stdout=_bytes(b)))
    if queue.exit != stdout.exit:
        found.append(Difference(where="the run", field="exit code", queue=str(queue.exit), stdout=str(stdout.exit)))
    return found


def _events(worker: str, left: Sequence[Event], right: Sequence[Event]) -> Iterable[Difference]:
    matcher = difflib.SequenceMatcher(None, [_key(e) for e in left], [_key(e) for e in right], autojunk=False)
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            continue
        both = min(a1 - a0, b1 - b0)
        for n in range(both):
            yield from _fields(f"{worker}, event {a0 + n + 1}", left[a0 + n], right[b0 + n])
        for n in range(a0 + both, a1):
            yield Difference(where=f"{worker}, event {n + 1}", field="event", queue=_whole(left[n]), stdout="")
        for n in range(b0 + both, b1):
            yield Difference(where=f"{worker}, event {n + 1}", field="event", queue="", stdout=_whole(right[n]))


def _fields(where: str, left: Event, right: Event) -> Iterable[Difference]:
    for name in FIELDS:
        a, b = getattr(left, name), getattr(right, name)
        if a == b:
            continue
        if name == "summary":
            for key in sorted({*a, *b}):
                if a.get(key) != b.get(key):
                    path = f"summary.{key}"
                    yield Difference(where=where, field=path, queue=_of(a, key), stdout=_of(b, key), mark=path)
        elif name == "data":
            yield Difference(where=where, field="data", queue=_bytes(a), stdout=_bytes(b), mark="data")
        else:
            mark = name if name != "phase" else ""
            yield Difference(where=where, field=name, queue=str(a), stdout=str(b), mark=mark)


def _lines(name: str, left: str, right: str) -> Iterable[Difference]:
    a, b = left.split("\n"), right.split("\n")
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            yield Difference(where=name, field=f"line {a0 + 1}", queue="\n".join(a[a0:a1]), stdout="\n".join(b[b0:b1]))


def _key(event: Event) -> str:
    """Everything of it, for the matcher."""
    return json.dumps({**_plain(event), "data": _bytes(event.data)}, sort_keys=True, default=str)


def _plain(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in FIELDS if name != "data"}


def _whole(event: Event) -> str:
    return f"{event.type} {event.step} {event.pct} % {event.detail}".strip()


def _of(summary: Mapping[str, Any], key: str) -> str:
    return json.dumps(summary[key], sort_keys=True, default=str) if key in summary else ""


def _bytes(data: bytes | None) -> str:
    if data is None:
        return ""
    beginning = base64.b64encode(data[:24]).decode("ascii")
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}, beginning {beginning}"


def side_by_side(differences: Sequence[Difference]) -> list[str]:
    """Each difference for people: where, then both sides under each other."""
    lines = []
    for one in differences:
        lines.append(f"{one.where}: {one.field}")
        for mode, said in (("queue", one.queue), ("stdout", one.stdout)):
            first, *more = (said or "(nothing)")[:SHOWN].split("\n")
            lines.append(f"  {mode:<6} | {first}")
            lines += [f"  {'':<6} | {line}" for line in more]
    marks = sorted({one.mark for one in differences if one.mark})
    if marks:
        lines.append("")
        lines.append("If these fields differ from one run of the same work to the next by their nature, mark them in")
        lines.append(f"supervisor.toml: [ipc] validation_ignores = {json.dumps(marks)}")
    return lines


# --- the runs


class Unseen:
    """A view that shows nothing."""

    async def show(self, events: AsyncIterator[ShownEvent], _status: Callable[[], CrewStatus]) -> None:
        async for _ in events:
            pass

    def close(self, summary: Summary) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one validation: both runs' sizes, and what is not the same."""

    run: int
    events: int
    documents: int
    screenshots: int
    differences: tuple[Difference, ...]

    @property
    def matched(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "matched": self.matched}


def validate(workspace: Workspace, config: Config, *, number: int, verbose: int = 0) -> Report:
    """One validation: the workspace's work on two copies, first by the queue, then by stdout. Raises `UserError`.

    The copies take the same place one after the other, so that no path differs.
    """
    require_markable(config)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="phase-validation-", ignore_cleanup_errors=True) as folder:
        master, place = Path(folder).resolve() / "as-it-was", Path(folder).resolve() / "work"
        copy_workspace(workspace, config, master)
        for mode in MODES:
            shutil.copytree(master, place, symlinks=True)
            copied = Workspace(place)
            options = RunOptions(
                workspace=place,
                until_idle=True,
                use_queue_ipc=mode == "queue",
                use_stdout=mode == "stdout",
                lockstep=True,
                verbose=verbose,
            )
            code = run_workspace(options, Unseen(), config=_for_copy(workspace, config))
            if code not in (Exit.DONE, Exit.WORK_REMAINS):
                text = f"the run by {mode} ended with exit code {code}: nothing can be compared, nothing is counted"
                raise UserError(text, exit_code=Exit(code))
            outcomes.append(gather(copied, config, code))
            remove(os.fsencode(place))  # Git's objects are read-only: Windows removes none that is
    queue, stdout = outcomes
    return Report(
        run=number,
        events=sum(len(events) for events in queue.events.values()),
        documents=len(queue.documents),
        screenshots=sum(event.data is not None for events in queue.events.values() for event in events),
        differences=tuple(compare(queue, stdout, config.ipc.validation_ignores)),
    )


def require_markable(config: Config) -> None:
    """Raise `UserError` for a mark that names no field of an event."""
    for mark in config.ipc.validation_ignores:
        if not MARKABLE.fullmatch(mark):
            raise UserError(
                f"[ipc] validation_ignores names {mark!r}, which is no field of an event; "
                "there are type, step, pct, detail, data, summary and summary.KEY",
                exit_code=Exit.CONFIGURATION,
            )


def copy_workspace(workspace: Workspace, config: Config, to: Path) -> None:
    """Copy the user's files and the documents with their history; what a run makes for itself is left behind."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in LEFT_OUT or (Path(folder) / name / "pyvenv.cfg").is_file()}

    store = Store.open(workspace.crew, topology=config.topology, head_file=workspace.head)
    with store.hold():
        shutil.copytree(workspace.root, to, symlinks=True, ignore=left_out)


def _for_copy(workspace: Workspace, config: Config) -> Config:
    """The environment with the project's interpreter is not copied: it is used where it is."""
    if config.project.python:
        return config
    for name in (".venv", "venv", "env", ".env"):
        for python in (workspace.root / name / "bin" / "python", workspace.root / name / "Scripts" / "python.exe"):
            if python.is_file():
                return replace(config, project=replace(config.project, python=str(python)))
    return config


def gather(workspace: Workspace, config: Config, code: int) -> Outcome:
    """What a finished run left in its workspace."""
    workers = {phase.key for phase in config.topology.phases}
    events: dict[str, list[Event]] = {worker: [] for worker in sorted(workers)}
    reader = JournalReader(workspace.journal)
    try:
        after: Cursor | None = None
        while True:
            found, after = reader.read_up_to(after, 1000)
            for one in found:
                if one.worker in workers:
                    said = Event(one.type, one.phase, one.step, one.pct, one.detail, one.summary, one.data)
                    events[one.worker].append(said)
            if len(found) < 1000:
                break
    finally:
        reader.close()
    documents = {d.file: (workspace.crew / d.file).read_text("utf-8") for d in config.topology.documents}
    files = {
        path.relative_to(workspace.root).as_posix(): path.read_bytes()
        for path in sorted(workspace.root.rglob("*"))
        if path.is_file() and not {"crew", *LEFT_OUT} & set(path.relative_to(workspace.root).parts)
    }
    return Outcome(events=events, documents=documents, files=files, hashes=_hashes(workspace), exit=code)


def _hashes(workspace: Workspace) -> frozenset[str]:
    """Of commits (they hold times) and of the history's records."""
    found = set()
    for segment in workspace.history.glob("*.jsonl"):
        for line in segment.read_text("utf-8").split("\n"):
            if line:
                record = json.loads(line)
                found |= {str(record[key]) for key in ("hash", "prev") if record.get(key)}
    with Trees.open(workspace.root, workspace.state).lock():
        found |= _commits(workspace)
    return frozenset(found)


def _commits(workspace: Workspace) -> set[str]:
    import pygit2

    repository = pygit2.Repository(str(workspace.shadow))
    return {str(oid) for oid in repository if isinstance(repository[oid], pygit2.Commit)}
