"""The page about a week: each figure is a count of records of that time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from docs_store.messages import SUPERVISOR, Draft, Outcome, State
from docs_store.store import Store
from docs_store.topology import DEFAULT
from supervisor.cli.looking import beginning
from supervisor.exits import UsageError
from supervisor.journal import StoredEvent
from supervisor.report import lines, made

DAY = 86400.0
NOW = 1_800_000_000.0


class Clock:
    """The time that the store writes."""

    now = NOW - 30 * DAY

    def __call__(self) -> float:
        return self.now


def own(step: str, at: float, *, type_: str = "log_entry", phase: str = "qa", **summary: Any) -> StoredEvent:
    return StoredEvent("s", 1, "supervisor", 1, 1, "supervisor", type_, phase, step, 0, "", summary, None, at)


def cycle(type_: str, at: float) -> StoredEvent:
    return StoredEvent("s", 1, "qa", 1, 1, "queue", type_, "qa", "", 0, "", {}, None, at)


def work(store: Store, epoch: int, result: Any, text: str) -> None:
    store.post(SUPERVISOR, Draft(to="qa", kind="Review", text=text))
    store.start_epoch("qa", epoch, died=False)
    task = store.claim("qa", epoch)
    assert task is not None
    store.finish("qa", epoch, task, Outcome(result=result, detail="see above"))


def test_only_what_happened_in_that_time_counts(tmp_path: Path) -> None:
    """Work of last month is not of this week; what waits since then still waits."""
    clock = Clock()
    store = Store.open(tmp_path, clock=clock)
    work(store, 1, "done", "long ago")
    work(store, 2, "blocked", "long ago, too")
    clock.now = NOW - DAY
    work(store, 3, "done", "yesterday")
    told = made(
        store.state, DEFAULT, [own("begin", NOW - 20 * DAY, phase="supervisor")], since=NOW - 7 * DAY, until=NOW
    )
    assert (told.phases["qa"].done, told.phases["qa"].blocked) == (1, 0)
    assert told.posted == 1
    assert told.runs == 0
    assert len(told.summary.waiting) == 1
    everything = made(store.state, DEFAULT, [], since=0, until=NOW)
    assert (everything.phases["qa"].done, everything.phases["qa"].blocked) == (2, 1)


def test_a_run_counts_once_whatever_is_drawn_in_it() -> None:
    """Each cycle draws its transport, and the rollout may change it for all; a supervisor begins once."""
    events = [
        own("begin", NOW - 9, phase="supervisor", pid=7, version="0.1.0"),
        own("mode", NOW - 8, phase="supervisor", mode="queue"),
        *(own("mode", NOW - n, mode="queue") for n in range(1, 7)),
    ]
    told = made(State(), DEFAULT, events, since=NOW - DAY, until=NOW)
    assert told.runs == 1
    assert "one run, " in lines(told)[0]


def test_a_phase_that_was_given_up_waits_too(tmp_path: Path) -> None:
    """As in the inbox, until it is started again."""
    store = Store.open(tmp_path)
    store.start_epoch("qa", 1, died=False)
    store.give_up("qa", died=True, reason="it kept failing")
    assert "one thing waiting for you" in lines(made(store.state, DEFAULT, [], since=0, until=NOW))[-1]
    store.start_epoch("qa", 2, died=False)
    assert "0 things waiting for you" in lines(made(store.state, DEFAULT, [], since=0, until=NOW))[-1]


def test_ends_restarts_and_giving_up_are_told_apart() -> None:
    """An end that was asked for is none of them."""
    events = [
        own("exit", NOW - 9, type_="phase_error", asked=False),
        own("decision", NOW - 8, restarts_allowed=5, delay=0.1, asked=False),
        own("exit", NOW - 7, type_="phase_error", asked=False),
        own("decision", NOW - 6, restarts_allowed=5, asked=False),
        own("exit", NOW - 5, asked=True),
        own("decision", NOW - 4, restarts_allowed=5, asked=True),
        own("decision", NOW - 4, restarts_allowed=5, asked=False, ended=True),
        own("verdict", NOW - 3, type_="phase_error"),
        own("documents", NOW - 2, type_="phase_error", phase="supervisor"),
    ]
    told = made(State(), DEFAULT, events, since=NOW - DAY, until=NOW)
    qa = told.phases["qa"]
    assert (qa.crashes, qa.restarts, qa.given_up, qa.verdicts) == (2, 1, 1, 1)
    assert told.troubles["documents"] == 1
    page = "\n".join(lines(told))
    for part in ("2 unasked ends, one restart", "given up one time", "documents (1)"):
        assert part in page


def test_busy_time_ends_with_the_cycle_or_its_worker() -> None:
    """A cycle that a dead supervisor left open adds nothing for the night."""
    events = [
        cycle("phase_start", NOW - 100),
        cycle("phase_complete", NOW - 90),
        cycle("phase_start", NOW - 80),
        own("exit", NOW - 75, type_="phase_error", asked=False),
        cycle("phase_start", NOW - 70),
        own("spawn", NOW - 10, epoch=2),
        cycle("phase_start", NOW - 5),
        cycle("phase_error", NOW - 4),
    ]
    told = made(State(), DEFAULT, events, since=NOW - DAY, until=NOW)
    assert told.phases["qa"].busy == pytest.approx(16.0)


def test_since_takes_spans_and_dates() -> None:
    """And says what it takes when it cannot read one."""
    assert beginning("7d", NOW) == NOW - 7 * DAY
    assert beginning("90m", NOW) == NOW - 5400
    assert beginning("2026-01-31T00:00:00+00:00", NOW) == 1769817600.0
    with pytest.raises(UsageError, match="90m, 12h, 7d"):
        beginning("yesterday", NOW)
