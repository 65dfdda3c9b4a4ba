"""The one write of a cycle that changed the work branch: record and branch agree, whoever dies in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.finishing import Overtaken, finish, settle
from actors.trees import Trees
from actors.trees_process import TreesProcess
from docs_store.mailbox import Mailbox
from docs_store.messages import Draft, Outcome, Status, Task
from docs_store.store import FinishResult, Store


class Bench:
    """A workspace with one file, a store, and a developer with a task."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "a.txt").write_text("one\ntwo\nthree\n", newline="\n")
        self.trees = Trees.open(root, root / ".supervisor")
        self.store = Store.open(root / "crew")
        base = self.trees.snapshot("start").commit
        self.trees.set_head(base)
        self.store.record_tree(head=base, snapshot=base)
        self.store.start_epoch("developer", 1, died=False)
        self.mailbox = Mailbox(self.store, "developer", 1)

    def task(self, text: str = "change it") -> Task:
        self.store.post("user", Draft(to="developer", kind="Fix", text=text))
        task = self.mailbox.claim()
        assert task is not None
        return task

    def change(self, name: str, text: str, base: str | None = None, file: str = "a.txt") -> str:
        tree = self.trees.checkout(name, base or self.head)
        (tree / file).write_text(text, newline="\n")
        commit = self.trees.commit(tree, name, "Developer")
        assert commit is not None
        return commit

    @property
    def head(self) -> str:
        head = self.store.refresh().tree
        assert head is not None
        return head

    def finish(self, task: Task, commit: str) -> FinishResult | Overtaken:
        outcome = Outcome(result="done", detail="changed", data={"commit": commit})
        return finish(self.mailbox, task, outcome, self.trees)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_record_names_the_branch_and_the_branch_follows(bench: Bench) -> None:
    """After a finish with a commit, history and ref name the same head."""
    commit = bench.change("first", "one\n2\nthree\n")
    assert isinstance(bench.finish(bench.task(), commit), FinishResult)
    assert bench.head == bench.trees.head == commit


def test_two_changes_of_different_lines_go_together(bench: Bench) -> None:
    """What others changed meanwhile is kept: the head holds both."""
    base = bench.head
    first = bench.change("first", "one\n2\nthree\n", base)
    second = bench.change("second", "new\n", base, file="b.txt")
    bench.finish(bench.task("one"), first)
    bench.finish(bench.task("two"), second)
    assert bench.trees.read(bench.head, "a.txt") == b"one\n2\nthree\n"
    assert bench.trees.read(bench.head, "b.txt") == b"new\n"


def test_a_change_of_the_same_lines_is_overtaken_and_nothing_is_written(bench: Bench) -> None:
    """Who comes second with the same lines writes no record: the cycle starts over on the new base."""
    base = bench.head
    first = bench.change("first", "one\n2\nthree\n", base)
    second = bench.change("second", "one\nzwei\nthree\n", base)
    bench.finish(bench.task("one"), first)
    task = bench.task("two")
    n = bench.store.refresh().n
    assert bench.finish(task, second) == Overtaken(("a.txt",))
    assert bench.store.refresh().n == n
    assert bench.store.state.messages[task.id].status is Status.CLAIMED
    assert bench.head == first


def test_a_death_between_record_and_branch_is_put_right_by_the_next(bench: Bench) -> None:
    """The history is the truth: the next one to hold the lock moves the ref to where the record says."""
    commit = bench.change("first", "one\n2\nthree\n")
    task = bench.task()
    bench.mailbox.finish(task, Outcome(result="done", detail="made", tree=commit, data={"commit": commit}))
    assert bench.trees.head != commit  # killed before set_head
    assert settle(bench.trees, bench.head) == commit
    assert bench.trees.head == commit


def test_without_a_commit_no_tree_is_opened(bench: Bench) -> None:
    """A cycle that changed nothing does not wait for the work branch."""
    trees = TreesProcess(bench.root, bench.root / ".supervisor")
    done = finish(bench.mailbox, bench.task(), Outcome(result="done", detail="looked"), trees)
    assert isinstance(done, FinishResult)
    assert trees.pid is None
