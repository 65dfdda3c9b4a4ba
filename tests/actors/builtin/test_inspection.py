"""How what the tools say is put together before anybody talks about it."""

from __future__ import annotations

from actors.drivers.builtin.checks import TestRun
from actors.drivers.builtin.findings import Finding
from actors.drivers.builtin.inspection import as_it_is, by_function


def failure(symbol: str, *, file: str = "test_a.py", rule: str = "failure") -> Finding:
    test_id = f"{file}::{symbol}"
    return Finding(
        tool="pytest", rule=rule, file=file, symbol=symbol, message=f"{symbol} fails: no", data={"id": test_id}
    )


def test_a_test_that_fails_for_many_parameters_is_one_finding() -> None:
    """Same function, same finding, whichever parameters fail; it can be run again as a whole."""
    both = by_function([failure("test_x[1]"), failure("test_y"), failure("test_x[2]"), failure("test_x[a[0]]")])
    assert [found.symbol for found in both] == ["test_x", "test_y"]
    assert both[0].message == "test_x[1] fails: no (and 2 more of its parameters)"
    assert both[0].data["id"] == "test_a.py::test_x"
    assert both[0].data["ids"] == ["test_a.py::test_x[1]", "test_a.py::test_x[2]", "test_a.py::test_x[a[0]]"]
    (other,) = by_function([failure("test_x[2]")])
    assert other.fingerprint == both[0].fingerprint
    assert other.message == "test_x[2] fails: no"


def test_other_files_and_a_parameter_that_hangs_stay_findings_of_their_own() -> None:
    """Only failures are put together: what hangs or crashes is named with its parameters."""
    found = by_function(
        [failure("test_x[1]"), failure("test_x[1]", file="test_b.py"), failure("test_x[2]", rule="hang")]
    )
    assert [(f.file, f.symbol) for f in found] == [
        ("test_a.py", "test_x"),
        ("test_b.py", "test_x"),
        ("test_a.py", "test_x[2]"),
    ]


def test_a_finding_is_there_while_any_of_its_parameters_fails() -> None:
    """Fixed for one value is not fixed."""
    (finding,) = by_function([failure("test_x[1]")])
    assert as_it_is(finding, TestRun(status="ran", findings=(failure("test_x[2]"),))) is not None
    assert as_it_is(finding, TestRun(status="ran", findings=(failure("test_z[2]"),))) is None
