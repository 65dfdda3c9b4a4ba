"""The rollout in whole runs: modes on record, a rollback under way, a queue that keeps failing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.systems import OWN_CONSOLE

from .conftest import LIMIT, Gates, Run, Shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# QA's loop, whose queue breaks after a few calls each time, and which numbers what it says beside its work.
FLAKY = '''
    """A QA whose queue keeps failing."""

    import asyncio
    from pathlib import Path

    import ipc.queue
    from actors.actor import main as usual

    call = ipc.queue._QueueProxy.call
    calls = {}


    def cut(proxy, *words):
        """Each connection is good for twenty calls."""
        calls[id(proxy)] = calls.get(id(proxy), 0) + 1
        if calls[id(proxy)] > 20:
            raise OSError("cut, as the test wants it")
        return call(proxy, *words)


    ipc.queue._QueueProxy.call = cut


    async def main(line, assignment):
        async def talk():
            n = 0
            while True:
                n += 1
                line.emitter.emit("qa", "counting", detail=str(n), type="log_entry")
                Path("../counted").write_text(str(n))
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        try:
            await usual(line, assignment)
        finally:
            talking.cancel()
'''


def run(shop: Shop, *arguments: str, **environ: str) -> Run:
    """A run that goes on until it is told to stop."""
    with (shop.root.parent / f"{shop.root.name}.err").open("a") as err:
        process = subprocess.Popen(
            shop.command("run", "--json", *arguments),
            cwd=shop.root,
            env={**shop.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            **OWN_CONSOLE,
        )
    return Run(shop, process)


def step(name: str, phase: str | None = None) -> Any:
    return lambda event: event["step"] == name and (phase is None or event["phase"] == phase)


def test_each_audit_has_its_mode_with_the_number_drawn_and_the_figures_add_up(shop: Shop) -> None:
    """At a rate of a half every cycle draws for itself; status counts what the events say."""
    with shop.watch() as going:
        going.wait()
    shop.say("rollout", "start")
    events = shop.events()
    drawn = [e for e in events if e["step"] == "mode" and "message" in e["summary"]]
    assert drawn
    assert all(e["summary"]["drawn"] is not None and "supervisor.toml" in e["detail"] for e in drawn)
    starts = [e for e in events if e["type"] == "phase_start"]
    said = shop.ask("rollout", "status")
    assert said["audits_run"] == len(drawn) == len(starts)
    assert said["queue_mode_count"] == len(drawn)  # init writes 1.0
    assert said["success_rate"] == 1.0
    assert said["modes"]["queue"]["latency_p50"] is not None
    assert (said["current_stage"], said["stage_index"], said["rate"]) == (0.1, 0, 0.1)

    with run(shop, QUEUE_IPC_ROLLOUT="0.5") as going:
        begun = going.until(lambda e: e["step"] == "mode" and "message" in e["summary"])
        assert "of QUEUE_IPC_ROLLOUT" in begun["detail"]
        assert begun["summary"]["mode"] == ("queue" if begun["summary"]["drawn"] < 0.5 else "stdout")
        going.stop()


def test_a_rollback_moves_the_audit_under_way_at_once(shop: Shop) -> None:
    """QA is in the middle of its tests: what it says from there on comes by stdout, and nothing is missing."""
    gates = Gates(shop)
    gates.close("qa")
    with run(shop) as going:
        gates.inside("qa")
        assert going.until(step("mode", "qa"))["summary"]["mode"] == "queue"
        shop.say("rollout", "rollback", "--reason", "the test wants it")
        moved = going.until(step("fallback", "qa"))
        assert moved["summary"]["rollback"]
        assert "the test wants it" in moved["detail"]
        after = len(going.events)
        gates.open("qa")
        done = going.until(lambda e: e["type"] == "phase_complete" and e["phase"] == "qa", after=after)
        assert done["transport"] == "stdout"
        later = going.until(lambda e: e["step"] == "mode" and "message" in e["summary"], after=after)
        assert (later["summary"]["mode"], later["summary"]["drawn"]) == ("stdout", None)
        assert any("the test wants it" in note for note in shop.ask("status")["notes"])

        shop.say("rollout", "start", "--resume")
        going.until(lambda e: e["step"] == "mode" and "queue from now on" in e["detail"], after=after)
        going.stop()
    acts = [entry["act"] for entry in shop.ask("rollout", "history")]
    assert acts == ["rollback", "resume"]
    assert shop.ask("rollout", "status")["fallback_count"] >= 1


def test_a_queue_that_keeps_failing_leads_to_stdout_without_loss(shop: Shop) -> None:
    """The supervisor rolls back by itself and says so; all events are there once, in order; a person resumes."""
    shop.write("flaky_qa.py", FLAKY)
    shop.write("supervisor.toml", '[ipc]\nrollout = 1.0\n[phases.qa]\nactor = "flaky_qa:main"\n')
    shop.say("trust")
    with run(shop) as going:
        alarm = going.until(lambda e: e["type"] == "phase_error" and e["step"] == "rollout")
        assert "max_fallback_rate" in alarm["detail"]
        going.until(lambda e: e["step"] == "mode" and "stdout from now on" in e["detail"])
        after = len(going.events)
        going.until(lambda e: e["step"] == "counting" and e["transport"] == "stdout", after=after)
        said = shop.ask("status")
        assert any("supervisor rollout start --resume" in note for note in said["notes"])
        assert said["counters"]["fallbacks"] >= 3
        going.stop()
    assert shop.ask("rollout", "status")["rolled_back"]
    counted = int((shop.root.parent / "counted").read_text())
    numbers = [int(e["detail"]) for e in shop.events() if e["step"] == "counting"]
    assert numbers == list(range(1, counted + 1))

    with run(shop) as going:
        first = going.until(step("mode", "supervisor"))
        assert first["summary"]["mode"] == "stdout"
        going.stop()
    shop.say("rollout", "start", "--resume")
    assert not shop.ask("rollout", "status")["rolled_back"]


def test_advancing_too_early_is_refused_with_what_is_missing(shop: Shop) -> None:
    """Exit code 1 and both reasons; forced, it goes on, and the history says so."""
    shop.say("rollout", "start")
    refused = subprocess.run(
        shop.command("rollout", "advance"),
        cwd=shop.root,
        env=shop.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert refused.returncode == 1
    assert "7.0 days to go" in refused.stderr
    assert "0 of 10 validation runs" in refused.stderr
    shop.say("rollout", "advance", "--force")
    assert shop.ask("rollout", "status")["current_stage"] == 0.25
    assert shop.ask("rollout", "history")[-1]["forced"]
    assert json.loads(Path(shop.root / ".supervisor" / "rollout.json").read_text())["stage"] == 1
