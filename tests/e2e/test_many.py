"""A crew of sixty-four: it starts, loses several workers at once, gets them back, works, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Shop, end, living
from tests.systems import SIGKILL

LIMIT = 300.0  # seconds for one step on a busy machine; a quiet one needs a tenth
OWN = [f"own_{number:02}" for number in range(60)]
PHASES = ["planning", "developer", "qa", "debugging", *OWN]
VICTIMS = PHASES[3::4]  # sixteen, among them one of the four


def until(shop: Shop, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, dict[str, Any]]:
    """The phases of the status, as soon as it holds for each of them."""
    deadline = time.monotonic() + LIMIT
    phases: dict[str, dict[str, Any]] = {}
    while time.monotonic() < deadline:
        phases = shop.ask("status", check=False)["phases"]
        if phases and all(holds(phase) for phase in phases.values()):
            return phases
        time.sleep(0.5)
    others = {key: phase for key, phase in phases.items() if not holds(phase)}
    raise AssertionError((f"not everybody {what}", others, shop.output[-2000:]))


def finished(shop: Shop) -> set[str]:
    """The messages whose cycle is over."""
    return {event["summary"]["message"] for event in shop.events() if event["type"] == "phase_complete"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sixty_four_phases_run_and_restart_cleanly(shop: Shop) -> None:
    """Sixteen killed in one go are replaced once each, the others never; a task is done after it; none survives."""
    shop.write("supervisor.toml", "".join(f'[phases.{key}]\nactor = "actors.testing:ProbeDriver"\n' for key in PHASES))
    shop.say("trust")
    process = shop.start()
    try:
        before = until(shop, lambda phase: phase["state"] == "ready" and not phase["task"], "became ready")
        assert set(before) == set(PHASES)
        assert len({phase["pid"] for phase in before.values()}) == 64
        for key in VICTIMS:
            os.kill(before[key]["pid"], SIGKILL)
        until(shop, lambda phase: phase["pid"] not in {before[key]["pid"] for key in VICTIMS}, "was replaced")
        after = until(shop, lambda phase: phase["state"] == "ready" and not phase["task"], "came back")
        assert {key for key in PHASES if after[key]["pid"] != before[key]["pid"]} == set(VICTIMS)
        assert {key: after[key]["restarts"] for key in PHASES} == {key: int(key in VICTIMS) for key in PHASES}
        given = {shop.ask("task", "Review: still there?", "--to", key)["id"] for key in (VICTIMS[-1], "own_00")}
        deadline = time.monotonic() + LIMIT
        while not given <= (done := finished(shop)):
            assert time.monotonic() < deadline, (given, done)
            time.sleep(0.5)
        pids = [worker.pid for worker in shop.workers()]
        assert len(pids) == 65, "and one spare"
        shop.say("stop")
        assert process.wait(LIMIT) in (0, 1, 130)
    finally:
        end(process)
    assert living(pids) == []
    epochs = [record["data"] for record in shop.records("epoch")]
    assert len(epochs) == 64 + 16
    assert sum(record["died"] for record in epochs) == 16
    shop.say("docs", "verify")
