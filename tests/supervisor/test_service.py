"""Services: what each manager is told, and what is done with it. The managers themselves are played by a list."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.bootstrap import NotTrustedError, require_trust
from supervisor.cli.main import run_cli
from supervisor.cli.service import Wrapper
from supervisor.crew import BUDGET
from supervisor.exits import Exit
from supervisor.service import systemd
from supervisor.service.definition import STOP_WITHIN, Scope, Service, default_name, is_retried
from supervisor.service.installed import Answer, Launchd, ServiceError, Systemd
from supervisor.service.launchd import plist
from supervisor.service.relayed import relayed
from supervisor.service.systemd import unit
from supervisor.service.wrappers import nssm, shawl, trusting, winsw
from supervisor.workspace import NAME, Workspace

ODD = "/srv/100 % günstig/it's $HOME"
visible = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


def service(workspace: str = "/srv/shop", *, scope: Scope = "user", user: str = "", path: str = "") -> Service:
    return Service(
        workspace=PurePosixPath(workspace),
        python=PurePosixPath("/opt/venv/bin/python"),
        scope=scope,
        user=user,
        path=path,
    )


def setting(text: str, name: str) -> str:
    (found,) = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]
    return found


def test_every_manager_waits_longer_than_we_need() -> None:
    """Nobody insists before our own budget for stopping is over, the last look included."""
    assert BUDGET + 15 < STOP_WITHIN
    assert float(setting(unit(service()), "TimeoutStopSec")) == STOP_WITHIN
    assert plistlib.loads(plist(service()))["ExitTimeOut"] == STOP_WITHIN
    assert f"--stop-timeout {STOP_WITHIN}000" in shawl(service())
    assert f"AppStopMethodConsole {STOP_WITHIN}000" in nssm(service())
    assert ET.fromstring(winsw(service())).findtext("stoptimeout") == f"{STOP_WITHIN} sec"


@pytest.mark.parametrize("code", [0, 2, 75, 78, 130])
def test_what_another_start_would_only_repeat_is_not_retried(code: int) -> None:
    """Done, wrong usage, busy, wrong configuration and an end on request: no manager starts those again."""
    assert not is_retried(code)
    assert relayed(code) == 0
    text = unit(service())
    never = {0, *map(int, setting(text, "RestartPreventExitStatus").split()), int(setting(text, "SuccessExitStatus"))}
    assert code in never
    assert f"AppExit {code} Exit" in nssm(service())
    words = shlex.split(shawl(service()).splitlines()[1])
    assert str(code) in words[words.index("--restart-if-not") + 1].split(",")


@pytest.mark.parametrize("code", [1, 70, -9, 134])
def test_what_broke_is_retried(code: int) -> None:
    """An error of ours, of the disk, or a kill: the manager hears of it and starts again."""
    assert is_retried(code)
    assert relayed(code) == code


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("scope", ["user", "system"])
@pytest.mark.parametrize("name", ["shop", "100 % günstig $HOME"])
def test_systemd_takes_the_unit(tmp_path: Path, scope: Scope, name: str) -> None:
    """`systemd-analyze verify` finds nothing to say, also about a path with blanks, a percent sign and a dollar."""
    root = tmp_path / name
    root.mkdir()
    made = Service(
        workspace=root,
        python=Path(sys.executable),
        scope=scope,
        user="root" if scope == "system" else "",
        path="/usr/bin:/bin",
        credentials=(("key", root / "key"),),
    )
    file = tmp_path / f"{made.name}.service"
    file.write_text(unit(made), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if made.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_calls_the_system_s_service_ok(tmp_path: Path) -> None:
    """Its exposure, which `systemd-analyze security` gives from 0 to 10, is no more than the documentation says."""
    made = service(scope="system", user="builder")
    file = tmp_path / f"{made.name}.service"
    file.write_text(unit(made), encoding="utf-8")
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=41", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"exposure level for .*: (\d\.\d) OK", done.stdout)


@given(visible)
def test_a_unit_s_command_line_is_the_command(name: str) -> None:
    """Blanks, quotes, backslashes, percent signs and dollars reach the program as they are."""
    made = service(f"/srv/{name}")
    line = setting(unit(made), "ExecStart").replace("%%", "%").replace("$$", "$")
    assert shlex.split(line) == list(made.command)


def test_a_system_s_service_is_hardened() -> None:
    """Of the file system only the workspace can be written to, and no right is ever gained."""
    text = unit(service(ODD, scope="system", user="builder"))
    assert setting(text, "User") == "builder"
    assert setting(text, "ProtectSystem") == "strict"
    assert setting(text, "ReadWritePaths") == '"/srv/100 %% günstig/it\'s $HOME"'
    assert setting(text, "NoNewPrivileges") == "yes"
    assert setting(text, "KillMode") == "mixed"
    assert setting(text, "Type") == "notify"
    assert "User=" not in unit(service(user=""))


def test_a_property_list_says_the_same() -> None:
    """launchd is given the words of the command as they are, and starts again only what failed."""
    said = plistlib.loads(plist(service(ODD, scope="system", user="builder", path="/usr/bin")))
    assert said["ProgramArguments"][3:] == ["supervisor.service.relayed", "-C", ODD, "run", "--plain"]
    assert said["KeepAlive"] == {"SuccessfulExit": False}
    assert said["UserName"] == "builder"
    assert said["EnvironmentVariables"]["PATH"] == "/usr/bin"


def test_wrappers_of_windows_quote_their_way() -> None:
    """A path with blanks is one argument, and one with & is valid XML."""
    made = Service(workspace=PureWindowsPath(r"C:\R & D\my shop"), python=PureWindowsPath(r"C:\venv\python.exe"))
    assert r'-C "C:\R & D\my shop" run --plain' in shawl(made)
    found = ET.fromstring(winsw(made))
    assert found.findtext("arguments") == r'-P -m supervisor.service.relayed -C "C:\R & D\my shop" run --plain'
    assert found.findtext("workingdirectory") == r"C:\R & D\my shop"


def split(line: str) -> list[str]:
    """A command line as a program on Windows gets its words: the rules of the C runtime, `""` within quotes aside."""
    words: list[str] = []
    word: list[str] = []
    begun = quoted = False
    for slashes, mark in re.findall(r"(\\*)([^\\]|$)", line):
        if mark == '"':
            word += "\\" * (len(slashes) // 2)
            if len(slashes) % 2:
                word += mark
            else:
                quoted = not quoted
            begun = True
            continue
        word += slashes
        begun = begun or bool(slashes)
        if mark in {" ", ""} and not quoted:
            if begun:
                words.append("".join(word))
            word, begun = [], False
        else:
            word += mark
            begun = True
    return words


WINDOWS = PureWindowsPath(r"C:\work")


@given(st.text(st.sampled_from('ab\\" &'), max_size=12), st.text(st.sampled_from("ab\\ "), max_size=12))
def test_words_are_split_as_they_were_joined(one: str, other: str) -> None:
    """The C runtime's rules, on which the next test stands, undo what `list2cmdline` does."""
    assert split(subprocess.list2cmdline([one, other, "x"])) == [one, other, "x"]


