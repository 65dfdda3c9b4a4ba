"""The staged move from stdout to the queue: where it stands, whether it may go on, and what the figures say.

Pure: progress, figures and `now` (wall clock, seconds) come in; a new progress, a verdict or figures come out. The
file is `rollout_state`'s, obeying it in a running crew `transport`'s, the order of precedence `ipc.modes`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ipc.modes import IPC_MODE_QUEUE, IPC_MODE_STDOUT

FORMAT = 1
DEFAULT_RATE = 0.1  # where neither a variable nor a stage nor supervisor.toml says anything
WEEK = 7 * 86400.0
DAY = 86400.0
MODES = (IPC_MODE_QUEUE, IPC_MODE_STDOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a rollout goes by: the rates of its stages, and what a stage needs before the next one. Times in seconds.

    `most_credit` is how much of the time between two looks at the clock counts: a clock that jumps ahead, or a machine
    that was off for a month, gains no more than that.
    """

    stages: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    stage_lasts: float = WEEK
    matches_needed: int = 10
    most_credit: float = DAY
    window: int = 20  # queue audits that the alarm looks back on
    incidents: int = 3  # times the queue must have failed, before a share is held against it
    incident_lasts: float = 5.0  # all fallbacks within so long are one failure of the queue


SCHEDULE = Schedule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One run of `--validate-ipc`: when, in which stage (None: no rollout), and how many differences it found."""

    at: float
    stage: int | None
    differences: int


Act = Literal["start", "resume", "advance", "rollback", "validation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the rollout's history. `by` is "user" or "supervisor"; `forced`: a refusal was overridden."""

    at: float
    act: Act
    by: str
    stage: int | None
    text: str
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a rollout stands. `stage` is None before `start`; `rolled_back` says why all goes by stdout, "" if not.

    `served` is the time credited to the stage, in seconds, up to `seen`; `began` is when it began, for people.
    """

    stage: int | None = None
    began: float = 0.0
    served: float = 0.0
    seen: float = 0.0
    rolled_back: str = ""
    matches: int = 0  # validation runs in a row that matched, in this stage
    validations: tuple[Validation, ...] = ()
    history: tuple[Entry, ...] = ()


# --- decisions


@dataclass(frozen=True, slots=True)
class Hold:
    """The stage must go on; `reasons` are what is missing."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MayAdvance:
    """The next stage may begin; `to` is its rate."""

    to: float


@dataclass(frozen=True, slots=True)
class Complete:
    """The last stage has served its time: nothing comes after it."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Everything should go by stdout; `reason` says why."""

    reason: str


Verdict = Hold | MayAdvance | Complete | RollBack


class RolloutError(ValueError):
    """What was asked for cannot be done as the rollout stands; the text says why and what to do."""


def judge(progress: Progress, schedule: Schedule = SCHEDULE) -> Verdict:
    """Whether the stage holds, may be left, or everything is (or should be) rolled back. Call `observe` first."""
    if progress.rolled_back:
        return RollBack(progress.rolled_back)
    if progress.stage is None:
        return Hold(("the rollout has not been started: supervisor rollout start",))
    reasons = []
    left = schedule.stage_lasts - progress.served
    if left > 0:
        reasons.append(f"the stage has {_duration(left)} to go")
    missing = schedule.matches_needed - progress.matches
    if missing > 0:
        reasons.append(
            f"{progress.matches} of {schedule.matches_needed} validation runs in a row matched exactly; "
            f"{missing} to go: supervisor run --validate-ipc --runs {missing}"
        )
    if reasons:
        return Hold(tuple(reasons))
    if progress.stage + 1 >= len(schedule.stages):
        return Complete()
    return MayAdvance(schedule.stages[progress.stage + 1])


def observe(progress: Progress, now: float, schedule: Schedule = SCHEDULE) -> Progress:
    """Credit the time since the last look: none if the clock went back, never more than `most_credit`."""
    passed = min(max(0.0, now - progress.seen), schedule.most_credit)
    served = progress.served if progress.stage is None or progress.rolled_back else progress.served + passed
    return replace(progress, seen=now, served=served)


