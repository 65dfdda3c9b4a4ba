"""Actors of a user's own: what is found under a dotted path, what is wrong with it, and how one is tested."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import actors
from actors import Context, Draft, Outcome, PhaseActor, Task
from actors.actor import own_driver
from actors.own import ActorError, find, policy_of, require_usable
from actors.phases import QA, OutOfPolicyError
from actors.testing import rehearse
from actors.trees import Trees
from docs_store.topology import DEFAULT, Phase, Topology, as_data, from_data

OWN = Topology(phases=(*DEFAULT.phases, Phase(key="security", title="Security", prefix="SECURITY")))
GOOD = """
    from actors import Context, Outcome, PhaseActor, Task

    class Mine(PhaseActor):
        async def perform(self, task: Task, context: Context) -> Outcome:
            return Outcome(result="done", detail="looked")
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the module path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")


def test_a_subclass_and_a_class_of_the_same_shape_are_usable(written: Path) -> None:
    """Subclassing is a convenience; the shape counts."""
    write(written, "mine1", GOOD)
    write(written, "mine2", GOOD.replace("(PhaseActor)", ""))
    for name in ("mine1:Mine", "mine2:Mine"):
        assert hasattr(own_driver(name, "security", OWN), "perform")
        assert hasattr(own_driver(name, "qa", OWN), "perform")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nowhere.at_all:Mine", "", "there is no module 'nowhere' in the supervisor's environment, PYTHONPATH or"),
        ("m1:Mine", "import no_such_thing_here", r"m1 failed: .*'no_such_thing_here' \(.*m1.py:1\)"),
        ("m2:Mine", "1 / 0", r"the import of m2 failed: ZeroDivisionError: division by zero \(.*m2.py:1\)"),
        ("m3:Mine", "def broken(:", r"the import of m3 failed: .*m3.py:1: invalid syntax"),
        ("m4:Mine", "class Other: ...", r"m4 \(.*m4.py\) has no 'Mine'; its classes are: Other"),
    ],
)
def test_what_cannot_be_found_is_said_with_its_place(written: Path, name: str, text: str, said: str) -> None:
    """Which module, which file and line, which classes there are instead."""
    write(written, name.partition(":")[0].partition(".")[0], text) if text else None
    with pytest.raises(ActorError, match=said):
        find(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mine = 3", "m:Mine is an int, not a class with `async def perform"),
        ("def Mine(): ...", "m:Mine is a function, not a class"),
        ("class Mine: ...", "m:Mine has no `async def perform"),
        ("import actors\nclass Mine(actors.PhaseActor): ...", "m:Mine has no `async def perform"),
        ("class Mine:\n    def perform(self, task, context): ...", "Mine.perform must be an `async def`"),
        ("class Mine:\n    async def perform(self, task): ...", r"Mine.perform\(self, task\) cannot be called with a"),
        (
            "class Mine:\n    def __init__(self, x): ...\n    async def perform(self, task, context): ...",
            "must be made without arguments",
        ),
        (
            "class Mine:\n    def __init__(self): 1 / 0\n    async def perform(self, task, context): ...",
            r"m:Mine\(\) failed: ZeroDivisionError",
        ),
        (
            "class Mine:\n    reads = ('DIARY',)\n    async def perform(self, task, context): ...",
            "reads names DIARY; there are: ARCHITECTURE",
        ),
        (
            "class Mine:\n    tells = {'boss': {'Issue'}, 'qa': {'Rant'}}\n    async def perform(self, t, c): ...",
            r"tells names 'boss'; it can tell: debugging.*tells\['qa'\] names Rant; kinds are: Issue",
        ),
        ("async def Mine(): ...", "must take a line and an assignment"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_at_once(written: Path, text: str, said: str) -> None:
    """Every mistake in one sentence that names the class."""
    write(written, "m", text)
    with pytest.raises(ActorError, match=said):
        own_driver("m:Mine", "security", OWN)


def test_a_loop_may_call_the_usual_one(written: Path) -> None:
    """What replaces the whole loop is no driver, so the usual loop, called from it, works with the configured one."""
    write(written, "m", "async def main(line, assignment): ...")
    assert own_driver("m:main", "qa", OWN) is None


def test_the_policy_of_the_four_is_fixed(written: Path) -> None:
    """A class for QA gets QA's policy; one that brings its own is refused rather than ignored."""
    write(written, "mine1", GOOD)
    assert policy_of("qa", OWN, find("mine1:Mine")) is QA
    write(written, "mine2", GOOD.replace("async def", "reads = ('MASTER_PLAN',)\n        async def"))
    with pytest.raises(ActorError, match="what qa reads and whom it tells is fixed"):
        require_usable(find("mine2:Mine"), "mine2:Mine", "qa", OWN)


def test_a_cycle_reads_the_documents_whose_reader_its_phase_is() -> None:
    """Planning reads what everybody writes; the others what names them as `readers`, too."""
    security = replace(OWN.phase("security"), readers=("qa",))
    topology = Topology(phases=(*DEFAULT.phases, security))
    assert policy_of("qa", topology).reads == (*QA.reads, "SECURITY_WRITE")
    assert policy_of("planning", topology).reads[-1] == "SECURITY_WRITE"
    assert "SECURITY_WRITE" not in policy_of("developer", topology).reads
    assert policy_of("qa", from_data(json.loads(json.dumps(as_data(topology))))) == policy_of("qa", topology)


def test_a_phase_of_the_users_own_has_a_policy() -> None:
    """As its class says; else it reads its own document and the strategic ones, and may tell anybody anything."""
    plain = policy_of("security", OWN)
    assert plain.reads[0] == "SECURITY_READ"
    assert "MASTER_PLAN" in plain.reads
    assert plain.tells == {}

    class Mine(PhaseActor):
        opening = "scanning"
        reads = ("QA_WRITE.md",)
        tells = {"planning": {"Issue"}}  # noqa: RUF012 - as in the documentation

        async def perform(self, task: Task, context: Context) -> Outcome:
            raise NotImplementedError

    policy = policy_of("security", OWN, Mine())
    assert (policy.opening, policy.reads) == ("scanning", ("QA_WRITE",))
    policy.check(Outcome(result="done", detail="", posts=(Draft(to="planning", kind="Issue", text="x"),)), OWN)
    with pytest.raises(OutOfPolicyError, match="security may not send: Fix to 'planning'"):
        policy.check(Outcome(result="done", detail="", posts=(Draft(to="planning", kind="Fix", text="x"),)), OWN)


def test_the_package_offers_what_an_actor_needs_and_nothing_unknown() -> None:
    """Names are fetched on first use; a wrong one is an AttributeError like everywhere."""
    assert {getattr(actors, name).__name__ for name in actors.__all__} == set(actors.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Actor'"):
        _ = actors.Actor


class Tidy(PhaseActor):
    """Ends every text file with a newline, and asks QA."""

    async def perform(self, task: Task, context: Context) -> Outcome:
        tree = await context.checkout()
        (tree / "a.txt").write_text("a\n")
        (tree / "left_lying.txt").write_text("not named, so not committed")
        commit = await context.commit("End a.txt with a newline", ["a.txt"])
        again = await context.commit("Nothing more", ["a.txt"])
        context.say("fixing", 50, str(again))
        data = {"commit": commit, "files": ["a.txt"]}
        review = Draft(to="qa", kind="Review", text="a.txt", data=data)
        return Outcome(result="done", detail="tidied", posts=(review,), data=data)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_actor_changes_files_in_a_tree_of_its_own(tmp_path: Path) -> None:
    """The change is a commit that goes to QA with the outcome; the user's file stays as it is until QA approves."""
    (tmp_path / "a.txt").write_text("a")
    cycle = await rehearse(Tidy(), tmp_path, phase="tidy")
    assert (tmp_path / "a.txt").read_text() == "a"
    assert not (tmp_path / "left_lying.txt").exists()
    assert cycle.report.tree is not None
    assert Trees.open(tmp_path, tmp_path / ".supervisor").files(cycle.report.tree) == ("a.txt",)
    assert [(post.to, post.data["files"]) for post in cycle.posts] == [("qa", ["a.txt"])]
    assert [event["detail"] for event in cycle.events if event["step"] == "fixing"] == ["None"]


class Once(PhaseActor):
    """Is done for good after its first task."""

    async def perform(self, task: Task, context: Context) -> Outcome:
        context.retire()
        return Outcome(result="done", detail="once")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_rehearsal_says_whether_the_actor_retired(tmp_path: Path) -> None:
    """Its task is done all the same."""
    with anyio.fail_after(15):
        cycle = await rehearse(Once(), tmp_path)
    assert (cycle.retired, cycle.report.detail) == (True, "once")
    assert not (await rehearse(Tidy(), tmp_path, phase="tidy")).retired


class Wrong(PhaseActor):
    """Forgets to return something."""

    async def perform(self, task: Task, context: Context) -> Outcome:
        return None  # type: ignore[return-value]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_no_outcome_is_refused_by_name(tmp_path: Path) -> None:
    """The error says whose `perform` returned what; nothing was written."""
    with pytest.raises(OutOfPolicyError, match=r"Wrong\.perform returned None, not an Outcome"):
        await rehearse(Wrong(), tmp_path)
