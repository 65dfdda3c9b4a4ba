"""What a phase's cycle reads, in which order, and whom it may tell: data, the same for every driver (SPEC §3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from docs_store.messages import Kind, Outcome
from docs_store.topology import Topology


class OutOfPolicyError(Exception):
    """A driver's outcome asks for what its phase may not do; nothing of it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One phase's cycle. `reads` are document names in order; `tells` maps receivers to the kinds it may send them.

    `opening` is the step that a cycle's first event names, for people and for the live view.
    """

    key: str
    opening: str
    reads: tuple[str, ...]
    tells: Mapping[str, frozenset[Kind]] = field(default_factory=dict)
    refusals: int = 3  # of a thread's fixes by QA, before a person is asked

    def check(self, outcome: Outcome, topology: Topology) -> None:
        """Raise `OutOfPolicyError` with everything that is wrong with an outcome."""
        known = {phase.key for phase in topology.phases}
        wrong = [
            f"{draft.kind} to {draft.to!r}"
            for draft in outcome.posts
            if draft.to not in known
            or draft.to == self.key
            or (draft.to in self.tells and draft.kind not in self.tells[draft.to])
        ]
        if outcome.strategic and not topology.phase(self.key).plans:
            wrong.append(f"a rewrite of {', '.join(outcome.strategic)}")
        if wrong:
            raise OutOfPolicyError(f"{self.key} may not send: {'; '.join(wrong)}")