def start(progress: Progress, now: float, schedule: Schedule = SCHEDULE) -> Progress:
    """Begin with the first stage, or begin anew after a rollback. RolloutError: one is under way."""
    if progress.stage is not None and not progress.rolled_back:
        raise RolloutError(
            f"the rollout is under way, at {_percent(schedule.stages[progress.stage])}; "
            "supervisor rollout advance goes on, supervisor rollout rollback ends it"
        )
    return _at(progress, 0, now, "start", f"begins with {_percent(schedule.stages[0])}")


def resume(progress: Progress, now: float, schedule: Schedule = SCHEDULE) -> Progress:
    """Lift a rollback and go on as before it; a stage begins anew. RolloutError: nothing was rolled back."""
    if not progress.rolled_back:
        raise RolloutError("nothing was rolled back, so there is nothing to resume")
    if progress.stage is None:
        return _said(
            replace(progress, rolled_back=""), now, "resume", "what supervisor.toml says holds again", by="user"
        )
    text = f"the stage of {_percent(schedule.stages[progress.stage])} begins anew"
    return _at(progress, progress.stage, now, "resume", text)


def advance(progress: Progress, now: float, *, force: bool = False, schedule: Schedule = SCHEDULE) -> Progress:
    """Begin the next stage. RolloutError with what is missing; `force` overrides that, on record."""
    if progress.rolled_back:
        raise RolloutError(
            f"everything goes by stdout ({progress.rolled_back}); "
            "supervisor rollout start begins anew, --resume goes on where it was"
        )
    if progress.stage is None:
        raise RolloutError("the rollout has not been started; do that with: supervisor rollout start")
    if progress.stage + 1 >= len(schedule.stages):
        raise RolloutError("this is the last stage: everything goes by the queue already")
    verdict = judge(progress, schedule)
    missing = verdict.reasons if isinstance(verdict, Hold) else ()
    if missing and not force:
        raise RolloutError(f"not yet: {'; and '.join(missing)}. --force overrides this, on record")
    text = f"to {_percent(schedule.stages[progress.stage + 1])}"
    text += f", although {'; and '.join(missing)}" if missing else ""
    return _at(progress, progress.stage + 1, now, "advance", text, forced=bool(missing))


def roll_back(progress: Progress, now: float, reason: str, *, by: str) -> Progress:
    """Everything by stdout from now on, until a person says otherwise. Twice is the same as once."""
    if progress.rolled_back:
        return progress
    return _said(replace(progress, rolled_back=reason), now, "rollback", reason, by=by)


def validated(progress: Progress, now: float, differences: int) -> Progress:
    """Count a validation run; one that differs sets the row of matching ones back to none."""
    run = Validation(at=now, stage=progress.stage, differences=differences)
    text = "matched exactly" if not differences else f"{differences} difference(s)"
    counted = replace(
        progress,
        matches=0 if differences else progress.matches + 1,
        validations=(*progress.validations, run)[-1000:],
    )
    return _said(counted, now, "validation", text, by="user")


def rate_in_force(progress: Progress, configured: float | None, schedule: Schedule = SCHEDULE) -> tuple[float, str]:
    """The rate where neither flag nor variable decides, and where it comes from."""
    if progress.rolled_back:
        return 0.0, "the rollback"
    if progress.stage is not None:
        return schedule.stages[progress.stage], f"stage {progress.stage + 1} of the rollout"
    if configured is not None:
        return configured, "supervisor.toml"
    return DEFAULT_RATE, "the default"


def _at(progress: Progress, stage: int, now: float, act: Act, text: str, *, forced: bool = False) -> Progress:
    begun = replace(progress, stage=stage, began=now, served=0.0, seen=now, rolled_back="", matches=0)
    return _said(begun, now, act, text, by="user", forced=forced)


def _said(progress: Progress, now: float, act: Act, text: str, *, by: str, forced: bool = False) -> Progress:
    entry = Entry(at=now, act=act, by=by, stage=progress.stage, text=text, forced=forced)
    return replace(progress, history=(*progress.history, entry))


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * DAY else f"{seconds / DAY:.1f} days"


# --- figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What became of the audits of one mode. Latencies are from an event to its commit, in seconds, None if unknown."""

    runs: int = 0
    completed: int = 0  # the cycle's record is in the history
    failed: int = 0  # the worker died first
    interrupted: int = 0  # the worker was told to go
    running: int = 0
    fallbacks: int = 0
    dropped: int = 0
    coalesced: int = 0
    latency_p50: float | None = None
    latency_p99: float | None = None

    @property
    def success_rate(self) -> float | None:
        """Of the audits that are over; None before the first."""
        over = self.completed + self.failed
        return self.completed / over if over else None


