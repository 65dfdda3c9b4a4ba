"""Whether the user's files are as the last snapshot left them: never yes when a snapshot would find something."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest

from actors import glance
from actors.trees import Trees

posix = pytest.mark.only_on("posix", reason="modes and links as POSIX has them")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    folder = tmp_path / "work"
    (folder / "app").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "app" / "b.txt").write_text("two")
    (folder / "noise.log").write_text("x")
    (folder / ".gitignore").write_text("*.log\n")
    return folder


@pytest.fixture
def trees(work: Path) -> Trees:
    return Trees.open(work, work / ".supervisor")


def settled(trees: Trees) -> str:
    """A snapshot of files that have been left alone for so long that their times can be trusted."""
    for path in trees.workspace.rglob("*"):
        if path.is_file() and not path.is_symlink() and ".supervisor" not in path.parts and ".git" not in path.parts:
            os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    deadline = time.monotonic() + 15
    while True:
        commit = trees.snapshot("now").commit
        if trees.unchanged_since() == commit:
            return commit
        assert time.monotonic() < deadline, "no snapshot is ever trusted"
        time.sleep(0.02)


def test_untouched_files_are_the_last_snapshot(trees: Trees, work: Path) -> None:
    """It says which commit they are; what is ignored may change."""
    assert trees.unchanged_since() is None
    commit = settled(trees)
    (work / "noise.log").write_text("y")
    (work / "more.log").write_text("y")
    assert trees.unchanged_since() == commit


def rewrite(work: Path) -> None:
    (work / "a.txt").write_text("eno")
    os.utime(work / "a.txt", ns=(10**18 + 10**6, 10**18 + 10**6))  # systems that count in 100 ns see it too


def configure(work: Path) -> None:
    (work.parent / "home").mkdir()
    (work.parent / "home" / ".gitconfig").write_text("[core]\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file of the same size": rewrite,
    "a new file": lambda work: (work / "app" / "new.txt").write_text("x"),
    "a deleted file": lambda work: (work / "a.txt").unlink(),
    "a moved file": lambda work: (work / "a.txt").rename(work / "c.txt"),
    "a rule": lambda work: (work / ".gitignore").write_text("*.txt\n"),
    "a rule of a folder": lambda work: (work / "app" / ".gitignore").write_text("*.txt\n"),
    "a repository": lambda work: pygit2.init_repository(str(work)),
    "a repository further down": lambda work: pygit2.init_repository(str(work / "app")),
    "settings": configure,
    "no repository of ours": lambda work: (work / ".supervisor" / "shadow.git" / "crew-workspace.left").unlink(),
    "rubbish": lambda work: (work / ".supervisor" / "shadow.git" / "crew-workspace.left").write_bytes(b"x"),
    "another snapshot's cache": lambda work: (work / ".supervisor" / "shadow.git" / "crew-workspace.stat").unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_is_left_to_a_snapshot(trees: Trees, work: Path, what: str) -> None:
    """Files, rules, repositories, settings, and what a glance goes by itself."""
    settled(trees)
    CHANGES[what](work)
    assert trees.unchanged_since() is None


def test_what_an_older_snapshot_left_is_not_believed(trees: Trees, work: Path) -> None:
    """A snapshot that was killed between its two files says nothing: its cache is not of that commit."""
    settled(trees)
    left = work / ".supervisor" / "shadow.git" / "crew-workspace.left"
    before = left.read_bytes()
    (work / "a.txt").write_text("changed")
    settled(trees)
    left.write_bytes(before)
    assert trees.unchanged_since() is None


def test_what_the_user_s_git_tracks_counts(trees: Trees, work: Path) -> None:
    """A file that is ignored and tracked is looked at; the index and its repository's rules are, too."""
    repo = pygit2.init_repository(str(work))
    repo.index.add("noise.log")
    repo.index.write()
    commit = settled(trees)
    assert "noise.log" in trees.files(commit)
    (work / "noise.log").write_text("changed")
    assert trees.unchanged_since() is None
    settled(trees)
    (work / "noise.log").unlink()
    assert trees.unchanged_since() is None
    commit = settled(trees)
    (work / "noise.log").write_text("there again")
    assert trees.unchanged_since() is None
    settled(trees)
    (work / ".git" / "info").mkdir(exist_ok=True)
    (work / ".git" / "info" / "exclude").write_text("a.txt\n")
    assert trees.unchanged_since() is None
    settled(trees)
    repo.index.remove("noise.log")
    repo.index.write()
    assert trees.unchanged_since() is None


@posix
def test_links_and_what_cannot_be_read_are_no_change(trees: Trees, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as they were, too, until they are not."""
    (work / "link").symlink_to("a.txt")
    os.mkfifo(work / "pipe")
    (work / "large.bin").write_bytes(b"x" * 2000)
    monkeypatch.setattr("actors.trees._MOST_BYTES", 1000)
    commit = settled(trees)
    (work / "link").unlink()
    (work / "link").symlink_to("app/b.txt")
    assert trees.unchanged_since() is None
    assert settled(trees) != commit
    (work / "pipe").unlink()
    assert trees.unchanged_since() is None
    settled(trees)
    (work / "large.bin").write_bytes(b"x" * 3000)
    assert trees.unchanged_since() is None
    settled(trees)
    (work / "a.txt").chmod(0o755)
    assert trees.unchanged_since() is None


def test_a_glance_needs_no_libgit2() -> None:
    """That is what it is for."""
    code = "import sys, actors.trees_process, actors.glance; print('pygit2' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert glance.VERSION == 1
