from pathlib import Path

from actors.drivers.builtin.lent import lend, take_back, where_needed
from actors.drivers.builtin.project import discover


def test_lent_files_are_gone_after_the_run(tmp_path: Path) -> None:
    """A tree has the generated files while the tests run, and is as it was afterwards."""
    workspace, tree = tmp_path / "work", tmp_path / "tree"
    (workspace / "app").mkdir(parents=True)
    (tree / "app").mkdir(parents=True)
    (workspace / "app" / "_version.py").write_text("version = 1\n")
    (workspace / "app" / "core.py").write_text("the user's\n")
    (tree / "app" / "core.py").write_text("the crew's\n")

    there = lend(tree, workspace, ["app/_version.py", "app/core.py", "app/vanished.py"])
    assert there == ("app/_version.py",)
    assert (tree / "app" / "_version.py").read_text() == "version = 1\n"
    take_back(tree, there)
    assert [path.name for path in (tree / "app").iterdir()] == ["core.py"]
    assert (tree / "app" / "core.py").read_text() == "the crew's\n"


def test_packages_and_source_roots_are_looked_into(tmp_path: Path) -> None:
    """Generated files are looked for where imports find them, not in the whole repository."""
    for name in ("src/app/__init__.py", "flat/__init__.py", "tool.py", "docs/conf.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert where_needed(discover(tmp_path)) == ("src", "flat")
