"""How a running crew looks."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from supervisor.console import JsonView, LiveView, PlainView, View, export_svg, render, summary_panel, view_for
from supervisor.exits import Exit
from supervisor.options import Show
from supervisor.status import CrewStatus, PhaseStatus, Summary, Waiting
from supervisor.wording import brief, clean, clock, duration, plain_summary, told


@dataclass
class Event:
    type: str = "progress"
    phase: str = "qa"
    step: str = "reviewing"
    pct: int = 0
    detail: str = ""
    timestamp: float = 1_760_000_000.0

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


HOSTILE = "[bold red]x[/] [/nothing] \x1b[2J\x1b]0;owned\x07 \u202egnp.exe \x9b31m a\rb :smile: \u2028"
CREW = CrewStatus(
    workspace="/home/alex/alerts",
    pid=42,
    phases={
        "planning": PhaseStatus(title="Planning", state="ready", epoch=1, mode="queue"),
        "developer": PhaseStatus(
            title="Developer",
            state="working",
            epoch=2,
            mode="queue",
            step="implementing",
            pct=40,
            text="Implement: a daily digest of alerts, grouped by severity and sent by e-mail",
            restarts=1,
        ),
        "qa": PhaseStatus(title="QA", state="working", mode="stdout", step="reviewing", pct=75, text=HOSTILE),
        "debugging": PhaseStatus(title="Debugging", state="quarantined", detail="3 deaths on one task", restarts=3),
    },
    queue_depth=1,
    queue_capacity=1000,
    counters={"events": 812},
    head=57,
)
RECENT = [
    Event("finding", "qa", detail="F401 in alerts/rules.py"),
    Event("phase_error", "debugging", "error", 0, HOSTILE),
]
SUMMARY = Summary(
    found=("F401 unused import", HOSTILE),
    fixed=("F401 unused import",),
    waiting=(
        Waiting(
            id="m12",
            what="blocked",
            phase="debugging",
            kind="Fix",
            priority="HIGH",
            text="threshold",
            request="Decide whether >= or >",
            since="",
        ),
    ),
    delivered=("alerts/rules.py",),
    open=1,
    restarts=1,
)


def shown(renderable: Any, *, width: int = 80, encoding: str = "utf-8") -> str:
    data = io.BytesIO()
    file = io.TextIOWrapper(data, encoding=encoding, errors="replace", newline="\n")
    Console(file=file, width=width, force_terminal=False, highlight=False, legacy_windows=False).print(renderable)
    file.flush()
    return data.getvalue().decode(encoding)


def controls(text: str) -> set[str]:
    return {char for char in text if ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2028"} - {"\n"}


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_shows_what_a_person_needs(width: int) -> None:
    """Per phase: state or step, task, percentage, restarts, mode; below: events, time, record."""
    text = shown(render(CREW, RECENT, 75), width=width)
    for fact in (
        "Planning",
        "ready",
        "implementing",
        "Implement: a daily",
        "40 %",
        "stdout",
        "quarantined",
        "3 deaths on one task",
        "F401 in alerts/rules.py",
        "1:15",
        "record 57",
        "queue 1/1000",
        "alerts",
    ):
        assert fact in text, fact
    developer = next(line for line in text.split("\n") if "Developer" in line)
    assert re.search(r"40 %\s+1\s+queue", developer)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 99, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Nothing wraps, at whatever size; each line ends where the frame ends."""
    lines = shown(render(CREW, RECENT, 75), width=width).rstrip("\n").split("\n")
    assert {len(line) for line in lines} == {width}
    assert len(lines) == 1 + 1 + 4 + 1 + 2 + 1


def test_text_of_messages_is_never_markup_or_an_escape() -> None:
    """Brackets are shown as they are, control and direction characters never get out."""
    for text in (shown(render(CREW, RECENT, 75), width=200), shown(summary_panel(SUMMARY), width=200)):
        assert "[bold red]x[/] [/nothing]" in text
        assert ":smile:" in text
        assert not controls(text)


