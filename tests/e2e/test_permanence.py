"""What an exit means for a next start, phase by phase, in a real crew: permanence, final exit codes, limits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import LIMIT, Shop
from tests.systems import SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ACTORS = '''
    """A phase that does what its message says."""

    import asyncio

    import anyio

    from actors import Context, Outcome, PhaseActor, Task


    async def leave(code):
        raise SystemExit(code)


    class Obedient(PhaseActor):
        async def perform(self, task: Task, context: Context) -> Outcome:
            word, _, number = task.message.text.partition(" ")
            if word == "exit":
                raise SystemExit(int(number))
            if word == "leave":  # from a task that nobody waits for
                task = asyncio.get_running_loop().create_task(leave(int(number)))
                await anyio.sleep(60)
            if word == "retire":
                context.retire()
            return Outcome(result="done", detail=f"did {task.message.text}")


    async def returns(line, assignment):
        """A loop of one's own that is over."""
        import os

        from ipc import control

        line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))


    async def leaves_it(line, assignment):
        """It claims a task, and is over without a word about it."""
        import os
        from pathlib import Path

        from docs_store.mailbox import Mailbox
        from docs_store.store import Store
        from docs_store.topology import from_data
        from ipc import control

        store = Store.open(Path(assignment.crew), topology=from_data(assignment.topology), create=False)
        line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))
        while Mailbox(store, assignment.phase, assignment.epoch).claim() is None:
            line.report(control.Idle(head=store.head))
            while not isinstance(await line.receive(), control.Bell):
                pass
