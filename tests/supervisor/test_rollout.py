"""The rollout: which mode is in force, when a stage may be left, what takes everything back, what the figures say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipc.events import ProgressEvent
from supervisor.config import Config, IpcConfig
from supervisor.exits import Exit, UserError
from supervisor.journal import Journal, OwnRow
from supervisor.rollout import (
    DAY,
    SCHEDULE,
    WEEK,
    Complete,
    Fact,
    Hold,
    MayAdvance,
    Progress,
    RollBack,
    RolloutError,
    Tally,
    advance,
    fact_of,
    from_data,
    judge,
    observe,
    percentiles,
    rate_in_force,
    resume,
    roll_back,
    shown,
    start,
    to_data,
    validated,
)
from supervisor.rollout_state import RefusedError, RolloutStateError, change, figures, load, stamp, terms_in_force
from supervisor.workspace import Workspace

NOW = 1_800_000_000.0


def week_of_days(progress: Progress, now: float, days: int = 7) -> Progress:
    for day in range(1, days + 1):
        progress = observe(progress, now + day * DAY)
    return progress


# --- which mode is in force


def model(
    flags: tuple[bool, bool], environ: Mapping[str, str], progress: Progress, configured: float | None, drawn: float
) -> str:
    """The order of precedence once more, as SPEC says it."""
    if flags[0]:
        return "queue"
    if flags[1]:
        return "stdout"
    if word := environ.get("QUEUE_IPC_MODE", "").lower():
        return "queue" if word == "queue" else "stdout"
    if variable := environ.get("QUEUE_IPC_ROLLOUT"):
        rate = float(variable)
    elif progress.rolled_back:
        rate = 0.0
    elif progress.stage is not None:
        rate = (0.1, 0.25, 0.5, 0.75, 1.0)[progress.stage]
    else:
        rate = 0.1 if configured is None else configured
    return "queue" if drawn < rate else "stdout"


FLAGS = ((False, False), (False, True), (True, False), (True, True))
MODE_WORDS = ("", "queue", "STDOUT", "Fallback")
RATES = ("", "0", "0.3", "1.0")
STANDS = [
    Progress(),
    *(Progress(stage=n) for n in range(5)),
    Progress(rolled_back="it fails"),
    Progress(stage=2, rolled_back="it fails"),
]
CONFIGURED = (None, 0.0, 0.4, 1.0)
DRAWS = (0.0, 0.0999, 0.1, 0.25, 0.2999, 0.3, 0.45, 0.5, 0.74, 0.75, 0.9999)


def test_every_combination_of_flags_variables_stage_configuration_and_draw() -> None:
    """Flags beat variables, which beat the stage or its rollback, which beat supervisor.toml, which beats 0.1."""
    tried = 0
    for flags, word, rate, stand, configured in itertools.product(FLAGS, MODE_WORDS, RATES, STANDS, CONFIGURED):
        environ = {**({"QUEUE_IPC_MODE": word} if word else {}), **({"QUEUE_IPC_ROLLOUT": rate} if rate else {})}
        config = Config(ipc=IpcConfig(rollout=configured))
        found = terms_in_force(stand, config, environ, queue=flags[0], stdout=flags[1])
        for drawn in DRAWS:
            expected = model(flags, environ, stand, configured, drawn)
            choice = found.choose(drawn)
            assert choice.mode == expected, (flags, environ, stand, configured, drawn, choice)
            assert choice.reason
            tried += 1
    assert tried == 4 * 4 * 4 * 8 * 4 * 11


@given(
    flags=st.tuples(st.booleans(), st.booleans()),
    word=st.sampled_from(["", "queue", "stdout", "fallback"]),
    rate=st.none() | st.floats(0, 1),
    stage=st.none() | st.integers(0, 4),
    rolled_back=st.sampled_from(["", "why"]),
    configured=st.none() | st.floats(0, 1),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_the_order_of_precedence_holds_for_any_numbers(
    flags: tuple[bool, bool],
    word: str,
    rate: float | None,
    stage: int | None,
    rolled_back: str,
    configured: float | None,
    drawn: float,
) -> None:
    """The same for rates and draws that nobody thought of."""
    environ = {
        **({"QUEUE_IPC_MODE": word} if word else {}),
        **({} if rate is None else {"QUEUE_IPC_ROLLOUT": str(rate)}),
    }
    stand = Progress(stage=stage, rolled_back=rolled_back)
    found = terms_in_force(
        stand, Config(ipc=IpcConfig(rollout=configured)), environ, queue=flags[0], stdout=flags[1]
    ).choose(drawn)
    assert found.mode == model(flags, environ, stand, configured, drawn)


@pytest.mark.parametrize("variable", ["QUEUE_IPC_MODE", "QUEUE_IPC_ROLLOUT"])
def test_a_bad_variable_is_named(variable: str) -> None:
    """Exit code 78, and the text says which one."""
    with pytest.raises(UserError, match=variable) as caught:
        terms_in_force(Progress(), Config(), {variable: "often"})
    assert caught.value.exit == Exit.CONFIGURATION


def test_the_reason_names_the_stage_and_the_number() -> None:
    """What goes on record for an audit says everything that decided."""
    assert terms_in_force(Progress(stage=1), Config(), {}).choose(0.2).reason == (
        "drew 0.2000, below the rate 0.25 of stage 2 of the rollout"
    )


# --- the schedule


def test_a_stage_needs_its_week_and_ten_matching_runs() -> None:
    """Either one missing is a refusal that names it; both together are not."""
    begun = start(Progress(), NOW)
    only_week = week_of_days(begun, NOW)
    only_runs = begun
    for _ in range(10):
        only_runs = validated(only_runs, NOW, 0)
    assert isinstance(judge(only_week), Hold)
    with pytest.raises(RolloutError, match="0 of 10 validation runs"):
        advance(only_week, NOW + WEEK)
    with pytest.raises(RolloutError, match=r"7\.0 days to go"):
        advance(only_runs, NOW)
    both = week_of_days(only_runs, NOW)
    assert judge(both) == MayAdvance(0.25)
    assert rate_in_force(advance(both, NOW + WEEK), 1.0)[0] == 0.25


def test_force_overrides_on_record() -> None:
    """The history says that it was forced, and what was missing."""
    forced = advance(start(Progress(), NOW), NOW, force=True)
    assert forced.stage == 1
    assert forced.history[-1].forced
    assert "0 of 10" in forced.history[-1].text
    assert "7.0 days" in forced.history[-1].text


def test_a_difference_begins_the_row_anew() -> None:
    """Nine matches, one difference, one match: that is one."""
    progress = start(Progress(), NOW)
    for differences in (*[0] * 9, 3, 0):
        progress = validated(progress, NOW, differences)
    assert progress.matches == 1
    assert len(progress.validations) == 11


def test_a_clock_that_jumps_gains_a_day_at_most_and_loses_nothing() -> None:
    """A year ahead counts as a day, a year back as nothing, and from there on time counts as ever."""
    progress = observe(start(Progress(), NOW), NOW + 365 * DAY)
    assert progress.served == DAY
    progress = observe(progress, NOW - 365 * DAY)
    assert progress.served == DAY
    assert observe(progress, NOW - 365 * DAY + 60).served == DAY + 60


def test_the_last_stage_has_nothing_after_it() -> None:
    """Complete is a verdict, advancing a refusal."""
    progress = week_of_days(Progress(stage=4, seen=NOW, matches=10), NOW)
    assert judge(progress) == Complete()
    with pytest.raises(RolloutError, match="last stage"):
        advance(progress, NOW + WEEK, force=True)


def test_a_rollback_holds_until_a_person_lifts_it() -> None:
    """Rate 0 and no way on by `advance`; `start` begins anew, `resume` goes on where it was, its week begun anew."""
    progress = week_of_days(Progress(stage=2, seen=NOW, matches=10), NOW)
    back = roll_back(progress, NOW, "it fails", by="supervisor")
    assert judge(back) == RollBack("it fails")
    assert rate_in_force(back, 1.0) == (0.0, "the rollback")
    with pytest.raises(RolloutError, match="it fails"):
        advance(back, NOW, force=True)
    assert roll_back(back, NOW, "again", by="user") == back
    assert start(back, NOW).stage == 0
    again = resume(back, NOW)
    assert (again.stage, again.served, again.matches, again.rolled_back) == (2, 0.0, 0, "")


def test_a_rollback_without_a_stage_gives_the_configuration_back() -> None:
    """Whoever never started a rollout is not put to 10 % by a resume."""
    back = roll_back(Progress(), NOW, "it fails", by="supervisor")
    assert rate_in_force(back, 1.0)[0] == 0.0
    assert rate_in_force(resume(back, NOW), 1.0) == (1.0, "supervisor.toml")
    with pytest.raises(RolloutError, match="nothing"):
        resume(Progress(), NOW)


class AnyRollout(RuleBasedStateMachine):
    """Whatever people, clocks and validations do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.progress = Progress()
        self.honest = 0.0  # time that may have counted since the stage began, looks at most a day apart

    @rule(step=st.floats(-400 * DAY, 400 * DAY))
    def time_goes(self, step: float) -> None:
        self.now += step
        before = self.progress
        self.progress = observe(self.progress, self.now)
        assert self.progress.served - before.served <= DAY
        assert self.progress.served >= before.served
        self.honest += min(max(0.0, step), DAY)

    @rule(differences=st.integers(0, 2))
    def validate(self, differences: int) -> None:
        self.progress = validated(self.progress, self.now, differences)

    @precondition(lambda self: self.progress.stage is None or self.progress.rolled_back)
    @rule()
    def begin(self) -> None:
        self.progress, self.honest = start(self.progress, self.now), 0.0

    @rule(force=st.booleans())
    def go_on(self, force: bool) -> None:  # noqa: FBT001 - hypothesis gives it
        before = self.progress
        may = isinstance(judge(before), MayAdvance)
        possible = before.stage is not None and before.stage < 4 and not before.rolled_back
        try:
            self.progress = advance(before, self.now, force=force)
        except RolloutError:
            assert not may
            assert not (possible and force)
        else:
            assert possible
            assert may or force
            assert self.progress.history[-1].forced == (not may)
            assert self.progress.stage == (before.stage or 0) + 1
            self.honest = 0.0

    @rule()
    def back(self) -> None:
        self.progress = roll_back(self.progress, self.now, "why", by="user")

    @invariant()
    def rates_are_of_the_schedule(self) -> None:
        rate, _ = rate_in_force(self.progress, None)
        assert rate in (0.0, *SCHEDULE.stages)
        assert (rate == 0.0) == bool(self.progress.rolled_back)

    @invariant()
    def no_stage_is_left_early(self) -> None:
        if isinstance(judge(self.progress), MayAdvance):
            assert self.honest >= WEEK * 0.999999
            assert self.progress.matches >= 10

    @invariant()
    def it_survives_the_file(self) -> None:
        assert from_data(json.loads(json.dumps(to_data(self.progress)))) == self.progress


