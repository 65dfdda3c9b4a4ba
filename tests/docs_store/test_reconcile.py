"""Files and history in step, with a real store and real files: editors, crashes, and what is no document."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs_store import files, reconcile
from docs_store.errors import DamageError
from docs_store.markdown import revision
from docs_store.messages import Draft, Edit, Message, State, Status
from docs_store.reconcile import REREAD, STILL, STILL_SHORT, Reconciler, Step
from docs_store.store import Store

QA = "QA_READ.md"
Save = Callable[[Path, str], None]


class Desk:
    """A store, its folder and its reconciler, on a clock that the test moves. The wall clock says: all is fresh."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0
        self.store = Store.open(folder)
        self.reconciler = self.again()

    def again(self) -> Reconciler:
        """A new reconciler, as after a crash of the old one."""
        self.reconciler = Reconciler(self.store, self.folder, clock=lambda: self.now, wall=lambda: 0.0)
        self.reconciler.start()
        return self.reconciler

    @property
    def qa(self) -> Path:
        return self.folder / QA

    def text(self) -> str:
        return self.qa.read_bytes().decode()

    def step(self, seconds: float = 0.0) -> Step:
        self.now += seconds
        return self.reconciler.step(self.now)

    def settle(self) -> list[Step]:
        """Step until nothing waits any more; more than a few times would be a cycle."""
        steps = []
        for _ in range(12):
            steps.append(self.step(STILL_SHORT))
            if not steps[-1]:
                return steps
        raise AssertionError(f"it never comes to rest: {steps[-2:]}")

    def post(self, text: str = "look at it") -> str:
        return self.store.post("developer", Draft(to="qa", kind="Review", text=text)).id

    def messages(self) -> list[Message]:
        self.store.refresh()
        return list(self.store.state.messages.values())

    def strays(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.name.endswith("~")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "crew")


def in_place(path: Path, text: str) -> None:
    """Truncates and writes, as nano does."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def opens_first(path: Path, text: str) -> None:
    """Opens for reading and writing, writes over, cuts what is left."""
    with path.open("r+", encoding="utf-8", newline="") as file:
        file.write(text)
        file.truncate()


def renames(path: Path, text: str) -> None:
    """Writes another file and renames it over, as VS Code may."""
    other = path.with_name(".editor.tmp")
    in_place(other, text)
    other.replace(path)


def moves_away_first(path: Path, text: str) -> None:
    """Renames the old file to a backup and writes a new one, as vim may."""
    path.rename(path.with_name("editor.bak"))
    in_place(path, text)


STYLES = (in_place, opens_first, renames, moves_away_first)


def test_all_documents_are_written_at_the_start_and_then_nothing_happens(desk: Desk) -> None:
    """Thirteen files, clean, and the next step does nothing."""
    assert sorted(p.name for p in desk.folder.glob("*.md")) == sorted(d.file for d in desk.store.topology.documents)
    assert desk.reconciler.clean()
    assert not desk.step(1)


def test_a_post_is_shown_and_the_rest_left_alone(desk: Desk) -> None:
    """Only the documents concerned are written: the receiver's READ and the author's WRITE."""
    before = {path.name: path.stat().st_ino for path in desk.folder.glob("*.md")}
    key = desk.post()
    assert not desk.reconciler.clean()
    desk.step()
    assert sorted(desk.strays()) == ["DEVELOPER_WRITE.md.swap~", "QA_READ.md.swap~"]
    assert not desk.reconciler.clean()
    desk.settle()
    after = {path.name: path.stat().st_ino for path in desk.folder.glob("*.md")}
    assert {name for name in after if after[name] != before[name]} == {QA, "DEVELOPER_WRITE.md"}
    assert f"id:{key}" in desk.text()
    assert desk.reconciler.clean()
    assert not desk.strays()


@pytest.mark.parametrize("save", STYLES)
def test_a_save_is_imported_once_in_every_style(desk: Desk, save: Save) -> None:
    """Tick, new line and note of one save are on record once, whatever the editor does with the file."""
    key = desk.post()
    desk.settle()
    text = desk.text().replace("- [ ]", "- [x]").replace("## Context\n", "## Context\n\nmind the gap\n")
    save(desk.qa, text.replace("## Priority Tasks\n", "## Priority Tasks\n\n- [ ] mine\n"))
    imported = [name for step in desk.settle() for name in step.imported]
    assert imported == [QA]
    assert [(m.id == key, m.status, m.text) for m in desk.messages()] == [
        (True, Status.DONE, "look at it"),
        (False, Status.OPEN, "mine"),
    ]
    assert "mind the gap" in desk.text()
    assert desk.reconciler.clean()


@pytest.mark.parametrize("save", STYLES)
def test_a_save_while_the_view_is_replaced_is_not_lost(desk: Desk, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save between our reading and our swap ends in the displaced file and is read from there."""
    desk.settle()
    old = desk.text()
    desk.post()
    exchange = files.exchange

    def late(swap: Path, path: Path) -> files.How:
        if path == desk.qa:
            save(path, old.replace("## Priority Tasks\n", "## Priority Tasks\n\n- [ ] mine\n"))
        return exchange(swap, path)

    monkeypatch.setattr(files, "exchange", late)
    desk.step(STILL)
    monkeypatch.setattr(files, "exchange", exchange)
    desk.settle()
    assert sorted(m.text for m in desk.messages()) == ["look at it", "mine"]
    assert "mine" in desk.text()
    assert not desk.strays()


