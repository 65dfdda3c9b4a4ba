"""Who may do what with which document: every pair, against the table of the contract written out by hand."""

from __future__ import annotations

import json

import pytest

from docs_store.messages import SUPERVISOR, USER
from docs_store.topology import DEFAULT, STRATEGIC, Document, Operation, Phase, Topology, as_data, from_data

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


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([Phase(key="a", title="A", prefix="A"), Phase(key="a", title="B", prefix="B")], "two phases a"),
        ([Phase(key="a", title="A", prefix="X"), Phase(key="b", title="B", prefix="x")], "belong to a and to b"),
        ([Phase(key="user", title="A", prefix="A")], "'user' cannot be a phase's key"),
        ([Phase(key="../a", title="A", prefix="A")], "cannot be a phase's key"),
        ([Phase(key="a", title="A", prefix="../A")], "cannot begin a file's name"),
        ([Phase(key="a", title="A", prefix="A", readers=("b",))], "read by b, which is no phase"),
        ([Phase(key="a", title="A", prefix="A", readers=("a",))], "its own reader"),
    ],
)
def test_phases_that_contradict_each_other_are_refused(phases: list[Phase], said: str) -> None:
    """Before any document is made of them, and with everything that is wrong."""
    with pytest.raises(ValueError, match=said):
        Topology(phases=tuple(phases))
    with pytest.raises(ValueError, match=f"'supervisor' cannot be.*{said}"):
        Topology(phases=(Phase(key="supervisor", title="S", prefix="S"), *phases))


def test_who_plans_reads_what_everybody_writes() -> None:
    """The others read what names them as readers; that it came by JSON makes no difference."""
    audit = Phase(key="audit", title="Audit", prefix="AUDIT", readers=("qa",))
    topology = from_data(json.loads(json.dumps(as_data(Topology(phases=(*DEFAULT.phases, audit))))))
    assert topology.phase("audit") == audit
    assert [document.name for document in topology.read_by("qa")] == ["AUDIT_WRITE"]
    assert topology.read_by("developer") == ()
    assert [document.name for document in topology.read_by("planning")] == [
        "DEVELOPER_WRITE",
        "QA_WRITE",
        "DEBUG_WRITE",
        "AUDIT_WRITE",
    ]


def test_an_unknown_name_is_told_the_known_ones() -> None:
    """A wrong phase or document name gives an error that lists the right ones."""
    with pytest.raises(KeyError, match="planning, developer, qa, debugging"):
        DEFAULT.phase("tester")
    with pytest.raises(KeyError, match="QA_READ"):
        DEFAULT.document("QA_REED.md")
