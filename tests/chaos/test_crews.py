"""Whole crews whose processes are killed and stopped at random: in the end all is there once, and nobody is left."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from docs_store.messages import Draft
from docs_store.store import Store
from supervisor.workspace import Workspace
from tests.chaos.account import Account
from tests.chaos.crews import MARK, ROLES, Blow, Chaos, ChaosCrew, plan
from tests.chaos.relay import text_of

ROOT = Path(__file__).parents[2]
PEACE = Blow(pause=1e9, what="stop", crew=0, role="agent")
pytestmark = pytest.mark.only_on("posix", reason="its blows are signals")


def account(crew: ChaosCrew) -> Account:
    return Account(crew.root, crew.witnesses, crew.chains, crew.died_together())


def test_the_same_seed_gives_the_same_blows() -> None:
    """A run can be had again: who is hit how and when follows from the seed; in time everybody is."""
    assert list(islice(plan(7, 2), 500)) == list(islice(plan(7, 2), 500))
    assert list(islice(plan(7, 2), 50)) != list(islice(plan(8, 2), 50))
    assert {(blow.what, blow.role) for blow in islice(plan(7, 2), 2000)} >= {
        (what, role) for what in ("kill", "stop") for role in ROLES
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_minute_of_chaos(tmp_path: Path) -> None:
    """Two crews at work for a minute, hit at random: no process is left, nothing is lost or doubled, the work ends."""
    chaos = Chaos(tmp_path, seed=3)
    try:
        codes = chaos.run(60.0)
        found = {crew.name: account(crew).problems() for crew in chaos.crews}
    finally:
        chaos.close()
    told = "\n".join([*map(str, found.items()), *chaos.lines[-400:]])
    assert set(codes.values()) == {0}, told
    assert not any(found.values()), told
    assert {what for what in chaos.blows if "supervisor" in what} >= {"kill supervisor"}, chaos.blows
    assert sum(chaos.blows.values()) > 10, chaos.blows
    assert all(sum(crew.chains.values()) > 10 for crew in chaos.crews)


# --- controls: the account can fail -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """A crew that nobody has hurt; nothing is wrong with it."""
    chaos = Chaos(tmp_path_factory.mktemp("peace"), seed=1, crews=1, blows=iter([PEACE]))
    try:
        assert chaos.run(3.0) == {"a": 0}
        (crew,) = chaos.crews
        told = account(crew)
        assert told.chains
        assert told.problems() == []
    finally:
        chaos.close()
    return told


def history(told: Account) -> Path:
    return max((told.root / "crew" / ".history").glob("*.jsonl"))


def cut_history(told: Account) -> None:
    lines = history(told).read_bytes().splitlines(keepends=True)
    history(told).write_bytes(b"".join(lines[:-2]))


def edit_history(told: Account) -> None:
    history(told).write_bytes(history(told).read_bytes().replace(b"hop 1 of", b"hop 9 of", 1))


def change_view(told: Account) -> None:
    with (told.root / "crew" / "QA_WRITE.md").open("a") as file:
        file.write("more\n")


def journal(told: Account, *statements: str) -> None:
    database = sqlite3.connect(Workspace(told.root).journal)
    with database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0
    database.close()


FINDINGS = "(SELECT min(first_cursor) FROM tags WHERE type = 'finding')"


def lose_events(told: Account) -> None:
    journal(told, f"DELETE FROM frames WHERE first_cursor = {FINDINGS}")


def double_events(told: Account) -> None:
    columns = "n, first_seq, last_seq, worker, epoch, transport, at, seqs, blob"
    later = (
        f"(SELECT max(f.first_cursor) FROM frames f JOIN frames g ON g.first_cursor = {FINDINGS} AND f.n = g.n"
        " AND f.worker = g.worker)"
    )
    journal(
        told,
        f"UPDATE frames SET ({columns}) = (SELECT {columns} FROM frames WHERE first_cursor = {FINDINGS})"
        f" WHERE first_cursor = {later}",
    )


def leave_an_epoch(told: Account) -> None:
    journal(told, "UPDATE epochs SET closed = NULL WHERE worker = 'qa'")


def forget_a_witness(told: Account) -> None:
    next(told.witnesses.glob("witness-*")).unlink()


def live_beside(told: Account) -> None:
    (told.witnesses / "overlaps").write_text("1 had started process 2 for qa, which still lives\n")


def post_again(told: Account) -> None:
    chain, hops = next(iter(told.chains.items()))
    store = Store.open(told.root / "crew", head_file=Workspace(told.root).head)
    store.post("user", Draft(to="qa", kind="Review", text=text_of(chain, 1, hops)))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_history, ["does not verify"]),
        (edit_history, ["does not verify"]),
        (change_view, ["QA_WRITE.md is not what"]),
        (lose_events, ["was given and is not there"]),
        (double_events, ["is there 2 times", "comes after"]),
        (leave_an_epoch, ["is not closed"]),
        (forget_a_witness, ["findings of a worker that has no witness"]),
        (live_beside, ["still lives"]),
        (post_again, ["was posted 2 times", "is open"]),
    ],
)
def test_the_account_can_fail(
    tmp_path: Path, peaceful: Account, damage: Callable[[Account], None], words: Sequence[str]
) -> None:
    """Control: whatever is taken away, added or changed afterwards is noticed, and named."""
    shutil.copytree(peaceful.root, tmp_path / "a")
    shutil.copytree(peaceful.witnesses, tmp_path / "witnesses")
    told = replace(peaceful, root=tmp_path / "a", witnesses=tmp_path / "witnesses")
    assert told.problems() == []
    damage(told)
    found = told.problems()
    for word in words:
        assert any(word in problem for problem in found), found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_account_misses_work_and_sees_who_is_left(peaceful: Account) -> None:
    """Control: a chain that was asked for and not done, and a process that still runs, are named."""
    more = replace(peaceful, chains={**peaceful.chains, "x": 2})
    assert "hop 1 of chain x was never finished" in more.problems()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print('ready', flush=True); input()"],
        env={MARK: str(peaceful.root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"ready\n"
        assert peaceful.problems() == [f"process {left.pid} is left"]
        left.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_the_judge_there_are_doubles(tmp_path: Path) -> None:
    """Control: a supervisor that takes every event for new, and is stopped for a while, has some of them twice."""
    blows = iter([Blow(pause=1.0, what="stop", crew=0, role="supervisor", length=6.0), PEACE])
    chaos = Chaos(tmp_path, seed=1, crews=1, blows=blows, program=[str(ROOT / "tests/chaos/gullible.py")])
    try:
        chaos.run(12.0)
        (crew,) = chaos.crews
        found = account(crew).problems()
    finally:
        chaos.close()
    assert any("times" in problem for problem in found), "\n".join([*found, *chaos.lines])
