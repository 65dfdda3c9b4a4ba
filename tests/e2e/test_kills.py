"""Whole runs in which workers and the supervisor are killed: the end is the same, and everything is there once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import LIMIT, Gates, Run, Shop, living
from tests.e2e.test_flows import FEATURE, LINT, OBJECTIVE
from tests.systems import KILLED, SIGKILL, hold, let_go

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

PHASES = ("planning", "developer", "qa", "debugging")
AT_ONCE = 4.0  # seconds; two are promised, and a busy machine is given two more


def much_to_do(shop: Shop) -> Gates:
    """A feature to build and a fault to fix: work for all four."""
    gates = Gates(shop)
    shop.write("shop/cart.py", LINT.replace('"v" + "ip"', '"vip"'))
    shop.write("crew/TERTIARY_OBJECTIVES.md", FEATURE)
    shop.write("crew/PRIMARY_OBJECTIVES.md", OBJECTIVE)
    return gates


def is_at_work(phase: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["type"] == "phase_start" and event["phase"] == phase


def is_idle_again(run: Run, phase: str) -> Callable[[dict[str, Any]], bool]:
    """The present worker, which has just been killed, has a successor that is ready."""
    epoch = max(e["summary"]["epoch"] for e in run.events if e["step"] == "spawn" and e["phase"] == phase)
    return lambda e: e["phase"] == phase and e["step"] == "ready" and e["detail"] != f"epoch {epoch}"


def check_once(shop: Shop) -> None:
    """History and journal agree: each finish has its one event, no event is there twice, no task is left."""
    shop.say("docs", "verify")
    events = shop.events()
    assert set(Counter((e["worker"], e["epoch"], e["seq"]) for e in events).values()) == {1}
    finishes = Counter((f["data"]["task"], f["data"]["round"], f["data"]["attempt"]) for f in shop.records("finish"))
    told = Counter(
        (e["summary"]["message"], e["summary"]["round"], e["summary"]["attempt"])
        for e in events
        if e["type"] == "phase_complete"
    )
    assert set(finishes.values()) == {1}
    assert told == finishes
    starts = Counter(
        (e["summary"]["message"], e["summary"]["round"], e["summary"]["attempt"])
        for e in events
        if e["type"] == "phase_start"
    )
    assert set(starts.values()) <= {1}


def completed(shop: Shop) -> set[tuple[str, str]]:
    """What was done: who worked on which thread. Which messages join which depends on who is quicker."""
    threads = {
        post["id"]: post["thread"] or post["id"]
        for kind in ("post", "finish")
        for record in shop.records(kind)
        for post in record["data"]["posts"]
    }
    return {(f["by"], threads[f["data"]["task"]]) for f in shop.records("finish")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The same work without any death, to compare with."""
    from tests.e2e.conftest import make_shop

    shop = make_shop(tmp_path_factory.mktemp("undisturbed") / "shop")
    much_to_do(shop)
    assert shop.run() == 0, shop.output
    check_once(shop)
    return shop


def check_same_end(shop: Shop, undisturbed: Shop) -> None:
    check_once(shop)
    ours, theirs = shop.files(), undisturbed.files()
    del ours["tests/conftest.py"], theirs["tests/conftest.py"]  # names the folder of the gates
    assert ours == theirs
    assert completed(shop) == completed(undisturbed)


def test_workers_killed_at_work(shop: Shop, undisturbed: Shop) -> None:
    """Each worker killed in the middle of its work: a successor takes it up when all of the old tree is gone."""
    gates = much_to_do(shop)
    gates.close("developer", "qa", "debugging")
    with shop.watch() as run:
        run.until(is_at_work("planning"))
        run.kill("planning")
        for phase in ("qa", "developer", "debugging"):
            pids = gates.inside(phase)
            run.kill(phase)
            again = gates.inside(phase, but=pids)
            assert living(pids) == []
            assert len(living(again)) == len(again)
            gates.open(phase)
        assert run.wait() == 0, run.told()
    assert gates.overlap == ""
    check_same_end(shop, undisturbed)


