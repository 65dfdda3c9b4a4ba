import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import folders
from actors import trees as module
from actors.ignore import Found, walk
from actors.trees import Conflict, Merged, MissingCommitError, Trees

posix = pytest.mark.only_on("posix", reason="modes, links and odd names as POSIX has them")


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but git's link to the shadow repository."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".git"
    }


def write(folder: Path, content: dict[str, str | None]) -> None:
    for name, text in content.items():
        path = folder / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, newline="")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    write(
        folder,
        {
            "app/__init__.py": "",
            "app/core.py": "one\ntwo\nthree\nfour\nfive\nsix\n",
            "notes.txt": "windows\r\nlines\r\n",
            ".gitignore": "*.log\n",
            "noise.log": "x",
            "crew/QA_READ.md": "# QA_READ",
            ".supervisor/lock": "1",
        },
    )
    return folder


@pytest.fixture
def trees(work: Path) -> Trees:
    return Trees.open(work, work / ".supervisor")


def done(trees: Trees, start: str, content: dict[str, str | None], task: str = "t1") -> str:
    """A task that wrote `content` upon `start`: its commit."""
    tree = trees.checkout(task, start)
    write(tree, content)
    commit = trees.commit(tree, f"work of {task}", "Developer")
    assert commit is not None
    return commit


def merged(result: Merged | Conflict) -> str:
    assert isinstance(result, Merged), result
    return result.head


def test_a_snapshot_holds_the_users_work_and_nothing_else(trees: Trees) -> None:
    """Ignored files, the documents and the state folder stay out; a folder without git will do."""
    snap = trees.snapshot("start")
    assert trees.files(snap.commit) == (".gitignore", "app/__init__.py", "app/core.py", "notes.txt")
    assert (snap.files, snap.changed, snap.skipped) == (4, 4, ())
    assert trees.read(snap.commit, "notes.txt") == b"windows\r\nlines\r\n"


def test_generated_files_are_told_from_new_ones_and_caches(trees: Trees, work: Path) -> None:
    """Ignored are the files that a rule keeps out of snapshots: no new file, no byte code, nothing elsewhere."""
    write(
        work,
        {
            ".gitignore": "*.log\n/app/_version.py\n/app/built/\n",
            "app/_version.py": "version = 1\n",
            "app/built/deep/data.txt": "x",
            "app/new.py": "",
            "app/__pycache__/core.cpython-311.pyc": "x",
        },
    )
    assert trees.ignored(["app"]) == ("app/_version.py", "app/built/deep/data.txt")
    assert trees.ignored(["nowhere"]) == ()


def test_an_unchanged_folder_gives_the_same_snapshot(trees: Trees, work: Path) -> None:
    """Two snapshots of the same content are one commit; a change makes a new one upon it."""
    first = trees.snapshot("one").commit
    assert trees.snapshot("two").commit == first
    write(work, {"app/new.py": "x = 1\n"})
    second = trees.snapshot("three")
    assert second.changed == 1
    assert [c.commit for c in trees.log(second.commit)] == [second.commit, first]


