"""Control groups of Linux, version 2: whoever is started in one stays in it, whatever else it leaves.

All that are in one are ended in one step, however fast they multiply. One of our own can be made where the folder of
the group that we are in is ours to write: as root, in a desktop's session, in a container that owns its hierarchy; not
in a plain SSH session. Which processes are in one, and when it is ended, is for others to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOUNTS, _MEMBERSHIP = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group, by its folder. It need not exist any more: then nobody is in it."""

    path: Path

    def make(self, name: str) -> Cgroup:
        """A group within this one, new or there already; OSError where that is not ours to do."""
        (self.path / name).mkdir(exist_ok=True)
        return Cgroup(self.path / name)

    def join(self, pid: int) -> None:
        """Move that process here; what it has started before stays where it is. OSError where that is refused."""
        (self.path / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def pids(self) -> list[int]:
        """Who is in it or in a group within; not those that have ended and wait for their parent."""
        found: list[int] = []
        for folder in self._folders():
            with suppress(OSError):  # removed meanwhile
                found += map(int, (folder / "cgroup.procs").read_text(encoding="ascii").split())
        return [pid for pid in found if pid]  # 0 is a process of another container

    def kill(self) -> None:
        """SIGKILL all of them at once, whoever is just being born too; nothing if it is gone, or Linux before 5.14."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1", encoding="ascii")

    def remove(self) -> bool:
        """Take it away, with the groups within; False while somebody is left in one of them."""
        for folder in reversed(self._folders()):
            with suppress(OSError):
                folder.rmdir()
        return not self.path.is_dir()

    def _folders(self) -> list[Path]:
        """Its own and those within, from above."""
        return [Path(folder) for folder, _, _ in os.walk(self.path)]


def ours() -> Cgroup | None:
    """The group that this process is in, if others may be made there and joined; else None."""
    try:
        folder = folder_of(_MEMBERSHIP.read_text(), _MOUNTS.read_text())
    except OSError:  # no /proc, or no control groups at all
        return None
    if folder is None or not all(os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs")):
        return None
    return Cgroup(folder)


def existing(path: str) -> Cgroup | None:
    """The group of that folder, if it is one and exists; never a folder of another file system."""
    try:
        folder = Path(path).resolve(strict=True)
        mounts = _MOUNTS.read_text()
    except (OSError, ValueError):  # the latter for what is no path
        return None
    return Cgroup(folder) if any(folder.is_relative_to(point) for _, point in _hierarchies(mounts)) else None


def folder_of(membership: str, mounts: str) -> Path | None:
    """The folder of a process's group in the hierarchy of version 2, as its /proc says; None if none is to be seen."""
    inside = next((line.removeprefix("0::") for line in membership.splitlines() if line.startswith("0::")), None)
    if inside is None or not inside.startswith("/") or inside.startswith("/.."):
        return None
    for root, point in _hierarchies(mounts):
        if root == "/":
            return Path(point) / inside[1:]
        if inside == root or inside.startswith(root + "/"):
            return Path(point) / inside[len(root) + 1 :]
    return None


def _hierarchies(mounts: str) -> Iterator[tuple[str, str]]:
    """Which group is the uppermost to be seen, and where that is mounted."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if after.split()[:1] == ["cgroup2"] and len(fields) > 4:
            yield _plain(fields[3]), _plain(fields[4])


def _plain(field: str) -> str:
    r"""A path of mountinfo, where blanks stand as \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
