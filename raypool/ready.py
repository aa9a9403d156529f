"""Which workers may be sent something, and in which order they are looked at."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from raypool.backlog import Backlog
from raypool.capacity.gate import Gate
from raypool.line import Rank
from raypool.roster import WorkerRecord


class Crowd:
    """Workers with room that wait at one gate, for their own lines or for the backlog.

    The first is the one with the most urgent task; of those that would be sent the same one from
    the backlog, it is the one that has waited for longest.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[str, WorkerRecord]] = {}
        # By the first task of its own line; a rank may have fallen behind, but is never ahead.
        self._order: list[tuple[Rank, int, WorkerRecord]] = []
        self._noted: dict[str, Rank] = {}
        self._count = 0

    def __iter__(self) -> Iterator[WorkerRecord]:
        """The workers of each role, those first that have waited for longest."""
        return (worker for workers in self._waiting.values() for worker in workers.values())

    def __contains__(self, worker: WorkerRecord) -> bool:
        return worker.name in self._waiting.get(worker.role, ())

    def add(self, worker: WorkerRecord) -> None:
        """Have a worker wait, behind the others unless it waits already."""
        self._waiting.setdefault(worker.role, OrderedDict()).setdefault(worker.name, worker)
        self._note(worker)

    def forget(self, worker: WorkerRecord) -> None:
        """Have a worker wait no longer."""
        if worker in self:
            del self._waiting[worker.role][worker.name]

    def clear(self) -> list[WorkerRecord]:
        """Have nobody wait any longer; who did."""
        workers = list(self)
        self._waiting.clear()
        self._order.clear()
        self._noted.clear()
        return workers

    def first(self, backlog: Backlog) -> WorkerRecord | None:
        """The worker that would be sent the most urgent task; `None` when there is no task."""
        first = self._first_of_own_lines()
        best = None if first is None else first.line.rank()
        for role, workers in self._waiting.items():
            rank = backlog.rank_for(role) if workers else None
            if rank is not None and (best is None or rank < best):
                best, first = rank, next(iter(workers.values()))
        return first

    def _first_of_own_lines(self) -> WorkerRecord | None:
        while self._order:
            noted, _, worker = self._order[0]
            if self._noted.get(worker.name) == noted:
                if worker in self and worker.line.rank() == noted:
                    return worker
                del self._noted[worker.name]
                if worker in self:
                    self._note(worker)
                    continue
            heapq.heappop(self._order)
        return None

    def _note(self, worker: WorkerRecord) -> None:
        rank, noted = worker.line.rank(), self._noted.get(worker.name)
        if rank is not None and (noted is None or rank < noted):
            self._count += 1
            self._noted[worker.name] = rank
            heapq.heappush(self._order, (rank, self._count, worker))


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
        for crowd in self._crowds.values():
            crowd.forget(worker)
        self._marked.pop(worker.name, None)
        self._busy(worker)

    def crowd(self, gate: Gate) -> Crowd:
        """The workers that wait at a gate."""
        crowd = self._crowds.get(gate)
        if crowd is None:
            crowd = self._crowds[gate] = Crowd()
        return crowd

    @property
    def crowds(self) -> list[tuple[Gate, Crowd]]:
        """Those who wait at each gate."""
        return list(self._crowds.items())

    def _busy(self, worker: WorkerRecord) -> None:
        for role in (worker.role, None):
            if role in self._free:
                self._free[role].pop(worker.name, None)
