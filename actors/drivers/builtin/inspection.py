"""What tests and linter say about one commit, as the findings that the crew talks about.

Lint findings are put together, so that nobody gets a hundred messages about one rule: by rule and file, and by rule
alone where it is all over the place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from anyio import CancelScope
from anyio.to_thread import run_sync

from .checks import LintRun, TestRun, run_ruff, run_tests
from .desk import Desk
from .findings import Finding
from .lent import lend, take_back, where_needed
from .project import Project

MOST_FILES = 8  # of one rule, before they become one finding
KEPT = 4  # test runs kept in memory, by commit
MOST_PLACES = 20  # listed in a finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One commit as tests and ruff see it; `findings` are grouped."""

    commit: str
    tests: TestRun
    lint: LintRun
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What should be put right; notes are for information."""
        return tuple(finding for finding in self.findings if finding.severity != "note")

    def has(self, fingerprint: str) -> bool:
        """Whether that finding is (still) there."""
        return any(finding.fingerprint == fingerprint for finding in self.findings)

    def __str__(self) -> str:
        """One line for people."""
        lint = len(self.lint.findings)
        return f"{self.tests}; ruff: {'nothing' if not lint else f'{lint} finding(s)'}"


async def inspect(desk: Desk, commit: str, tree: Path, project: Project) -> Inspection:
    """Run everything in a tree that holds the commit."""
    tests = await test(desk, tree, project)
    desk.context.say("reviewing", 80, "ruff")
    lint = await run_ruff(project, tree)
    stopped = {finding.file for finding in tests.findings if finding.rule == "collection"}
    said = [f for f in lint.findings if not (f.rule == "invalid-syntax" and f.file in stopped)]  # once is enough
    findings = (*by_function(tests.findings), *grouped(said))
    return Inspection(commit=commit, tests=tests, lint=lint, findings=findings)


async def test(desk: Desk, tree: Path, project: Project, *only: str) -> TestRun:
    """Run the tests (or only some) in a tree, saying how far they are."""
    settings = desk.context.project
    chosen = only or tuple(str(name) for name in settings.get("tests", ()))

    said: list[tuple[int, int]] = []

    def progress(done: int, total: int, running: str) -> None:
        percent = round(75 * done / total) if total else 5
        if said[-1:] != [(percent, total)]:
            said.append((percent, total))
            far = f"{done} of {total} tests" if total else "collecting the tests"
            desk.context.say("testing", percent, f"{far} {running}".strip())

    generated = await desk.ignored(where_needed(project))
    there = await run_sync(lend, tree, desk.context.workspace, generated)
    try:
        return await run_tests(
            project,
            tree=tree,
            only=chosen,
            timeout=float(settings.get("test_timeout", 600.0)),
            hang=float(settings.get("hang", 60.0)),
            on_progress=progress,
        )
    finally:
        with CancelScope(shield=True):
            await run_sync(take_back, tree, there)


class KnownRuns:
    """The last few whole test runs of one phase, by commit: what was run there need not run again."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, TestRun] = OrderedDict()

    async def at(self, desk: Desk, commit: str, tree: Path, project: Project) -> TestRun:
        """How green the tests are at that commit, which the tree holds, and holds again afterwards."""
        if commit not in self._runs:
            desk.context.say("investigating", 5, "the tests, as they are")
            self.remember(commit, await test(desk, tree, project))
            await desk.checkout(commit)
        return self._runs[commit]

    def remember(self, commit: str, run: TestRun) -> None:
        self._runs[commit] = run
        while len(self._runs) > KEPT:
            self._runs.popitem(last=False)


async def again(
    desk: Desk, head: str, tree: Path, project: Project, finding: Finding, runs: KnownRuns
) -> tuple[Finding | None, TestRun]:
    """A test's finding as it is now (None: gone), and the run that shows it.

    Where the test alone cannot be started (its module cannot be imported, it was renamed), the whole run decides.
    """
    concerned = str(finding.data.get("id", "")) or finding.file
    run = await test(desk, tree, project, *([concerned] if concerned else []))
    if not shows(run):
        run = await runs.at(desk, head, tree, project)
    return as_it_is(finding, run), run


def shows(run: TestRun) -> bool:
    """Whether something that is absent from the run is not there: what never started shows nothing."""
    return run.status in ("ran", "no tests")


def as_it_is(finding: Finding, run: TestRun) -> Finding | None:
    """The finding as that run has it, as it was where the run shows nothing, None where it is gone."""
    for found in by_function(run.findings):
        if found.fingerprint == finding.fingerprint:
            return found
    return None if shows(run) else finding


def by_function(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings about one test function with several parameters as one: the first, with the ids of all."""
    whole: dict[str, Finding] = {}
    for finding in findings:
        base, bracket, _ = finding.symbol.partition("[")
        if finding.tool != "pytest" or finding.rule != "failure" or not bracket:
            whole.setdefault(finding.fingerprint, finding)
            continue
        one = replace(finding, symbol=base, data={**finding.data, "ids": [finding.data.get("id", "")]})
        first = whole.setdefault(one.fingerprint, replace(one, data={**one.data, "id": f"{one.file}::{base}"}))
        ids = sorted({*first.data["ids"], *one.data["ids"]})
        more = f" (and {len(ids) - 1} more of its parameters)" if len(ids) > 1 else ""
        message = first.message.removesuffix(str(first.data.get("more", ""))) + more
        whole[one.fingerprint] = replace(first, message=message, data={**first.data, "ids": ids, "more": more})
    return tuple(whole.values())


def grouped(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Lint findings by rule and file; by rule alone from `MOST_FILES` files on."""
    by_rule: dict[tuple[str, str], dict[str, list[Finding]]] = {}
    for finding in findings:
        by_rule.setdefault((finding.tool, finding.rule), {}).setdefault(finding.file, []).append(finding)
    groups: list[Finding] = []
    for files in by_rule.values():
        if len(files) > MOST_FILES:
            groups.append(_group([finding for found in files.values() for finding in found], file=""))
        else:
            groups += [_group(found, file=file) for file, found in files.items()]
    return tuple(groups)


def _group(found: list[Finding], *, file: str) -> Finding:
    first = found[0]
    places = [finding.place for finding in found]
    count = f" ({len(found)} times)" if len(found) > 1 else ""
    where = f" in {len({finding.file for finding in found})} files" if not file else ""
    severity = min((finding.severity for finding in found), key=("error", "warning", "note").index)
    return Finding(
        tool=first.tool,
        rule=first.rule,
        file=file,
        line=first.line if file else 0,
        message=f"{first.message}{count}{where}",
        detail="\n".join(
            [*places[:MOST_PLACES], *([f"… {len(places) - MOST_PLACES} more"] if len(places) > MOST_PLACES else [])]
        ),
        severity=severity,
        data={
            **dict(first.data),
            "files": sorted({finding.file for finding in found}),
            "fix": "safe"
            if all(finding.data.get("fix") == "safe" for finding in found)
            else str(first.data.get("fix", "")),
        },
    )
