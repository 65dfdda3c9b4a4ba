"""The crew's own repository beside the user's files: snapshots, a tree per task, merging, and delivery.

`shadow.git` is a bare repository in the state folder; the user's own `.git` is only ever read (for its ignore rules and
its list of tracked files), and need not exist. Content is stored byte for byte, without git's line-end filters. When
something is snapshot, merged or delivered, and what is approved, is decided elsewhere.

Everything here blocks: call it from a thread. One `Trees` belongs to one thread at a time; several processes may each
have their own of the same workspace, and take `lock()` around "read head, merge, set head" and around deliveries.
What lives longer than a command uses `actors.trees_process`, which has all of this done in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from docs_store.lock import Lock

from . import folders, glance, ignore
from .blame import LastChange, last_change
from .folders import FOLDER, LINK, PROGRAM, Entries, Entry, Known
from .ignore import TEMPORARY, Found, Rules, walk

if TYPE_CHECKING:
    import pygit2

CREW = "refs/heads/crew"
USER = "refs/heads/user"
_MOST_BYTES = 256 * 1024 * 1024  # of one file; a bigger one is not what a crew works on
_STREAMED_BYTES = 8 * 1024 * 1024
_FEW = 256  # new objects that are synced one by one; more are synced with the whole disk
_MANY_LOOSE = 2000
_EMPTY_TREE = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
LONGEST_WAIT = 600.0  # seconds: a delivery of many files may take a while

SKIPPED = ("crew", ".supervisor")  # names at the top of a workspace

Progress = Callable[[int, int], None]  # (done, total); total is 0 while files are still being found


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that was left alone, and why. `path` is for people: a name that is not UTF-8 is shown escaped."""

    path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The user's files at one moment. `changed` counts files that differ from the snapshot before."""

    commit: str
    files: int
    changed: int
    skipped: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """It went together: the commit that holds both."""

    head: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides changed these paths in ways that do not go together; nothing was made."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of the user's files: written, already the same, or left alone with the reason."""

    written: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    conflicts: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One commit of the work branch, for people; `at` is seconds since 1970."""

    commit: str
    author: str
    at: int
    note: str
    files: tuple[str, ...]


class MissingCommitError(LookupError):
    """The shadow repository has no such commit: it was deleted or cut, or the id is from another workspace."""


@dataclass(slots=True)
class _Scan:
    entries: Entries = field(default_factory=dict)
    known: list[Known] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    fresh: list[bytes] = field(default_factory=list)  # objects that were written now
    taken: int = 0  # ns since 1970
    tracked_only: set[bytes] = field(default_factory=set)  # files that are ignored, and taken because git tracks them
    unseen: list[tuple[bytes, str]] = field(default_factory=list)  # what the walk could not look at, and why
    left: list[Known] = field(default_factory=list)  # files that were found and not read


class Trees:
    """The shadow repository of one workspace. Make one with `Trees.open`."""

    def __init__(
        self,
        workspace: Path,
        state: Path,
        repo: pygit2.Repository,
        skip: frozenset[bytes],
        hold: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.workspace = workspace
        self.state = state
        self._repo = repo
        self._skip = skip
        self._hold = hold
        self._flat: dict[bytes, Entries] = {}

    @classmethod
    def open(
        cls,
        workspace: Path,
        state: Path,
        *,
        skip: Collection[str] = SKIPPED,
        hold: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> Trees:
        """Open the workspace's shadow repository in `state`, making it if it is not there.

        `skip` are names at the top of the workspace that are nobody's work. `hold` takes the lock between processes;
        by default the two file locks in `state` (`locks`), each waited for at most ten minutes
        (then LockBusyError names its holder).
        """
        import pygit2

        workspace, state = workspace.resolve(), state.resolve()
        state.mkdir(parents=True, exist_ok=True)
        path = state / "shadow.git"
        if not (path / "HEAD").exists():
            pygit2.init_repository(str(path), bare=True, initial_head="crew")
        repo = pygit2.Repository(str(path))
        return cls(workspace, state, repo, left_out(workspace, state, skip), hold or partial(_hold_both, *locks(state)))

    def close(self) -> None:
        """Nothing is held open between calls."""

    # -- the branch ------------------------------------------------------------------------------------------------

    @property
    def head(self) -> str | None:
        """The commit of the work branch; None before the first."""
        return self._ref(CREW)

    @property
    def snapshot_head(self) -> str | None:
        """The last snapshot of the user's files; None before the first."""
        return self._ref(USER)

    def set_head(self, commit: str) -> None:
        """Move the work branch. Take `lock()` around reading it and this."""
        self._commit(commit)
        self._set_ref(CREW, commit)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time; waits."""
        with self._hold():
            yield

    def exists(self, commit: str) -> bool:
        """Whether the shadow repository has that commit."""
        try:
            self._commit(commit)
        except MissingCommitError:
            return False
        return True

    def log(self, head: str | None = None, *, since: str | None = None, most: int = 1000) -> tuple[Change, ...]:
        """The work branch from `head` (default: its head) back to `since`, newest first, first parents only."""
        at = head or self.head
        out: list[Change] = []
        while at is not None and at != since and len(out) < most:
            commit = self._commit(at)
            parent = str(commit.parent_ids[0]) if commit.parent_ids else None
            out.append(
                Change(
                    commit=at,
                    author=commit.author.name,
                    at=commit.commit_time,
                    note=commit.message.strip(),
                    files=self.changed_files(parent, at) if parent else (),
                )
            )
            at = parent
        return tuple(out)

    # -- the user's files ------------------------------------------------------------------------------------------

    def snapshot(self, note: str, *, on_progress: Progress | None = None) -> Snapshot:
        """Commit the user's files as they are now; the same commit as before when nothing has changed.

        What cannot be read keeps the content of the last snapshot, if it had one, and is named in `skipped`.
        """
        last = self.snapshot_head
        before = self._entries(last) if last else {}
        cache = glance.stat_cache(self.state)
        tracked = self._tracked()
        watched = glance.stamped(self._read_from())
        scan = self._scan(self.workspace, cache, before, tracked, on_progress)
        tree = self._write_tree(scan)
        if last and self._commit(last).tree_id.raw == tree:
            self._leave_for_glances(last, scan, watched, tracked)
            return Snapshot(commit=last, files=len(scan.entries), changed=0, skipped=tuple(scan.problems))
        commit = self._write_commit(tree, [last] if last else [], note, "User", scan.fresh)
        self._set_ref(USER, commit)
        self._leave_for_glances(commit, scan, watched, tracked)
        changed = len(_differing(before, scan.entries))
        return Snapshot(commit=commit, files=len(scan.entries), changed=changed, skipped=tuple(scan.problems))

    def unchanged_since(self) -> str | None:
        """The last snapshot if the files are still what it holds; None where only another can tell."""
        return glance.unchanged_since(self.workspace, self.state, self._skip)

    def _leave_for_glances(
        self, commit: str, scan: _Scan, watched: list[glance.Stamped], tracked: Collection[bytes]
    ) -> None:
        seen = {known.path for known in (*scan.known, *scan.left)}
        glance.leave(
            self.state,
            glance.Left(
                taken=scan.taken,
                commit=commit,
                watched=watched,
                sources=[(os.fsencode(path), above) for path, above in self._sources()],
                absent=[path for path in tracked if path not in seen or path in scan.tracked_only],
                unseen=scan.unseen,
                left=scan.left,
            ),
        )

    def ignored(self, folders: Collection[str]) -> tuple[str, ...]:
        """The user's files below these folders that no snapshot holds, since an ignore rule says so: built, generated.

        Caches, byte code, environments and repositories of their own are not among them.
        """
        wanted = tuple(os.fsencode(folder.rstrip("/")) + b"/" for folder in folders)
        top, problem = os.fsencode(self.workspace), _unseen
        there = {
            folder + one.path
            for folder in wanted
            for one in walk(os.path.join(top, folder), obey=False, problem=problem)
        }
        if not there:
            return ()
        taken = {
            one.path
            for one in walk(top, outer=self._outer(), skip=self._skip, problem=problem)
            if one.path.startswith(wanted)
        }
        return tuple(sorted(os.fsdecode(path) for path in there - taken - set(self._tracked())))

    def deliver(self, base: str, target: str) -> Delivery:
        """Bring the user's files from `base` to `target`, file by file, never over a change of the user's.

        A file that still equals `base` is written durably; one that already equals `target` counts as the same; any
        other is a conflict and stays as it is. Running it again after a crash finishes the job. Deletions come first,
        so that a folder may take the place of a file.
        """
        old, new = self._entries(base), self._entries(target)
        paths = sorted(_differing(old, new), key=lambda p: (p in new, p))
        written: list[str] = []
        same: list[str] = []
        conflicts: list[Problem] = []
        for path in paths:
            if path.split(b"/")[0] in self._skip or b".git" in path.split(b"/"):
                conflicts.append(Problem(shown(path), "the crew may not write there"))
                continue
            try:
                verdict = self._deliver_one(path, old.get(path), new.get(path))
            except OSError as error:
                verdict = f"could not be written: {error.strerror or error}"
            if verdict == "written":
                written.append(shown(path))
            elif verdict == "same":
                same.append(shown(path))
            else:
                conflicts.append(Problem(shown(path), verdict))
        return Delivery(written=tuple(written), same=tuple(same), conflicts=tuple(conflicts))

    def last_change(self, file: str, text: str, first: int, last: int) -> LastChange | None:
        """The newest commit of the user's own git that touched these lines of a file of that text; None if none did."""
        return last_change(self.workspace, file, text, first, last)

    # -- task trees ------------------------------------------------------------------------------------------------

    def checkout(self, task: str, commit: str) -> Path:
        """The task's own folder, holding exactly that commit and nothing else; made or reset.

        It carries a `.git` of the shadow repository, so that an agent's git commands never reach the user's.
        """
        entries = self._entries(commit)
        root = self.tree(task)
        root.mkdir(parents=True, exist_ok=True)
        private = self._private(root.name)
        private.mkdir(parents=True, exist_ok=True)
        (private / "crew-base").unlink(missing_ok=True)  # until the reset is complete, it is nobody's
        top = os.fsencode(root)
        cache = folders.read_cache(private / "crew.stat")
        taken = time.time_ns()
        kept = folders.clean(top, entries, cache)
        known: list[Known] = []
        for path, (mode, oid) in entries.items():
            there = kept.get(path)
            if there is None:
                there = self._write_plain(top, path, mode, oid)
            known.append(folders.knowing(path, mode, there, oid))
        self._link_git(root, private, commit)
        folders.write_cache(private / "crew.stat", taken, known)
        (private / "crew-base").write_text(commit)
        return root

    def tree(self, task: str) -> Path:
        """Where the task's folder is, or would be."""
        return tree_of(self.state, task)

    def commit(self, tree: Path, note: str, author: str, *, only: Collection[str] | None = None) -> str | None:
        """Commit what was done in a task's folder since it was checked out, or since the last commit of it.

        None when nothing has changed. New files that the project ignores, crew/ and the state folder stay out; with
        `only`, so does everything but these paths (what a test run has left behind is nobody's work).
        """
        private = self._private(tree.name)
        try:
            base = (private / "crew-base").read_text()
        except FileNotFoundError:
            raise ValueError(f"{tree} is no task tree that was checked out completely; check it out first") from None
        before = self._entries(base)
        scan = self._scan(tree, private / "crew.stat", before, before.keys(), None)
        if only is not None:
            wanted = {os.fsencode(path) for path in only}
            others = {path: entry for path, entry in before.items() if path not in wanted}
            scan.entries = others | {path: entry for path, entry in scan.entries.items() if path in wanted}
        written = self._write_tree(scan)
        if self._commit(base).tree_id.raw == written:
            return None
        commit = self._write_commit(written, [base], note, author, scan.fresh)
        self._set_ref(f"refs/tasks/{tree.name}", commit)
        self._link_git(tree, private, commit)
        (private / "crew-base").write_text(commit)
        return commit

    def drop(self, task: str) -> None:
        """Remove the task's folder; its commits stay."""
        root = self.tree(task)
        folders.remove(os.fsencode(root))
        folders.remove(os.fsencode(self._private(root.name)))

    def prune(self, keep: Collection[str]) -> tuple[str, ...]:
        """Remove every task folder but those of these tasks; returns the names of the removed."""
        wanted = {_folder_name(task) for task in keep}
        folder = self.state / "trees"
        gone = sorted(p.name for p in folder.iterdir() if p.name not in wanted) if folder.is_dir() else []
        for name in gone:
            folders.remove(os.fsencode(folder / name))
            folders.remove(os.fsencode(self._private(name)))
        return tuple(gone)

    def gc(self) -> int:
        """Pack loose objects when there are many; returns how many were packed. Take `lock()` around it."""
        objects = self.state / "shadow.git" / "objects"
        loose = [
            (path, path.parent.name + path.name)
            for folder in objects.iterdir()
            if len(folder.name) == 2
            for path in folder.iterdir()
            if len(path.name) == 38
        ]
        if len(loose) < _MANY_LOOSE:
            return 0

        def add(builder: pygit2.PackBuilder) -> None:
            for _, name in loose:
                builder.add(self._oid(name))

        self._repo.pack(pack_delegate=add)
        for path in (objects / "pack").iterdir():
            folders.sync_file(path)
        folders.sync_folder(objects / "pack")
        for path, _ in loose:
            with contextlib.suppress(PermissionError):  # read by somebody just now; the next time will do
                path.unlink(missing_ok=True)
        return len(loose)

    # -- putting commits together ----------------------------------------------------------------------------------

    def merge(self, base_head: str, commit: str) -> Merged | Conflict:
        """Bring `commit` together with `base_head`, three-way from where they parted. Does not move the branch."""
        ours, theirs = self._commit(base_head), self._commit(commit)
        parted: pygit2.Oid | None = self._repo.merge_base(ours.id, theirs.id)  # None for strangers
        if parted is not None and parted == theirs.id:
            return Merged(base_head)
        if parted is not None and parted == ours.id:
            return Merged(commit)
        base = self._entries(str(parted)) if parted is not None else {}
        merged = self._merge_entries(base, self._entries(base_head), self._entries(commit))
        if isinstance(merged, Conflict):
            return merged
        tree, fresh = self._write_entries(merged)
        note = theirs.message or "Merge"
        return Merged(self._write_commit(tree, [base_head, commit], note, theirs.author.name, fresh))

    def cherry_pick(self, onto: str, commit: str, *, base: str | None = None) -> Merged | Conflict:
        """What `commit` changed (since `base`, by default its first parent), upon `onto`, as one commit."""
        picked = self._commit(commit)
        return self._transplant(onto, base or self._parent(commit), commit, picked.message, picked.author.name)

    def revert(self, onto: str, commit: str, *, base: str | None = None) -> Merged | Conflict:
        """Take back what `commit` changed (since `base`, by default its first parent), upon `onto`."""
        picked = self._commit(commit)
        first = picked.message.strip().split("\n")[0]
        note = f"Undo: {first}\n\nTakes back {commit}.\n"
        return self._transplant(onto, commit, base or self._parent(commit), note, "Supervisor")

    def _transplant(self, onto: str, base: str | None, target: str | None, note: str, who: str) -> Merged | Conflict:
        before = self._entries(base) if base else {}
        after = self._entries(target) if target else {}
        merged = self._merge_entries(before, self._entries(onto), after)
        if isinstance(merged, Conflict):
            return merged
        tree, fresh = self._write_entries(merged)
        if self._commit(onto).tree_id.raw == tree:
            return Merged(onto)
        return Merged(self._write_commit(tree, [onto], note, who, fresh))

    def diff(self, a: str, b: str, *, most_bytes: int | None = None) -> str:
        """The unified diff from one commit to another; bytes that are not UTF-8 show as replacement characters."""
        found = self._repo.diff(self._commit(a), self._commit(b))
        out, size = [], 0
        for patch in found:
            if patch is None:
                continue
            out.append(patch.data)
            size += len(patch.data)
            if most_bytes is not None and size > most_bytes:
                out.append(b"(cut: the difference is longer)\n")
                break
        return b"".join(out).decode("utf-8", "replace")

    def changed_files(self, a: str, b: str) -> tuple[str, ...]:
        """Paths that differ between two commits, sorted."""
        return tuple(shown(p) for p in sorted(_differing(self._entries(a), self._entries(b))))

    def files(self, commit: str) -> tuple[str, ...]:
        """Every path of a commit, sorted."""
        return tuple(shown(p) for p in sorted(self._entries(commit)))

    def read(self, commit: str, path: str) -> bytes | None:
        """A file's content in a commit; None if it has none."""
        entry = self._entries(commit).get(os.fsencode(path))
        return self._blob(entry[1]) if entry else None

    # -- objects ---------------------------------------------------------------------------------------------------

    def _oid(self, name: str | bytes) -> pygit2.Oid:
        import pygit2

        return pygit2.Oid(raw=name) if isinstance(name, bytes) else pygit2.Oid(hex=name)

    def _commit(self, name: str) -> pygit2.Commit:
        import pygit2

        try:
            found = self._repo[self._oid(name)]
        except (KeyError, ValueError):
            raise MissingCommitError(
                f"commit {name!r} is not in {self.state / 'shadow.git'}; "
                "the folder was deleted or cut, or the id is from another workspace"
            ) from None
        if not isinstance(found, pygit2.Commit):
            raise MissingCommitError(f"{name!r} in {self.state / 'shadow.git'} is no commit")
        return found

    def _parent(self, commit: str) -> str | None:
        parents = self._commit(commit).parent_ids
        return str(parents[0]) if parents else None

    def _ref(self, name: str) -> str | None:
        found = self._repo.references.get(name)
        return str(found.target) if found is not None else None

    def _set_ref(self, name: str, commit: str) -> None:
        self._repo.references.create(name, self._oid(commit), force=True)
        path = self.state / "shadow.git" / name
        if path.exists():
            folders.sync_file(path)
            folders.sync_folder(path.parent)

    def _blob(self, oid: bytes) -> bytes:
        return self._repo.read(self._oid(oid))[1]

    def _entries(self, commit: str) -> Entries:
        tree = self._commit(commit).tree_id.raw
        found = self._flat.get(tree)
        if found is None:
            found = {}
            pending = [(b"", tree)] if tree != _EMPTY_TREE else []  # that one is known without being stored
            while pending:
                here, oid = pending.pop()
                for mode, name, child in _parse_tree(self._blob(oid)):
                    if mode == FOLDER:
                        pending.append((here + name + b"/", child))
                    else:
                        found[here + name] = (mode, child)
            while len(self._flat) >= 6:
                del self._flat[next(iter(self._flat))]
            self._flat[tree] = found
        return found

    def _write_entries(self, entries: Entries) -> tuple[bytes, list[bytes]]:
        scan = _Scan(entries=entries)
        return self._write_tree(scan), scan.fresh

    def _write_tree(self, scan: _Scan) -> bytes:
        """Write the folders of these entries as tree objects, deepest first; the root's id."""
        import pygit2

        folders: dict[bytes, list[tuple[bytes, int, bytes]]] = {b"": []}
        for path, (mode, oid) in scan.entries.items():
            here, _, name = path.rpartition(b"/")
            while here not in folders:
                folders[here] = []
                here = here.rpartition(b"/")[0]
            folders[path.rpartition(b"/")[0]].append((name, mode, oid))
        root = b""
        for here in sorted(folders, key=lambda p: (p.count(b"/") + (p != b""), p), reverse=True):
            content = folders[here]
            content.sort(key=lambda e: e[0] + b"/" if e[1] == FOLDER else e[0])
            data = b"".join(b"%o %s\0%s" % (mode, name, oid) for name, mode, oid in content)
            oid = hashlib.sha1(b"tree %d\0" % len(data) + data, usedforsecurity=False).digest()
            if self._oid(oid) not in self._repo:
                self._repo.write(pygit2.enums.ObjectType.TREE, data)
                scan.fresh.append(oid)
            if here:
                above, _, name = here.rpartition(b"/")
                folders[above].append((name, FOLDER, oid))
            else:
                root = oid
        return root

    def _write_commit(self, tree: bytes, parents: list[str], note: str, author: str, fresh: list[bytes]) -> str:
        """Write a commit, and return only when it and all it needs are on the disk."""
        import pygit2

        name = re.sub(r"[<>\0\n]", "", author).strip() or "crew"
        address = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-") or "crew"
        who = pygit2.Signature(name, f"{address}@crew.invalid", int(time.time()), 0)
        text = note.replace("\0", "").encode("utf-8", "replace").decode()
        parent_ids: list[pygit2.Oid | str] = [self._oid(p) for p in parents]
        made = self._repo.create_commit(None, who, who, text, self._oid(tree), parent_ids)
        self._settle([*fresh, made.raw])
        return str(made)

    def _settle(self, fresh: list[bytes]) -> None:
        """Bring new objects to the disk. Many at once are synced together: a sync each would take minutes."""
        objects = self.state / "shadow.git" / "objects"
        if len(fresh) > _FEW and sys.platform != "win32":
            os.sync()
            return
        parents = {objects}
        for oid in fresh[: _FEW if sys.platform == "win32" else None]:
            name = oid.hex()
            path = objects / name[:2] / name[2:]
            if path.exists():
                folders.sync_file(path)
                parents.add(path.parent)
        for folder in parents:
            folders.sync_folder(folder)

    # -- reading folders -------------------------------------------------------------------------------------------

    def _scan(
        self,
        root: Path,
        cache_file: Path,
        before: Mapping[bytes, Entry],
        tracked: Collection[bytes],
        on_progress: Progress | None,
    ) -> _Scan:
        """What a folder holds, as objects; files that have not changed since the cache was written are not read."""
        top = os.fsencode(root)
        scan = _Scan()
        found: list[Found] = []

        def problem(path: bytes, why: str) -> None:
            scan.problems.append(Problem(shown(path), why))
            scan.unseen.append((path, why))
            for old, entry in before.items():  # what we cannot see has not been deleted
                if why.startswith(("cannot", "the folder cannot")) and (
                    old == path or (path.endswith(b"/") and old.startswith(path))
                ):
                    scan.entries[old] = entry

        for one in walk(top, outer=self._outer(), skip=self._skip, problem=problem):
            found.append(one)
            if on_progress and len(found) % 1000 == 0:
                on_progress(len(found), 0)
        seen = {one.path for one in found}
        for one in folders.ignored_but_tracked(top, tracked, seen, self._skip):
            found.append(one)
            scan.tracked_only.add(one.path)
        cache = folders.read_cache(cache_file)
        scan.taken = time.time_ns()
        for done, one in enumerate(found, 1):
            mode = folders.mode_of(one.stat, before.get(one.path))
            old = cache.get(one.path)
            if old is not None and folders.unchanged(old, one.stat):
                scan.entries[one.path] = (mode, old.oid)
                scan.known.append(folders.knowing(one.path, mode, one.stat, old.oid))
            else:
                self._take(top, one, mode, before.get(one.path), scan)
            if on_progress and (done % 1000 == 0 or done == len(found)):
                on_progress(done, len(found))
        folders.write_cache(cache_file, scan.taken, scan.known)
        return scan

    def _take(self, top: bytes, one: Found, mode: int, before: Entry | None, scan: _Scan) -> None:
        """Read one file into an object."""
        path = os.path.join(top, one.path)
        try:
            if stat.S_ISLNK(one.stat.st_mode):
                data = os.readlink(path)
            elif one.stat.st_size > _MOST_BYTES:
                why = f"larger than {_MOST_BYTES // 1024 // 1024} MB"
                scan.problems.append(Problem(shown(one.path), why))
                scan.left.append(folders.knowing(one.path, mode, one.stat, b""))
                if before:
                    scan.entries[one.path] = before
                return
            elif one.stat.st_size > _STREAMED_BYTES:
                oid = self._repo.create_blob_fromdisk(os.fsdecode(path)).raw
                scan.fresh.append(oid)
                scan.entries[one.path] = (mode, oid)
                scan.known.append(folders.knowing(one.path, mode, one.stat, oid))
                return
            else:
                with open(path, "rb") as file:
                    data = file.read()
        except FileNotFoundError:
            scan.problems.append(Problem(shown(one.path), "it vanished while it was being read"))
            return
        except OSError as error:
            scan.problems.append(Problem(shown(one.path), f"cannot be read: {error.strerror or error}"))
            scan.left.append(folders.knowing(one.path, mode, one.stat, b""))
            if before:
                scan.entries[one.path] = before
            return
        oid = folders.blob_id(data)
        if before is not None and before[0] == LINK and before[1] == oid:
            mode = LINK  # where links cannot be made, a checkout writes their target as text
        if self._oid(oid) not in self._repo:
            self._repo.create_blob(data)
            scan.fresh.append(oid)
        scan.entries[one.path] = (mode, oid)
        if not stat.S_ISLNK(one.stat.st_mode) and len(data) != one.stat.st_size:
            return  # it is being written right now: read it again the next time
        scan.known.append(folders.knowing(one.path, mode, one.stat, oid))

    def _outer(self) -> tuple[Rules, ...]:
        """Ignore rules from outside the workspace: the user's own, the repository's, and of the folders above."""
        return ignore.read(self._sources())

    def _sources(self) -> list[tuple[Path, bytes]]:
        """Files of ignore rules outside the workspace, weakest first, with the way from each's folder to it."""
        import pygit2

        found = pygit2.discover_repository(str(self.workspace))
        if found is None:
            return []
        git = Path(found)
        try:
            everywhere = os.path.expanduser(pygit2.Config.get_global_config()["core.excludesfile"] or "")
        except (KeyError, OSError, pygit2.GitError):
            everywhere = os.path.join(_config_home(), "git", "ignore")
        top = git.parent if git.name == ".git" else self.workspace
        if not self.workspace.is_relative_to(top):
            top = self.workspace
        way = os.fsencode(self.workspace.relative_to(top).as_posix()) + b"/" if top != self.workspace else b""
        folders = [
            p for p in (self.workspace, *self.workspace.parents) if p.is_relative_to(top) and p != self.workspace
        ]
        sources = [(Path(everywhere), way), (git / "info" / "exclude", way)]
        for folder in reversed(folders):
            down = os.fsencode(self.workspace.relative_to(folder).as_posix()) + b"/"
            sources.append((folder / ".gitignore", down))
        return sources

    def _read_from(self) -> list[Path]:
        """What outside the workspace's own files decides about a snapshot: git's folder, its index, its settings."""
        import pygit2

        paths = [folder / ".git" for folder in (self.workspace, *self.workspace.parents)]
        paths += [Path(os.path.expanduser("~/.gitconfig")), Path(_config_home(), "git", "config")]
        found = pygit2.discover_repository(str(self.workspace))
        if found is not None:
            paths += [Path(found, "index"), Path(found, "config")]
        return paths + [path for path, _ in self._sources()]

    def _tracked(self) -> Collection[bytes]:
        """Paths that the user's own git tracks; it takes them even where they match an ignore rule."""
        import pygit2

        found = pygit2.discover_repository(str(self.workspace))
        if found is None:
            return ()
        try:
            repo = pygit2.Repository(found)
            if not repo.workdir:
                return ()
            way = os.path.relpath(self.workspace, os.path.realpath(repo.workdir)).replace(os.sep, "/")
            if way.startswith(".."):
                return ()
            prefix = b"" if way == "." else os.fsencode(way) + b"/"
            paths = [os.fsencode(e.path) for e in repo.index if e.mode != pygit2.enums.FileMode.COMMIT]
        except (pygit2.GitError, OSError, UnicodeError):
            return ()  # a damaged index is the user's business; the files are still here
        return {p[len(prefix) :] for p in paths if p.startswith(prefix)}

    # -- writing folders -------------------------------------------------------------------------------------------

    def _private(self, name: str) -> Path:
        return self.state / "shadow.git" / "worktrees" / name

    def _link_git(self, root: Path, private: Path, commit: str) -> None:
        """Make the folder a work tree of the shadow repository in git's own eyes, with an index of that commit."""
        import pygit2

        way = os.path.relpath(private, root).replace(os.sep, "/")
        (root / ".git").write_text(f"gitdir: {way}\n")
        (private / "HEAD").write_text(f"{commit}\n")
        (private / "commondir").write_text("../..\n")
        (private / "gitdir").write_text(f"{(root / '.git').as_posix()}\n")
        (private / "index").unlink(missing_ok=True)
        index = pygit2.Index(str(private / "index"))
        index.read_tree(self._commit(commit).tree)
        index.write()

    def _write_plain(self, top: bytes, path: bytes, mode: int, oid: bytes) -> os.stat_result:
        """Write one file of a task tree; not synced, a checkout is done again after a crash."""
        full = os.path.join(top, path)
        folder = os.path.dirname(full)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
        data = self._blob(oid)
        if mode == LINK and folders.make_link(data, full):
            return os.lstat(full)
        with open(full, "wb") as file:
            file.write(data)
        if sys.platform != "win32":
            umask_free = 0o755 if mode == PROGRAM else 0o644
            os.chmod(full, umask_free)
        return os.lstat(full)

    def _deliver_one(self, path: bytes, old: Entry | None, new: Entry | None) -> str:
        """One file into the user's folder: "written", "same", or why it was left alone."""
        top = os.fsencode(self.workspace)
        full = os.path.join(top, path)
        crossed = folders.crosses(top, path)
        if crossed is not None:
            return "same" if new is None else _crossing(crossed)
        there = self._look(full, old or new)
        if there == new:
            return "same"
        if there != old:
            if there is None:
                return "you have deleted it"
            return "you have changed it" if old is not None else "you have made a file of that name"
        if new is None:
            os.unlink(full)
            folders.sync_folder(Path(os.fsdecode(os.path.dirname(full))))
            folders.remove_empty(top, os.path.dirname(path))
            return "written"
        self._write_durably(full, new)
        return "written"

    def _look(self, full: bytes, like: Entry | None) -> Entry | None:
        """What lies there now, as an entry; None for nothing. A folder is an entry that equals no other."""
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(found.st_mode):
            return (LINK, folders.blob_id(os.readlink(full)))
        if not stat.S_ISREG(found.st_mode):
            return (FOLDER, b"")
        with open(full, "rb") as file:
            oid = folders.blob_id(file.read())
        if like is not None and like[0] == LINK and sys.platform == "win32" and like[1] == oid:
            return like
        return (folders.mode_of(found, like), oid)

    def _write_durably(self, full: bytes, new: Entry) -> None:
        mode, oid = new
        folder = os.path.dirname(full)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
        short = hashlib.sha1(os.path.basename(full), usedforsecurity=False).hexdigest()[:12].encode()
        temporary = os.path.join(folder, b"." + short + TEMPORARY)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of a delivery that did not end
        data = self._blob(oid)
        if not (mode == LINK and folders.make_link(data, temporary)):
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            folders.dress(temporary, full, program=mode == PROGRAM)
        folders.replace(temporary, full)
        folders.sync_folder(Path(os.fsdecode(folder)))

    def _merge_entries(self, base: Entries, ours: Entries, theirs: Entries) -> Entries | Conflict:
        """Three-way, path by path; a file that both changed is merged line by line by libgit2."""
        merged = dict(ours)
        fights: set[bytes] = set()
        touched: list[bytes] = []
        for path in _differing(base, theirs):
            o, a, b = base.get(path), ours.get(path), theirs.get(path)
            if a == b:
                continue
            if a == o:
                touched.append(path)
                if b is None:
                    del merged[path]
                else:
                    merged[path] = b
                continue
            together = self._merge_file(o, a, b) if o and a and b else None
            if together is None:
                fights.add(path)
            else:
                merged[path] = together
        fights.update(_file_and_folder(merged, touched))
        return Conflict(tuple(shown(p) for p in sorted(fights))) if fights else merged

    def _merge_file(self, base: Entry, ours: Entry, theirs: Entry) -> Entry | None:
        import pygit2

        if any(mode == LINK for mode, _ in (base, ours, theirs)):
            return None
        mode = theirs[0] if ours[0] == base[0] else ours[0]
        o, a, b = (
            self._repo.write(pygit2.enums.ObjectType.TREE, b"100644 file\0" + oid) for _, oid in (base, ours, theirs)
        )
        found = self._repo.merge_trees(o, a, b)
        if found.conflicts is not None:
            return None
        oid = found["file"].id.raw
        folders.sync_file(self.state / "shadow.git" / "objects" / oid.hex()[:2] / oid.hex()[2:], missing_ok=True)
        return (mode, oid)


