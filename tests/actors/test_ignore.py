import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.ignore import ignored, parse, walk

TABLE = [
    (b"*.log", b"a/b.log", False, True),
    (b"/*.log", b"a/b.log", False, False),
    (b"build/", b"build", False, False),
    (b"build/", b"x/build", True, True),
    (b"a/b", b"x/a/b", False, False),
    (b"**/b/c", b"x/y/b/c", False, True),
    (b"a/**", b"a/x/y", False, True),
    (b"a/**/z", b"a/z", False, True),
    (b"*.py[co]", b"m.pyc", False, True),
    (b"[!a].txt", b"b.txt", False, True),
    (b"[!a].txt", b"a.txt", False, False),
    (b"\\#x", b"#x", False, True),
    (b"trailing  ", b"trailing", False, True),
    (b"*.txt\n!keep.txt", b"keep.txt", False, False),
    (b"?.c", b"d/x.c", False, True),
    (b"[unclosed", b"[unclosed", False, False),
]


@pytest.mark.parametrize(("text", "path", "folder", "expected"), TABLE)
def test_a_line_of_a_gitignore_means_what_git_says(text: bytes, path: bytes, folder: bool, expected: bool) -> None:  # noqa: FBT001 - a table
    """Each row of the table is judged as git's documentation says."""
    assert ignored([parse(text)], path, folder=folder) is expected


@pytest.mark.skipif(not shutil.which("git"), reason="compares with git itself")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.text(alphabet="ab*?/!.[]-", min_size=1, max_size=7), min_size=1, max_size=4),
    paths=st.lists(
        st.lists(st.sampled_from(["a", "b", "ab", "a.b", "bb", "-a"]), min_size=1, max_size=3), min_size=1, max_size=5
    ),
)
def test_rules_agree_with_git(tmp_path: Path, lines: list[str], paths: list[list[str]]) -> None:
    """Whatever the rules, the walk takes exactly the files that git would take."""
    root = tmp_path / "repo"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for parts in paths:
        target = root.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("x")
        except OSError:
            continue  # one path wants a folder where another one has its file
    (root / ".gitignore").write_text("\n".join(lines) + "\n")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q"], cwd=root, env=env, check=True)
    seen = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "-z"], cwd=root, env=env, check=True, capture_output=True
    )
    expected = {name for name in seen.stdout.split(b"\0") if name}
    assert {f.path for f in walk(os.fsencode(root), problem=lambda _p, _w: None)} == expected


def test_a_rule_file_above_the_folder_counts(tmp_path: Path) -> None:
    """A workspace inside a bigger repository obeys that repository's rules, seen from where they are written."""
    (tmp_path / "keep.txt").write_text("x")
    (tmp_path / "gone.txt").write_text("x")
    outer = parse(b"sub/gone.txt\n", above=b"sub/")
    assert [f.path for f in walk(os.fsencode(tmp_path), outer=[outer], problem=lambda _p, _w: None)] == [b"keep.txt"]


def test_environments_and_other_repositories_are_not_entered(tmp_path: Path) -> None:
    """A folder with `pyvenv.cfg`, one with its own `.git` and the caches are left out; the second is said."""
    for name in ("env/pyvenv.cfg", "nested/.git/HEAD", "__pycache__/x.pyc", "src/a.py", "crew/X.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    said: list[tuple[bytes, str]] = []
    found = walk(os.fsencode(tmp_path), skip=frozenset({b"crew"}), problem=lambda p, w: said.append((p, w)))
    assert [f.path for f in found] == [b"src/a.py"]
    assert said == [(b"nested/", "a repository of its own")]
