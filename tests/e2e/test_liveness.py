"""Workers that run and do not live, or take too much: each is told apart, ended, and given up with its reason."""

from __future__ import annotations

import re
import sys
import time

import pytest

from tests.e2e.conftest import LIMIT, Shop, end
from tests.systems import BY_KILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ACTORS = '''
    """Phases that misbehave, each in its way."""

    import os
    import re
    import time

    import anyio

    from ipc import control


    def begin(line, assignment, task="t1"):
        line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))
        line.report(control.Claimed(task=task, attempt=1, text="something"))
        line.working_on(task, 1, "working")


    async def blocks(line, assignment):
        begin(line, assignment)
        await anyio.sleep(0.6)
        time.sleep(120)


    async def holds(line, assignment):
        begin(line, assignment)
        await anyio.sleep(0.6)
        re.match("(a+)+$", "a" * 60 + "b")


    async def never_ready(line, assignment):
        await anyio.sleep(120)


    async def stands_still(line, assignment):
        begin(line, assignment)
        await anyio.sleep(120)


    async def takes_long(line, assignment):
        begin(line, assignment)
        while True:
            await anyio.sleep(0.1)
            line.working_on("t1", 1, "working")


    async def grows(line, assignment):
        line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))
        kept = bytearray(os.urandom(1 << 20)) * 300
        await anyio.sleep(120)
        del kept
'''
EXPECTED = {
    "blocks": ("verdict", "loop blocked", "time.sleep"),
    "holds": ("verdict", "gil held", "interpreter's lock"),
    "never_ready": ("verdict", "not started", "not ready"),
    "stands_still": ("verdict", "no progress", "has shown no progress"),
    "takes_long": ("limit", "over time", "phases.takes_long.task_time"),
    "grows": ("limit", "over memory", "phases.grows.memory_mb"),
}
SLOWER = 3 if sys.platform == "win32" else 1  # the four must not be taken for dead where a start takes its time
STANDS = ("blocks", "holds")  # in a call of theirs; a task of the loop that waits is on no thread's stack


def test_each_way_of_not_living_is_told_apart_and_acted_on(shop: Shop) -> None:
    """A verdict with its reason, a death, and, since no restart is allowed, a phase given up with Planning told."""
    shop.write("hogs.py", ACTORS)
    toml = ["[restart]", "restarts = 0", "[liveness]", f"start_grace = {8.0 * SLOWER}"]
    toml += [f"silence = {3.0 * SLOWER}", f"no_progress = {6.0 * SLOWER}"]
    for name in EXPECTED:
        toml += [f"[phases.{name}]", f'actor = "hogs:{name}"']
    toml += ["task_time = 0.0"]
    text = "\n".join(toml) + "\n"
    text = text.replace('"hogs:takes_long"', '"hogs:takes_long"\ntask_time = 4.0')
    text = text.replace('"hogs:grows"', '"hogs:grows"\nmemory_mb = 250')
    shop.write("supervisor.toml", text)
    shop.say("trust")
    process = shop.start()
    try:
        deadline = time.monotonic() + LIMIT
        phases: dict[str, dict[str, object]] = {}
        while time.monotonic() < deadline:
            phases = shop.ask("status", check=False)["phases"]
            if all(phases[name]["state"] == "quarantined" for name in EXPECTED):
                break
            time.sleep(0.5)
        assert {name: phases[name]["state"] for name in EXPECTED} == dict.fromkeys(EXPECTED, "quarantined")
        assert all(phases[name]["state"] != "quarantined" for name in ("planning", "developer", "qa", "debugging"))
    finally:
        end(process)
    events = shop.events()
    for name, (step, state, words) in EXPECTED.items():
        judged = [e for e in events if e["phase"] == name and e["step"] in {"verdict", "limit"}]
        told = [e for e in judged if e["summary"]["action"] == "restart"]
        assert len(told) == 1, (name, judged)
        assert (told[0]["step"], told[0]["summary"]["verdict"]) == (step, state), (name, told[0]["detail"])
        if name != "blocks":
            assert words in told[0]["detail"]
        if name in STANDS and sys.platform != "win32":
            (log,) = (shop.root / ".supervisor" / "logs").glob(f"{name}-*.log")
            assert re.search(rf"hogs.py.*, line \d+ in {name}", log.read_text()), (name, log.read_text())
            assert "its log says where" in told[0]["detail"]
        why = shop.say("why", name)
        assert state in why
        assert "0 are allowed" in why or "failed to start" in why
    told_planning = shop.say("docs", "show", "PLANNING_READ")
    assert "Takes long is not started again" in told_planning
    assert "phases.takes_long.task_time" in told_planning


def test_a_task_that_kills_its_worker_is_set_aside(shop: Shop) -> None:
    """After `restart.deaths` deaths it waits for the user, with the reason; Planning is told; the others go on."""
    shop.write(
        "poison.py",
        '''
        """A phase whose worker dies of every task."""

        import os
        import signal
        from pathlib import Path

        from docs_store.mailbox import Mailbox
        from docs_store.store import Store
        from docs_store.topology import from_data
        from ipc import control


        async def main(line, assignment):
            store = Store.open(Path(assignment.crew), topology=from_data(assignment.topology), create=False)
            line.report(control.Ready(pid=os.getpid(), epoch=assignment.epoch))
            while Mailbox(store, assignment.phase, assignment.epoch).claim() is None:
                line.report(control.Idle(head=store.head))
                while not isinstance(await line.receive(), control.Bell):
                    pass
            os.kill(os.getpid(), 9)
        ''',
    )
    shop.write("supervisor.toml", '[restart]\ndeaths = 2\n[phases.poison]\nactor = "poison:main"\nassess = false\n')
    shop.say("trust")
    process = shop.start()
    try:
        given = shop.ask("task", "Review: this kills", "--to", "poison")
        deadline = time.monotonic() + LIMIT
        waiting: list[dict[str, object]] = []
        while time.monotonic() < deadline and not waiting:
            waiting = [item for item in shop.ask("inbox") if item["id"] == given["id"]]
            time.sleep(0.3)
        assert [item["what"] for item in waiting] == ["quarantined"]
        phases = shop.ask("status")["phases"]
        assert phases["poison"]["restarts"] == 2
        assert phases["poison"]["state"] != "quarantined", "the phase goes on; the task does not"
    finally:
        end(process)
    assert "its worker died 2 times while at it" in shop.say("docs", "show", "PLANNING_READ")
    assert BY_KILL in shop.say("why", "poison")
