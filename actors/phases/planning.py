"""Planning's cycle: hear everybody, look at the code base, keep the strategic documents, set priorities."""

from .policy import Policy

PLANNING = Policy(
    key="planning",
    opening="planning",
    reads=(
        "PLANNING_READ",
        "DEVELOPER_WRITE",
        "QA_WRITE",
        "DEBUG_WRITE",
        "MASTER_PLAN",
        "PRIMARY_OBJECTIVES",
        "SECONDARY_OBJECTIVES",
        "TERTIARY_OBJECTIVES",
        "ARCHITECTURE",
    ),
    tells={
        "developer": frozenset({"Implement", "Fix", "Answer", "Question", "Resolved", "Review"}),
        "qa": frozenset({"Verify", "Review", "Assess", "Question", "Answer", "Resolved"}),
        "debugging": frozenset({"Fix", "Issue", "Question", "Answer", "Resolved"}),
    },
)
