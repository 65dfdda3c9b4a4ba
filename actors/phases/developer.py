"""Developer's cycle: implement what is asked for in a tree of its own, then ask for a review or say what is missing."""

from .policy import Policy

DEVELOPER = Policy(
    key="developer",
    opening="implementing",
    reads=(
        "DEVELOPER_READ",
        "MASTER_PLAN",
        "PRIMARY_OBJECTIVES",
        "SECONDARY_OBJECTIVES",
        "TERTIARY_OBJECTIVES",
        "ARCHITECTURE",
        "QA_WRITE",
        "DEBUG_WRITE",
    ),
    tells={
        "planning": frozenset({"Question", "Blocker", "Implemented", "Resolved", "Fixed"}),
        "qa": frozenset({"Review", "Verify"}),
        "debugging": frozenset({"Issue", "Question", "Answer"}),
    },
)
