"""Which workers there are, and what each one has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raypool.backlog import Line, TaskRecord
from raypool.window import Window


class WorkerRecord:
    """One worker, as the dispatcher knows it.

    Attributes:
        name: `<pool>-<number>`.
        role: its role.
        line: tasks given to it that wait in the dispatcher.
        held: tasks sent to it and not ended, by number.
        waiting: its tasks that wait for another attempt, by number.
        sent: how many attempts were sent to it.
        completed: tasks it completed.
        failed: tasks that failed on it for good.
        is_healthy: it takes tasks.
    """

    def __init__(self, name: str, role: str, window: Window) -> None:
        self.name = name
        self.role = role
        self.window = window
        self.line = Line()
        self.held: dict[int, TaskRecord] = {}
        self.waiting: dict[int, TaskRecord] = {}
        self.sent = 0
        self.completed = 0
        self.failed = 0
        self.is_healthy = True

    @property
    def unfinished(self) -> int:
        """Tasks that it was given and that have not ended."""
        return len(self.line) + len(self.held) + len(self.waiting)


class Roster:
    """The workers of a pool, in the order of their numbers."""

    def __init__(self, workers: Iterable[WorkerRecord]) -> None:
        self._workers = {worker.name: worker for worker in workers}
        self._healthy: dict[str | None, list[WorkerRecord]] = {}
        self._sort_healthy()

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._workers.values())

    def __getitem__(self, name: str) -> WorkerRecord:
        return self._workers[name]

    def healthy(self, role: str | None) -> list[WorkerRecord]:
        """The healthy workers of a role; of all roles for `None`."""
        return self._healthy.get(role, [])

    def mark_dead(self, worker: WorkerRecord) -> None:
        """Give `worker` nothing more."""
        worker.is_healthy = False
        self._sort_healthy()

    def _sort_healthy(self) -> None:
        alive = [worker for worker in self if worker.is_healthy]
        self._healthy = {None: alive}
        for worker in alive:
            self._healthy.setdefault(worker.role, []).append(worker)