def test_only_changed_files_are_read_again(trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the stat cache knows is not opened; one that changed is."""
    for path in work.rglob("*"):
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    monkeypatch.setattr(time, "time_ns", lambda: 4_000_000_000_000_000_000)  # nothing is racy from there
    trees.snapshot("one")
    write(work, {"app/core.py": "changed\n"})
    taken: list[bytes] = []
    plain = Trees._take

    def spy(self: Trees, top: bytes, one: Found, *rest: object) -> None:
        taken.append(one.path)
        plain(self, top, one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trees, "_take", spy)
    trees.snapshot("two")
    assert taken == [b"app/core.py"]


def test_a_change_in_the_same_instant_is_seen(trees: Trees, work: Path) -> None:
    """Same size, same times, other content right after a snapshot: still a change."""
    write(work, {"app/core.py": "aaaa\n"})
    before = (work / "app/core.py").stat()
    first = trees.snapshot("one").commit
    write(work, {"app/core.py": "bbbb\n"})
    os.utime(work / "app/core.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert trees.snapshot("two").commit != first


@posix
def test_links_modes_and_odd_names_are_kept(trees: Trees, work: Path) -> None:
    """A symbolic link, a program, and a name that is no text come out of a checkout as they went in."""
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("app/core.py")
    (work / "outside").symlink_to("/nowhere/at/all")
    odd = os.fsdecode(b"caf\xe9.txt")
    (work / odd).write_bytes(b"\xff\xfe")
    snap = trees.snapshot("odd")
    tree = trees.checkout("t", snap.commit)
    assert str((tree / "link").readlink()) == "app/core.py"
    assert str((tree / "outside").readlink()) == "/nowhere/at/all"
    assert (tree / "run.sh").stat().st_mode & 0o111 == 0o111
    assert (tree / odd).read_bytes() == b"\xff\xfe"
    assert trees.commit(tree, "nothing", "QA") is None
    assert "caf\\xe9.txt" in trees.files(snap.commit)


def test_an_unreadable_file_is_named_and_keeps_what_was_known(
    trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is reported, and does not look deleted."""
    trees.snapshot("one")
    write(work, {"app/core.py": "changed\n", "app/new.py": "x\n"})

    def refusing(path: bytes, mode: str) -> IO[bytes]:
        if path.endswith(b"core.py"):
            raise PermissionError(13, "Permission denied")
        return Path(os.fsdecode(path)).open("rb")

    monkeypatch.setattr(module, "open", refusing, raising=False)
    snap = trees.snapshot("two")
    assert [(p.path, p.why) for p in snap.skipped] == [("app/core.py", "cannot be read: Permission denied")]
    assert trees.read(snap.commit, "app/core.py") == b"one\ntwo\nthree\nfour\nfive\nsix\n"


def test_a_file_that_vanishes_while_reading_is_reported(
    trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that goes away between finding and reading is left out and named."""

    def vanishing(*args: object, **kwargs: object) -> object:
        found = list(walk(*args, **kwargs))  # type: ignore[arg-type]
        (work / "notes.txt").unlink()
        return iter(found)

    monkeypatch.setattr(module, "walk", vanishing)
    snap = trees.snapshot("one")
    assert [p.path for p in snap.skipped] == ["notes.txt"]
    assert "notes.txt" not in trees.files(snap.commit)


@posix
def test_what_is_no_file_is_reported(trees: Trees, work: Path) -> None:
    """A named pipe is skipped and said, never opened."""
    os.mkfifo(work / "pipe")
    assert [(p.path, p.why) for p in trees.snapshot("one").skipped] == [("pipe", "neither a file nor a link")]


@pytest.mark.skipif(not shutil.which("git"), reason="a user's git repository")
def test_the_users_git_is_read_and_never_touched(work: Path) -> None:
    """Tracked files count though ignored, nested repositories do not; not a byte of `.git` changes."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*args: str, cwd: Path = work) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=cwd, env=env, check=True)

    git("init", "-q")
    git("add", "-f", "noise.log", "app")
    git("commit", "-q", "-m", "x")
    (work / ".git/info/exclude").write_text("secret.txt\n")
    write(work, {"secret.txt": "s", "sub/a.py": "1"})
    git("init", "-q", cwd=work / "sub")
    before = {p: p.read_bytes() for p in (work / ".git").rglob("*") if p.is_file()}
    trees = Trees.open(work, work / ".supervisor")
    snap = trees.snapshot("one")
    tree = trees.checkout("t", snap.commit)
    write(tree, {"secret.txt": "made by a test", "app/core.py": "x\n", "crew/QA_READ.md": "mine"})
    commit = trees.commit(tree, "w", "Developer")
    assert commit is not None
    assert trees.changed_files(snap.commit, commit) == ("app/core.py",)
    assert trees.files(snap.commit) == (
        ".gitignore",
        "app/__init__.py",
        "app/core.py",
        "noise.log",
        "notes.txt",
    )
    assert [p.path for p in snap.skipped] == ["sub/"]
    trees.deliver(snap.commit, commit)
    assert {p: p.read_bytes() for p in (work / ".git").rglob("*") if p.is_file()} == before
    top = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=tree, env=env, check=True, capture_output=True)
    assert "shadow.git" in top.stdout.decode()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tree, env=env, check=True, capture_output=True)
    assert b"app/core.py" not in status.stdout


