"""Limits of a phase: which worker takes too much, and what is said about it."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import LivenessConfig
from supervisor.watch import MB, Limits, idle_beats, liveness_policy, memory_of, over_limit, stopped_by
from tests.systems import hold


@given(
    task_time=st.floats(0, 1e6),
    memory_mb=st.integers(0, 10_000),
    task=st.sampled_from(["", "t1"]),
    worked=st.floats(0, 1e7),
    held=st.integers(0, 1 << 40),
)
def test_a_limit_is_passed_or_it_is_not(task_time: float, memory_mb: int, task: str, worked: float, held: int) -> None:
    """Time counts only with a task in hand; 0 is no limit; each verdict names its key in supervisor.toml."""
    limits = Limits(task_time=task_time, memory_mb=memory_mb)
    verdict = over_limit(limits, phase="qa", task=task, worked=worked, held=held)
    too_long = bool(task) and task_time > 0 and worked > task_time
    too_large = memory_mb > 0 and held > memory_mb * MB
    assert (verdict is not None) == (too_long or too_large)
    if verdict is not None:
        assert verdict.action == "restart"
        assert verdict.state == ("over time" if too_long else "over memory")
        assert ("phases.qa.task_time" if too_long else "phases.qa.memory_mb") in verdict.reason
        assert verdict.inputs["held_mb"] == held // MB


@given(silence=st.floats(1.0, 1000.0, exclude_min=True))
def test_an_idle_worker_beats_several_times_in_a_silence(silence: float) -> None:
    """And pulses at least twice as long apart would still be told from none: the longest pause is a third of it."""
    every = idle_beats(LivenessConfig(silence=silence))
    assert 0.5 <= every <= 5.0
    assert every <= max(0.5, silence / 6)


def test_the_policy_is_what_the_file_says() -> None:
    """And 0 seconds of no progress, or of being stopped, mean that nobody is ever ended for that."""
    policy = liveness_policy(LivenessConfig(start_grace=3.0, silence=2.0, suspended=0.0, no_progress=0.0))
    assert (policy.start_grace, policy.silent_after) == (3.0, 2.0)
    assert (policy.suspended_after, policy.no_progress_after) == (None, None)
    assert liveness_policy(LivenessConfig(suspended=9.0)).suspended_after == 9.0


def test_memory_counts_the_whole_tree_and_a_dead_process_nothing() -> None:
    """A child's child counts with it."""
    grandchild = "import time; x = bytearray(64 << 20); print('ready', flush=True); time.sleep(60)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert memory_of({"qa": process.pid})["qa"] > 64 * MB
        import psutil

        for one in psutil.Process(process.pid).children(recursive=True):
            one.kill()
        process.wait()
    assert memory_of({"qa": process.pid}) == {"qa": 0}


def test_a_stopped_process_is_told_from_a_running_one() -> None:
    """And from one that is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert stopped_by(process.pid) is None
        hold(process.pid)
        assert stopped_by(process.pid) == "signal"
        process.kill()
    assert stopped_by(process.pid) is None
