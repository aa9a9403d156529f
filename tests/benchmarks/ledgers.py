"""What a ledger takes: PostgreSQL, safe from a power cut, beside a SQLite file that is as safe."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from raypool.ledger import Ledger
from raypool.ledgers import find_ledger, open_found
from raypool.records import AcceptedTask, Ending
from raypool.task import new_task_id
from raypool.usage import Usage
from tests.benchmarks.measure import Scenario
from tests.postgres_server import PostgresServer

GROUP = 2_000
PROMPT = "What is the capital of France, and which river does it lie on?"
DURABLE = {"fsync": "on", "full_page_writes": "on"}


@contextmanager
def scenarios(count: int) -> Iterator[list[Scenario]]:
    """Accepting and recording `count` tasks, in groups as a busy pool makes them."""
    with ExitStack() as stack:
        server = PostgresServer(DURABLE)
        stack.callback(server.remove)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        ours, peers = (
            Filling(stack.enter_context(closing(open_found(find_ledger(place)))), count)
            for place in (server.new_url(), directory / "run.db")
        )
        yield [
            Scenario(f"tasks {done} by PostgreSQL", "/s", "20,000", mine, theirs, "SQLite")
            for done, mine, theirs in (
                ("accepted", ours.accept, peers.accept),
                ("recorded", ours.record, peers.record),
            )
        ]


class Filling:
    """A ledger that more and more tasks go into."""

    def __init__(self, ledger: Ledger, count: int) -> None:
        self._ledger = ledger
        self._count = count
        self._last = 0

    def accept(self) -> float:
        """How many tasks it accepts in a second."""
        tasks = self._more_tasks()
        return self._rate(lambda first: self._ledger.accept(tasks[first : first + GROUP]))

    def record(self) -> float:
        """How many endings it records in a second."""
        tasks = self._more_tasks()
        self._ledger.accept(tasks)
        endings = [ending_of(task) for task in tasks]
        return self._rate(lambda first: self._ledger.record(endings[first : first + GROUP]))

    def _rate(self, write: Callable[[int], object]) -> float:
        started = time.perf_counter()
        for first in range(0, self._count, GROUP):
            write(first)
        return self._count / (time.perf_counter() - started)

    def _more_tasks(self) -> list[AcceptedTask]:
        numbers = range(self._last + 1, self._last + self._count + 1)
        self._last += self._count
        return [AcceptedTask(n, new_task_id(), PROMPT, metadata={"row": n}) for n in numbers]


def ending_of(task: AcceptedTask) -> Ending:
    return Ending(
        task.number,
        "completed",
        "pool-1",
        1,
        1_700_000_000_000,
        duration_ms=812.5,
        text="Paris, on the Seine.",
        usage=Usage(30, 10),
        model="a-model",
        stop_reason="end_turn",
        cost_usd=0.0001,
        turns=1,
    )
