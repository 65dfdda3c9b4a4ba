import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.drivers.builtin.findings import Finding

_TEXT = st.text(max_size=8)


@given(st.tuples(_TEXT, _TEXT, _TEXT, _TEXT), st.tuples(_TEXT, _TEXT, _TEXT, _TEXT), st.integers(0, 9), _TEXT)
def test_the_fingerprint_is_tool_rule_file_and_symbol(
    a: tuple[str, str, str, str], b: tuple[str, str, str, str], line: int, words: str
) -> None:
    """Equal where these four are, whatever line and message; different where they are not; always safe as an id."""

    def finding(parts: tuple[str, str, str, str], line: int, message: str) -> Finding:
        tool, rule, file, symbol = (part.replace("\0", "") for part in parts)
        return Finding(tool=tool, rule=rule, file=file, symbol=symbol, line=line, message=message)

    one, moved, other = finding(a, 1, "m"), finding(a, line, words), finding(b, 1, "m")
    assert one.fingerprint == moved.fingerprint
    same = [p.replace("\0", "") for p in a] == [p.replace("\0", "") for p in b]
    assert (one.fingerprint == other.fingerprint) is same
    assert one.fingerprint.replace("-", "").isalnum()
    assert one.fingerprint.isascii()


def test_a_finding_travels_as_a_dict() -> None:
    """There and back again; damaged ones are a clear error."""
    finding = Finding(tool="ruff", rule="F401", message="`os` unused", file="a.py", line=3, data={"fix": "safe"})
    assert Finding.from_dict(finding.to_dict()) == finding
    assert str(finding) == "a.py:3: F401 `os` unused"
    for damaged in (
        {},
        {"tool": 1, "rule": "r", "message": "m"},
        {"tool": "t", "rule": "r", "message": "m", "line": "x"},
    ):
        with pytest.raises(ValueError, match="no finding"):
            Finding.from_dict(damaged)
