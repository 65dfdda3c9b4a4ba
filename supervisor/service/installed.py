"""Puts a service where its manager looks, and has the manager start, stop and describe it: the shell of `service`.

What is written is decided by `systemd`, `launchd` and `windows`. Each step is a command of the manager's own,
and what it says on failure is passed on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from supervisor.exits import Exit, UserError
from supervisor.workspace import write_text

from . import launchd, systemd
from .definition import STOP_WITHIN, Service

COMMAND_WITHIN = 120.0  # seconds, more than stopping may take
LOOK = 0.25  # seconds between two looks at whether launchd has forgotten a service
IN_PROGRESS = 36  # what `launchctl bootout` ends with while the service is still ending

State = Literal["running", "starting", "stopping", "stopped", "failed", "not installed"]
Run = Callable[[Sequence[str]], "Answer"]


class ServiceError(UserError):
    """The service manager refused, or is not there; its own words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a manager's command ended with, and what it printed."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """`detail` is what the manager says beside the state."""

    state: State
    detail: str = ""


class Manager(Protocol):
    """One service manager. Every method raises `ServiceError` with the manager's words."""

    def install(self, service: Service) -> Path | None: ...
    def uninstall(self, service: Service) -> None: ...
    def start(self, service: Service) -> None: ...
    def stop(self, service: Service) -> None: ...
    def status(self, service: Service) -> Status: ...


def this_systems() -> Manager:
    """The service manager of this system; ServiceError where there is none that we know."""
    if sys.platform == "win32":
        from .windows import WindowsServices

        return WindowsServices()
    if sys.platform == "darwin":
        return Launchd()
    if shutil.which("systemctl") is None:
        raise ServiceError(
            "there is no systemctl here, so nothing that a service could be given to. "
            "`supervisor service print` shows the unit; `supervisor start` runs the crew in the background without one"
        )
    return Systemd()


