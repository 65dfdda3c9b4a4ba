"""Whole runs in which a person edits the documents meanwhile: every edit counts, none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Gates, Run, Shop
from tests.e2e.test_flows import FEATURE, LINT, OBJECTIVE

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


def save(path: Path, text: str) -> None:
    """As an editor does it: a new file in the place of the old one."""
    draft = path.with_name(f".{path.name}.edited")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def taken_in(run: Run, name: str) -> None:
    run.until(lambda event: event["step"] == "imported" and name in event["detail"])


def test_a_feature_written_down_while_the_crew_runs(shop: Shop) -> None:
    """TERTIARY and PRIMARY edited during the run are taken up by Planning, implemented and delivered."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        tertiary, primary = (shop.root / "crew" / f"{name}_OBJECTIVES.md" for name in ("TERTIARY", "PRIMARY"))
        section = FEATURE.partition("# TERTIARY_OBJECTIVES\n")[2].replace("\n    ", "\n").strip()
        before = tertiary.read_text("utf-8")
        head, rule, foot = before.rpartition("\n---\n")
        save(tertiary, f"{head}\n{section}\n{rule}{foot}")
        before = primary.read_text("utf-8")
        assert "## Objectives\n" in before
        save(primary, before.replace("## Objectives\n", "## Objectives\n\n- [ ] A discount\n", 1))
        taken_in(run, "TERTIARY_OBJECTIVES")
        gates.open("qa")
        assert run.wait() == 0, run.told()
    assert "def discounted" in shop.read("shop/discount.py")
    assert "- [x] A discount" in shop.read("crew/PRIMARY_OBJECTIVES.md")
    shop.say("docs", "verify")


def test_a_task_added_by_hand_while_the_crew_runs(shop: Shop) -> None:
    """A line typed into a READ document is a task like any other: it gets an id, is worked on and answered."""
    gates = Gates(shop)
    gates.close("qa")
    with shop.watch() as run:
        gates.inside("qa")
        document = shop.root / "crew/DEVELOPER_READ.md"
        line = "- [ ] Priority: HIGH - Please paint the shop green"
        save(document, document.read_text("utf-8").replace("## Priority Tasks\n", f"## Priority Tasks\n\n{line}\n", 1))
        taken_in(run, "DEVELOPER_READ")
        gates.open("qa")
        assert run.wait() == 1, run.told()  # nobody here can paint: it waits for the user
    shown = [one for one in shop.read("crew/DEVELOPER_READ.md").splitlines() if "paint the shop green" in one]
    assert len(shown) == 1
    assert "<!-- id:" in shown[0]
    assert "(from User)" in shown[0]
    assert any("paint the shop green" in str(waiting) for waiting in shop.ask("inbox"))
    shop.say("docs", "verify")


def test_a_task_ticked_by_hand_while_the_crew_runs(shop: Shop) -> None:
    """The user's tick closes what nobody has begun; the work is not done, and the tick stays."""
    gates = Gates(shop)
    gates.close("developer")
    shop.write("crew/TERTIARY_OBJECTIVES.md", FEATURE)
    shop.write("crew/PRIMARY_OBJECTIVES.md", OBJECTIVE)
    with shop.watch() as run:
        gates.inside("developer")  # at work on the feature; what else it gets waits
        document = shop.root / "crew/DEVELOPER_READ.md"
        mine = "- [ ] Rename everything"
        save(document, document.read_text("utf-8").replace("## Priority Tasks\n", f"## Priority Tasks\n\n{mine}\n", 1))
        taken_in(run, "DEVELOPER_READ")
        run.until(lambda _: "Rename everything (from User) <!-- id:" in document.read_text("utf-8"))
        lines = document.read_text("utf-8").split("\n")
        changed = [one.replace("- [ ]", "- [x]") if "Rename everything" in one else one for one in lines]
        seen = len(run.events)
        save(document, "\n".join(changed))
        run.until(lambda e: e["step"] == "imported" and "DEVELOPER_READ" in e["detail"], after=seen)
        gates.open("developer")
        assert run.wait() == 0, run.told()
    (line,) = [one for one in shop.read("crew/DEVELOPER_READ.md").splitlines() if "Rename everything" in one]
    assert line.startswith("- [x]")
    assert not any("Rename" in str(record["data"]) for record in shop.records("claim"))
    assert "def discounted" in shop.read("shop/discount.py")
    shop.say("docs", "verify")


def test_free_text_survives_a_whole_run(shop: Shop) -> None:
    """What a person writes beside the tasks is byte for byte there afterwards, however often views are written."""
    shop.write("shop/cart.py", LINT.replace('"v" + "ip"', '"vip"'))
    notes = "Ünder no circumstances\n\ttouch this —  `ever`.\n\n* not a task\n"
    documents = [shop.root / "crew" / f"{name}_READ.md" for name in ("PLANNING", "DEVELOPER", "QA", "DEBUG")]
    for document in documents:
        save(document, document.read_text("utf-8").replace("## Notes\n", f"## Notes\n\n{notes}", 1))
    assert shop.run() == 0, shop.output
    for document in documents:
        assert notes in document.read_text("utf-8")
    shop.say("docs", "verify")
