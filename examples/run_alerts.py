"""Runs the crew on a fresh copy of examples/alerts and compares what it did with examples/alerts-expected.toml.

Needs nothing but the standard library and the interpreter that the supervisor is installed for. The copy lies in
.build/alerts-run-N and stays there to be looked at. Arguments that are not ours go to `supervisor run` (--plain, -v, …).
Exit code 0: the outcome is the expected one; 1: it is not, each difference is printed; 130: interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "alerts"
EXPECTED = HERE / "alerts-expected.toml"
RUNS = HERE.parent / ".build"
LONGEST_RUN = 300.0  # seconds; after that the run is interrupted, in good order
LONGEST_STOP = 20.0  # seconds that it then has

# The second commit brings these; the first one the rest, so that `git blame` has something to say.
LATER = ("alerts/monitors", "alerts/service.py", "tests/test_memory_monitor.py", "crew")


@dataclass(frozen=True)
class Check:
    """One line of the comparison; `found` says more only where `ok` is false."""

    what: str
    ok: bool
    found: str = ""


@dataclass(frozen=True)
class Tests:
    """One run of the example's own tests, by node id."""

    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    trouble: str = ""


@dataclass(frozen=True)
class Outcome:
    """Everything that the comparison looks at, gathered from outside: files, documents, the command line."""

    exit_code: int
    seconds: float
    before: Tests
    after: Tests
    lint_before: Mapping[str, frozenset[str]]
    lint_after: Mapping[str, frozenset[str]]
    files: Mapping[str, str]  # the workspace's files now, without crew/
    original: Mapping[str, str]
    documents: Mapping[str, str]  # name → text
    inbox: Sequence[str]  # one text per entry
    events: Sequence[Mapping[str, Any]] = ()
    verified: bool = False  # `supervisor docs verify`
    git_before: str = ""  # HEAD, branches and stashes; empty without git
    git_after: str = ""
    trouble: Sequence[str] = field(default_factory=tuple)


def compare(expected: Mapping[str, Any], outcome: Outcome) -> list[Check]:
    """Expected against found, in the order of a reader's interest. Pure."""
    return [
        *(Check(f"could be looked at: {text}", ok=False) for text in outcome.trouble),
        *_run(expected, outcome),
        *_tests(expected, outcome),
        *_lint(expected, outcome),
        *_delivered(expected, outcome),
        *_blocked(expected, outcome),
        *_documents(expected, outcome),
        *_record(outcome),
    ]


