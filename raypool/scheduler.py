"""Every unfinished task of a pool, and what happens to it next.

Told what happened (a task was accepted, an attempt ended, a worker died, time has
passed), it says what to do: which tasks to send where, and how a task ended. It
neither waits nor talks to anybody.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

from raypool.backlog import TaskRecord
from raypool.clock import Clock
from raypool.messages import Answer, Failure, Outcome
from raypool.records import Ending, EndState, StoredCause
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import Routing


class Scheduler:
    """Keeps the unfinished tasks and decides who runs them, when, and when they have ended."""

    def __init__(self, roster: Roster, routing: Routing, retries: Retries, clock: Clock) -> None:
        self.roster = roster
        self._routing = routing
        self._retries = retries
        self._clock = clock
        self._records: dict[str, TaskRecord] = {}
        self._waiting: list[tuple[float, int, TaskRecord]] = []
        self._closed_until = 0.0

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended, or have and their ending is not committed."""
        return len(self._records)

    def unfinished_up_to(self, number: int) -> dict[str, int]:
        """By worker, how many unfinished tasks were accepted as `number` or before."""
        counts: Counter[str] = Counter()
        for record in self._records.values():
            if record.worker is not None and record.number <= number:
                counts[record.worker] += 1
        return dict(counts)

    def get(self, task_id: str) -> TaskRecord | None:
        """The task of that id, unless its ending is committed."""
        return self._records.get(task_id)

    def reserve(self, record: TaskRecord) -> None:
        """Know of a task before it is committed, so that its id is taken."""
        self._records[record.task.id] = record

    def forget(self, record: TaskRecord) -> None:
        """Drop a task that was not accepted, or whose ending is committed."""
        del self._records[record.task.id]

    def assign(self, record: TaskRecord) -> Ending | None:
        """Give a committed task to a worker; its ending when nobody can have it."""
        if record.is_cancelled:
            return self._end(record, "cancelled")
        worker = self._choose(record)
        if worker is None:
            return self._end_without_worker(record)
        worker.line.add(record)
        return None

    def take(self, worker: WorkerRecord) -> list[TaskRecord]:
        """The tasks to send to `worker` now, in one envelope."""
        if not worker.is_healthy or self._clock.monotonic() < self._closed_until:
            return []
        records = worker.line.take(worker.window.room(len(worker.held)))
        for record in records:
            worker.held[record.number] = record
        worker.sent += len(records)
        return records

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> tuple[TaskRecord, Ending] | None:
        """What an attempt's outcome means; `None` when the task goes on, or is not held."""
        record = worker.held.pop(outcome.number, None)
        if record is None:
            return None
        if outcome.answer is not None:
            record.tries.attempts += 1
            return record, self._end(record, "completed", **_answered(outcome.answer))
        if outcome.failure is None:
            return record, self._end(record, "cancelled")
        return self._settle_failure(worker, record, outcome.failure)

    def cancel(self, record: TaskRecord) -> Ending | None:
        """Cancel a task; its ending, or `None` when that must come from elsewhere.

        The ending of a task that a worker holds comes from that worker; that of a
        task which is not committed yet, from `assign`.
        """
        if record.has_ended:
            return None
        record.is_cancelled = True
        worker = self.roster[record.worker] if record.worker else None
        if worker is None or record.number in worker.held:
            return None
        ending = self._end(record, "cancelled")
        if worker.waiting.pop(record.number, None) is None:
            worker.line.discard(record)
        return ending

    def drop(self, worker: WorkerRecord, number: int) -> tuple[TaskRecord, Ending] | None:
        """End a cancelled task that `worker` holds and has promised not to start."""
        record = worker.held.pop(number, None)
        if record is None:
            return None
        return record, self._end(record, "cancelled")

    def worker_died(self, worker: WorkerRecord, why: str) -> list[tuple[TaskRecord, Ending]]:
        """Fail what `worker` held, and give what it had not been sent to the others."""
        self.roster.mark_dead(worker)
        ended = []
        for record in worker.held.values():
            record.tries.attempts += 1
            ended.append((record, self._end_with_worker(record, why)))
        worker.held.clear()
        for record in worker.line.clear():
            ending = self._move(record)
            if ending is not None:
                ended.append((record, ending))
        return ended

    def wake(self) -> tuple[list[tuple[TaskRecord, Ending]], float | None]:
        """Put back in line what has waited long enough.

        Returns what ended because no worker is left for it, and the seconds until
        the next call is due (`None`: not before something else happens).
        """
        now = self._clock.monotonic()
        ended = []
        while self._waiting and self._waiting[0][0] <= now:
            record = heapq.heappop(self._waiting)[2]
            if record.has_ended:
                continue
            ending = self._come_back(record)
            if ending is not None:
                ended.append((record, ending))
        due = [at for at, _, _ in self._waiting[:1]]
        due += [self._closed_until] if self._closed_until > now else []
        return ended, (min(due) - now if due else None)

    @property
    def waits(self) -> bool:
        """Whether something goes on by itself after a time: `wake` says when."""
        return bool(self._waiting) or self._closed_until > self._clock.monotonic()

    def has_work_up_to(self, worker: WorkerRecord, number: int) -> bool:
        """Whether `worker` has an unfinished task that was accepted as `number` or before."""
        first = worker.line.first_number()
        return (
            (first is not None and first <= number)
            or any(held <= number for held in worker.held)
            or any(waiting <= number for waiting in worker.waiting)
        )

    def _choose(self, record: TaskRecord) -> WorkerRecord | None:
        workers = self.roster.healthy(record.task.role)
        if not workers:
            return None
        worker = self._routing.choose(record.task, workers)
        record.worker = worker.name
        return worker

    def _settle_failure(
        self, worker: WorkerRecord, record: TaskRecord, failure: Failure
    ) -> tuple[TaskRecord, Ending] | None:
        delay = self._retries.delay(record.tries, failure)
        if failure.verdict == "refused" and delay is not None:
            self._closed_until = max(self._closed_until, self._clock.monotonic() + delay)
        if record.is_cancelled:
            return record, self._end(record, "cancelled")
        if delay is None:
            fields = {"duration_ms": failure.duration_ms, "cause": _cause(failure)}
            return record, self._end(record, "failed", **fields)
        worker.waiting[record.number] = record
        due = self._clock.monotonic() + delay
        heapq.heappush(self._waiting, (due, record.number, record))
        return None

    def _come_back(self, record: TaskRecord) -> Ending | None:
        assert record.worker is not None
        worker = self.roster[record.worker]
        del worker.waiting[record.number]
        if not worker.is_healthy:
            return self._move(record)
        worker.line.add(record)
        return None

    def _move(self, record: TaskRecord) -> Ending | None:
        worker = self._choose(record)
        if worker is None:
            return self._end_without_worker(record)
        worker.line.add(record)
        return None

    def _end_with_worker(self, record: TaskRecord, why: str) -> Ending:
        if record.is_cancelled:
            return self._end(record, "cancelled")
        return self._end(record, "failed", cause=_died(why))

    def _end_without_worker(self, record: TaskRecord) -> Ending:
        role = record.task.role
        every = "every worker" if role is None else f"every worker with the role {role!r}"
        return self._end(record, "failed", cause=_died(f"{every} of the pool has died"))

    def _end(self, record: TaskRecord, state: EndState, **fields: Any) -> Ending:
        record.has_ended = True
        if record.worker is not None:
            worker = self.roster[record.worker]
            worker.completed += state == "completed"
            worker.failed += state == "failed"
        return Ending(
            number=record.number,
            state=state,
            worker=record.worker,
            attempts=record.tries.attempts,
            completed_at=int(self._clock.time() * 1000),
            **fields,
        )


def _answered(answer: Answer) -> dict[str, Any]:
    return {
        "duration_ms": answer.duration_ms,
        "text": answer.text,
        "usage": answer.usage,
        "model": answer.model,
        "stop_reason": answer.stop_reason,
        "session_id": answer.session_id,
        "cost_usd": answer.cost_usd,
    }


def _cause(failure: Failure) -> StoredCause:
    return StoredCause(failure.kind, failure.type, failure.message, failure.traceback)


def _died(why: str) -> StoredCause:
    return StoredCause("WorkerDied", "WorkerDied", why)