def test_a_checkout_keeps_nothing_of_an_earlier_attempt(trees: Trees) -> None:
    """Changed, new, ignored and deleted files of an attempt are all gone after the next checkout."""
    start = trees.snapshot("start").commit
    tree = trees.checkout("t1", start)
    clean = files(tree)
    write(tree, {"app/core.py": "broken", "junk/deep/x.py": "1", "noise.log": "x", "notes.txt": None})
    (tree / "app/__pycache__").mkdir()
    (tree / "app/__pycache__/x.pyc").write_bytes(b"x")
    assert trees.checkout("t1", start) == tree
    assert files(tree) == clean
    assert not (tree / "junk").exists()
    assert not (tree / "app/__pycache__").exists()


@posix
def test_a_checkout_replaces_folders_links_and_locked_things(trees: Trees, tmp_path: Path) -> None:
    """A file that became a folder or a link, a hard link, a folder without permissions: all put right."""
    start = trees.snapshot("start").commit
    tree = trees.checkout("t1", start)
    clean = files(tree)
    outside = tmp_path / "outside.txt"
    outside.write_text("windows\r\nlines\r\n", newline="")
    (tree / "notes.txt").unlink()
    (tree / "notes.txt").hardlink_to(outside)
    (tree / "app/core.py").unlink()
    (tree / "app/core.py").mkdir()
    shutil.rmtree(tree / "app")
    (tree / "app").symlink_to(tmp_path)
    (tree / "locked").mkdir()
    (tree / "locked/x").write_text("x")
    (tree / "locked").chmod(0)
    trees.checkout("t1", start)
    assert files(tree) == clean
    (tree / "notes.txt").write_text("new")
    assert outside.read_bytes() == b"windows\r\nlines\r\n"


def test_a_reused_tree_writes_only_what_differs(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking out the next commit in the same folder touches its changed files only."""
    start = trees.snapshot("start").commit
    second = done(trees, start, {"app/core.py": "new\n"})
    trees.checkout("qa", start)
    wrote: list[bytes] = []
    plain = Trees._write_plain

    def spy(self: Trees, top: bytes, path: bytes, mode: int, oid: bytes) -> os.stat_result:
        wrote.append(path)
        return plain(self, top, path, mode, oid)

    monkeypatch.setattr(Trees, "_write_plain", spy)
    trees.checkout("qa", second)
    assert wrote == [b"app/core.py"]


def test_a_commit_of_an_unfinished_checkout_is_refused(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose reset was cut short is not taken for somebody's work."""
    start = trees.snapshot("start").commit
    tree = trees.checkout("t1", start)

    def killed(*_: object) -> os.stat_result:
        raise KeyboardInterrupt

    (tree / "notes.txt").unlink()
    monkeypatch.setattr(Trees, "_write_plain", killed)
    with pytest.raises(KeyboardInterrupt):
        trees.checkout("t1", start)
    with pytest.raises(ValueError, match="checked out completely"):
        trees.commit(tree, "x", "Developer")


def test_nothing_done_is_no_commit_and_work_adds_up(trees: Trees) -> None:
    """An untouched tree gives None; two commits in one tree stand on each other."""
    start = trees.snapshot("start").commit
    tree = trees.checkout("t1", start)
    assert trees.commit(tree, "nothing", "Developer") is None
    first = done(trees, start, {"a.txt": "a"})
    write(trees.tree("t1"), {"b.txt": "b"})
    second = trees.commit(trees.tree("t1"), "more", "Developer")
    assert second is not None
    assert [c.commit for c in trees.log(second, since=start)] == [second, first]
    assert trees.log(second)[0].author == "Developer"
    assert trees.log(second)[0].files == ("b.txt",)


def test_a_commit_of_some_files_leaves_the_others_as_they_were(trees: Trees) -> None:
    """What a test run changed, made or removed beside them does not come along."""
    start = trees.snapshot("start").commit
    tree = trees.checkout("t1", start)
    write(tree, {"app/core.py": "new\n", "notes.txt": None, "droppings.txt": "x", "app/__init__.py": "x"})
    commit = trees.commit(tree, "work", "Developer", only=["app/core.py", "notes.txt"])
    assert commit is not None
    assert trees.changed_files(start, commit) == ("app/core.py", "notes.txt")
    assert trees.commit(tree, "rest", "Developer", only=["app/core.py"]) is None


def test_changes_in_different_places_merge(trees: Trees) -> None:
    """Two tasks in one file, lines apart, and one with a new file, go together on the branch."""
    start = trees.snapshot("start").commit
    one = done(trees, start, {"app/core.py": "ONE\ntwo\nthree\nfour\nfive\nsix\n"}, "t1")
    two = done(trees, start, {"app/core.py": "one\ntwo\nthree\nfour\nfive\nSIX\n", "new.py": "1\n"}, "t2")
    head = merged(trees.merge(start, one))
    assert head == one
    head = merged(trees.merge(head, two))
    assert trees.read(head, "app/core.py") == b"ONE\ntwo\nthree\nfour\nfive\nSIX\n"
    assert trees.read(head, "new.py") == b"1\n"
    assert merged(trees.merge(head, two)) == head
    trees.set_head(head)
    assert trees.head == head


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"app/core.py": "mine\n"}, {"app/core.py": "yours\n"}),
        ({"app/core.py": None}, {"app/core.py": "yours\n"}),
        ({"new.txt": "a"}, {"new.txt": "b"}),
        ({"app/core.py": "mine\n"}, {"app/core.py": None}),
    ],
)
def test_changes_in_the_same_place_are_a_conflict(
    trees: Trees, ours: dict[str, str | None], theirs: dict[str, str | None]
) -> None:
    """Both changed, one deleted what the other changed, both added: the path is named and nothing is made."""
    start = trees.snapshot("start").commit
    result = trees.merge(done(trees, start, ours, "t1"), done(trees, start, theirs, "t2"))
    assert result == Conflict((next(iter(ours)),))


