"""What is killed: a program that has a pool answer questions, and goes on where an earlier one was.

`python -m tests.chaos.program LEDGER TURNS COUNT` notes in the directory TURNS which turns begin.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from raypool import Pool, Task
from raypool.backends import ScriptedBackend

WORKERS = 3
CONCURRENCY = 4
TURN_SECONDS = 0.3
PATIENCE_SECONDS = 120.0


def answer_to(question: str) -> str:
    """What the pool must answer."""
    return f"answer to {question}"


def questions(count: int) -> list[str]:
    """What is asked, each under an id of its own."""
    return [f"question-{number}" for number in range(count)]


def main(ledger: str, turns: str, count: int) -> None:
    """Ask, and return when all is answered."""

    def reply(prompt: str) -> str:
        Path(turns, f"{prompt} {time.time_ns()}").touch()
        return f"answer to {prompt}"

    backend = ScriptedBackend(reply, latency=TURN_SECONDS)
    with Pool.start(WORKERS, concurrency=CONCURRENCY, backend=backend, ledger=ledger) as pool:
        print("started", flush=True)
        futures = pool.submit_many([Task(one, id=one) for one in questions(count)])
        print("submitted", flush=True)
        for future in futures:
            assert future.result(PATIENCE_SECONDS).text == answer_to(future.id)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
