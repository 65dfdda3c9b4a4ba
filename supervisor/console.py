"""How a running crew looks in a terminal: the live view, plain lines, JSON lines, and the closing summary.

`render` and `summary_panel` are pure: values in, something rich can print out. A view reads the journal's events at
its own pace; writing happens in a thread, because a terminal can be paused (Ctrl-S) and the crew must not be. All
text that came from messages goes through `clean` and is never taken for markup.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

import anyio
import anyio.to_thread
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .options import Show
from .status import CrewStatus, PhaseState, PhaseStatus, ShownEvent, Summary, first_line
from .wording import (
    clean,
    clock,
    duration,
    plain_summary,
    shortened,
    summary_footer,
    summary_lines,
    title_of,
    told,
    verdict_line,
)

FRAME: Final = 0.1  # seconds between two looks at whether there is something new to draw
RECENT: Final = 12  # events kept for the live view
LONGEST: Final = 300  # characters of a plain line; -vv shows all
TIGHT: Final = 60  # columns below which only phase and task are shown
NARROW: Final = 100  # columns below which the table leaves the state's word to the glyph and the text

# state → (glyph, the same in ASCII, style)
LOOKS: Final[Mapping[PhaseState, tuple[str, str, str]]] = {
    "starting": ("◌", "~", "cyan"),
    "ready": ("○", "-", "green"),
    "working": ("●", "*", "bold green"),
    "backoff": ("◔", "~", "yellow"),
    "paused": ("‖", "=", "yellow"),
    "blocked": ("◆", "!", "bold yellow"),
    "stopping": ("◌", "~", "dim"),
    "stopped": ("·", ".", "dim"),
    "ended": ("■", "#", "dim"),
    "quarantined": ("✕", "X", "bold red"),
}
STYLES: Final[Mapping[str, str]] = {
    "phase_complete": "green",
    "phase_error": "red",
    "finding": "yellow",
}
# Nobody can read it any more: the pipe or terminal is gone, its disk is full, the file is closed. The crew goes on.
UNSHOWABLE: Final = (OSError, ValueError)
QUIET: Final = frozenset({"audit_complete", "log_entry"})  # shown with -v only


def render(
    status: CrewStatus, recent: Sequence[ShownEvent], elapsed: float, *, ascii_only: bool | None = None
) -> RenderableType:
    """The live view: a row per phase, recent events, a line of figures. `elapsed` in seconds.

    `ascii_only` None lets the console's encoding decide.
    """
    return _CrewView(status, tuple(recent), elapsed, ascii_only)


@dataclass(frozen=True, slots=True)
class _CrewView:
    """Decides when it is printed, because only then width, height and encoding are known."""

    status: CrewStatus
    recent: tuple[ShownEvent, ...]
    elapsed: float
    ascii_only: bool | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only if self.ascii_only is None else self.ascii_only
        wide = options.max_width >= NARROW
        tight = options.max_width < TIGHT
        parts: list[RenderableType] = [self._table(wide=wide, tight=tight, plain=plain)]
        height = console.size.height if console.is_terminal else 40
        room = max(0, min(RECENT, height - len(self.status.phases) - 7))
        shown = self.recent[-room:] if room else ()
        if shown:
            parts += [Text(), *(self._line(event) for event in shown)]
        head = Text.assemble(("Phase Supervisor", "bold"), "  ", (clean(shortened(self.status.workspace, 48)), "dim"))
        yield Panel(
            Group(*parts),
            box=ROUNDED,
            title=head,
            title_align="left",
            subtitle=self._footer(plain=plain),
            subtitle_align="left",
            border_style="dim",
            padding=(0, 1),
        )

    def _table(self, *, wide: bool, tight: bool, plain: bool) -> Table:
        table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("", width=1)
        table.add_column("Phase", no_wrap=True, min_width=9)
        if wide:
            table.add_column("State", no_wrap=True, width=11)
        table.add_column("Task", ratio=1, no_wrap=True, overflow="ellipsis")
        if tight:
            for phase in self.status.phases.values():
                glyph, letter, style = LOOKS[phase.state]
                doing = _doing(phase, style, wide=False, plain=plain)
                table.add_row(Text(letter if plain else glyph, style=style), Text(clean(phase.title)), doing)
            return table
        table.add_column("Progress", width=16 if wide else 10, no_wrap=True)
        table.add_column("", width=5, justify="right", no_wrap=True)
        table.add_column("Restarts" if wide else ("R" if plain else "↻"), justify="right", no_wrap=True)
        table.add_column("Via", width=6, no_wrap=True)
        for phase in self.status.phases.values():
            glyph, letter, style = LOOKS[phase.state]
            working = phase.state == "working"
            row: list[RenderableType] = [Text(letter if plain else glyph, style=style), Text(clean(phase.title))]
            if wide:
                row.append(Text(phase.state, style=style))
            row += [
                _doing(phase, style, wide=wide, plain=plain),
                ProgressBar(total=100, completed=_percent(phase.pct)) if working else Text(),
                Text(f"{_percent(phase.pct)} %" if working else ""),
                Text(str(phase.restarts) if phase.restarts else "", style="yellow"),
                Text(clean(phase.mode), style="dim" if phase.mode == "queue" else "yellow"),
            ]
            table.add_row(*row)
        return table

    def _line(self, event: ShownEvent) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(clock(event.timestamp), style="dim")
        line.append(f" {title_of(event.phase, self.status):<10} ", style="cyan")
        line.append(told(event), style=STYLES.get(event.type, ""))
        return line

    def _footer(self, *, plain: bool) -> Text:
        status = self.status
        gap = " | " if plain else " · "
        parts = [duration(self.elapsed), f"record {status.head}"]
        if status.queue_capacity:
            parts.append(f"queue {status.queue_depth}/{status.queue_capacity}")
        parts += [f"{clean(name)} {count}" for name, count in status.counters.items() if count][:3]
        if status.dirty:
            parts.append(f"{clean(', '.join(status.dirty))} {'lags' if len(status.dirty) == 1 else 'lag'} behind")
        return Text(gap.join(parts), style="dim")


def _doing(phase: PhaseStatus, style: str, *, wide: bool, plain: bool) -> Text:
    """What the phase is at: the step and the task's first line, or its state and the reason for it."""
    cell = Text(no_wrap=True, overflow="ellipsis")
    between = " - " if plain else " · "
    words = phase.step if phase.state == "working" and phase.step else "" if wide else phase.state
    if words:
        cell.append(clean(words), style=style)
    text = clean(first_line(phase.text)) if phase.state == "working" else clean(phase.detail)
    if text:
        cell.append((between if words else "") + text)
    return cell


