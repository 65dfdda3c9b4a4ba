"""The actors of a configuration, looked at in a process of their own before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor import doctor
from supervisor.bootstrap import trust
from supervisor.config import ConfigError
from supervisor.exits import Exit, UserError
from supervisor.own_actors import require_usable_actors, wrong_actors
from supervisor.workspace import Workspace

GOOD = """\
print("printed at import")

class Mine:
    async def perform(self, task, context):
        ...
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w")
    made.root.mkdir()
    return made


def configure(workspace: Workspace, text: str, **modules: str) -> None:
    workspace.config.write_text(text, encoding="utf-8")
    for name, code in modules.items():
        (workspace.root / f"{name}.py").write_text(code, encoding="utf-8")


def test_a_usable_actor_passes_whatever_it_prints(workspace: Workspace) -> None:
    """It is found in the workspace's folder; its prints do not reach the answer."""
    configure(workspace, '[phases.mine]\nactor = "mine:Mine"\n', mine=GOOD)
    assert wrong_actors(workspace, workspace.read_config()) == {}
    require_usable_actors(workspace, workspace.read_config())


def test_without_actors_no_process_is_started(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has none does not pay for the look."""
    configure(workspace, "")
    monkeypatch.setattr("supervisor.own_actors.worker_command", None)
    assert wrong_actors(workspace, workspace.read_config()) == {}


def test_every_mistake_is_named_with_its_line_and_key(workspace: Workspace) -> None:
    """Exit 78, one line per phase; the import of one does not keep the others from being looked at."""
    text = """\
[phases.gone]
actor = "no_such_module:Mine"

[phases.quits]
actor = "quits:Mine"

[phases.qa]
actor = "plain:Mine"
"""
    configure(workspace, text, quits="raise SystemExit(3)", plain="Mine = 1")
    with pytest.raises(ConfigError) as caught:
        require_usable_actors(workspace, workspace.read_config())
    assert caught.value.exit is Exit.CONFIGURATION
    said = {(mistake.line, mistake.where): mistake.text for mistake in caught.value.mistakes}
    assert set(said) == {(2, "phases.gone.actor"), (5, "phases.quits.actor"), (8, "phases.qa.actor")}
    assert "no module 'no_such_module'" in said[2, "phases.gone.actor"]
    assert "ended the process (exit 3)" in said[5, "phases.quits.actor"]
    assert "is an int, not a class" in said[8, "phases.qa.actor"]


def test_an_import_that_does_not_end_is_not_waited_for(workspace: Workspace) -> None:
    """The time is limited, and the error says so."""
    configure(workspace, '[phases.mine]\nactor = "slow:Mine"\n', slow="import threading; threading.Event().wait()")
    with pytest.raises(ConfigError, match=r"phases.mine.actor: importing it has not ended within 2 s"):
        require_usable_actors(workspace, workspace.read_config(), patience=2.0)


@pytest.mark.parametrize(("code", "said"), [(9, r"could not be looked at \(exit 9\)"), (0, "an import ended the pro")])
def test_an_import_that_kills_its_process_is_told_and_not_taken_for_usable(
    workspace: Workspace, code: int, said: str
) -> None:
    """No answer is no approval."""
    configure(workspace, '[phases.mine]\nactor = "dies:Mine"\n', dies=f"import os; os._exit({code})")
    with pytest.raises(UserError, match=said) as caught:
        require_usable_actors(workspace, workspace.read_config())
    assert caught.value.exit is Exit.CONFIGURATION


def test_a_module_named_like_one_of_ours_does_not_replace_it(workspace: Workspace) -> None:
    """Ours come first on the path, as in a worker."""
    modules = {"docs_store": "1 / 0", "smtplib": "1 / 0"}
    configure(workspace, '[phases.mine]\nactor = "mine:Mine"\n', mine=f"import smtplib\n{GOOD}", **modules)
    assert wrong_actors(workspace, workspace.read_config()) == {}


def test_doctor_looks_at_actors_only_once_they_are_trusted(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking means importing, which is running."""
    monkeypatch.setattr("supervisor.bootstrap.state_folder", lambda: tmp_path)
    configure(
        workspace,
        '[phases.mine]\nactor = "mine:Mine"\n',
        mine=f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()",
    )
    config = workspace.read_config()
    assert list(doctor.actors(workspace, config)) == []
    assert not (tmp_path / "ran").exists()
    trust(workspace, config)
    assert [(check.level, check.text.partition(" (")[0]) for check in doctor.actors(workspace, config)] == [
        ("error", "phases.mine.actor: mine")
    ]
    assert (tmp_path / "ran").exists()
