"""What the workflows of .github promise: every system with every Python, the targets people type, nothing unpinned."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SYSTEMS = {"ubuntu-latest", "windows-latest", "macos-latest"}


def jobs() -> dict[str, dict[str, Any]]:
    """Every job of every workflow; a key that is there twice is refused, as the host of them does."""
    return {name: job for file in WORKFLOWS for name, job in yaml.load(file.read_text("utf-8"), Strict)["jobs"].items()}


class Strict(yaml.SafeLoader):
    """Takes a key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs().items():
        for step in job["steps"]:
            yield name, step


def test_every_system_runs_with_every_python() -> None:
    """Three systems by the four Pythons that the project says it supports, without a hole in the matrix."""
    (matrix,) = [job["strategy"]["matrix"] for job in jobs().values() if "strategy" in job]
    assert set(matrix) == {"os", "python"}, "an `include` or `exclude` would make it another matrix"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    said = {entry.rpartition(" ")[2] for entry in project["classifiers"] if re.search(r":: 3\.\d+$", entry)}
    assert set(itertools.product(matrix["os"], matrix["python"])) == set(itertools.product(SYSTEMS, said))
    assert len(said) == 4


def test_every_action_is_pinned() -> None:
    """By the hash of a commit, with the version beside it for people: a tag can be moved."""
    lines = [line for file in WORKFLOWS for line in file.read_text("utf-8").splitlines() if "uses:" in line]
    assert len(lines) == len([step for _, step in steps() if "uses" in step]) > 0
    for line in lines:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d", line), line


@pytest.mark.parametrize("words", ["make check", "make docs", "make test", "make test-all", "make test-windows"])
def test_the_same_targets_as_people_type(words: str) -> None:
    """Each target that a workflow runs is one of the Makefile's, and none that matters is left out."""
    run = [line for _, step in steps() for line in str(step.get("run", "")).splitlines()]
    assert any(re.match(rf"{words}( |$)", line) for line in run)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in run:
        if line.startswith("make "):
            assert line.split()[1] in targets


@pytest.mark.only_on("posix", reason="a shell")
@pytest.mark.parametrize("lacking", ["make", "sh"])
def test_a_runner_without_make_says_so(tmp_path: Path, lacking: str) -> None:
    """Where Windows is among a job's systems, make and sh are looked for first, and the missing one is named."""
    (job,) = [job for job in jobs().values() if "strategy" in job]
    commands = [str(step.get("run", "")) for step in job["steps"]]
    first_make = next(index for index, command in enumerate(commands) if command.startswith("make "))
    looks = next(command for command in commands[:first_make] if "command -v" in command)
    for tool in {"make", "sh"} - {lacking}:
        (tmp_path / tool).touch(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-eo", "pipefail", "-c", looks], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"::error::there is no {lacking} on this runner" in done.stdout
    (tmp_path / lacking).touch(0o755)
    subprocess.run([bash, "-eo", "pipefail", "-c", looks], env={"PATH": str(tmp_path)}, capture_output=True, check=True)


def test_every_job_ends_and_may_read_alone() -> None:
    """A job has a time limit; the token that it is given can change nothing, and is not left in the checkout."""
    for file in WORKFLOWS:
        assert yaml.load(file.read_text("utf-8"), Strict)["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 90 for job in jobs().values())
    for name, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, name
