"""What `supervisor.toml` may say, and what is wrong with it: every mistake at once, each with its line.

Pure: text in, `Config` or `ConfigError` out. Reading the file is `workspace`'s; the environment variables of
the transport (`QUEUE_IPC_MODE`, `QUEUE_IPC_ROLLOUT`) beat what stands here and are `ipc.modes`' business.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from docs_store.messages import SUPERVISOR, USER
from docs_store.topology import DEFAULT, STRATEGIC, Phase, Topology

from .exits import Exit, UserError
from .restart import Permanence

FILE = "supervisor.toml"
FORMAT = 1  # of the file
Fallback = Literal["auto", "never"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
OnVerdict = Literal["restart", "warn"]
LogFormat = Literal["console", "json"]
Path = tuple[str, ...]  # the keys that lead to a value

TEMPLATE = """\
# How the crew works on this repository. Every line that is commented out shows its default.
# Where a section's name is commented out as well, take the sign from both. `supervisor doctor` checks this file.
format = 1                # of this file; a newer release's is refused by name

[project]
# python = ""             # the project's interpreter; "" looks for its .venv, then takes the supervisor's own
# tests = []              # what QA hands to pytest; [] leaves it to the project's own configuration
# test_timeout = 600.0    # seconds for a whole test run
# hang = 60.0             # seconds for one test, before it counts as hanging

[ipc]
rollout = 1.0             # share of audits whose events travel by the queue; QUEUE_IPC_MODE=stdout rolls back
# fallback = "auto"       # "never": critical events wait on disk until the queue is back
# max_fallback_rate = 0.1 # share of the last audits by queue that may fall back; more, and all go by stdout
# validation_ignores = [] # fields of events that --validate-ipc lets differ: "detail", "summary.seconds"

# [journal]               # what `supervisor events` shows
# max_mb = 1024           # beyond that the oldest events go; 0: no limit
# keep_days = 90.0        # so do older ones; 0: no limit

[restart]
# strategy = "one_for_one" # or "one_for_all", "rest_for_one": who is restarted with the one that died
# restarts = 5            # of one phase …
# within = 60.0           # … in so many seconds; one more, and the phase is given up and Planning is told
# crew_restarts = 0       # of all phases together in that time; 0: what the phases may have each for itself
# start_failures = 3      # failed starts of one phase in a row; one more, and it is given up too
# first_delay = 0.2       # seconds before a restart; doubles up to longest_delay, with jitter
# longest_delay = 30.0
# stable_after = 10.0     # a run that lasted so many seconds makes the next restart immediate
# deaths = 3              # so many deaths on one task, and the task is quarantined

# [liveness]              # a worker that runs and does not live is ended, and started again as above
# start_grace = 30.0      # seconds from its start to ready
# silence = 15.0          # seconds without a beat of its event loop
# suspended = 30.0        # seconds that somebody may have stopped it (SIGSTOP); 0: any time, as with a debugger
# no_progress = 1800.0    # seconds that a task may show no sign of progress; 0: any time
# on_blocked = "restart"  # or "warn": a call blocks its event loop
# on_held = "restart"     # … something holds its interpreter
# on_no_progress = "restart" # … its task gets no further

# [log]                   # .supervisor/logs/: supervisor.log, and what each worker prints in a file of its own
# format = "console"      # "json": one object per line
# max_mb = 10             # of one file; then it is set aside …
# keep = 5                # … and so many older ones of supervisor.log are kept, of a worker's one

# [notify]                # who is told when something begins to wait for you; `supervisor trust` comes first
# command = []            # a command and its arguments; it gets a JSON object on standard input
# webhook = ""            # an http address; it gets the same by POST

