"""Tests of what only one kind of system has: left out on the others, and counted there by reason, never as skips.

    @pytest.mark.only_on("posix", reason="SIGSTOP")

A skip is then what could run here and does not, and is worth a look. `tests/windows/plan.py` uses the same door for
what Wine lacks.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

SYSTEMS = {"posix": os.name == "posix", "windows": sys.platform == "win32", "linux": sys.platform == "linux"}
REASONS = pytest.StashKey[Counter[str]]()
HANDED_OVER = "left_out"  # what a worker of xdist tells


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REASONS] = Counter()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After `-m` and `-k`: only what would have run otherwise is counted."""
    here, elsewhere = [], []
    for item in items:
        reason = why_not_here(item)
        if reason is None:
            here.append(item)
        else:
            elsewhere.append(item)
            config.stash[REASONS][reason] += 1
    if elsewhere:
        items[:] = here
        config.hook.pytest_deselected(items=elsewhere)


def why_not_here(item: pytest.Item) -> str | None:
    """The reason of the first mark that names another system, or of one that this system cannot fulfil."""
    for mark in item.iter_markers("only_on"):
        if not SYSTEMS[mark.args[0]]:
            return f"only on {mark.args[0]}: {mark.kwargs['reason']}"
    for mark in item.iter_markers("lacking"):
        return str(mark.kwargs["reason"])
    return None


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        reasons: Counter[str] = session.config.stash[REASONS]
        output[HANDED_OVER] = dict(reasons)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """Each worker collects everything: what one of them says is the whole."""
    told = getattr(node, "workeroutput", {}).get(HANDED_OVER)
    if told:
        stash: Counter[str] = node.config.stash[REASONS]  # type: ignore[attr-defined]
        stash.clear()
        stash.update(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = config.stash[REASONS]
    if reasons:
        terminalreporter.section(f"{sum(reasons.values())} left out here")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4} {reason}")
