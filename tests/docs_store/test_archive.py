"""The archive is quicker than the history and never says anything else, whatever happens to it."""

from __future__ import annotations

import sqlite3
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from docs_store import Draft, Outcome, Store
from docs_store import archive as module
from docs_store import store as store_module
from docs_store.archive import Archive, Table, empty_state, held, remove
from docs_store.errors import DamageError
from docs_store.history import Head, Position
from docs_store.messages import USER, Message, Status
from docs_store.replay import Record, apply

HERE = Position(1, 10, Head(3, "c" * 64))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of these tests archive every seven records."""
    monkeypatch.setattr(store_module, "SNAPSHOT_EVERY", 7)


def opened(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "crew")


def worked(store: Store, rounds: int = 8) -> None:
    """Posts, cycles and joins, so that messages are open, done and joined."""
    store.start_epoch("qa", store.head + 1, died=False)
    epoch = store.state.epochs["qa"].number
    for number in range(rounds):
        for _ in range(2):
            store.post(USER, Draft(to="qa", kind="Review", text=f"look at {number}", thread=f"t{store.head % 5}"))
        task = store.claim("qa", epoch)
        assert task is not None
        told = Draft(to="planning", kind="Approved", text=f"{number} is good")
        store.finish("qa", epoch, task, Outcome(result="done", detail=f"did {number}", posts=(told,)))


def replayed(store: Store) -> Any:
    """The same state from the records alone."""
    state = empty_state()
    for record in store.records():
        apply(state, record, store.topology)
    return state


def scribble(path: Path) -> None:
    path.write_bytes(b"this is no database, however long it may be" * 100)


def flip_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update rows set value = x'80'")


def misspell(path: Path) -> None:
    """Each row still can be read, and says something else."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for id_, value in connection.execute("select id, value from rows where space = 0").fetchall():
            connection.execute("update rows set value = ? where id = ?", (value.replace(b"look at", b"look on"), id_))


def sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return all(zlib.crc32(value) == crc for crc, value in connection.execute("select crc, value from rows"))


