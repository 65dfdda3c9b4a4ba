"""`run --validate-ipc` as people type it: the same work in both modes, compared, and counted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import LIMIT, Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

# QA's loop; what it says of its cost is another number each time.
COSTLY = '''
    """A QA that says what it cost."""

    import uuid

    from actors.actor import main as usual


    async def main(line, assignment):
        line.emitter.emit("qa", "counting", type="finding", summary={"cost": uuid.uuid4().int % 10**9, "unit": "ct"})
        await usual(line, assignment)
'''
SHOTS = '''
    """A QA that makes a screenshot; by stdout one bit of it is another."""

    import actors.modes
    from actors.actor import main as usual


    async def main(line, assignment):
        bit = assignment.mode == "stdout"
        line.emitter.emit("qa", "looking", type="screenshot", data=bytes(999) + bytes([bit]))
        if not bit:
            line.emitter.emit("qa", "looking", detail="only by queue", type="finding")
        await usual(line, assignment)
'''


def validate(shop: Shop, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        shop.command("run", "--validate-ipc", "--json", *arguments),
        cwd=shop.root,
        env=shop.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def give_qa(shop: Shop, code: str, ipc: str = "") -> None:
    shop.write("own_qa.py", code)
    shop.write("supervisor.toml", f'[ipc]\nrollout = 1.0\n{ipc}\n[phases.qa]\nactor = "own_qa:main"\n')
    shop.say("trust")


def test_the_crew_does_the_same_in_both_modes_and_that_counts(shop: Shop) -> None:
    """A bug is found and fixed on two copies, without one difference; the workspace itself stays as it is."""
    shop.write("shop/cart.py", '"""Cart."""\n\n\ndef total(prices: list[int]) -> int:\n    return sum(prices) + 1\n')
    before = shop.files()
    shop.say("rollout", "start")
    code, report = validate(shop)
    assert [d for run in report["reports"] for d in run["differences"]] == []
    assert (code, report["matched"]) == (0, 1)
    assert report["reports"][0]["events"] > 20
    assert report["reports"][0]["documents"] == 13
    assert shop.files() == before
    assert shop.ask("rollout", "status")["validation_matches"] == 1
    assert [entry["act"] for entry in shop.ask("rollout", "history")] == ["start", "validation"]


def test_what_varies_by_nature_is_named_and_can_be_marked(shop: Shop) -> None:
    """The report says which field differs; marked in supervisor.toml, the next run matches."""
    give_qa(shop, COSTLY)
    code, report = validate(shop)
    (found,) = report["reports"][0]["differences"]
    assert code == 1
    assert (found["field"], found["mark"]) == ("summary.cost", "summary.cost")
    give_qa(shop, COSTLY, 'validation_ignores = ["summary.cost"]')
    assert validate(shop)[1]["matched"] == 1


def test_a_lost_event_and_a_flipped_byte_are_seen(shop: Shop) -> None:
    """Planted in the worker of one mode: both are printed, nothing else is."""
    give_qa(shop, SHOTS)
    code, report = validate(shop)
    assert code == 1
    found = report["reports"][0]["differences"]
    assert [(d["field"], d["stdout"] == "") for d in found] == [("data", False), ("event", True)]
    assert report["reports"][0]["screenshots"] == 1


@pytest.mark.timeout(1500)
def test_the_example_does_the_same_in_both_modes(tmp_path: Path) -> None:
    """Findings, fixes, a feature, a blocker, some two thousand events: no difference."""
    folder = tmp_path / "alerts"
    shutil.copytree(ROOT / "examples" / "alerts", folder, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "home")}
    (tmp_path / "home").mkdir(mode=0o700)
    alerts = Shop(folder, environ)
    alerts.say("init")
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "run", "--validate-ipc"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "1 of 1 matched exactly." in done.stdout
