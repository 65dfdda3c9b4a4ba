"""Runs a project's tests and linter in a tree, and says as findings what they found, whatever happens to them.

Tests that hang, end the interpreter or never start are results like any other: the one concerned is named, and the rest
is run without it. What a finding means and who should hear of it is decided by the phases.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from ipc.process import SpawnError

from ...environment import environment
from .commands import Ran, run
from .findings import Finding, Severity
from .project import Probe, Project, probe, python_path

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed", "hung", "crashed"]
BAD: frozenset[Outcome] = frozenset({"failed", "error", "hung", "crashed"})
Progress = Callable[[int, int, str], None]  # (tests done, tests in all, what is running)

_PLUGIN = "phase_supervisor_reporter"
_MOST_AGAIN = 8  # runs after the first, each without what ended the one before
_GRACE = 5.0  # seconds that the project's interpreter has to say itself where a test is stuck
NARROW = "E4,E7,E9,F"  # ruff's rules for a project that names none: imports, statements, syntax, pyflakes
_EXIT = 30.0  # seconds it has to exit after the last test; a busy machine takes a few
_START = 60.0  # seconds more for the imports before anything is reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One step of a traceback. `inside` the project; `file` is relative to it then, absolute otherwise."""

    file: str
    line: int
    function: str
    source: str = ""
    inside: bool = False
    values: Mapping[str, str] = field(default_factory=dict)  # plain local values, as text

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line,
            "function": self.function,
            "source": self.source,
            "inside": self.inside,
            "values": dict(self.values),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Frame:
        return cls(
            file=clean(found.get("file", "")),
            line=int(found.get("line") or 0),
            function=clean(found.get("function", "")),
            source=clean(found.get("source", "")),
            inside=bool(found.get("inside")),
            values={clean(k): clean(v) for k, v in dict(found.get("locals") or found.get("values") or {}).items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a test or an import failed: innermost frame last; `causes` are the exceptions behind it."""

    exception: str
    message: str
    frames: tuple[Frame, ...] = ()
    causes: tuple[str, ...] = ()
    when: str = "call"  # setup, call, teardown, collect
    text: str = ""  # as pytest shows it
    output: str = ""  # what the test printed, the end of it

    def to_dict(self) -> dict[str, Any]:
        """JSON values, bounded: the twelve innermost frames, texts cut."""
        return {
            "exception": self.exception,
            "message": self.message[:4000],
            "frames": [frame.to_dict() for frame in self.frames[-12:]],
            "causes": list(self.causes),
            "when": self.when,
            "output": self.output[-2000:],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Failure:
        """What `to_dict` wrote, or what the reporter said."""
        frames = [Frame.from_dict(frame) for frame in found.get("frames") or ()]
        if found.get("syntax"):
            frames.append(Frame.from_dict(found["syntax"]))
        causes = [
            cause if isinstance(cause, str) else f"{cause.get('exception')}: {cause.get('message')}"
            for cause in found.get("causes") or ()
        ]
        return cls(
            exception=clean(found.get("exception", "")),
            message=clean(found.get("message", "")),
            frames=tuple(frames),
            causes=tuple(clean(cause) for cause in causes),
            when=clean(found.get("when", "call")),
            output=clean(found.get("output", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One test and what became of it."""

    __test__ = False  # not one of ours

    id: str
    outcome: Outcome
    seconds: float = 0.0
    line: int = 0
    failure: Failure | None = None

    @property
    def file(self) -> str:
        return self.id.partition("::")[0]

    @property
    def symbol(self) -> str:
        return self.id.partition("::")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """A whole run. `tests` maps ids; `findings` say what is wrong, one per test or cause.

    `status`: "ran" to its end, "no tests", "not started" (a finding says why and what to do), "timed out".
    """

    __test__ = False  # not one of ours

    status: Literal["ran", "no tests", "not started", "timed out"]
    collected: int = 0
    tests: Mapping[str, Test] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    def count(self, *outcomes: Outcome) -> int:
        """How many tests ended so."""
        return sum(test.outcome in outcomes for test in self.tests.values())

    @property
    def is_green(self) -> bool:
        """It ran to its end and nothing is wrong."""
        return self.status == "ran" and not any(f.severity == "error" for f in self.findings)

    def __str__(self) -> str:
        """One line for people: "14 passed, 2 failed in 1.3 s"."""
        if self.status == "not started":
            return "the tests did not start"
        if self.status == "no tests":
            return "there are no tests"
        words: list[tuple[str, int]] = [
            ("passed", self.count("passed", "xpassed")),
            ("failed", self.count("failed")),
            ("in error", self.count("error")),
            ("hanging", self.count("hung")),
            ("crashing the interpreter", self.count("crashed")),
            ("skipped", self.count("skipped")),
            ("expected to fail", self.count("xfailed")),
            ("not importable", sum(len(f.data.get("ids", ("",))) for f in self.findings if f.rule == "collection")),
        ]
        said = ", ".join(f"{n} {word}" for word, n in words if n) or "0 passed"
        late = f", the rest not run: time was up after {self.seconds:.0f} s" if self.status == "timed out" else ""
        return f"{said} in {self.seconds:.1f} s{late}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LintRun:
    """What ruff found. `trouble` is set, with a finding, where it could not run."""

    findings: tuple[Finding, ...] = ()
    trouble: str = ""
    seconds: float = 0.0

    @property
    def fixable(self) -> tuple[Finding, ...]:
        """Those that ruff can fix without changing what the code means."""
        return tuple(f for f in self.findings if f.data.get("fix") == "safe")


# -- tests ---------------------------------------------------------------------------------------------------------


async def run_tests(
    project: Project,
    *,
    tree: Path,
    only: Sequence[str] = (),
    timeout: float = 900.0,  # noqa: ASYNC109 - a result, not an exception
    hang: float = 60.0,
    on_progress: Progress | None = None,
    environ: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
) -> TestRun:
    """Run pytest in `tree` with the project's interpreter, the tree first on its path.

    `only` are test ids or files. `hang` is the limit of one test, `timeout` of everything, in seconds. `environ` is
    where the environment comes from (ours by default), of which only harmless names and those in `allow` are passed on.
    Whatever goes wrong is a finding, not an exception. When cancelled, nothing is left running.
    """
    began = time.monotonic()
    environ = os.environ if environ is None else environ
    asked = await probe(project, tree, environ=environ)
    if asked.trouble or not asked.pytest:
        return _cannot_start(project, asked)
    scratch = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, "", "phase-tests-"))
    try:
        runs = _Runs(
            project,
            tree=tree,
            scratch=scratch,
            asked=asked,
            environ=environ,
            allow=allow,
            hang=hang,
            on_progress=on_progress,
        )
        return await runs.all(only, began, timeout)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, scratch)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class _Runs:
    """One call of `run_tests`: pytest once, and again without what ended it."""

    def __init__(
        self,
        project: Project,
        *,
        tree: Path,
        scratch: Path,
        asked: Probe,
        environ: Mapping[str, str],
        allow: Sequence[str],
        hang: float,
        on_progress: Progress | None,
    ) -> None:
        self.project = project
        self.tree = tree
        self.scratch = scratch
        self.asked = asked
        self.environ = environ
        self.allow = allow
        self.hang = hang
        self.on_progress = on_progress
        self.tests: dict[str, Test] = {}
        self.findings: dict[str, Finding] = {}
        self.collected = 0
        self.left_out: list[str] = []  # modules whose import hangs or crashes

    async def all(self, only: Sequence[str], began: float, timeout: float) -> TestRun:  # noqa: ASYNC109 - see run_tests
        for origin, where in (self.asked.elsewhere or {}).items():
            self._add(_elsewhere(origin, where, self.tree))
        status: Literal["ran", "no tests", "not started", "timed out"] = "ran"
        for attempt in range(1 + _MOST_AGAIN):
            left = began + timeout - time.monotonic()
            if left <= 0:
                status = "timed out"
                break
            session = _Session(self.scratch / f"report-{attempt}.jsonl", self.hang, self._progress)
            try:
                ran = await self._once(only, attempt, session, left)
            except SpawnError as error:
                return _cannot_start(self.project, Probe(trouble=str(error)))
            again = self._judge(session, ran)
            if again == "over":
                break
            if again != "again":
                status = again
                break
        if status == "timed out":
            self._add(
                Finding(
                    tool="pytest",
                    rule="timeout",
                    message=f"stopped after {timeout:g} s; {len(self.tests)} of {self.collected} tests had run",
                    detail="Raise `[project] test_timeout` if they need longer.",
                )
            )
        if status == "ran" and not self.tests and not self.findings:
            status = "no tests"
            self._add(
                Finding(
                    tool="pytest",
                    rule="no-tests",
                    message="pytest found no tests",
                    severity="note",
                    detail="Test files are named test_*.py or *_test.py, unless the configuration says otherwise.",
                )
            )
        return TestRun(
            status=status,
            collected=max(self.collected, len(self.tests)),
            tests=self.tests,
            findings=tuple(self.findings.values()),
            seconds=time.monotonic() - began,
        )

    def _add(self, finding: Finding) -> None:
        before = self.findings.get(finding.fingerprint)
        if before is not None and finding.rule == "collection":
            finding = _of_cause(before, [*before.data["ids"], *finding.data["ids"]])
        self.findings[finding.fingerprint] = finding

    def _is_known(self, test: Test) -> bool:
        """Whether a test only shows that its package cannot be imported, which is a finding already (doctests do)."""
        failure = test.failure
        return (
            failure is not None
            and failure.exception == "CollectError"
            and any(
                f.rule == "collection" and any(name in failure.message for name in f.data["ids"])
                for f in self.findings.values()
            )
        )

    def _progress(self, session: _Session) -> None:
        if self.on_progress is not None:
            done = sum(test_id not in self.tests for test_id in session.tests) + len(self.tests)
            self.on_progress(done, max(self.collected, session.collected + len(self.tests)), session.running)

    async def _once(self, only: Sequence[str], attempt: int, session: _Session, left: float) -> Ran:
        plugins = self.scratch / "plugin"
        temporary = self.scratch / f"tmp-{attempt}"
        skip = self.scratch / f"skip-{attempt}.json"

        def prepare() -> None:
            plugins.mkdir(exist_ok=True)
            temporary.mkdir()
            shutil.copyfile(Path(__file__).with_name("reporter.py"), plugins / f"{_PLUGIN}.py")
            skip.write_text(json.dumps(sorted(self.tests)), encoding="utf-8")

        await anyio.to_thread.run_sync(prepare)
        extra = {
            "PYTHONPATH": python_path(self.project, self.tree, self.environ, str(plugins)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "TMP": str(temporary),
            "PHASE_REPORT_FILE": str(session.path),
            "PHASE_REPORT_ROOT": str(self.tree),
            "PHASE_REPORT_SKIP": str(skip),
            "PHASE_REPORT_HANG": str(self.hang),
            "PHASE_REPORT_PACKAGES": ",".join(package.name for package in self.project.packages),
        }
        command = [
            self.project.python,
            "-m",
            "pytest",
            "-p",
            _PLUGIN,
            f"--rootdir={self.tree}",
            f"--confcutdir={self.tree}",
            "-o",
            f"cache_dir={self.scratch / 'cache'}",
            "--continue-on-collection-errors",
            "--maxfail=0",
            "--tb=short",
            "--color=no",
            "-q",
            *(["-n0"] if self.asked.has_xdist else []),
            *(["--no-cov"] if self.asked.has_cov else []),
            *(f"--ignore={self.tree / name}" for name in self.left_out),
            *only,
        ]
        env = environment(self.environ, extra, allow=self.allow)
        return await run(command, cwd=self.tree, env=env, timeout=left, watch=session.watch)

    def _judge(self, session: _Session, ran: Ran) -> Literal["over", "again", "not started", "timed out"]:
        """Take over what a session said; whether another one is needed."""
        self.collected = max(self.collected, session.collected + len(self.tests))
        for finding in session.findings:
            self._add(finding)
        for test in session.ended():
            self.tests[test.id] = test
            if test.outcome in BAD and not self._is_known(test):
                self._add(_of_test(test))
        for name, where in session.elsewhere.items():
            self._add(_elsewhere(name, where, self.tree))
        if ran.why and not session.stuck and session.status is None:
            return "timed out"
        if session.stuck:
            return self._without(session, "hung", ran)
        if session.status is None and not session.started and not session.running:
            self._add(_not_started(ran))
            return "not started"
        if session.status is None:
            return self._without(session, "crashed", ran)
        if session.late:
            self._add(_did_not_exit(ran))
        if session.status == 2 and session.unfinished:
            return self._without(session, "crashed", ran)
        if session.status in (3, 4):
            self._add(_not_started(ran, session.internal))
            return "not started" if not self.tests else "over"
        return "over"

    def _without(self, session: _Session, outcome: Literal["hung", "crashed"], ran: Ran) -> Literal["over", "again"]:
        """Name what ended the session, and go on without it, if it can be named."""
        if session.unfinished:
            culprit = session.unfinished
            failure = Failure(
                exception="",
                message=_manner(outcome, self.hang, ran, session),
                frames=tuple(session.stuck_at),
                when="call",
                text=_tail(ran.stderr) if outcome == "crashed" else "",
                output=_tail(ran.stdout),
            )
            test = Test(id=culprit, outcome=outcome, line=session.lines.get(culprit, 0), failure=failure)
            self.tests[culprit] = test
            self._add(_of_test(test))
            return "again"
        manner = _manner(outcome, self.hang, ran, session)
        if session.collecting:
            self.left_out.append(session.collecting)
            self._add(
                Finding(
                    tool="pytest",
                    rule="hang" if outcome == "hung" else "crash",
                    file=session.collecting,
                    message=f"importing it {manner}",
                    detail=_tail(ran.stderr),
                    data={"frames": [frame.to_dict() for frame in session.stuck_at[-12:]]},
                )
            )
            return "again"
        after = f"after {session.last}" if session.last else "before the first test"
        self._add(
            Finding(
                tool="pytest",
                rule="hang" if outcome == "hung" else "crash",
                file=session.last.partition("::")[0],
                symbol=session.last.partition("::")[2],
                message=f"the run {manner} {after}",
                detail=_tail(ran.stderr),
            )
        )
        return "again" if session.tests else "over"


class _Session:
    """What one pytest process has said so far, read from its file while it runs."""

    def __init__(self, path: Path, hang: float, progress: Callable[[_Session], None]) -> None:
        self.path = path
        self.hang = hang
        self.progress = progress
        self.offset = 0
        self.rest = b""
        self.started = False
        self.collected = 0
        self.collecting = ""
        self.unfinished = ""
        self.last = ""
        self.since = time.monotonic()
        self.stuck = False
        self.stuck_at: list[Frame] = []
        self.status: int | None = None
        self.late = False
        self.internal = ""
        self.lines: dict[str, int] = {}
        self.tests: dict[str, list[Mapping[str, Any]]] = {}
        self.findings: list[Finding] = []
        self.elsewhere: dict[str, str] = {}

    @property
    def running(self) -> str:
        return self.unfinished or self.collecting

    async def watch(self) -> str:
        """Read on; why the process should be ended, or ""."""
        for record in await anyio.to_thread.run_sync(self._read):
            self._take(record)
        waited = time.monotonic() - self.since
        if self.stuck:
            return "stuck"
        if self.status is not None:
            self.late = waited > _EXIT
            return "it did not exit" if self.late else ""
        # The reporter says itself when a test is stuck; it cannot while something holds the interpreter's lock.
        if waited > self.hang + (_GRACE if self.started else _START):
            self.stuck = True
            return "stuck"
        return ""

    def ended(self) -> list[Test]:
        """The tests that came to their end."""
        return [
            _test(test_id, reports, self.lines.get(test_id, 0))
            for test_id, reports in self.tests.items()
            if test_id != self.unfinished
        ]

    def _read(self) -> list[Mapping[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        records: list[Mapping[str, Any]] = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a test wrote there, or was killed in the middle; what is missing shows as unfinished
            if isinstance(record, dict):
                records.append(record)
        return records

    def _take(self, record: Mapping[str, Any]) -> None:
        self.since = time.monotonic()
        test_id = clean(record.get("id", ""))
        match record.get("t"):
            case "start":
                self.started = True
            case "collecting":
                self.collecting = test_id
            case "collected":
                self.collecting = ""
                self.collected = int(record.get("n", 0))
            case "collect_error":
                self.findings.append(_of_collection(test_id, record))
            case "begin":
                self.collecting = ""
                self.unfinished = test_id
                self.lines[test_id] = int(record.get("line", 0))
            case "report":
                self.tests.setdefault(test_id, []).append(record)
            case "finish":
                self.unfinished, self.last = "", test_id
            case "stuck":
                self.stuck = True
                self.stuck_at = [Frame.from_dict(frame) for frame in record.get("frames", ())]
            case "internal":
                self.internal = clean(record.get("text", ""))
            case "end":
                self.status = int(record.get("status", 0))
                self.elsewhere = {clean(k): clean(v) for k, v in dict(record.get("elsewhere", {})).items()}
            case _:
                pass  # a newer reporter's; none of ours
        self.progress(self)


def _test(test_id: str, reports: Sequence[Mapping[str, Any]], line: int) -> Test:
    """One test from its reports of setup, call and teardown; the first that went wrong gives the reason."""
    outcome: Outcome = "passed"
    failure: Failure | None = None
    for report in reports:
        when, said, expected = report.get("when"), report.get("outcome"), bool(report.get("xfail"))
        if said == "failed":
            if failure is None:
                outcome = "failed" if when == "call" else "error"
                text = clean(report.get("text", ""))
                found = report.get("failure") or {"message": text}
                failure = replace(
                    Failure.from_dict(found), when=clean(when), text=text, output=clean(report.get("output", ""))
                )
        elif said == "skipped" and failure is None:
            outcome = "xfailed" if expected else "skipped"
        elif said == "passed" and when == "call" and expected:
            outcome = "xpassed"
    seconds = sum(float(report.get("seconds", 0.0)) for report in reports)
    return Test(id=test_id, outcome=outcome, seconds=seconds, line=line, failure=failure)


def _of_test(test: Test) -> Finding:
    failure = test.failure or Failure(exception="", message="")
    rule = {"hung": "hang", "crashed": "crash"}.get(test.outcome, "failure")
    if test.outcome in ("hung", "crashed"):
        said = failure.message
    else:
        where = "" if failure.when == "call" else f" in {failure.when}"
        said = f"fails{where}: {_short(failure)}"
    here = [frame.line for frame in failure.frames if frame.file == test.file]
    return Finding(
        tool="pytest",
        rule=rule,
        file=test.file,
        symbol=test.symbol,
        line=here[-1] if here else test.line,
        message=f"{test.symbol or test.id} {said}",
        detail=failure.text or _frames_text(failure.frames),
        data={"id": test.id, "outcome": test.outcome, **failure.to_dict()},
    )


def _of_collection(module: str, record: Mapping[str, Any]) -> Finding:
    text = clean(record.get("text", ""))
    failure = Failure.from_dict({**(record.get("failure") or {"message": text}), "when": "collect"})
    said = _short(failure) if failure.exception else (text.strip().rpartition("\n")[2] or "unknown reason")
    inside = [frame for frame in failure.frames if frame.inside]
    culprit = inside[-1] if inside else None
    finding = Finding(
        tool="pytest",
        rule="collection",
        file=culprit.file if culprit is not None else module,
        line=culprit.line if culprit is not None else 0,
        message=f"cannot be imported: {said}",
        detail=text,
        data={"id": module, "ids": [module], "said": said, "outcome": "error", **failure.to_dict()},
    )
    return _of_cause(finding, [module])


def _of_cause(finding: Finding, modules: Sequence[str]) -> Finding:
    """One finding for all the modules that cannot be imported because of one file."""
    ids = sorted(set(modules))
    others = [name for name in ids if name != finding.file]
    so = "" if not others else f"; so {others[0] if len(others) == 1 else f'{len(others)} modules'} cannot be imported"
    said = str(finding.data["said"])
    message = f"{said}{so}" if so else f"cannot be imported: {said}"
    return replace(finding, message=message, data={**finding.data, "ids": ids})


def _short(failure: Failure) -> str:
    first = next((line.strip() for line in failure.message.split("\n") if line.strip()), "")
    return ": ".join(part for part in (failure.exception, first[:300]) if part)


def _frames_text(frames: Sequence[Frame]) -> str:
    return "\n".join(f"{frame.file}:{frame.line} in {frame.function}: {frame.source}" for frame in frames)


def _manner(outcome: Literal["hung", "crashed"], hang: float, ran: Ran, session: _Session) -> str:
    """How it ended, as the rest of a sentence."""
    if outcome == "hung":
        deepest = next((frame for frame in reversed(session.stuck_at) if frame.inside), None)
        where = f", in {deepest.file}:{deepest.line} `{deepest.source}`" if deepest else ""
        return f"hangs: stopped after {hang:g} s{where}"
    if session.status == 2:
        return "ends the whole run (pytest.exit or KeyboardInterrupt)"
    return f"ends the interpreter: {exit_words(ran.code)}"


def exit_words(code: int) -> str:
    """What an exit code says, in words: a signal's name, a Windows status, or the number."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"killed by {name}"
    if code in (0xC0000005, 0xC00000FD, 0xC0000409):
        names = {0xC0000005: "access violation", 0xC00000FD: "stack overflow", 0xC0000409: "stack buffer overrun"}
        return names[code]
    return f"exit code {code} in the middle of the run"


def _tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.strip().split("\n")[-lines:])[-6000:]


def _elsewhere(name: str, where: str, tree: Path) -> Finding:
    return Finding(
        tool="pytest",
        rule="elsewhere",
        symbol=name,
        message=f"package {name} comes from {where}, not from the files under test",
        detail=(
            f"The tests ran in {tree.name}, but an installed copy wins over it: these results are about that copy. "
            "Uninstall it from the project's environment, or install it as a plain editable (pip install -e .)."
        ),
    )


def _did_not_exit(ran: Ran) -> Finding:
    return Finding(
        tool="pytest",
        rule="no-exit",
        severity="warning",
        message=f"after the last test the process did not exit within {_EXIT:g} s, and was ended",
        detail="A thread that is no daemon, or a child process, is still at work.\n" + _tail(ran.stderr),
    )


def _not_started(ran: Ran, internal: str = "") -> Finding:
    said = internal or _tail(ran.stderr) or _tail(ran.stdout)
    errors = [line for line in said.split("\n") if line.startswith(("E  ", "ERROR", "INTERNALERROR> "))]
    last = (errors or [line for line in said.split("\n") if line.strip()] or [exit_words(ran.code)])[-1]
    return Finding(
        tool="pytest",
        rule="not-started",
        message=f"the tests did not start: {last.removeprefix('E ').removeprefix('ERROR:').strip()[:300]}",
        detail=said,
        data={"code": ran.code},
    )


def _cannot_start(project: Project, asked: Probe) -> TestRun:
    where = f"{project.python} ({project.python_from})"
    if asked.trouble:
        finding = Finding(
            tool="pytest",
            rule="no-interpreter",
            message=f"the project's Python cannot be used: {asked.trouble}",
            detail=f"Tried {where}. Set `[project] python` in supervisor.toml to an interpreter that works.",
        )
    else:
        finding = Finding(
            tool="pytest",
            rule="no-pytest",
            message=f"pytest is not installed in the project's environment: {where}",
            detail=(
                f"Install it there ({project.python} -m pip install pytest), or set `[project] python` in "
                "supervisor.toml to an interpreter that has it."
            ),
        )
    return TestRun(status="not started", findings=(finding,))


# -- ruff ----------------------------------------------------------------------------------------------------------


async def run_ruff(
    project: Project,
    tree: Path,
    *,
    paths: Sequence[str] = (),
    timeout: float = 300.0,  # noqa: ASYNC109 - a result, not an exception
    environ: Mapping[str, str] | None = None,
) -> LintRun:
    """Run our ruff over the tree (or some `paths` of it) by the project's own configuration, else by `NARROW`."""
    if not project.has_python:
        return LintRun()
    environ = os.environ if environ is None else environ
    scratch = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, "", "phase-ruff-"))
    try:
        out = scratch / "findings.json"
        command = [
            *ruff_command("check"),
            "--no-fix",  # a project may set `fix = true`: looking must change nothing
            "--output-format=json",
            f"--output-file={out}",
            "--exit-zero",
            *(() if await anyio.to_thread.run_sync(has_ruff_config, tree) else (f"--select={NARROW}",)),
            *(paths or (".",)),
        ]
        ran: Ran | None = None
        try:
            ran = await run(command, cwd=tree, env=environment(environ), timeout=timeout)
            text = await anyio.to_thread.run_sync(out.read_text, "utf-8")
            found = json.loads(text)
        except (SpawnError, OSError, ValueError) as error:
            said = (ran and (ran.why or _tail(ran.stderr))) or str(error)
            first = next((line for line in said.split("\n") if line.strip()), "no reason given")
            trouble = Finding(tool="ruff", rule="not-started", message=f"ruff did not run: {first[:300]}", detail=said)
            return LintRun(findings=(trouble,), trouble=said)
        findings = await anyio.to_thread.run_sync(_lint_findings, found, tree)
        return LintRun(findings=findings, seconds=ran.seconds)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, scratch)


