"""Phases that a person holds, phases that begin by themselves, and commands that come at the same moment."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import LIMIT, Shop, end
from tests.systems import SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for: {what}")


def states(shop: Shop) -> dict[str, str]:
    return {key: phase["state"] for key, phase in shop.ask("status", check=False)["phases"].items()}


def done(shop: Shop) -> set[str]:
    return {record["data"]["task"] for record in shop.records("finish")}


@pytest.fixture
def running(shop: Shop) -> Iterator[Shop]:
    """A crew that has nothing left to do, and QA looks again every second once it has been idle for that."""
    process = shop.start()
    try:
        until(lambda: set(states(shop).values()) == {"ready"}, "everybody idle")
        yield shop
    finally:
        end(process)


def test_a_paused_phase_starts_nothing_until_it_may(running: Shop) -> None:
    """Others go on; a successor of its worker is paused too; after `resume` it does what came meanwhile."""
    shop = running
    shop.say("pause", "qa")
    until(lambda: states(shop)["qa"] == "paused", "QA paused")
    waiting = shop.ask("task", "Review: look at the cart", "--to", "qa")["id"]
    other = shop.ask("task", "Assess: what is there to do", "--to", "planning")["id"]
    until(lambda: other in done(shop), "Planning at work")
    before = shop.ask("status")["phases"]["qa"]["pid"]
    os.kill(before, SIGKILL)
    until(lambda: shop.ask("status")["phases"]["qa"]["pid"] not in (None, before), "a successor")
    until(lambda: states(shop)["qa"] == "paused", "QA paused again")
    more = shop.ask("task", "Assess: and now", "--to", "planning")["id"]
    until(lambda: more in done(shop), "Planning at work again")
    assert waiting not in {record["data"]["id"] for record in shop.records("claim")}
    shop.say("resume", "qa")
    until(lambda: waiting in done(shop), "QA's task")
    assert states(shop)["qa"] != "paused"


def test_a_phase_with_an_interval_begins_by_itself(shop: Shop) -> None:
    """Nobody has sent it anything; the cycle is on record with its reason, and comes again; the others sleep."""
    shop.write("supervisor.toml", "[phases.qa]\ninterval = 1.0\n")
    process = shop.start()
    try:
        own = until(lambda: [p for p in shop.posts("Assess") if "it is time" in p["text"]][1:2], "a second cycle")
        until(lambda: own[0]["id"] in done(shop), "its end")
    finally:
        end(process)
    assert {post["to"] for post in shop.posts("Assess") if "it is time" in post["text"]} == {"qa"}
    told = [event for event in shop.events() if event["step"] == "interval"]
    assert len(told) >= 2
    assert all(event["phase"] == "qa" and "phases.qa.interval" in event["detail"] for event in told)


def test_commands_at_once_all_get_an_answer(running: Shop) -> None:
    """Two stops, a restart and a pause in the same moment: each is done or says why not, and the run ends."""
    shop = running
    words = (["stop"], ["stop"], ["restart", "developer"], ["pause", "qa"], ["reload"])
    asked = [
        subprocess.Popen(
            shop.command(*one),
            cwd=shop.root,
            env=shop.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in words
    ]
    for one, process in zip(words, asked, strict=True):
        out, error = process.communicate(timeout=LIMIT)
        assert process.returncode in {0, 1, 3}, (one, out, error)
        assert (out if process.returncode == 0 else error).strip(), one
        assert "Traceback" not in out + error
    assert asked[0].returncode == 0 or asked[1].returncode == 0
    assert shop.say("status", check=False).startswith("no supervisor runs")
