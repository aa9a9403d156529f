"""Tasks that were accepted and not sent to a worker yet."""

from __future__ import annotations

import heapq
from collections import deque

from raypool.messages import Assignment
from raypool.records import AcceptedTask
from raypool.retries import Tries
from raypool.usage import Usage


class TaskRecord:
    """A task that has not ended, as the dispatcher knows it.

    Attributes:
        task: what was accepted.
        tries: the attempts behind it.
        usage: tokens spent on it so far.
        cost_usd: what they cost; `None` when some price is not known.
        session_turns: how many tasks its session has behind it.
        streams: somebody wants its text as it is generated.
        worker: the name of the worker it was given to, once it was.
        watchers: (client, ticket) of every future that waits for it.
        is_cancelled: its cancellation was asked for.
        has_ended: its end has been decided.
    """

    __slots__ = (
        "cost_usd",
        "has_ended",
        "is_cancelled",
        "session_turns",
        "streams",
        "task",
        "tries",
        "usage",
        "watchers",
        "worker",
    )

    def __init__(self, task: AcceptedTask) -> None:
        self.task = task
        self.tries = Tries()
        self.usage = Usage()
        self.cost_usd: float | None = 0.0
        self.session_turns = 0
        self.streams = False
        self.worker: str | None = None
        self.watchers: list[tuple[str, int]] = []
        self.is_cancelled = False
        self.has_ended = False

    @property
    def number(self) -> int:
        """The task's place in the order of acceptance."""
        return self.task.number

    @property
    def is_accepted(self) -> bool:
        """Whether the ledger has committed it: it was given to a worker, or ended instead."""
        return self.worker is not None or self.has_ended

    def assignment(self) -> Assignment:
        """The next attempt, as it is sent to a worker."""
        task = self.task
        return Assignment(
            task.number,
            task.id,
            task.prompt,
            self.tries.attempts + 1,
            task.role,
            task.metadata,
            task.timeout,
            task.session,
            self.session_turns,
            task.output_type,
            self.streams,
            self.tries.may_wait,
        )

    def spend(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what an attempt has consumed."""
        self.usage = self.usage + usage if self.usage.total_tokens else usage
        if cost_usd is None or self.cost_usd is None:
            self.cost_usd = None
        else:
            self.cost_usd += cost_usd


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
