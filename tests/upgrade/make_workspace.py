"""Makes the workspace that a release leaves behind, with everything in it that an upgrade could lose.

`python -m tests.upgrade.make_workspace tests/upgrade/workspace-X.Y.Z.tar.gz`, with the code of that release, before a
format changes; the file is kept for ever. It is made by real processes: a run with a delivered fix and a question for
the user, a rollout begun, a task that nobody has seen, a line written by hand that nobody has taken in, and a second
run whose supervisor is stopped and then killed with all its workers, so that a report is on record whose events are in
a spool only. `expected.json` inside says what must still be there.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from ipc.spool import Record, read_spool
from tests.e2e.conftest import FILES, Shop, make_shop

UNTIDY = FILES["shop/cart.py"].replace("def total", "import json\n\n\n        def total")
ASKS = """
    from shop.cart import total


    def test_total_of_nothing_is_free():
        assert total([]) == "free"
"""
BY_HAND = "- [ ] Verify: this line was written by hand"


def main(target: Path) -> None:
    """Make, kill, pack."""
    with tempfile.TemporaryDirectory() as folder:
        shop = make_shop(Path(folder) / "shop", {**FILES, "shop/cart.py": UNTIDY, "tests/test_free.py": ASKS})
        say(shop.run(), "the first run, exit 1: something waits for the user")
        shop.say("rollout", "start")
        seen = cut_short(shop)
        task = shop.ask("task", "Check what the upgrade kept", "--to", "qa")["id"]
        document = shop.root / "crew" / "QA_READ.md"
        text = document.read_text("utf-8")
        document.write_text(text.replace("\n## Context", f"{BY_HAND}\n\n## Context"), "utf-8")
        events = shop.events()
        expected = {
            "records": len(shop.records()),
            "cursors": [event["cursor"] for event in events],
            "spooled": seen,
            "task": task,
            "by_hand": BY_HAND.partition(": ")[2],
            "inbox": [one["id"] for one in shop.ask("inbox")],
            "delivered": [one["task"] for one in shop.ask("changes") if one["state"] == "delivered"],
        }
        say(0, json.dumps({**expected, "cursors": len(events)}, indent=1))
        shop.write("expected.json", json.dumps(expected))
        pack(shop.root, target)
        say(0, f"{target}: {target.stat().st_size:,} bytes")


def cut_short(shop: Shop) -> list[tuple[str, int, int]]:
    """A run that dies between a report and its events; the events that only the spools have."""
    shop.say("task", "Look once more", "--to", "qa")
    with shop.watch("--use-queue-ipc") as run:
        run.until(lambda event: event["type"] == "phase_start" and event["phase"] == "qa")
        os.kill(run.process.pid, signal.SIGSTOP)
        before = reports(shop)
        while reports(shop) == before:
            time.sleep(0.05)
        time.sleep(1.0)  # for the worker to emit what follows the commit; nobody is there to say that it has
        for process in shop.workers():
            process.kill()
        run.process.kill()
        run.process.wait()
    spools = shop.root / ".supervisor" / "spools"
    known = {(event["worker"], event["epoch"], event["seq"]) for event in shop.events()}
    found = []
    for folder in sorted(spools.iterdir()):
        worker, _, epoch = folder.name.rpartition("-")
        found += [(worker, int(epoch), record.seq) for record in read_spool(folder) if isinstance(record, Record)]
    return [one for one in found if one not in known]


def reports(shop: Shop) -> int:
    return sum(record["by"] == "qa" for record in shop.records("finish"))


def pack(root: Path, target: Path) -> None:
    """Without owners and times: they would say nothing."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=9) as archive:
        for path in sorted(root.rglob("*")):
            if "__pycache__" not in path.parts and not path.is_symlink():
                archive.add(path, arcname=path.relative_to(root).as_posix(), recursive=False, filter=plain)
    target.write_bytes(raw.getvalue())


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def say(code: int, text: Any) -> None:
    sys.stdout.write(f"{f'({code}) ' if code else ''}{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
