"""The command line as a client: what it asks of a running supervisor, and what it says about the answers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.cli import live
from supervisor.cli.main import run_cli
from supervisor.commands import Hold, Reload, Reply, RestartPhase, StopCrew
from supervisor.control.client import (
    ApiError,
    Client,
    NoneRunningError,
    UnreachableError,
    find_running,
    require_running,
)
from supervisor.control.endpoint import Endpoint, endpoint_file, publish
from supervisor.control.server import serving
from supervisor.exits import Exit
from supervisor.journal import Journal, OwnRow
from supervisor.status import CrewStatus
from supervisor.workspace import Workspace, WorkspaceLock
from tests.supervisor.control_fakes import FakeBackend


class Cli:
    """Runs commands in one workspace and keeps what they said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place = Workspace(folder.resolve())
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, *words: str) -> int:
        code = run_cli(["-C", str(self.place.root), *words])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "project").mkdir()
    made = Cli(tmp_path / "project", capsys)
    assert made("init") == 0
    return made


class Served(threading.Thread):
    """An API over a fake backend, in a loop of its own."""

    def __init__(self, place: Workspace) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.backend: FakeBackend
        self.is_up = threading.Event()
        self._end: anyio.Event
        self._token: Any

    def run(self) -> None:
        anyio.run(self._serve)

    async def _serve(self) -> None:
        self._end = anyio.Event()
        self._token = anyio.lowlevel.current_token()
        folder = self.place.root.parent / "fake"
        folder.mkdir()
        self.backend = FakeBackend.over(folder)
        with self.backend.journal:
            async with serving(self.backend, self.place, endpoint_file(self.place)):
                self.is_up.set()
                await self._end.wait()
                self.backend.hub.close()

    def end(self) -> None:
        anyio.from_thread.run_sync(self._end.set, token=self._token)
        self.join(10)


@pytest.fixture
def served(cli: Cli) -> Iterator[Served]:
    """A supervisor that this process plays: it holds the lock and serves the API."""
    made = Served(cli.place)
    with WorkspaceLock(cli.place):
        made.start()
        assert made.is_up.wait(10)
        yield made
        made.end()


@pytest.mark.parametrize("words", [["stop"], ["restart", "qa"], ["reload"], ["status"]])
def test_without_a_supervisor_there_is_nobody_to_ask(cli: Cli, words: list[str]) -> None:
    """Exit code 3."""
    assert cli(*words) == Exit.NONE_RUNNING
    assert cli(*words, "--json") == Exit.NONE_RUNNING


def test_a_file_left_by_a_dead_supervisor_is_not_believed(cli: Cli) -> None:
    """Whoever has its port now does not get a token."""
    publish(endpoint_file(cli.place), Endpoint(pid=os.getpid(), port=9, token="t", workspace="w"))
    assert find_running(cli.place) is None
    with pytest.raises(NoneRunningError):
        require_running(cli.place)
    with WorkspaceLock(cli.place):
        assert find_running(cli.place) is not None
        publish(endpoint_file(cli.place), Endpoint(pid=1, port=9, token="t", workspace="w"))
        assert find_running(cli.place) is None
        with pytest.raises(UnreachableError, match="has not opened its control API"):
            require_running(cli.place)


def test_status_is_the_supervisors_own(cli: Cli, served: Served) -> None:
    """Not what it saved some time ago."""
    assert cli("status") == 0
    assert "queue 3/1000" in cli.out
    assert cli("status", "--json") == 0
    assert json.loads(cli.out)["head"] == 12
    served.backend.becomes(head=13)
    assert cli("status", "--json") == 0
    assert json.loads(cli.out)["head"] == 13


def test_commands_arrive_and_their_replies_are_told(cli: Cli, served: Served) -> None:
    """Each as it was meant, phases by any of their names."""
    served.backend.reply = Reply(ok=True, text="so be it", data={"phases": ["qa"], "paused": True})
    for words in (["restart", "QA"], ["reload"], ["pause", "qa"], ["resume"]):
        assert cli(*words) == 0, cli.err
        assert cli.out == "so be it\n"
    assert served.backend.asked == [
        RestartPhase(phase="qa"),
        Reload(),
        Hold(phases=("qa",), paused=True),
        Hold(paused=False),
    ]
    assert cli("pause", "--json") == 0
    assert json.loads(cli.out) == {"phases": ["qa"], "paused": True}


def test_a_refusal_is_an_error_with_the_supervisors_words(cli: Cli, served: Served) -> None:
    """Harmless for the terminal, whatever it holds."""
    served.backend.reply = Reply(ok=False, text="qa is being restarted already\x1b[2J")
    assert cli("restart", "qa") == Exit.WORK_REMAINS
    assert "qa is being restarted already" in cli.err
    assert "\x1b" not in cli.err
    assert cli("restart", "nobody") == Exit.USAGE