[phases.planning]         # the same keys for each phase
# `actor` names a class of your own instead: "Write an actor of your own" in the documentation says how
# driver = "builtin"
# after = []              # phases that must be ready (or given up) before this one is started
# interval = 0.0          # seconds between two cycles started without a message; 0: never
# task_time = 0.0         # seconds a task may take; 0: no limit
# memory_mb = 0           # what its worker and all that it has started may hold; 0: no limit
# permanence = "permanent" # "transient": not started again after a normal exit; "temporary": never started again
# final_exit_codes = []   # an exit with one of these that nobody asked for gives the phase up at once
# options = {}            # handed to the driver as they are

# [phases.planning.restart] # limits of its own, each as in [restart] unless it stands here:
                          # restarts, within, start_failures, first_delay, longest_delay, stable_after

# [phases.planning.probe] # asks a ready worker from outside whether it is well; `supervisor trust` comes first
# command = []            # a command and its arguments: exit code 0 says yes
# every = 10.0            # seconds from one to the next
# timeout = 5.0           # seconds until it is ended, which says no
# failures = 3            # so many times no in a row, and …
# on_failure = "restart"  # … the worker is ended, and started again as above; or "warn"
# start_grace = 10.0      # seconds from ready to the first

[phases.developer]

[phases.qa]

[phases.debugging]
"""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong: `line` is 1 for the first, 0 where it cannot be told; `where` is the dotted key."""

    line: int
    where: str
    text: str

    def __str__(self) -> str:
        at = f"line {self.line}: " if self.line else ""
        return f"{at}{self.where}: {self.text}" if self.where else f"{at}{self.text}"


