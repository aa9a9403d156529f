"""Tasks that wait for the same worker, or for any of several."""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TypeAlias

from raypool.accounts import Account, Accounts
from raypool.task_record import TaskRecord

Rank: TypeAlias = tuple[float, float, int]
"""By which the first tasks of two lines compare: urgency, virtual start, number."""


def rank_of(account: Account | None, number: int) -> Rank:
    """The rank of a task, by its account; one that is paused goes before all others."""
    if account is None:
        return (-math.inf, 0.0, number)
    return (account.level.urgency, account.start, number)


class Queue:
    """Tasks of one account, in the order of their numbers."""

    __slots__ = ("_fresh", "_returned", "account")

    def __init__(self, account: Account | None) -> None:
        self.account = account
        self._fresh: deque[TaskRecord] = deque()
        self._returned: list[tuple[int, TaskRecord]] = []

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned)

    def add(self, record: TaskRecord) -> bool:
        """Add a task where its number belongs; whether it may be the first now."""
        if self._fresh and record.number < self._fresh[-1].number:
            heapq.heappush(self._returned, (record.number, record))
            return True
        self._fresh.append(record)
        return len(self) == 1

    def first(self) -> TaskRecord | None:
        """The task with the lowest number, of those that have not ended."""
        fresh, returned = self._fresh, self._returned
        while fresh and fresh[0].has_ended:
            fresh.popleft()
        while returned and returned[0][1].has_ended:
            heapq.heappop(returned)
        if returned and (not fresh or returned[0][0] < fresh[0].number):
            return returned[0][1]
        return fresh[0] if fresh else None

    def pop(self) -> TaskRecord | None:
        """Remove and return the first."""
        first = self.first()
        if first is not None:
            if self._fresh and self._fresh[0] is first:
                self._fresh.popleft()
            else:
                heapq.heappop(self._returned)
        return first

    def pop_last(self) -> TaskRecord | None:
        """Remove and return the last, leaving out what has come back."""
        while self._fresh:
            record = self._fresh.pop()
            if not record.has_ended:
                return record
        return None

    def rank(self) -> Rank:
        """By which it compares with others; it must not be empty."""
        first = self.first()
        assert first is not None
        return rank_of(self.account, first.number)


class Line:
    """Tasks that wait: higher priorities first, then each tenant its share, then by number.

    A task that comes back for another attempt takes the place it had; one that is paused goes
    before all others.
    """

    def __init__(self, accounts: Accounts | None = None) -> None:
        self._accounts = Accounts() if accounts is None else accounts
        self._queues: dict[Account | None, Queue] = {}
        # One entry for each queue, whose rank may have fallen behind, but is never ahead.
        self._order: list[tuple[Rank, Queue]] = []
        self._news: set[Account | None] = set()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, record: TaskRecord) -> None:
        """Add a task where it belongs."""
        account = None if record.is_paused else self._accounts.of(record.task)
        if account is not None:
            account.enter()
        queue = self._queues.get(account)
        if queue is None:
            queue = self._queues[account] = Queue(account)
            queue.add(record)
            heapq.heappush(self._order, (queue.rank(), queue))
            self._news.add(account)
        elif queue.add(record):
            self._news.add(account)
        record.line = self
        self._length += 1

    def discard(self, record: TaskRecord) -> None:
        """Forget a task that is in the line; it must have ended."""
        assert record.has_ended
        self._has_left(record)

    def first(self) -> TaskRecord | None:
        """The task that is taken next."""
        queue = self._next()
        return None if queue is None else queue.first()

    def rank(self) -> Rank | None:
        """By which the first task compares with that of another line."""
        queue = self._next()
        return None if queue is None else queue.rank()

    def take_news(self) -> list[Account | None]:
        """The accounts whose first task may have a lower number than when this was last asked.

        The account is `None` for paused tasks.
        """
        news = list(self._news)
        self._news.clear()
        return news

    def tell_again(self, account: Account | None) -> None:
        """Have `take_news` name an account whatever has happened to its tasks."""
        if account in self._queues:
            self._news.add(account)

    def first_of(self, account: Account | None) -> int | None:
        """The number of that account's first task."""
        queue = self._queues.get(account)
        first = None if queue is None else queue.first()
        return None if first is None else first.number

    def take(self, count: int) -> list[TaskRecord]:
        """Remove and return the first `count` tasks, or all there are, to be sent."""
        taken: list[TaskRecord] = []
        while len(taken) < count and (queue := self._next()) is not None:
            most = count - len(taken) if len(self._order) == 1 else 1
            taken += self._serve(queue, most)
        return taken

    def set_aside(self) -> TaskRecord | None:
        """Remove and return the first task, without serving it."""
        queue = self._next()
        record = None if queue is None else queue.pop()
        if record is not None:
            self._has_left(record)
        return record

    def clear(self) -> list[TaskRecord]:
        """Remove and return every task, without serving it."""
        removed: list[TaskRecord] = []
        while (record := self.set_aside()) is not None:
            removed.append(record)
        return removed

    def take_last(self, share: float) -> list[TaskRecord]:
        """Remove and return that share of what each tenant has, the last ones."""
        removed: list[TaskRecord] = []
        for queue in [queue for queue in self._queues.values() if queue.account is not None]:
            count = int(len(queue) * share)
            while count > 0 and (record := queue.pop_last()) is not None:
                self._has_left(record)
                removed.append(record)
                count -= 1
        return removed

    def has_up_to(self, number: int) -> bool:
        """Whether a task in the line was accepted as `number` or before."""
        firsts = (queue.first() for queue in self._queues.values())
        return any(first is not None and first.number <= number for first in firsts)

    def _next(self) -> Queue | None:
        """The queue whose first task is taken next."""
        order = self._order
        while order:
            noted, queue = order[0]
            if queue.first() is None:
                heapq.heappop(order)
                del self._queues[queue.account]
                self._news.discard(queue.account)
            elif len(order) == 1 or (rank := queue.rank()) <= noted:
                return queue
            else:
                heapq.heapreplace(order, (rank, queue))
        return None

    def _serve(self, queue: Queue, most: int) -> list[TaskRecord]:
        served: list[TaskRecord] = []
        while len(served) < most and (record := queue.pop()) is not None:
            record.line = None
            served.append(record)
        self._length -= len(served)
        if queue.account is not None:
            queue.account.serve(len(served))
        return served

    def _has_left(self, record: TaskRecord) -> None:
        record.line = None
        self._length -= 1
        if not record.is_paused:
            self._accounts.of(record.task).leave()