@pytest.mark.only_on("posix", reason="an open file cannot be swapped there")
def test_an_editor_that_had_the_file_open_writes_into_the_displaced_one(desk: Desk) -> None:
    """The displaced file is read only once it is still, and not removed before."""
    desk.settle()
    text = desk.text().replace("## Priority Tasks\n", "## Priority Tasks\n\n- [ ] mine\n")
    with desk.qa.open("r+", encoding="utf-8", newline="") as editor:
        desk.post()
        desk.step(STILL)
        assert QA + files.SWAP in desk.strays()
        editor.truncate(0)
        editor.write(text[:40])
        editor.flush()
        desk.step(STILL)
        desk.step(STILL)
        assert QA + files.SWAP in desk.strays()
        editor.seek(0)
        editor.write(text)
    desk.settle()
    assert sorted(m.text for m in desk.messages()) == ["look at it", "mine"]


def test_a_displaced_file_that_changes_while_it_is_read_is_read_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes only if it still is what was imported."""
    desk.settle()
    text = desk.text().replace("## Notes\n", "## Notes\n\nlate words\n")
    desk.post()
    desk.step(STILL)
    swap = desk.folder / (QA + files.SWAP)
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        data = read(path)
        if path == swap and b"late words" not in data:
            in_place(swap, text)
        return data

    monkeypatch.setattr(Path, "read_bytes", late)
    desk.settle()
    assert "late words" in desk.text()


def test_a_displaced_file_that_changes_while_it_is_imported_is_not_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that still has it open may write until it is gone: it stays until what was imported is all of it."""
    desk.settle()
    early = desk.text().replace("## Notes\n", "## Notes\n\nearly words\n")
    late = early.replace("early words\n", "early words\nlate words\n")
    desk.post()
    desk.step(STILL)
    swap = desk.folder / (QA + files.SWAP)
    in_place(swap, early)
    import_edit = desk.store.import_edit

    def slow(document: str, decide: Callable[[State], Edit | None]) -> int | None:
        done = import_edit(document, decide)
        if swap.exists() and swap.read_bytes().decode() == early:
            in_place(swap, late)
        return done

    monkeypatch.setattr(desk.store, "import_edit", slow)
    desk.settle()
    assert "early words\nlate words" in desk.text()
    assert not desk.strays()