class ConfigError(UserError):
    """The file is not valid; `mistakes` are all of them, in the order of the file."""

    exit = Exit.CONFIGURATION

    def __init__(self, name: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        count = "one mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"{name} has {count}:", *(f"  {mistake}" for mistake in self.mistakes)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """How the project is tested. An empty `python` or `tests` means: find out. Times in seconds."""

    python: str = ""
    tests: tuple[str, ...] = ()
    test_timeout: float = 600.0
    hang: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcConfig:
    """`rollout` is the share (0–1) of audits that use the queue; None where the file does not say.

    `max_fallback_rate` is the share of them that may fall back before everything goes by stdout; `validation_ignores`
    names fields of events that may differ between two runs of the same work, as `detail` or `summary.seconds`.
    """

    rollout: float | None = None
    fallback: Fallback = "auto"
    max_fallback_rate: float = 0.1
    validation_ignores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalConfig:
    """How much of the event journal is kept: `max_mb` megabytes, `keep_days` days; 0: no limit."""

    max_mb: int = 1024
    keep_days: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConfig:
    """When a worker that died is started again. Times in seconds; `deaths` on one task quarantine it.

    `restarts` of one phase and `crew_restarts` of all within `within` are borne, 0 of the latter: as many as the phases
    may have together; so are `start_failures` in a row.
    """

    strategy: Strategy = "one_for_one"
    restarts: int = 5
    crew_restarts: int = 0
    within: float = 60.0
    start_failures: int = 3
    first_delay: float = 0.2
    longest_delay: float = 30.0
    stable_after: float = 10.0
    deaths: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessConfig:
    """When a worker that still runs is taken for hanging; seconds.

    0 means never for `no_progress`, and for `suspended`: one that somebody has stopped (SIGSTOP) and not let go on.
    `on_…` says what is done about a loop that is blocked, an interpreter that is held, a task that gets no further.
    """

    start_grace: float = 30.0
    silence: float = 15.0
    suspended: float = 30.0
    no_progress: float = 1800.0
    on_blocked: OnVerdict = "restart"
    on_held: OnVerdict = "restart"
    on_no_progress: OnVerdict = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The supervisor's own log file: lines for people or JSON; `max_mb` of one file, `keep` older ones beside it."""

    format: LogFormat = "console"
    max_mb: int = 10
    keep: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyConfig:
    """Who is told when something waits for the user: a command (its words) and an http address; empty: nobody."""

    command: tuple[str, ...] = ()
    webhook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRestartConfig:
    """Limits of one phase's own; None is what `RestartConfig` says. Times in seconds."""

    restarts: int | None = None
    within: float | None = None
    start_failures: int | None = None
    first_delay: float | None = None
    longest_delay: float | None = None
    stable_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """A command that says from outside whether a worker is well; an empty one: nobody asks. Times in seconds.

    It is run `start_grace` after ready, and again every `every`; so many `failures` in a row (another exit code than 0,
    or none within `timeout`) and `on_failure` is done.
    """

    command: tuple[str, ...] = ()
    every: float = 10.0
    timeout: float = 5.0
    failures: int = 3
    on_failure: OnVerdict = "restart"
    start_grace: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseConfig:
    """One phase. `actor` is a dotted path `package.module:Class` for an actor of the user's own.

    `after` names phases: it is started once those are ready, or given up. `assess`: a run's start and a change of the
    repository ask it to look at everything (for a phase of the user's own). `interval` (seconds, 0 for never) starts a
    cycle without a message; `task_time` (seconds) and `memory_mb` are limits, 0 for none; `permanence` and
    `final_exit_codes` say what an exit means for a next start; `options` go to the driver as they are.
    """

    key: str
    driver: str = "builtin"
    actor: str = ""
    after: tuple[str, ...] = ()
    assess: bool = False
    interval: float = 0.0
    task_time: float = 0.0
    memory_mb: int = 0
    permanence: Permanence = "permanent"
    final_exit_codes: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    restart: PhaseRestartConfig = PhaseRestartConfig()
    probe: ProbeConfig = ProbeConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A valid `supervisor.toml`. `phases` holds one entry for each phase of `topology`, in its order."""

    project: ProjectConfig = ProjectConfig()
    ipc: IpcConfig = IpcConfig()
    journal: JournalConfig = JournalConfig()
    restart: RestartConfig = RestartConfig()
    liveness: LivenessConfig = LivenessConfig()
    log: LogConfig = LogConfig()
    notify: NotifyConfig = NotifyConfig()
    phases: Mapping[str, PhaseConfig] = field(
        default_factory=lambda: MappingProxyType({p.key: PhaseConfig(key=p.key) for p in DEFAULT.phases})
    )
    topology: Topology = DEFAULT

    def commands(self) -> tuple[str, ...]:
        """What the file names that would be run, as `key = value`; if any, `supervisor trust` comes first."""
        found = [f"project.python = {self.project.python}"] if self.project.python else []
        found += [f"phases.{key}.actor = {phase.actor}" for key, phase in self.phases.items() if phase.actor]
        found += [
            f"phases.{key}.probe.command = {' '.join(phase.probe.command)}"
            for key, phase in self.phases.items()
            if phase.probe.command
        ]
        found += [f"notify.command = {' '.join(self.notify.command)}"] if self.notify.command else []
        found += [f"notify.webhook = {self.notify.webhook}"] if self.notify.webhook else []
        return tuple(found)


class UnfitError(Exception):
    """A value that its key cannot have; the text says what it must be."""


Check = Callable[[object], Any]  # gives the value as it is kept; an UnfitError says what it must be


def number(least: float = 0.0, most: float = math.inf, *, above: float | None = None) -> Check:
    """A number of at least `least` (or greater than `above`) and at most `most`."""
    span = (
        f"greater than {above:g}"
        if above is not None and most == math.inf
        else f"from {least:g} to {most:g}"
        if most != math.inf
        else f"of at least {least:g}"
    )

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnfitError(f"must be a number {span}, not {_shown(value)}")
        low_enough = value <= most and math.isfinite(value)
        high_enough = value > above if above is not None else value >= least
        if not (low_enough and high_enough):
            raise UnfitError(f"must be a number {span}, not {_shown(value)}")
        return float(value)

    return check


def whole(least: int, most: int) -> Check:
    """A whole number between the two."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UnfitError(f"must be a whole number from {least} to {most}, not {_shown(value)}")
        return value

    return check


def text(pattern: str = "", what: str = "a text in quotes") -> Check:
    """A string that matches the whole pattern (any, without one), free of control characters."""

    def check(value: object) -> str:
        if not isinstance(value, str) or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise UnfitError(f"must be {what}, not {_shown(value)}")
        if pattern and not re.fullmatch(pattern, value):
            raise UnfitError(f"must be {what}, not {_shown(value)}")
        return value

    return check


def one_of(*choices: str) -> Check:
    """One of these words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            hint = _near(value, choices) if isinstance(value, str) else ""
            raise UnfitError(f"must be {_either(choices)}, not {_shown(value)}{hint}")
        return value

    return check


def strings(value: object) -> tuple[str, ...]:
    """A list of texts; a single text is a list of one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item.strip() for item in items):
        raise UnfitError(f'must be a list of texts such as ["tests"], not {_shown(value)}')
    return tuple(items)


