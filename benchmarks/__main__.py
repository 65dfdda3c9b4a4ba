"""`python -m benchmarks`: run every benchmark, print a table and the goals, write `benchmarks/results.json`."""

from __future__ import annotations

import argparse
import compileall
import json
import platform
from pathlib import Path


def main() -> None:
    """Each benchmark gives a flat dict; `--only TEXT` picks those whose name has the text."""
    # Not above: the processes that are measured import this module, and must not hold all the others.
    from benchmarks import documents, events, supervision
    from benchmarks.goals import judged

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--long", action="store_true", help="ten million events instead; takes some minutes")
    arguments = parser.parse_args()
    target = Path(__file__).with_name("results.json")
    for room in ("ipc", "docs_store", "actors", "supervisor"):  # as an installation has it: no process compiles sources
        compileall.compile_dir(target.parent.parent / room, quiet=1)
    keep = (arguments.only or arguments.long) and target.exists()
    results: dict[str, float | str] = json.loads(target.read_text()) if keep else {}
    results["python"] = platform.python_version()
    chosen = events.LONG if arguments.long else {**events.BENCHMARKS, **documents.BENCHMARKS, **supervision.BENCHMARKS}
    measured: dict[str, float] = {}
    for name, benchmark in chosen.items():
        if arguments.only in name:
            for key, value in benchmark(0.1 if arguments.quick else 1.0).items():
                measured[key] = results[key] = round(value, 2)
                print(f"{key:<44}{value:>16,.2f}", flush=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    goals = [*judged(measured)]
    if goals:
        print("\nGoals:", *goals, sep="\n")


if __name__ == "__main__":
    main()