def flip_cores(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update marks set core = x'80'")


def other_format(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("drop table rows")


SPOILERS = (scribble, flip_rows, misspell, flip_cores, other_format, remove)


def test_opening_reads_little_and_knows_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the records after the last archived state are replayed, and no old message is fetched unasked."""
    worked(opened(tmp_path))
    store = opened(tmp_path)
    applied: list[int] = []
    fetched: list[str] = []

    def counting(state: Any, record: Record, topology: Any) -> None:
        applied.append(record.n)
        apply(state, record, topology)

    real = module.Source.get

    def noting(source: module.Source, name: str, key: str) -> Any:
        fetched.append(key)
        return real(source, name, key)

    monkeypatch.setattr(store_module, "apply", counting)
    monkeypatch.setattr(module.Source, "get", noting)
    again = opened(tmp_path)
    assert len(applied) < 7 < store.head
    assert len(fetched) <= 8 * len(applied)
    assert again.state == replayed(store)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_a_spoilt_archive_costs_time_only(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Damaged, of another make or gone: the history is read, and the archive is made anew by the next save."""
    store = opened(tmp_path)
    worked(store)
    path = tmp_path / "crew" / ".history" / "archive.db"
    del store
    spoil(path)
    again = opened(tmp_path)
    assert again.state == replayed(again)
    worked(again)
    assert again.state == replayed(again)
    assert opened(tmp_path).state == replayed(again)


@pytest.mark.parametrize("spoil", [flip_rows, misspell, other_format], ids=lambda spoil: spoil.__name__)
def test_an_archive_that_is_spoilt_while_open(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A store that fetches from it notices, reads the history instead, answers right, and makes a new one."""
    worked(opened(tmp_path))
    store = opened(tmp_path)
    path = tmp_path / "crew" / ".history" / "archive.db"
    spoil(path)
    assert store.state == replayed(store)
    worked(store)
    assert sound(path)
    assert store.state == replayed(store)
    assert opened(tmp_path).state == replayed(store)


def test_an_older_reader_is_not_told_what_came_later(tmp_path: Path) -> None:
    """A store that was opened before others went on sees each message as it was at its own head, then catches up."""
    writer = opened(tmp_path)
    worked(writer)
    reader, head = opened(tmp_path), writer.head
    expected = replayed(writer)
    worked(writer, 20)
    some = next(iter(expected.messages))
    assert reader.state.messages.get(some) == expected.messages[some]
    assert (reader.head, reader.state == expected) == (head, True)
    reader.refresh()
    assert reader.state == replayed(writer)


def test_several_stores_save_in_turn(tmp_path: Path) -> None:
    """Whoever archives, and with whatever behind it, the next to open reads what the history says."""
    stores = [opened(tmp_path)]
    for number in range(12):
        worked(stores[number % len(stores)], 3)
        if number == 6 and sys.platform != "win32":  # where nobody can remove what others have open
            remove(tmp_path / "crew" / ".history" / "archive.db")  # those that are open go on with what they have
        stores = [*stores[-2:], opened(tmp_path)]
        for store in stores:
            store.refresh()
            assert store.state == replayed(store)


def test_any_earlier_state_is_had_from_the_archive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of later saves do not shine through into the states before."""
    monkeypatch.setattr(module, "KEEP_ONE_IN", 20)
    store = opened(tmp_path)
    worked(store, 15)
    state = empty_state()
    for record in store.records():
        apply(state, record, store.topology)
        if record.n % 9 == 0:
            then = store.state_at(record.n)
            assert then == state
            assert list(then.messages) == list(state.messages)
    with closing(sqlite3.connect(tmp_path / "crew" / ".history" / "archive.db")) as connection:
        kept = [n for (n,) in connection.execute("select n from marks where core is not null order by n")]
    assert len(kept) <= store.head // 20 + 3, "of old states one in twenty records is kept"


def test_an_archive_of_records_that_are_gone_is_a_witness(tmp_path: Path) -> None:
    """A history that is shorter than what was archived of it was cut; it is not begun anew over that."""
    store = opened(tmp_path)
    worked(store)
    path = tmp_path / "crew" / ".history" / "0000000001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    with pytest.raises(DamageError, match="wiped or cut"):
        opened(tmp_path)
    path.unlink()
    with pytest.raises(DamageError, match="missing"):
        opened(tmp_path)


def test_another_history_s_archive_is_not_added_to(tmp_path: Path) -> None:
    """An archive that turned up beside a history that it is not of is replaced, not mixed with it."""
    for name in "ab":
        worked(Store.open(tmp_path / name))
    store = Store.open(tmp_path / "c")
    foreign = Archive(tmp_path / "a" / ".history" / "archive.db")
    assert foreign.save(store._history.position, store.state, store._history.holds) is True
    assert Archive(foreign.path).load(lambda _: True, lambda _: empty_state()) is not None
    with closing(sqlite3.connect(foreign.path)) as connection:
        assert connection.execute("select count(*) from marks").fetchone() == (1,)


def test_a_table_is_a_dict_in_order(tmp_path: Path) -> None:
    """Keys keep the order of their first appearance, over any number of saves; a key is not forgotten."""
    archive = Archive(tmp_path / "archive.db")
    state = empty_state()
    for n, keys in enumerate(("ba", "cb", "da"), 1):
        for key in keys:
            state.renewed[key] = n
        state.n, state.hash = n, str(n) * 64
        assert archive.save(Position(1, n, Head(n, state.hash)), state, lambda _: True)
    found = Archive(archive.path).load(lambda _: True, lambda _: empty_state())
    assert found is not None
    table: Any = found[1].renewed
    table["e"] = 9
    table["b"] = 7
    assert "z" not in table
    assert list(table.items()) == [("b", 7), ("a", 3), ("c", 2), ("d", 3), ("e", 9)]
    assert list(reversed(table)) == ["e", "d", "c", "a", "b"]
    assert table == {"a": 3, "b": 7, "c": 2, "d": 3, "e": 9}
    assert len(table) == 5
    with pytest.raises(TypeError, match="forgets nothing"):
        del table["a"]


def test_a_full_disk_does_not_take_the_archive_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes by itself leaves what was saved before; only what is broken is made anew."""
    store = opened(tmp_path)
    worked(store)
    path = tmp_path / "crew" / ".history" / "archive.db"
    with closing(sqlite3.connect(path)) as connection:
        (before,) = connection.execute("select count(*) from marks").fetchone()
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> Any:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = 13
            raise error

        patch.setattr(module, "_packed", full)
        worked(store)
    assert path.exists()
    worked(store)
    with closing(sqlite3.connect(path)) as connection:
        (after,) = connection.execute("select count(*) from marks").fetchone()
    assert after > before
    assert opened(tmp_path).state == replayed(store)


def test_an_archive_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving says no, the store goes on, and what had changed is saved with the next one."""
    store = opened(tmp_path)
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

        patch.setattr(module, "_connect", full)
        worked(store)
        assert not (tmp_path / "crew" / ".history" / "archive.db").exists()
    worked(store)
    assert opened(tmp_path).state == replayed(store)


@pytest.mark.only_on("posix", reason="links need a right there")
def test_a_linked_archive_is_not_followed(tmp_path: Path) -> None:
    """A link in its place is replaced by an archive; what it pointed to is neither read nor written."""
    worked(opened(tmp_path))
    path = tmp_path / "crew" / ".history" / "archive.db"
    elsewhere = tmp_path / "elsewhere"
    remove(path)
    elsewhere.write_bytes(b"")
    path.symlink_to(elsewhere)
    store = opened(tmp_path)
    worked(store)
    assert store.state == replayed(store)
    assert elsewhere.read_bytes() == b""
    assert not path.is_symlink()
    assert path.exists()


def test_the_index_follows_from_the_messages(tmp_path: Path) -> None:
    """A state made from messages alone has the same queues as one that lived through the records."""
    store = opened(tmp_path)
    worked(store, 12)
    messages: dict[str, Message] = dict(store.state.messages)
    made = type(store.state)(messages=messages, finished=dict(store.state.finished))
    index = store.state.index
    assert {to: queue.entries for to, queue in made.index.unfinished.items()} == {
        to: queue.entries for to, queue in index.unfinished.items() if to in made.index.unfinished
    }
    assert made.index.received == index.received
    assert made.index.completed == index.completed
    assert {k: sorted(r.ids) for k, r in made.index.closed.items()} == {
        k: sorted(r.ids) for k, r in index.closed.items()
    }
    assert any(message.status is Status.OPEN for message in messages.values())
    assert isinstance(opened(tmp_path).state.messages, Table)


@pytest.mark.parametrize("most", [20, 1_000_000])
def test_memory_follows_what_is_wanted_and_not_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A store that writes and one that only looks keep little of what is done; asked for anything, they have it."""
    monkeypatch.setattr(store_module, "MOST_HELD", most)
    writer, looker = opened(tmp_path), opened(tmp_path)
    writer.start_epoch("qa", 1, died=False)
    first = writer.post("user", Draft(to="qa", kind="Review", text="the first"))
    kept = writer.post("user", Draft(to="planning", kind="Issue", text="never claimed")).id
    for number in range(200):
        task = writer.claim("qa", 1)
        assert task is not None
        writer.finish("qa", 1, task, Outcome(result="done", detail=str(number)))
        writer.post("user", Draft(to="qa", kind="Review", text=f"look at {number}"))
        looker.refresh()
        if number % 10 == 0:  # between two snapshots, too
            assert looker.text("QA_READ") == writer.text("QA_READ")
            assert [report.detail for report in writer.state.reports.since(writer.head - 3)] == [str(number)]
    assert (held(writer.state) < 300) is (most == 20)
    assert (held(looker.state) < 300) is (most == 20)
    for store in (writer, looker):
        assert store.state.messages[first.id].status is Status.DONE
        assert store.state.messages[kept].status is Status.OPEN
        assert "nothing" not in store.state.messages
        assert len(store.state.reports.since(0)) == 200
    assert writer.state == looker.state == opened(tmp_path).state


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can remove what is open")
def test_what_was_let_go_is_read_from_the_history_if_the_archive_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed, made anew by another, removed again: each store has all values, and saves go on."""
    monkeypatch.setattr(store_module, "MOST_HELD", 0)
    one, other = opened(tmp_path), opened(tmp_path)
    ids = []
    for number in range(60):
        store = (one, other)[number % 2]
        ids.append(store.post("user", Draft(to="qa", kind="Review", text=f"look at {number}")).id)
        if number % 17 == 16:
            remove(tmp_path / "crew" / ".history" / "archive.db")
    for store in (one, other):
        store.refresh()
        assert [store.state.messages[id].text for id in ids] == [f"look at {n}" for n in range(60)]  # noqa: A001
    assert one.state == other.state == opened(tmp_path).state


def test_nothing_is_let_go_that_the_archive_has_not(tmp_path: Path) -> None:
    """If somebody begins the file anew right after a save, all stays in memory until the next one."""
    store = opened(tmp_path)
    worked(store)
    known = list(store.state.messages)
    archive = Archive(tmp_path / "crew" / ".history" / "archive.db")
    with closing(sqlite3.connect(archive.path)) as connection, connection:
        connection.execute("delete from marks")
        connection.execute("delete from rows")
    for _ in range(2):
        archive.lighten(store.state, lambda _: empty_state())
    assert [message.id for message in (store.state.messages[id] for id in known)] == known  # noqa: A001
