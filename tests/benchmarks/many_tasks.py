"""What many tasks cost that wait: to accept them, to keep them, and to find them again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from raypool import Pool
from raypool.backends import ScriptedBackend
from raypool.records import AcceptedTask
from raypool.sqlite_ledger import SqliteLedger
from raypool.task import new_task_id
from tests.benchmarks.gate_cost import dispatchers
from tests.benchmarks.measure import Scenario

NEVER_SECONDS = 86_400.0
PIECE = 50_000
MEGABYTE = 1_000_000


@contextmanager
def scenarios(count: int) -> Iterator[list[Scenario]]:
    """Over `count` tasks, all of which are unfinished at once."""
    with ExitStack() as stack:
        waiting = Waiting(stack, count)
        answering = Answering(stack, max(8, count // 10))
        left = Left(stack, count)
        yield [
            Scenario(
                "tasks accepted and committed while none ends",
                "tasks/s",
                "≥ 20,000",
                waiting.accept_rate,
            ),
            Scenario(
                f"memory of a dispatcher with {count:,} more unfinished tasks each time",
                "MB",
                "< 500 MB",
                waiting.megabytes,
            ),
            Scenario(
                "outcomes recorded, next_free, 2 workers", "outcomes/s", "≥ 20,000", answering.rate
            ),
            Scenario(
                f"start on a ledger with {count:,} unfinished tasks",
                "s",
                "< 10 s",
                left.ready_seconds,
            ),
        ]


class Waiting:
    """A pool whose turns never end, and which is given ever more tasks."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._stack = stack
        self._count = count

    @cached_property
    def _pool_and_process(self) -> tuple[Pool, psutil.Process]:
        before = dispatchers()
        pool = Pool.start(
            2, backend=ScriptedBackend(latency=NEVER_SECONDS), ledger=str(_path(self._stack))
        )
        self._stack.callback(pool.stop)
        [process] = dispatchers() - before
        return pool, process

    def accept_rate(self) -> float:
        """Tasks per second, from the first submit to the commit of the last."""
        pool, _ = self._pool_and_process
        started = time.perf_counter()
        for start in range(0, self._count, PIECE):
            with Pool.connect(pool.name) as client:
                piece = range(start, min(start + PIECE, self._count))
                futures = client.submit_many([f"question {n}" for n in piece])
                futures[-1].accepted()
        return self._count / (time.perf_counter() - started)

    def megabytes(self) -> float:
        """The dispatcher's resident memory after some more."""
        self.accept_rate()
        _, process = self._pool_and_process
        return process.memory_info().rss / MEGABYTE


class Answering:
    """Pools whose turns take no time, which go on with what is in a ledger."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._stack = stack
        self._count = count

    @cached_property
    def _path_of_tasks(self) -> Path:
        return _path(self._stack)

    def rate(self) -> float:
        """Outcomes per second, from the moment that the pool has started."""
        path = self._path_of_tasks
        path.unlink(missing_ok=True)
        write_tasks(path, self._count)
        with Pool.start(
            2, backend=ScriptedBackend(), routing="next_free", ledger=str(path)
        ) as pool:
            started, first = time.perf_counter(), pool.status().completed
            pool.wait_for_all()
            return (self._count - first) / (time.perf_counter() - started)


class Left:
    """A ledger with what an earlier run has left."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._stack = stack
        self._count = count

    @cached_property
    def _ledger(self) -> Path:
        path = _path(self._stack)
        write_tasks(path, self._count)
        return path

    def ready_seconds(self) -> float:
        """From the call of `Pool.start` to a task that is accepted."""
        ledger = self._ledger
        started = time.perf_counter()
        pool = Pool.start(2, backend=ScriptedBackend(latency=NEVER_SECONDS), ledger=str(ledger))
        pool.submit("one more").accepted()
        seconds = time.perf_counter() - started
        pool.stop()
        return seconds


def write_tasks(path: Path, count: int) -> None:
    """A ledger with so many small tasks that have not ended."""
    with closing(SqliteLedger(path)) as ledger:
        for start in range(1, count + 1, PIECE):
            numbers = range(start, min(start + PIECE, count + 1))
            ledger.accept([AcceptedTask(n, new_task_id(), f"question {n}") for n in numbers])


def _path(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory())) / "run.db"