TestAnyRollout = AnyRollout.TestCase


# --- figures and the alarm


def began(phase: str, mode: str = "queue", at: float = 0.0) -> Fact:
    return Fact("began", phase, at, mode=mode)


def test_audits_are_counted_by_what_became_of_them() -> None:
    """Completed, died, told to go, still running; drops and fallbacks with the mode of their audit."""
    tally = Tally()
    for fact in (
        began("qa"),
        Fact("ended", "qa", 1, dropped=3, coalesced=4),
        began("qa", "stdout"),
        Fact("died", "qa", 2),
        began("developer"),
        Fact("fallback", "developer", 3),
        Fact("left", "developer", 4),
        began("planning"),
    ):
        tally.take(fact)
    found = tally.figures({"queue": (0.1, 0.2), "stdout": None})
    queue, stdout = found["queue"], found["stdout"]
    assert (queue.runs, queue.completed, queue.failed, queue.interrupted, queue.running) == (3, 1, 0, 1, 1)
    assert (queue.fallbacks, queue.dropped, queue.coalesced, queue.latency_p99) == (1, 3, 4, 0.2)
    assert (stdout.runs, stdout.failed, stdout.success_rate, queue.success_rate) == (1, 1, 0.0, 1.0)


def test_an_audit_that_nobody_saw_end_has_failed() -> None:
    """A supervisor that was killed leaves beginnings without ends; the next beginning closes the account."""
    tally = Tally()
    tally.take(began("qa"))
    tally.take(began("qa", "stdout"))
    assert tally.figures()["queue"].failed == 1


