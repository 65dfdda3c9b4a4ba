"""The unit in a real systemd: a user's manager, in namespaces of its own, that knows no units but the test's.

It can write nowhere but into the test's folder: the rest of the file system is read-only there. Needs root, Linux, and
a machine whose own first process is not systemd (whose manager would be the user's, not ours to try things on).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import LIMIT, Shop, make_shop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.only_on("linux", reason="systemd"),
]

# First process of the namespaces, and the manager's parent. $FOLDER is all that can be written to.
INNER = """
set -e
mount --make-rprivate /
mount --bind "$FOLDER" "$FOLDER"
findmnt -rno TARGET | while read -r target; do
    case "$target" in
        "$FOLDER" | /proc* | /sys* | /dev*) ;;
        *) mount -o remount,bind,ro "$(printf %b "$target")" ;;
    esac
done
! touch /tmp/a-file 2>/dev/null && ! touch /var/tmp/a-file 2>/dev/null || exit 1
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mkdir -m 700 /run/ours
cd /
systemd --user --unit=default.target --log-target=console --log-level=info &
wait $!  # never in its place: as the first process of a namespace systemd takes itself for the system's
"""
UNITS = ("basic", "default", "shutdown", "exit")
SUPERVISOR = "supervisor-under-test"


class Manager:
    """A running `systemd --user`: commands are run beside it, in its namespaces."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self._process = process

    @property
    def _first(self) -> int:
        (first,) = psutil.Process(self._process.pid).children()
        return first.pid

    def run(self, *words: str, code: int | None = 0) -> str:
        """A command in there that must end with `code` (None: with any); what it printed."""
        inside = ["nsenter", f"--target={self._first}", "--mount", "--pid", f"--wdns={self.folder}", *words]
        done = subprocess.run(
            inside,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout, done.stderr, self.log())
        return done.stdout

    def shows(self) -> dict[str, str]:
        """What it thinks of the service."""
        wanted = "ActiveState,SubState,Result,NRestarts,MainPID,ExecMainStatus,StatusText"
        said = self.run("systemctl", "--user", "show", "-p", wanted, f"{SUPERVISOR}.service")
        return dict(line.split("=", 1) for line in said.splitlines())

    def until(self, is_so: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        deadline = time.monotonic() + LIMIT
        while not is_so(shown := self.shows()):
            assert time.monotonic() < deadline, (shown, self.log())
            time.sleep(0.1)
        return shown

    def log(self) -> str:
        return (self.folder / "manager.log").read_text(errors="replace")[-6000:]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for namespaces and a cgroup")
    missing = [name for name in ("systemd", "systemctl", "unshare", "nsenter", "findmnt") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    if Path("/run/systemd/system").exists():
        pytest.skip("this machine's own systemd is not ours to try things on")
    units = tmp_path / "units"
    for made in (units, tmp_path / "none", tmp_path / "tmp"):
        made.mkdir()
    for name in UNITS:
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
    environ = {
        "FOLDER": str(tmp_path),
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_RUNTIME_DIR": "/run/ours",
        "XDG_STATE_HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        # These units and no others, and none of the programs that make some.
        "SYSTEMD_UNIT_PATH": f"{tmp_path / 'config' / 'systemd' / 'user'}:{units}",
        "SYSTEMD_GENERATOR_PATH": str(tmp_path / "none"),
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": str(tmp_path / "none"),
    }
    groups = [root / f"phase-supervisor-test-{os.getpid()}" for root in cgroup_roots()]
    with (tmp_path / "manager.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", INNER],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: join(groups),  # noqa: PLW1509 - before anything of it runs
        )
    found = Manager(tmp_path, process, environ)
    try:
        await_manager(found, process)
        yield found
    finally:
        process.kill()  # and with it the first process of the namespace, and so all in it
        process.wait()
        for group in groups:
            remove(group)


def await_manager(manager: Manager, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        if process.poll() is not None:
            pytest.skip(f"no systemd can be started here: {manager.log()}")
        if psutil.Process(process.pid).children() and "default" in manager.run(
            "systemctl", "--user", "list-units", "--no-legend", "--state=active", code=None
        ):
            return
        assert time.monotonic() < deadline, manager.log()
        time.sleep(0.05)


def cgroup_roots() -> list[Path]:
    """Where systemd will look for itself: the one hierarchy, or the older two."""
    roots = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
    return [root for root in roots if (root / "cgroup.procs").exists()]


def join(groups: list[Path]) -> None:
    for group in groups:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))


def remove(group: Path) -> None:
    deadline = time.monotonic() + LIMIT
    for folder in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
        while True:
            try:
                folder.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:  # somebody in it is just ending
                assert time.monotonic() < deadline, folder
                time.sleep(0.05)


def test_a_service_s_whole_life_with_systemd(manager: Manager) -> None:
    """Started is ready; a hung one is replaced; stopped is orderly; 78 and an end on request are not started again."""
    shop = make_shop(manager.folder / "my 100 % shop")
    name = ("--name", SUPERVISOR)

    def service(*words: str, code: int = 0) -> str:
        return inside(manager, shop, "service", *words, *name, code=code)

    service("install")
    drop_in = manager.folder / "config" / "systemd" / "user" / f"{SUPERVISOR}.service.d" / "quick.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=4\nRestartSec=3\n")  # the same, sooner
    manager.run("systemctl", "--user", "daemon-reload")

    service("start")
    shown = manager.shows()
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    assert shown["StatusText"]
    phases = json_of(manager, shop, "status")["phases"]
    assert len(phases) == 4
    assert all(phase["state"] not in {"starting", "stopped"} for phase in phases.values())
    assert "running" in service("status")

    manager.run("kill", f"-{signal.SIGSTOP.value}", shown["MainPID"])  # its loop turns no more
    manager.until(lambda now: now["Result"] == "watchdog")
    again = manager.until(lambda now: now["NRestarts"] == "1" and now["SubState"] == "running")
    assert again["MainPID"] != shown["MainPID"]

    service("stop")
    shown = manager.shows()
    assert (shown["ActiveState"], shown["Result"], shown["MainPID"]) == ("inactive", "success", "0")
    assert crew_of(shop) == []
    inside(manager, shop, "docs", "verify")

    shop.write("supervisor.toml", "[nonsense\n")
    service("start", code=1)
    shown = manager.until(lambda now: now["ActiveState"] == "failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("78", "0")
    time.sleep(4)  # longer than RestartSec: nothing is to happen meanwhile
    assert manager.shows()["ActiveState"] == "failed"
    shop.write("supervisor.toml", "")

    service("start")
    inside(manager, shop, "stop")
    shown = manager.until(lambda now: now["ActiveState"] == "inactive")
    assert (shown["Result"], shown["NRestarts"]) == ("success", "0")
    time.sleep(4)
    assert manager.shows()["ActiveState"] == "inactive"

    service("uninstall")
    service("status", code=3)


def inside(manager: Manager, shop: Shop, *words: str, code: int = 0) -> str:
    return manager.run(sys.executable, "-m", "supervisor", "-C", str(shop.root), *words, code=code)


def json_of(manager: Manager, shop: Shop, *words: str) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(inside(manager, shop, *words, "--json"))
    return found


def crew_of(shop: Shop) -> list[int]:
    """The supervisor, while it lives: its command names the workspace."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(shop.root) in " ".join(process.info["cmdline"] or [])
    ]
