"""What of the tests is not run under Wine, and why; a pytest plugin.

Only what Wine (or this one Python for Windows) lacks is named here, and two tests that are about a hundred thousand
files and sixty-five interpreters at a time: what no Windows has is marked at the test itself. On Windows proper, as in
the workflows of .github, nothing of this applies. `tests/conftest.py` counts both by reason.
"""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 10  # of each property: the pure cores are the same everywhere, and are tried at length elsewhere
WITHIN = 60.0  # seconds for one test that names no time of its own: one of our processes takes about one to start
SLOWER = 3  # times what a test allows itself elsewhere, as in tests/e2e/conftest.py

# All of them but what is named below.
WHOLE = ("tests/windows", "tests/e2e", "tests/chaos", "tests/upgrade")

LEFT_OUT: dict[str, str] = {  # patterns of node ids
    "*[[]trio*": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*-trio]": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*is_refused[[]change7-symbolic link]": "Wine makes symbolic links, and does not say of them that they are",
    "*::test_stop_asks_first[[]*": "Wine 8 delivers Ctrl-C alone, no Ctrl-Break (see test_console.py)",
    "*::test_a_stopped_one_does_not_outlive*": "Wine never quite ends a process whose threads are suspended",
    "*::test_a_stopped_process_is_*": "Wine does not say that threads are suspended",
    "*::test_a_test_that_hangs_is_named_and_the_rest_is_run": "this Python has no sources of its library to quote",
    "*::test_one_that_somebody_stopped*": "Wine does not say that threads are suspended",
    "tests/e2e/test_bad_input.py::test_a_huge_repository": "a hundred thousand files are minutes under Wine",
    "tests/e2e/test_dashboard.py::*": "needs a browser beside it",
    "tests/e2e/test_held.py::test_a_worker_that_goes_on*": "Wine does not say that threads are suspended",
    "tests/e2e/test_held.py::test_a_worker_that_slept*": "Wine never quite ends a process whose threads are suspended",
    "tests/e2e/test_held.py::test_a_worker_that_was_stopped*": "Wine does not say that threads are suspended",
    "tests/e2e/test_many.py::*": "sixty-five interpreters at a time are minutes under Wine, and 4 GB",
}


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "wine", max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    settings.load_profile("wine")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.replace("\\", "/")
        for pattern, reason in LEFT_OUT.items():
            if fnmatch.fnmatchcase(name, pattern):
                item.add_marker(pytest.mark.lacking(reason=reason))
        own = item.get_closest_marker("timeout")
        within = WITHIN if own is None else float(own.args[0]) * SLOWER
        item.add_marker(pytest.mark.timeout(within), append=False)