def failing(times: int, *, apart: float, healthy: int = 0) -> Tally:
    tally = Tally()
    for n in range(healthy):
        tally.take(began("qa", at=float(n)))
        tally.take(Fact("ended", "qa", float(n)))
    for n in range(times):
        tally.take(began("qa", at=100 + n * apart))
        tally.take(Fact("fallback", "qa", 100 + n * apart))
    return tally


def test_the_alarm_needs_several_failures_and_a_share() -> None:
    """Three of ten is too much; two are an accident; three among nineteen are within what is allowed."""
    assert failing(3, apart=60, healthy=7).alarm(0.1) is not None
    assert failing(2, apart=60).alarm(0.1) is None
    assert failing(3, apart=60, healthy=17).alarm(0.2) is None
    assert failing(3, apart=60, healthy=17).alarm(0.1) is not None


def test_one_broken_queue_is_one_failure_however_many_workers_it_fails() -> None:
    """Four workers that fall back within seconds of each other raise no alarm."""
    tally = Tally()
    for phase in ("planning", "developer", "qa", "debugging"):
        tally.take(began(phase))
    for n, phase in enumerate(("planning", "developer", "qa", "debugging")):
        tally.take(Fact("fallback", phase, 10 + n))
    assert tally.alarm(0.1) is None
    assert tally.figures()["queue"].fallbacks == 4


def test_a_queue_that_fails_all_the_time_raises_the_alarm() -> None:
    """One long audit whose queue breaks every second is not one failure for ever."""
    tally = Tally()
    tally.take(began("qa"))
    for second in range(11):
        tally.take(Fact("fallback", "qa", float(second)))
        assert tally.alarm(0.1) is None
    for second in range(11, 14):
        tally.take(Fact("fallback", "qa", float(second)))
    assert tally.alarm(0.1) is not None


