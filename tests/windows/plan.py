"""What of the tests is not run under Wine, and why; a pytest plugin.

Only what Wine (or this one Python for Windows) lacks or takes minutes for is named here: what no Windows has is marked
at the test itself. On Windows proper, as in the workflows of .github, nothing of this applies. `tests/conftest.py`
counts both by reason.
"""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 10  # of each property: the pure cores are the same everywhere, and are tried at length elsewhere
WITHIN = 60.0  # seconds for one test that names no time of its own: Wine starts a process in about one
SLOWER = 3  # times what a test allows itself elsewhere, as in tests/e2e/conftest.py

# All of them but what is named below; each takes some times as long as elsewhere.
WHOLE = ("tests/windows", "tests/e2e", "tests/chaos", "tests/upgrade")

AS_OTHERS = "as its neighbours of the same test, which run"
LONG = "a minute or more under Wine; on Windows itself the workflow's jobs run it"
POLICY = "a pure decision, the same everywhere; the rest of it is what its neighbours do, which run"
LEFT_OUT: dict[str, str] = {  # patterns of node ids
    "*[[]trio*": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*-trio]": "trio polls sockets through \\Device\\Afd, which Wine 8 lacks (WinError 10045); asyncio's half runs",
    "*is_refused[[]change7-symbolic link]": "Wine makes symbolic links, and does not say of them that they are",
    "*::test_stop_asks_first[[]*": "Wine 8 delivers Ctrl-C alone, no Ctrl-Break (see test_console.py)",
    "*::test_a_stopped_one_does_not_outlive*": "Wine never quite ends a process whose threads are suspended",
    "*::test_a_stopped_process_is_*": "Wine does not say that threads are suspended",
    "*::test_a_test_that_hangs_is_named_and_the_rest_is_run": "this Python has no sources of its library to quote",
    "*/test_mailbox.py::test_the_store_does_what_the_model_does*": "minutes under Wine; the same core everywhere",
    "*/test_history.py::test_cut_anywhere*": "half a minute under Wine; the core is the same everywhere",
    "*::test_one_that_somebody_stopped*": "Wine does not say that threads are suspended",
    "*::Test*::runTest": "a state machine over a pure core: the same everywhere, and minutes under Wine",
    "tests/chaos/test_documents.py::*": LONG,
    "tests/chaos/test_exactness.py::test_a_fault_*[[]consumer-paused-until-full]": AS_OTHERS,
    "tests/chaos/test_exactness.py::test_the_check_can_fail*": "a control of the others, seen to fail elsewhere",
    "tests/chaos/test_exactness.py::test_workers_killed_at_random[[]queue-3]": AS_OTHERS,
    "tests/chaos/test_exactness.py::test_workers_killed_at_random[[]stdout-4]": AS_OTHERS,
    "tests/e2e/test_bad_input.py::test_a_configuration_file*": LONG,
    "tests/e2e/test_bad_input.py::test_a_fix_that*": LONG,
    "tests/e2e/test_bad_input.py::test_a_history_cut*": LONG,
    "tests/e2e/test_bad_input.py::test_a_huge_repository": "a hundred thousand files are minutes under Wine",
    "tests/e2e/test_bad_input.py::test_no_python_at_all*": LONG,
    "tests/e2e/test_bad_input.py::test_no_tests*": LONG,
    "tests/e2e/test_bad_input.py::test_packages_named*": LONG,
    "tests/e2e/test_bad_input.py::test_tests_that_hang*": LONG,
    "tests/e2e/test_bad_input.py::test_the_users_git*": LONG,
    "tests/e2e/test_by_hand.py::*": LONG,
    "tests/e2e/test_clocks.py::*": LONG,
    "tests/e2e/test_dashboard.py::*": "needs a browser beside it",
    "tests/e2e/test_example.py::*": LONG,
    "tests/e2e/test_flows.py::test_blocker*": LONG,
    "tests/e2e/test_flows.py::test_feature*": LONG,
    "tests/e2e/test_flows.py::test_issue_reporting*": LONG,
    "tests/e2e/test_held.py::test_a_worker_that_goes_on*": "Wine does not say that threads are suspended",
    "tests/e2e/test_held.py::test_a_worker_that_slept*": "Wine never quite ends a process whose threads are suspended",
    "tests/e2e/test_held.py::test_a_worker_that_was_stopped*": "Wine does not say that threads are suspended",
    "tests/e2e/test_held.py::test_while_the_supervisor*": LONG,
    "tests/e2e/test_kills.py::test_the_queue_taken_away*": LONG,
    "tests/e2e/test_kills.py::test_workers_killed_*": LONG,
    "tests/e2e/test_liveness.py::test_a_task_that_kills*": LONG,
    "tests/e2e/test_many.py::*": "sixty-five interpreters at a time are minutes under Wine, and 4 GB",
    "tests/e2e/test_permanence.py::test_a_final_exit*": POLICY,
    "tests/e2e/test_permanence.py::test_a_loop_of*": POLICY,
    "tests/e2e/test_permanence.py::test_a_permanent*": POLICY,
    "tests/e2e/test_permanence.py::test_a_run_until_idle*": POLICY,
    "tests/e2e/test_permanence.py::test_a_task_in_hand*": POLICY,
    "tests/e2e/test_permanence.py::test_a_temporary_phase_is*": POLICY,
    "tests/e2e/test_permanence.py::test_limits_of*": POLICY,
    "tests/e2e/test_probes.py::test_a_probe_may*": POLICY,
    "tests/e2e/test_probes.py::test_a_probe_that_fails*": POLICY,
    "tests/e2e/test_rights.py::*": LONG,
    "tests/e2e/test_rollout.py::test_a_queue*": LONG,
    "tests/e2e/test_rollout.py::test_a_rollback*": LONG,
    "tests/e2e/test_rollout.py::test_each_audit*": LONG,
    "tests/e2e/test_shown.py::test_both_transports*": LONG,
    "tests/e2e/test_shown.py::test_json*": LONG,
    "tests/e2e/test_shown.py::test_plain*": LONG,
    "tests/e2e/test_validate.py::*": LONG,
    "tests/upgrade/test_upgrade.py::test_an_earlier*without later additions]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]configuration]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]history]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]rollout]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]something unknown]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]spools]": AS_OTHERS,
    "tests/upgrade/test_upgrade.py::test_what_a_newer*[[]status]": AS_OTHERS,
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
