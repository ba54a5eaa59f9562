"""Draw new examples for every property test, for as long as asked.

The default test run draws the same examples every time. This one draws new ones, round after round, each with a seed of
its own, and stops at the first failure with the smallest example found and the seed that gives it again::

    python tests/measure/draw.py --minutes 30

A counterexample becomes an ``@example(...)`` of its test, or a test of its own.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(seed: int, tests: list[str]) -> list[str]:
    """One round over the property tests (hypothesis marks them ``hypothesis``)."""
    return [
        sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", "-p", "no:cacheprovider",
        "--hypothesis-profile=draw", f"--hypothesis-seed={seed}", *tests,
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="begin new rounds for this long (default 10)")
    parser.add_argument("--seed", type=int, help="one round with this seed, to see a failure again")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders of tests (default: all)")
    args = parser.parse_args()
    if args.seed is not None:
        return subprocess.run(command(args.seed, args.tests), cwd=ROOT, check=False).returncode
    end = time.monotonic() + 60 * args.minutes
    rounds = 0
    while not rounds or time.monotonic() < end:
        seed = random.SystemRandom().randrange(2**32)
        done = subprocess.run(command(seed, args.tests), cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n")
            print(f"round {rounds + 1} failed; see it again with: python tests/measure/draw.py --seed {seed}")
            return 1
        rounds += 1
        print(f"round {rounds}, seed {seed}: {done.stdout.strip().splitlines()[-1]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
