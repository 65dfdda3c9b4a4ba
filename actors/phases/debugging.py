"""Debugging's cycle: find the cause, fix what can be fixed safely, hand on with an explanation what cannot."""

from .policy import Policy

DEBUGGING = Policy(
    key="debugging",
    opening="investigating",
    reads=("DEBUG_READ", "SECONDARY_OBJECTIVES", "TERTIARY_OBJECTIVES", "QA_WRITE"),
    tells={
        "qa": frozenset({"Verify"}),
        "planning": frozenset({"Fixed", "Issue", "Blocker", "Question"}),
        "developer": frozenset({"Issue", "Fix"}),
    },
)
