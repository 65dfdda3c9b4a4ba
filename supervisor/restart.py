"""Decides whether a child that exited is started again, when, and with whom; or why not.

Pure: what happened, what happened before, the time and the chance go in; a frozen decision comes out, with the sentence
and the figures behind it (`supervisor why`). Starting, waiting and telling people are the crew's. OTP's words are used
as OTP uses them; what OTP lacks is the delay: the first restart of a child that ran stably comes at once, the next
ones wait longer and longer, with full jitter, until it runs stably again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
Permanence = Literal["permanent", "transient", "temporary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When one child is started again. Times in seconds.

    A permanent child always is, a transient one unless it ended normally, a temporary one never. An exit that nobody
    asked for with one of `final_exit_codes` is giving up at once, whatever is allowed else. More than `restarts`
    restarts within `within` is giving up; so are more than `start_failures` failed starts in a row. A run that got
    ready and lasted `stable_after` makes the next restart immediate; the ones that follow an unstable run wait up to
    `first_delay`, doubling to `longest_delay`. An impossible policy raises ValueError, which names every mistake.
    """

    permanence: Permanence = "permanent"
    final_exit_codes: tuple[int, ...] = ()
    restarts: int = 5
    within: float = 60.0
    start_failures: int = 3
    stable_after: float = 5.0
    first_delay: float = 0.25
    longest_delay: float = 30.0

    def __post_init__(self) -> None:
        mistakes = [
            *_not_one_of("permanence", self.permanence, get_args(Permanence)),
            *(f"final_exit_codes cannot have {code}" for code in self.final_exit_codes if code == 0),
            *_below("restarts", self.restarts, 0),
            *_below("start_failures", self.start_failures, 0),
            *_not_positive("within", self.within),
            *_below("stable_after", self.stable_after, 0),
            *_not_positive("first_delay", self.first_delay),
            *_not_positive("longest_delay", self.longest_delay),
        ]
        if not mistakes and self.longest_delay < self.first_delay:
            mistakes.append(
                f"longest_delay ({self.longest_delay:g}) is shorter than first_delay ({self.first_delay:g})"
            )
        if mistakes:
            raise ValueError("restart policy: " + "; ".join(mistakes))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewPolicy:
    """Who is restarted together, and how many restarts within `within` seconds the crew as a whole may need."""

    strategy: Strategy = "one_for_one"
    restarts: int = 20
    within: float = 60.0

    def __post_init__(self) -> None:
        mistakes = [
            *_not_one_of("strategy", self.strategy, get_args(Strategy)),
            *_below("restarts", self.restarts, 0),
            *_not_positive("within", self.within),
        ]
        if mistakes:
            raise ValueError("crew policy: " + "; ".join(mistakes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """One child's end. `code` is negative for a signal; `ran_for` counts from its start, in seconds.

    `ready` says that it got as far as ready: an exit before that is a failed start, not a crash. `asked` says that we
    wanted it to go, `judged` that we ended it for a verdict, so that its code says nothing.
    """

    child: str
    code: int
    ready: bool
    ran_for: float
    asked: bool = False
    judged: bool = False

    @property
    def is_normal(self) -> bool:
        """It ended by itself, and said that all was well."""
        return self.code == 0 and self.ready and not self.judged

    @property
    def text(self) -> str:
        """What it did, as a person would say it."""
        how = f"was ended by signal {-self.code}" if self.code < 0 else f"exited with code {self.code}"
        when = f"after {self.ran_for:.1f} s" if self.ready else f"before it was ready ({self.ran_for:.1f} s)"
        return f"{self.child} {how} {when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildHistory:
    """What is remembered of one child: restarts in the window; unstable runs and failed starts, each in a row."""

    restarts: tuple[float, ...] = ()
    unstable: int = 0
    start_failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is remembered of all children, and of the crew's restarts in its window."""

    children: Mapping[str, ChildHistory] = field(default_factory=dict)
    crew: tuple[float, ...] = ()

    def of(self, child: str) -> ChildHistory:
        return self.children.get(child, ChildHistory())

    def forgetting(self, child: str) -> History:
        """The same without that child's past: a person has asked for it to be started again."""
        return replace(self, children={k: v for k, v in self.children.items() if k != child})


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAgain:
    """Start `children` (in start order, the exited one among them) at `at`; the others of them are stopped first.

    `ended` are temporary ones that the strategy stops with them: they are not started again.
    """

    at: float
    delay: float
    children: tuple[str, ...]
    ended: tuple[str, ...]
    history: History
    reason: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Do not start `child` again until a person says so. `scope`: whose limit was passed, or a final exit."""

    child: str
    scope: Literal["child", "crew", "exit"]
    history: History
    reason: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveStopped:
    """It was asked to end."""

    child: str
    history: History
    reason: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveEnded:
    """It is done with its work, and by its permanence stays down until a person says otherwise; nothing is wrong."""

    child: str
    history: History
    reason: str
    inputs: Mapping[str, Any]


Decision = StartAgain | GiveUp | LeaveStopped | LeaveEnded


def after_exit(
    exit_: Exit,
    *,
    history: History,
    policy: RestartPolicy,
    crew: CrewPolicy,
    order: tuple[str, ...],
    now: float,
    jitter: float,
    temporary: Collection[str] = (),
) -> Decision:
    """What to do about that exit of a child with that `policy`. `order` is the start order.

    `temporary` are the children that are; `jitter` is a chance in [0, 1], `now` monotonic.
    """
    if not 0.0 <= jitter <= 1.0:
        raise ValueError(f"jitter must be within 0 and 1, not {jitter!r}")
    if exit_.child not in order:
        raise ValueError(f"{exit_.child!r} is no child of this crew; there are: {', '.join(order)}")
    past = history.of(exit_.child)
    recent = _within(past.restarts, policy.within, now)
    crew_recent = _within(history.crew, crew.within, now)
    stable = exit_.ready and exit_.ran_for >= policy.stable_after
    failures = 0 if exit_.ready else past.start_failures + 1
    inputs: dict[str, Any] = {
        "child": exit_.child,
        "code": exit_.code,
        "ready": exit_.ready,
        "ran_for": exit_.ran_for,
        "asked": exit_.asked,
        "judged": exit_.judged,
        "permanence": policy.permanence,
        "strategy": crew.strategy,
        "stable": stable,
        "restarts": len(recent),
        "restarts_allowed": policy.restarts,
        "within": policy.within,
        "crew_restarts": len(crew_recent),
        "crew_restarts_allowed": crew.restarts,
        "crew_within": crew.within,
        "start_failures": failures,
        "start_failures_allowed": policy.start_failures,
        "unstable": past.unstable,
        "jitter": jitter,
    }

    gone = _remember(history, exit_.child, ChildHistory(restarts=recent), crew_recent)
    if exit_.asked:
        reason = f"{exit_.text}, as it was asked to."
        return LeaveStopped(child=exit_.child, history=gone, reason=reason, inputs=inputs)
    if exit_.is_normal and policy.permanence != "permanent":
        return LeaveEnded(
            child=exit_.child, history=gone, reason=_meant_to_end(exit_, policy), inputs={**inputs, "ended": True}
        )

    here = ChildHistory(restarts=recent, unstable=past.unstable, start_failures=failures)
    given_up = _final(exit_, policy) or _limit_passed(
        exit_, recent=recent, crew_recent=crew_recent, failures=failures, policy=policy, crew=crew
    )
    if given_up is not None:
        scope, reason = given_up
        kept = _remember(history, exit_.child, here, crew_recent)
        return GiveUp(child=exit_.child, scope=scope, history=kept, reason=reason, inputs=inputs)

    unstable = 0 if stable else past.unstable + 1
    ceiling = backoff(unstable, policy)
    delay = ceiling * jitter
    affected = _together(exit_.child, order, crew.strategy)
    ended = tuple(child for child in affected if child in temporary and child != exit_.child)
    together = tuple(child for child in affected if child not in ended)
    return StartAgain(
        at=now + delay,
        delay=delay,
        children=together,
        ended=ended,
        history=_remember(
            history,
            exit_.child,
            ChildHistory(restarts=(*recent, now), unstable=unstable, start_failures=failures),
            (*crew_recent, now),
        ),
        reason=_start_again_text(
            exit_, delay=delay, ceiling=ceiling, nth=len(recent) + 1, together=together, policy=policy
        ),
        inputs={**inputs, "ceiling": ceiling, "delay": delay},
    )


def backoff(unstable: int, policy: RestartPolicy) -> float:
    """The longest wait, in seconds, before the restart that follows `unstable` unstable runs in a row."""
    if unstable <= 0:
        return 0.0
    return min(policy.longest_delay, policy.first_delay * 2.0 ** min(unstable - 1, 64))


def _final(exit_: Exit, policy: RestartPolicy) -> tuple[Literal["exit"], str] | None:
    """Why there is nothing to try, whatever the limits say."""
    if exit_.code in policy.final_exit_codes and not exit_.judged:
        return "exit", f"{exit_.text}; that code is final for it ({', '.join(map(str, policy.final_exit_codes))})."
    if policy.permanence == "temporary":
        return "exit", f"{exit_.text}; as a temporary child it is never restarted."
    return None


def _limit_passed(
    exit_: Exit,
    *,
    recent: tuple[float, ...],
    crew_recent: tuple[float, ...],
    failures: int,
    policy: RestartPolicy,
    crew: CrewPolicy,
) -> tuple[Literal["child", "crew"], str] | None:
    if failures > policy.start_failures:
        return "child", (
            f"{exit_.text}; it failed to start {failures} times in a row, {policy.start_failures} are allowed."
        )
    if len(recent) >= policy.restarts:
        return "child", (
            f"{exit_.text}; it was restarted {len(recent)} times within {policy.within:g} s, "
            f"{policy.restarts} are allowed."
        )
    if len(crew_recent) >= crew.restarts:
        return "crew", (
            f"{exit_.text}; the crew needed {len(crew_recent)} restarts within {crew.within:g} s, "
            f"{crew.restarts} are allowed."
        )
    return None


def _together(child: str, order: tuple[str, ...], strategy: Strategy) -> tuple[str, ...]:
    match strategy:
        case "one_for_one":
            return (child,)
        case "one_for_all":
            return order
        case "rest_for_one":
            return order[order.index(child) :]


def _meant_to_end(exit_: Exit, policy: RestartPolicy) -> str:
    return (
        f"{exit_.text}; it had finished, and as a {policy.permanence} child it stays down "
        f"(`supervisor restart {exit_.child}` starts it again)."
    )


def _start_again_text(
    exit_: Exit, *, delay: float, ceiling: float, nth: int, together: tuple[str, ...], policy: RestartPolicy
) -> str:
    when = "at once" if ceiling == 0 else f"in {delay:.2f} s (up to {ceiling:g} s after an unstable run)"
    others = [child for child in together if child != exit_.child]
    beside = f", and {', '.join(others)} with it" if others else ""
    return (
        f"{exit_.text}; it is started again {when}{beside}: "
        f"restart {nth} of {policy.restarts} allowed within {policy.within:g} s."
    )


def _within(times: tuple[float, ...], window: float, now: float) -> tuple[float, ...]:
    return tuple(t for t in times if t > now - window)


def _remember(history: History, child: str, entry: ChildHistory, crew: tuple[float, ...]) -> History:
    return History(children={**history.children, child: entry}, crew=crew)


def _not_one_of(name: str, value: object, known: tuple[str, ...]) -> list[str]:
    return [] if value in known else [f"{name} must be one of {', '.join(known)}, not {value!r}"]


def _below(name: str, value: float, least: float) -> list[str]:
    return [] if math.isfinite(value) and value >= least else [f"{name} must be {least} or more, not {value!r}"]


def _not_positive(name: str, value: float) -> list[str]:
    return [] if math.isfinite(value) and value > 0 else [f"{name} must be above 0, not {value!r}"]
