import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.drivers.builtin.patch import PatchError, patched, touched

OLD = b"def a():\n    return 1\n\n\ndef b():\n    return 1\n"


def result(diff: str, old: bytes | None = OLD) -> bytes | None:
    return patched(diff, lambda _: old)["x.py"]


HEAD = "--- a/x.py\n+++ b/x.py\n"


@given(st.lists(st.sampled_from("abc "), max_size=12), st.lists(st.sampled_from("abc "), max_size=12))
def test_what_a_program_wrote_is_applied_exactly(old: list[str], new: list[str]) -> None:
    """A correct diff of any two texts turns the one into the other."""
    before, after = ([f"{c}\n" for c in text] for text in (old, new))
    diff = "".join(difflib.unified_diff(before, after, "a/x.py", "b/x.py"))
    if diff:
        assert result(diff, "".join(before).encode()) == "".join(after).encode()


def test_line_numbers_are_a_hint() -> None:
    """Among equal places the nearest is taken, wherever the file has moved to."""
    hunk = "@@ -{} +1 @@\n-    return 1\n+    return 2\n"
    assert result(HEAD + hunk.format(2)) == OLD.replace(b"1", b"2", 1)
    assert result(HEAD + hunk.format(6)) == b"2".join(OLD.rsplit(b"1", 1))
    assert result(HEAD + hunk.format(900)) == b"2".join(OLD.rsplit(b"1", 1))


def test_without_numbers_the_place_must_be_clear() -> None:
    """`@@` alone is fine where the lines occur once, and refused where they occur twice."""
    assert result(HEAD + "@@\n def b():\n-    return 1\n+    return 2\n") == b"2".join(OLD.rsplit(b"1", 1))
    with pytest.raises(PatchError, match="several places"):
        result(HEAD + "@@\n-    return 1\n+    return 2\n")


def test_white_space_may_differ_and_the_files_own_stays() -> None:
    """Tabs against blanks: context keeps the file's, added lines take over its indentation."""
    old = b"def b():\n\tif x:\n\t\treturn 1\n"
    diff = HEAD + "@@ -1,3 +1,4 @@\n def b():\n     if x:\n-        return 1\n+        y()\n+        return 2\n"
    assert result(diff, old) == b"def b():\n\tif x:\n\t\ty()\n\t\treturn 2\n"


def test_line_ends_and_bytes_stay() -> None:
    """CRLF, a missing last newline and bytes that are no UTF-8 come out as they went in."""
    assert result(HEAD + "@@ -1 +1 @@\n-a\n+b\n", b"a\r\nc\r\n") == b"b\r\nc\r\n"
    assert result(HEAD + "@@ -1 +1 @@\n-a\n+b\n", b"a\n\xe9") == b"b\n\xe9"
    assert result(HEAD + "@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n", b"a\n") == b"b"


def test_what_is_there_already_changes_nothing() -> None:
    """Applying the same diff again leaves the file alone."""
    diff = HEAD + "@@ -1,2 +1,2 @@\n def a():\n-    return 1\n+    return 2\n"
    once = result(diff)
    assert once is not None
    assert once != OLD
    assert result(diff, once) == once


@pytest.mark.parametrize(
    ("diff", "old", "words"),
    [
        (HEAD + "@@ -1 +1 @@\n-def c():\n+def d():\n", OLD, "there is no line `def c\\(\\):`"),
        (HEAD + "@@ -1 +1 @@\n-x\n+y\n", None, "is not there"),
        ("--- /dev/null\n+++ b/x.py\n@@ -0,0 +1 @@\n+y\n", b"z\n", "already"),
        (HEAD, OLD, "no hunks"),
        ("@@ -1 +1 @@\n-x\n+y\n", OLD, "before the lines"),
        (HEAD + "@@ -1 +1 @@\n*x\n", OLD, "begins with neither"),
        ("diff --git a/x.py b/y.py\nrename from x.py\nrename to y.py\n", OLD, "renames"),
        ("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n", OLD, "nothing to nothing"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(diff: str, old: bytes | None, words: str) -> None:
    """The file and the line that is not there are named."""
    with pytest.raises(PatchError, match=words):
        result(diff, old)


def test_the_files_of_a_diff() -> None:
    """Prefixes are taken off; a deleted file counts by its old name."""
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n--- old.py\n+++ /dev/null\n"
    assert touched(diff) == ["x.py", "old.py"]