def _percent(pct: int) -> int:
    return max(0, min(100, pct))


def summary_panel(summary: Summary, *, most: int = 8) -> RenderableType:
    """The closing summary; of each list the first `most` lines."""
    good = summary.exit == 0
    parts: list[RenderableType] = [Text(verdict_line(summary), style="bold green" if good else "bold yellow")]
    for heading, lines in summary_lines(summary):
        parts.append(Text(heading, style="bold"))
        whole = heading.startswith("Waiting")  # what is asked of the user is not cut
        parts += [Text(f"  {line}", no_wrap=not whole, overflow="ellipsis") for line in lines[:most]]
        if len(lines) > most:
            parts.append(Text(f"  … and {len(lines) - most} more", style="dim"))
    parts += [Text(), *(Text(line, style="dim") for line in summary_footer(summary))]
    return Panel(Group(*parts), box=ROUNDED, title="Summary", title_align="left", border_style="dim")


class View(Protocol):
    """Shows a run. `show` returns when the events end; it may be cancelled. `close` is called once, last."""

    async def show(self, events: AsyncIterator[ShownEvent], status: Callable[[], CrewStatus]) -> None: ...

    def close(self, summary: Summary) -> None: ...


class News:
    """Tells news from progress inside a step, which moves the bar and is no more than that; `verbose` takes all."""

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose
        self._steps: dict[str, str] = {}

    def is_news(self, event: ShownEvent) -> bool:
        if self._verbose:
            return True
        if event.type != "progress":
            return event.type not in QUIET
        before = self._steps.get(event.phase)
        self._steps[event.phase] = event.step
        return event.step != before


