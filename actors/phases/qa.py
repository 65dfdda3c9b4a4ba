"""QA's cycle: look at the work branch in a tree of its own, report what is wrong, approve what is right."""

from .policy import Policy

QA = Policy(
    key="qa",
    opening="reviewing",
    reads=(
        "QA_READ",
        "PRIMARY_OBJECTIVES",
        "SECONDARY_OBJECTIVES",
        "ARCHITECTURE",
        "DEVELOPER_WRITE",
    ),
    tells={
        "debugging": frozenset({"Issue"}),
        "planning": frozenset({"Issue", "Approved", "Blocker", "Question"}),
        "developer": frozenset({"Issue", "Review", "Question"}),
    },
)