def past_cmd(line: str) -> str:
    """What cmd.exe makes of a line that it is given: one command, without its carets; anything else fails."""
    kept, quoted = "", False
    marks = iter(line)
    for mark in marks:
        assert mark != "%", f"a variable in {line}"
        if mark == "^" and not quoted:
            kept += next(marks)
            continue
        assert quoted or mark not in "&|<>()", f"cmd.exe ends the command at {mark} of {line}"
        quoted ^= mark == '"'
        kept += mark
    return kept


@pytest.mark.parametrize("folder", ["my shop", "R&D", "R & D (old)", "a^b", "up&del x"])
def test_nssm_starts_the_command_as_it_is(folder: str) -> None:
    """NSSM keeps what follows AppParameters, with blanks between the words, and hands it over: nothing falls apart."""
    made = Service(workspace=WINDOWS / folder, python=PureWindowsPath(r"C:\Program Files\venv\python.exe"))
    lines = [split(past_cmd(line)) for line in nssm(made).splitlines() if line.startswith("nssm")]
    (program,) = [words[3:] for words in lines if words[:2] == ["nssm", "install"]]
    (kept,) = [" ".join(words[4:]) for words in lines if words[3:4] == ["AppParameters"]]
    assert [*program, *split(kept)] == list(made.command)


windows_names = st.text(st.sampled_from("ab &^()'!;,=+-ü"), min_size=1, max_size=12)


@given(windows_names)
def test_a_prompt_runs_one_command_a_line(name: str) -> None:
    """Whatever Windows allows in a folder's name is a word of its own for cmd.exe, with Shawl and with NSSM."""
    made = Service(workspace=WINDOWS / f"x{name}x", python=WINDOWS / "python.exe")
    lines = [split(past_cmd(line)) for line in shawl(made).splitlines() if line.startswith("shawl")]
    assert lines[0][-len(made.command) :] == list(made.command)
    lines = [split(past_cmd(line)) for line in nssm(made).splitlines() if line.startswith("nssm")]
    assert ["nssm", "set", made.name, "AppDirectory", str(made.workspace)] in lines


