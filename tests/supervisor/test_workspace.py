"""Where things lie, and who may run there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import pytest

from ipc import spool
from supervisor import workspace as module
from supervisor.config import ConfigError
from supervisor.exits import Exit
from supervisor.workspace import (
    FORMAT,
    FORMATS,
    NewerFormatError,
    NoWorkspaceError,
    Role,
    Workspace,
    WorkspaceBusyError,
    WorkspaceError,
    WorkspaceLock,
    find,
    holder,
    runtime_folder,
    state_folder,
    supervising,
)

HOLD = """
import sys
from pathlib import Path
from supervisor.workspace import Workspace, WorkspaceLock
lock = WorkspaceLock(Workspace(Path(sys.argv[1])), role=sys.argv[2]).acquire()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "supervisor.toml").write_text("")
    made = Workspace(tmp_path)
    made.make_folders()
    return made


def holding(place: Workspace, role: Role = "supervisor") -> subprocess.Popen[str]:
    root = Path(module.__file__).parent.parent
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place.root), role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_the_nearest_workspace_upwards_is_found(place: Workspace) -> None:
    """A command works from any folder inside."""
    inner = place.root / "a" / "b"
    inner.mkdir(parents=True)
    assert find(inner).root == place.root.resolve()


def test_no_workspace_says_what_to_do(tmp_path: Path) -> None:
    """Outside of any workspace the answer is `supervisor init`."""
    with pytest.raises(NoWorkspaceError, match="supervisor init"):
        find(tmp_path)


def test_a_second_supervisor_is_refused_and_told_the_first_ones_pid(place: Workspace) -> None:
    """One workspace, one supervisor, whichever process asks."""
    child = holding(place)
    try:
        with pytest.raises(WorkspaceBusyError, match=str(child.pid)) as caught:
            WorkspaceLock(place).acquire()
        assert caught.value.pid == child.pid
        assert caught.value.exit == Exit.WORKSPACE_BUSY
        assert holder(place) == child.pid
    finally:
        end(child)


def test_death_gives_the_lock_back(place: Workspace) -> None:
    """A killed supervisor leaves nothing to clean up by hand."""
    child = holding(place)
    end(child)
    assert holder(place) is None
    with WorkspaceLock(place).acquire():
        assert holder(place) == os.getpid()
    assert holder(place) is None


def test_a_commands_moment_is_waited_for_and_is_no_supervisor(place: Workspace) -> None:
    """`supervisor task` and `supervisor run` at the same time both succeed."""
    child = holding(place, "command")
    assert holder(place) is None
    killer = threading.Timer(0.1, child.kill)
    killer.start()
    try:
        with WorkspaceLock(place).acquire():
            assert child.wait(10) != 0
    finally:
        killer.join()
        end(child)


def test_a_command_that_hangs_with_the_lock_is_named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its moment it is as busy as a supervisor would be."""
    monkeypatch.setattr(module, "COMMANDS_MOMENT", 0.05)
    child = holding(place, "command")
    try:
        with pytest.raises(WorkspaceBusyError, match=str(child.pid)):
            WorkspaceLock(place).acquire()
    finally:
        end(child)


def test_a_pid_that_was_given_to_another_process_is_no_holder(place: Workspace) -> None:
    """The create time tells a reused pid apart."""
    place.lock.write_text(json.dumps({"pid": os.getpid(), "created": 1.0, "role": "supervisor"}))
    assert holder(place) is None


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the system keeps the time at which a process was started"
)
def test_a_supervisor_is_found_after_the_clock_was_set(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's clock was a day behind when it started; it runs all the same, and `stop` must find it."""
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1_000_000.0)
    with WorkspaceLock(place).acquire():
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1_086_400.0)
        assert holder(place) == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the create time that tells them apart")
def test_a_lock_of_before_a_reboot_means_nobody(place: Workspace) -> None:
    """The same number, started at the same moment after another boot, is another process."""
    with WorkspaceLock(place).acquire():
        said = json.loads(place.lock.read_bytes())
    _, ticks = said["started"].split()
    place.lock.write_text(json.dumps({**said, "started": f"{uuid.uuid4()} {ticks}"}))
    assert holder(place) is None


