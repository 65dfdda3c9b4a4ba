"""The property list for launchd, as an agent of one user or a daemon of the system.

Pure. launchd starts again whatever ends with another code than 0, whichever it is: `relayed` says 0 for what a person
has to put right first.
"""

from __future__ import annotations

import plistlib
import shlex
from typing import Any

from .definition import RESTART_AFTER, STOP_WITHIN, Service


def plist(service: Service) -> bytes:
    """The XML of `NAME.plist`; what the supervisor prints goes to the workspace's logs."""
    log = str(service.workspace / ".supervisor" / "logs" / "service.log")
    said: dict[str, Any] = {
        "Label": service.name,
        "ProgramArguments": list(service.relayed_command),
        "WorkingDirectory": str(service.workspace),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": max(RESTART_AFTER, 10),  # launchd itself takes nothing below 10
        "ExitTimeOut": STOP_WITHIN,  # seconds between SIGTERM and SIGKILL
        "ProcessType": "Standard",
        "Umask": 0o077,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "EnvironmentVariables": {"PYTHONUNBUFFERED": "1", **({"PATH": service.path} if service.path else {})},
    }
    if service.scope == "system" and service.user:
        said["UserName"] = service.user
    return plistlib.dumps(said, sort_keys=False)


def trusting(service: Service) -> list[str]:
    """What root types so that the account of a daemon agrees to the workspace's commands, in its own home."""
    return [shlex.join(["sudo", "-H", "-u", service.user, *service.command[:6], "trust"])]