def test_git_killed_under_workers(shop: Shop, undisturbed: Shop) -> None:
    """A worker that loses its process for git goes on with another; the end is the same."""
    much_to_do(shop)
    lost: set[int] = set()
    with shop.watch() as run:
        while run.process.poll() is None and len(lost) < 3:
            for one in psutil.Process(run.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    owner = one.ppid()
                    if owner not in {run.process.pid, *lost} and "actors.trees_server" in one.cmdline():
                        os.kill(one.pid, SIGKILL)
                        lost.add(owner)
            time.sleep(0.02)
        assert run.wait() == 0, run.told()
    assert len(lost) == 3
    check_same_end(shop, undisturbed)


def test_workers_killed_while_idle(shop: Shop, undisturbed: Shop) -> None:
    """Each worker killed while it had nothing to do comes back, and the run goes on."""
    gates = much_to_do(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        run.until(lambda e: e["type"] == "phase_complete" and e["phase"] == "developer")
        for phase in ("planning", "developer", "debugging"):
            back = is_idle_again(run, phase)
            run.kill(phase)
            run.until(back)
        gates.open("qa")
        gates.close("debugging")
        gates.inside("debugging")
        back = is_idle_again(run, "qa")
        run.kill("qa")
        run.until(back)
        gates.open("debugging")
        assert run.wait() == 0, run.told()
    check_same_end(shop, undisturbed)


def test_workers_killed_right_after_the_claim(shop: Shop, undisturbed: Shop) -> None:
    """A claim whose holder dies before it has done anything is taken up by the successor."""
    much_to_do(shop)
    with shop.watch() as run:
        left = set(PHASES)
        while left:
            assert run.process.poll() is None, run.told()
            for record in shop.records("claim"):
                if record["by"] in left:
                    left.remove(record["by"])
                    run.kill(record["by"])
            time.sleep(0.001)
        assert run.wait() == 0, run.told()
    check_same_end(shop, undisturbed)


def test_the_supervisor_killed(shop: Shop, undisturbed: Shop) -> None:
    """Workers and what they had started are gone at once; the next run resumes and ends as one without the death."""
    gates = much_to_do(shop)
    gates.close("qa")
    with shop.watch() as run:
        pids = gates.inside("qa")
        workers = shop.workers()
        assert len(workers) >= len(PHASES)
        everybody = [*workers, *(psutil.Process(pid) for pid in pids)]
        os.kill(run.process.pid, SIGKILL)
        _, alive = psutil.wait_procs(everybody, timeout=AT_ONCE)
        assert alive == []
        assert run.process.wait() == KILLED
    gates.open("qa")
    assert shop.run() == 0, shop.output
    check_once(shop)
    assert {k: v for k, v in shop.files().items() if k != "tests/conftest.py"} == {
        k: v for k, v in undisturbed.files().items() if k != "tests/conftest.py"
    }
    assert completed(undisturbed) <= completed(shop)  # which has the second run's assessments beside them


# QA's loop, which numbers what it says beside its work for as long as nobody hushes it.
TALKING = '''
    """A QA that talks all the time."""

    import asyncio
    from pathlib import Path

    from actors.actor import main as usual


    async def main(line, assignment):
        async def talk():
            said = 0
            while not Path("../hush").exists():
                said += 1
                line.emitter.emit("qa", "counting", detail=str(said), type="log_entry")
                Path("../said").write_text(str(said))
                Path("../mode").write_text(line.emitter.mode)
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        try:
            await usual(line, assignment)
        finally:
            talking.cancel()
'''


def remove_listener(supervisor: psutil.Process) -> None:
    """Take away the socket at which the queue is served, as a cleaner of temporary files would."""
    served = [Path(str(c.laddr)) for c in supervisor.net_connections("unix") if "/psv-" in str(c.laddr)]
    (address,) = {path for path in served if path.is_socket()}
    address.unlink()


@pytest.mark.only_on("posix", reason="a named pipe has no file to remove")
def test_the_queue_taken_away_while_the_crew_works(shop: Shop, undisturbed: Shop) -> None:
    """It does not answer: stdout, on record, and back. Its listener goes: a new one. Nothing lost, nothing twice."""
    shop.write("talking_qa.py", TALKING)
    shop.write(
        "supervisor.toml",
        '[ipc]\nrollout = 1.0\nmax_fallback_rate = 1.0\n[phases.qa]\nactor = "talking_qa:main"\n',
    )
    shop.say("trust")
    mode = shop.root.parent / "mode"
    gates = much_to_do(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        run.until(by("queue"))
        supervisor = psutil.Process(shop.ask("status")["pid"])
        hold(supervisor.pid)
        wait_for(lambda: mode.read_text() == "stdout")
        before = len(run.events)
        let_go(supervisor.pid)
        run.until(by("stdout"), after=before)
        run.until(lambda e: e["step"] == "fallback" and e["phase"] == "qa", after=before)
        wait_for(lambda: mode.read_text() == "queue")
        before = len(run.events)
        remove_listener(supervisor)
        run.until(lambda e: e["step"] == "queue" and "new address" in e["detail"], after=before)
        before = len(run.events)
        run.until(by("queue"), after=before)
        counts = shop.ask("status")["workers"]["qa"]
        assert counts["fallbacks"] >= counts["returns"] >= 1
        (shop.root.parent / "hush").touch()
        gates.open("qa")
        assert run.wait() == 0, run.told()
    said = int((shop.root.parent / "said").read_text())
    assert [int(e["detail"]) for e in shop.events() if e["step"] == "counting"] == list(range(1, said + 1))
    check_once(shop)
    assert completed(shop) == completed(undisturbed)


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def by(transport: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["step"] == "counting" and event["transport"] == transport