@dataclass(frozen=True, slots=True)
class Fact:
    """What a record of the journal says about an audit: see `fact_of`."""

    kind: Literal["began", "ended", "died", "left", "fallback"]
    phase: str
    at: float
    mode: str = ""
    dropped: int = 0
    coalesced: int = 0
    count: int = 1
    rollback: bool = False


@dataclass(slots=True)
class _Audit:
    mode: str
    fallbacks: int = 0


@dataclass(slots=True)
class Tally:
    """Counts audits by mode as facts come in, oldest first; knows how the queue fared of late."""

    schedule: Schedule = SCHEDULE
    counts: dict[str, dict[str, int]] = field(default_factory=lambda: {mode: {} for mode in MODES})
    running: dict[str, _Audit] = field(default_factory=dict)
    recent: list[_Audit] = field(default_factory=list)  # the last audits that were to use the queue
    failures: list[float] = field(default_factory=list)  # when the queue failed somebody, as far as it counts
    last: dict[str, _Audit] = field(default_factory=dict)

    def take(self, fact: Fact) -> None:
        """One fact more."""
        match fact.kind:
            case "began":
                self._over(fact.phase, "failed")  # nobody saw its end
                audit = _Audit(fact.mode)
                self.running[fact.phase] = self.last[fact.phase] = audit
                self._add(fact.mode, "runs")
                if fact.mode == IPC_MODE_QUEUE:
                    self.recent = [*self.recent, audit][-self.schedule.window :]
            case "ended":
                audit_mode = self._over(fact.phase, "completed")
                if audit_mode:
                    self._add(audit_mode, "dropped", fact.dropped)
                    self._add(audit_mode, "coalesced", fact.coalesced)
            case "died":
                self._over(fact.phase, "failed")
            case "left":
                self._over(fact.phase, "interrupted")
            case "fallback":
                last = self.last.get(fact.phase)
                self._add(last.mode if last is not None else IPC_MODE_QUEUE, "fallbacks", fact.count)
                if not fact.rollback:
                    self.failures.append(fact.at)
                    if last is not None:
                        last.fallbacks += fact.count

    def forgive(self) -> None:
        """What the queue did so far is not held against it any more: a person has brought it back."""
        self.recent, self.failures = [], []

    def _over(self, phase: str, how: str) -> str:
        audit = self.running.pop(phase, None)
        if audit is None:
            return ""
        self._add(audit.mode, how)
        return audit.mode

    def _add(self, mode: str, name: str, count: int = 1) -> None:
        counts = self.counts.setdefault(mode, {})
        counts[name] = counts.get(name, 0) + count

    def figures(self, latency: Mapping[str, tuple[float, float] | None] | None = None) -> dict[str, Figures]:
        """Figures by mode; `latency` is p50 and p99 of each."""
        found: dict[str, Figures] = {}
        for mode in MODES:
            p50, p99 = (latency or {}).get(mode) or (None, None)
            running = sum(audit.mode == mode for audit in self.running.values())
            found[mode] = Figures(**self.counts.get(mode, {}), running=running, latency_p50=p50, latency_p99=p99)
        return found

    def alarm(self, max_rate: float) -> RollBack | None:
        """Whether the queue keeps failing: too large a share of the last audits fell back, in several incidents."""
        incidents = 0
        since = float("-inf")
        for at in self.failures:
            if at - since > self.schedule.incident_lasts:
                incidents, since = incidents + 1, at
        fell = sum(audit.fallbacks > 0 for audit in self.recent)
        if incidents < self.schedule.incidents or not self.recent or fell <= max_rate * len(self.recent):
            return None
        return RollBack(
            f"the queue failed {incidents} times, and {fell} of the last {len(self.recent)} audits by queue fell back, "
            f"which is more than max_fallback_rate = {max_rate:g} allows"
        )


