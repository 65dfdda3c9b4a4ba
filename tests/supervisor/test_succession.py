"""What the restart policy becomes of `supervisor.toml`; whole successions are in `tests/e2e`."""

from __future__ import annotations

import pytest

from supervisor.config import parse
from supervisor.restart import Exit, GiveUp, History, StartAgain, after_exit
from supervisor.succession import policies

OWN = '[phases.p{0}]\nactor = "own.place:Actor"\n'


@pytest.mark.parametrize("own", [0, 60])
def test_a_crew_may_need_what_its_phases_may(own: int) -> None:
    """Every phase may use up its own restarts together: a large crew is not given up sooner than a small one."""
    config = parse("".join(OWN.format(number) for number in range(own)) + "[restart]\nrestarts = 2\nwithin = 30.0\n")
    policy, crew = policies(config)
    order = tuple(phase.key for phase in config.topology.phases)
    history = History()
    for turn in range(3):
        for key in order:
            exit_ = Exit(child=key, code=-9, ready=True, ran_for=100.0)
            decision = after_exit(
                exit_, history=history, policy=policy, crew=crew, order=order, now=20.0 + turn, jitter=0.0
            )
            history = decision.history
            assert isinstance(decision, StartAgain if turn < 2 else GiveUp), decision.reason


def test_the_crew_s_own_limit_is_the_one_that_was_set() -> None:
    """`crew_restarts` binds before the phases' own limits do."""
    config = parse("[restart]\nrestarts = 5\ncrew_restarts = 6\nwithin = 30.0\n")
    policy, crew = policies(config)
    history = History()
    order = tuple(phase.key for phase in config.topology.phases)
    decisions = []
    for turn in range(7):
        exit_ = Exit(child=order[turn % 4], code=-9, ready=True, ran_for=100.0)
        decisions.append(
            after_exit(exit_, history=history, policy=policy, crew=crew, order=order, now=20.0 + turn, jitter=0.0)
        )
        history = decisions[-1].history
    assert all(isinstance(decision, StartAgain) for decision in decisions[:6])
    assert isinstance(decisions[6], GiveUp)
    assert (decisions[6].scope, decisions[6].inputs["crew_restarts_allowed"]) == ("crew", 6)
