"""Whether events travel by queue or by stdout, and why: flags beat the environment, which beats the rollout.

Pure but for the defaults of its arguments.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from .errors import ModeError

Mode = Literal["queue", "stdout"]
IPC_MODE_QUEUE: Mode = "queue"
IPC_MODE_STDOUT: Mode = "stdout"
MODE_VARIABLE = "QUEUE_IPC_MODE"
RATE_VARIABLE = "QUEUE_IPC_ROLLOUT"


class ModeChoice(NamedTuple):
    """The mode, and one clause that says why."""

    mode: Mode
    reason: str


class Terms(NamedTuple):
    """What a choice goes by: `forced` (with `reason`), else a draw against `rate` (0–1), which `source` has set."""

    forced: Mode | None
    reason: str
    rate: float
    source: str

    def choose(self, drawn: float) -> ModeChoice:
        """The mode for one piece of work; `drawn` (0 ≤ drawn < 1) counts where nothing is forced."""
        if self.forced is not None:
            return ModeChoice(self.forced, self.reason)
        if drawn < self.rate:
            return ModeChoice(IPC_MODE_QUEUE, f"drew {drawn:.4f}, below the rate {self.rate:g} of {self.source}")
        return ModeChoice(IPC_MODE_STDOUT, f"drew {drawn:.4f}, not below the rate {self.rate:g} of {self.source}")


def determine_ipc_mode(
    *,
    cli_use_queue_ipc: bool = False,
    cli_use_stdout: bool = False,
    environ: Mapping[str, str] = os.environ,
    rng: Callable[[], float] = random.random,
    default_rate: float = 0.1,
) -> Mode:
    """The mode alone; see `determine_ipc_mode_with_reason`. ModeError names the variable with a bad value."""
    return determine_ipc_mode_with_reason(
        cli_use_queue_ipc=cli_use_queue_ipc,
        cli_use_stdout=cli_use_stdout,
        environ=environ,
        rng=rng,
        default_rate=default_rate,
    ).mode


def determine_ipc_mode_with_reason(
    *,
    cli_use_queue_ipc: bool = False,
    cli_use_stdout: bool = False,
    environ: Mapping[str, str] = os.environ,
    rng: Callable[[], float] = random.random,
    default_rate: float = 0.1,
) -> ModeChoice:
    """The mode and why. A variable with a bad value is a ModeError, also where it would not have decided."""
    found = terms(
        cli_use_queue_ipc=cli_use_queue_ipc, cli_use_stdout=cli_use_stdout, environ=environ, default_rate=default_rate
    )
    return found.choose(0.0 if found.forced is not None else rng())


def terms(
    *,
    cli_use_queue_ipc: bool = False,
    cli_use_stdout: bool = False,
    environ: Mapping[str, str] = os.environ,
    default_rate: float = 0.1,
    default_source: str = "the configuration",
) -> Terms:
    """What flags, environment and rollout come to, before anything is drawn. Raises ModeError as above."""
    forced = _mode(environ.get(MODE_VARIABLE))
    rate, source = _rate(environ.get(RATE_VARIABLE), default_rate, default_source)
    if cli_use_queue_ipc:
        return Terms(IPC_MODE_QUEUE, "--use-queue-ipc was given", rate, source)
    if cli_use_stdout:
        return Terms(IPC_MODE_STDOUT, "--use-stdout was given", rate, source)
    if forced is not None:
        return Terms(forced, f"{MODE_VARIABLE} is {environ[MODE_VARIABLE]!r}", rate, source)
    return Terms(None, "", rate, source)


def _mode(value: str | None) -> Mode | None:
    match (value or "").strip().lower():
        case "":
            return None
        case "queue":
            return IPC_MODE_QUEUE
        case "stdout" | "fallback":
            return IPC_MODE_STDOUT
        case _:
            raise ModeError(f"{MODE_VARIABLE} is {value!r}; it can be queue, stdout or fallback, or be left unset")


def _rate(value: str | None, default: float, source: str) -> tuple[float, str]:
    if value is None or not value.strip():
        if not 0.0 <= default <= 1.0:
            raise ModeError(f"the default rollout rate is {default!r}; it must lie between 0.0 and 1.0")
        return default, source
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0.0 <= rate <= 1.0:
        raise ModeError(f"{RATE_VARIABLE} is {value!r}; it must be a number between 0.0 and 1.0")
    return rate, RATE_VARIABLE
