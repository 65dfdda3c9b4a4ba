"""The restart policy: what OTP promises, the delays that it lacks, and reasons a person can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.restart import (
    ChildHistory,
    CrewPolicy,
    Decision,
    Exit,
    GiveUp,
    History,
    LeaveEnded,
    LeaveStopped,
    RestartPolicy,
    StartAgain,
    after_exit,
    backoff,
)

ORDER = ("planning", "developer", "qa", "debugging")
POLICY = RestartPolicy(restarts=3, within=60, start_failures=2, stable_after=5, first_delay=1, longest_delay=8)
CREW = CrewPolicy(restarts=10, within=60)
CRASH = Exit(child="qa", code=-9, ready=True, ran_for=1.0)
STABLE = Exit(child="qa", code=-9, ready=True, ran_for=5.0)


def decide(exit_: Exit = CRASH, **changes: Any) -> Decision:
    arguments: dict[str, Any] = {
        "history": History(),
        "policy": POLICY,
        "crew": CREW,
        "order": ORDER,
        "now": 1000.0,
        "jitter": 0.5,
    }
    return after_exit(exit_, **{**arguments, **changes})


def again(exit_: Exit = CRASH, **changes: Any) -> StartAgain:
    decision = decide(exit_, **changes)
    assert isinstance(decision, StartAgain)
    return decision


def test_a_child_that_ran_stably_is_started_at_once() -> None:
    """The first restart after a stable run does not wait, whatever the chance."""
    assert again(STABLE, jitter=1.0).at == 1000.0


def test_an_unstable_run_waits() -> None:
    """After a run that was shorter than `stable_after` the restart waits a random part of the first delay."""
    assert again(replace(CRASH, ran_for=4.999), jitter=0.5).delay == 0.5


def test_backoff_doubles_to_its_cap() -> None:
    """Delays double with each unstable run and never pass the longest."""
    assert [backoff(n, POLICY) for n in (0, 1, 2, 3, 4, 5, 10_000)] == [0, 1, 2, 4, 8, 8, 8]


def test_a_stable_run_resets_the_backoff() -> None:
    """Unstable runs in a row are forgotten after a stable one."""
    history = History(children={"qa": ChildHistory(unstable=7)})
    assert again(STABLE, history=history).delay == 0
    assert again(STABLE, history=history).history.of("qa").unstable == 0
    assert again(CRASH, history=history, jitter=1.0).delay == 8


def test_the_window_slides() -> None:
    """A restart that is exactly `within` old no longer counts; one a moment younger does."""
    old = History(children={"qa": ChildHistory(restarts=(940.0, 990.0, 991.0))})
    assert isinstance(decide(history=old), StartAgain)
    young = History(children={"qa": ChildHistory(restarts=(940.001, 990.0, 991.0))})
    given_up = decide(history=young)
    assert isinstance(given_up, GiveUp)
    assert given_up.scope == "child"
    assert given_up.reason == (
        "qa was ended by signal 9 after 1.0 s; it was restarted 3 times within 60 s, 3 are allowed."
    )
    assert given_up.inputs["restarts"] == 3


def test_no_restarts_allowed_gives_up_at_the_first_exit() -> None:
    """A policy of no restarts never restarts."""
    assert isinstance(decide(policy=replace(POLICY, restarts=0)), GiveUp)


def test_the_crew_has_a_limit_of_its_own() -> None:
    """Many children failing a little each is a failing crew."""
    history = History(crew=(995.0,) * 10)
    decision = decide(history=history)
    assert isinstance(decision, GiveUp)
    assert decision.scope == "crew"
    assert isinstance(decide(history=History(crew=(940.0, *(995.0,) * 9))), StartAgain)


def test_failing_to_start_is_another_count() -> None:
    """Failed starts in a row are limited apart from crashes, and a start that succeeds clears them."""
    failed = Exit(child="qa", code=1, ready=False, ran_for=0.1)
    history = again(failed).history
    assert history.of("qa").start_failures == 1
    history = again(failed, history=history).history
    decision = decide(failed, history=history)
    assert isinstance(decision, GiveUp)
    assert "failed to start 3 times in a row, 2 are allowed" in decision.reason
    assert again(CRASH, history=history).history.of("qa").start_failures == 0


def test_a_slow_start_failure_is_never_called_stable() -> None:
    """A child that never got ready waits before its restart, however long it tried."""
    assert again(Exit(child="qa", code=1, ready=False, ran_for=500.0), jitter=1.0).delay == 1


def test_asked_to_go_means_gone() -> None:
    """A child that exits while we stop is not restarted."""
    decision = decide(replace(CRASH, asked=True))
    assert isinstance(decision, LeaveStopped)
    assert "asked" in decision.reason


@pytest.mark.parametrize(
    ("permanence", "code", "ready", "expected"),
    [
        ("permanent", 0, True, StartAgain),
        ("permanent", 1, True, StartAgain),
        ("transient", 0, True, LeaveEnded),
        ("transient", 1, True, StartAgain),
        ("transient", -15, True, StartAgain),
        ("transient", 0, False, StartAgain),
        ("temporary", 0, True, LeaveEnded),
        ("temporary", 0, False, GiveUp),
        ("temporary", 1, True, GiveUp),
        ("temporary", -9, True, GiveUp),
    ],
)
def test_permanence(permanence: Any, code: int, ready: bool, expected: type) -> None:  # noqa: FBT001 - a table
    """Permanent children always come back, transient ones after a failure, temporary ones never; a crash is told."""
    exit_ = Exit(child="qa", code=code, ready=ready, ran_for=9)
    decision = decide(exit_, policy=replace(POLICY, permanence=permanence))
    assert isinstance(decision, expected)
    if not isinstance(decision, StartAgain):
        assert permanence in decision.reason
        assert not decision.history.crew
    assert isinstance(decide(replace(exit_, asked=True), policy=replace(POLICY, permanence=permanence)), LeaveStopped)


@pytest.mark.parametrize("permanence", ["permanent", "transient"])
def test_one_that_we_ended_for_a_verdict_has_not_finished(permanence: Any) -> None:
    """Whatever code that leaves behind: it is neither a normal exit nor a final one."""
    policy = replace(POLICY, permanence=permanence, final_exit_codes=(1,))
    for code in (0, 1):
        exit_ = Exit(child="qa", code=code, ready=True, ran_for=9, judged=True)
        assert isinstance(decide(exit_, policy=policy), StartAgain)


@pytest.mark.parametrize("permanence", ["permanent", "transient"])
@pytest.mark.parametrize("ready", [True, False])
def test_a_final_exit_code_gives_up_at_once(permanence: Any, ready: bool) -> None:  # noqa: FBT001 - a table
    """Whatever else is allowed; another code is not, and one that was asked for is nobody's fault."""
    policy = replace(POLICY, permanence=permanence, final_exit_codes=(64, 78))
    exit_ = Exit(child="qa", code=78, ready=ready, ran_for=3.0)
    decision = decide(exit_, policy=policy)
    assert isinstance(decision, GiveUp)
    assert (decision.scope, decision.inputs["restarts"]) == ("exit", 0)
    assert decision.reason.startswith("qa exited with code 78 ")
    assert "that code is final for it (64, 78)" in decision.reason
    assert isinstance(decide(replace(exit_, code=77), policy=policy), StartAgain)
    assert isinstance(decide(replace(exit_, asked=True), policy=policy), LeaveStopped)