@pytest.mark.parametrize("wrapper", [shawl, winsw, nssm])
def test_a_percent_sign_is_refused(wrapper: Callable[[Service], str]) -> None:
    """cmd.exe and the wrappers would put a variable's value in its place, and nothing keeps them from it."""
    with pytest.raises(ValueError, match="percent sign"):
        wrapper(Service(workspace=WINDOWS / "100%PATH%", python=WINDOWS / "python.exe"))


def test_every_wrapper_hands_the_path_over() -> None:
    """A service inherits no shell's PATH: what was there at the installation is what the crew gets."""
    path = r"C:\R&D\bin;C:\Program Files\Git\cmd"
    made = Service(workspace=WINDOWS, python=WINDOWS / "python.exe", path=path)
    (line,) = [split(past_cmd(line)) for line in nssm(made).splitlines() if "AppEnvironmentExtra" in line]
    assert line[3:] == ["AppEnvironmentExtra", f"PATH={path}"]
    (line,) = [split(past_cmd(line)) for line in shawl(made).splitlines() if line.startswith("reg.exe")]
    assert line[2].endswith(rf"\Services\{made.name}")
    assert line[line.index("/d") + 1] == f"PATH={path}"
    assert line[line.index("/s") + 1] not in path
    (variable,) = ET.fromstring(winsw(made)).findall("env")
    assert variable.attrib == {"name": "PATH", "value": path}


def test_names_differ_where_folders_do() -> None:
    """Two workspaces of one folder name are two services; a name that no manager takes is refused."""
    assert default_name(PurePosixPath("/a/shop")) != default_name(PurePosixPath("/b/shop"))
    assert default_name(PurePosixPath("/")).startswith("phase-supervisor-workspace-")
    for name in ("../x", "a b", "-x", "x" * 81):
        with pytest.raises(ValueError, match="service's name"):
            Service(workspace=PurePosixPath("/a"), python=PurePosixPath("/p"), name=name)
    with pytest.raises(ValueError, match="control characters"):
        service("/srv/a\nExecStartPre=/bin/evil")


class Manager:
    """Plays systemctl or launchctl: notes what it is asked, and answers from a table."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.asked: list[str] = []
        self.answers = answers or {}

    def __call__(self, words: Sequence[str]) -> Answer:
        asked = " ".join(words)
        self.asked.append(asked)
        return next((answer for part, answer in self.answers.items() if part in asked), Answer(0, ""))


def test_systemd_s_steps(tmp_path: Path) -> None:
    """A unit is written, loaded and enabled; taken away, it is stopped and forgotten."""
    asked = Manager({"show": Answer(0, "ActiveState=active\nSubState=running\nResult=success")})
    manager = Systemd(asked, folders={"user": tmp_path / "units", "system": tmp_path / "system"})
    made = service()
    assert manager.status(made).state == "not installed"
    file = manager.install(made)
    assert file.read_text(encoding="utf-8") == unit(made)
    manager.start(made)
    assert manager.status(made).state == "running"
    manager.stop(made)
    manager.uninstall(made)
    assert not file.exists()
    begin = "systemctl --user --no-ask-password"
    assert asked.asked == [
        f"{begin} daemon-reload",
        f"{begin} enable {file.name}",
        f"{begin} start {file.name}",
        f"{begin} show -p ActiveState,SubState,Result {file.name}",
        f"{begin} stop {file.name}",
        f"{begin} disable --now {file.name}",
        f"{begin} daemon-reload",
    ]
    with pytest.raises(ServiceError, match="is not installed"):
        manager.stop(made)


@pytest.mark.parametrize(
    "said",
    [
        "Failed to connect to bus: No medium found",
        "Failed to connect to user scope bus via local transport: No such file or directory",
    ],
)
def test_without_a_bus_nothing_is_left_behind(tmp_path: Path, said: str) -> None:
    """No user's systemd: the person is told what to do, and the unit of a failed installation is gone again."""
    manager = Systemd(Manager({"systemctl": Answer(1, said)}), folders={"user": tmp_path, "system": tmp_path})
    with pytest.raises(ServiceError, match="enable-linger"):
        manager.install(service())
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / f"{service().name}.service"
    file.write_text("what was there before\n", encoding="utf-8")
    with pytest.raises(ServiceError, match="--system"):
        manager.install(service())
    assert file.read_text(encoding="utf-8") == "what was there before\n"
    with pytest.raises(ServiceError, match="Log in as this user"):
        manager.status(service())


