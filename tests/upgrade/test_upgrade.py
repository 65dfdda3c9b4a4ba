"""A workspace that an earlier release left behind opens, runs and has lost nothing; a newer one is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from docs_store.history import Head, encode
from docs_store.messages import Status
from docs_store.store import Store
from supervisor.control.endpoint import endpoint_file
from supervisor.workspace import FORMATS, Workspace, runtime_folder
from tests.e2e.conftest import Shop, shop_in

pytestmark = [pytest.mark.timeout(200)]

KEPT = sorted(Path(__file__).parent.glob("workspace-*.tar.gz"))


def unpacked(archive: Path, folder: Path) -> tuple[Shop, dict[str, Any]]:
    """The workspace as it was when its supervisor died, and what must still be in it."""
    root = folder / "shop"
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    expected: dict[str, Any] = json.loads((root / "expected.json").read_text("utf-8"))
    (root / "expected.json").unlink()
    return shop_in(root), expected


def older(shop: Shop) -> None:
    """The same without what came late to the first release: numbers of formats, a table of the journal, cursors."""
    state = shop.root / ".supervisor"
    (state / "format.json").unlink()
    (state / "status.json").unlink()
    toml = [line for line in shop.read("supervisor.toml").splitlines(keepends=True) if not line.startswith("format")]
    shop.write("supervisor.toml", "".join(toml))
    shutil.rmtree(shop.root / "crew" / ".history" / "cursors", ignore_errors=True)
    connection = sqlite3.connect(state / "journal.db")
    connection.execute("DROP TABLE finished")
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="as it was"),
        pytest.param(older, id="without later additions", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_an_earlier_release_s_workspace_opens_runs_and_loses_nothing(
    archive: Path, change: Callable[[Shop], None] | None, tmp_path: Path
) -> None:
    """History, events, spools, questions, hand edits and deliveries: all there, each once, after a run of today's."""
    shop, expected = unpacked(archive, tmp_path)
    if change is not None:
        change(shop)
    history = {path.name: path.read_bytes() for path in (shop.root / "crew" / ".history").glob("*.jsonl")}
    shop.say("docs", "verify")
    assert [event["cursor"] for event in shop.events()] == expected["cursors"]
    assert [one["id"] for one in shop.ask("inbox")] == expected["inbox"]

    assert shop.run() == 1, shop.output

    shop.say("docs", "verify")
    for name, before in history.items():
        assert (shop.root / "crew" / ".history" / name).read_bytes().startswith(before)
    events = shop.events()
    assert numbers(events)[: len(expected["cursors"])] == [cursor.partition(":")[2] for cursor in expected["cursors"]]
    spooled = {tuple(one) for one in expected["spooled"]}
    found = [event for event in events if (event["worker"], event["epoch"], event["seq"]) in spooled]
    assert (len(found), {event["transport"] for event in found}) == (len(spooled), {"spool"})
    state = Store.open(shop.root / "crew", create=False).refresh()
    (by_hand,) = (message for message in state.messages.values() if message.text == expected["by_hand"])
    assert (by_hand.by, by_hand.status) == ("user", Status.DONE)
    assert state.messages[expected["task"]].status is Status.DONE
    assert [one["id"] for one in shop.ask("inbox")] == expected["inbox"]
    assert shop.ask("rollout", "status")["current_stage"] == 0.1
    assert json.loads(shop.read(".supervisor/format.json")) == FORMATS

    (task,) = expected["delivered"]
    assert "import json" not in shop.read("shop/cart.py")
    shop.say("undo", task)
    assert "import json" in shop.read("shop/cart.py")


def numbers(events: list[dict[str, Any]]) -> list[str]:
    """The cursors without their store, which is another one on a machine that was started anew since."""
    return [event["cursor"].partition(":")[2] for event in events]


# --- what a newer release wrote ---------------------------------------------------------------------------------------