@pytest.mark.parametrize(
    ("strategy", "together", "ended"),
    [
        ("one_for_one", ("qa",), ()),
        ("one_for_all", ("developer", "qa"), ("planning", "debugging")),
        ("rest_for_one", ("qa",), ("debugging",)),
    ],
)
def test_temporary_children_are_stopped_with_the_others_and_not_started(
    strategy: Any, together: tuple[str, ...], ended: tuple[str, ...]
) -> None:
    """As in OTP: the strategy ends them, and nothing starts them again."""
    decision = again(crew=replace(CREW, strategy=strategy), temporary=("debugging", "planning"))
    assert (decision.children, decision.ended) == (together, ended)


@pytest.mark.parametrize("code", [0, 1])
def test_the_end_of_a_temporary_child_touches_nobody(code: int) -> None:
    """It is not restarted, so no strategy restarts others with it."""
    policy = replace(POLICY, permanence="temporary")
    decision = decide(replace(CRASH, code=code), policy=policy, crew=replace(CREW, strategy="one_for_all"))
    assert not isinstance(decision, StartAgain)


@pytest.mark.parametrize(
    ("strategy", "together"),
    [("one_for_one", ("qa",)), ("one_for_all", ORDER), ("rest_for_one", ("qa", "debugging"))],
)
def test_strategies(strategy: Any, together: tuple[str, ...]) -> None:
    """The strategy says who is restarted together, in start order."""
    decision = again(crew=replace(CREW, strategy=strategy))
    assert decision.children == together
    assert set(decision.history.children) == {"qa"}, "only the one that failed is counted"


def test_reasons_read_well() -> None:
    """A decision says what the child did, what happens next, and how much is left."""
    assert again(STABLE).reason == (
        "qa was ended by signal 9 after 5.0 s; it is started again at once: restart 1 of 3 allowed within 60 s."
    )
    assert again(crew=replace(CREW, strategy="rest_for_one")).reason == (
        "qa was ended by signal 9 after 1.0 s; it is started again in 0.50 s (up to 1 s after an unstable run), "
        "and debugging with it: restart 1 of 3 allowed within 60 s."
    )


