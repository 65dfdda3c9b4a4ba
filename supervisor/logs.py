"""Where the supervisor's own log lines go, and how much of them is kept: one file that is set aside when it is full.

Both kinds of logging, structlog's and the standard library's, become the same lines, for people or as JSON. What a
worker prints goes to files of its own, one for each epoch, of which the latest are kept, each within the same size.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import anyio
import structlog
from anyio.to_thread import run_sync

from .config import LogConfig
from .rhythm import until_next

FILE = "supervisor.log"
KEPT_EPOCHS = 20  # log files of workers, for each phase
LOOK_EVERY = 10.0  # seconds between two looks at how much workers have printed
PART = 1024 * 1024  # bytes read at once
_OF_WORKER = re.compile(r"(?P<phase>[a-z][a-z0-9_]*)-(?P<epoch>\d+)\.log(?P<aside>\.1)?")

log = logging.getLogger(__name__)


@contextmanager
def logging_to(folder: Path, config: LogConfig, *, verbose: int = 0) -> Iterator[None]:
    """All log lines of this process go to `folder`/supervisor.log while the block runs; -vv brings debug lines too."""
    handler = _Patient(
        folder / FILE, maxBytes=config.max_mb * 1024 * 1024, backupCount=config.keep, encoding="utf-8", delay=True
    )
    handler.setFormatter(formatter(config))
    structlog.configure(
        processors=[*_common(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
        structlog.reset_defaults()


class _Patient(RotatingFileHandler):
    """Lines that cannot be written (a full disk) are counted, and that is said once it goes again."""

    lost = 0
    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        before = self.lost
        super().emit(record)
        if before and self.lost == before:
            self.lost, text = 0, f"{before} lines could not be written here: {self.why}"
            super().emit(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The standard one prints a traceback to whatever terminal there is."""
        del record
        self.lost, self.why = self.lost + 1, str(sys.exc_info()[1])

    def close(self) -> None:
        """What is left in the buffer of a full disk is no reason for a run to fail at its end."""
        with contextlib.suppress(OSError):
            super().close()


def formatter(config: LogConfig) -> logging.Formatter:
    """One line for each record: words and key=value pairs, or a JSON object."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if config.format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    before: list[structlog.types.Processor] = [structlog.processors.format_exc_info] if config.format == "json" else []
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *before, renderer],
        foreign_pre_chain=[*_common(), structlog.stdlib.ExtraAdder(allow={"phase", "step"})],
    )


def _common() -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


async def keep_small(folder: Path, config: LogConfig) -> None:
    """For as long as a crew runs: no worker's log beyond its size, and none of those that are long gone."""
    while True:
        await anyio.sleep(until_next(LOOK_EVERY, anyio.current_time()))
        try:
            await run_sync(forget_old_epochs, folder)
            await run_sync(lambda: cut_to_size(folder, most=config.max_mb * 1024 * 1024))
        except OSError as error:
            log.warning("the logs of workers cannot be kept within their size: %s", error)


def cut_to_size(folder: Path, *, most: int) -> int:
    """Set aside what is in workers' logs beyond `most` bytes, its last `most` bytes as `NAME.1`; how many that were.

    Their workers go on writing to the same file (they append). What is printed in the moment between copy and cut goes.
    """
    full = [path for path in _of_workers(folder) if path.suffix == ".log" and path.stat().st_size > most]
    for path in full:
        with path.open("rb") as source, path.with_name(f"{path.name}.1").open("wb") as aside:
            source.seek(-most, os.SEEK_END)
            left = most
            while left and (part := source.read(min(left, PART))):
                left -= aside.write(part)
        os.truncate(path, 0)
    return len(full)


def forget_old_epochs(folder: Path, *, keep: int = KEPT_EPOCHS) -> int:
    """Remove the logs of all but the latest `keep` epochs of each phase; how many epochs that were."""
    found: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, (phase, epoch) in _of_workers(folder).items():
        found[phase][epoch].append(path)
    old = [paths for epochs in found.values() for _, paths in sorted(epochs.items())[: max(0, len(epochs) - keep)]]
    for path in (path for paths in old for path in paths):
        with contextlib.suppress(OSError):  # somebody reads it (Windows): the next look tries again
            path.unlink()
    return len(old)


def _of_workers(folder: Path) -> dict[Path, tuple[str, int]]:
    """The files in that folder that workers print to, and what has been set aside of them."""
    matches = {path: _OF_WORKER.fullmatch(path.name) for path in folder.iterdir()}
    return {path: (match["phase"], int(match["epoch"])) for path, match in matches.items() if match}
