"""A crew that nobody watches: what `supervisor start` leaves running, `python -P -m supervisor.background DIR`.

It is `supervisor run --quiet` without what only a person at a terminal needs: parsing words and painting tables costs
more memory than supervising. Errors are sentences on standard error, and exit codes, as everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .exits import Exit, judged
from .options import RunOptions

if TYPE_CHECKING:
    from .status import CrewStatus, ShownEvent, Summary


class Silent:
    """The view of a run that nobody watches: events are in the journal, only the summary is said."""

    async def show(self, events: AsyncIterator[ShownEvent], status: Callable[[], CrewStatus]) -> None:
        """Take them in, so that nobody waits for us."""
        del status
        async for _ in events:
            pass

    def close(self, summary: Summary) -> None:
        from .wording import plain_summary

        sys.stdout.write("".join(f"{line}\n" for line in plain_summary(summary)))


def run(folder: Path) -> int:
    """Run the workspace's crew until it is told to stop; the exit code."""
    from actors.worker import import_structlog

    import_structlog()
    from .bootstrap import require_trust
    from .foreground import run_workspace
    from .own_actors import require_usable_actors
    from .wording import clean
    from .workspace import find

    try:
        workspace = find(folder)
        config = workspace.read_config()
        require_trust(workspace, config)
        require_usable_actors(workspace, config)
        return run_workspace(RunOptions(workspace=workspace.root), Silent())
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last stop before the log
        code, text = judged(error)
        sys.stderr.write("\n".join(clean(line) for line in f"supervisor: {text}".split("\n")) + "\n")
        return code


def main() -> NoReturn:
    """The whole program."""
    sys.exit(run(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