def exit_codes(value: object) -> tuple[int, ...]:
    """A list of exit codes that are no success."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) and 1 <= item <= 255 for item in items):
        raise UnfitError(f"must be a list of exit codes from 1 to 255 such as [78], not {_shown(value)}")
    return tuple(items)


def yes_or_no(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UnfitError(f"must be true or false, not {_shown(value)}")
    return value


def table(value: object) -> Mapping[str, Any]:
    """A table whose keys are somebody else's business."""
    if not isinstance(value, dict):
        raise UnfitError(f"must be a table, not {_shown(value)}")
    return MappingProxyType(value)


DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
SECTIONS: Mapping[str, Mapping[str, Check]] = {
    "project": {
        "python": text(what='a path in quotes such as "python3.12"'),
        "tests": strings,
        "test_timeout": number(above=0.0),
        "hang": number(above=0.0),
    },
    "ipc": {
        "rollout": number(0.0, 1.0),
        "fallback": one_of("auto", "never"),
        "max_fallback_rate": number(0.0, 1.0),
        "validation_ignores": strings,
    },
    "journal": {"max_mb": whole(0, 1 << 20), "keep_days": number()},
    "restart": {
        "strategy": one_of("one_for_one", "one_for_all", "rest_for_one"),
        "restarts": whole(0, 1000),
        "crew_restarts": whole(0, 100_000),
        "within": number(above=0.0),
        "start_failures": whole(0, 1000),
        "first_delay": number(above=0.0),
        "longest_delay": number(above=0.0),
        "stable_after": number(),
        "deaths": whole(1, 100),
    },
    "liveness": {
        "start_grace": number(above=0.0),
        "silence": number(above=1.0),
        "suspended": number(),
        "no_progress": number(),
        "on_blocked": one_of("restart", "warn"),
        "on_held": one_of("restart", "warn"),
        "on_no_progress": one_of("restart", "warn"),
    },
    "log": {"format": one_of("console", "json"), "max_mb": whole(1, 10_000), "keep": whole(1, 1000)},
    "notify": {
        "command": strings,
        "webhook": text(r"(https?://\S+)?", 'an http address in quotes such as "http://127.0.0.1:9000/hook"'),
    },
}
PHASE: Mapping[str, Check] = {
    "driver": one_of("builtin"),
    "actor": text(DOTTED, 'a dotted path in quotes such as "my_package.security:SecurityActor"'),
    "after": strings,
    "interval": number(),
    "task_time": number(),
    "memory_mb": whole(0, 1 << 20),
    "permanence": one_of("permanent", "transient", "temporary"),
    "final_exit_codes": exit_codes,
    "options": table,
}
PHASE_TABLES: Mapping[str, Mapping[str, Check]] = {
    "restart": {name: SECTIONS["restart"][name] for name in PhaseRestartConfig.__dataclass_fields__},
    "probe": {
        "command": strings,
        "every": number(above=0.0),
        "timeout": number(above=0.0),
        "failures": whole(1, 1000),
        "on_failure": one_of("restart", "warn"),
        "start_grace": number(),
    },
}
OWN_PHASE: Mapping[str, Check] = {
    **PHASE,
    "assess": yes_or_no,
    "readers": strings,
    "title": text(r"\S(.{0,38}\S)?", "a short name in quotes, as people read it"),
    "prefix": text(r"[A-Z][A-Z0-9_]{0,30}", 'capitals in quotes such as "SECURITY" (for SECURITY_READ.md)'),
}
RESERVED = frozenset({USER, SUPERVISOR})


