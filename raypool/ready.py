"""Which workers may be sent something, and in which order they are looked at."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from raypool.capacity.gate import Gate
from raypool.line import Rank
from raypool.roster import WorkerRecord


class Crowd:
    """Workers that wait at one gate, that with the most urgent task first."""

    def __init__(self) -> None:
        self._order: list[tuple[Rank, int, WorkerRecord]] = []
        self._entries: dict[str, tuple[int, WorkerRecord]] = {}
        self._count = 0

    def __iter__(self) -> Iterator[WorkerRecord]:
        """The workers, in no order."""
        return (worker for _, worker in self._entries.values())

    def add(self, worker: WorkerRecord, rank: Rank) -> None:
        """Have a worker wait whose first task has that rank."""
        self._count += 1
        self._entries[worker.name] = (self._count, worker)
        heapq.heappush(self._order, (rank, self._count, worker))

    def forget(self, worker: WorkerRecord) -> None:
        """Have a worker wait no longer."""
        self._entries.pop(worker.name, None)

    def pop(self) -> tuple[WorkerRecord, Rank] | None:
        """Remove and return the first, and the rank that it was added with."""
        while self._order:
            rank, count, worker = heapq.heappop(self._order)
            if self._entries.get(worker.name) == (count, worker):
                del self._entries[worker.name]
                return worker, rank
        return None


class Ready:
    """The workers that are worth a look: marked ones, free ones, and those at a gate."""

    def __init__(self) -> None:
        self._marked: OrderedDict[str, WorkerRecord] = OrderedDict()
        self._free: dict[str | None, OrderedDict[str, WorkerRecord]] = {}
        self._crowds: dict[Gate, Crowd] = {}

    def mark(self, worker: WorkerRecord) -> None:
        """Have a worker be looked at: it may have room, or something to do, that it had not."""
        self._marked[worker.name] = worker

    def next_marked(self) -> WorkerRecord | None:
        """Remove and return the worker that was marked first."""
        if not self._marked:
            return None
        _, worker = self._marked.popitem(last=False)
        self._busy(worker)
        return worker

    def rest(self, worker: WorkerRecord) -> None:
        """Note that a worker could run more than there is for it."""
        for role in (worker.role, None):
            self._free.setdefault(role, OrderedDict())[worker.name] = worker

    def next_free(self, role: str | None) -> WorkerRecord | None:
        """Remove and return the worker of a role that has been free for longest."""
        free = self._free.get(role)
        if not free:
            return None
        worker = next(iter(free.values()))
        self._busy(worker)
        return worker

    def has_free(self, role: str | None) -> bool:
        """Whether a worker of a role is free, or may be."""
        return bool(self._free.get(role) or self._marked)

    def forget(self, worker: WorkerRecord) -> None:
        """Never return a worker again."""
        for crowd in self.crowds:
            crowd.forget(worker)
        self._marked.pop(worker.name, None)
        self._busy(worker)

    def crowd(self, gate: Gate) -> Crowd:
        """The workers that wait at a gate."""
        return self._crowds.setdefault(gate, Crowd())

    def recall(self, role: str | None) -> None:
        """Have a worker of a role be looked at that waits at a gate: its turn may be sooner."""
        workers = (one for crowd in self.crowds for one in crowd if role in (None, one.role))
        worker = next(workers, None)
        if worker is not None:
            self.mark(worker)

    @property
    def crowds(self) -> list[Crowd]:
        """Those who wait at each gate."""
        return list(self._crowds.values())

    def _busy(self, worker: WorkerRecord) -> None:
        for role in (worker.role, None):
            if role in self._free:
                self._free[role].pop(worker.name, None)