def newer_format(name: str) -> Callable[[Shop], None]:
    def change(shop: Shop) -> None:
        shop.write(".supervisor/format.json", json.dumps({**FORMATS, name: FORMATS.get(name, 0) + 1}))

    return change


def newer_toml(shop: Shop) -> None:
    shop.write("supervisor.toml", "format = 2\n[hologram]\ncolour = 3\n")


def newer_record(shop: Shop) -> None:
    """One that a program with another `v` appended, whole and with the right hash."""
    segment = max((shop.root / "crew" / ".history").glob("*.jsonl"))
    last = json.loads(segment.read_bytes().splitlines()[-1])
    line = encode(Head(last["n"], last["hash"]), at=last["at"], by="user", epoch=0, kind="post", data={})
    body = line[: line.rindex(b',"hash"')].replace(b'{"v":1,', b'{"v":2,', 1)
    with segment.open("ab") as file:
        file.write(b'%b,"hash":"%b"}\n' % (body, hashlib.sha256(body).hexdigest().encode()))


def newer_journal(shop: Shop) -> None:
    connection = sqlite3.connect(shop.root / ".supervisor" / "journal.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def newer_rollout(shop: Shop) -> None:
    said = json.loads(shop.read(".supervisor/rollout.json"))
    shop.write(".supervisor/rollout.json", json.dumps({**said, "format": 2}))


def running(shop: Shop) -> None:
    """This process for a supervisor, as far as the lock's file tells."""
    me = {"pid": os.getpid(), "created": psutil.Process().create_time(), "role": "supervisor"}
    shop.write(".supervisor/lock", json.dumps(me))


def newer_status(shop: Shop) -> None:
    running(shop)
    said = json.loads(shop.read(".supervisor/status.json"))
    shop.write(".supervisor/status.json", json.dumps({**said, "format": 2}))


def newer_control(shop: Shop) -> None:
    running(shop)
    path = endpoint_file(Workspace(shop.root), runtime_folder(shop.environ))
    said = {"pid": os.getpid(), "port": 1, "token": "t", "workspace": str(shop.root), "format": 2}
    path.write_text(json.dumps(said), "utf-8")


REFUSED: Mapping[str, tuple[Callable[[Shop], None], tuple[str, ...], str]] = {
    "workspace": (newer_format("format"), ("status", "run", "inbox"), "newer release (workspace format 2; this"),
    "spools": (newer_format("spools"), ("status", "run"), "newer release (spools format 3; this one knows 2)"),
    "something unknown": (newer_format("holograms"), ("run",), "holograms format 1; this one knows none"),
    "configuration": (newer_toml, ("run", "inbox"), "line 1: format: 2 is a newer release's; this one knows 1"),
    "history": (newer_record, ("run", "inbox", "docs verify"), "format 2, this version knows 1"),
    "journal": (newer_journal, ("run", "events"), "journal.db has format 2; this program knows 1"),
    "rollout": (
        newer_rollout,
        ("rollout status", "rollout advance"),
        "rollout.json cannot be understood: it is of format 2",
    ),
    "status": (newer_status, ("status",), "status.json was written by a newer release (format 2"),
    "control API": (newer_control, ("status", "pause", "stop"), "is of a newer release (control API format 2"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_newer_release_wrote_is_refused_by_name(what: str, tmp_path: Path) -> None:
    """Exit 78, a text that says what is too new, and not a byte of the workspace changed."""
    shop, _ = unpacked(KEPT[-1], tmp_path)
    change, commands, text = REFUSED[what]
    change(shop)
    before = contents(shop.root)
    for command in commands:
        code, said = shop.tries(*command.split())
        assert (code, text in said, "Traceback" in said) == (78, True, False), (command, code, said)
    assert contents(shop.root) == before


def contents(root: Path) -> dict[str, bytes]:
    """Every file, without what looking leaves behind: locks, logs, what a database keeps beside it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "logs" not in path.parts and not re.search(r"^journal\.db|lock$", path.name)
    }
