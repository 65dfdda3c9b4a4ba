"""What one `supervisor run` was asked to do: the command line's wishes as a value, for the crew's owner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Show = Literal["auto", "live", "plain", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """`workspace` is the folder of supervisor.toml. The two IPC flags go to `ipc.modes` as they are.

    `lockstep` lets one phase at a time work, and counts nothing towards the rollout: for `--validate-ipc`.
    `verbose` counts the -v: 1 shows log lines too, 2 tracebacks. `show` "auto" looks at the terminal.
    """

    workspace: Path
    until_idle: bool = False
    use_queue_ipc: bool = False
    use_stdout: bool = False
    lockstep: bool = False
    verbose: int = 0
    show: Show = "auto"
