"""The traps that the protocol's model knows by name (its "design:" cases), each laid for the real store and files."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from docs_store import Draft, Mailbox, Outcome, Store, Task, files
from docs_store.errors import FencedError, InvalidMessageError, NotAllowedError
from docs_store.messages import SUPERVISOR, USER, Edit, Effect, Limits, Message, Status
from docs_store.reconcile import STILL, STILL_SHORT, Reconciler
from docs_store.topology import DEFAULT, Operation

F = TypeVar("F", bound=Callable[..., None])

QA = "QA_READ"
TASKS = "## Priority Tasks\n"
ON_WINDOWS = sys.platform == "win32"


def shows(*cases: str) -> Callable[[F], F]:
    """Which of the model's cases a test is about."""

    def mark(test: F) -> F:
        test.cases = cases  # type: ignore[attr-defined]
        return test

    return mark


def load_model() -> ModuleType:
    """The model, which is a script of its own."""
    path = Path(__file__).parents[1] / "models" / "documents_protocol.py"
    spec = importlib.util.spec_from_file_location("documents_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_design_case_has_its_test() -> None:
    """Who adds a case to the model writes a test here."""
    tested = [case for test in vars(sys.modules[__name__]).values() for case in getattr(test, "cases", ())]
    assert sorted(tested) == sorted(case.name.removeprefix("design: ") for case in load_model().DESIGN)


class Crew:
    """A store with short budgets, its reconciler on a clock of its own, and workers."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self.now = 100.0
        self.store = Store.open(folder, limits=Limits(**{"hops": 20, "deaths": 2, **limits}))
        for phase in ("qa", "debugging"):
            self.store.start_epoch(phase, 1, died=False)
        self.start()

    def start(self) -> None:
        """A new supervisor, as after a crash of the old one."""
        self.store = Store.open(self.folder)
        self.reconciler = Reconciler(self.store, self.folder, clock=lambda: self.now, wall=lambda: 0.0)
        self.reconciler.start()

    def step(self, seconds: float = STILL_SHORT) -> Any:
        self.now += seconds
        return self.reconciler.step(self.now)

    def settle(self) -> None:
        for _ in range(12):
            if not self.step():
                return
        raise AssertionError("it never comes to rest")

    def post(self, text: str = "look at it", thread: str | None = None, to: str = "qa") -> str:
        return self.store.post("developer", Draft(to=to, kind="Review", text=text, thread=thread)).id

    def claim(self, phase: str = "qa", epoch: int = 1) -> Task:
        task = self.store.claim(phase, epoch)
        assert task is not None
        return task

    def finish(self, task: Task, *posts: Draft, result: Any = "done") -> tuple[str, ...]:
        outcome = Outcome(result=result, detail="did it", posts=posts)
        return self.store.finish(task.message.to, task.epoch, task, outcome).ids

    def message(self, id: str) -> Message:  # noqa: A002
        return self.store.refresh().messages[id]

    def by_hand(self, what: Any, id: str, of_round: int = 0) -> None:  # noqa: A002
        effect = Effect(what=what, id=id, seen=(id,), round=of_round)
        self.store.import_edit(QA, lambda _: Edit(document=QA, rev=1, effects=(effect,)))

    @property
    def path(self) -> Path:
        return self.folder / f"{QA}.md"

    def text(self) -> str:
        return self.path.read_bytes().decode()

    def save(self, text: str) -> None:
        self.path.write_bytes(text.encode())

    def typed(self, line: str) -> str:
        return self.text().replace(TASKS, f"{TASKS}\n- [ ] {line}\n")

    def texts(self) -> list[str]:
        return sorted(message.text for message in self.store.refresh().messages.values() if message.to == "qa")


@pytest.fixture
def crew(tmp_path: Path) -> Crew:
    return Crew(tmp_path / "crew")


def told(to: str = "debugging", **more: Any) -> Draft:
    return Draft(to=to, kind="Issue", text="it is broken", **more)


# --- the crew ---------------------------------------------------------------------------------------------------------


@shows("ids from (task, ordinal) only")
def test_a_second_round_posts_anew(crew: Crew) -> None:
    """What the second round of a task says is not swallowed as a repetition of the first."""
    crew.post()
    task = crew.claim()
    first = crew.finish(task, told())
    crew.by_hand("untick", task.id)
    second = crew.finish(crew.claim(), told(to="planning"), told())
    assert not {*first} & {*second}
    assert all(id in crew.store.state.messages for id in (*first, *second))  # noqa: A001


@shows("a report closes what joined unseen")
def test_what_joined_while_at_work_is_done_next(crew: Crew) -> None:
    """A report closes what its author had; what came in meanwhile is the next round."""
    first = crew.post(thread="t")
    task = crew.claim()
    later = crew.post("and this", thread="t")
    crew.finish(task)
    again = crew.claim()
    assert (again.id, again.round, [part.id for part in again.parts]) == (first, 1, [later])


@shows("a save closes the same")
def test_a_tick_closes_what_the_editor_showed(crew: Crew) -> None:
    """A save of a view from before something joined leaves that open."""
    first = crew.post(thread="t")
    crew.settle()
    old = crew.text()
    crew.post("and this", thread="t")
    crew.save(old.replace("- [ ]", "- [x]"))
    crew.settle()
    assert crew.message(first).status is Status.OPEN
    assert [part.text for part in crew.claim().parts] == ["and this"]


@shows("an alert is a record of its own")
def test_quarantine_and_alert_are_one_record(crew: Crew) -> None:
    """No crash can come between a message's quarantine and the word about it."""
    bad = crew.post()
    crew.claim()
    crew.store.start_epoch("qa", 2, died=True, reason="SIGKILL")
    crew.claim(epoch=2)
    before = crew.store.head
    crew.store.start_epoch("qa", 3, died=True, reason="SIGKILL")
    assert crew.store.head == before + 1
    assert crew.message(bad).status is Status.QUARANTINED
    assert [m.n for m in crew.store.state.messages.values() if m.kind == "Alert"] == [before + 1]


@shows("every end of a worker counts as a death")
def test_a_worker_that_was_asked_to_end_has_not_died(crew: Crew) -> None:
    """Any number of restarts of the supervisor quarantines nothing."""
    crew.post()
    for epoch in range(2, 9):
        crew.claim(epoch=epoch - 1)
        crew.store.start_epoch("qa", epoch, died=False)
    assert crew.claim(epoch=8).message.deaths == 0


@shows("giving up leaves the claim")
def test_giving_up_ends_the_claim(crew: Crew) -> None:
    """A phase that is not started again holds nothing, and its old worker writes nothing."""
    known = crew.post()
    task = crew.claim()
    crew.store.give_up("qa", died=True, reason="5 restarts")
    assert crew.message(known).status is Status.OPEN
    with pytest.raises(FencedError):
        crew.finish(task)


@shows("bells only to those concerned")
def test_who_finds_nothing_knows_at_which_head(crew: Crew) -> None:
    """A look for work takes the head along, also when what moved it was none of this phase's business."""
    mailbox = Mailbox(Store.open(crew.folder), "qa", 1)
    assert mailbox.claim() is None
    crew.post(to="debugging")
    assert mailbox.head < crew.store.head
    assert mailbox.claim() is None
    assert mailbox.head == crew.store.head


@shows("half-imported is what the watcher saw")
def test_clean_looks_at_the_files_itself(crew: Crew) -> None:
    """A save that nobody has noticed yet is enough for the documents not to be clean."""
    crew.settle()
    with crew.store.hold():
        assert crew.reconciler.clean()
        crew.save(crew.typed("mine"))
        assert not crew.reconciler.clean()


@shows("joins cost no hop")
def test_joined_messages_use_up_the_budget(tmp_path: Path) -> None:
    """Two phases that join each other's task for ever end up with the user."""
    crew = Crew(tmp_path / "crew", hops=4)
    crew.post(thread="t")
    for _ in range(10):
        task = crew.store.claim("qa", 1)
        if task is None:
            break
        crew.post("again", thread="t")
        crew.finish(task)
    assert [message.thread for message in crew.store.waiting_for_user().blocked] == ["t"]


@shows("a post without re begins a thread")
def test_what_a_cycle_posts_stays_in_its_thread(crew: Crew) -> None:
    """Nobody escapes a thread's budget by forgetting to say what it is about."""
    crew.post(thread="t")
    (posted,) = crew.finish(crew.claim(), told())
    assert crew.message(posted).thread == "t"


@shows("a late report is dropped")
def test_a_late_report_keeps_its_posts(crew: Crew) -> None:
    """Ticked while at work, or just after: either way what the worker found out is there."""
    known = crew.post()
    task = crew.claim()
    crew.by_hand("tick", known)
    (posted,) = crew.finish(task, told())
    assert crew.message(posted).status is Status.OPEN
    assert crew.message(known).status is Status.DONE


@shows("an untick of any round")
def test_an_untick_is_of_the_round_that_was_seen(crew: Crew) -> None:
    """A stale buffer does not reopen what was reopened and done again since."""
    known = crew.post()
    crew.finish(crew.claim())
    crew.by_hand("untick", known)
    crew.finish(crew.claim())
    crew.by_hand("untick", known, of_round=0)
    assert crew.message(known).status is Status.DONE


# --- views and saves --------------------------------------------------------------------------------------------------


@shows("a hand-added item gets some id, crash")
def test_an_import_that_is_redone_adds_nothing(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that dies between the record and the view reads the same save again."""
    crew.settle()
    crew.save(crew.typed("mine"))
    crew.step(0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "prepare", _dies)
        with pytest.raises(KeyboardInterrupt):
            crew.step(STILL)
    crew.start()
    crew.settle()
    assert crew.texts() == ["mine"]


@shows("a hand-added item gets some id, saved again")
def test_the_same_buffer_saved_again_adds_nothing(crew: Crew) -> None:
    """An editor that never reloads brings its new line with each save; it is one item."""
    crew.settle()
    text = crew.typed("mine")
    for more in ("", "some words\n", "other words\n"):
        crew.save(text.replace("## Notes\n", f"## Notes\n\n{more}"))
        crew.settle()
    assert crew.texts() == ["mine"]


@shows("same body, so the marker stays")
def test_a_view_with_the_same_body_gets_the_new_revision(crew: Crew) -> None:
    """A tick makes the file what it should be, but for its revision; without that the untick would be old."""
    known = crew.post()
    crew.settle()
    for mark, status in (("x", Status.DONE), (" ", Status.OPEN), ("x", Status.DONE)):
        text = crew.text()
        crew.save(text.replace("- [x]", "- [ ]").replace("- [ ]", f"- [{mark}]"))
        crew.settle()
        assert crew.text().splitlines()[-1] != text.splitlines()[-1]
        assert crew.message(known).status is status


@shows("taken back in a stale buffer")
def test_what_a_stale_buffer_takes_back_is_asked(crew: Crew) -> None:
    """Ticked and saved, unticked and saved, without a reload: neither applied nor ignored."""
    known = crew.post()
    crew.settle()
    buffer = crew.text()
    for text in (buffer.replace("- [ ]", "- [x]"), buffer):
        crew.save(text)
        crew.settle()
    assert crew.message(known).status is Status.DONE
    assert [known in question.text for question in crew.store.waiting_for_user().questions] == [True]


@pytest.mark.parametrize(("answer", "status"), [("apply", Status.OPEN), (" Leave", Status.DONE)])
def test_the_answer_does_what_was_asked_about(crew: Crew, answer: str, status: Status) -> None:
    """Taken back in a stale buffer: `apply` unticks it, `leave` does not; nobody asks again."""
    known = crew.post()
    crew.settle()
    buffer = crew.text()
    for text in (buffer.replace("- [ ]", "- [x]"), buffer):
        crew.save(text)
        crew.settle()
    (question,) = crew.store.waiting_for_user().questions
    with pytest.raises(InvalidMessageError, match="one of: apply, leave"):
        crew.store.answer(question.id, "yes please")
    crew.store.answer(question.id, answer)
    crew.settle()
    assert crew.message(known).status is status
    assert ("- [ ]" in crew.text()) is (status is Status.OPEN)
    assert not crew.store.waiting_for_user()
    assert Store.open(crew.folder).state == crew.store.state
    crew.save(buffer)
    crew.settle()
    assert not crew.store.waiting_for_user()


def test_an_answer_closes_nothing_that_came_after_the_question(crew: Crew) -> None:
    """What joined the item since he was asked about it stays open, whatever he answers."""
    known = crew.post("look at it", thread="t")
    crew.settle()
    bare = "".join(line for line in crew.text().splitlines(keepends=True) if "<!-- rev:" not in line)
    crew.save(bare.replace("- [ ]", "- [x]"))
    crew.settle()
    (question,) = crew.store.waiting_for_user().questions
    crew.post("and at that", thread="t")
    crew.store.answer(question.id, "apply")
    assert crew.message(known).status is Status.OPEN
    task = crew.claim()
    assert [part.text for part in task.parts] == ["and at that"]


@shows("without a marker ticks count")
def test_without_a_revision_a_tick_is_asked_about(crew: Crew) -> None:
    """Of a text whose origin is unknown only the additions are certain."""
    known = crew.post()
    crew.finish(crew.claim())
    crew.settle()
    lines = [line for line in crew.text().splitlines(keepends=True) if "<!-- rev:" not in line]
    crew.save("".join(lines).replace("- [x]", "- [ ]"))
    crew.settle()
    assert crew.message(known).status is Status.DONE
    assert len(crew.store.waiting_for_user().questions) == 1


@shows("hidden is present")
def test_what_a_view_did_not_show_is_not_withdrawn(crew: Crew) -> None:
    """Items beyond the fifty that are shown are not deleted by a save that, of course, lacks them."""
    ids = [crew.post(f"task {n}") for n in range(55)]
    crew.settle()
    crew.save("".join(line for line in crew.text().splitlines(keepends=True) if "<!-- id:" not in line))
    crew.settle()
    assert [crew.message(id).status for id in ids] == [Status.WITHDRAWN] * 50 + [Status.OPEN] * 5  # noqa: A001


@shows("a marker with a number only")
def test_a_view_of_another_history_with_the_same_number(tmp_path: Path) -> None:
    """After a backup was restored the numbers repeat; the hash tells that a buffer is from the other life."""
    crew = Crew(tmp_path / "crew")
    crew.settle()
    other = Crew(tmp_path / "other")
    other.settle()
    other.post("of another life")
    crew.post("of this life")
    other.settle()
    crew.settle()
    text = "".join(line for line in other.text().splitlines(keepends=True) if "<!-- id:" not in line)
    assert "of this life" in crew.text()
    crew.save(text)
    crew.settle()
    assert [m.status for m in crew.store.state.messages.values()] == [Status.OPEN]


@pytest.mark.only_on("posix", reason="an open file cannot be exchanged there")
@pytest.mark.parametrize("mode", ["w", "r+"])
@shows("displaced file read at once, in place", "displaced file read at once, opens first")
def test_an_editor_that_holds_the_displaced_file(crew: Crew, mode: str) -> None:
    """What an editor writes into the file that a view has just displaced is read, once the editor is done."""
    crew.settle()
    text = crew.typed("mine")
    editors: list[Any] = []
    exchange = files.exchange

    def opened_meanwhile(swap: Path, path: Path) -> files.How:
        editors.append(path.open(mode, encoding="utf-8", newline=""))
        return exchange(swap, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "exchange", opened_meanwhile)
        crew.store.post(USER, Draft(to="qa", kind="Review", text="look at it"))
        crew.step(STILL)
    (editor,) = editors
    with editor:
        editor.write(text[:40])
        editor.flush()
        crew.step(STILL / 2)
        editor.write(text[40:])
        editor.truncate()
    crew.settle()
    assert crew.texts() == ["look at it", "mine"]


@shows("stray files are swept")
def test_a_displaced_file_is_a_save(crew: Crew) -> None:
    """What a crash left under the swap name is read before it goes."""
    crew.settle()
    crew.path.with_name(f"{crew.path.name}{files.SWAP}").write_text(crew.typed("mine"), "utf-8")
    crew.start()
    crew.settle()
    assert crew.texts() == ["mine"]


@shows("temp and displaced file share a name")
def test_an_unfinished_temp_is_no_save(crew: Crew) -> None:
    """Half a view that we were writing when we died is removed unread: nothing is withdrawn, nothing asked."""
    known = crew.post()
    crew.settle()
    temp = crew.path.with_name(f"{crew.path.name}.1.1{files.TEMP}")
    temp.write_text(crew.text()[:60], "utf-8")
    crew.start()
    crew.settle()
    assert not temp.exists()
    assert crew.message(known).status is Status.OPEN
    assert not crew.store.waiting_for_user()


@pytest.mark.only_on("posix", reason="ReplaceFile is the exchange there")
@shows("hard link where there is no exchange")
def test_without_an_exchange_a_save_meanwhile_stays(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is moved aside, and the new one takes the name only if no editor did."""
    crew.settle()
    text = crew.typed("mine")
    crew.post()
    link = files.link_if_free
    monkeypatch.setattr(files, "_exchange", lambda _one, _other: False)

    def late(source: Path, path: Path) -> bool:
        if path == crew.path and not path.exists() and "mine" not in crew.texts():
            crew.save(text)
        return link(source, path)

    monkeypatch.setattr(files, "link_if_free", late)
    crew.settle()
    assert crew.texts() == ["look at it", "mine"]
    assert "look at it" in crew.text()


@shows("a missing file is renamed back")
def test_a_missing_file_comes_back_only_where_nothing_is(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that moves its file away first puts the new one there before us."""
    crew.settle()
    text = crew.typed("mine")
    crew.path.unlink()
    link = files.link_if_free

    def late(source: Path, path: Path) -> bool:
        if not path.exists():
            crew.save(text)
        return link(source, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "link_if_free", late)
        crew.step()
    crew.settle()
    assert crew.texts() == ["mine"]


@shows("Planning's text replaces the document")
def test_a_rewrite_keeps_what_a_person_wrote_meanwhile(crew: Crew) -> None:
    """Planning's new text is merged with the edits that came after it had read."""
    crew.store.start_epoch("planning", 1, died=False)
    crew.store.post(USER, Draft(to="planning", kind="Assess", text="plan"))
    task = crew.claim("planning")
    read, revision = Mailbox(crew.store, "planning", 1).look("ARCHITECTURE")
    path = crew.folder / "ARCHITECTURE.md"
    path.write_bytes(path.read_bytes().replace(b"## Patterns\n", b"## Patterns\n\nby the user\n"))
    crew.settle()
    outcome = Outcome(
        result="done",
        detail="planned",
        strategic={"ARCHITECTURE": read.replace("## Modules\n", "## Modules\n\nby planning\n")},
        read={"ARCHITECTURE": revision},
    )
    crew.store.finish("planning", 1, task, outcome)
    crew.settle()
    assert b"by the user" in path.read_bytes()
    assert b"by planning" in path.read_bytes()


# --- authors ----------------------------------------------------------------------------------------------------------


@shows("what changes during a claim is the agent's", "the same, looked at before and after")
def test_a_save_is_the_user_s_whoever_is_at_work(crew: Crew) -> None:
    """Agents have trees of their own and a mailbox; a change of a document is a person's, at any time."""
    crew.post()
    crew.settle()
    task = crew.claim()
    crew.save(crew.typed("mine"))
    crew.settle()
    crew.finish(task)
    (mine,) = [message for message in crew.store.state.messages.values() if message.text == "mine"]
    assert mine.by == USER
    for phase in (*(phase.key for phase in DEFAULT.phases), SUPERVISOR, "nobody"):
        assert not any(DEFAULT.allows(phase, document, Operation.EDIT) for document in DEFAULT.documents)
    with pytest.raises(NotAllowedError):
        crew.store.post("qa", Draft(to="qa", kind="Review", text="to myself"))


def _dies(*_: object) -> Any:
    raise KeyboardInterrupt