def test_a_file_and_a_folder_of_one_name_are_a_conflict(trees: Trees) -> None:
    """One side makes `x`, the other `x/y`: no tree can hold both."""
    start = trees.snapshot("start").commit
    one = done(trees, start, {"x": "file"}, "t1")
    two = done(trees, start, {"x/y": "file"}, "t2")
    assert trees.merge(one, two) == Conflict(("x",))


def test_the_users_later_changes_flow_into_the_branch(trees: Trees, work: Path) -> None:
    """A new snapshot merges with what the crew did meanwhile, and what was delivered is no conflict."""
    start = trees.snapshot("start").commit
    head = done(trees, start, {"app/core.py": "ONE\ntwo\nthree\nfour\nfive\nsix\n"})
    assert trees.deliver(start, head).written == ("app/core.py",)
    write(work, {"app/core.py": "ONE\ntwo\nthree\nfour\nfive\nsix\nseven\n"})
    later = trees.snapshot("later").commit
    head = merged(trees.merge(head, later))
    assert trees.read(head, "app/core.py") == b"ONE\ntwo\nthree\nfour\nfive\nsix\nseven\n"


def test_a_delivery_writes_makes_and_deletes(trees: Trees, work: Path) -> None:
    """The user's files become the target's, untouched ones keep their times, empty folders go."""
    write(work, {"old/only.py": "x"})
    start = trees.snapshot("start").commit
    untouched = (work / "notes.txt").stat().st_mtime_ns
    head = done(trees, start, {"app/core.py": "new\n", "a/b/c.py": "1\n", "old/only.py": None})
    result = trees.deliver(start, head)
    assert result.written == ("old/only.py", "a/b/c.py", "app/core.py")
    assert result.conflicts == ()
    assert (work / "app/core.py").read_text() == "new\n"
    assert (work / "a/b/c.py").read_text() == "1\n"
    assert not (work / "old").exists()
    assert (work / "notes.txt").stat().st_mtime_ns == untouched
    assert trees.read(trees.snapshot("after").commit, "app/core.py") == b"new\n"


