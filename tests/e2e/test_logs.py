"""What a crew that runs for weeks leaves in its log folder: all that happened, and no more than was allowed."""

from __future__ import annotations

import json
import time

import pytest

from supervisor.logs import LOOK_EVERY
from tests.e2e.conftest import LIMIT, Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CHATTY = '''
    """A phase that prints a megabyte in each of its many moments."""

    import os

    import anyio

    from ipc import control


    async def main(line, assignment):
        line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))
        while True:
            print("blah " * 20_000, flush=True)
            await anyio.sleep(0.1)
'''


def test_logs_tell_what_happened_and_stay_within_their_size(shop: Shop) -> None:
    """A worker's log is cut while it runs; a death and what was decided are lines of supervisor.log, here as JSON."""
    shop.write("chatty.py", CHATTY)
    shop.write(
        "supervisor.toml",
        '[log]\nformat = "json"\nmax_mb = 1\n[phases.chatty]\nactor = "chatty:main"\nassess = false\n',
    )
    shop.say("trust")
    folder = shop.root / ".supervisor" / "logs"
    with shop.watch() as run:
        run.until(lambda event: event["step"] == "ready" and event["phase"] == "chatty")
        deadline = time.monotonic() + LIMIT
        while not (aside := list(folder.glob("chatty-*.log.1"))) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert [path.stat().st_size for path in aside] == [1024 * 1024]
        (now,) = folder.glob("chatty-*.log")
        assert now.stat().st_size < (LOOK_EVERY + 5) * 10 * 100_001, "it prints that much between two looks"
        run.kill("qa")
        run.until(lambda event: event["step"] == "decision" and event["phase"] == "qa")
        run.stop()
    lines = [json.loads(line) for line in (folder / "supervisor.log").read_text("utf-8").splitlines()]
    told = [(line["level"], line["phase"], line["step"]) for line in lines if "step" in line]
    assert ("error", "qa", "exit") in told
    assert told.count(("info", "qa", "decision")) == 1
    assert told[-1] == ("info", "supervisor", "end")
