"""Keeping every worker's window full, and settling what comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from raypool.backlog import TaskRecord
from raypool.clock import Clock
from raypool.link import WorkerGone, WorkerLink
from raypool.messages import Outcome
from raypool.recorder import Ended, Recorder
from raypool.records import Ending
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler

logger = logging.getLogger(__name__)


class Sender:
    """Sends tasks to workers as the scheduler says, and tells it what became of them."""

    def __init__(
        self, scheduler: Scheduler, links: dict[str, WorkerLink], recorder: Recorder, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._links = links
        self._recorder = recorder
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._progress = {worker.name: asyncio.Event() for worker in scheduler.roster}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._is_deaf = False

    def pump(self) -> None:
        """Send every worker what it has room for."""
        for worker in self._scheduler.roster:
            self._pump_worker(worker)

    def close(self) -> None:
        """Send nothing more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def deafen(self) -> None:
        """Hear nothing more of what workers do: they are about to be killed."""
        self._is_deaf = True

    async def settle_all(self, timeout: float) -> None:
        """Wait for every envelope to return and every ending to be recorded."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._under_way and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._under_way, timeout=left)

    def record(self, ended: list[Ended]) -> None:
        """Have endings committed and delivered."""
        if ended and not self._is_deaf:
            self._begin(self._recorder.record(ended))

    def cancel(self, records: Iterable[TaskRecord]) -> None:
        """Cancel tasks: those in line at once, those that a worker has through it."""
        ended: list[Ended] = []
        held: dict[str, list[int]] = {}
        for record in records:
            ending = self._scheduler.cancel(record)
            if ending is not None:
                ended.append(Ended(record, ending))
            elif record.worker is not None and not record.has_ended:
                held.setdefault(record.worker, []).append(record.number)
        self.record(ended)
        self._tell_who_waits()
        for name, numbers in held.items():
            self._begin(self._cancel_held(name, numbers))

    async def finish_up_to(self, number: int) -> None:
        """Return when every task accepted as `number` or before has ended.

        Each worker is asked once it has been sent the last of them, and answers when it
        has finished.
        """
        workers = [w for w in self._scheduler.roster if self._has_work(w, number)]
        while workers:
            await asyncio.gather(*(self._finish_worker(worker, number) for worker in workers))
            workers = [w for w in self._scheduler.roster if self._has_work(w, number)]

    def _has_work(self, worker: WorkerRecord, number: int) -> bool:
        return self._scheduler.has_work_up_to(worker, number)

    async def _finish_worker(self, worker: WorkerRecord, number: int) -> None:
        link, progress = self._links[worker.name], self._progress[worker.name]
        while self._has_work(worker, number):
            progress.clear()
            first = worker.line.first_number()
            is_sent = first is None or first > number
            if is_sent and worker.held and not link.has_finished(worker.sent):
                await _first_of(link.finished(worker.sent), progress.wait())
            else:
                await progress.wait()

    def _pump_worker(self, worker: WorkerRecord) -> None:
        if self._is_closed:
            return
        records = self._scheduler.take(worker)
        if records:
            self._begin(self._send(worker, records))

    async def _send(self, worker: WorkerRecord, records: list[TaskRecord]) -> None:
        assignments = [record.assignment() for record in records]
        try:
            async for outcomes in self._links[worker.name].send(assignments):
                self._settle(worker, outcomes)
        except WorkerGone as error:
            self._lose(worker, error)

    def _settle(self, worker: WorkerRecord, outcomes: list[Outcome]) -> None:
        worker.window.ended(len(outcomes), self._clock.monotonic())
        ended = []
        for outcome in outcomes:
            settled = self._scheduler.settle(worker, outcome)
            if settled is not None:
                ended.append(_ended(settled, outcome))
        self.record(ended)
        self._progress[worker.name].set()
        self._pump_worker(worker)
        if self._scheduler.waits:
            self._wake()

    def _lose(self, worker: WorkerRecord, error: BaseException) -> None:
        if self._is_deaf or not worker.is_healthy:
            return
        self._links[worker.name].kill()
        ended = self._scheduler.worker_died(worker, f"worker {worker.name!r} died: {error}")
        self.record([Ended(*one) for one in ended])
        self._tell_who_waits()
        self.pump()

    async def _cancel_held(self, name: str, numbers: list[int]) -> None:
        try:
            dropped = await self._links[name].cancel(numbers)
        except WorkerGone as error:
            self._lose(self._scheduler.roster[name], error)
            return
        worker = self._scheduler.roster[name]
        ended = [self._scheduler.drop(worker, number) for number in dropped]
        self.record([Ended(*one) for one in ended if one is not None])
        self._tell_who_waits()
        self._pump_worker(worker)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, delay = self._scheduler.wake()
        self.record([Ended(*one) for one in ended])
        self._tell_who_waits()
        if delay is not None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake_up)

    def _tell_who_waits(self) -> None:
        """Have every `finish_up_to` look again: a worker may have nothing left to do."""
        for progress in self._progress.values():
            progress.set()

    def _wake_up(self) -> None:
        self._wake()
        self.pump()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("raypool's dispatcher met a defect of its own", exc_info=error)


async def _first_of(asking: Coroutine[Any, Any, None], moving: Coroutine[Any, Any, Any]) -> None:
    """Wait for a worker's answer, or for something to move; for the latter if the worker is gone.

    What was sent after the last task of interest is no reason to wait on.
    """
    answer, move = asyncio.ensure_future(asking), asyncio.ensure_future(moving)
    try:
        await asyncio.wait({answer, move}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.exception() is not None:
            await move
    finally:
        answer.cancel()
        move.cancel()


def _ended(settled: tuple[TaskRecord, Ending], outcome: Outcome) -> Ended:
    events = outcome.answer.events if outcome.answer else None
    exception = outcome.failure.exception if outcome.failure else None
    return Ended(*settled, events, exception)