def _run(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    code = expected["run"]["exit_code"]
    yield Check(
        f"the run ends by itself with exit code {code}", outcome.exit_code == code, f"{outcome.exit_code}"
    )


def _tests(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    for tests in (outcome.before, outcome.after):
        if tests.trouble:
            yield Check("the example's tests can be run", ok=False, found=tests.trouble)
    for repaired in expected.get("repaired", ()):
        test = repaired["test"]
        ok = test in outcome.before.failed and test in outcome.after.passed
        found = f"before: {_state(test, outcome.before)}, after: {_state(test, outcome.after)}"
        yield Check(f"repaired ({repaired['rule']}): {test.rsplit('::', 1)[1]}", ok, found)
    still = frozenset(blocked["test"] for blocked in expected.get("blocked", ()))
    more = sorted(outcome.after.failed - still)
    yield Check(
        f"all {len(outcome.after.passed)} other tests pass",
        bool(outcome.after.passed) and not more,
        f"failing: {', '.join(more) or 'none ran'}",
    )


def _lint(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    wanted = {entry["file"]: frozenset(entry["rules"]) for entry in expected.get("lint", ())}
    yield Check(
        f"ruff found something in {len(wanted)} files before",
        dict(outcome.lint_before) == wanted,
        _rules(outcome.lint_before),
    )
    yield Check("ruff finds nothing afterwards", not outcome.lint_after, _rules(outcome.lint_after))


def _delivered(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    changed = {name for name, text in outcome.files.items() if outcome.original.get(name) != text}
    changed |= outcome.original.keys() - outcome.files.keys()
    allowed = {entry["file"] for entry in expected.get("lint", ())}
    for section in expected.get("delivered", ()):
        allowed.update(section["files"])
        missing = [name for name in section["files"] if name not in changed]
        yield Check(f"delivered: {section['section']}", not missing, f"not there: {', '.join(missing)}")
    others = sorted(changed - allowed - {"supervisor.toml", ".gitignore"})
    yield Check("no other file of the user's was touched", not others, ", ".join(others))


def _blocked(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    blocked = expected.get("blocked", ())
    yield Check(
        f"{_count(len(blocked), 'request waits', 'requests wait')} in the inbox",
        len(outcome.inbox) == len(blocked),
        f"{len(outcome.inbox)}: " + " | ".join(text[:120] for text in outcome.inbox),
    )
    for entry in blocked:
        test = entry["test"].rsplit("::", 1)[1]
        ok = any(_says(text, [test, *entry["says"]]) for text in outcome.inbox)
        yield Check(
            f"one names {test}, with cause and place", ok, f"wanted: {', '.join([test, *entry['says']])}"
        )
        name = entry["untouched"]
        same = outcome.files.get(name) == outcome.original.get(name)
        yield Check(f"left alone: {name}", same, "was changed")


def _documents(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[Check]:
    for entry in expected.get("documents", ()):
        missing = [
            f"{document}.md: {word!r}"
            for document, words in entry["says"].items()
            for word in words
            if not _says(outcome.documents.get(document, ""), [word])
        ]
        yield Check(f"in the documents: {entry['flow']}", not missing, f"not in {'; '.join(missing)}")


def _record(outcome: Outcome) -> Iterator[Check]:
    yield Check("the history verifies", outcome.verified, "`supervisor docs verify` did not end with 0")
    phases = {event.get("phase") for event in outcome.events if event.get("type") == "phase_complete"}
    missing = {"planning", "developer", "qa", "debugging"} - phases
    yield Check(
        "every phase completed a cycle, on record", not missing, f"missing: {', '.join(sorted(missing))}"
    )
    seen = Counter((event.get("worker"), event.get("epoch"), event.get("seq")) for event in outcome.events)
    double = [f"{key}" for key, count in seen.items() if count > 1]
    yield Check("no event is recorded twice", bool(seen) and not double, ", ".join(double[:5]) or "no events")
    if outcome.git_before:
        same = outcome.git_before == outcome.git_after
        yield Check("the user's own git is as it was", same, "commits, branches or stashes changed")


def _state(test: str, tests: Tests) -> str:
    return "fails" if test in tests.failed else "passes" if test in tests.passed else "did not run"


def _rules(found: Mapping[str, frozenset[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(sorted(rules))}" for name, rules in sorted(found.items()))


def _says(text: str, words: Sequence[str]) -> bool:
    return all(word.casefold() in text.casefold() for word in words)


def _count(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


# --- looking at the workspace -----------------------------------------------------------------------------------------


def run_tests(folder: Path, report: Path) -> Tests:
    """The example's tests with our interpreter; nothing is written into the folder."""
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, "-o", "junit_family=xunit1"],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if not report.exists():
        return Tests(trouble=(done.stdout + done.stderr)[-500:])
    passed: set[str] = set()
    failed: set[str] = set()
    for case in ET.parse(report).getroot().iter("testcase"):
        node = f"{case.get('file', '').replace(os.sep, '/')}::{case.get('name')}"
        bad = case.find("failure") is not None or case.find("error") is not None
        (failed if bad else passed).add(node)
    return Tests(passed=frozenset(passed), failed=frozenset(failed))


def run_ruff(folder: Path) -> dict[str, frozenset[str]]:
    """File → rules, by the example's own selection."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=json", "alerts", "tests"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, set[str]] = {}
    for entry in json.loads(done.stdout):
        name = Path(entry["filename"]).resolve().relative_to(folder.resolve()).as_posix()
        found.setdefault(name, set()).add(entry["code"])
    return {name: frozenset(rules) for name, rules in found.items()}


def read_files(folder: Path) -> dict[str, str]:
    """The user's files, without what belongs to the crew, to git or to a cache."""
    skipped = {".git", ".supervisor", "crew", "__pycache__"}
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not skipped & set(path.relative_to(folder).parts)
    }


def supervisor_command() -> list[str]:
    """The `supervisor` that belongs to this interpreter, whatever else is on the PATH."""
    script = shutil.which("supervisor", path=str(Path(sys.executable).parent))
    return [script] if script is not None else [sys.executable, "-m", "supervisor"]


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*supervisor_command(), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def json_values(text: str) -> list[Any]:
    """A JSON list, one JSON value, or one per line."""
    try:
        value = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


# --- the run ----------------------------------------------------------------------------------------------------------


def fresh_folder() -> Path:
    """`.build/alerts-run-N`, not there before."""
    RUNS.mkdir(exist_ok=True)
    number = 1
    while True:
        folder = RUNS / f"alerts-run-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def copy_example(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".ruff_cache", ".supervisor", ".history")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True, ignore=ignored)


def git(folder: Path, *arguments: str, day: str = "") -> str:
    """One git command as Alex Example; with no settings of ours or the user's taking part."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{who}_NAME": "Alex Example", f"GIT_{who}_EMAIL": "alex@example.com"}
        if day:
            environ[f"GIT_{who}_DATE"] = f"{day}T12:00:00+00:00"
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def make_repository(folder: Path) -> bool:
    """Give the copy a history of two commits; False (and no harm) where there is no git."""
    if shutil.which("git") is None:
        return False
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--", ".", *(f":(exclude){name}" for name in LATER))
    git(folder, "commit", "--quiet", "-m", "Rules, handlers, throttle, command line", day="2026-01-12")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Watch memory too, and how fast it grows", day="2026-03-02")
    return True


def git_state(folder: Path) -> str:
    refs = git(folder, "for-each-ref", "--format=%(refname) %(objectname)")
    return git(folder, "rev-parse", "HEAD") + git(folder, "symbolic-ref", "HEAD") + refs


def run_crew(folder: Path, arguments: Sequence[str]) -> int:
    """`supervisor run --until-idle` with our terminal; interrupted when it takes too long, or when we are."""
    command = [*supervisor_command(), "run", str(folder), "--until-idle", *arguments]
    with subprocess.Popen(command, cwd=folder) as process:
        try:
            return process.wait(LONGEST_RUN)
        except subprocess.TimeoutExpired:
            print(f"\nStill running after {LONGEST_RUN:g} s: interrupting it.", file=sys.stderr)
            interrupt(process)
        except KeyboardInterrupt:  # the terminal has told the supervisor, too: it stops in good order
            pass
        try:
            process.wait(LONGEST_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
        return 130


def interrupt(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.terminate()
    else:
        import signal

        process.send_signal(signal.SIGINT)


def gather(folder: Path, *, before: Outcome, exit_code: int, seconds: float) -> Outcome:
    """The outcome as it can be seen from outside; `before` was taken ahead of the run."""
    trouble: list[str] = []
    inbox: list[str] = []
    events: list[Mapping[str, Any]] = []
    asked = ask(folder, "inbox", "--json")
    try:
        inbox = [json.dumps(value, ensure_ascii=False) for value in json_values(asked.stdout)]
    except ValueError:
        trouble.append(f"`supervisor inbox --json`: {(asked.stderr or asked.stdout)[-300:]}")
    asked = ask(folder, "events", "--json")
    try:
        events = json_values(asked.stdout)
    except ValueError:
        trouble.append(f"`supervisor events --json`: {(asked.stderr or asked.stdout)[-300:]}")
    return Outcome(
        exit_code=exit_code,
        seconds=seconds,
        before=before.before,
        after=run_tests(folder, RUNS / f"{folder.name}-after.xml"),
        lint_before=before.lint_before,
        lint_after=run_ruff(folder),
        files=read_files(folder),
        original=before.original,
        documents={p.stem: p.read_text(encoding="utf-8") for p in (folder / "crew").glob("*.md")},
        inbox=inbox,
        events=events,
        verified=ask(folder, "docs", "verify").returncode == 0,
        git_before=before.git_before,
        git_after=git_state(folder) if before.git_before else "",
        trouble=trouble,
    )


def look(folder: Path, *, with_git: bool) -> Outcome:
    """How the copy is before anybody worked on it."""
    files = read_files(folder)
    tests = run_tests(folder, RUNS / f"{folder.name}-before.xml")
    lint = run_ruff(folder)
    return Outcome(
        exit_code=0,
        seconds=0.0,
        before=tests,
        after=tests,
        lint_before=lint,
        lint_after=lint,
        files=files,
        original=files,
        documents={},
        inbox=(),
        git_before=git_state(folder) if with_git else "",
    )


def show(checks: Sequence[Check], outcome: Outcome, folder: Path) -> None:
    good, bad = ("✓", "✗") if _can_print("✓✗") else ("ok", "NO")
    print(f"\nExpected, and found after {outcome.seconds:.0f} s:\n")
    for check in checks:
        more = "" if check.ok else f"\n      found: {check.found}"
        print(f"  {good if check.ok else bad}  {check.what}{more}")
    wrong = sum(not check.ok for check in checks)
    print(f"\n{'All as expected.' if not wrong else _count(wrong, 'difference.', 'differences.')}")
    print(f"Look around:  cd {_from_here(folder)} && ls crew")
    if outcome.git_before:
        print("What changed: git diff   (nothing was committed for you)")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _from_here(folder: Path) -> str:
    try:
        return os.path.relpath(folder)
    except ValueError:  # on another drive
        return str(folder)


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that does not know a character shows another
    parser = argparse.ArgumentParser(description="Run the crew on a fresh copy of examples/alerts.")
    parser.add_argument(
        "--into", type=Path, help="an empty folder for the copy (default: .build/alerts-run-N)"
    )
    options, passed_on = parser.parse_known_args(argv)
    if options.into is not None:
        options.into.mkdir(parents=True, exist_ok=True)
        if any(options.into.iterdir()):
            parser.error(f"{options.into} is not empty")
        RUNS.mkdir(exist_ok=True)
    folder = (options.into or fresh_folder()).resolve()
    expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8"))
    copy_example(folder)
    with_git = make_repository(folder)
    print(f"A copy of examples/alerts is in {_from_here(folder)}.", flush=True)
    before = look(folder, with_git=with_git)
    done = ask(folder, "init")
    if done.returncode:
        print(
            f"`supervisor init` ended with {done.returncode}:\n{done.stderr or done.stdout}", file=sys.stderr
        )
        return 1
    began = time.monotonic()
    code = run_crew(folder, passed_on)
    seconds = time.monotonic() - began
    if code == 130:
        return 130
    outcome = gather(folder, before=before, exit_code=code, seconds=seconds)
    checks = compare(expected, outcome)
    show(checks, outcome, folder)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
