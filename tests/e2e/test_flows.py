"""The three flows of the crew, each with four real worker processes, as a user sees them in the documents."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Shop

pytestmark = [pytest.mark.timeout(200)]

LINT = '''
    """What is in the cart, and what it costs."""

    import json


    def total(prices: list[int]) -> int:
        return sum(prices)


    def is_vip(kind: str) -> bool:
        return kind is "v" + "ip"
'''


def test_a_quiet_project_ends_at_once_and_is_approved(shop: Shop) -> None:
    """Nothing to do is done and approved: exit 0, and the history verifies."""
    assert shop.run() == 0, shop.output
    shop.say("docs", "verify")
    assert shop.ask("inbox") == []
    assert "1 passed" in shop.read("crew/QA_WRITE.md")


@pytest.mark.slow
def test_issue_reporting(shop: Shop) -> None:
    """A finding goes QA → Planning → Debugging → Planning → QA, is fixed, verified and delivered."""
    shop.write("shop/cart.py", LINT.replace('"v" + "ip"', '"vip"'))
    shop.write(
        "tests/test_vip.py",
        """
        from shop.cart import is_vip


        def test_a_vip_is_known_by_its_letters():
            assert is_vip("VIP".lower())
        """,
    )
    assert shop.run() == 0, shop.output
    cart = shop.read("shop/cart.py")
    assert "import json" not in cart
    assert 'kind == "vip"' in cart
    secondary = shop.read("crew/SECONDARY_OBJECTIVES.md")
    known = secondary.split("## Known Issues")[1].split("\n## ")[0]
    assert "- [x] " in known
    assert "- [ ] " not in known
    assert "Issue:" in shop.read("crew/PLANNING_READ.md")
    assert "(from QA)" in shop.read("crew/DEBUG_READ.md")
    assert "Verify:" in shop.read("crew/QA_READ.md")
    assert "(from Debugging)" in shop.read("crew/QA_READ.md")
    assert "Fixed:" in shop.read("crew/PLANNING_READ.md")
    assert "Approved:" in shop.read("crew/PLANNING_READ.md")
    assert "fixed" in shop.read("crew/DEBUG_WRITE.md")
    assert {change["state"] for change in shop.ask("changes")} == {"delivered"}


FEATURE = """
    # TERTIARY_OBJECTIVES

    ## A discount

    Ten per cent off from 100 on.

    ```python file=shop/discount.py
    def discounted(total: int) -> int:
        return total * 9 // 10 if total >= 100 else total
    ```

    ```python file=tests/test_discount.py
    from shop.discount import discounted


    def test_discounted():
        assert discounted(100) == 90
        assert discounted(99) == 99
    ```
"""
OBJECTIVE = """
    # PRIMARY_OBJECTIVES

    ## Objectives

    - [ ] A discount
"""


@pytest.mark.slow
def test_feature(shop: Shop) -> None:
    """What TERTIARY spells out goes Planning → Developer → QA, is approved, delivered, and an achievement."""
    shop.write("crew/TERTIARY_OBJECTIVES.md", FEATURE)
    shop.write("crew/PRIMARY_OBJECTIVES.md", OBJECTIVE)
    assert shop.run() == 0, shop.output
    assert "def discounted" in shop.read("shop/discount.py")
    assert "- [x] A discount" in shop.read("crew/PRIMARY_OBJECTIVES.md")
    assert "A discount" in shop.read("crew/MASTER_PLAN.md").split("## Achievements")[1]
    assert "Implement:" in shop.read("crew/DEVELOPER_READ.md")
    assert "Review:" in shop.read("crew/QA_READ.md")
    assert "Approved: A discount" in shop.read("crew/PLANNING_READ.md")


BROKEN = '''
    """What is in the cart, and what it costs."""


    def total(prices: list[int]) -> int:
        return sum(prices) - 1
'''
ANSWER = """Do it like this:

```diff
--- a/shop/cart.py
+++ b/shop/cart.py
@@ -4,2 +4,2 @@
 def total(prices: list[int]) -> int:
-    return sum(prices) - 1
+    return sum(prices)
```
"""


@pytest.mark.slow
def test_blocker(shop: Shop) -> None:
    """What nobody can decide is a blocker with a clear request; the user's answer resolves it, in the next run."""
    shop.write("shop/cart.py", BROKEN)
    assert shop.run() == 1, shop.output
    (waiting,) = shop.ask("inbox")
    assert waiting["phase"] == "planning"
    assert "start at shop/cart.py:" in waiting["request"]
    assert "Blocked:" in shop.read("crew/SECONDARY_OBJECTIVES.md")
    assert "test_total" in shop.read("crew/DEVELOPER_WRITE.md").split("## Blockers")[1].split("\n## ")[0]
    assert "return sum(prices) - 1" in shop.read("shop/cart.py")

    shop.say("answer", waiting["id"], ANSWER)
    assert shop.run() == 0, shop.output
    assert "return sum(prices)\n" in shop.read("shop/cart.py")
    assert "Resolved:" in shop.read("crew/PLANNING_READ.md")
    assert shop.ask("inbox") == []


@pytest.mark.slow
def test_what_was_delivered_can_be_taken_back(shop: Shop) -> None:
    """`undo` removes a delivered change from the user's files through the same door."""
    shop.write("crew/TERTIARY_OBJECTIVES.md", FEATURE)
    assert shop.run() == 0, shop.output
    (change,) = shop.ask("changes")
    shop.say("undo", change["task"])
    assert not (shop.root / "shop/discount.py").exists()
    (change,) = shop.ask("changes")
    assert change["state"] == "taken back"
