"""What a pool tells of itself: its status, one task, and what is unfinished."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from raypool.capacity.budget import BudgetBook
from raypool.capacity.gates import Gates
from raypool.link import WorkerLink
from raypool.messages import Found, Unfinished, WorkerReport
from raypool.naming import number_of
from raypool.recorder import Recorder
from raypool.roster import WorkerRecord
from raypool.scaling import Scaler
from raypool.scheduler import Scheduler
from raypool.status import PoolStatus, WorkerState, WorkerStatus
from raypool.tally import Tally
from raypool.task import State
from raypool.task_record import TaskRecord


class Overview:
    """Answers questions about a pool by what its parts know, and changes nothing."""

    def __init__(
        self,
        name: str,
        links: Mapping[str, WorkerLink],
        *,
        scheduler: Scheduler,
        gates: Gates,
        book: BudgetBook,
        scaler: Scaler,
        tally: Tally,
        recorder: Recorder,
    ) -> None:
        self._name = name
        self._links = links
        self._scheduler = scheduler
        self._gates = gates
        self._book = book
        self._scaler = scaler
        self._tally = tally
        self._recorder = recorder

    async def status(self) -> PoolStatus:
        """The pool as it is now; every worker is asked."""
        present = sorted(self._scheduler.roster, key=lambda worker: number_of(worker.name))
        links = [self._links[worker.name] for worker in present]
        reports = await asyncio.gather(*(link.status() for link in links))
        workers = list(map(_worker_status, present, reports))
        running = sum(worker.running for worker in workers)
        tally, kept = self._tally, self._recorder.kept
        return PoolStatus(
            name=self._name,
            queued=max(0, self._scheduler.unfinished - running - kept),
            running=running,
            unrecorded=kept,
            completed=tally.ended["completed"],
            failed=tally.ended["failed"],
            cancelled=tally.ended["cancelled"],
            input_tokens=tally.input_tokens,
            output_tokens=tally.output_tokens,
            cost_usd=tally.cost_usd,
            unpriced=tally.unpriced,
            extra_turns=tally.extra_turns,
            extra_cost_usd=tally.extra_cost_usd,
            maybe_billed=tally.maybe_billed,
            workers=workers,
            scaling=self._scaler.why,
            blocked=self._gates.why,
            budget=self._book.status(),
            limits=self._gates.limits(),
        )

    async def find(self, record: TaskRecord) -> Found:
        """A task that has not ended, as it is now."""
        state: State = "running" if record.has_ended else "queued"
        worker = self._scheduler.roster.get(record.worker)
        if worker is not None and record.number in worker.held:
            report = await self._links[worker.name].status()
            if report is not None and record.number in report.running:
                state = "running"
        return Found(record.task, None, state, record.worker, record.tries.attempts)

    def unfinished_up_to(self, number: int) -> list[Unfinished]:
        """Who has unfinished work that was accepted as `number` or before, and what holds it."""
        counts = self._scheduler.unfinished_up_to(number)
        return [self._unfinished(name, count) for name, count in counts.items()]

    def _unfinished(self, name: str | None, count: int) -> Unfinished:
        if name is None:
            return Unfinished(None, count, None, self._gates.why)
        worker = self._scheduler.roster[name]
        return Unfinished(name, count, worker.halted, worker.gate.why)


def _worker_status(worker: WorkerRecord, report: WorkerReport | None) -> WorkerStatus:
    running = len(report.running) if report else 0
    return WorkerStatus(
        worker=worker.name,
        role=worker.role,
        node=report.node if report else "",
        state=_state(worker, running),
        queued=max(0, worker.unfinished - running),
        running=running,
        completed=worker.completed,
        failed=worker.failed,
        restarts=worker.restarts,
        halted=worker.halted,
    )


def _state(worker: WorkerRecord, running: int) -> WorkerState:
    if not worker.is_healthy:
        return "starting" if worker.is_coming_back else "dead"
    if running:
        return "processing"
    return "idle" if worker.halted is None else "halted"
