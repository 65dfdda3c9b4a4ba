"""One cycle of the actor, over a small repository, with the fakes that come with `actors`: `pytest test_security.py`."""

from pathlib import Path

import anyio
from security import SecurityActor

from actors.testing import rehearse


def test_it_tells_planning_about_an_eval_and_a_secret(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text('API_KEY = "sk-1234567890"\n\ndef price(text):\n    return eval(text)\n')
    cycle = anyio.run(rehearse, SecurityActor(), tmp_path)
    assert cycle.report.detail == "2 risk(s), 2 of them new"
    assert [(post.to, post.kind, post.text) for post in cycle.posts] == [
        ("planning", "Issue", "shop.py:1: a secret in the code"),
        ("planning", "Issue", "shop.py:4: text that is run as code"),
    ]


def test_what_is_known_is_not_said_again(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("eval('1')\n")
    anyio.run(rehearse, SecurityActor(), tmp_path)
    cycle = anyio.run(rehearse, SecurityActor(), tmp_path)
    assert cycle.report.detail == "1 risk(s), 0 of them new"
    assert cycle.posts == ()
