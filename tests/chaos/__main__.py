"""`python -m tests.chaos`: kill a pool's parts at random moments, and count what is lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.rounds import run

KILLS_OF_A_ROUND = 4
TASKS_OF_A_ROUND = 120


def main() -> int:
    """Run rounds, each on a ledger of its own; 1 when anything was lost or repeated."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    failed = 0
    for seed in range(given.seed, given.seed + given.rounds):
        with tempfile.TemporaryDirectory() as directory:
            verdict = run(
                Path(directory, "round"), kills=KILLS_OF_A_ROUND, tasks=TASKS_OF_A_ROUND, seed=seed
            )
        failed += not verdict.is_clean
        kills = ", ".join(f"{count} {victim}" for victim, count in sorted(verdict.kills.items()))
        print(
            f"seed {seed}: {kills} killed; of {verdict.asked} tasks {verdict.missing} missing, "
            f"{verdict.twice} twice, {verdict.wrong} wrong; {verdict.turns} turns, "
            f"{verdict.allowed} allowed",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
