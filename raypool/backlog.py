"""Tasks that were accepted and not sent to a worker yet."""

from __future__ import annotations

import heapq
from collections import deque

from raypool.task_record import TaskRecord


class Line:
    """The tasks that wait for one worker, in the order in which they were accepted.

    A task that comes back for another attempt takes the place it had.
    """

    def __init__(self) -> None:
        self._fresh: deque[TaskRecord] = deque()
        self._returned: list[tuple[int, TaskRecord]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, record: TaskRecord) -> None:
        """Add a task where its number belongs."""
        if self._fresh and record.number < self._fresh[-1].number:
            heapq.heappush(self._returned, (record.number, record))
        else:
            self._fresh.append(record)
        self._length += 1

    def discard(self, record: TaskRecord) -> None:
        """Forget a task that is in the line; it must have ended."""
        assert record.has_ended
        self._length -= 1

    def take(self, count: int) -> list[TaskRecord]:
        """Remove and return the first `count` tasks, or all there are."""
        taken: list[TaskRecord] = []
        while len(taken) < count and (record := self._pop()):
            taken.append(record)
        self._length -= len(taken)
        return taken

    def clear(self) -> list[TaskRecord]:
        """Remove and return every task."""
        return self.take(self._length)

    def first(self) -> TaskRecord | None:
        """The task that is taken next."""
        self._drop_ended()
        if self._is_returned_first():
            return self._returned[0][1]
        return self._fresh[0] if self._fresh else None

    def first_number(self) -> int | None:
        """The lowest number in the line."""
        first = self.first()
        return None if first is None else first.number

    def _pop(self) -> TaskRecord | None:
        self._drop_ended()
        if self._is_returned_first():
            return heapq.heappop(self._returned)[1]
        return self._fresh.popleft() if self._fresh else None

    def _is_returned_first(self) -> bool:
        if not self._returned:
            return False
        return not self._fresh or self._returned[0][0] < self._fresh[0].number

    def _drop_ended(self) -> None:
        while self._fresh and self._fresh[0].has_ended:
            self._fresh.popleft()
        while self._returned and self._returned[0][1].has_ended:
            heapq.heappop(self._returned)
