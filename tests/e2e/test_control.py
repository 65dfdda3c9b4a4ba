"""The command line as a client of a running supervisor: start, look, command, explain, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.control.client import Client
from supervisor.control.endpoint import load
from tests.e2e.conftest import LIMIT, Shop
from tests.systems import BY_KILL, SIGKILL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def run(shop: Shop, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shop.command(*words),
        cwd=shop.root,
        env=shop.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def until(true: Callable[[], Any], what: str) -> Any:
    """Look again until it is so: what is waited for is said by processes of their own."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited in vain for: {what}")


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def phases(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = shop.ask("status", check=False)["phases"]
    return found


@pytest.fixture
def running(shop: Shop) -> Iterator[Shop]:
    """A crew in the background, which has nothing left to do; ended however the test went."""
    started = run(shop, "start", "--json")
    assert started.returncode == 0, started.stderr
    until(lambda: all(phase["state"] == "ready" for phase in phases(shop).values()), "everybody idle")
    try:
        yield shop
    finally:
        run(shop, "stop")


def test_a_day_in_the_life_of_a_daemon(running: Shop) -> None:
    """Start detaches; commands are heard one after the other and answered; the record explains; stop leaves nothing."""
    shop = running
    pid = shop.ask("status")["pid"]
    again = run(shop, "start")
    assert again.returncode == 75
    assert str(pid) in again.stderr

    before = phases(shop)["developer"]["pid"]
    both = [
        subprocess.Popen(
            shop.command("restart", "developer", "--json"),
            cwd=shop.root,
            env=shop.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=LIMIT) for process in both]
    for process, (out, error) in zip(both, said, strict=True):
        assert (process.returncode == 0 and '"ok": true' in out) or "already" in error, (out, error)
    assert any(process.returncode == 0 for process in both)
    assert phases(shop)["developer"]["pid"] != before

    os.kill(phases(shop)["qa"]["pid"], SIGKILL)
    until(lambda: phases(shop)["qa"]["restarts"] == 1 and phases(shop)["qa"]["state"] == "ready", "a successor of QA")
    why = shop.say("why", "qa")
    assert BY_KILL in why
    assert "started again" in why
    assert "0 of 5 restarts of its own were used up" in why
    assert "Asked for by a person: developer has a new worker" in shop.say("why", "developer")
    assert "developer" not in why, "what was asked for another phase explains nothing here"

    assert shop.ask("pause", "qa") == {"phases": ["qa"], "paused": True}
    until(lambda: phases(shop)["qa"]["state"] == "paused", "QA paused")
    shop.say("resume")
    until(lambda: phases(shop)["qa"]["state"] == "ready", "QA going on")

    (shop.root / "supervisor.toml").write_text("[phases.qa]\noptions = {depth = 2}\n")
    kept = {key: phase["pid"] for key, phase in phases(shop).items() if key != "qa"}
    reloaded = shop.ask("reload")
    assert reloaded["data"]["restarted"] == ["qa"]
    assert {key: phase["pid"] for key, phase in phases(shop).items() if key != "qa"} == kept
    (shop.root / "supervisor.toml").write_text("[phases.qa]\nnonsense = 1\n")
    refused = run(shop, "reload")
    assert refused.returncode == 78
    assert "nonsense" in refused.stderr
    (shop.root / "supervisor.toml").write_text("")

    workers = {phase["pid"] for phase in phases(shop).values()}
    stopped = run(shop, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert [process for process in psutil.process_iter() if process.pid in {pid, *workers} and alive(process)] == []
    for words in (["stop"], ["restart", "qa"], ["reload"], ["status"]):
        assert run(shop, *words).returncode == 3, words
    assert BY_KILL in shop.say("why", "qa"), "the journal explains without a supervisor"
    assert shop.ask("report", "--since", "1h")["phases"]["qa"]["crashes"] == 1


def test_the_rollout_is_told_by_the_running_supervisor(running: Shop) -> None:
    """`GET /api/rollout/status` has the keys of SPEC §5 and says the same as the command line."""
    published = Path(running.environ["XDG_RUNTIME_DIR"]).rglob("*.json")
    (endpoint,) = [found for found in map(load, published) if found is not None]
    told = Client(endpoint).get("/api/rollout/status")
    wanted = {"current_stage", "stage_index", "audits_run", "queue_mode_count", "stdout_mode_count", "fallback_count"}
    assert wanted <= told.keys()
    assert told["audits_run"] == told["queue_mode_count"] + told["stdout_mode_count"] > 0
    assert running.ask("rollout", "status")["audits_run"] == told["audits_run"]


@pytest.mark.only_on("posix", reason="SIGHUP is of Unix")
def test_a_hangup_reloads(running: Shop) -> None:
    """As every daemon of Unix does; the crew goes on."""
    pid = running.ask("status")["pid"]
    (running.root / "supervisor.toml").write_text("[phases.debugging]\noptions = {depth = 3}\n")
    before = phases(running)
    os.kill(pid, signal.SIGHUP)
    until(lambda: phases(running)["debugging"]["pid"] != before["debugging"]["pid"], "a new worker for Debugging")
    assert phases(running)["qa"]["pid"] == before["qa"]["pid"]


def test_a_start_that_fails_says_why(shop: Shop, tmp_path: Path) -> None:
    """The supervisor's own words and its exit code come back."""
    (shop.root / "crew" / ".history").rename(tmp_path / "elsewhere")
    failed = run(shop, "start")
    assert failed.returncode == 78
    assert "history" in failed.stderr


@pytest.mark.only_on("linux", reason="/proc tells who waits at a port")
def test_whoever_asks_for_the_end_gets_it(running: Shop) -> None:
    """Two that ask at the same moment, and one that asks again while it is stopping, which takes its time here."""
    supervisor = psutil.Process(running.ask("status")["pid"])
    held = [psutil.Process(phases(running)[key]["pid"]) for key in ("planning", "qa")]
    (endpoint,) = [one for one in map(load, Path(running.environ["XDG_RUNTIME_DIR"]).rglob("*.json")) if one]
    with ThreadPoolExecutor(2) as pool:
        for process in (*held, supervisor):
            process.suspend()
        try:
            asked = [pool.submit(Client(endpoint, within=LIMIT).command, "stop") for _ in range(2)]
            until(lambda: waiting_at(endpoint.port) == len(asked), "both are heard at the same moment")
        finally:
            supervisor.resume()
        assert [one.result(LIMIT)["ok"] for one in asked] == [True, True]
    impatient = run(running, "stop", "--timeout", "0.1")
    assert impatient.returncode == 1
    assert "`supervisor stop` waits for it again" in impatient.stderr
    refused = run(running, "restart", "qa")
    assert refused.returncode == 1
    assert "takes no more commands" in refused.stderr
    stopped = run(running, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert [process for process in (supervisor, *held) if process.is_running() and alive(process)] == []


def waiting_at(port: int) -> int:
    """How many connections have not been accepted yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    queues = [row[4] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return sum(int(queue.partition(":")[2], 16) for queue in queues)
