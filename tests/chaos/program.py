"""What is killed: a program that has a pool answer questions, and goes on where an earlier one was.

`python -m tests.chaos.program ADDRESS LEDGER TURNS` reads lines `ask BATCH QUESTION…` and says
`ready`, then of each batch `submitted`, `accepted` and `answered`, or `wrong` and why.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback

from raypool import Pool, PoolStartError, RetryPolicy, Task
from tests.chaos.backend import ChaosBackend, answer_to

WORKERS = 3
CONCURRENCY = 4
PATIENCE_SECONDS = 120.0
START_SECONDS = 90.0
TRY_AGAIN_SECONDS = 0.2


def main(address: str, ledger: str, turns: str) -> None:
    """Ask what is read, until there is no more."""
    pool = _start(address, ledger, ChaosBackend(turns))
    print("ready", flush=True)
    for line in sys.stdin:
        _, batch, *questions = line.split()
        threading.Thread(target=_ask, args=(pool, batch, questions), daemon=True).start()


def _start(address: str, ledger: str, backend: ChaosBackend) -> Pool:
    """A pool, once that of an earlier program is gone."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return Pool.start(
                WORKERS,
                concurrency=CONCURRENCY,
                backend=backend,
                ledger=ledger,
                address=address,
                retry=RetryPolicy(max_attempts=50, initial_seconds=0.2, max_seconds=1.0),
                start_timeout=START_SECONDS,
            )
        except PoolStartError as error:
            print(error, file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                raise
            time.sleep(TRY_AGAIN_SECONDS)


def _ask(pool: Pool, batch: str, questions: list[str]) -> None:
    try:
        futures = pool.submit_many([Task(one, id=one) for one in questions])
        print(f"submitted {batch}", flush=True)
        for future in futures:
            future.accepted(PATIENCE_SECONDS)
        print(f"accepted {batch}", flush=True)
        for future in futures:
            assert future.result(PATIENCE_SECONDS).text == answer_to(future.id)
        print(f"answered {batch}", flush=True)
    except Exception:  # noqa: BLE001 - whatever went wrong, the round has failed
        traceback.print_exc()
        print(f"wrong {batch}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