def test_a_mistake_has_the_same_exit_code_with_and_without_a_supervisor(cli: Cli, served: Served) -> None:
    """A file that cannot be used is a configuration error, whoever has read it; so in JSON."""
    served.backend.reply = Reply(ok=False, text="line 3: restart.x", data={"code": "configuration"})
    assert cli("reload", "--json") == Exit.CONFIGURATION
    assert json.loads(cli.out)["error"] == {"code": "configuration", "text": "line 3: restart.x"}


def test_stop_waits_for_the_end_and_says_when_it_does_not_come(cli: Cli, served: Served) -> None:
    """With where to look, and what can be done. This process plays the supervisor, and stays."""
    assert cli("stop", "--timeout", "0.1") == Exit.WORK_REMAINS
    assert "has not ended within 0.1 s" in cli.err
    assert str(cli.place.logs / "supervisor.log") in cli.err
    assert f"ending process {os.getpid()} by force" in cli.err
    assert "supervisor status" not in cli.err
    assert served.backend.asked == [StopCrew()]


def test_start_refuses_beside_a_running_one(cli: Cli, served: Served) -> None:
    """With its pid, and how to end it."""
    assert cli("start") == Exit.WORKSPACE_BUSY
    assert str(os.getpid()) in cli.err
    assert "supervisor stop" in cli.err


def test_follow_shows_changes_and_ends_with_the_supervisor(
    cli: Cli, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each change, none for a look that brings nothing new."""
    monkeypatch.setattr("supervisor.cli.crew.LOOK_AGAIN", 0.01)
    looks = []
    phase = served.backend.shown.phases["qa"]

    def status() -> Any:
        looks.append(1)
        if len(looks) == 3:
            served.backend.becomes(phases={"qa": replace(phase, state="working", pct=40, step="testing")})
        if len(looks) == 6:
            raise ZeroDivisionError
        return served.backend.shown

    monkeypatch.setattr(served.backend, "status", status)
    client = require_running(cli.place)

    def follow() -> None:
        with live.following(client, as_json=False) as show:
            while True:
                show(CrewStatus.from_json(client.get("/api/status")))

    with pytest.raises(ApiError):
        follow()
    cli("inbox")
    assert [line for line in cli.out.splitlines() if line.startswith(("planning", "qa"))] == [
        "planning ready, developer ready, qa ready, debugging ready",
        "qa working 40 % testing",
    ]


def test_a_supervisor_that_does_not_answer_is_said_so(cli: Cli) -> None:
    """And the status falls back on what it saved; nothing hangs."""
    with WorkspaceLock(cli.place):
        publish(endpoint_file(cli.place), Endpoint(pid=os.getpid(), port=9, token="t", workspace="w"))
        with pytest.raises(UnreachableError, match="does not answer"):
            Client(Endpoint(pid=1, port=9, token="t", workspace="w"), within=1.0).get("/api/status")
        assert cli("status", "--json") == 0
        assert "does not answer" in cli.err


def test_why_and_report_need_no_supervisor(cli: Cli) -> None:
    """They read the record; where there is none, they say so."""
    assert cli("why", "qa") == 0
    assert "Nothing is on record" in cli.out
    assert cli("report", "--json") == 0
    from ipc.events import ProgressEvent

    event = ProgressEvent("log_entry", "qa", "decision", detail="qa was ended by signal 9", summary={"a": 1})
    with Journal.open(cli.place.journal) as journal:
        journal.commit([OwnRow(seq=n, event=event) for n in range(1, 4)]).result()
    assert cli("why", "QA", "--limit", "2") == 0
    assert cli.out.count("Decided: qa was ended by signal 9") == 3  # decided twice, and in short
    assert "1 earlier" in cli.out
    assert cli("why", "qa", "--json") == 0
    assert [reason["inputs"] for reason in json.loads(cli.out)["reasons"]] == [{"a": 1}] * 3
    assert cli("why", "nobody") == Exit.USAGE
    assert cli("report") == 0
    assert cli("report", "--since", "never") == Exit.USAGE


def test_the_shell_is_told_the_phases(cli: Cli) -> None:
    """Those of this workspace, a phase of one's own among them."""
    import typer

    from supervisor.cli.access import complete_phase

    cli.place.config.write_text('[phases.security]\nactor = "a:B"\n')
    context = typer.Context(typer.main.get_command(__import__("supervisor.cli.main", fromlist=["app"]).app))
    context.params["workspace"] = cli.place.root
    assert complete_phase(context, "") == ["planning", "developer", "qa", "debugging", "security"]
    assert complete_phase(context, "De") == ["developer", "debugging"]