def run_command(words: Sequence[str]) -> Answer:
    """Run a manager's command and wait for it."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_WITHIN, check=False
        )
    except OSError as error:
        raise ServiceError(f"{words[0]} cannot be run: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{' '.join(words)} has not ended within {COMMAND_WITHIN:g} s") from error
    return Answer(done.returncode, (done.stdout + done.stderr).strip())


class Systemd:
    """Units in ~/.config/systemd/user, or in /etc/systemd/system."""

    STATES: dict[str, State] = {  # noqa: RUF012 - a table
        "active": "running",
        "reloading": "running",
        "activating": "starting",
        "deactivating": "stopping",
        "failed": "failed",
    }

    def __init__(self, run: Run = run_command, *, folders: dict[str, Path] | None = None) -> None:
        """`folders` is where units lie, by scope; given in tests."""
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self._run = run
        self._folders = folders or {"user": config / "systemd" / "user", "system": Path("/etc/systemd/system")}

    def install(self, service: Service) -> Path:
        """Write, load and enable the unit; where that fails, what was there before is there again."""
        file = self._file(service)
        before = file.read_bytes() if file.exists() else None
        _write(file, systemd.unit(service).encode())
        try:
            self._do(service, "daemon-reload")
            self._do(service, "enable", file.name)
        except ServiceError:
            if before is None:
                file.unlink()
            else:
                _write(file, before)
            with suppress(ServiceError):
                self._do(service, "daemon-reload")
            raise
        return file

    def uninstall(self, service: Service) -> None:
        """Stop it and remove the unit; the unit goes even if systemd can no longer be told."""
        file = self._require(service)
        try:
            self._do(service, "disable", "--now", file.name)
        except ServiceError as error:
            try:
                file.unlink()
                for link in file.parent.glob(f"*.wants/{file.name}"):  # what `enable` made
                    link.unlink()
            except OSError:  # not ours to remove either
                raise error from None
            with suppress(ServiceError):
                self._do(service, "daemon-reload")
            raise ServiceError(f"{file} is removed, but {error}") from error
        file.unlink()
        self._do(service, "daemon-reload")

    def start(self, service: Service) -> None:
        self._do(service, "start", self._require(service).name)

    def stop(self, service: Service) -> None:
        self._do(service, "stop", self._require(service).name)

    def status(self, service: Service) -> Status:
        if not self._file(service).exists():
            return Status("not installed")
        wanted = ["show", "-p", "ActiveState,SubState,Result", f"{service.name}.service"]
        answer = self._do(service, *wanted)
        said = dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)
        detail = f"{said.get('SubState', '')}, result {said.get('Result', '')}"
        return Status(self.STATES.get(said.get("ActiveState", ""), "stopped"), detail)

    def _file(self, service: Service) -> Path:
        return self._folders[service.scope] / f"{service.name}.service"

    def _require(self, service: Service) -> Path:
        return _require(self._file(service), service)

    def _systemctl(self, service: Service) -> list[str]:
        return ["systemctl", *(["--user"] if service.scope == "user" else []), "--no-ask-password"]

    def _do(self, service: Service, *words: str) -> Answer:
        command = [*self._systemctl(service), *words]
        answer = self._run(command)
        if answer.code == 0:
            return answer
        if service.scope == "user" and re.search(r"connect to .*bus", answer.text):
            raise ServiceError(
                f"there is no systemd of yours to talk to ({answer.text}). "
                "Log in as this user, not through su or sudo; or let it run without a login: `loginctl enable-linger`; "
                "or make it a service of the system: --system --user NAME, as root"
            )
        raise _failed(command, answer)


class Launchd:
    """Agents in ~/Library/LaunchAgents, or daemons in /Library/LaunchDaemons."""

    def __init__(
        self,
        run: Run = run_command,
        *,
        folders: dict[str, Path] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`folders` is where property lists lie, by scope; like `pause` given in tests."""
        library = Path("Library")
        self._run = run
        self._pause = pause
        self._folders = folders or {
            "user": Path.home() / library / "LaunchAgents",
            "system": Path("/") / library / "LaunchDaemons",
        }

    def install(self, service: Service) -> Path:
        file = self._file(service)
        _write(file, launchd.plist(service))
        return file

    def uninstall(self, service: Service) -> None:
        file = self._require(service)
        self._unload(service)
        file.unlink()

    def start(self, service: Service) -> None:
        file = self._require(service)
        if self._loaded(service).code == 0:
            self._do("kickstart", self._target(service))
            return
        try:
            self._do("bootstrap", self._domain(service), str(file))
        except ServiceError as error:
            if service.scope == "system":
                raise
            hint = (
                "an agent needs a login at the Mac itself, not only over ssh; a daemon does not: --system --user NAME"
            )
            raise ServiceError(f"{error} ({hint})") from error

    def stop(self, service: Service) -> None:
        """Unload it: what launchd only kills, it would start again."""
        self._require(service)
        self._unload(service)

    def _unload(self, service: Service) -> None:
        """Returns when launchd has forgotten it: `bootout` may not wait, and no start is possible before."""
        if self._loaded(service).code != 0:
            return
        answer = self._run(["launchctl", "bootout", self._target(service)])
        if answer.code not in (0, IN_PROGRESS):
            raise _failed(["launchctl", "bootout", self._target(service)], answer)
        for _ in range(round((STOP_WITHIN + 15) / LOOK)):
            if self._loaded(service).code != 0:
                return
            self._pause(LOOK)
        raise ServiceError(f"{service.name} is still there {STOP_WITHIN + 15} s after `launchctl bootout`")

    def status(self, service: Service) -> Status:
        if not self._file(service).exists():
            return Status("not installed")
        answer = self._loaded(service)
        if answer.code != 0:
            return Status("stopped", "not loaded")
        said = dict(line.strip().split(" = ", 1) for line in answer.text.splitlines() if " = " in line)
        state: State = "running" if said.get("state") == "running" else "stopped"
        return Status(state, f"last exit {said.get('last exit code', '?')}")

    def _file(self, service: Service) -> Path:
        return self._folders[service.scope] / f"{service.name}.plist"

    def _require(self, service: Service) -> Path:
        return _require(self._file(service), service)

    def _domain(self, service: Service) -> str:
        if sys.platform == "win32" or service.scope == "system":
            return "system"
        return f"gui/{os.getuid()}"

    def _target(self, service: Service) -> str:
        return f"{self._domain(service)}/{service.name}"

    def _loaded(self, service: Service) -> Answer:
        return self._run(["launchctl", "print", self._target(service)])

    def _do(self, *words: str) -> None:
        answer = self._run(["launchctl", *words])
        if answer.code != 0:
            raise _failed(["launchctl", *words], answer)


def _failed(command: Sequence[str], answer: Answer) -> ServiceError:
    return ServiceError(f"{' '.join(command)} failed: {answer.text or f'exit code {answer.code}'}")


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, content.decode())
        file.chmod(0o644)
    except OSError as error:
        raise ServiceError(
            f"{file} cannot be written: {error.strerror or error}; a service of the system needs root's rights"
        ) from error


def _require(file: Path, service: Service) -> Path:
    if not file.exists():
        raise ServiceError(
            f"{service.name} is not installed ({file} is not there); `supervisor service install` does that",
            exit_code=Exit.NONE_RUNNING,
        )
    return file
