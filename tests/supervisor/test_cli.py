"""The command line: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pygit2
import pytest
import typer

from docs_store.errors import DamageError, LockBusyError, StoreUnavailableError
from docs_store.messages import SUPERVISOR, Draft, Outcome, Question
from docs_store.store import Store
from ipc.events import ProgressEvent
from supervisor import __file__ as package
from supervisor.cli import main as module
from supervisor.cli.docs import gist
from supervisor.cli.main import run_cli
from supervisor.config import ConfigError, Mistake
from supervisor.exits import Exit, judged
from supervisor.journal import Journal, OwnRow
from supervisor.options import RunOptions
from supervisor.status import CrewStatus, PhaseStatus, save_status
from supervisor.workspace import Workspace, WorkspaceLock, none_runs

EVENT_KEYS = [
    "cursor",
    "worker",
    "epoch",
    "seq",
    "type",
    "phase",
    "step",
    "pct",
    "detail",
    "summary",
    "data",
    "timestamp",
    "transport",
]


class Cli:
    """Runs commands in one folder and keeps what they said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.place = Workspace(folder.resolve())
        self.out = ""
        self.err = ""
        self._capsys = capsys

    def __call__(self, *words: str) -> int:
        code = run_cli(["-C", str(self.folder), *words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *words: str, code: int = 0) -> Any:
        assert self(*words, "--json") == code, self.err
        return json.loads(self.out)

    @property
    def store(self) -> Store:
        return Store.open(self.place.crew, head_file=self.place.head)


@pytest.fixture
def bare(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    folder.mkdir()
    return Cli(folder, capsys)


@pytest.fixture
def cli(bare: Cli) -> Cli:
    assert bare("init") == 0
    return bare


@pytest.fixture
def blocked(cli: Cli) -> tuple[Cli, str]:
    """A workspace where a task of Debugging waits for the user."""
    store = cli.store
    id_ = store.post(SUPERVISOR, Draft(to="debugging", kind="Fix", text="the threshold test fails")).id
    store.start_epoch("debugging", 1, died=False)
    task = store.claim("debugging", 1)
    assert task is not None
    store.finish("debugging", 1, task, Outcome(result="blocked", detail="Is the bound inclusive?"))
    return cli, id_


def test_init_then_everything_can_be_looked_at(cli: Cli) -> None:
    """Right after `init`, every command that shows something works, also as JSON."""
    for words in (
        ["inbox"],
        ["events"],
        ["changes"],
        ["docs", "log"],
        ["docs", "verify"],
        ["docs", "show", "QA_READ"],
        ["docs", "diff", "MASTER_PLAN"],
        ["trust"],
        ["doctor"],
    ):
        assert cli(*words) == 0, (words, cli.err)
        assert cli(*words, "--json") == 0, (words, cli.err)
        for line in cli.out.splitlines():
            json.loads(line)


@pytest.mark.parametrize("words", [["status"], ["inbox"], ["run"], ["events"], ["task", "x"], ["docs", "verify"]])
def test_outside_a_workspace_the_answer_is_init(bare: Cli, words: list[str]) -> None:
    """Code 78, one sentence, what to do."""
    assert bare(*words) == Exit.CONFIGURATION
    assert "supervisor init" in bare.err
    assert "Traceback" not in bare.err


def test_a_wrong_configuration_is_78_with_all_mistakes(cli: Cli) -> None:
    """Every command that needs it says the same."""
    cli.place.config.write_text("[ipc]\nrollout = 3\n[projct]\n")
    for words in (["run"], ["inbox"], ["status"]):
        assert cli(*words) == Exit.CONFIGURATION
        assert "line 2: ipc.rollout" in cli.err
        assert "line 3: projct" in cli.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run", "--nonsense"],
        ["task"],
        ["task", ""],
        ["task", "x", "--to", "nobody"],
        ["answer", "x", "y"],
        ["task", "x", "--priority", "URGENT"],
        ["docs", "show", "NOTHING"],
        ["docs", "show", "QA_READ", "--at", "999"],
        ["docs", "trace", "nothing"],
        ["undo", "nothing"],
        ["changes", "nothing"],
        ["events", "--phase", "nobody"],
        ["events", "--since", "x"],
        ["pause", "nobody"],
        ["run", "--plain", "--json"],
        ["run", "--use-stdout", "--use-queue-ipc"],
    ],
    ids=" ".join,
)
def test_what_names_nothing_is_a_usage_error(cli: Cli, words: list[str]) -> None:
    """Code 2 and a sentence, on standard error; on standard output only for a program."""
    with Journal.open(cli.place.journal):
        pass
    assert cli(*words) == Exit.USAGE
    assert cli.err
    assert bool(cli.out) == ("--json" in words)
    assert "Traceback" not in cli.err


