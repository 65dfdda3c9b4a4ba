"""What runs under Wine: which whole runs, which not and why; and a pytest plugin that knows what Wine cannot do.

Only what Wine (or this one Python for Windows) lacks is named here: what no Windows has is marked at the test itself.
On Windows proper, as in the workflows of .github, nothing of this applies. `tests/conftest.py` counts both by reason.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 10  # of each property: the pure cores are the same everywhere, and are tried at length elsewhere
WITHIN = 60  # seconds for one test that names no time of its own: Wine starts a process in about one

# Whole runs, each some times as long as elsewhere: flows, kills, both ends on request, bad input, the command line as
# a client, and what only Windows has.
WHOLE = (
    "tests/windows",
    "tests/e2e/test_stopping.py",
    "tests/e2e/test_control.py",
    "tests/e2e/test_order.py",
    "tests/e2e/test_own_actor.py",
    "tests/e2e/test_pausing.py",
    "tests/e2e/test_strategies.py::test_two_deaths_at_once_seat_each_phase_once",
    "tests/e2e/test_strategies.py::test_those_that_began_later_go_with_the_dead_one",
    "tests/e2e/test_strategies.py::test_a_phase_that_was_given_up_is_not_brought_back_by_another_s_death",
    "tests/e2e/test_kills.py::test_the_supervisor_killed",
    "tests/e2e/test_flows.py::test_a_quiet_project_ends_at_once_and_is_approved",
    "tests/e2e/test_flows.py::test_what_was_delivered_can_be_taken_back",
    "tests/e2e/test_bad_input.py::test_no_git_and_no_git_program",
    "tests/e2e/test_bad_input.py::test_files_that_cannot_be_read_as_python",
)
KINDS = ("e2e", "chaos", "upgrade")  # folders of tests with whole runs: each file is run, or left out with a reason
LONG = "minutes under Wine; on Windows itself the workflow's jobs run it"
UNIX = "of Unix alone"
LEFT_OUT: dict[str, str] = {  # of a file that runs in part: the rest of it
    "tests/chaos/test_crews.py": UNIX,
    "tests/chaos/test_documents.py": LONG,
    "tests/chaos/test_exactness.py": LONG,
    "tests/e2e/test_api.py": LONG,
    "tests/e2e/test_bad_input.py": LONG,
    "tests/e2e/test_by_hand.py": LONG,
    "tests/e2e/test_clocks.py": LONG,
    "tests/e2e/test_dashboard.py": "needs a browser beside it",
    "tests/e2e/test_example.py": LONG,
    "tests/e2e/test_flows.py": LONG,
    "tests/e2e/test_held.py": "Wine does not say that threads are suspended",
    "tests/e2e/test_kills.py": LONG,
    "tests/e2e/test_liveness.py": LONG,
    "tests/e2e/test_many.py": LONG,
    "tests/e2e/test_permanence.py": LONG,
    "tests/e2e/test_probes.py": LONG,
    "tests/e2e/test_rights.py": LONG,
    "tests/e2e/test_rollout.py": LONG,
    "tests/e2e/test_service_manager.py": UNIX,
    "tests/e2e/test_shown.py": LONG,
    "tests/e2e/test_strategies.py": UNIX,
    "tests/e2e/test_systemd.py": UNIX,
    "tests/e2e/test_terminal.py": UNIX,
    "tests/e2e/test_validate.py": LONG,
    "tests/upgrade/test_upgrade.py": LONG,
}

LACKING: dict[str, str] = {
    "*[[]trio*": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*-trio]": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*is_refused[[]change7-symbolic link]": "Wine makes symbolic links, and does not say of them that they are",
    "*::test_stop_asks_first[[]*": "Wine 8 delivers Ctrl-C alone, no Ctrl-Break (see test_console.py)",
    "*::test_a_stopped_process_is_told_from_a_running_one": "Wine does not say that threads are suspended",
    "*::test_a_test_that_hangs_is_named_and_the_rest_is_run": "this Python has no sources of its library to quote",
    "*/test_mailbox.py::test_the_store_does_what_the_model_does*": "minutes under Wine; the same core everywhere",
    "*/test_history.py::test_cut_anywhere*": "half a minute under Wine; the core is the same everywhere",
    "*::Test*::runTest": "a state machine over a pure core: the same everywhere, and minutes under Wine",
}


def whole_runs(root: Path) -> dict[str, tuple[str, ...]]:
    """Each file with whole runs, and the names of its tests."""
    found = sorted(file for kind in KINDS for file in (root / "tests" / kind).glob("test_*.py"))
    return {
        file.relative_to(root).as_posix(): tuple(
            re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
        )
        for file in found
    }


def run_here(root: Path) -> dict[str, tuple[str, ...]]:
    """The tests of each such file that `WHOLE` names."""
    named = defaultdict(set)
    for entry in WHOLE:
        file, _, test = entry.partition("::")
        named[file].add(test)
    return {
        file: tuple(test for test in tests if test in named[file] or "" in named[file])
        for file, tests in whole_runs(root).items()
    }


def account(root: Path) -> str:
    """How many tests with whole runs are in the plan, and how many are left out, by file and reason."""
    all_tests, run = whole_runs(root), run_here(root)
    left = {file: len(tests) - len(run[file]) for file, tests in all_tests.items()}
    files = sum(1 for tests in run.values() if tests)
    lines = [f"  {count:4} {file}: {LEFT_OUT[file]}" for file, count in left.items() if count]
    ours = sum(len(tests) for tests in run.values())
    head = f"whole runs: {ours} tests of {files} files in the plan, {sum(left.values())} left out:"
    return "\n".join([head, *lines])


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "wine", max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    settings.load_profile("wine")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.replace("\\", "/")
        for pattern, reason in LACKING.items():
            if fnmatch.fnmatchcase(name, pattern):
                item.add_marker(pytest.mark.lacking(reason=reason))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(WITHIN))
