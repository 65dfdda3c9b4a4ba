"""Judges a worker by a command that asks from outside whether it is well: when to ask, and what the answers come to.

Pure: clocks, answers and the configuration go in, the next state and a verdict come out. What cannot be held against
the worker counts for nothing: a command that could not be started, an answer about a worker that has gone or was paused
meanwhile, a time limit that passed while this supervisor itself was not awake. Running the command is `prober`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import ProbeConfig
from .liveness import Verdict

LATE = 1.0  # seconds after its limit: whoever ends a command later than that was not awake
LAST_LINES = 3  # of what it printed
MOST_TEXT = 300  # characters of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How the probe with that number ended: by itself with `code`, or (`timed_out`) by us; `said` is its last output.

    `problem` says why it could not be started at all, "" if it could; `seconds` is how long it took.
    """

    number: int
    code: int = 0
    timed_out: bool = False
    problem: str = ""
    said: str = ""
    seconds: float = 0.0

    @property
    def is_healthy(self) -> bool:
        return not (self.code or self.timed_out or self.problem)

    @property
    def text(self) -> str:
        """What it did, as a person would say it."""
        if self.timed_out:
            how = f"it had not ended after {self.seconds:.1f} s"
        else:
            how = f"it was ended by signal {-self.code}" if self.code < 0 else f"it exited with code {self.code}"
        return f"{how}: {self.said}" if self.said else how


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What is known of the probes of one worker. `number` is that of the last one begun, `failures` count in a row.

    Times are the event loop's clock; `ready_at` is None before it is ready.
    """

    ready_at: float | None = None
    began_at: float | None = None
    number: int = 0
    failures: int = 0

    def is_due(self, config: ProbeConfig, now: float) -> bool:
        """Whether it is to be asked now."""
        if not config.command or self.ready_at is None:
            return False
        due = self.ready_at + config.start_grace if self.began_at is None else self.began_at + config.every
        return now >= due

    def ready(self, now: float) -> Probes:
        """The worker is ready: its grace begins."""
        return replace(self, ready_at=now)

    def begun(self, now: float) -> Probes:
        """The next one runs."""
        return replace(self, began_at=now, number=self.number + 1)

    def anew(self) -> Probes:
        """What was found so far, and what is being asked, counts no more."""
        return replace(self, number=self.number + 1, failures=0)

    def after_stall(self, away: float) -> Probes:
        """This supervisor was not awake for so many seconds: no clock counts them, nor does what ran meanwhile."""
        return replace(
            self,
            ready_at=None if self.ready_at is None else self.ready_at + away,
            began_at=None if self.began_at is None else self.began_at + away,
            number=self.number + 1,
        )

    def heard(self, answer: Answer, config: ProbeConfig) -> Probes:
        """The count after that answer; one that counts for nothing leaves it."""
        if not self.counts(answer, config):
            return self
        return replace(self, failures=0 if answer.is_healthy else self.failures + 1)

    def counts(self, answer: Answer, config: ProbeConfig) -> bool:
        """Whether the answer says anything about this worker."""
        was_late = answer.timed_out and answer.seconds > config.timeout + LATE
        return answer.number == self.number and not answer.problem and not was_late


def judge(probes: Probes, config: ProbeConfig, answer: Answer) -> Verdict:
    """What follows from the failures so far, of which `answer` is the last."""
    inputs = {
        "failures": probes.failures,
        "failures_allowed": config.failures,
        "code": answer.code,
        "timed_out": answer.timed_out,
        "seconds": answer.seconds,
        "said": answer.said,
    }
    if not probes.failures:
        return Verdict(state="fine", action="none", reason="its probe says that it is well", inputs=inputs)
    times = "once" if probes.failures == 1 else f"{probes.failures} times in a row"
    reason = (
        f"its probe ({config.command[0]}) has failed {times}, at {config.failures} it counts; the last: {answer.text}"
    )
    action = config.on_failure if probes.failures >= config.failures else "none"
    return Verdict(state="unhealthy", action=action, reason=reason, inputs=inputs)


def last_lines(*outputs: str) -> str:
    """The end of what a command printed, on one line."""
    lines = [line.strip() for output in outputs for line in output.splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:])[-MOST_TEXT:]
