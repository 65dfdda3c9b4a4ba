"""A phase of the user's own, as a stranger adds one: the example copied into a repository, configured, trusted, run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Shop

pytestmark = [pytest.mark.timeout(200)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "security_actor"


TOLD = """
[notify]
command = [{python}, "-c", "import sys; open('told.jsonl', 'a').write(sys.stdin.read().strip() + chr(10))"]
"""


def add(shop: Shop, text: str) -> None:
    shop.write("supervisor.toml", shop.read("supervisor.toml") + text)


def test_the_example_reports_to_planning_and_the_rest_of_the_crew_takes_it_up(shop: Shop) -> None:
    """Trust comes first; documents are made, the finding is a known issue, the user is told and has it in the inbox."""
    shutil.copy(EXAMPLE / "security.py", shop.root)
    shop.write("shop/price.py", "def price(text: str) -> object:\n    return eval(text)\n")
    add(shop, (EXAMPLE / "supervisor.toml").read_text() + TOLD.format(python=json.dumps(sys.executable)))
    assert shop.run() == 78
    assert "phases.security.actor = security:SecurityActor" in shop.output
    assert "supervisor trust" in shop.output
    assert not (shop.root / "crew" / "SECURITY_READ.md").exists()
    shop.say("trust")
    assert shop.run() == 1, shop.output  # something waits for a person
    reported = shop.read("crew/SECURITY_WRITE.md")
    assert "Assess: Look at the repository as it is now. - 1 risk(s), 1 of them new" in reported
    assert "- [x] Assess:" in shop.read("crew/SECURITY_READ.md")
    assert "Issue: shop/price.py:2: text that is run as code (from Security)" in shop.read("crew/PLANNING_READ.md")
    known = shop.read("crew/SECONDARY_OBJECTIVES.md").split("## Known Issues")[1].split("\n## ")[0]
    assert "shop/price.py:2: text that is run as code" in known
    inbox = shop.ask("inbox")
    assert ["shop/price.py:2: text that is run as code" in one["text"] for one in inbox] == [True]
    told = [json.loads(line) for line in shop.read("told.jsonl").splitlines()]
    assert [inbox[0]["id"] in json.dumps(notice) for notice in told] == [True]
    assert {event["phase"] for event in shop.events() if event["step"] == "scanning"} == {"security"}
    assert shop.ask("status", check=False)["phases"]["security"]["restarts"] == 0

    assert shop.run() == 1  # nothing is said twice
    assert len(shop.ask("inbox")) == 1
    assert "1 risk(s), 0 of them new" in shop.read("crew/SECURITY_WRITE.md")


def test_a_wrong_actor_ends_the_run_before_anything_starts(shop: Shop) -> None:
    """Exit 78 with phase, key, line and reason; no worker was started, nothing was posted."""
    before = shop.records()
    add(shop, '\n[phases.security]\nactor = "security:SecurityActor"\n')
    shop.say("trust")
    assert shop.run() == 78
    said = re.search(r"line (\d+): phases\.security\.actor: there is no module 'security'", shop.output)
    assert said is not None, shop.output
    assert shop.read("supervisor.toml").splitlines()[int(said[1]) - 1] == 'actor = "security:SecurityActor"'
    assert shop.records() == before
    assert not (shop.root / ".supervisor" / "journal.db").exists()


@pytest.mark.slow
def test_a_class_in_the_place_of_one_of_the_four(shop: Shop) -> None:
    """`[phases.debugging] actor = …` does the work of that phase, with its documents, rights and policy."""
    shop.write(
        "mine.py",
        """
        from actors import Context, Draft, Outcome, PhaseActor, Task


        class Mine(PhaseActor):
            async def perform(self, task: Task, context: Context) -> Outcome:
                said = f"{context.options['greeting']}, {task.message.text}"
                return Outcome(result="done", detail=said)
        """,
    )
    add(shop, '\n[phases.debugging.options]\ngreeting = "hello"\n')
    toml = shop.read("supervisor.toml").replace("[phases.debugging]", '[phases.debugging]\nactor = "mine:Mine"')
    shop.write("supervisor.toml", toml)
    shop.say("trust")
    shop.say("task", "look at this", "--to", "debugging")
    assert shop.run() == 0, shop.output
    assert "hello, look at this" in shop.read("crew/DEBUG_WRITE.md")


def test_the_examples_own_tests_pass(tmp_path: Path) -> None:
    """As its README says: pytest in its folder."""
    copy = shutil.copytree(EXAMPLE, tmp_path / "security_actor")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(copy), "-c", os.devnull],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