'''
OWN = '[phases.{}]\nactor = "mine:Obedient"\nassess = false\n'
QUICK = "first_delay = 0.01\nlongest_delay = 0.01\nstable_after = 0.5\n"


@pytest.fixture
def place(shop: Shop) -> Iterator[Shop]:
    """Stopped in the end, whatever happens."""
    shop.write("mine.py", ACTORS)
    yield shop
    shop.tries("stop")


def begin(shop: Shop, toml: str) -> dict[str, Any]:
    """Start the crew; its phases once all are ready."""
    shop.write("supervisor.toml", toml)
    shop.say("trust")
    shop.say("start")
    return until(shop, lambda phases: all(phase["state"] == "ready" for phase in phases.values()))


def until(shop: Shop, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        phases: dict[str, Any] = shop.ask("status", check=False)["phases"]
        if holds(phases):
            return phases
        time.sleep(0.1)
    raise AssertionError((shop.ask("status", check=False), shop.say("why", "own", check=False)))


def until_shown(shop: Shop, file: str, words: str) -> None:
    """The record comes first; its view follows."""
    deadline = time.monotonic() + LIMIT
    while words not in shop.read(file):
        assert time.monotonic() < deadline, shop.read(file)
        time.sleep(0.1)


def own(state: str, *, epoch: int = 0) -> Callable[[dict[str, Any]], bool]:
    return lambda phases: phases["own"]["state"] == state and phases["own"]["epoch"] > epoch


def test_a_transient_phase_that_ends_normally_stays_down_until_restart(place: Shop) -> None:
    """It is no alarm; `why` tells it; what is posted to it waits; a crash before that is a restart like any other."""
    before = begin(place, f"[restart]\n{QUICK}" + OWN.format("own") + 'permanence = "transient"\n')
    os.kill(before["own"]["pid"], SIGKILL)
    crashed = until(place, own("ready", epoch=before["own"]["epoch"]))["own"]
    assert crashed["restarts"] == 1
    place.say("task", "Review: retire", "--to", "own")
    ended = until(place, own("ended"))["own"]
    assert (ended["pid"], ended["restarts"]) == (None, 1)
    assert "it had finished, and as a transient child it stays down" in ended["detail"]
    until_shown(place, "crew/OWN_READ.md", "- [x] Review: retire")
    assert "as a transient child it stays down" in place.say("why", "own")
    assert "supervisor restart own" in place.say("why", "own")
    assert place.ask("inbox") == []
    place.say("task", "Review: something else", "--to", "own")
    place.say("restart", "--all")
    phases = until(place, lambda phases: all(phases[key]["epoch"] > before[key]["epoch"] for key in before))
    assert phases["own"]["state"] == "ended", "new workers are for those that have one"
    place.say("restart", "own")
    until(place, own("ready", epoch=crashed["epoch"]))
    until_shown(place, "crew/OWN_WRITE.md", "did something else")
    assert place.ask("status")["phases"]["own"]["state"] == "ready"
    errors = [event for event in place.events() if event["type"] == "phase_error" and event["phase"] == "own"]
    assert len(errors) == 1, "the kill; that it ended is no error"


def test_a_permanent_phase_that_ends_normally_is_started_again(place: Shop) -> None:
    """The default: whatever its code."""
    before = begin(place, f"[restart]\n{QUICK}" + OWN.format("own"))["own"]
    place.say("task", "Review: retire", "--to", "own")
    after = until(place, own("ready", epoch=before["epoch"]))["own"]
    assert after["restarts"] == 1
    assert "exited with code 0" in place.say("why", "own")


def test_a_loop_of_one_s_own_that_returns_has_ended_normally(place: Shop) -> None:
    """Temporary and transient ones stay down after it."""
    place.write(
        "supervisor.toml",
        '[phases.own]\nactor = "mine:returns"\nassess = false\npermanence = "temporary"\n'
        '[phases.other]\nactor = "mine:returns"\nassess = false\npermanence = "transient"\n',
    )
    place.say("trust")
    place.say("start")
    phases = until(place, lambda phases: {phases[key]["state"] for key in ("own", "other")} == {"ended"})
    assert [phases[key]["restarts"] for key in ("own", "other")] == [0, 0]
    assert place.ask("inbox") == []


@pytest.mark.parametrize(("more", "code"), [((), 0), (("Review: afterwards",), 1)])
def test_a_run_until_idle_does_not_wait_for_a_phase_that_has_ended(
    place: Shop, more: tuple[str, ...], code: int
) -> None:
    """It ends with 0; with 1 where the phase left work behind."""
    place.write("supervisor.toml", OWN.format("own") + 'permanence = "transient"\n')
    place.say("trust")
    for text in ("Review: retire", *more):
        place.say("task", text, "--to", "own")
    assert place.run() == code, place.output
    open_ = [line for line in place.read("crew/OWN_READ.md").splitlines() if line.startswith("- [ ]")]
    assert len(open_) == len(more)
    assert place.say("why", "own").count("as a transient child it stays down") >= 1


def test_a_task_in_hand_at_a_normal_end_is_open_again(place: Shop) -> None:
    """Nobody holds it, and the end counts on it."""
    begin(place, OWN.format("own").replace("Obedient", "leaves_it") + 'permanence = "transient"\n')
    given = place.ask("task", "Review: left", "--to", "own")
    until(place, own("ended"))
    until_shown(place, "crew/OWN_READ.md", "- [ ] Review: left")
    assert f"<!-- id:{given['id']} -->" in place.read("crew/OWN_READ.md")
    assert place.records("epoch")[-1]["data"]["died"] is True


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_a_temporary_phase_is_stopped_with_its_group_and_not_started_again(place: Shop, strategy: str) -> None:
    """The others have new workers; that it was stopped is nobody's alarm."""
    toml = f'[restart]\nstrategy = "{strategy}"\n{QUICK}' + OWN.format("own") + 'permanence = "temporary"\n'
    before = begin(place, toml)
    os.kill(before["qa"]["pid"], SIGKILL)
    after = until(
        place,
        lambda phases: (
            phases["own"]["state"] == "ended"
            and all(phases[key]["epoch"] > before[key]["epoch"] for key in ("qa", "debugging"))
            and all(phase["state"] == "ready" for key, phase in phases.items() if key != "own")
        ),
    )
    assert after["planning"]["epoch"] > before["planning"]["epoch"] or strategy == "rest_for_one"
    assert "as a temporary child does" in place.say("why", "own")
    assert place.ask("inbox") == []


def test_a_temporary_phase_that_crashes_is_not_restarted_and_somebody_is_told(place: Shop) -> None:
    """Nobody else is touched by it, and a later death of another does not bring it back."""
    toml = f'[restart]\nstrategy = "one_for_all"\n{QUICK}' + OWN.format("own") + 'permanence = "temporary"\n'
    before = begin(place, toml)
    os.kill(before["own"]["pid"], SIGKILL)
    after = until(place, own("quarantined"))
    assert {key: phase["pid"] for key, phase in after.items() if key != "own"} == {
        key: phase["pid"] for key, phase in before.items() if key != "own"
    }
    assert [(item["what"], item["id"]) for item in place.ask("inbox")] == [("given up", "own")]
    assert "as a temporary child it is never restarted" in place.say("docs", "show", "PLANNING_READ")
    os.kill(before["qa"]["pid"], SIGKILL)
    rest = [key for key in before if key != "own"]
    after = until(
        place,
        lambda phases: all(
            phases[key]["state"] == "ready" and phases[key]["epoch"] > before[key]["epoch"] for key in rest
        ),
    )
    assert after["own"]["state"] == "quarantined"
    place.say("restart", "own")
    until(place, own("ready", epoch=before["own"]["epoch"]))


def test_a_final_exit_code_gives_up_at_once(place: Shop) -> None:
    """Any other one is a restart; the reason is told to Planning, the inbox and `why`, and the death counts."""
    before = begin(place, f"[restart]\n{QUICK}" + OWN.format("own") + "final_exit_codes = [64, 78]\n")["own"]
    place.say("task", "Review: exit 3", "--to", "own")
    deadline = time.monotonic() + LIMIT
    while not [item for item in place.ask("inbox") if item["what"] == "quarantined"]:  # the third death on it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    after = until(place, own("ready", epoch=before["epoch"]))["own"]
    assert after["restarts"] == 3
    place.say("task", "Review: leave 78", "--to", "own")
    given_up = until(place, own("quarantined"))["own"]
    assert given_up["restarts"] == 3
    assert "exited with code 78" in given_up["detail"]
    assert "that code is final for it (64, 78)" in given_up["detail"]
    assert "that code is final for it" in place.say("why", "own")
    assert "Own is not started again" in place.say("docs", "show", "PLANNING_READ")
    assert ("given up", "own") in [(item["what"], item["id"]) for item in place.ask("inbox")]


def test_limits_of_one_phase_are_its_own(place: Shop) -> None:
    """None allowed for one: it is given up where others are restarted. A reload changes that without a new worker."""
    toml = f"[restart]\n{QUICK}" + OWN.format("own") + "[phases.own.restart]\nrestarts = 0\n"
    before = begin(place, toml)
    for key in ("qa", "own"):
        os.kill(before[key]["pid"], SIGKILL)
    until(
        place,
        lambda phases: (
            phases["own"]["state"] == "quarantined"
            and phases["qa"]["state"] == "ready"
            and phases["qa"]["epoch"] > before["qa"]["epoch"]
        ),
    )
    assert "it was restarted 0 times within 60 s, 0 are allowed" in place.say("why", "own")
    place.say("restart", "own")
    again = until(place, own("ready", epoch=before["own"]["epoch"]))["own"]
    place.write("supervisor.toml", toml.replace("restarts = 0", "restarts = 1"))
    assert "no worker had to be restarted" in place.say("reload")
    assert place.ask("status")["phases"]["own"]["pid"] == again["pid"]
    os.kill(again["pid"], SIGKILL)
    assert until(place, own("ready", epoch=again["epoch"]))["own"]["restarts"] == 1
