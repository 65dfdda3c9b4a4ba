"""The supervisor's hands on documents and the work branch: snapshots, delivery, what the end depends on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from docs_store.mailbox import Mailbox
from docs_store.messages import Draft, Outcome
from docs_store.topology import DEFAULT
from supervisor.bootstrap import init
from supervisor.documents import Documents, approved, unapproved
from supervisor.workspace import Workspace


class Desk:
    """A workspace with one file, and the crew's side of it played by the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "a.txt").write_text("one\ntwo\nthree\n", newline="\n")
        init(root)
        self.workspace = Workspace(root)
        self.documents = Documents.open(self.workspace, DEFAULT)
        self.documents.start()
        self.documents.snapshot("start")
        self.store = self.documents.store
        for n, phase in enumerate(("developer", "qa"), 1):
            self.store.start_epoch(phase, n, died=False)

    def made(self, text: str, file: str = "a.txt") -> str:
        """Developer changes a file on the work branch and reports it."""
        head = self.store.refresh().tree
        assert head is not None
        trees = self.documents.trees
        tree = trees.checkout("developer", head)
        (tree / file).write_text(text, newline="\n")
        commit = trees.commit(tree, f"change {file}", "Developer")
        assert commit is not None
        merged = trees.merge(head, commit)
        trees.set_head(merged.head)  # type: ignore[union-attr]
        self.cycle("developer", 1, Outcome(result="done", detail="made", tree=merged.head, data={"commit": commit}))  # type: ignore[union-attr]
        return commit

    def approves(self, *commits: str) -> None:
        outcome = Outcome(result="done", detail="judged", data={"approved": True, "commits": list(commits)})
        self.cycle("qa", 2, outcome)

    def cycle(self, phase: str, epoch: int, outcome: Outcome) -> None:
        self.store.post("user", Draft(to=phase, kind="Review", text="it"))
        mailbox = Mailbox(self.store, phase, epoch)
        task = mailbox.claim()
        assert task is not None
        mailbox.finish(task, outcome)

    def read(self, file: str = "a.txt") -> str:
        return (self.root / file).read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.documents.close()


def test_nothing_is_delivered_before_qa_approved_it(desk: Desk) -> None:
    """The user's files change only by what QA approved."""
    commit = desk.made("one\n2\nthree\n")
    assert desk.documents.deliver() == ()
    assert desk.read() == "one\ntwo\nthree\n"
    assert unapproved(desk.store.state) == (commit,)
    desk.approves(commit)
    (delivered,) = desk.documents.deliver()
    assert delivered.written == ("a.txt",)
    assert desk.read() == "one\n2\nthree\n"
    assert unapproved(desk.store.state) == ()


def test_only_what_was_approved_is_delivered(desk: Desk) -> None:
    """A later change of another file on the same branch stays out until it is approved too."""
    first = desk.made("one\n2\nthree\n")
    second = desk.made("new\n", "b.txt")
    desk.approves(second)
    desk.documents.deliver()
    assert desk.read("b.txt") == "new\n"
    assert desk.read() == "one\ntwo\nthree\n"
    desk.approves(first)
    desk.documents.deliver()
    assert desk.read() == "one\n2\nthree\n"


def test_a_change_of_the_users_is_never_written_over(desk: Desk) -> None:
    """A file that the user changed meanwhile stays as it is, and the change waits in the inbox."""
    commit = desk.made("one\n2\nthree\n")
    (desk.root / "a.txt").write_text("one\nmine\nthree\n", newline="\n")
    desk.approves(commit)
    (delivered,) = desk.documents.deliver()
    assert delivered.written == ()
    assert delivered.conflicts
    assert desk.read() == "one\nmine\nthree\n"
    (question,) = desk.store.refresh().questions.values()
    assert "a.txt" in question.text