def parse(source: str, *, name: str = FILE) -> Config:
    """The configuration that the text stands for; an empty one is all defaults. Raises `ConfigError`."""
    try:
        document = tomllib.loads(source.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+), column \d+", str(error))
        line = int(found[1]) if found else source.count("\n") + 1
        why = str(error).split(" (at ")[0]
        raise ConfigError(name, [Mistake(line, "", f"not valid TOML: {why}")]) from None
    reader = _Reader(lines=_lines(source))
    reader.check_format(document)
    config = reader.config(document)
    if reader.mistakes:
        raise ConfigError(name, sorted(reader.mistakes, key=lambda m: (m.line or 1 << 30, m.where)))
    return config


@dataclass(slots=True)
class _Reader:
    """Walks the parsed document once and gathers what is wrong with it."""

    lines: Mapping[Path, int]
    mistakes: list[Mistake] = field(default_factory=list)

    def check_format(self, document: Mapping[str, Any]) -> None:
        """A file of a newer release may mean something else by what looks familiar."""
        found = document.get("format", FORMAT)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            self.wrong(("format",), f"must be a whole number such as {FORMAT}, not {_shown(found)}")
        elif found > FORMAT:
            self.wrong(("format",), f"{found} is a newer release's; this one knows {FORMAT}. Upgrade phase-supervisor")

    def config(self, document: Mapping[str, Any]) -> Config:
        for key in document:
            if key not in SECTIONS and key not in ("phases", "format"):
                self.wrong((key,), f"is not known here{_meant(key, (*SECTIONS, 'phases'))}")
        project = self.section(document, ("project",), SECTIONS["project"])
        ipc = self.section(document, ("ipc",), SECTIONS["ipc"])
        journal = self.section(document, ("journal",), SECTIONS["journal"])
        restart = self.section(document, ("restart",), SECTIONS["restart"])
        liveness = self.section(document, ("liveness",), SECTIONS["liveness"])
        log = self.section(document, ("log",), SECTIONS["log"])
        notify = self.section(document, ("notify",), SECTIONS["notify"])
        first = restart.get("first_delay", RestartConfig().first_delay)
        if first > restart.get("longest_delay", RestartConfig().longest_delay):
            self.wrong(("restart", "first_delay"), "must not be longer than restart.longest_delay")
        phases, topology = self.phases(document)
        self.check_delays(restart, phases)
        for key, waits in phases.items():
            for other in waits.after:
                if other not in phases:
                    self.wrong(("phases", key, "after"), f"there is no phase {other!r}{_meant(other, tuple(phases))}")
        for circle in circles({key: phase.after for key, phase in phases.items()}):
            self.wrong(("phases", circle[0], "after"), f"waits for itself: {' → '.join((*circle, circle[0]))}")
        for key in ("developer", "debugging"):
            if phases[key].interval and phases[key].driver == "builtin" and not phases[key].actor:
                self.wrong(("phases", key, "interval"), "has no use here: the built-in one works on messages only")
        return Config(
            project=ProjectConfig(**project),
            ipc=IpcConfig(**ipc),
            journal=JournalConfig(**journal),
            restart=RestartConfig(**restart),
            liveness=LivenessConfig(**liveness),
            log=LogConfig(**log),
            notify=NotifyConfig(**notify),
            phases=MappingProxyType(phases),
            topology=topology,
        )

    def phases(self, document: Mapping[str, Any]) -> tuple[dict[str, PhaseConfig], Topology]:
        known = {phase.key: phase for phase in DEFAULT.phases}
        given = document.get("phases", {})
        if not isinstance(given, dict):
            self.wrong(("phases",), f"must be tables such as [phases.qa], not {_shown(given)}")
            given = {}
        configs = {key: PhaseConfig(key=key) for key in known}
        own: list[Phase] = []
        taken = {phase.prefix: phase.key for phase in DEFAULT.phases}
        named = {phase.title.casefold(): phase.key for phase in DEFAULT.phases} | {key: key for key in RESERVED}
        for key in given:
            path = ("phases", key)
            if key in known:
                configs[key] = PhaseConfig(key=key, **self.phase(given, path, PHASE))
                continue
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", key) or key in RESERVED:
                self.wrong(
                    path,
                    "cannot be a phase's key: small letters, digits and _, and neither user nor supervisor",
                )
                continue
            near = _near(key, tuple(known))
            if near and isinstance(given[key], dict) and "actor" not in given[key]:
                self.wrong(path, f"is no phase of the crew, and names no actor to make it one{near}")
                continue
            values = self.phase(given, path, OWN_PHASE)
            if isinstance(given[key], dict) and "actor" not in given[key]:
                self.wrong(path, 'is a phase of your own and needs actor = "package.module:Class"')
            prefix = values.pop("prefix", key.upper())
            title = values.pop("title", key.replace("_", " ").capitalize())
            clash = taken.setdefault(prefix, key)
            if clash != key or f"{prefix}_READ" in STRATEGIC:
                self.wrong((*path, "prefix"), f"{prefix}_READ.md belongs to {clash} already; choose another prefix")
                continue
            other = named.setdefault(title.strip().casefold(), key)
            if other != key:  # "(from …)" in the documents must say who it was
                self.wrong((*path, "title"), f"is how {other} is called already; choose another title")
                continue
            own.append(Phase(key=key, title=title, prefix=prefix, readers=tuple(values.pop("readers", ()))))
            configs[key] = PhaseConfig(**{"key": key, "assess": True, **values})
        own = [replace(phase, readers=self.readers(phase, configs)) for phase in own]
        return configs, Topology(phases=(*DEFAULT.phases, *own)) if own else DEFAULT

    def phase(self, given: Mapping[str, Any], path: Path, checks: Mapping[str, Check]) -> dict[str, Any]:
        """The values of one phase's table, with those of the tables in it."""
        values = self.section(given, path, {**checks, **dict.fromkeys(PHASE_TABLES, table)})
        inner = {
            name: self.section(values, (*path, name), PHASE_TABLES[name]) for name in PHASE_TABLES if name in values
        }
        if "restart" in inner:
            values["restart"] = PhaseRestartConfig(**inner["restart"])
        if "probe" in inner:
            usual = ProbeConfig().timeout
            usual = min(usual, inner["probe"].get("every", usual))
            values["probe"] = ProbeConfig(**{"timeout": usual, **inner["probe"]})
            self.check_probe((*path, "probe"), given[path[-1]]["probe"], values["probe"])
        if values.get("permanence") == "temporary":
            for name in ("final_exit_codes", "restart"):
                if inner.get(name) or (name not in inner and values.get(name)):
                    self.wrong((*path, name), "has no use here: a temporary phase is never started again")
        return values

    def check_probe(self, path: Path, given: Mapping[str, Any], probe: ProbeConfig) -> None:
        """A probe has something to run, and is over before the next."""
        if given and "command" not in given:
            self.wrong(path, 'needs command = ["…"], which says by its exit code whether the worker is well')
        if probe.timeout > probe.every:
            self.wrong((*path, "timeout"), f"must not be longer than every ({probe.every:g} s): one runs at a time")

    def check_delays(self, general: Mapping[str, Any], phases: Mapping[str, PhaseConfig]) -> None:
        """No first delay is longer than the longest, with what a phase takes from [restart]."""
        usual = RestartConfig(**{name: general[name] for name in ("first_delay", "longest_delay") if name in general})
        for key, phase in phases.items():
            own = phase.restart
            first = usual.first_delay if own.first_delay is None else own.first_delay
            longest = usual.longest_delay if own.longest_delay is None else own.longest_delay
            if first > longest and (own.first_delay, own.longest_delay) != (None, None):
                name = "longest_delay" if own.first_delay is None else "first_delay"
                what = f"the first delay would be {first:g} s and the longest {longest:g} s"
                self.wrong(("phases", key, "restart", name), f"does not fit: {what}")

    def readers(self, phase: Phase, known: Collection[str]) -> tuple[str, ...]:
        """Those phases named as its document's readers that can be; the others are noted."""
        path = ("phases", phase.key, "readers")
        for reader in phase.readers:
            if reader == phase.key:
                self.wrong(path, "names the phase itself; its readers are others")
            elif reader not in known:
                self.wrong(path, f"there is no phase {reader!r}{_meant(reader, tuple(known))}")
        return tuple(reader for reader in phase.readers if reader in known and reader != phase.key)

    def section(self, parent: Mapping[str, Any], path: Path, checks: Mapping[str, Check]) -> dict[str, Any]:
        """The values of one table that pass; what does not is noted."""
        given = parent.get(path[-1], {})
        if not isinstance(given, Mapping):
            self.wrong(path, f"must be a table [{'.'.join(path)}], not {_shown(given)}")
            return {}
        values: dict[str, Any] = {}
        for key, value in given.items():
            if key not in checks:
                self.wrong((*path, key), f"is not known here{_meant(key, tuple(checks))}")
                continue
            try:
                values[key] = checks[key](value)
            except UnfitError as error:
                self.wrong((*path, key), str(error))
        return values

    def wrong(self, path: Path, what: str) -> None:
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)
        self.mistakes.append(Mistake(line, ".".join(path), what))


