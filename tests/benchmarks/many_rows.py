"""`python -m tests.benchmarks.many_rows 10000000`: what `raypool run` takes for so many rows.

Its pool is in the same process and answers at once, so that what is measured is the command itself:
reading, ids, lines, checkpoints. One process answers all rows but 100, a second one the rest, and a
third one does it again without the index.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

from raypool.cli import main
from raypool.errors import PoolStopped
from raypool.response import TaskResult
from raypool.status import PoolStatus
from raypool.task import Task
from raypool.usage import Usage
from tests.statuses import status_of

LEFT = 100


class InstantPool:
    """Answers every task at once, until it has answered `most`."""

    def __init__(self, most: int) -> None:
        self.most = most

    def map(self, tasks: Iterable[Task], *, ordered: bool) -> Iterator[TaskResult]:
        for number, task in enumerate(tasks):
            if number == self.most:
                raise PoolStopped("enough")
            yield TaskResult(
                id=task.id or "",
                worker="w-1",
                role=None,
                prompt=task.prompt,
                state="completed",
                text="It is a number, and then one more than that.",
                usage=Usage(20, 12),
                duration_ms=1.0,
                attempts=1,
                metadata=task.metadata,
                model="none",
                stop_reason="end_turn",
                cost_usd=0.0,
            )

    def status(self) -> PoolStatus:
        return status_of()

    def stop(self, grace: float = 0.0) -> None:
        """Nothing runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def measure_here(most: int) -> None:
    """Run the command in this process, and print what it took."""
    started = time.monotonic()
    report = os.fdopen(os.dup(1), "w", buffering=1)  # the command has stdout for its own

    def start(*_: object, **__: object) -> InstantPool:
        print(f"  first row to be asked after {seconds_since(started)}", file=report)
        return InstantPool(most)

    command = ["run", "in.jsonl", "-o", "out.jsonl", "--backend", "scripted", "--quiet"]
    with patch("raypool.cli.job.start_pool", start), suppress(SystemExit):
        main.main(command)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  ended after {seconds_since(started)}, at most {megabytes:.0f} MB", file=report)


def seconds_since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s ({time.process_time():.1f} s of CPU time)"


def measure(rows: int, directory: Path) -> None:
    """Measure each of the three runs in a process of its own."""
    with (directory / "in.jsonl").open("w") as file:
        for row in range(rows):
            file.write(f'{{"id":"row-{row}","prompt":"What is {row} plus one?","topic":"sums"}}\n')
    for what, most in (("first run", rows - LEFT), ("again", rows), ("without the index", rows)):
        if what == "without the index":
            (directory / "out.jsonl.index").unlink()
        print(f"{rows:,} rows, {what}:", flush=True)
        command = [sys.executable, "-m", "tests.benchmarks.many_rows", str(rows), str(most)]
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root}
        subprocess.run(
            command, cwd=directory, env=environment, check=True, stderr=subprocess.DEVNULL
        )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure_here(int(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as place:
            measure(int(sys.argv[1]), Path(place))
