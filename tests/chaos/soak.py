"""Chaos for as long as one likes: `python -m tests.chaos.soak --minutes 10 --seed 1`, or `make soak`.

Prints what happens, and in the end what came of it; exit code 1 and the folder kept when anything is wrong.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.account import Account
from tests.chaos.crews import Chaos

ROUND = 120.0  # seconds of chaos between two accounts


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def one_round(folder: Path, *, seed: int, seconds: float, crews: int, verbose: bool) -> list[str]:
    """Chaos for so many seconds on new workspaces; everything that is wrong then."""
    chaos = Chaos(folder, seed=seed, crews=crews, show=say if verbose else lambda _line: None)
    try:
        codes = chaos.run(seconds)
        problems = [f"{name}: the last run ended with {code}" for name, code in codes.items() if code != 0]
        for crew in chaos.crews:
            told = Account(crew.root, crew.witnesses, crew.chains, crew.died_together()).problems()
            problems += [f"{crew.name}: {problem}" for problem in told]
    finally:
        chaos.close()
    done = sum(hops for crew in chaos.crews for hops in crew.chains.values())
    chains = sum(len(crew.chains) for crew in chaos.crews)
    blows = ", ".join(f"{what} ×{times}" for what, times in sorted(chaos.blows.items()))
    say(f"seed {seed}: {done} tasks in {chains} chains; {blows}")
    return problems


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long (default: 5)")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; the next ones count on from it")
    parser.add_argument("--crews", type=int, default=2, help="so many workspaces at once (default: 2)")
    parser.add_argument("--verbose", action="store_true", help="print every blow")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left running then either
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    left = given.minutes * 60
    while left > 0:
        seconds = min(ROUND, left)
        left -= seconds
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        say(f"seed {seed}: {seconds:.0f} s of chaos, {max(0.0, left) / 60:.1f} min to go; {folder / 'chaos.log'} tells")
        began = time.monotonic()
        problems = one_round(folder, seed=seed, seconds=seconds, crews=given.crews, verbose=given.verbose)
        if problems:
            say(f"WRONG after {time.monotonic() - began:.0f} s; again with: make soak SEED={seed}; kept in {folder}")
            for problem in problems:
                say(f"  {problem}")
            return 1
        shutil.rmtree(folder)
        seed += 1
    say("all is well: nothing lost, nothing twice, nothing left running")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
