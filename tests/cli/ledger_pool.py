"""A pool in this process: a real ledger, answers from a function, no Ray."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import msgspec

from raypool.errors import PoolStopped
from raypool.ledger import Ledger
from raypool.ledgers import find_ledger, open_found
from raypool.output_type import OutputType
from raypool.records import AcceptedTask, Ending, StoredCause, task_result
from raypool.response import TaskResult
from raypool.sqlite_ledger import SqliteLedger
from raypool.status import PoolStatus
from raypool.task import Task
from raypool.usage import Usage
from tests.statuses import status_of

Reply = Callable[[str], str | Exception]


class LedgerPool:
    """Answers `reply(prompt)` for each task that its ledger has not seen the end of.

    Attributes:
        asked: the prompts that were answered, in order.
        stop_after: how many tasks end before the pool stops of itself.
        at_once: how many tasks it takes before it answers them, the last first.
    """

    def __init__(
        self, ledger: str | None, reply: Reply = str.upper, stop_after: int = 1_000_000
    ) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after
        self.at_once = 1
        self._ledger: Ledger = open_found(find_ledger(ledger)) if ledger else SqliteLedger()
        self._reply = reply
        self._next = self._ledger.totals().last_number + 1

    def map(self, tasks: Iterable[Task], *, ordered: bool = True) -> Iterator[TaskResult]:
        coming = iter(tasks)
        while taken := list(itertools.islice(coming, self.at_once)):
            for task in reversed(taken):
                if len(self.asked) >= self.stop_after:
                    raise PoolStopped("stopped")
                yield self._end(task)

    def status(self) -> PoolStatus:
        totals = self._ledger.totals()
        return status_of(
            queued=totals.unfinished,
            completed=totals.completed,
            failed=totals.failed,
            cancelled=totals.cancelled,
            cost_usd=totals.cost_usd,
            unpriced=totals.unpriced,
        )

    def stop(self, grace: float = 0.0) -> None:
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _end(self, task: Task) -> TaskResult:
        accepted = AcceptedTask(
            self._next, task.id or str(self._next), task.prompt, metadata=task.metadata
        )
        self._next += 1
        known = self._ledger.accept([accepted]).get(accepted.number)
        accepted = known.task if known else accepted
        ending = known.ending if known and known.ending else self._answer(accepted)
        result = task_result(accepted, ending)
        if task.output_type is None or ending.text is None:
            return result
        parsed = OutputType.of(task.output_type).parse(ending.text)
        return msgspec.structs.replace(result, parsed=parsed)

    def _answer(self, task: AcceptedTask) -> Ending:
        assert isinstance(task.prompt, str)
        self.asked.append(task.prompt)
        reply = self._reply(task.prompt)
        if isinstance(reply, Exception):
            cause = StoredCause("BackendError", type(reply).__name__, str(reply))
            ending = Ending(task.number, "failed", "w-1", 1, 0, cause=cause)
        else:
            ending = _answered(task.number, reply)
        self._ledger.record([ending])
        return ending


def _answered(number: int, text: str) -> Ending:
    return Ending(
        number,
        "completed",
        "w-1",
        1,
        0,
        duration_ms=1.0,
        text=text,
        usage=Usage(2, 3),
        model="fake",
        stop_reason="end_turn",
        cost_usd=0.5,
    )
