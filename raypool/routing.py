"""Which worker gets a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord


class Routing(Protocol):
    """Chooses a worker for each task, in the order of acceptance."""

    def choose(self, task: AcceptedTask, workers: Sequence[WorkerRecord]) -> WorkerRecord:
        """One of `workers`: those of the task's role that may have it, never none."""


class RoundRobin:
    """Task k of a role goes to worker k mod N of those of that role that may have it."""

    def __init__(self) -> None:
        self._counters: Counter[str | None] = Counter()

    def choose(self, task: AcceptedTask, workers: Sequence[WorkerRecord]) -> WorkerRecord:
        count = self._counters[task.role]
        self._counters[task.role] = count + 1
        return workers[count % len(workers)]