@pytest.mark.parametrize("said", ["", "{", '{"pid": "x", "created": 1}', "[]", '{"pid": 1}'])
def test_a_damaged_lock_file_means_nobody(place: Workspace, said: str) -> None:
    """What the file says is a hint for people; the lock is the system's."""
    place.lock.write_text(said)
    assert holder(place) is None
    WorkspaceLock(place).acquire().release()


def test_a_child_does_not_inherit_the_lock(place: Workspace) -> None:
    """A worker that outlives its supervisor must not keep the workspace locked."""
    lock = WorkspaceLock(place).acquire()
    child = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1, close_fds=False
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        assert lock._fd is not None
        os.close(lock._fd)  # as death does
        WorkspaceLock(place).acquire().release()
    finally:
        child.kill()
        child.communicate()


def test_a_workspace_of_a_newer_release_is_refused_by_name(place: Workspace) -> None:
    """Nothing is changed in it."""
    text = json.dumps({"format": FORMAT + 1})
    place.format.write_text(text)
    with pytest.raises(NewerFormatError, match=f"format {FORMAT + 1}"), supervising(place):
        pass
    assert place.format.read_text() == text


def test_every_number_is_the_one_of_the_code_that_writes_it() -> None:
    """What `format.json` names for others is what they write."""
    assert FORMATS == {"format": FORMAT, "spools": spool.FORMAT}


def test_a_damaged_format_file_is_reported(place: Workspace) -> None:
    """It is not taken for a new workspace."""
    place.format.write_text("{")
    with pytest.raises(WorkspaceError, match="damaged"):
        place.check_format()


def test_supervising_makes_the_folders_and_holds_the_lock(tmp_path: Path) -> None:
    """All that a supervisor needs before it begins, and given back after."""
    place = Workspace(tmp_path)
    with supervising(place):
        assert place.logs.is_dir()
        assert place.spools.is_dir()
        assert holder(place) == os.getpid()
    assert holder(place) is None


def test_a_folder_without_write_permission_is_named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the folder and says what to do, and the code is the configuration's."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(WorkspaceError, match="write permission") as caught:
        place.make_folders()
    assert str(place.state) in str(caught.value)
    assert caught.value.exit == Exit.CONFIGURATION


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path) -> None:
    """Somebody's file called crew is in the way, and stays."""
    (tmp_path / "crew").write_text("mine")
    with pytest.raises(WorkspaceError, match="crew is in the way"):
        Workspace(tmp_path).make_folders()
    assert (tmp_path / "crew").read_text() == "mine"


def test_a_config_that_is_not_utf8_names_the_line(place: Workspace) -> None:
    """Latin-1 is told, not guessed."""
    place.config.write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8"):
        place.read_config()


@pytest.mark.only_on("posix", reason="POSIX permissions")
def test_the_users_own_folders_are_private(tmp_path: Path) -> None:
    """Tokens and trust are nobody else's to read, whatever the folder was before."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "run" / "phase-supervisor").mkdir(parents=True, mode=0o755)
    assert runtime_folder(environ).stat().st_mode & 0o777 == 0o700
    assert state_folder(environ).stat().st_mode & 0o777 == 0o700


@pytest.mark.only_on("posix", reason="where the variable is LOCALAPPDATA it is the system's own")
def test_a_private_folder_that_cannot_be_is_said_with_the_variable(tmp_path: Path) -> None:
    """As after `su`, when XDG_RUNTIME_DIR is still somebody else's: a configuration error, with what to do."""
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(WorkspaceError, match=r"unset it$") as caught:
            runtime_folder({"XDG_RUNTIME_DIR": str(folder)})
        assert "set XDG_RUNTIME_DIR to a folder of yours" in str(caught.value)
        with pytest.raises(WorkspaceError, match="cannot be created"):
            state_folder({"XDG_STATE_HOME": str(folder)})


@pytest.mark.only_on("posix", reason="POSIX permissions")
def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    """Nobody can point our private files elsewhere."""
    (tmp_path / "phase-supervisor").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError, match="not a folder of yours"):
        runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)})