def test_a_console_without_unicode_gets_letters() -> None:
    """Frame and glyphs fall back; nothing fails."""
    text = shown(render(CREW, [], 75), encoding="ascii")
    assert "* Developer" in text
    assert "X Debugging" in text
    assert "●" not in text
    assert text.startswith("+-")


def test_the_summary_says_what_was_found_what_waits_and_where_to_read() -> None:
    """The boxed and the plain one tell the same."""
    boxed = re.sub(r"[\s│]+", " ", shown(summary_panel(SUMMARY), width=120))
    plain = re.sub(r"\s+", " ", "\n".join(plain_summary(SUMMARY)))
    for text in (boxed, plain):
        for fact in (
            "one thing waits for you",
            "Found (2)",
            "Fixed (1)",
            "m12 debugging: threshold",
            "Decide whether >= or >",
            "alerts/rules.py",
            "supervisor answer m12",
            "QA_WRITE.md",
            "once",
        ):
            assert fact in text, fact


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        (Summary(exit=Exit.DONE), "Done, and approved by QA."),
        (Summary(exit=Exit.INTERRUPTED), "Interrupted"),
        (Summary(unapproved=2), "QA has not approved everything"),
        (Summary(open=3), "3 tasks are open"),
        (Summary(paused=("qa",)), "qa paused"),
        (Summary(given_up=("qa",)), "qa given up"),
    ],
)
def test_the_first_line_of_the_summary_is_the_verdict(summary: Summary, says: str) -> None:
    """One sentence, by outcome."""
    assert says in plain_summary(summary)[1]


def test_a_long_list_is_cut_in_the_box_with_a_count() -> None:
    """The box stays readable; the plain summary has them all."""
    many = Summary(found=tuple(f"finding {n}" for n in range(30)))
    assert "… and 22 more" in shown(summary_panel(many))
    assert "finding 29" in "\n".join(plain_summary(many))


@given(st.text())
def test_cleaned_text_is_one_harmless_line(text: str) -> None:
    """Whatever comes in; and what was harmless already stays as it is."""
    result = clean(text)
    assert not controls(result)
    assert "\n" not in result
    assert clean(result) == result
    if text.isprintable():
        assert result == text


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), -1e300, 1e300])
def test_a_timestamp_that_is_none_is_dashes(timestamp: float) -> None:
    """An event may say anything."""
    assert clock(timestamp) == "--:--:--"


def test_a_brief_text_is_the_beginning_of_its_first_line() -> None:
    """Cut to measure, with the cut shown, and harmless."""
    assert brief("\n one\x1b two\nthree", 80) == "one\N{REPLACEMENT CHARACTER} two"
    assert brief("a" * 80) == "a" * 80
    assert brief("a" * 81) == "a" * 79 + "…"


def test_durations_are_short() -> None:
    """From seconds to a week."""
    assert [duration(s) for s in (-1, 4.8, 65, 3_725, 7 * 86_400 + 250 * 60)] == [
        "0 s",
        "5 s",
        "1:05",
        "1:02:05",
        "7 d 04:10",
    ]


def test_events_are_told_in_words() -> None:
    """Type or step, percentage, detail."""
    assert told(Event(pct=40, detail="x")) == "reviewing 40 % x"
    assert told(Event("finding", detail="F401")) == "found F401"
    assert told(Event("worker_exit", detail="-9")) == "worker exit -9"


async def events(*many: Event) -> AsyncIterator[Event]:
    for one in many:
        await anyio.lowlevel.checkpoint()
        yield one


def status() -> CrewStatus:
    return CREW


STORY = (
    Event("phase_start", step="reviewing", detail="Review rules.py"),
    Event(pct=10),
    Event(pct=50),
    Event("audit_complete"),
    Event("finding", detail=HOSTILE),
    Event("progress", step="done", pct=100),
)


