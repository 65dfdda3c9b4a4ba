"""A wall clock that jumps by days, in the supervisor and in its workers: order and durations do not follow it."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import LIMIT, Shop, end
from tests.e2e.test_flows import LINT
from tests.e2e.test_kills import check_once

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

# Each second the clock is somewhere else: days behind, years ahead, right.
DRIVER = "\n\nfrom actors.drivers.builtin import driver_for"
JUMPY = """
import time

RIGHT, DAY = time.time, 86_400


def jumping():
    now = RIGHT()
    return now + (-3 * DAY, 800 * DAY, 0, -DAY, 90 * DAY)[int(now) % 5]


time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""
PROGRAM = f"{JUMPY}\nimport sys\nfrom supervisor.cli.main import main\nsys.exit(main())\n"
PHASE = f"""
{JUMPY.replace("import time", "import time" + DRIVER, 1)}

class Jumpy:
    def __init__(self):
        self.inner = None

    async def perform(self, task, context):
        self.inner = self.inner or driver_for(context.phase)
        return await self.inner.perform(task, context)
"""


def test_a_clock_that_jumps(shop: Shop, tmp_path: Path) -> None:
    """The work is done as ever, nobody is judged, nothing that was recorded is taken for old, the order is kept."""
    shop.write("shop/cart.py", LINT.replace('"v" + "ip"', '"vip"'))
    (shop.root / "jumpy.py").write_text(PHASE, encoding="utf-8")
    phases = ("planning", "developer", "qa", "debugging")
    shop.write("supervisor.toml", "".join(f'[phases.{phase}]\nactor = "jumpy:Jumpy"\n' for phase in phases))
    shop.say("trust")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    with (tmp_path / "shop.out").open("a") as out:
        process = subprocess.Popen(
            [sys.executable, str(program), "run", "--until-idle", "--plain"],
            cwd=shop.root,
            env=shop.environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        assert process.wait(LIMIT) == 0, shop.output
    finally:
        end(process)
    events = shop.events()
    stamps = [event["timestamp"] for event in events]
    assert max(stamps) - min(stamps) > 86_400, "the clock has jumped"
    assert any(later < sooner - 80_000 for sooner, later in pairwise(stamps))
    assert not [
        event for event in events if event["step"] in {"verdict", "limit", "exit"} and "signal" in event["detail"]
    ]
    assert shop.posts("Fixed") or shop.records("finish")
    check_once(shop)
    assert [record["n"] for record in shop.records()] == list(range(1, len(shop.records()) + 1))