def test_status_without_a_supervisor_is_3_and_still_shows_the_phases(cli: Cli) -> None:
    """The stable shape, with nobody running; what to do about it in the words of every other command."""
    said = cli.json("status", code=Exit.NONE_RUNNING)
    assert said["pid"] is None
    assert said["workspace"] == str(cli.place.root)
    assert [phase["state"] for phase in said["phases"].values()] == ["stopped"] * 4
    assert cli("status") == Exit.NONE_RUNNING
    sentence = none_runs(cli.place.root)
    assert "`supervisor start`" in sentence
    assert cli.out.startswith(f"{sentence}\n")
    assert cli("stop") == Exit.NONE_RUNNING
    assert cli.err == f"supervisor: {sentence}\n"


def test_status_of_a_running_crew_is_what_it_said_last(cli: Cli) -> None:
    """From another process; and only if it is the one that holds the workspace."""
    phases = {"qa": PhaseStatus(title="QA", state="working", pct=40, text="Review \x1b[2Jthis", step="reviewing")}
    with WorkspaceLock(cli.place).acquire():
        save_status(cli.place, CrewStatus(workspace=str(cli.place.root), pid=os.getpid(), phases=phases, head=9))
        assert cli.json("status")["phases"]["qa"]["pct"] == 40
        assert cli("status") == 0
        assert "reviewing Review" in cli.out
        assert "\x1b" not in cli.out
        save_status(cli.place, CrewStatus(workspace=str(cli.place.root), pid=1, phases=phases))
        assert cli.json("status")["phases"]["qa"]["state"] == "starting"


def test_a_task_lands_in_the_document_with_its_kind_and_priority(cli: Cli) -> None:
    """Whether or not a crew runs; the file shows it at once."""
    said = cli.json("task", "issue: rm -rf is slow", "--to", "Debugging", "--priority", "high")
    assert said["document"] == "crew/DEBUG_READ.md"
    message = cli.store.state.messages[said["id"]]
    assert (message.to, message.by, message.kind, message.priority, message.text) == (
        "debugging",
        "user",
        "Issue",
        "HIGH",
        "rm -rf is slow",
    )
    assert "Priority: HIGH - Issue: rm -rf is slow" in (cli.place.crew / "DEBUG_READ.md").read_text("utf-8")


def test_a_task_with_a_colon_that_is_no_kind_keeps_its_text(cli: Cli) -> None:
    """Only the known opening words are taken off."""
    id_ = cli.json("task", "Note: fix the docs")["id"]
    assert cli.store.state.messages[id_].text == "Note: fix the docs"
    assert cli.store.state.messages[id_].kind == "Assess"


def test_with_a_supervisor_running_a_task_is_posted_and_the_views_are_left_to_it(cli: Cli) -> None:
    """One reconciler only."""
    before = (cli.place.crew / "DEBUG_READ.md").read_bytes()
    with WorkspaceLock(cli.place).acquire():
        id_ = cli.json("task", "x", "--to", "debugging")["id"]
    assert id_ in cli.store.state.messages
    assert (cli.place.crew / "DEBUG_READ.md").read_bytes() == before


