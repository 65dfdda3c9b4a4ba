"""`supervisor` for service managers that start again whatever does not end with 0: launchd and WinSW.

The command runs in this very process, so that the manager's signals reach it. An end that another start would only
repeat (wrong configuration, another supervisor there) or that was asked for becomes 0, and is said aloud.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from supervisor.exits import Exit

from .definition import is_retried


def relayed(code: int) -> int:
    """What the manager is told for an exit code of ours."""
    return code if is_retried(code) else int(Exit.DONE)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command; say why there will be no other start."""
    from supervisor.cli.main import run_cli

    code = run_cli(arguments)
    told = relayed(code)
    if told != code:
        sys.stderr.write(f"supervisor: ended with {code}; the manager is told 0, so that it does not try again\n")
    sys.exit(told)


if __name__ == "__main__":
    main(sys.argv[1:])
