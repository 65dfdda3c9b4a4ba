"""Who is started, restarted and stopped after whom, with real processes: on readiness, not on time."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from tests.e2e.conftest import Shop

pytestmark = [pytest.mark.timeout(200)]

AFTER = """
[phases.qa]
after = ["developer"]

[phases.planning]
after = ["qa"]
"""
FAILS = """
async def main(line, assignment):
    raise LookupError("no model today")
"""


def places(events: list[dict[str, Any]], step: str) -> dict[str, int]:
    """Where in the journal that first happened to each phase."""
    found: dict[str, int] = {}
    for place, event in enumerate(events):
        if event["step"] == step and event["phase"]:
            found.setdefault(event["phase"], place)
    return found


def test_a_phase_is_started_when_those_it_comes_after_are_ready_and_stopped_before_them(shop: Shop) -> None:
    """Developer is ready before QA is started, QA before Planning; stopped in the reverse order; all work is done."""
    shop.write("supervisor.toml", AFTER)
    assert shop.run() == 0, shop.output
    events = shop.events()
    spawned, ready, gone = (places(events, step) for step in ("spawn", "ready", "exit"))
    assert ready["developer"] < spawned["qa"] < ready["qa"] < spawned["planning"]
    assert gone["planning"] < gone["qa"] < gone["developer"]
    assert set(gone) == set(spawned) == {"planning", "developer", "qa", "debugging"}


@pytest.mark.slow
def test_one_that_was_given_up_is_waited_for_no_longer(shop: Shop) -> None:
    """The crew goes on without it, and so does whoever comes after it."""
    shop.write("fails.py", FAILS)
    restart = "[restart]\nfirst_delay = 0.01\nlongest_delay = 0.01\n"
    shop.write("supervisor.toml", f'{restart}{AFTER}\n[phases.developer]\nactor = "fails:main"\n')
    shop.say("trust")
    assert shop.run() == 1, shop.output
    status = shop.ask("status", check=False)["phases"]
    assert status["developer"]["state"] == "quarantined"
    assert ("developer", "given up") in [(item["id"], item["what"]) for item in shop.ask("inbox")]
    spawned = places(shop.events(), "spawn")
    assert spawned["developer"] < spawned["qa"] < spawned["planning"]


def test_all_get_new_workers_one_after_the_other(shop: Shop) -> None:
    """`restart --all`: each is ready before the next one is touched; nobody else was restarted for it."""
    shop.say("start")
    try:
        before = len(shop.events())
        reply = shop.ask("restart", "--all")
        assert reply["data"]["restarted"] == ["planning", "developer", "qa", "debugging"]
        events = shop.events()[before:]
        ready = places(events, "ready")
        touched = {
            event["phase"]: place
            for place, event in reversed(list(enumerate(events)))
            if event["step"] == "decision" and re.search("is replaced: a person asked", event["detail"])
        }
        order = list(reply["data"]["restarted"])
        for first, second in itertools.pairwise(order):
            assert ready[first] < touched[second], (first, second)
        assert {phase["restarts"] for phase in shop.ask("status")["phases"].values()} == {0}
        code, said = shop.tries("restart")
        assert (code, "name a phase, or say --all" in said) == (2, True)
    finally:
        shop.tries("stop")