def test_what_is_blocked_waits_in_the_inbox_and_an_answer_opens_it_again(blocked: tuple[Cli, str]) -> None:
    """The request is shown as it was said; a beginning of the id is enough."""
    cli, id_ = blocked
    (item,) = cli.json("inbox")
    assert (item["id"], item["phase"], item["what"], item["request"]) == (
        id_,
        "debugging",
        "blocked",
        "Is the bound inclusive?",
    )
    assert cli("inbox") == 0
    assert f"supervisor answer {id_}" in cli.out
    assert "> Is the bound inclusive?" in cli.out
    assert cli("answer", id_[:6], "Yes, >= it is") == 0
    assert cli.json("inbox") == []
    assert cli.store.state.messages[id_].status == "open"


def test_a_phase_that_was_given_up_is_in_the_inbox_until_it_starts_again(blocked: tuple[Cli, str]) -> None:
    """With the reason and the command that helps; it takes no answer, and what does is still said how."""
    cli, id_ = blocked
    store = cli.store
    store.start_epoch("qa", 7, died=False)
    store.give_up("qa", died=True, reason="6 restarts within 60 s\nModuleNotFoundError: shop")
    assert cli("inbox") == 0
    assert "qa  [given up]" in cli.out
    assert "ModuleNotFoundError: shop" in cli.out
    assert "supervisor restart qa" in cli.out
    assert f"supervisor answer {id_}" in cli.out
    told = cli.json("inbox")
    assert [(item["id"], item["what"], item["request"]) for item in told[1:]] == [
        ("qa", "given up", "supervisor restart qa")
    ]
    assert told[1]["since"] == store.state.at
    assert cli("answer", "qa", "go on") == Exit.USAGE
    assert "supervisor restart qa" in cli.err
    cli.store.start_epoch("qa", 8, died=False)
    assert [item["id"] for item in cli.json("inbox")] == [id_]


def test_a_question_is_answered_by_its_id(cli: Cli) -> None:
    """And is gone from the inbox then."""
    cli.store.ask(Question(id="q1", n=0, at="", about="QA_READ", text="Keep it?\n\x1b[2J", options=("yes", "no")))
    assert cli("inbox") == 0
    assert "one of: yes, no" in cli.out
    assert "\x1b" not in cli.out
    assert cli("answer", "q1", "yes") == 0
    assert cli.json("inbox") == []


def test_pause_and_resume_hold_one_phase_or_all(cli: Cli) -> None:
    """On record, so that it lasts."""
    assert cli("pause", "QA") == 0
    assert [key for key, epoch in cli.store.state.epochs.items() if epoch.paused] == ["qa"]
    assert cli.json("status", code=3)["phases"]["qa"]["state"] == "paused"
    assert cli("pause") == 0
    assert all(cli.store.state.epochs[phase.key].paused for phase in cli.store.topology.phases)
    assert cli("resume") == 0
    assert not any(epoch.paused for epoch in cli.store.state.epochs.values())


@pytest.fixture
def journaled(cli: Cli) -> Cli:
    with Journal.open(cli.place.journal) as journal:
        for n in range(1, 6):
            event = ProgressEvent(
                "finding" if n % 2 else "progress",
                phase="qa" if n < 4 else "developer",
                step="reviewing",
                detail=f"number {n} \x1b[2J",
                data=b"\x00\xff" if n == 1 else None,
                timestamp=1e9 + n,
            )
            journal.commit([OwnRow(seq=n, event=event)]).result(10)
    return cli


def events_of(cli: Cli, *words: str) -> list[dict[str, Any]]:
    assert cli("events", "--json", *words) == 0, cli.err
    return [json.loads(line) for line in cli.out.splitlines()]


def test_events_json_has_exactly_the_promised_keys(journaled: Cli) -> None:
    """In this order, one object per line, data as base64."""
    found = events_of(journaled)
    assert [list(event) for event in found] == [EVENT_KEYS] * 5
    assert [event["detail"][:8] for event in found] == [f"number {n}" for n in range(1, 6)]
    assert (found[0]["data"], found[1]["data"], found[0]["transport"]) == ("AP8=", None, "supervisor")


