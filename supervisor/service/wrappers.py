"""Ready configuration for the established service wrappers of Windows: Shawl, WinSW and NSSM.

And what is typed for an account that types nothing itself. Pure. Each wrapper stops with Ctrl-C first, which is an
orderly end for us, and is told to wait for it; none of them starts again what a person has to put right first. The
texts are for people to paste, commands into cmd.exe; nothing here is run by us.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import PurePath
from xml.sax.saxutils import escape, quoteattr

from .definition import DO_NOT_RETRY, RESTART_AFTER, STOP_WITHIN, Service

_ENDS = (0, *DO_NOT_RETRY, 130)  # none of them is followed by another start


def shawl(service: Service) -> str:
    """The command that makes Shawl the service's host (in an elevated prompt)."""
    words = [
        *("shawl", "add", "--name", service.name),
        *("--cwd", str(service.workspace)),
        *("--stop-timeout", str(STOP_WITHIN * 1000)),
        *("--restart-if-not", ",".join(map(str, _ENDS))),
        *("--pass", "0,130"),
        "--",
        *service.command,
    ]
    # Shawl itself only ever adds to the PATH that the service manager gives it (and --env PATH=… comes before that).
    key = rf"HKLM\SYSTEM\CurrentControlSet\Services\{service.name}"
    values = ["/v", "Environment", "/t", "REG_MULTI_SZ", "/s", "|", "/d", f"PATH={service.path}", "/f"]
    return _prompted(
        words,
        *([["reg.exe", "add", key, *values]] if service.path else []),
        ["sc.exe", "config", service.name, "start=", "delayed-auto"],
        ["sc.exe", "start", service.name],
    )


def winsw(service: Service) -> str:
    """The XML that lies beside a copy of WinSW, both under the service's name."""
    program, *arguments = service.relayed_command
    rows = [
        ("id", service.name),
        ("name", service.description),
        ("description", "A crew of four that works on a repository"),
        ("executable", program),
        ("arguments", subprocess.list2cmdline(arguments)),
        ("workingdirectory", str(service.workspace)),
        ("startmode", "Automatic"),
        ("delayedAutoStart", "true"),
        ("stoptimeout", f"{STOP_WITHIN} sec"),
        ("resetfailure", "10 min"),
        ("logpath", str(service.workspace / ".supervisor" / "logs")),
    ]
    body = [f"  <{tag}>{escape(_plain(text))}</{tag}>" for tag, text in rows]
    if service.path:
        body.append(f'  <env name="PATH" value={quoteattr(_plain(service.path))}/>')
    body += [f'  <onfailure action="restart" delay="{RESTART_AFTER} sec"/>', '  <log mode="roll"/>']
    return "\n".join(["<service>", *body, "</service>", ""])


def nssm(service: Service) -> str:
    """The commands that make NSSM the service's host (in an elevated prompt)."""
    program, *arguments = service.command
    log = str(service.workspace / ".supervisor" / "logs" / "service.log")
    name = service.name
    commands = [
        ["nssm", "install", name, program],
        # One word with its quotes inside: NSSM puts blanks between further words and forgets where each one ended.
        ["nssm", "set", name, "AppParameters", subprocess.list2cmdline(arguments)],
        ["nssm", "set", name, "AppDirectory", str(service.workspace)],
        *([["nssm", "set", name, "AppEnvironmentExtra", f"PATH={service.path}"]] if service.path else []),
        ["nssm", "set", name, "Start", "SERVICE_DELAYED_AUTO_START"],
        ["nssm", "set", name, "AppStopMethodConsole", str(STOP_WITHIN * 1000)],
        ["nssm", "set", name, "AppExit", "Default", "Restart"],
        *(["nssm", "set", name, "AppExit", str(code), "Exit"] for code in _ENDS),
        ["nssm", "set", name, "AppRestartDelay", str(RESTART_AFTER * 1000)],
        ["nssm", "set", name, "AppStdout", log],
        ["nssm", "set", name, "AppStderr", log],
        ["nssm", "start", name],
    ]
    return _prompted(*commands)


def trusting(service: Service, *, windows: PurePath) -> list[str]:
    """What an administrator types so that LocalSystem agrees to the workspace's commands where it will look.

    `windows` is the system's own folder (%SystemRoot%); a service's LOCALAPPDATA lies in it.
    """
    folder = windows / "System32" / "config" / "systemprofile" / "AppData" / "Local"
    return _prompted(["set", f"LOCALAPPDATA={folder}"], [*service.command[:6], "trust"]).splitlines()


def _prompted(*commands: Sequence[str]) -> str:
    """The commands as cmd.exe takes them from a person or a batch file, each on its line."""
    lines = [" ".join(_word(word) for word in words) for words in commands]
    return "\n".join(["rem For cmd.exe, opened as administrator; PowerShell reads quotes in another way.", *lines, ""])


def _word(word: str) -> str:
    """One word, past cmd.exe first and then past the program's own splitting."""
    said = subprocess.list2cmdline([_plain(word)])
    if '"' in word:  # cmd.exe knows no \\" and would take the rest for unquoted: every mark is disarmed by itself
        return re.sub(r'([&|<>^()"])', r"^\1", said)
    if set(word) & set("&|<>^()") and not said.startswith('"'):
        slashes = len(word) - len(word.rstrip("\\"))
        return f'"{word}{slashes * chr(92)}"'  # those before a quote count twice
    return said


def _plain(text: str) -> str:
    """The text, or ValueError where it has a percent sign: no quotes keep one from being a variable's."""
    if "%" in text:
        raise ValueError(
            f"{text!r} contains a percent sign, which cmd.exe and these wrappers take for a variable's; "
            "use a folder, or a PATH, without one"
        )
    return text
