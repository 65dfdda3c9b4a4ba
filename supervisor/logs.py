"""Where the supervisor's own log lines go, and how much of them is kept: one file that is set aside when it is full.

Both kinds of logging, structlog's and the standard library's, become the same lines, for people or as JSON. What a
worker prints goes to files of its own, one for each epoch, of which the latest are kept.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from .config import LogConfig

FILE = "supervisor.log"
KEPT_EPOCHS = 20  # log files of workers, for each phase
_OF_WORKER = re.compile(r"(?P<phase>[a-z][a-z0-9_]*)-(?P<epoch>\d+)\.log")


@contextmanager
def logging_to(folder: Path, config: LogConfig, *, verbose: int = 0) -> Iterator[None]:
    """All log lines of this process go to `folder`/supervisor.log while the block runs; -vv brings debug lines too."""
    handler = RotatingFileHandler(
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
        foreign_pre_chain=_common(),
    )


def _common() -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def forget_old_epochs(folder: Path, *, keep: int = KEPT_EPOCHS) -> int:
    """Remove all but the latest `keep` log files of each phase's workers; how many that were."""
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in folder.iterdir():
        if match := _OF_WORKER.fullmatch(path.name):
            found[match["phase"]].append((int(match["epoch"]), path))
    old = [path for files in found.values() for _, path in sorted(files)[: max(0, len(files) - keep)]]
    for path in old:
        with contextlib.suppress(OSError):  # somebody reads it (Windows): the next start tries again
            path.unlink()
    return len(old)
