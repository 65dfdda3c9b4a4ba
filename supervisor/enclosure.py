"""The control group around a crew, where there may be one: by it what a dead supervisor left is found.

Its path is in the workspace before the group is, so that the next supervisor knows where to look. In a unit of systemd
none is made: there is one already, which ends with the unit.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from ipc import cgroup
from ipc.cgroup import Cgroup
from ipc.process import Identity, end_group, escapees, in_group, sweep

from .workspace import write_text

_NAME = re.compile(r"phase-supervisor-[0-9a-f]{16}")  # a number that nobody guesses: other groups stay alone


@asynccontextmanager
async def enclosed(
    file: Path, marks: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Sequence[Identity]]:
    """End what an earlier supervisor left running, and say whom; what begins within does not outlive this process.

    Who was left is found by the groups that `file` names, and by its environment's `marks`.
    """
    groups = await run_sync(named_in, file)
    left = sorted({*await run_sync(escapees, marks), *(one for group in groups for one in in_group(group))})
    if left:
        await sweep(marks)
        for group in groups:
            await end_group(group)
    around = None if environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) else cgroup.ours()
    made = await run_sync(_entered, file, groups, around)
    try:
        yield left
    finally:
        if around is not None and made is not None:
            with anyio.CancelScope(shield=True):
                if await run_sync(_left, around):
                    await end_group(made)
                    await run_sync(_forget, file)


def named_in(file: Path) -> list[Cgroup]:
    """The groups that the file names and that are still there."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeError):
        return []
    found = [cgroup.existing(line) for line in lines if _NAME.fullmatch(Path(line).name)]
    return [one for one in found if one is not None]


def _entered(file: Path, before: Sequence[Cgroup], around: Cgroup | None) -> Cgroup | None:
    """Take the groups of earlier crews away, and enter another; whoever could not be ended keeps its own.

    One group for all: to enter one takes some ten milliseconds, in which nobody on the machine starts or ends.
    """
    kept = [str(one.path) for one in before if not one.remove()]
    name = f"phase-supervisor-{secrets.token_hex(8)}"
    if around is not None:
        kept.append(str(around.path / name))
    if not kept:
        file.unlink(missing_ok=True)
        return None
    write_text(file, "\n".join([*kept, ""]))
    if around is None:
        return None
    try:
        made = around.make(name)
        made.join(os.getpid())
    except OSError:  # of those that may be made there, this was one too many: the crew goes without
        return None
    return made


def _left(around: Cgroup) -> bool:
    """Go back to where we came from; if we may not any more, the group is the next start's."""
    try:
        around.join(os.getpid())
    except OSError:
        return False
    return True


def _forget(file: Path) -> None:
    """Take away the groups that are empty, and the file with the last of them."""
    if not [one for one in named_in(file) if not one.remove()]:
        file.unlink(missing_ok=True)