def locks(state: Path) -> tuple[Lock, Lock]:
    """Whoever works on trees holds the first, and the process that writes them the second, always in that order.

    They are two because those are two processes: where the one dies, the other's lock still keeps everybody out.
    """
    return Lock(state / "trees.lock"), Lock(state / "shadow.lock")


@contextmanager
def _hold_both(first: Lock, second: Lock) -> Iterator[None]:
    with first.hold(LONGEST_WAIT), second.hold(LONGEST_WAIT):
        yield


def left_out(workspace: Path, state: Path, skip: Collection[str]) -> frozenset[bytes]:
    """Names at the top of the workspace that are nobody's work, the state folder among them if it is there."""
    names = {os.fsencode(name) for name in skip}
    if state.parent == workspace:
        names.add(os.fsencode(state.name))
    return frozenset(names)


def _config_home() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")


def _unseen(_path: bytes, _why: str) -> None:
    """What cannot be looked at is named by the snapshot."""


def shown(path: bytes) -> str:
    """A path as text that can be printed, stored and sent; bytes that are not UTF-8 are escaped."""
    return path.decode("utf-8", "backslashreplace")


# -- pure helpers ------------------------------------------------------------------------------------------------------


def _parse_tree(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        end = data.index(b"\0", space)
        yield int(data[at:space], 8), data[space + 1 : end], data[end + 1 : end + 21]
        at = end + 21


def _differing(a: Mapping[bytes, Entry], b: Mapping[bytes, Entry]) -> set[bytes]:
    return {path for path, _ in a.items() ^ b.items()}


def _file_and_folder(entries: Entries, touched: list[bytes]) -> set[bytes]:
    """Paths of which one side wants a file and the other a folder."""
    if not touched:
        return set()
    folders = set()
    for path in entries:
        here = path.rpartition(b"/")[0]
        while here and here not in folders:
            folders.add(here)
            here = here.rpartition(b"/")[0]
    return {path for path in folders if path in entries}


def tree_of(state: Path, task: str) -> Path:
    """Where the task's folder is, or would be."""
    return state / "trees" / _folder_name(task)


def _folder_name(task: str) -> str:
    """A name for the task's folder that every file system takes; ids that already are one stay as they are."""
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", task) and not re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", task):
        return task
    slug = re.sub(r"[^a-z0-9_-]+", "-", task.lower()).strip("-")[:40]
    return f"{slug or 'task'}-{hashlib.sha1(task.encode('utf-8', 'replace'), usedforsecurity=False).hexdigest()[:10]}"


def _crossing(what: str) -> str:
    if what == "link":
        return "a folder on the way to it is a symbolic link of yours"
    return "there is a file of yours where its folder would be"
