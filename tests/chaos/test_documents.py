"""Eight processes post at once while one of them is killed every second: nothing is lost, nothing is there twice."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from docs_store import Store
from docs_store.reconcile import Reconciler

ROOT = Path(__file__).parents[2]
WRITERS = 8
KILLS = 3 * WRITERS
LEAST = 20  # posts of each; many times that where nothing is slow
WRITER = """
import os, sys
from itertools import count
from docs_store import Draft, Store
folder, head, name, enough = sys.argv[1:]
store = Store.open(folder, head_file=head, deadline=60)
print("ready", flush=True)
for number in count():
    if os.path.exists(enough):
        break
    draft = Draft(to=("qa", "debugging")[number % 2], kind="Issue", text=f"{number} of {name}")
    if store.post("user", draft, id=f"{name}-{number}").new:
        print(number, flush=True)
"""


class Writer:
    """One writer, over all of its lives. It posts the same from the beginning in each: ids make that harmless."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.confirmed: list[int] = []
        paths = [str(folder / "crew"), str(folder / "head"), name, str(folder / "enough")]
        self._command = [sys.executable, "-c", WRITER, *paths]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self, *, kill: bool) -> int:
        if kill:
            self.process.kill()
        said, _ = self.process.communicate(timeout=240)
        self.confirmed += [int(line) for line in said.split("\n") if line.strip()]
        return self.process.returncode


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_eight_writers_and_a_kill_every_second(tmp_path: Path) -> None:
    """Each post is on record once and in its writer's order, the chain verifies, and the views are what it says."""
    store = Store.open(tmp_path / "crew", head_file=tmp_path / "head")
    reconciler = Reconciler(store, tmp_path / "crew")
    reconciler.start()
    writers = [Writer(tmp_path, f"w{number}") for number in range(WRITERS)]
    for kill in range(KILLS):
        victim = writers[kill % WRITERS]
        until = time.monotonic() + 1
        while time.monotonic() < until:
            reconciler.step()
            with suppress(subprocess.TimeoutExpired):
                victim.process.wait(0.1)
        assert victim.process.poll() is None
        victim.end(kill=True)
        victim.start()
    (tmp_path / "enough").touch()
    assert [writer.end(kill=False) for writer in writers] == [0] * WRITERS
    assert store.verify().ok
    posted = [item["id"] for record in store.records() if record.kind == "post" for item in record.data["posts"]]
    for writer in writers:
        mine = [int(id.partition("-")[2]) for id in posted if id.startswith(f"{writer.name}-")]  # noqa: A001
        assert mine == list(range(len(mine)))
        assert set(writer.confirmed) <= set(mine)
        assert len(set(writer.confirmed)) == len(writer.confirmed), "nothing is new twice"
        assert len(writer.confirmed) > LEAST
    fresh = Store.open(tmp_path / "crew", head_file=tmp_path / "head")
    assert list(fresh.state.messages) == posted
    assert fresh.state == store.refresh()
    settled = reconciler.settle(within=30)
    assert not settled.waiting
    assert not settled.problems
    for document in store.topology.documents:
        assert (tmp_path / "crew" / document.file).read_text("utf-8") == fresh.text(document.name)