def _meant(word: str, known: Sequence[str]) -> str:
    return _near(word, known) or f"; there are: {', '.join(known)}"


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _either(choices: Sequence[str]) -> str:
    return " or ".join(f'"{choice}"' for choice in choices)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


_HEADER = re.compile(r"^\s*\[\[?\s*(?P<keys>[^\]#]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*(?P<keys>(?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def circles(after: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Phases that wait for themselves, in the order in which they do; each circle once."""
    found: dict[frozenset[str], tuple[str, ...]] = {}
    settled: set[str] = set()

    def follow(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            circle = path[path.index(key) :]
            found.setdefault(frozenset(circle), circle)
        elif key not in settled and key in after:
            for other in after[key]:
                follow(other, (*path, key))
            settled.add(key)

    for key in after:
        follow(key, ())
    return list(found.values())


def line_of(source: str, *path: str) -> int:
    """Where the text says that, 0 where it does not."""
    return _lines(source).get(path, 0)


def _lines(source: str) -> dict[Path, int]:
    """Where each table and key stands (tomllib does not say); what is missed costs a line number only."""
    found: dict[Path, int] = {}
    for table_, key, line in _keys(source):
        path = (*table_, *key)
        for n in range(1, len(path) + 1):
            found.setdefault(path[:n], line)
    return found


def _keys(source: str) -> Iterator[tuple[Path, Path, int]]:
    table_: Path = ()
    inside = ""  # the closing quotes of a text of several lines
    for line, content in enumerate(source.removeprefix("\ufeff").split("\n"), start=1):
        if inside:
            inside = "" if inside in content else inside
            continue
        if header := _HEADER.match(content):
            table_ = _split(header["keys"])
            yield table_, (), line
        elif key := _KEY.match(content):
            yield table_, _split(key["keys"]), line
            for quotes in ('"""', "'''"):
                if content.count(quotes) == 1:
                    inside = quotes


def _split(keys: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(keys))