def test_events_can_be_filtered_and_continued(journaled: Cli) -> None:
    """By phase, by type, and after a cursor."""
    everything = events_of(journaled)
    assert events_of(journaled, "--since", everything[2]["cursor"]) == everything[3:]
    assert events_of(journaled, "--phase", "qa") == everything[:3]
    assert events_of(journaled, "--type", "finding") == everything[::2]
    assert events_of(journaled, "--phase", "QA", "--type", "progress") == [everything[1]]
    assert events_of(journaled, "--phase", "supervisor") == [e for e in everything if e["phase"] == "supervisor"]
    assert events_of(journaled, "--since", everything[-1]["cursor"]) == []


def test_the_last_events_are_those_of_what_was_asked_for(journaled: Cli) -> None:
    """With filters and a cursor as well; more than there are is all of them."""
    everything = events_of(journaled)
    assert events_of(journaled, "--last", "2") == everything[3:]
    assert events_of(journaled, "-n", "9") == everything
    assert events_of(journaled, "-n", "1", "--phase", "qa") == [everything[2]]
    assert events_of(journaled, "-n", "2", "--type", "finding") == [everything[2], everything[4]]
    assert events_of(journaled, "-n", "5", "--since", everything[2]["cursor"]) == everything[3:]
    assert journaled("events", "--last", "0") == Exit.USAGE


def test_a_type_that_is_not_on_record_is_noted(cli: Cli) -> None:
    """Well-known ones may just not have come yet; one's own is known once it has."""
    assert cli("events", "--type", "findings") == 0
    assert "'findings'" in cli.err
    assert "finding, " in cli.err
    with Journal.open(cli.place.journal) as journal:
        journal.commit([OwnRow(seq=1, event=ProgressEvent("benchmark"))]).result(10)
    assert cli("events", "--type", "nosuch") == 0
    assert "audit_complete, benchmark" in cli.err
    assert not cli.out
    for known in ("benchmark", "screenshot"):
        assert cli("events", "--type", known) == 0
        assert not cli.err


def test_events_for_people_are_harmless_lines(journaled: Cli) -> None:
    """Time, phase, words."""
    assert journaled("events") == 0
    lines = journaled.out.splitlines()
    assert len(lines) == 5
    assert "QA         found number 1" in lines[0]
    assert "\x1b" not in journaled.out


