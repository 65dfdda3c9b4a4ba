"""One workspace as a service: its name, its command line, and the numbers that every service manager must know.

Pure. How a manager writes these down is `systemd`'s, `launchd`'s and `wrappers`'; installing is `installed`'s.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from supervisor.exits import Exit

STOP_WITHIN = 45  # seconds: our own budget for an orderly end is 15 s, and 15 more for the last look
START_WITHIN = 90  # seconds until everybody is ready
RESTART_AFTER = 5  # seconds between an unexpected end and the next start
WATCHDOG = 60  # seconds without a sign of life from the owner's loop
DO_NOT_RETRY = (int(Exit.USAGE), int(Exit.WORKSPACE_BUSY), int(Exit.CONFIGURATION))  # a person has to act first

Scope = Literal["user", "system"]
Kind = Literal["systemd", "launchd", "windows"]  # of service manager


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """`python` is the interpreter that has us installed, a virtual environment's as it is; `user` matters to "system".

    `credentials` are (name, file) pairs: secrets that the manager hands over as files, never in the environment.
    `path` becomes the service's PATH, since a service inherits none of a shell's.
    """

    workspace: PurePath
    python: PurePath
    name: str = ""
    scope: Scope = "user"
    user: str = ""
    path: str = ""
    credentials: tuple[tuple[str, PurePath], ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", default_name(self.workspace))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", self.name):
            raise ValueError(f"{self.name!r} cannot be a service's name: letters, digits, '.', '_' and '-', at most 80")
        words = [str(self.workspace), str(self.python), self.user, self.path]
        words += [text for name, file in self.credentials for text in (name, str(file))]
        for text in words:
            if any(ord(character) < 32 or ord(character) == 127 for character in text):
                raise ValueError(f"{text!r} contains control characters, which no service manager takes")

    @property
    def command(self) -> tuple[str, ...]:
        """What the manager starts: the crew in the foreground, with readable lines for its log."""
        return (str(self.python), "-P", "-m", "supervisor", "-C", str(self.workspace), "run", "--plain")

    @property
    def relayed_command(self) -> tuple[str, ...]:
        """The same, for managers that start again whatever does not end with 0."""
        return tuple("supervisor.service.relayed" if word == "supervisor" else word for word in self.command)

    @property
    def description(self) -> str:
        return f"Phase Supervisor in {self.workspace}"


def refusal(kind: Kind, *, scope: Scope, user: str, has_credentials: bool) -> str:
    """Why a manager of this kind cannot do what is wanted of it, and what to do; "" if it can."""
    if has_credentials and kind != "systemd":
        return "--credential is for systemd alone: no other service manager hands a file over as a credential"
    if kind == "windows":
        if user:
            return (
                "--user is for systemd and launchd. A service on Windows is installed for LocalSystem; another account "
                "needs its password, which you give in the Services window, under Log On, after installing"
            )
        return ""
    if user and scope == "user":
        return "--user goes with --system; a service of your own runs as you"
    if not user and scope == "system":
        return (
            "--system needs --user NAME: the crew runs the project's tests, and would run them as root; "
            "name the account that the workspace belongs to (--user root, if root is what you mean)"
        )
    return ""


def is_retried(code: int) -> bool:
    """Whether a supervisor that ended with this code is started again: not if it was asked to, nor if it cannot run."""
    return code not in (int(Exit.DONE), int(Exit.INTERRUPTED), *DO_NOT_RETRY)


def default_name(workspace: PurePath) -> str:
    """A name that two workspaces of the same folder name do not share."""
    words = re.sub(r"[^a-z0-9]+", "-", workspace.name.lower()).strip("-")[:40] or "workspace"
    return (
        f"phase-supervisor-{words}-{hashlib.sha256(str(workspace).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
    )
