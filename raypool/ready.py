"""Which workers may be sent something, and in which order they are looked at."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from raypool.accounts import Account
from raypool.backlog import Backlog
from raypool.capacity.gate import Gate
from raypool.line import Rank, rank_of
from raypool.roster import WorkerRecord


class Crowd:
    """Workers with room that wait at one gate, for their own lines or for the backlog.

    The first is the one with the most urgent task; of those that would be sent the same one from
    the backlog, it is the one that has waited for longest.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[str, WorkerRecord]] = {}
        # By account, the workers that have tasks of it in line, by the number of the first. It
        # may be lower than the number now is, but is never higher.
        self._own: dict[Account | None, list[tuple[int, str, WorkerRecord]]] = {}
        self._noted: dict[tuple[str, Account | None], int] = {}
        # The accounts, by ranks that likewise may have fallen behind, but are never ahead: one
        # that is served, which puts all its tasks back, is looked at when it comes up again.
        self._order: list[tuple[Rank, Account | None]] = []
        self._ranks: dict[Account | None, Rank] = {}

    def __iter__(self) -> Iterator[WorkerRecord]:
        """The workers of each role, those first that have waited for longest."""
        return (worker for workers in self._waiting.values() for worker in workers.values())

    def __contains__(self, worker: WorkerRecord) -> bool:
        return worker.name in self._waiting.get(worker.role, ())

    def add(self, worker: WorkerRecord) -> None:
        """Have a worker wait, behind the others unless it waits already."""
        self._waiting.setdefault(worker.role, OrderedDict()).setdefault(worker.name, worker)
        for account in worker.line.take_news():
            number = worker.line.first_of(account)
            if number is not None:
                self._note(worker, account, number)

    def forget(self, worker: WorkerRecord) -> None:
        """Have a worker wait no longer."""
        if worker in self:
            del self._waiting[worker.role][worker.name]

    def clear(self) -> list[WorkerRecord]:
        """Have nobody wait any longer; who did."""
        workers = list(self)
        for account, order in self._own.items():
            for _, _, worker in order:
                worker.line.tell_again(account)
        self._waiting.clear()
        self._own.clear()
        self._noted.clear()
        self._order.clear()
        self._ranks.clear()
        return workers

    def first(self, backlog: Backlog) -> WorkerRecord | None:
        """The worker that would be sent the most urgent task; `None` when there is no task."""
        best, first = self._first_by_own_line()
        for role, workers in self._waiting.items():
            rank = backlog.rank_for(role) if workers else None
            if rank is not None and (best is None or rank < best):
                best, first = rank, next(iter(workers.values()))
        return first

    def _first_by_own_line(self) -> tuple[Rank | None, WorkerRecord | None]:
        """Who has the most urgent task in line, and its rank."""
        while self._order:
            noted, account = self._order[0]
            if self._ranks.get(account) != noted:
                heapq.heappop(self._order)
                continue
            first = self._first_of(account)
            if first is None:
                heapq.heappop(self._order)
                del self._own[account], self._ranks[account]
                continue
            number, _, worker = first
            rank = rank_of(account, number)
            if rank <= noted:
                return rank, worker
            heapq.heapreplace(self._order, (rank, account))
            self._ranks[account] = rank
        return None, None

    def _first_of(self, account: Account | None) -> tuple[int, str, WorkerRecord] | None:
        """The lowest number of the account's first tasks, and whose it is."""
        order = self._own[account]
        while order:
            noted, name, worker = order[0]
            number = worker.line.first_of(account)
            is_here = worker in self
            if is_here and number == noted:
                return order[0]
            heapq.heappop(order)
            if self._noted.get((name, account)) == noted:
                del self._noted[name, account]
                if not is_here:
                    worker.line.tell_again(account)
                elif number is not None:
                    self._note(worker, account, number)
        return None

    def _note(self, worker: WorkerRecord, account: Account | None, number: int) -> None:
        noted = self._noted.get((worker.name, account))
        if noted is None or number < noted:
            self._noted[worker.name, account] = number
            heapq.heappush(self._own.setdefault(account, []), (number, worker.name, worker))
            rank, known = rank_of(account, number), self._ranks.get(account)
            if known is None or rank < known:
                self._ranks[account] = rank
                heapq.heappush(self._order, (rank, account))


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