def test_a_journal_that_is_none_is_said_to_be_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is just being created is waited for; this one never becomes any."""
    monkeypatch.setattr("supervisor.cli.events.BIRTH", 0.0)
    cli.place.journal.touch()
    assert cli("events") == Exit.WORK_REMAINS
    assert "journal" in cli.err
    assert "our fault" not in cli.err


def test_events_can_be_followed_from_before_the_first(cli: Cli) -> None:
    """What happens is shown as it happens; Ctrl-C ends it with 130."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "supervisor", "events", "--follow", "--json", "--type", "finding"],
        cwd=cli.folder,
        env={**os.environ, "PYTHONPATH": str(Path(package).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        with Journal.open(cli.place.journal) as journal:
            for n, type_ in enumerate(("finding", "progress", "finding"), start=1):
                journal.commit([OwnRow(seq=n, event=ProgressEvent(type_, detail=str(n)))]).result(10)
                if type_ == "finding":
                    assert json.loads(child.stdout.readline())["detail"] == str(n)
        if sys.platform != "win32":
            child.send_signal(signal.SIGINT)
            assert child.wait(10) == Exit.INTERRUPTED
    finally:
        child.kill()
        child.communicate()


def test_a_cursor_of_another_journal_is_said_to_be_one(journaled: Cli) -> None:
    """Instead of silently beginning somewhere."""
    assert journaled("events", "--since", "ffffffff:1") == 1
    assert "another journal" in journaled.err


def test_the_history_of_a_document_can_be_read(cli: Cli) -> None:
    """Log, diff, an older version, and the story of a message."""
    first, second = (cli.json("task", text, "--to", "qa")["id"] for text in ("one thing", "another thing"))
    assert cli("docs", "log", "QA_READ", "--json") == 0
    log = [json.loads(line) for line in cli.out.splitlines()]
    assert [(entry["by"], entry["kind"]) for entry in log[-2:]] == [("user", "post"), ("user", "post")]
    assert all("QA_READ" in entry["documents"] for entry in log)
    assert cli("docs", "log", "qa_read.md", "-n", "1") == 0
    assert cli.out.count("\n") == 1
    assert cli.out.rstrip().endswith("Review: another thing"), "the log says what was said"
    older = cli.json("docs", "show", "QA_READ", "--at", str(log[-2]["n"]))["text"]
    assert first in older
    assert second not in older
    assert second in cli.json("docs", "show", "QA_READ")["text"]
    last = cli.json("docs", "diff", "QA_READ")["diff"]
    assert f"+- [ ] Review: another thing (from User) <!-- id:{second} -->" in last
    assert "+- [ ] Review: one thing" not in last
    assert cli.json("docs", "diff", "QA_READ", "3", "3")["diff"] == ""
    assert cli("docs", "trace", first) == 0
    assert "one thing" in cli.out
    assert cli("docs", "trace", first, "--mermaid") == 0
    assert "sequenceDiagram" in cli.out
    assert first in json.dumps(cli.json("docs", "trace", first))


def test_what_is_new_in_a_document_is_told_once(cli: Cli) -> None:
    """Messages of a READ document, the lines of any other; asked again, nothing is new, also from another process."""
    assert cli("docs", "show", "QA_READ", "--new") == 0
    first = cli.json("task", "one thing", "--to", "qa")["id"]
    new = cli.json("docs", "show", "QA_READ", "--new")
    assert [(message["id"], message["by"], message["status"]) for message in new["messages"]] == [
        (first, "user", "open")
    ]
    assert not cli.json("docs", "show", "QA_READ", "--new")["changed"]
    assert cli("docs", "show", "QA_READ", "--new") == 0
    assert "Nothing is new in QA_READ.md" in cli.out
    cli.json("task", "another\nthing", "--to", "qa")
    assert cli("docs", "show", "QA_READ", "--new") == 0
    assert cli.out.count("\n") == 1
    assert "User  Review: another" in cli.out
    assert "+# MASTER_PLAN" in cli.json("docs", "show", "MASTER_PLAN", "--new")["diff"]
    assert cli("docs", "show", "QA_READ", "--new", "--at", "3") == 2
    assert "use one of them" in cli.err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"detail": "one bug\nfound", "posts": [{"kind": "Issue", "text": "x"}]}, "one bug"),
        ({"reason": "", "posts": [{"kind": "Alert", "text": "it died"}]}, "Alert: it died"),
        ({"posts": [{"kind": "Issue", "text": "x"}, {"kind": "Issue", "text": "y"}]}, "Issue and 1 more"),
        (
            {"effects": [{"what": "tick", "id": "a"}, {"what": "add", "id": "b"}], "document": "QA_READ"},
            "tick a, add b",
        ),
        ({"phase": "qa", "id": "a"}, "a"),
        ({"document": "QA_READ", "effects": []}, "QA_READ"),
        ({"limits": {}}, ""),
    ],
)
def test_a_line_of_the_log_tells_what_a_record_is_about(data: Any, said: str) -> None:
    """Words before ids, and the first line of them."""
    assert gist(data) == said


def test_a_changed_history_is_found_and_named(cli: Cli) -> None:
    """`docs verify` names the record and ends with 1; others refuse to go on."""
    cli("task", "one thing", "--to", "qa")
    segment = max(cli.place.history.glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b"one thing", b"two thing"))
    assert cli("docs", "verify") == Exit.WORK_REMAINS
    assert "record 2" in cli.out
    assert cli("docs", "verify", "--json") == Exit.WORK_REMAINS
    assert json.loads(cli.out)["bad"] == 3
    assert cli("task", "x") == Exit.CONFIGURATION
    assert "Traceback" not in cli.err