@pytest.mark.anyio
async def test_the_plain_view_tells_the_news() -> None:
    """A line per event, but one only for the progress of a step; with -v all of them."""
    out = io.StringIO()
    view = PlainView(out)
    await view.show(events(*STORY), status)
    view.close(SUMMARY)
    lines = out.getvalue().split("\n")
    assert [line.split(maxsplit=2)[2][:20].strip() for line in lines[:4]] == [
        "starts Review rules.",
        "reviewing 10 %",
        "found [bold red]x[/]",
        "done 100 %",
    ]
    assert "Found (2):" in lines
    assert not controls(out.getvalue())
    everything = io.StringIO()
    await PlainView(everything, verbose=1).show(events(*STORY), status)
    assert everything.getvalue().count("\n") == len(STORY)


@pytest.mark.anyio
async def test_the_json_view_prints_one_object_per_event_and_nothing_else() -> None:
    """What reads it can parse every line."""
    out = io.StringIO()
    view = JsonView(out)
    await view.show(events(*STORY), status)
    view.close(SUMMARY)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [one.as_json() for one in STORY]


@pytest.mark.anyio
@pytest.mark.parametrize("show", ["plain", "json", "live"])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
async def test_a_reader_that_goes_away_does_not_end_the_run(show: Show, after: int, number: int) -> None:
    """A closed pipe, a terminal that is gone, a full disk: every event is still taken, and nothing raised."""

    class Gone(io.StringIO):
        written = 0

        def write(self, text: str) -> int:
            self.written += 1
            if self.written > after:
                raise OSError(number, os.strerror(number))
            return len(text)

    taken = []

    async def counted() -> AsyncIterator[Event]:
        async for event in events(*STORY):
            taken.append(event)
            yield event

    view = view_for(show, out=Gone())
    await view.show(counted(), status)
    view.close(SUMMARY)
    assert len(taken) == len(STORY)


@pytest.mark.anyio
async def test_the_live_view_draws_and_leaves_its_last_frame() -> None:
    """The frame at the end shows the last events; then comes the summary."""
    out = io.StringIO()
    view = LiveView(Console(file=out, force_terminal=True, width=100, height=30, color_system=None))
    await view.show(events(*STORY), status)
    view.close(SUMMARY)
    text = out.getvalue()
    assert text.rindex("found [bold red]") < text.rindex("Not finished")
    assert "\x1b]0;owned" not in text
    assert "\x1b[2J" not in text


@pytest.mark.anyio
async def test_a_cancelled_live_view_gives_the_terminal_back() -> None:
    """The cursor is shown again, whatever ended the run."""

    async def endless() -> AsyncIterator[Event]:
        yield STORY[0]
        await anyio.sleep_forever()

    out = io.StringIO()
    view = LiveView(Console(file=out, force_terminal=True, width=100, height=30))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.show, endless(), status)
        while "starts Review" not in out.getvalue():  # noqa: ASYNC110 - it writes from a thread
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_without_a_terminal_it_is_plain() -> None:
    """Automatically; each other view is there by name."""
    views: list[View] = [view_for(show, out=io.StringIO()) for show in ("auto", "plain", "json", "live")]
    assert [type(view) for view in views] == [PlainView, PlainView, JsonView, LiveView]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR turns the colours off, as everywhere."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    view = view_for("live", out=io.StringIO())
    assert isinstance(view, LiveView)
    assert view._console.no_color


def test_the_picture_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    """An SVG that is valid XML, and shows the crew without a font from elsewhere."""
    path = tmp_path / "live.svg"
    export_svg(path, CREW, RECENT, 75)
    picture = path.read_text("utf-8")
    assert ET.fromstring(picture).tag.endswith("svg")
    assert "Developer" in picture
    assert "url(http" not in picture
    assert 'url("http' not in picture
    before = picture
    export_svg(path, CREW, RECENT, 75)
    assert path.read_text("utf-8") == before
