"""Who may do what with which document: every pair, against the table of the contract written out by hand."""

from __future__ import annotations

import pytest

from docs_store.messages import SUPERVISOR, USER
from docs_store.topology import DEFAULT, STRATEGIC, Document, Operation

PHASES = ("planning", "developer", "qa", "debugging")
PREFIX = {"planning": "PLANNING", "developer": "DEVELOPER", "qa": "QA", "debugging": "DEBUG"}
EVERYBODY = (*PHASES, USER, SUPERVISOR, "nobody", "")


def expected(who: str, name: str, operation: Operation) -> bool:
    """The contract, in its own words."""
    known = who in (*PHASES, USER, SUPERVISOR)
    own = who in PHASES and name.startswith(PREFIX[who] + "_")
    if operation is Operation.READ:
        return known
    if operation is Operation.EDIT:
        return who == USER
    if operation is Operation.POST:
        return known and name.endswith("_READ") and not own
    if operation is Operation.REPORT:
        return own and name.endswith("_WRITE")
    return who == "planning" and name in STRATEGIC


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("document", DEFAULT.documents, ids=lambda document: document.name)
def test_rights(who: str, document: Document, operation: Operation) -> None:
    """Each of phase × document × operation, and the user, the supervisor and unknown names, is as the contract says."""
    assert DEFAULT.allows(who, document, operation) is expected(who, document.name, operation)


def test_there_are_thirteen() -> None:
    """Four READ, four WRITE and five strategic documents, under the names of the contract."""
    assert [document.file for document in DEFAULT.documents] == [
        *(f"{PREFIX[phase]}_READ.md" for phase in PHASES),
        *(f"{PREFIX[phase]}_WRITE.md" for phase in PHASES),
        "MASTER_PLAN.md",
        "PRIMARY_OBJECTIVES.md",
        "SECONDARY_OBJECTIVES.md",
        "TERTIARY_OBJECTIVES.md",
        "ARCHITECTURE.md",
    ]


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """A wrong phase or document name gives an error that lists the right ones."""
    with pytest.raises(KeyError, match="planning, developer, qa, debugging"):
        DEFAULT.phase("tester")
    with pytest.raises(KeyError, match="QA_READ"):
        DEFAULT.document("QA_REED.md")