class Terminal(Console):
    """rich's console; a pipe that its reader has closed ends what is shown, not the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class LiveView:
    """The rich live view of a terminal."""

    def __init__(self, console: Console, *, verbose: int = 0) -> None:
        self._console = console
        self._news = News(verbose)
        self._recent: deque[ShownEvent] = deque(maxlen=RECENT)
        self._arrived = 0

    async def show(self, events: AsyncIterator[ShownEvent], status: Callable[[], CrewStatus]) -> None:
        began = anyio.current_time()
        live = Live(console=self._console, auto_refresh=False, transient=False)
        with suppress(*UNSHOWABLE):
            live.start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._draw, live, status, began)
                async for event in events:
                    self._arrived += 1
                    if self._news.is_news(event):
                        self._recent.append(event)
                tasks.cancel_scope.cancel()
        finally:
            with suppress(*UNSHOWABLE):
                live.update(render(status(), self._recent, anyio.current_time() - began), refresh=True)
            with suppress(*UNSHOWABLE):
                live.stop()

    async def _draw(self, live: Live, status: Callable[[], CrewStatus], began: float) -> None:
        drawn: object = None
        width = self._console.width
        while True:
            now = status()
            elapsed = anyio.current_time() - began
            wanted = (now, self._arrived, int(elapsed if elapsed < 600 else elapsed / 10))
            if wanted != drawn:
                drawn = wanted
                try:
                    if self._console.width != width:  # the terminal has re-wrapped our lines: begin on a clean page
                        width = self._console.width
                        self._console.clear()
                    live.update(render(now, list(self._recent), elapsed))
                    await anyio.to_thread.run_sync(live.refresh, abandon_on_cancel=True)
                except UNSHOWABLE:
                    return
            await anyio.sleep(FRAME)

    def close(self, summary: Summary) -> None:
        with suppress(*UNSHOWABLE):
            self._console.print(summary_panel(summary))


class PlainView:
    """Readable lines for logs and pipes: time, phase, what happened."""

    def __init__(self, out: IO[str], *, verbose: int = 0) -> None:
        self._out = _Out(out)
        self._news = News(verbose)
        self._verbose = verbose

    async def show(self, events: AsyncIterator[ShownEvent], status: Callable[[], CrewStatus]) -> None:
        async for event in events:
            if self._news.is_news(event):
                title = title_of(event.phase, status())
                words = told(event)
                if len(words) > LONGEST and self._verbose < 2:
                    words = f"{words[: LONGEST - 1]}…"
                await self._out.line(f"{clock(event.timestamp)} {title:<10} {words}".rstrip())

    def close(self, summary: Summary) -> None:
        self._out.lines(plain_summary(summary))


class JsonView:
    """One JSON object per event, with SPEC §6's keys; the summary is the exit code."""

    def __init__(self, out: IO[str]) -> None:
        self._out = _Out(out)

    async def show(self, events: AsyncIterator[ShownEvent], status: Callable[[], CrewStatus]) -> None:  # noqa: ARG002 - View's
        async for event in events:
            await self._out.line(json.dumps(event.as_json()))

    def close(self, summary: Summary) -> None:
        """Nothing: what reads this expects events only."""


class _Out:
    """Lines to a stream that may be closed by its reader or not know all characters; neither ends the run."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._is_open = True

    async def line(self, text: str) -> None:
        await anyio.to_thread.run_sync(self.lines, [text], abandon_on_cancel=True)

    def lines(self, texts: Sequence[str]) -> None:
        if not self._is_open:
            return
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        try:
            for text in texts:
                self._out.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            self._out.flush()
        except UNSHOWABLE:
            self._is_open = False


def view_for(show: Show, *, out: IO[str] | None = None, verbose: int = 0) -> View:
    """The view that was asked for; "auto" is live in a terminal and plain elsewhere. NO_COLOR is rich's to honour."""
    stream = out if out is not None else sys.stdout
    if show == "json":
        return JsonView(stream)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal that does not know a character shows a question mark
    console = Terminal(file=stream, highlight=False, markup=False, emoji=False)
    if show == "live" or (show == "auto" and console.is_terminal and not console.is_dumb_terminal):
        return LiveView(console, verbose=verbose)
    return PlainView(stream, verbose=verbose)


def export_svg(
    path: Path, status: CrewStatus, recent: Sequence[ShownEvent], elapsed: float, *, width: int = 92
) -> None:
    """Write a picture of the live view, with the reader's own fonts: it loads nothing from anywhere."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(render(status, recent, elapsed, ascii_only=False))
    picture = console.export_svg(title="supervisor run", unique_id="live-view")
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL), encoding="utf-8")
