"""The unit file for systemd, of the system or of one user.

Pure. The choices and their reasons are comments in the unit itself, where whoever reads it at night finds them.
"""

from __future__ import annotations

import shlex

from supervisor.exits import Exit

from .definition import DO_NOT_RETRY, RESTART_AFTER, START_WITHIN, STOP_WITHIN, WATCHDOG, Service


def unit(service: Service) -> str:
    """The text of `NAME.service`."""
    is_system = service.scope == "system"
    started = " ".join(_argument(word) for word in service.command)
    control = " ".join(_argument(word) for word in service.command[:6])
    lines = [
        "[Unit]",
        f"Description={_text(service.description)}",
        f"AssertPathExists={_text(str(service.workspace))}/supervisor.toml",
        "# Give up after five starts in ten minutes; `systemctl reset-failed` forgets them.",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "# Ready when every phase is; the workers' messages are not ours.",
        "Type=notify",
        "NotifyAccess=main",
        f"WatchdogSec={WATCHDOG}",
        *([f"User={_text(service.user)}"] if is_system and service.user else []),
        f"WorkingDirectory={_text(str(service.workspace))}",
        f"ExecStart={started}",
        f"ExecReload={control} reload",
        *([f"Environment={_quoted(f'PATH={service.path}')}"] if service.path else []),
        "Environment=PYTHONUNBUFFERED=1",
        *(f"LoadCredential={name}:{_text(str(file))}" for name, file in service.credentials),
        "# Done (0) is an end; a crash is not. What a person must put right first is not tried again.",
        "Restart=on-failure",
        f"RestartSec={RESTART_AFTER}",
        "# 130 is an orderly end on request, by a signal or by `supervisor stop`: no failure, whatever Restart= says.",
        f"RestartPreventExitStatus={' '.join(map(str, (*DO_NOT_RETRY, int(Exit.INTERRUPTED))))}",
        f"SuccessExitStatus={int(Exit.INTERRUPTED)}",
        f"TimeoutStartSec={START_WITHIN}",
        "# SIGTERM for the supervisor alone, which ends its workers in order; SIGKILL for all that is left after that.",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_WITHIN}",
        "",
        "# The crew writes to the workspace and runs its tests; nothing below keeps it from that.",
        "NoNewPrivileges=yes",
        "UMask=0077",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "SystemCallArchitectures=native",
        *(_system_hardening(service) if is_system else ()),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if is_system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def trusting(service: Service) -> list[str]:
    """What root types so that the account of a system's service agrees to the workspace's commands where it will look.

    The folder is the unit's StateDirectory, which systemd makes at the first start and takes over if it is there.
    """
    folder = _state_folder(service)
    agree = ["env", f"XDG_STATE_HOME={folder}", *service.command[:6], "trust"]
    return [
        shlex.join(["install", "-d", "-m", "700", "-o", service.user, folder]),
        shlex.join(["runuser", "-u", service.user, "--", *agree]),
    ]


def _state_folder(service: Service) -> str:
    return f"/var/lib/{service.name}"


def _system_hardening(service: Service) -> list[str]:
    """What only the system's manager can do: the rest of the file system read-only, no devices, no kernel."""
    return [
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectSystem=strict",
        f"ReadWritePaths={_quoted(str(service.workspace))}",
        "# Trust and tokens: /var/lib/NAME and /run/NAME, made by systemd and private.",
        f"StateDirectory={service.name}",
        f"RuntimeDirectory={service.name}",
        "StateDirectoryMode=0700",
        "RuntimeDirectoryMode=0700",
        f"Environment=XDG_STATE_HOME={_state_folder(service)} XDG_RUNTIME_DIR=/run/{service.name}",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "CapabilityBoundingSet=",
    ]


def _text(text: str) -> str:
    """A setting that takes the rest of its line as it is; percent signs are specifiers everywhere in a unit."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One of several values of a setting."""
    return '"' + _text(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _argument(word: str) -> str:
    """One word of a command line, where `$` would be a variable's."""
    is_plain = word and not set(word) & set(" \t'\"\\;$%")
    return word if is_plain else _quoted(word).replace("$", "$$")
