"""What of our environment those see whom we start: what a program needs to run, and no tokens and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# What a tool needs to run at all and find its user's settings. Everything else, tokens and keys above all, stays here.
_ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|USERNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|TEMP|TMP|DISPLAY|WAYLAND_DISPLAY"
    r"|XDG_\w+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_(FILE|DIR)|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|OS"
    r"|APPDATA|LOCALAPPDATA|PROGRAMDATA|ALLUSERSPROFILE|PROGRAMFILES(\(X86\))?|COMMONPROGRAMFILES(\(X86\))?|USERPROFILE"
    r"|HOMEDRIVE|HOMEPATH|NUMBER_OF_PROCESSORS|PROCESSOR_\w+|COMPUTERNAME|PYTHONPATH"
    r"|PHASE_SUPERVISOR_TREE_\w+",  # marks the tree of the process that started us: it must go down with it
    re.IGNORECASE,
)


def environment(
    environ: Mapping[str, str], extra: Mapping[str, str] | None = None, *, allow: Sequence[str] = ()
) -> dict[str, str]:
    """The part of `environ` that a tool may see, with `allow`ed names more, and `extra` on top."""
    more = {name.upper() for name in allow}
    kept = {k: v for k, v in environ.items() if _ALLOWED.fullmatch(k) or k.upper() in more}
    return {**kept, **(extra or {})}
