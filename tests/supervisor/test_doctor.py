"""What the doctor says about a machine and a workspace."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from supervisor import doctor
from supervisor.bootstrap import init
from supervisor.config import Config, parse
from supervisor.doctor import (
    LEAST_FREE,
    disk,
    documents,
    examine,
    import_name,
    interpreter,
    probes,
    python,
    queue_round_trip,
    sqlite,
    trees,
    trusted,
)
from supervisor.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    init(tmp_path / "project")
    return Workspace(tmp_path / "project")


@pytest.mark.only_on("posix", reason="where the variable is LOCALAPPDATA it is the system's own")
def test_a_runtime_folder_that_cannot_be_used_is_an_error(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it there is no control API, so that no command reaches the crew."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    (wrong,) = [check for check in examine(place.root) if check.name == "runtime folder"]
    assert wrong.level == "error"
    assert "set XDG_RUNTIME_DIR to a folder of yours" in wrong.text


def test_a_fresh_workspace_on_this_machine_is_well(place: Workspace) -> None:
    """Nothing is an error right after `init`; every check has a name of its own."""
    checks = examine(place.root)
    assert [check for check in checks if check.level == "error" and check.name != "import name"] == []
    assert len({check.name for check in checks}) == len(checks)


def test_examining_changes_nothing(place: Workspace) -> None:
    """Not a file is added or written."""
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if path.is_file()}
    examine(place.root)
    assert {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if path.is_file()} == before


def test_without_a_workspace_the_machine_is_checked_all_the_same(tmp_path: Path) -> None:
    """And the workspace's absence is an error with its remedy."""
    *_, last = examine(tmp_path)
    assert (last.name, last.level, last.fix) == ("workspace", "error", "supervisor init")


def test_versions_too_old_are_errors() -> None:
    """The least that is needed passes, one less does not."""
    assert [python(version).level for version in ((3, 10, 14), (3, 11, 0), (3, 14, 1))] == ["error", "ok", "ok"]
    assert [sqlite(version).level for version in ((3, 34, 1), (3, 35, 0))] == ["error", "ok"]


def test_by_what_a_crew_s_processes_are_found_is_said() -> None:
    assert trees("linux", grouped=True).text == "found by session, mark and descent, and by a control group"
    assert trees("linux", grouped=False).text.endswith("; no control group may be made here")
    assert trees("win32", grouped=False).text == "found by job objects"
    assert trees("darwin", grouped=False).text == "found by session and mark"


def test_the_other_distribution_with_our_import_name_is_an_error() -> None:
    """supervisord's `supervisor` and ours cannot share an environment."""
    here = Path("x/supervisor/doctor.py")
    assert import_name(frozenset({"supervisor", "phase-supervisor"}), here).level == "error"
    assert import_name(frozenset({"phase-supervisor", "supervisor-checks"}), here).level == "ok"


def test_the_queue_is_tried_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back; and what keeps it from that is said, as a warning: the crew has another way."""
    assert queue_round_trip().level == "ok"
    for code, said in (("raise SystemExit('no sockets here')", "no sockets here"), ("print()", "Empty")):
        monkeypatch.setattr(doctor, "ROUND_TRIP", code)
        found = queue_round_trip()
        assert (found.level, said in found.text) == ("warning", True), found
    monkeypatch.setattr(doctor, "ROUND_TRIP", "import ipc; ipc.deserialize_queue_from_env().put('another', timeout=10)")
    assert "something else came out of it: 'another'" in queue_round_trip().text


def test_a_disk_nearly_full_is_an_error() -> None:
    """Before the crew would have to pause."""
    assert [disk(free, Path("/x")).level for free in (LEAST_FREE - 1, LEAST_FREE)] == ["error", "ok"]


def test_the_projects_interpreter_is_named(place: Workspace) -> None:
    """Its .venv, else ours with a remark; a given one that is not there is an error."""
    assert interpreter(place, Config()).level == "warning"
    program = place.root / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.touch()
    assert ".venv/bin/python" in interpreter(place, Config()).text
    assert interpreter(place, parse('[project]\npython = "no/such/python"')).level == "error"


def test_commands_that_are_not_trusted_are_an_error(place: Workspace) -> None:
    """The remedy is `supervisor trust`."""
    check = trusted(place, parse('[phases.security]\nactor = "a.b:C"'))
    assert check.level == "error"
    assert "supervisor trust" in check.fix


def test_a_probe_whose_program_is_missing_is_a_warning(place: Workspace) -> None:
    """Nobody would be asked; one in the workspace is found."""
    toml = '[phases.qa.probe]\ncommand = ["{}"]\n'
    assert list(probes(place, Config())) == []
    (check,) = probes(place, parse(toml.format("no-such-program")))
    assert (check.level, "phases.qa.probe.command" in check.text) == ("warning", True)
    (check,) = probes(place, parse(toml.format(sys.executable.replace("\\", "/"))))
    assert check.level == "ok"


def test_a_damaged_history_is_an_error(place: Workspace) -> None:
    """With both ways out: a backup, and what can be done without one. A missing one is an error, too."""
    assert documents(place, Config()).level == "ok"
    segment = max(place.history.glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b"PLANNING_READ", b"PLANNING_READY", 1))
    check = documents(place, Config())
    assert check.level == "error"
    assert "backup" in check.fix
    assert "supervisor docs set-aside" in check.fix
    shutil.rmtree(place.history)
    assert documents(place, Config()).fix == "supervisor init"


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs them."""

    def missing(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert [(check.level, check.fix) for check in doctor._tools()] == [
        ("error", "pip install pytest"),
        ("error", "pip install ruff"),
    ]
