"""Making a workspace, and trusting it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import pytest

from docs_store.store import Store
from docs_store.topology import DEFAULT
from supervisor import bootstrap
from supervisor.bootstrap import IGNORED, NotTrustedError, ignoring, init, is_trusted, require_trust, trust
from supervisor.config import Config, parse
from supervisor.workspace import Workspace, WorkspaceError

COMMENT = b"# what `supervisor` keeps for itself; crew/*.md are yours to commit"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_init_makes_everything_and_says_so(tmp_path: Path) -> None:
    """After it there is a valid configuration, thirteen documents on record, and the ignored folders."""
    report = init(tmp_path)
    place = Workspace(tmp_path)
    assert place.read_config().ipc.rollout == 1.0
    assert sorted(p.name for p in place.crew.glob("*.md")) == sorted(d.file for d in DEFAULT.documents)
    assert len(DEFAULT.documents) == 13
    assert {"supervisor.toml", "crew/", ".supervisor/", ".gitignore", "crew/QA_READ.md"} <= set(report.created)
    assert report.kept == ()
    store = Store.open(place.crew, head_file=place.head, create=False)
    for document in DEFAULT.documents:
        assert (place.crew / document.file).read_text("utf-8") == store.text(document.name)


def test_init_twice_is_init_once(tmp_path: Path) -> None:
    """The second time nothing changes, not a byte."""
    first = init(tmp_path)
    before = contents(tmp_path)
    second = init(tmp_path)
    assert contents(tmp_path) == before
    assert second.created == second.changed == ()
    assert set(second.kept) == {path for path in first.created if not path.endswith("/")}


def test_init_never_overwrites(tmp_path: Path) -> None:
    """What a person has written stays as it is, even if it is wrong."""
    (tmp_path / "crew").mkdir()
    mine = {
        "supervisor.toml": b"[ipc]\nrollout = 7\n",
        "crew/MASTER_PLAN.md": b"# My plan\r\nno newline at the end",
        "crew/QA_READ.md": b"",
        "crew/notes.txt": b"mine",
    }
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    report = init(tmp_path)
    after = contents(tmp_path)
    assert {name: after[name] for name in mine} == mine
    assert {"supervisor.toml", "crew/MASTER_PLAN.md", "crew/QA_READ.md"} == set(report.kept)


def test_init_makes_the_folder_that_is_named(tmp_path: Path) -> None:
    """`supervisor init new/place` works."""
    assert init(tmp_path / "new" / "place").root == (tmp_path / "new" / "place").resolve()


def test_init_where_a_file_is_in_the_way_says_so(tmp_path: Path) -> None:
    """A file in place of the folder is named."""
    (tmp_path / "x").write_text("")
    with pytest.raises(WorkspaceError, match="in the way"):
        init(tmp_path / "x")


def test_documents_of_a_phase_of_the_users_own_are_created_too(tmp_path: Path) -> None:
    """Adding a phase and calling `init` again is all it takes."""
    init(tmp_path)
    (tmp_path / "supervisor.toml").write_text('[phases.security]\nactor = "a.b:C"\n')
    assert set(init(tmp_path).created) == {"crew/SECURITY_READ.md", "crew/SECURITY_WRITE.md"}


def test_half_a_document_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up during `init` leaves nothing that the next one would keep."""

    class Full:
        def __init__(self, handle: int, *_: object) -> None:
            self.handle = handle

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            os.close(self.handle)

        def write(self, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    monkeypatch.setattr(os, "fdopen", Full)
    with pytest.raises(WorkspaceError, match="No space left"):
        bootstrap._create(path, "text")
    assert not path.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", COMMENT + b"\n/.supervisor/\n/crew/.history/\n"),
        (b"*.pyc\n", b"*.pyc\n" + COMMENT + b"\n/.supervisor/\n/crew/.history/\n"),
        (b"*.pyc", b"*.pyc\n" + COMMENT + b"\n/.supervisor/\n/crew/.history/\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n" + COMMENT + b"\r\n/.supervisor/\r\n/crew/.history/\r\n"),
        (b".supervisor\n", b".supervisor\n" + COMMENT + b"\n/crew/.history/\n"),
        (b"crew/.history/\n/.supervisor", b"crew/.history/\n/.supervisor"),
        (b"caf\xe9\n", b"caf\xe9\n" + COMMENT + b"\n/.supervisor/\n/crew/.history/\n"),
    ],
)
def test_gitignore_gains_only_what_is_missing(before: bytes, after: bytes) -> None:
    """Its own bytes and its kind of line ends stay; a second look finds nothing to add."""
    assert ignoring(before) == after
    assert ignoring(after) == after
    assert all(line.encode().strip(b"/") in after for line in IGNORED)


def test_an_existing_gitignore_is_appended_to(tmp_path: Path) -> None:
    """The report says that it was changed."""
    (tmp_path / ".gitignore").write_bytes(b"*.pyc\r\n")
    assert init(tmp_path).changed == (".gitignore",)
    assert (tmp_path / ".gitignore").read_bytes().startswith(b"*.pyc\r\n#")


@pytest.fixture
def own() -> Config:
    return parse('[phases.security]\nactor = "a.b:C"\n')


def test_commands_of_its_own_need_trust_once(tmp_path: Path, own: Config) -> None:
    """Asked once; asked again when they change, or in another folder."""
    place, state = Workspace(tmp_path / "a"), tmp_path / "state"
    state.mkdir()
    with pytest.raises(NotTrustedError, match=r"a\.b:C"):
        require_trust(place, own, folder=state)
    assert trust(place, own, folder=state)
    require_trust(place, own, folder=state)
    assert not trust(place, own, folder=state)
    assert not is_trusted(place, parse('[phases.security]\nactor = "a.b:D"\n'), folder=state)
    assert not is_trusted(Workspace(tmp_path / "b"), own, folder=state)


def test_a_config_without_commands_is_trusted(tmp_path: Path) -> None:
    """The built-in crew asks nothing."""
    require_trust(Workspace(tmp_path), Config(), folder=tmp_path / "not there")


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 3}'])
def test_a_damaged_list_of_trust_trusts_nothing(tmp_path: Path, own: Config, damage: str) -> None:
    """It asks again instead of failing."""
    (tmp_path / "trusted.json").write_text(damage)
    place = Workspace(tmp_path)
    assert not is_trusted(place, own, folder=tmp_path)
    trust(place, own, folder=tmp_path)
    assert is_trusted(place, own, folder=tmp_path)