def test_showing_what_is_new_asks_the_history_for_nothing_old(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that nobody touched is replaced without a replay, however long the history."""

    def state_at(n: int) -> State:
        raise AssertionError(f"record {n} was asked for")

    monkeypatch.setattr(desk.store, "state_at", state_at)
    for text in ("one", "two"):
        desk.post(text)
        desk.settle()
    assert "two" in desk.text()
    assert not desk.strays()


def test_a_change_that_leaves_size_and_times_alone_is_found(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow second look reads the file itself, and takes it for a save."""
    desk.post()
    desk.settle()
    looks = {path: reconcile._look(path) for path in desk.folder.glob("*.md")}
    in_place(desk.qa, desk.text().replace("- [ ]", "- [x]"))
    with monkeypatch.context() as patched:
        patched.setattr(reconcile, "_look", looks.get)
        assert not desk.step(STILL_SHORT)
        assert desk.step(REREAD).imported == (QA,)
    desk.settle()
    assert [m.status for m in desk.messages()] == [Status.DONE]


def test_a_file_is_read_only_when_it_is_still(desk: Desk) -> None:
    """A quarter of a second without a change; a change starts the wait anew."""
    desk.settle()
    text = desk.text().replace("## Notes\n", "## Notes\n\nhalf\n")
    in_place(desk.qa, text)
    assert desk.step() == Step(waiting=(QA,))
    assert desk.step(STILL * 0.9) == Step(waiting=(QA,))
    in_place(desk.qa, text.replace("half", "half and half"))
    assert desk.step(STILL * 0.9) == Step(waiting=(QA,))
    assert desk.step(STILL * 0.9) == Step(waiting=(QA,))
    assert not desk.reconciler.clean()
    assert desk.step(STILL).imported == (QA,)


@pytest.mark.parametrize("torn", ["", "# QA_R"])
def test_an_emptied_file_waits_longer_and_withdraws_nothing(desk: Desk, torn: str) -> None:
    """Two seconds; then it is restored, its items stay, and the user is asked."""
    desk.post()
    desk.settle()
    in_place(desk.qa, torn)
    desk.step()
    assert desk.step(STILL_SHORT * 0.9) == Step(waiting=(QA,))
    desk.settle()
    assert [m.status for m in desk.messages()] == [Status.OPEN]
    assert "look at it" in desk.text()
    assert len(desk.store.state.questions) == 1


def test_a_missing_file_is_restored_and_is_no_deletion(desk: Desk) -> None:
    """The view comes back with all items."""
    desk.post()
    desk.settle()
    desk.qa.unlink()
    desk.settle()
    assert "look at it" in desk.text()
    assert [m.status for m in desk.messages()] == [Status.OPEN]
    assert desk.reconciler.clean()


def test_a_restored_file_never_replaces_one_that_came_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """design: a missing file is renamed back — an editor that moves away first keeps the name."""
    desk.settle()
    text = desk.text().replace("## Notes\n", "## Notes\n\nkeep me\n")
    link = files.link_if_free

    def late(source: Path, path: Path) -> bool:
        in_place(path, text)
        return link(source, path)

    desk.qa.unlink()
    monkeypatch.setattr(files, "link_if_free", late)
    assert desk.step().waiting == (QA,)
    monkeypatch.setattr(files, "link_if_free", link)
    desk.settle()
    assert "keep me" in desk.text()


def test_left_overs_are_imported_before_the_file_and_then_removed(desk: Desk) -> None:
    """design: stray files are swept — what a swap had displaced when we died is a save."""
    desk.settle()
    old = desk.text()
    desk.post()
    desk.settle()
    in_place(desk.folder / (QA + files.SWAP), old.replace("## Notes\n", "## Notes\n\nnearly lost\n"))
    (desk.folder / f"{QA}.1.1{files.TEMP}").write_text("# QA_READ\n\n## Priority Ta")
    desk.again()
    assert f"{QA}.1.1{files.TEMP}" not in desk.strays()
    assert not desk.reconciler.clean()
    desk.settle()
    assert "nearly lost" in desk.text()
    assert "look at it" in desk.text()
    assert not desk.strays()


def test_a_stash_and_a_checkout_of_the_folder_lose_nothing(desk: Desk) -> None:
    """Old versions put back over all documents, then taken away, then the new ones: items and words are all there."""

    def put_back(texts: dict[Path, bytes]) -> None:
        for path, data in texts.items():
            path.write_bytes(data)

    known = desk.post("in the commit")
    desk.settle()
    committed = {path: path.read_bytes() for path in desk.folder.glob("*.md")}
    in_place(desk.qa, desk.text().replace("## Notes\n", "## Notes\n\nsince the commit\n"))
    desk.settle()
    later = desk.post("since the commit, too")
    desk.settle()
    stashed = {path: path.read_bytes() for path in desk.folder.glob("*.md")}
    put_back(committed)
    desk.settle()
    for path in committed:
        path.unlink()
    desk.settle()
    put_back(stashed)
    desk.settle()
    assert [(m.id, m.status) for m in desk.messages()] == [(known, Status.OPEN), (later, Status.OPEN)]
    assert desk.text().count("since the commit\n") == 1
    assert not desk.store.waiting_for_user()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nobody is kept from writing here")
def test_a_read_only_folder_is_a_problem_and_passes(desk: Desk) -> None:
    """The post is on record, the view follows once the folder can be written to again."""
    desk.settle()
    desk.folder.chmod(0o555)
    try:
        desk.post()
        assert [problem.file for problem in desk.step(STILL).problems] == [QA]
    finally:
        desk.folder.chmod(0o755)
    desk.settle()
    assert "look at it" in desk.text()


def test_views_outlive_a_damaged_history(desk: Desk) -> None:
    """Once the bad records were set aside, what only the documents still show comes back from there."""
    desk.post("before")
    desk.settle()
    path = desk.folder / ".history" / "0000000001.jsonl"
    good = path.stat().st_size
    desk.post("after")
    desk.settle()
    data = bytearray(path.read_bytes())
    data[good + 20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamageError):
        Store.open(desk.folder)
    assert "after" in desk.text()
    assert Store.set_aside(desk.folder) is not None
    desk.store = Store.open(desk.folder)
    desk.again()
    desk.settle()
    assert sorted((m.text, m.status) for m in desk.messages() if m.to == "qa") == [
        ("after", Status.OPEN),
        ("before", Status.OPEN),
    ]
    assert desk.text().count("after") == 1


class CrashError(BaseException):
    """The reconciler's process ends here."""


@pytest.mark.only_on("posix", reason="the calls are other ones there")
@pytest.mark.parametrize("at", range(0, 24, 2))
def test_a_crash_at_any_step_loses_and_doubles_nothing(desk: Desk, at: int) -> None:
    """Whatever call is the last one, the next reconciler ends with every item once and every line there."""
    desk.settle()
    text = desk.text().replace("## Priority Tasks\n", "## Priority Tasks\n\n- [ ] mine\n")
    in_place(desk.qa, text.replace("## Notes\n", "## Notes\n\nkeep me\n"))
    desk.post()
    desk.step()
    left = [at]

    def guard(call: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise CrashError
            return call(*args, **more)

        return guarded

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("_write_temp", "_link_new", "_exchange", "sync_folder", "remove"):
            monkeypatch.setattr(files, name, guard(getattr(files, name)))
        for name in ("unlink", "rename", "replace"):
            monkeypatch.setattr(Path, name, guard(getattr(Path, name)))
        try:
            for _ in range(4):
                desk.step(STILL)
        except CrashError:
            pass
    desk.again()
    desk.settle()
    assert sorted(m.text for m in desk.messages()) == ["look at it", "mine"]
    for words in ("mine", "look at it", "keep me"):
        assert desk.text().count(words) == 1
    assert desk.reconciler.clean()
    assert not desk.strays()


def test_the_revision_moves_on_though_the_body_is_the_same(desk: Desk) -> None:
    """design: same body, so the marker stays — a file with an old marker is written anew."""
    key = desk.post()
    desk.settle()
    view = desk.text()
    in_place(desk.qa, view.replace("- [ ]", "- [x]"))
    desk.settle()
    in_place(desk.qa, desk.text().replace("- [x]", "- [ ]"))
    desk.settle()
    assert desk.store.state.messages[key].status is Status.OPEN
    before, after = revision(view), revision(desk.text())
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


def test_a_person_s_file_from_before_the_first_start_is_taken_over(tmp_path: Path) -> None:
    """Creation never overwrites: what was there is imported, with its tasks."""
    folder = tmp_path / "crew"
    folder.mkdir()
    (folder / "ARCHITECTURE.md").write_bytes(b"# Ours\r\n\r\n## Current\r\n\r\nall in one file")
    (folder / QA).write_bytes(b"# QA_READ\n\n## Priority Tasks\n\n- [ ] look twice\n")
    desk = Desk(folder)
    desk.settle()
    text = (folder / "ARCHITECTURE.md").read_bytes().decode()
    assert text.startswith("# Ours\r\n\r\n## Current\r\n\r\nall in one file\r\n\r\n---\r\n\r\nLast Updated: ")
    assert [m.text for m in desk.messages()] == ["look twice"]
    assert "- [ ] Review: look twice (from User) <!-- id:hand-" in desk.text()


@pytest.mark.only_on("windows", reason="only Windows keeps a file that is being read from being replaced")
def test_a_reader_holds_up_the_view_and_not_the_post(desk: Desk) -> None:
    """With the file open in a reader the post is durable at once; the view lags, says so, and follows when it may."""
    desk.settle()
    with desk.qa.open("rb"):
        posted = desk.post("while somebody reads")
        step = desk.step()
        assert QA in {*step.waiting, *(problem.file for problem in step.problems)}
        assert Store.open(desk.folder).state.messages[posted].text == "while somebody reads"
    desk.settle()
    assert "while somebody reads" in desk.text()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def make_garbage(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\xff\xfe no text")


def make_huge(path: Path) -> None:
    path.write_bytes(b"x" * (4 * 1024 * 1024 + 1))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (make_directory, "is no file"),
        pytest.param(make_link, "symbolic link", marks=pytest.mark.only_on("posix", reason="rights")),
        (make_garbage, "is not UTF-8 from byte"),
        (make_huge, "at most 4194304"),
    ],
)
def test_what_is_no_document_is_said_and_left_alone(desk: Desk, spoil: Callable[[Path], None], says: str) -> None:
    """A clear problem each step, the others go on, the end of a run does not wait; put right, it is imported."""
    desk.settle()
    good = desk.text()
    spoil(desk.qa)
    kind = (desk.qa.is_dir(), desk.qa.is_symlink())
    desk.post()
    problems = desk.settle()[-1].problems
    assert [problem.file for problem in problems] == [QA]
    assert says in str(problems[0])
    assert (desk.qa.is_dir(), desk.qa.is_symlink()) == kind
    assert "look at it" in (desk.folder / "DEVELOPER_WRITE.md").read_text(encoding="utf-8")
    assert desk.reconciler.clean()
    if desk.qa.is_dir():
        (desk.qa / "inside").unlink()
        desk.qa.rmdir()
    else:
        desk.qa.unlink()
    in_place(desk.qa, good.replace("## Notes\n", "## Notes\n\nback\n"))
    assert not desk.settle()[-1].problems
    assert "back" in desk.text()
    assert "look at it" in desk.text()


def test_an_error_of_the_disk_is_a_problem_and_passes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or read-only disk delays the view; nothing is lost, and the next step tries again."""
    desk.post()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        step = desk.step(STILL)
    assert {problem.file for problem in step.problems} == {QA, "DEVELOPER_WRITE.md"}
    assert "No space left" in str(step.problems[0])
    assert not desk.reconciler.clean()
    desk.settle()
    assert "look at it" in desk.text()
    assert not desk.strays()


def no_space(fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_vanished_folder_is_a_problem(desk: Desk) -> None:
    """Nothing crashes when the folder cannot be read."""
    desk.folder.rename(desk.folder.with_name("away"))
    reconciler = Reconciler(_Nothing(desk.store), desk.folder)
    assert "cannot be read" in str(reconciler.step(0.0).problems[0])
    assert not reconciler.clean()


class _Nothing:
    """A store whose history is not asked."""

    def __init__(self, store: Store) -> None:
        self.state, self.topology, self.state_at = store.state, store.topology, store.state_at
        self.create_documents, self.import_edit = store.create_documents, store.import_edit

    def refresh(self) -> State:
        return self.state


def test_a_command_settles_and_leaves_nothing(tmp_path: Path) -> None:
    """`settle` is for commands without a loop: afterwards the views are written and nothing lies about."""
    desk = Desk(tmp_path / "crew")
    desk.post()

    def pause(seconds: float) -> None:
        desk.now += seconds

    step = desk.reconciler.settle(pause=pause)
    assert set(step.written) == {QA, "DEVELOPER_WRITE.md"}
    assert not step.waiting
    assert desk.reconciler.clean()


def test_an_old_file_need_not_wait(tmp_path: Path) -> None:
    """A file whose times lie well back is still at the first look, so a restart is quick."""
    desk = Desk(tmp_path / "crew")
    desk.settle()
    in_place(desk.qa, desk.text().replace("## Notes\n", "## Notes\n\nbefore the start\n"))
    later = Reconciler(desk.store, desk.folder, wall=lambda: desk.qa.stat().st_mtime + 60)
    assert later.start().imported == (QA,)


@pytest.fixture(autouse=True)
def _mode() -> Iterator[None]:
    mask = os.umask(0o022)
    yield
    os.umask(mask)