def test_a_person_may_ask_for_a_fresh_start() -> None:
    """Forgetting a child's past lets it be restarted again."""
    history = History(children={"qa": ChildHistory(restarts=(999.0,) * 3), "developer": ChildHistory(unstable=2)})
    assert isinstance(decide(history=history), GiveUp)
    assert isinstance(decide(history=history.forgetting("qa")), StartAgain)
    assert history.forgetting("qa").of("developer").unstable == 2


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"restarts": -1}, "restarts must be 0 or more, not -1"),
        ({"within": 0}, "within must be above 0"),
        ({"within": float("inf")}, "within must be above 0"),
        ({"stable_after": float("nan")}, "stable_after must be 0 or more"),
        ({"first_delay": 9}, "longest_delay (8) is shorter than first_delay (9)"),
        ({"final_exit_codes": (0, 78)}, "final_exit_codes cannot have 0"),
        ({"permanence": "eternal"}, "permanence must be one of permanent, transient, temporary"),
        ({"first_delay": 0, "start_failures": -2}, "start_failures must be 0 or more, not -2; first_delay"),
    ],
)
def test_an_impossible_policy_cannot_be_built(changes: Any, mistake: str) -> None:
    """A policy names all its mistakes at once."""
    with pytest.raises(ValueError, match="restart policy") as caught:
        replace(POLICY, **changes)
    assert mistake in str(caught.value)


def test_an_impossible_crew_policy_cannot_be_built() -> None:
    """So does the crew's."""
    with pytest.raises(ValueError, match=r"strategy must be one of .*; restarts must be 0"):
        replace(CREW, strategy="all", restarts=-1)  # type: ignore[arg-type]


def test_impossible_questions_are_refused() -> None:
    """A chance out of range and an unknown child are the caller's mistakes."""
    with pytest.raises(ValueError, match="jitter"):
        decide(jitter=1.5)
    with pytest.raises(ValueError, match="no child of this crew"):
        decide(replace(CRASH, child="security"))


@given(unstable=st.integers(0, 5000), jitter=st.floats(0, 1))
def test_a_delay_is_never_longer_than_the_cap(unstable: int, jitter: float) -> None:
    """However long the crash loop, the wait lies between nothing and the longest delay."""
    decision = again(history=History(children={"qa": ChildHistory(unstable=unstable)}), jitter=jitter)
    assert 0 <= decision.delay <= POLICY.longest_delay
    assert decision.at == 1000.0 + decision.delay


class RestartMachine(RuleBasedStateMachine):
    """A crew of four, each child with a policy of its own; the model is a list of (time, child) restarts, and counts.

    Planning and Developer are permanent, the latter with one restart; QA is transient, Debugging temporary.
    """

    POLICIES: ClassVar = {
        "planning": POLICY,
        "developer": replace(POLICY, restarts=1, within=20),
        "qa": replace(POLICY, permanence="transient", final_exit_codes=(78,)),
        "debugging": replace(POLICY, permanence="temporary"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history = History()
        self.restarts: list[tuple[float, str]] = []
        self.unstable = dict.fromkeys(ORDER, 0)
        self.failures = dict.fromkeys(ORDER, 0)
        self.crew = CrewPolicy(strategy="one_for_all", restarts=5, within=40)

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 19.0, 20.0, 40.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        child=st.sampled_from(ORDER),
        ready=st.booleans(),
        ran_for=st.sampled_from([0.0, 4.9, 5.0, 90.0]),
        jitter=st.sampled_from([0.0, 0.5, 1.0]),
        asked=st.sampled_from([False, False, False, True]),
        code=st.sampled_from([1, 1, 1, 0, 78]),
    )
    def exits(self, child: str, ready: bool, ran_for: float, jitter: float, asked: bool, code: int) -> None:  # noqa: FBT001
        exit_ = Exit(child=child, code=code, ready=ready, ran_for=ran_for, asked=asked)
        policy = self.POLICIES[child]
        decision = decide(
            exit_,
            history=self.history,
            policy=policy,
            crew=self.crew,
            now=self.now,
            jitter=jitter,
            temporary=("debugging",),
        )
        self.history = decision.history
        mine = [t for t, c in self.restarts if c == child and t > self.now - policy.within]
        everyone = [t for t, _ in self.restarts if t > self.now - self.crew.within]
        if asked:
            assert isinstance(decision, LeaveStopped)
            self.unstable[child] = self.failures[child] = 0
            return
        if child in ("qa", "debugging") and ready and code == 0:
            assert isinstance(decision, LeaveEnded)
            self.unstable[child] = self.failures[child] = 0
            return
        self.failures[child] = 0 if ready else self.failures[child] + 1
        allowed = (
            child != "debugging"
            and (child, code) != ("qa", 78)
            and len(mine) < policy.restarts
            and len(everyone) < self.crew.restarts
            and self.failures[child] <= POLICY.start_failures
        )
        if not allowed:
            assert isinstance(decision, GiveUp)
            return
        assert isinstance(decision, StartAgain)
        assert (decision.children, decision.ended) == (("planning", "developer", "qa"), ("debugging",))
        self.unstable[child] = 0 if ready and ran_for >= POLICY.stable_after else self.unstable[child] + 1
        longest = 0.0 if not self.unstable[child] else min(8.0, 2.0 ** (self.unstable[child] - 1))
        assert decision.delay == longest * jitter
        self.restarts.append((self.now, child))

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.history.crew) <= self.crew.restarts
        assert all(len(past.restarts) <= self.POLICIES[key].restarts for key, past in self.history.children.items())


TestRestartMachine = RestartMachine.TestCase
