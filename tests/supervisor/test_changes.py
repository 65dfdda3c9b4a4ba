"""Seeing what the crew changed, and taking it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.trees import Merged, Trees
from docs_store.messages import SUPERVISOR, Draft, Outcome
from docs_store.store import Store
from supervisor.changes import CrewChange, UndoConflictError, chosen, diff, listed, take_back
from supervisor.exits import UsageError
from supervisor.workspace import Workspace

BEFORE = "one\ntwo\nthree\n"
AFTER = "one\nTWO\nthree\n"


class Project:
    """A workspace in which Debugging changed a.py and added b.py, and had that delivered, as the supervisor does it."""

    def __init__(self, root: Path) -> None:
        (root / "a.py").write_text(BEFORE)
        self.place = Workspace(root)
        self.place.make_folders()
        self.store = Store.open(self.place.crew, head_file=self.place.head)
        self.trees = Trees.open(root, self.place.state)
        self.base = self.trees.snapshot("start").commit
        self.task = self.store.post(SUPERVISOR, Draft(to="debugging", kind="Fix", text="two is shy")).id
        self.store.start_epoch("debugging", 1, died=False)
        claimed = self.store.claim("debugging", 1)
        assert claimed is not None
        tree = self.trees.checkout("t1", self.base)
        (tree / "a.py").write_text(AFTER)
        (tree / "b.py").write_text("new\n")
        commit = self.trees.commit(tree, "Make two loud", "Debugging")
        assert commit is not None
        self.commit = commit
        outcome = Outcome(result="done", detail="two is loud", tree=commit, data={"commit": commit})
        self.store.finish("debugging", 1, claimed, outcome)

    def deliver(self) -> None:
        done = self.trees.deliver(self.base, self.commit)
        self.store.record_delivery(
            {"commit": self.commit, "task": self.task, "note": "", "written": list(done.written), "conflicts": []}
        )

    def file(self, name: str) -> Path:
        return self.place.root / name


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_change_is_made_then_delivered_then_taken_back(project: Project) -> None:
    """Its state says where it is, and its files which of the user's were written."""
    (made,) = listed(project.store.state)
    assert (made.task, made.phase, made.state, made.note) == (project.task, "debugging", "made", "two is loud")
    project.deliver()
    (delivered,) = listed(project.store.state)
    assert (delivered.state, set(delivered.files)) == ("delivered", {"a.py", "b.py"})
    take_back(project.place, project.store, project.task)
    (undone,) = listed(project.store.state)
    assert undone.state == "taken back"


def test_undo_restores_the_users_files_and_is_on_record(project: Project) -> None:
    """What was changed is as before, what was added is gone, and the history says who did it."""
    project.deliver()
    done = take_back(project.place, project.store, project.task[:8])
    assert project.file("a.py").read_text() == BEFORE
    assert not project.file("b.py").exists()
    assert set(done.files) == {"a.py", "b.py"}
    last = project.store.state.deliveries[-1]
    assert (last["undoes"], last["task"], last["by"]) == (project.commit, project.task, "user")


def test_undo_leaves_the_users_later_work_in_the_same_file(project: Project) -> None:
    """Only the crew's lines go."""
    project.deliver()
    project.file("a.py").write_text(AFTER + "four\nfive\nsix\nseven\nmine\n")
    take_back(project.place, project.store, project.task)
    assert project.file("a.py").read_text() == BEFORE + "four\nfive\nsix\nseven\nmine\n"


def test_undo_of_lines_that_were_changed_since_touches_nothing(project: Project) -> None:
    """The user is told which file, and nothing is written, not even the rest."""
    project.deliver()
    project.file("a.py").write_text("one\nzwei\nthree\n")
    with pytest.raises(UndoConflictError, match=r"a\.py was changed again"):
        take_back(project.place, project.store, project.task)
    assert project.file("a.py").read_text() == "one\nzwei\nthree\n"
    assert project.file("b.py").exists()
    assert listed(project.store.state)[0].state == "delivered"


def test_only_what_was_delivered_can_be_taken_back_and_only_once(project: Project) -> None:
    """Before and after, the answer says so."""
    with pytest.raises(UsageError, match="is made"):
        take_back(project.place, project.store, project.task)
    project.deliver()
    take_back(project.place, project.store, project.task)
    with pytest.raises(UsageError, match="is taken back"):
        take_back(project.place, project.store, project.task)


def test_a_change_of_the_users_after_undo_goes_together_with_the_crews_branch(project: Project) -> None:
    """The next snapshot brings the undone state onto the work branch without a conflict."""
    project.deliver()
    take_back(project.place, project.store, project.task)
    taken = project.trees.snapshot("after")
    assert isinstance(project.trees.merge(project.commit, taken.commit), Merged)


def test_the_diff_shows_what_the_task_did(project: Project) -> None:
    """As a unified diff, with its phase and note."""
    text = diff(project.place, listed(project.store.state), project.commit[:10])
    assert "-two" in text
    assert "+TWO" in text
    assert "debugging: two is loud" in text


def test_a_conflict_is_told_from_a_delivery(project: Project) -> None:
    """Partly or not at all, with the reason."""
    for written, expected in (([], "not delivered"), (["b.py"], "partly delivered")):
        project.store.record_delivery({"commit": project.commit, "written": written, "conflicts": ["a.py: changed"]})
        (change,) = listed(project.store.state)
        assert (change.state, change.conflicts) == (expected, ("a.py: changed",))


def test_a_beginning_must_be_of_one_task() -> None:
    """An exact name wins; otherwise it must be unambiguous."""
    made = tuple(
        CrewChange(task=t, phase="", commit=c * 12, at="", note="") for t, c in (("ab", "1"), ("abc", "2"), ("x", "3"))
    )
    assert [change.task for change in chosen(made, "ab")] == ["ab"]
    assert [change.task for change in chosen(made, "x")] == ["x"]
    assert [change.task for change in chosen(made, "222222")] == ["abc"]
    for word in ("a", "zz", ""):
        with pytest.raises(UsageError):
            chosen(made, word)
