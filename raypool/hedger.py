"""Having late tasks run on a second worker, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from raypool.clock import Clock
from raypool.hedging import Hedging
from raypool.messages import Outcome
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.settling import InVain
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast

SHORTEST_WAIT = 0.001


class Hedger:
    """Starts second copies as `Hedging` says, and counts what was spent in vain.

    It wakes by itself only while a turn may become late.

    Attributes:
        send: sends a worker tasks that it holds.
    """

    send: Callable[[WorkerRecord, list[TaskRecord]], None]

    def __init__(
        self,
        hedging: Hedging,
        scheduler: Scheduler,
        tally: Tally,
        broadcast: Broadcast,
        clock: Clock,
    ) -> None:
        self._hedging = hedging
        self._scheduler = scheduler
        self._tally = tally
        self._broadcast = broadcast
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Start no more copies."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def sent(self, worker: WorkerRecord, records: list[TaskRecord]) -> None:
        """A worker was sent tasks."""
        self._hedging.sent(worker, records)

    def settled(self, worker: WorkerRecord, outcome: Outcome, settled: object) -> None:
        """An attempt has ended, which meant that to the scheduler."""
        is_in_vain = isinstance(settled, InVain)
        has_run = outcome.answer is not None or is_in_vain
        self._hedging.left(worker, outcome.number, has_run=has_run)
        if isinstance(settled, InVain):
            self._tally.add_in_vain(settled.usage, settled.cost_usd)
            self._broadcast.emit(
                "task.hedge_lost",
                worker=worker.name,
                role=worker.role,
                task=settled.record.task.id,
                input_tokens=settled.usage.total_tokens - settled.usage.output_tokens,
                output_tokens=settled.usage.output_tokens,
                cost_usd=settled.cost_usd,
            )

    def returned(self, worker: WorkerRecord, numbers: Iterable[int]) -> None:
        """A worker has given back tasks that it had not begun."""
        for number in numbers:
            self._hedging.left(worker, number, has_run=False)

    def lost(self, worker: WorkerRecord) -> None:
        """A worker is gone, with what it had."""
        self._hedging.lost(worker)

    def look(self, workers: Iterable[WorkerRecord]) -> None:
        """Have those of these workers that are free run what is late."""
        if self._is_closed:
            return
        seconds = self._hedging.look()
        for run, worker in self._hedging.matches(workers):
            copy = self._scheduler.copy(run.record, worker)
            if copy is None:
                continue
            waited = self._clock.monotonic() - run.started
            self._hedging.copied(run, worker)
            self._broadcast.emit(
                "task.hedged",
                worker=worker.name,
                role=worker.role,
                task=run.record.task.id,
                waited_seconds=round(waited, 3),
            )
            self.send(worker, [copy])
        if seconds is not None:
            self._wake_in(max(seconds, SHORTEST_WAIT))

    def _wake_in(self, seconds: float) -> None:
        """Look again by then, unless that is due already."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.look(self._scheduler.roster)