def test_a_delivery_never_goes_over_a_change_of_the_users(trees: Trees, work: Path) -> None:
    """Changed, deleted or newly made by the user: left exactly as it is, named, and the rest is delivered."""
    start = trees.snapshot("start").commit
    head = done(trees, start, {"app/core.py": "crew\n", "notes.txt": "crew\n", "new.py": "crew\n", "ok.py": "crew\n"})
    write(work, {"app/core.py": "user\n", "notes.txt": None, "new.py": "user\n"})
    result = trees.deliver(start, head)
    assert result.written == ("ok.py",)
    assert {p.path: p.why for p in result.conflicts} == {
        "app/core.py": "you have changed it",
        "new.py": "you have made a file of that name",
        "notes.txt": "you have deleted it",
    }
    assert (work / "app/core.py").read_text() == "user\n"
    assert (work / "new.py").read_text() == "user\n"
    assert not (work / "notes.txt").exists()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_delivery_cut_short_is_finished_by_the_next(
    trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Killed before or after any rename, the second run writes the rest and finds the first part the same."""
    start = trees.snapshot("start").commit
    head = done(trees, start, {"app/core.py": "1\n", "b.py": "2\n", "c.py": "3\n"})
    calls = 0
    plain = folders.replace

    def killed(source: bytes, target: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        plain(source, target)

    monkeypatch.setattr(folders, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        trees.deliver(start, head)
    monkeypatch.setattr(folders, "replace", plain)
    assert len(trees.snapshot("meanwhile").skipped) == 0
    result = trees.deliver(start, head)
    assert (len(result.same), len(result.written)) == (stop - 1, 4 - stop)
    assert {name: (work / name).read_text() for name in ("app/core.py", "b.py", "c.py")} == {
        "app/core.py": "1\n",
        "b.py": "2\n",
        "c.py": "3\n",
    }
    assert not list(work.rglob("*.crew-tmp"))


@posix
def test_a_delivery_keeps_permissions_and_stops_at_links(trees: Trees, work: Path, tmp_path: Path) -> None:
    """A private file stays private; a folder that the user made a link leads nowhere."""
    (work / "app/core.py").chmod(0o600)
    start = trees.snapshot("start").commit
    head = done(trees, start, {"app/core.py": "new\n"})
    trees.deliver(start, head)
    assert (work / "app/core.py").stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    later = done(trees, head, {"lib/x.py": "1\n"}, "t2")
    (work / "lib").symlink_to(elsewhere)
    result = trees.deliver(head, later)
    assert [p.why for p in result.conflicts] == ["a folder on the way to it is a symbolic link of yours"]
    assert list(elsewhere.iterdir()) == []


def test_a_write_that_the_system_refuses_is_a_conflict_and_the_rest_goes_on(
    trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a locked file concerns that file; it is named with the system's words."""
    start = trees.snapshot("start").commit
    head = done(trees, start, {"a.py": "1\n", "b.py": "2\n"})
    plain = folders.replace

    def refusing(source: bytes, target: bytes) -> None:
        if target.endswith(b"a.py"):
            raise OSError(28, "No space left on device")
        plain(source, target)

    monkeypatch.setattr(folders, "replace", refusing)
    result = trees.deliver(start, head)
    assert result.written == ("b.py",)
    assert result.conflicts[0].why == "could not be written: No space left on device"


def test_one_task_of_several_can_be_delivered_and_taken_back(trees: Trees, work: Path) -> None:
    """cherry_pick brings one task alone upon the user's files; revert takes it out again."""
    start = trees.snapshot("start").commit
    one = done(trees, start, {"app/core.py": "ONE\ntwo\nthree\nfour\nfive\nsix\n"}, "t1")
    two = done(trees, one, {"app/core.py": "ONE\ntwo\nthree\nfour\nfive\nSIX\n"}, "t2")
    alone = merged(trees.cherry_pick(start, two))
    assert trees.read(alone, "app/core.py") == b"one\ntwo\nthree\nfour\nfive\nSIX\n"
    trees.deliver(start, alone)
    undone = merged(trees.revert(alone, two))
    assert trees.deliver(alone, undone).written == ("app/core.py",)
    assert (work / "app/core.py").read_text() == "one\ntwo\nthree\nfour\nfive\nsix\n"
    assert trees.log(undone)[0].note.startswith("Undo: work of t2")
    both = merged(trees.cherry_pick(start, two, base=start))
    assert trees.read(both, "app/core.py") == trees.read(two, "app/core.py")


def test_differences_are_shown_whatever_the_bytes(trees: Trees, work: Path) -> None:
    """A unified diff is text even where the files are not UTF-8, and can be cut."""
    (work / "latin.py").write_bytes(b"# caf\xe9\n")
    start = trees.snapshot("start").commit
    tree = trees.checkout("t", start)
    (tree / "latin.py").write_bytes(b"# th\xe9\n")
    commit = trees.commit(tree, "x", "Developer")
    assert commit is not None
    assert "-# caf\ufffd\n+# th\ufffd\n" in trees.diff(start, commit)
    assert trees.diff(start, commit, most_bytes=10).endswith("longer)\n")


def test_trees_are_dropped_and_pruned(trees: Trees) -> None:
    """A dropped tree's folder is gone, its commits stay; pruning keeps the named ones."""
    start = trees.snapshot("start").commit
    commit = done(trees, start, {"a": "1"}, "t1")
    trees.checkout("Weird/Task:2", start)
    trees.checkout("keep", start)
    trees.drop("t1")
    assert not trees.tree("t1").exists()
    assert trees.exists(commit)
    assert trees.prune(["keep"]) == (trees.tree("Weird/Task:2").name,)
    assert trees.tree("keep").exists()


def test_packing_loses_nothing(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    """After gc every commit is still there, and the loose objects are one pack."""
    start = trees.snapshot("start").commit
    commit = done(trees, start, {"a": "1"})
    assert trees.gc() == 0
    monkeypatch.setattr(module, "_MANY_LOOSE", 1)
    assert trees.gc() > 5
    again = Trees.open(trees.workspace, trees.state)
    assert again.read(commit, "a") == b"1"
    assert again.changed_files(start, commit) == ("a",)


def test_a_commit_that_is_not_there_is_named(trees: Trees) -> None:
    """An unknown id is an error that says where it was looked for."""
    with pytest.raises(MissingCommitError, match=r"shadow\.git"):
        trees.diff("0" * 40, "1" * 40)
    assert not trees.exists("nonsense")


def test_progress_ends_at_the_total(trees: Trees) -> None:
    """The last call says that all files are done."""
    calls: list[tuple[int, int]] = []
    trees.snapshot("x", on_progress=lambda d, t: calls.append((d, t)))
    assert calls[-1] == (4, 4)


_NAMES = st.sampled_from(["a", "b", "d/x", "d/y", "d/e/z"])
_CONTENT = st.dictionaries(_NAMES, st.sampled_from(["1\n", "2\n", "3\n2\n1\n"]), max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=_CONTENT, crew=_CONTENT, user=_CONTENT)
def test_a_delivery_loses_no_content_of_the_user(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, str], crew: dict[str, str], user: dict[str, str]
) -> None:
    """Whatever three states: a file is the crew's only where the user's was the base's; and twice is as once."""
    work = tmp_path_factory.mktemp("w")
    write(work, dict(base))
    trees = Trees.open(work, work / ".supervisor")
    start = trees.snapshot("start").commit
    tree = trees.checkout("t", start)
    for name in base:
        (tree / name).unlink()
    write(tree, dict(crew))
    target = trees.commit(tree, "x", "Developer") or start
    for name in base:
        (work / name).unlink()
    write(work, dict(user))

    def now() -> dict[str, str]:
        return {n: (work / n).read_text() for n in ("a", "b", "d/x", "d/y", "d/e/z") if (work / n).exists()}

    trees.deliver(start, target)
    expected = {}
    for name in {*base, *crew, *user}:
        text = crew.get(name) if user.get(name) == base.get(name) else user.get(name)
        if text is not None:
            expected[name] = text
    assert now() == expected
    assert trees.deliver(start, target).written == ()
    assert now() == expected
