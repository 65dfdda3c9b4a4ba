"""What a whole run shows: JSON lines, plain lines, the live view; and that both transports carry the same work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import LIMIT, Shop
from tests.e2e.test_flows import FEATURE, LINT, OBJECTIVE

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

KEYS: dict[str, type | tuple[type, ...]] = {
    "cursor": str,
    "worker": str,
    "epoch": int,
    "seq": int,
    "type": str,
    "phase": str,
    "step": str,
    "pct": int,
    "detail": str,
    "summary": dict,
    "data": (str, type(None)),
    "timestamp": float,
    "transport": str,
}


def test_json_lines(shop: Shop) -> None:
    """One object per event with the promised keys and types, in order, the same as `events --json` gives later."""
    with shop.watch() as run:
        assert run.wait() == 0, run.told()
    assert run.events
    for event in run.events:
        assert {key: type(event[key]) for key in KEYS if not isinstance(event[key], KEYS[key])} == {}
        assert event["transport"] in {"queue", "stdout", "spool", "supervisor"}
    assert run.events == shop.events()
    assert run.events[-1]["step"] == "end"
    assert run.events[-1]["summary"] == {"exit": 0}
    assert [event["step"] for event in run.events].count("begin") == 1
    assert shop.ask("report")["runs"] == 1


def test_plain_lines(shop: Shop) -> None:
    """Lines of time, phase and words, without control characters; the summary at the end."""
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")
    assert shop.run() == 0, shop.output
    lines = shop.output.splitlines()
    told = [
        line for line in lines if re.match(r"\d\d:\d\d:\d\d (Planning|Developer|QA|Debugging|Supervisor) +\S", line)
    ]
    assert len(told) > 10
    assert any("F401" in line for line in told)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shop.output)
    assert told != lines
    after = lines[lines.index(told[-1]) + 1 :]
    assert any("approved" in line.lower() for line in after)


@pytest.mark.only_on("posix", reason="tmux shows a terminal's screen")
def test_the_live_view(shop: Shop) -> None:
    """In a terminal of 80 columns a row per phase stands still, nothing is torn, and the summary ends it."""
    tmux = shutil.which("tmux")
    if tmux is None:
        pytest.skip("needs tmux to read a terminal's screen")
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")
    socket = str(shop.root.parent / "tmux")
    command = f"{sys.executable} -m supervisor run --until-idle; echo ended-with-$?; sleep 600"

    def screen() -> str:
        shown = [tmux, "-S", socket, "capture-pane", "-p", "-S", "-200", "-t", "run"]
        return subprocess.run(shown, capture_output=True, text=True, check=True).stdout

    begin = [tmux, "-S", socket, "-f", "/dev/null", "-u", "new-session", "-d", "-s", "run", "-x", "80", "-y", "30"]
    subprocess.run([*begin, command], cwd=shop.root, env={**shop.environ, "LC_ALL": "C.UTF-8"}, check=True)
    try:
        working = wait_for(
            screen, lambda shown: all(name in shown for name in ("Planning", "Developer", "QA", "Debug"))
        )
        assert "Phase Supervisor" in working
        ended = wait_for(screen, lambda shown: "ended-with-" in shown)
    finally:
        subprocess.run([tmux, "-S", socket, "kill-server"], check=False)
    assert "ended-with-0" in ended
    assert max(len(line) for line in ended.splitlines()) <= 80
    assert "�" not in ended
    assert "\x1b" not in ended
    assert ended.count("Summary") == 1
    assert ended.count("Phase Supervisor") == 1  # one frame is left, not a trail of them
    frame = ended[: ended.index("Summary")]
    for name in ("Planning", "Developer", "QA", "Debugging"):
        assert name in frame


def wait_for(look: Callable[[], str], is_there: Callable[[str], bool]) -> str:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        shown = look()
        if is_there(shown):
            return shown
        time.sleep(0.05)
    raise AssertionError(look())


def comparable(path: Path) -> list[str]:
    """A document's lines without times, ids and revisions; sorted, because phases running free take turns freely."""
    text = re.sub(r"<!-- .*? -->|\d{4}-\d\d-\d\dT[\d:.]+Z|in \d+\.\d s", "", path.read_text(encoding="utf-8"))
    return sorted({line.strip() for line in text.splitlines()})


def test_both_transports_carry_the_same_work(new_shop: Callable[[str], Shop]) -> None:
    """Queue and stdout: the same files, the same work done, strategic documents alike, each event by its transport."""
    shops = {"queue": new_shop("queue"), "stdout": new_shop("stdout")}
    for mode, shop in shops.items():
        shop.write("shop/cart.py", LINT.replace('"v" + "ip"', '"vip"'))
        shop.write("crew/TERTIARY_OBJECTIVES.md", FEATURE)
        shop.write("crew/PRIMARY_OBJECTIVES.md", OBJECTIVE)
        assert shop.run("--use-stdout" if mode == "stdout" else "--use-queue-ipc") == 0, shop.output
        used = {event["transport"] for event in shop.events()}
        assert used == {mode, "supervisor"}
        shop.say("docs", "verify")
    queue, stdout = shops.values()
    assert queue.files() == stdout.files()
    for name in ("MASTER_PLAN", "PRIMARY_OBJECTIVES", "SECONDARY_OBJECTIVES", "TERTIARY_OBJECTIVES", "ARCHITECTURE"):
        assert comparable(queue.root / f"crew/{name}.md") == comparable(stdout.root / f"crew/{name}.md")
    done = [
        {(e["phase"], e["summary"]["result"]) for e in shop.events() if e["type"] == "phase_complete"}
        for shop in shops.values()
    ]
    assert done[0] == done[1]