def test_a_rollback_is_a_fallback_on_record_that_raises_no_alarm() -> None:
    """It is counted, and not held against the queue."""
    tally = failing(2, apart=60)
    tally.take(Fact("fallback", "qa", 1000, rollback=True))
    assert tally.alarm(0.0) is None
    assert tally.figures()["queue"].fallbacks == 3


def test_what_was_forgiven_raises_no_alarm_again() -> None:
    """After a person brought the queue back, only what comes now counts."""
    tally = failing(5, apart=60)
    assert tally.alarm(0.1) is not None
    tally.forgive()
    assert tally.alarm(0.1) is None


def test_only_records_about_audits_are_facts() -> None:
    """The run's own mode names no message, and other steps are nothing to the figures."""
    said: dict[str, Any] = {"phase": "qa", "timestamp": 1.0}
    assert fact_of(step="mode", summary={"mode": "queue", "message": "m1"}, **said) == began("qa", at=1.0)
    assert fact_of(step="mode", summary={"mode": "queue"}, **said) is None
    assert fact_of(step="ready", summary={}, **said) is None
    died, left = (fact_of(step="exit", summary={"asked": asked}, **said) for asked in (False, True))
    assert died is not None
    assert left is not None
    assert (died.kind, left.kind) == ("died", "left")


@given(st.lists(st.floats(0, 10), min_size=1))
def test_percentiles_are_values_that_occurred(values: list[float]) -> None:
    """At least half, and 99 of 100, lie at or below them."""
    found = percentiles(values)
    assert found is not None
    p50, p99 = found
    assert p50 in values
    assert 2 * sum(v <= p50 for v in values) >= len(values)
    assert 100 * sum(v <= p99 for v in values) >= 99 * len(values)


def test_status_has_the_keys_that_are_promised() -> None:
    """SPEC's names, with sensible values before anything has run."""
    said = shown(Progress(), Tally().figures(), rate=0.1, source="the default", max_fallback_rate=0.1)
    assert (said["current_stage"], said["stage_index"], said["audits_run"]) == (0.1, 0, 0)
    assert (said["queue_mode_count"], said["stdout_mode_count"], said["fallback_count"]) == (0, 0, 0)
    assert said["success_rate"] is None
    json.dumps(said)


# --- the file


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "supervisor.toml").touch()
    return Workspace(tmp_path)


def test_the_state_is_kept_and_read_back(workspace: Workspace) -> None:
    """Nothing there is nothing begun; a change is there for the next reader, and changes the stamp."""
    assert load(workspace) == Progress()
    before = stamp(workspace)
    kept = change(workspace, NOW, lambda progress: start(progress, NOW))
    assert load(workspace) == kept
    assert stamp(workspace) != before


def test_a_refusal_changes_nothing_on_disk(workspace: Workspace) -> None:
    """The file is the same, byte for byte, and the error says what is missing."""
    change(workspace, NOW, lambda progress: start(progress, NOW))
    before = workspace.rollout.read_bytes()
    with pytest.raises(RefusedError, match="to go"):
        change(workspace, NOW + 5, lambda progress: advance(progress, NOW + 5))
    assert workspace.rollout.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "stage": 7}', "\x00"])
def test_a_damaged_state_is_an_error_with_a_name(workspace: Workspace, content: str) -> None:
    """Never taken for a fresh start: that would undo a rollback."""
    workspace.state.mkdir()
    workspace.rollout.write_text(content)
    with pytest.raises(RolloutStateError, match=r"rollout\.json"):
        load(workspace)


def test_figures_come_from_the_journal(workspace: Workspace) -> None:
    """What the supervisor put on record, in the order of its cursors, whatever its type."""
    workspace.make_folders()
    journal = Journal.open(workspace.journal)
    records = [
        ProgressEvent("log_entry", "qa", "mode", summary={"mode": "queue", "message": "m1"}),
        ProgressEvent("log_entry", "qa", "audit", summary={"message": "m1", "dropped": 2}),
        ProgressEvent("log_entry", "qa", "mode", summary={"mode": "stdout", "message": "m2"}),
        ProgressEvent("phase_error", "qa", "exit", summary={"asked": False}),
        ProgressEvent("log_entry", "qa", "mode", summary={"mode": "queue", "message": "m2"}),
    ]
    try:
        journal.commit([OwnRow(seq=n, event=event) for n, event in enumerate(records, start=1)]).result()
        found = figures(workspace)
    finally:
        journal.close()
    assert (found["queue"].runs, found["queue"].completed, found["queue"].dropped) == (2, 1, 2)
    assert (found["stdout"].runs, found["stdout"].failed) == (1, 1)