def fact_of(*, phase: str, step: str, timestamp: float, summary: Mapping[str, Any]) -> Fact | None:
    """What a record of the supervisor's own says about an audit; None for all others."""
    match step:
        case "mode" if summary.get("mode") in MODES and summary.get("message"):
            return Fact("began", phase, timestamp, mode=str(summary["mode"]))
        case "audit":
            return Fact(
                "ended",
                phase,
                timestamp,
                dropped=_whole(summary.get("dropped")),
                coalesced=_whole(summary.get("coalesced")),
            )
        case "exit":
            return Fact("left" if summary.get("asked") else "died", phase, timestamp)
        case "fallback":
            return Fact(
                "fallback",
                phase,
                timestamp,
                count=max(1, _whole(summary.get("count"))),
                rollback=bool(summary.get("rollback")),
            )
        case _:
            return None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def percentiles(values: Iterable[float]) -> tuple[float, float] | None:
    """p50 and p99 (nearest rank); None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[(len(ordered) - 1) // 2], ordered[min(len(ordered) - 1, (99 * len(ordered)) // 100)]


# --- what is shown


def shown(
    progress: Progress,
    figures: Mapping[str, Figures],
    *,
    rate: float,
    source: str,
    max_fallback_rate: float,
    schedule: Schedule = SCHEDULE,
) -> dict[str, Any]:
    """The object of `rollout status --json` and of `GET /api/rollout/status`. Times are seconds, shares 0–1."""
    queue, stdout = figures[IPC_MODE_QUEUE], figures[IPC_MODE_STDOUT]
    runs = queue.runs + stdout.runs
    over = queue.completed + queue.failed + stdout.completed + stdout.failed
    stage = progress.stage if progress.stage is not None else 0
    verdict = judge(progress, schedule)
    return {
        "started": progress.stage is not None,
        "current_stage": schedule.stages[stage],
        "stage_index": stage,
        "rate": rate,
        "rate_source": source,
        "rolled_back": bool(progress.rolled_back),
        "rollback_reason": progress.rolled_back or None,
        "stage_began": progress.began if progress.stage is not None else None,
        "stage_served": progress.served,
        "stage_lasts": schedule.stage_lasts,
        "validation_matches": progress.matches,
        "validation_matches_needed": schedule.matches_needed,
        "verdict": _WORDS[type(verdict)],
        "reasons": _reasons(verdict),
        "audits_run": runs,
        "queue_mode_count": queue.runs,
        "stdout_mode_count": stdout.runs,
        "queue_mode_percent": 100 * queue.runs / runs if runs else 0.0,
        "stdout_mode_percent": 100 * stdout.runs / runs if runs else 0.0,
        "fallback_count": queue.fallbacks + stdout.fallbacks,
        "max_fallback_rate": max_fallback_rate,
        "success_rate": (queue.completed + stdout.completed) / over if over else None,
        "failures": queue.failed + stdout.failed,
        "modes": {mode: {**asdict(found), "success_rate": found.success_rate} for mode, found in figures.items()},
    }


_WORDS = {Hold: "hold", MayAdvance: "may advance", Complete: "complete", RollBack: "rolled back"}


def _reasons(verdict: Verdict) -> list[str]:
    match verdict:
        case Hold(reasons=reasons):
            return list(reasons)
        case RollBack(reason=reason):
            return [reason]
        case _:
            return []


# --- the file


def to_data(progress: Progress) -> dict[str, Any]:
    """As JSON knows it."""
    return {"format": FORMAT, **asdict(progress)}


def from_data(data: object, schedule: Schedule = SCHEDULE) -> Progress:
    """The reverse; ValueError says what is wrong with it."""
    version = data.get("format") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(version, int) or version > FORMAT:
        raise ValueError(f"it is of format {version!r}; this release knows {FORMAT}")
    try:
        values = {name: data[name] for name in Progress.__dataclass_fields__}
        stage = values["stage"]
        if stage is not None and stage not in range(len(schedule.stages)):
            raise ValueError(f"there is no stage {stage!r}")
        return Progress(
            stage=stage,
            began=float(values["began"]),
            served=float(values["served"]),
            seen=float(values["seen"]),
            rolled_back=str(values["rolled_back"]),
            matches=int(values["matches"]),
            validations=tuple(Validation(**one) for one in _list(values["validations"])),
            history=tuple(Entry(**one) for one in _list(values["history"])),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"it does not say what it should: {error}") from None


def _list(value: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise TypeError(f"a list is needed, not {value!r}")
    return value