def test_a_damaged_end_is_set_aside_when_the_user_says_so(cli: Cli) -> None:
    """Until then the good part can be looked at, and the command only says what it would do."""
    cli("task", "one thing", "--to", "qa")
    segment = max(cli.place.history.glob("*.jsonl"))
    assert cli("docs", "set-aside") == 0
    segment.write_bytes(segment.read_bytes().replace(b"one thing", b"two thing"))
    assert cli("docs", "show", "QA_READ") == 0
    assert "damaged" in cli.err
    assert "# QA_READ" in cli.out
    assert cli("docs", "log") == 0
    assert cli("docs", "set-aside") == Exit.WORK_REMAINS
    assert "--yes" in cli.out
    assert cli("docs", "set-aside", "--yes") == 0
    assert cli("docs", "verify") == 0
    assert cli("task", "another thing", "--to", "qa") == 0
    assert cli("docs", "show", "QA_READ") == 0
    assert "one thing" in cli.out, "the document still showed it, so it was taken in from there"
    assert "another thing" in cli.out


def test_a_document_can_be_had_of_a_time(cli: Cli) -> None:
    """A moment is as good as a number; what is neither, or before the beginning, is said."""
    cli("task", "one thing", "--to", "qa")
    assert cli("docs", "log", "--json") == 0
    at = json.loads(cli.out.splitlines()[-1])["at"]
    assert "one thing" in cli.json("docs", "show", "QA_READ", "--at", at)["text"]
    assert cli("docs", "show", "QA_READ", "--at", "2020-01-01T10:00") == Exit.USAGE
    assert "had not begun" in cli.err
    assert cli("docs", "show", "QA_READ", "--at", "yesterday") == Exit.USAGE
    assert "neither" in cli.err