def test_a_delivery_that_died_before_its_record_is_finished_by_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files written, supervisor killed: the next one finds them the same, and records the delivery once."""
    commit = desk.made("one\n2\nthree\n")
    desk.approves(commit)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.store, "record_delivery", killed)
    with pytest.raises(KeyboardInterrupt):
        desk.documents.deliver()
    assert desk.read() == "one\n2\nthree\n"
    again = Documents.open(desk.workspace, DEFAULT)
    again.snapshot("at the start")
    assert [one.commit for one in again.deliver()] == [commit]
    assert again.deliver() == ()
    assert len(again.store.refresh().deliveries) == 1
    assert desk.read() == "one\n2\nthree\n"


def test_what_the_user_changes_flows_into_the_work_branch(desk: Desk) -> None:
    """A new snapshot is merged with what the crew has done and not delivered yet."""
    desk.made("new\n", "b.txt")
    (desk.root / "c.txt").write_bytes(b"mine\n")
    taken = desk.documents.snapshot("your files changed")
    assert taken is not None
    head = desk.store.refresh().tree
    assert head is not None
    assert desk.documents.trees.read(head, "b.txt") == b"new\n"
    assert desk.documents.trees.read(head, "c.txt") == b"mine\n"
    assert desk.documents.snapshot("again") is None


def test_where_user_and_crew_changed_the_same_lines_the_user_wins_and_planning_hears_of_it(desk: Desk) -> None:
    """The branch starts anew from the user's files; what is left behind is an alert."""
    desk.made("one\n2\nthree\n")
    (desk.root / "a.txt").write_text("one\nmine\nthree\n", newline="\n")
    desk.documents.snapshot("your files changed")
    state = desk.store.refresh()
    assert state.tree == state.snapshot
    assert [m.kind for m in state.messages.values() if m.by == "supervisor"] == ["Alert"]


def test_the_end_waits_for_claims_of_the_living_only(desk: Desk) -> None:
    """A claim of a dead epoch does not hold the end; one of a live worker does."""
    desk.store.post("user", Draft(to="qa", kind="Review", text="it"))
    task = Mailbox(desk.store, "qa", 2).claim()
    assert task is not None
    desk.documents.look()
    assert desk.documents.end_facts({"qa": 2}).claimed == (task.id,)
    assert desk.documents.end_facts({"qa": 3}).claimed == ()


def test_a_document_that_cannot_be_brought_up_to_date_is_said_to_lag(desk: Desk) -> None:
    """The post is on record all the same; once the way is free the file follows, and is not dirty any more."""
    file = desk.workspace.crew / "QA_READ.md"
    file.unlink()
    file.mkdir()
    desk.store.post("user", Draft(to="qa", kind="Review", text="it"))
    assert desk.documents.look().dirty == (file.name,)
    file.rmdir()
    desk.documents.look()
    assert desk.documents.look().dirty == ()
    assert "it" in file.read_text("utf-8")


def test_a_run_asks_for_an_assessment_once(desk: Desk) -> None:
    """The same run's assessment is one message per phase, however often it is asked for."""
    desk.documents.assess("r1", "Look.")
    n = desk.store.refresh().n
    desk.documents.assess("r1", "Look.")
    assert desk.store.refresh().n == n


def test_a_late_report_approves_nothing(desk: Desk) -> None:
    """What QA said about a round that is over does not deliver anything."""
    desk.approves(desk.made("one\n2\nthree\n"))
    report = desk.store.refresh().reports[-1]
    assert approved(report)
    assert approved(replace(report, late=True)) == ()


def test_looking_at_files_that_have_not_changed_needs_no_process(desk: Desk) -> None:
    """The crew's owner looks every ten seconds; git is started when there is something to take."""
    deadline = time.monotonic() + 15
    while True:
        desk.documents.trees.close()
        assert desk.documents.snapshot("your files changed") is None
        if desk.documents.trees.pid is None:  # files that are very young are read again
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (desk.root / "a.txt").write_text("edited\n")
    taken = desk.documents.snapshot("your files changed")
    assert taken is not None
    assert taken.changed == 1
    assert desk.documents.trees.pid is not None
