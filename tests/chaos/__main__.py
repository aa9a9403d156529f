"""`python -m tests.chaos`: kill a pool's parts at chosen moments, and count what is lost."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.report import line, tables
from tests.chaos.rounds import play


def main() -> int:
    """Play rounds, until Ctrl-C at most; 1 when anything was lost or repeated."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--rounds", type=int, default=42)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path, help="leave ledgers and logs in this directory")
    given = options.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    started = time.monotonic()
    verdicts = []
    with tempfile.TemporaryDirectory() as directory:
        where = given.keep or Path(directory)
        with suppress(KeyboardInterrupt):
            for verdict in play(where, rounds=given.rounds, seed=given.seed):
                verdicts.append(verdict)
                print(line(len(verdicts), verdict), flush=True)
    seconds = time.monotonic() - started
    print(f"\n{tables(verdicts)}\n\n{len(verdicts)} rounds in {seconds:.0f} s")
    return 0 if all(one.is_clean for one in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