@pytest.mark.parametrize("program", ["git", None])
def test_the_history_can_be_taken_along_as_a_git_repository(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """One commit per record that touched a document, with its author; with git's own tool or without it."""
    found = shutil.which("git")
    if program and not found:
        pytest.skip("there is no git here")
    monkeypatch.setattr("supervisor.cli.docs.shutil.which", lambda _: found if program else None)
    cli("task", "one thing", "--to", "qa")
    target = tmp_path / "exported"
    assert cli.json("docs", "export-git", str(target))["commits"] == 2
    repository = pygit2.Repository(str(target))
    commits = list(repository.walk(repository.head.target))
    assert [commit.author.name for commit in commits] == ["user", "supervisor"]
    assert "one thing" in (target / "QA_READ.md").read_text("utf-8")
    assert cli("docs", "export-git", str(target)) == Exit.USAGE
    assert "not empty" in cli.err


def test_commands_of_the_configuration_wait_for_trust(cli: Cli) -> None:
    """`run` names them and refuses; after `trust` it does not any more."""
    cli.place.config.write_text('[phases.security]\nactor = "a.b:C"\n')
    assert cli("run") == Exit.CONFIGURATION
    assert "a.b:C" in cli.err
    assert "supervisor trust" in cli.err
    assert cli.json("trust")["new"] is True
    assert cli.json("trust")["new"] is False


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """A crew that notes what it was asked to do, and needs the user."""
    asked: list[RunOptions] = []

    def run_workspace(options: RunOptions, view: object) -> int:
        asked.append(options)
        return Exit.WORK_REMAINS

    fake = types.ModuleType("supervisor.foreground")
    fake.run_workspace = run_workspace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervisor.foreground", fake)
    return asked


def test_run_hands_on_its_options_and_the_crews_exit_code(cli: Cli, ran: list[RunOptions]) -> None:
    """Nothing is lost between the command line and the crew's owner."""
    assert cli("run", "--until-idle", "--use-queue-ipc", "--plain", "-vv") == Exit.WORK_REMAINS
    assert ran == [RunOptions(workspace=cli.place.root, until_idle=True, use_queue_ipc=True, verbose=2, show="plain")]
    assert cli("run", str(cli.folder)) == Exit.WORK_REMAINS
    assert ran[1] == RunOptions(workspace=cli.place.root)
    assert cli("run", "--use-stdout") == Exit.WORK_REMAINS
    assert ran[2] == RunOptions(workspace=cli.place.root, use_stdout=True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x", [Mistake(1, "a", "b")]), Exit.CONFIGURATION),
        (LockBusyError(Path("lock"), 10, 7), Exit.WORKSPACE_BUSY),
        (StoreUnavailableError("No space left"), Exit.WORK_REMAINS),
        (DamageError("cut", n=3), Exit.CONFIGURATION),
        (PermissionError(13, "Permission denied", "/x"), Exit.WORK_REMAINS),
        (KeyError("x"), Exit.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(int(value)),
)
def test_each_error_has_its_code_and_its_words(error: Exception, code: Exit) -> None:
    """One table for all commands."""
    found, text = judged(error)
    assert found == code
    assert text
    assert (code is Exit.INTERNAL) == ("our fault" in text)


def test_a_traceback_needs_vv(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it an internal error is one line with code 70; with it, the place is shown too."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom \x1b[2J")

    monkeypatch.setattr("supervisor.status.waiting", broken)
    monkeypatch.setattr("supervisor.cli.work.awaited", broken)
    assert cli("inbox") == Exit.INTERNAL
    assert "ZeroDivisionError: boom" in cli.err
    assert "Traceback" not in cli.err
    assert "\x1b" not in cli.err
    assert run_cli(["-vv", "-C", str(cli.folder), "inbox"]) == Exit.INTERNAL


def test_doctor_finds_what_is_wrong(cli: Cli) -> None:
    """With code 1, the check's name, and what to do."""
    cli.place.config.write_text("[ipc]\nrollout = 3\n")
    checks = {check["name"]: check for check in cli.json("doctor", code=1)}
    assert checks["supervisor.toml"]["level"] == "error"
    assert "ipc.rollout" in checks["supervisor.toml"]["text"]
    assert {"python", "sqlite", "import name", "pytest", "ruff", "disk", "supervisor"} <= checks.keys()


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["run", "--help"], ["docs", "--help"], ["docs", "trace", "-h"]], ids=" ".join
)
def test_help_is_there_for_all(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every command says how it is used."""
    code = run_cli(words)
    text = "".join(capsys.readouterr())
    assert code in (0, 2)
    assert "Usage: supervisor" in text


def test_commands_are_grouped_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """By what a person wants to do."""
    run_cli(["--help"])
    text = capsys.readouterr().out
    assert text.index(module.RUNNING) < text.index(" init ") < text.index(module.WORKING)
    assert text.index(module.WORKING) < text.index(" inbox ") < text.index(module.LOOKING) < text.index(" events ")


def real(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(package).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, **environ},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_a_real_process_ends_with_the_same_codes(tmp_path: Path) -> None:
    """From any folder inside; a console that knows only ASCII is no reason to fail."""
    assert real("init", cwd=tmp_path).returncode == 0
    inner = tmp_path / "inner"
    inner.mkdir()
    assert real("status", cwd=inner).returncode == Exit.NONE_RUNNING
    asked = real("task", "Grüße …", cwd=inner, PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert asked.returncode == 0, asked.stderr
    shown = real("docs", "show", "PLANNING_READ", cwd=inner, PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert b"Gr??e ?" in shown.stdout.replace(b"\xc3", b"?")


def test_a_command_without_any_streams_works(tmp_path: Path) -> None:
    """A program without a console has no streams at all: what is said goes nowhere, and the work is done."""
    code = (
        "import sys; sys.stdin = sys.stdout = sys.stderr = None\n"
        "from supervisor.cli.main import run_cli\n"
        "codes = [run_cli(['-C', sys.argv[1], *words])\n"
        "         for words in (['init'], ['status'], ['docs', 'show', 'NOTHING'])]\n"
        "open('codes', 'w').write(str([int(code) for code in codes]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(package).parent.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "codes").read_text() == "[0, 3, 2]"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """`supervisor docs show … | head` stays quiet."""
    assert real("init", cwd=tmp_path).returncode == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "docs", "show", "QA_READ"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(package).parent.parent)},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert done.returncode in (0, 1)  # typer's own answer to a closed pipe is 1
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "code", "exit_"),
    [
        (["docs", "show", "NOTHING"], "usage", Exit.USAGE),
        (["status", "--no-such-option"], "usage", Exit.USAGE),
        (["events", "--last", "many"], "usage", Exit.USAGE),
        (["why"], "usage", Exit.USAGE),
        (["stop"], "none_running", Exit.NONE_RUNNING),
        (["report"], "internal", Exit.INTERNAL),
        (["inbox"], "configuration", Exit.CONFIGURATION),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_program_gets_its_error_as_json(
    cli: Cli, words: list[str], code: str, exit_: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the API's shape, with the same exit code and the same sentence on standard error; people get that only."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("supervisor.report.made", broken)
    if exit_ is Exit.CONFIGURATION:
        cli.place.config.write_text("[projct]\n")
    told = cli.json(*words, code=exit_)["error"]
    assert told.keys() == {"code", "text"}
    assert told["code"] == code
    boxless = " ".join(re.sub("[│╭╮╰╯─]", " ", cli.err).split())
    assert " ".join(told["text"].split()) in boxless
    assert cli(*words) == exit_
    assert not cli.out
    assert cli("task", "--", "--json") == (exit_ if exit_ is Exit.CONFIGURATION else Exit.DONE)
    assert not cli.out.startswith("{")


def every_command(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from every_command(inner, (*words, name))
    else:
        yield words, command


EVERY = dict(every_command(typer.main.get_command(module.app)))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_says_what_it_does_and_can_say_it_in_json(words: tuple[str, ...]) -> None:
    """A sentence with an end for the command, and for each option and argument; `--json` on each."""
    command = EVERY[words]
    assert re.match(r"[A-Z].*\.", command.help or "", re.DOTALL), "no sentence"
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    silent = [
        parameter.name for parameter in command.params if not getattr(parameter, "help", "") and not parameter.hidden
    ]
    assert silent == [], "without a help text"


@pytest.mark.parametrize("words", [words for words in EVERY if words not in {("init",), ("doctor",)}], ids=" ".join)
def test_every_command_gives_programs_its_errors(bare: Cli, words: tuple[str, ...]) -> None:
    """Here: that there is no workspace, or that something is left out."""
    code = bare(*words, "--json")
    assert code in {Exit.CONFIGURATION, Exit.USAGE}
    assert json.loads(bare.out)["error"]["code"] in {"configuration", "usage"}


@pytest.mark.only_on("posix", reason="where the variable is LOCALAPPDATA it is the system's own")
def test_nothing_is_started_in_the_background_that_no_command_would_reach(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime folder that cannot be used is told before, with what to do."""
    assert cli("init") == 0
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    started: list[object] = []
    monkeypatch.setattr("supervisor.cli.control._detached", lambda *of: started.append(of))
    assert cli("start") == Exit.CONFIGURATION
    assert "set XDG_RUNTIME_DIR" in cli.err
    assert started == []


def test_a_shell_completes_what_can_be_named(blocked: tuple[Cli, str]) -> None:
    """By the script that `--show-completion` prints: commands, phases, documents, types, what waits for an answer."""
    cli, waits = blocked

    def completed(line: str) -> list[str]:
        words = {"_SUPERVISOR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run(
            [sys.executable, "-m", "supervisor"],
            env={**os.environ, **words, "PYTHONPATH": str(Path(package).parent.parent)},
            cwd=cli.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert completed("supervisor rest") == ["restart"]
    assert completed("supervisor restart de") == ["developer", "debugging"]
    assert completed("supervisor rollout a") == ["advance"]
    assert completed("supervisor answer ") == [waits]
    assert completed("supervisor docs show QA") == ["QA_READ", "QA_WRITE"]
    assert completed("supervisor events --type phase_e") == ["phase_error"]
    assert completed("supervisor events --phase ")[-1] == "supervisor"
    (cli.folder / "supervisor.toml").write_text("nonsense")
    assert completed("supervisor answer ") == []
    assert completed("supervisor restart de") == ["developer", "debugging"]