def test_what_cannot_be_stopped_is_uninstalled_all_the_same(tmp_path: Path) -> None:
    """The unit and the link that starts it go; that systemd was not told is said, not kept quiet."""
    asked = Manager()
    manager = Systemd(asked, folders={"user": tmp_path, "system": tmp_path})
    file = manager.install(service())
    link = tmp_path / "default.target.wants" / file.name
    link.parent.mkdir()
    link.write_bytes(b"")
    asked.answers["disable"] = Answer(1, "no such luck")
    with pytest.raises(ServiceError, match=r"is removed, but systemctl .* failed: no such luck"):
        manager.uninstall(service())
    assert not file.exists()
    assert not link.exists()
    assert asked.asked[-1].endswith("daemon-reload")
    file.mkdir()  # nothing that could be unlinked, like a unit of the system's without its rights
    with pytest.raises(ServiceError, match=r"^systemctl .* failed: no such luck"):
        manager.uninstall(service())


def test_a_manager_s_refusal_is_passed_on(tmp_path: Path) -> None:
    """What systemctl or launchctl says on failure is what the person reads."""
    folders = {"user": tmp_path, "system": tmp_path}
    with pytest.raises(ServiceError, match=r"systemctl --user .* enable .* failed: no bus"):
        Systemd(Manager({"enable": Answer(1, "no bus")}), folders=folders).install(service())
    manager = Launchd(Manager({"print": Answer(113, ""), "bootstrap": Answer(5, "not permitted")}), folders=folders)
    manager.install(service())
    with pytest.raises(ServiceError, match=r"launchctl bootstrap .* failed: not permitted .*login at the Mac itself"):
        manager.start(service())


@pytest.mark.only_on("linux", reason="XDG_STATE_HOME")
def test_trust_is_given_where_the_unit_looks_for_it(workspace: Path) -> None:
    """The account of a system's service agrees by the command that is printed, in the unit's own state folder."""
    (workspace / "supervisor.toml").write_text('[notify]\ncommand = ["tell", "me"]\n', encoding="utf-8")
    made = Service(workspace=workspace, python=Path(sys.executable), scope="system", user="builder")
    make_folder, agree = [shlex.split(line) for line in systemd.trusting(made)]
    folder = f"/var/lib/{setting(unit(made), 'StateDirectory')}"
    assert f"Environment=XDG_STATE_HOME={folder} " in unit(made)
    assert (make_folder[-1], agree[agree.index("env") + 1]) == (folder, f"XDG_STATE_HOME={folder}")
    assert agree[:4] == ["runuser", "-u", "builder", "--"]
    state = workspace.parent / "var"
    command = agree[agree.index("env") + 2 :]
    subprocess.run(command, env={**os.environ, "XDG_STATE_HOME": str(state)}, check=True, capture_output=True)
    found = Workspace(workspace)
    require_trust(found, found.read_config(), folder=state / NAME)
    with pytest.raises(NotTrustedError):
        require_trust(found, found.read_config())


@pytest.mark.only_on("posix", reason="services of a user and of the system")
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_nobody_asks_root_for_its_trust(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str
) -> None:
    """A service of the system is installed without it, and the account's way to agree is said; your own needs yours."""
    (workspace / "supervisor.toml").write_text('[notify]\ncommand = ["tell", "me"]\n', encoding="utf-8")
    folders = {"user": tmp_path / "units", "system": tmp_path / "system"}
    manager = Systemd(Manager(), folders=folders) if system == "linux" else Launchd(Manager(), folders=folders)
    monkeypatch.setattr("supervisor.service.installed.this_systems", lambda: manager)
    monkeypatch.setattr(
        "supervisor.cli.service._usual", lambda: Wrapper.systemd if system == "linux" else Wrapper.launchd
    )
    base = ["-C", str(workspace), "service", "install"]
    assert run_cli(base) == Exit.CONFIGURATION
    capsys.readouterr()
    assert run_cli([*base, "--system", "--user", "builder"]) == 0
    said = capsys.readouterr().out
    assert "tell me" in said
    assert f"-u builder {'--' if system == 'linux' else sys.executable} " in said
    assert said.rstrip().endswith("supervisor service start --system")
    (workspace / "supervisor.toml").write_text("", encoding="utf-8")
    assert run_cli([*base, "--system", "--user", "builder"]) == 0
    assert "agreed" not in capsys.readouterr().out