def has_ruff_config(tree: Path) -> bool:
    """Whether the project says itself which rules it wants; without that only outright mistakes are its findings."""
    if (tree / "ruff.toml").is_file() or (tree / ".ruff.toml").is_file():
        return True
    try:
        return b"[tool.ruff" in (tree / "pyproject.toml").read_bytes()
    except OSError:
        return False


def ruff_command(*arguments: str) -> list[str]:
    """The start of a command that runs the ruff which came with us, leaving no cache behind."""
    from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]

    # A tree lies in a folder that is git-ignored as a whole: ignore rules from above must not count.
    return [str(find_ruff_bin()), *arguments, "--no-cache", "--no-respect-gitignore"]


def _lint_findings(found: Sequence[Mapping[str, Any]], tree: Path) -> tuple[Finding, ...]:
    from .symbols import SymbolTable

    top = os.path.realpath(tree)
    tables: dict[str, SymbolTable] = {}
    findings = []
    for one in found:
        full = os.path.realpath(clean(one.get("filename", "")))
        file = os.path.relpath(full, top).replace(os.sep, "/") if full.startswith(top + os.sep) else full
        if full not in tables:
            tables[full] = SymbolTable.read(Path(full))
        line = int((one.get("location") or {}).get("row", 0))
        rule = clean(one.get("code") or "invalid-syntax")
        message = clean(one.get("message", ""))
        quoted = message.split("`")[1] if message.count("`") >= 2 else ""
        around = tables[full].at(line)
        severity: Severity = "error" if rule in ("invalid-syntax", "E902") or rule.startswith("E9") else "warning"
        findings.append(
            Finding(
                tool="ruff",
                rule=rule,
                file=file,
                symbol=f"{around}#{quoted}" if quoted else around,
                line=line,
                message=message,
                severity=severity,
                data={
                    "fix": clean((one.get("fix") or {}).get("applicability") or ""),  # "safe", "unsafe", …
                    "url": clean(one.get("url") or ""),
                },
            )
        )
    return tuple(findings)


def clean(value: object) -> str:
    """Somebody else's text as text that can be stored: lone surrogates escaped, control characters out."""
    text = value if isinstance(value, str) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c for c in text if c in "\t\n" or (c >= " " and c != "\x7f"))
