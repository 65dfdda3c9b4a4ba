"""Applies what ruff can fix safely, and judges whether the tests stayed as green as they were.

Never an unsafe fix. Whether a fix is kept is decided by the phases, with `as_green`, a pure comparison of two runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from ipc.process import SpawnError

from ...environment import environment
from .checks import BAD, TestRun, ruff_command, run_ruff
from .commands import run
from .findings import Finding
from .project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What the safe fixes did: files changed, findings gone, findings left; `trouble` if ruff could not do it."""

    files: tuple[str, ...] = ()
    gone: tuple[Finding, ...] = ()
    left: tuple[Finding, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a change may stay, and if not, every reason, as parts of a sentence."""

    ok: bool
    reasons: tuple[str, ...] = ()


async def safe_fixes(
    project: Project,
    tree: Path,
    findings: Sequence[Finding],
    *,
    timeout: float = 300.0,  # noqa: ASYNC109 - a result, not an exception
    environ: Mapping[str, str] | None = None,
) -> Fixed:
    """Let ruff fix these findings' rules in these findings' files, safely, and look what is gone."""
    ours = [f for f in findings if f.tool == "ruff" and f.file and f.rule.isalnum()]
    if not ours:
        return Fixed(left=tuple(findings))
    files = sorted({f.file for f in ours})
    before = await anyio.to_thread.run_sync(_contents, tree, files)
    command = [
        *ruff_command("check"),
        "--fix-only",
        "--no-unsafe-fixes",
        "--exit-zero",
        "--quiet",
        f"--select={','.join(sorted({f.rule for f in ours}))}",
        "--",
        *files,
    ]
    env = environment(os.environ if environ is None else environ)
    try:
        ran = await run(command, cwd=tree, env=env, timeout=timeout)
    except SpawnError as error:
        return Fixed(left=tuple(findings), trouble=str(error))
    changed = [
        file for file, old in before.items() if old != (await anyio.to_thread.run_sync(_contents, tree, [file]))[file]
    ]
    if ran.why or ran.code:
        trouble = ran.why or ran.stderr.strip()[-2000:] or f"exit code {ran.code}"
        return Fixed(files=tuple(changed), left=tuple(findings), trouble=trouble)
    if not changed:
        return Fixed(left=tuple(findings))
    after = await run_ruff(project, tree, paths=files, environ=environ)
    if after.trouble:
        return Fixed(files=tuple(changed), left=tuple(findings), trouble=after.trouble)
    still = Counter(f.fingerprint for f in after.findings)
    gone: list[Finding] = []
    left: list[Finding] = []
    for finding in findings:
        if still[finding.fingerprint]:
            still[finding.fingerprint] -= 1
            left.append(finding)
        elif finding in ours:
            gone.append(finding)
        else:
            left.append(finding)
    return Fixed(files=tuple(changed), gone=tuple(gone), left=tuple(left))


def _contents(tree: Path, files: Sequence[str]) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for file in files:
        try:
            found[file] = (tree / file).read_bytes()
        except OSError:
            found[file] = None
    return found


def as_green(before: TestRun, after: TestRun) -> Verdict:
    """Whether nothing got worse: no test that passed fails, hangs or is gone; no new error of any kind.

    What was wrong before may stay wrong. Without a run to compare with, nothing shows that a change is safe; a project
    that has no tests at all is taken as it is.
    """
    if after.status == "not started":
        why = after.findings[0].message if after.findings else "no reason given"
        return Verdict(ok=False, reasons=(f"the tests cannot be run: {why}",))
    if after.status == "timed out":
        return Verdict(ok=False, reasons=(f"the tests did not end in {after.seconds:.0f} s, so nothing is shown",))
    reasons: list[str] = []
    known = {f.fingerprint for f in before.findings}
    for finding in after.findings:
        if finding.severity == "error" and finding.fingerprint not in known:
            test = before.tests.get(str(finding.data.get("id", "")))
            was = "" if test is None else f" ({_was(test.outcome)} before)"
            reasons.append(f"{finding.message}{was}")
    gone = [test.id for test in before.tests.values() if test.outcome == "passed" and test.id not in after.tests]
    if gone:
        listed = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        reasons.append(f"{'tests are' if len(gone) > 1 else 'a test is'} gone that passed before: {listed}")
    if after.status == "no tests" and before.status == "ran" and not gone:
        reasons.append("there are no tests any more")
    return Verdict(ok=not reasons, reasons=tuple(reasons))


def _was(outcome: str) -> str:
    return "it was wrong in another way" if outcome in BAD else f"it {outcome}"