def test_nor_an_administrator_for_theirs(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows it is LocalSystem that runs the crew: how it agrees is said, in the folder where it looks."""
    (workspace / "supervisor.toml").write_text('[notify]\ncommand = ["tell", "me"]\n', encoding="utf-8")
    manager = Launchd(Manager(), folders=dict.fromkeys(("user", "system"), workspace.parent / "units"))
    monkeypatch.setattr("supervisor.service.installed.this_systems", lambda: manager)
    monkeypatch.setattr("supervisor.cli.service._usual", lambda: Wrapper.shawl)
    monkeypatch.setenv("SYSTEMROOT", r"D:\Windows")
    capsys.readouterr()
    assert run_cli(["-C", str(workspace), "service", "install"]) == 0
    said = capsys.readouterr().out
    assert "until LocalSystem has agreed" in said
    assert "tell me" in said
    assert r"set LOCALAPPDATA=D:\Windows\System32\config\systemprofile\AppData\Local" in said
    assert said.splitlines()[-2].endswith("shop trust")


@pytest.mark.only_on("windows", reason="cmd.exe")
def test_what_an_administrator_types_is_localsystem_s_agreement(workspace: Path) -> None:
    """Run by cmd.exe, the commands write it where a service's LOCALAPPDATA is, and nowhere else."""
    (workspace / "supervisor.toml").write_text('[notify]\ncommand = ["tell", "me"]\n', encoding="utf-8")
    made = Service(workspace=workspace, python=Path(sys.executable), scope="system")
    batch = workspace.parent / "agree.cmd"
    batch.write_text("\n".join(["@echo off", *trusting(made, windows=workspace.parent / "my windows")]))
    subprocess.run(["cmd.exe", "/d", "/c", str(batch)], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    found = Workspace(workspace)
    folder = workspace.parent / "my windows" / "System32" / "config" / "systemprofile" / "AppData" / "Local"
    require_trust(found, found.read_config(), folder=folder / NAME)
    with pytest.raises(NotTrustedError):
        require_trust(found, found.read_config())


@pytest.mark.only_on("windows", reason="the service control manager")
def test_a_path_that_the_manager_would_change_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder named like a variable is wrong usage before anything is installed."""
    odd = workspace.rename(workspace.with_name("%TEMP%"))
    assert run_cli(["-C", str(odd), "service", "install"]) == Exit.USAGE
    assert "percent sign" in capsys.readouterr().err


@pytest.mark.only_on("posix", reason="a user's number")
def test_launchd_s_steps(tmp_path: Path) -> None:
    """An agent is loaded to be started and unloaded to be stopped: a killed one would come back."""
    asked = Launchctl()
    manager = Launchd(asked, folders={"user": tmp_path, "system": tmp_path}, pause=asked.pause)
    made = service()
    file = manager.install(made)
    assert manager.status(made).state == "stopped"
    manager.start(made)
    assert manager.status(made).state == "running"
    manager.stop(made)
    manager.start(made)
    manager.uninstall(made)
    assert not file.exists()
    verbs = [words.split()[1] for words in asked.asked]
    assert [verb for verb in verbs if verb != "print"] == ["bootstrap", "bootout", "bootstrap", "bootout"]


def test_what_launchd_does_not_forget_is_said(tmp_path: Path) -> None:
    """The wait for the end has an end of its own."""
    stuck = Manager({"print": Answer(0, "state = running")})
    manager = Launchd(stuck, folders={"user": tmp_path, "system": tmp_path}, pause=lambda _seconds: None)
    manager.install(service())
    with pytest.raises(ServiceError, match="is still there 60 s after"):
        manager.stop(service())


class Launchctl(Manager):
    """Plays launchctl, whose `bootout` comes back while the service is still ending."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = False
        self.ends_after = 0  # pauses

    def __call__(self, words: Sequence[str]) -> Answer:
        super().__call__(words)
        match words[1]:
            case "print":
                return Answer(0, "gui/1/x = {\n\tstate = running\n}") if self.loaded else Answer(113, "")
            case "bootstrap":
                assert not self.loaded, "Bootstrap failed: 37: Operation already in progress"
                self.loaded = True
            case "bootout":
                self.ends_after = 3
                return Answer(36, "Boot-out failed: 36: Operation now in progress")
        return Answer(0, "")

    def pause(self, _seconds: float) -> None:
        self.ends_after -= 1
        if self.ends_after == 0:
            self.loaded = False


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An initialised workspace, with the user's folders beside it."""
    for variable in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    root = tmp_path / "shop"
    root.mkdir()
    assert run_cli(["-C", str(root), "init"]) == 0
    return root


def test_printing_needs_no_manager(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrapper's text can be printed anywhere, for this workspace and this Python."""
    monkeypatch.setenv("PATH", os.defpath)
    for wrapper in ("systemd", "launchd", "shawl", "winsw", "nssm"):
        capsys.readouterr()
        assert run_cli(["-C", str(workspace), "service", "print", "--wrapper", wrapper]) == 0
        said = capsys.readouterr().out
        assert "supervisor" in said
        assert workspace.name in said


def test_a_credential_becomes_a_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NAME=FILE is LoadCredential=NAME:FILE; anything else is wrong usage, and so is a user without --system."""
    base = ["-C", str(workspace), "service", "print", "--wrapper", "systemd"]
    assert run_cli([*base, "--credential", f"key={workspace / 'key'}"]) == 0
    assert f"LoadCredential=key:{workspace / 'key'}" in capsys.readouterr().out.splitlines()
    assert run_cli([*base, "--credential", "key"]) == Exit.USAGE
    assert run_cli([*base, "--user", "somebody"]) == Exit.USAGE


@pytest.mark.parametrize(
    ("wrapper", "options", "why"),
    [
        ("systemd", "--user bob", "--user goes with --system"),
        ("launchd", "--user bob", "--user goes with --system"),
        ("systemd", "--system", "--system needs --user"),
        ("launchd", "--system", "--system needs --user"),
        ("launchd", "--credential key=/k", "--credential is for systemd"),
        *((wrapper, "--credential key=/k", "--credential is for systemd") for wrapper in ("shawl", "winsw", "nssm")),
        *((wrapper, "--system --user bob", "its password") for wrapper in ("shawl", "winsw", "nssm")),
    ],
)
def test_no_option_is_ignored(
    workspace: Path, capsys: pytest.CaptureFixture[str], wrapper: str, options: str, why: str
) -> None:
    """What a manager or wrapper has no use for is wrong usage, and it is said why."""
    assert run_cli(["-C", str(workspace), "service", "print", "--wrapper", wrapper, *options.split()]) == Exit.USAGE
    assert why in capsys.readouterr().err


def test_root_is_named_by_whoever_wants_it(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crew with all rights is nobody's oversight: not installed without a name, and possible with it."""
    monkeypatch.setenv("PATH", os.defpath)
    base = ["-C", str(workspace), "service"]
    assert run_cli([*base, "print", "--wrapper", "systemd", "--system", "--user", "root"]) == 0
    assert "User=root" in capsys.readouterr().out.splitlines()
    assert run_cli([*base, "print", "--wrapper", "nssm", "--system"]) == 0  # always so there


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_nor_is_one_at_the_installation(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """On Windows and macOS a credential is refused before anything is done, and on Windows an account, too."""
    monkeypatch.setattr(
        "supervisor.cli.service._usual", lambda: Wrapper.shawl if system == "win32" else Wrapper.launchd
    )
    base = ["-C", str(workspace), "service", "install"]
    assert run_cli([*base, "--credential", "key=/k"]) == Exit.USAGE
    assert "--credential is for systemd" in capsys.readouterr().err
    if system == "darwin":
        assert run_cli([*base, "--system"]) == Exit.USAGE
        assert "--system needs --user" in capsys.readouterr().err
    assert run_cli([*base, "--user", "bob"]) == Exit.USAGE
    assert ("its password" if system == "win32" else "goes with --system") in capsys.readouterr().err


def test_what_is_relayed_is_said(workspace: Path) -> None:
    """A wrong configuration ends with 0 for launchd and WinSW, aloud."""
    (workspace / "supervisor.toml").write_text("[nonsense\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "supervisor.service.relayed", "-C", str(workspace), "run", "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    assert "ended with 78" in done.stderr
    assert "supervisor.toml has one mistake" in done.stderr


def test_pywin32_is_wanted_on_windows_only() -> None:
    """Other systems never hear of it."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all("sys_platform == 'win32'" in entry for entry in project["optional-dependencies"]["windows-service"])
    assert not any(entry.startswith("pywin32") for entry in project["dependencies"])
