"""Every unfinished task of a pool, and what happens to it next.

Told what happened (a task was accepted, an attempt ended, a worker died or halted, time has
passed), it says what to do: which tasks to send where, and how a task ended. It
neither waits nor talks to anybody.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from raypool.clock import Clock
from raypool.endings import ending_of, of_answer, of_death, of_failure, of_skip
from raypool.messages import Answer, Failure, Notice, Outcome
from raypool.records import Ending, EndState
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import Routing
from raypool.sessions import Sessions
from raypool.task_record import TaskRecord

SHORTEST_WAIT = 0.001
HANDS_BACK = "it hands back the tasks that it is sent"


class Decided(NamedTuple):
    """A task whose ending is decided."""

    record: TaskRecord
    ending: Ending


class Delayed(NamedTuple):
    """A task that will be tried again, after so many seconds."""

    record: TaskRecord
    failure: Failure
    seconds: float


class Scheduler:
    """Keeps the unfinished tasks and decides who runs them, when, and when they have ended."""

    def __init__(
        self,
        roster: Roster,
        routing: Routing,
        retries: Retries,
        clock: Clock,
        *,
        concurrency: int = 1,
    ) -> None:
        self.roster = roster
        self.sessions = Sessions()
        self._routing = routing
        self._retries = retries
        self._clock = clock
        self._concurrency = concurrency
        self._records: dict[str, TaskRecord] = {}
        self._waiting: list[tuple[float, int, TaskRecord]] = []
        self._outlived: set[int] = set()

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended, or have and their ending is not committed."""
        return len(self._records)

    def unfinished_up_to(self, number: int) -> dict[str, int]:
        """By worker, how much is unfinished that was accepted as `number` or before.

        Those are tasks and notices.
        """
        counts: Counter[str] = Counter()
        for record in self._records.values():
            if record.worker is not None and record.number <= number:
                counts[record.worker] += 1
        for worker in self.roster:
            counts[worker.name] += sum(1 for _ in _notices_up_to(worker, number))
        return dict(+counts)

    def get(self, task_id: str) -> TaskRecord | None:
        """The task of that id, unless its ending is committed."""
        return self._records.get(task_id)

    def reserve(self, record: TaskRecord) -> None:
        """Know of a task before it is committed, so that its id is taken."""
        self._records[record.task.id] = record

    def forget(self, record: TaskRecord) -> None:
        """Drop a task that was not accepted."""
        del self._records[record.task.id]

    def release(self, record: TaskRecord, *, has_grown: bool) -> Decided | None:
        """Drop a task whose ending is dealt with; the next of its session may go.

        `has_grown` when the ledger has what the task added to the session. Returns the next
        task when it ended at once, because nobody can have it.
        """
        self.forget(record)
        if record.task.session is None:
            return None
        following = self.sessions.leave(record, has_grown=has_grown)
        return None if following is None else self._place(following)

    def assign(self, record: TaskRecord) -> Ending | None:
        """Give a committed task to a worker; its ending when nobody can have it."""
        if record.is_cancelled:
            return self._end(record, "cancelled")
        if record.task.session is not None and not self.sessions.enter(record):
            return self._stand_by(record)
        decided = self._place(record)
        return None if decided is None else decided.ending

    def take(self, worker: WorkerRecord) -> list[TaskRecord]:
        """The tasks to send to `worker` now, in one envelope."""
        if not worker.takes_tasks:
            return []
        notice = worker.next_notice
        if notice is not None and notice.tries.deaths:
            return []  # so that what the worker may have died of is heard by itself
        is_open = worker.gate.is_wide_open
        room = worker.window.room(len(worker.held), prefetches=is_open)
        if is_open and not self._outlived:
            records = worker.line.take(room)
        else:
            records = self._take_singly(worker, room)
        for record in records:
            worker.held[record.number] = record
            record.is_paused = False
        worker.sent += len(records)
        return records

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> Decided | Delayed | None:
        """What an attempt's outcome means; `None` when the task is not held, or is in line again.

        An outcome may tell that the worker has halted. It then takes no more tasks; `halt`
        gives those in its line to others.
        """
        self._note_halt(worker, outcome)
        failure = outcome.failure
        is_spared = failure is not None and failure.verdict == "fatal" and worker.gate.is_broken
        record = self._let_go(worker, outcome.number, outcome)
        if record is None:
            return None
        record.spend(outcome.usage, outcome.cost_usd)
        goes_on = outcome.is_returned or outcome.is_paused or is_spared
        if goes_on and not record.is_cancelled:
            record.is_paused = outcome.is_paused
            worker.line.add(record)
            return None
        if outcome.answer is not None:
            record.tries.attempts += 1
            return self._complete(record, outcome, outcome.answer)
        if outcome.failure is not None:
            return self._settle_failure(worker, record, outcome, outcome.failure)
        return Decided(record, self._end(record, "cancelled", **of_skip(outcome.skipped)))

    def adopt(self, worker: WorkerRecord, record: TaskRecord) -> None:
        """Take a task in that `worker` has asked for and run by itself."""
        self.reserve(record)
        record.worker = worker.name
        worker.held[record.number] = record

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

    def drop(self, worker: WorkerRecord, number: int) -> Decided | None:
        """End a cancelled task that `worker` holds and has promised not to start."""
        record = self._let_go(worker, number, Outcome(number, is_returned=True))
        return None if record is None else Decided(record, self._end(record, "cancelled"))

    # Workers that come and go

    def halt(self, worker: WorkerRecord, reason: str) -> list[Decided]:
        """`worker` takes no more tasks: others get those that it has not started."""
        worker.halted = reason
        return self._redistribute([worker])

    def resume(self, worker: WorkerRecord) -> list[Decided]:
        """`worker` takes tasks again, also those that wait where nobody does."""
        worker.halted = None
        return self._redistribute([one for one in self.roster if not one.takes_tasks])

    def worker_died(
        self, worker: WorkerRecord, why: str, *, is_coming_back: bool = False
    ) -> list[Decided]:
        """Have what `worker` had run again; what its workers have died of too often fails."""
        worker.is_healthy = False
        worker.is_coming_back = is_coming_back
        held = [record for number in list(worker.held) if (record := self._let_go(worker, number))]
        self.roster.sort()
        decided = [
            self._after_death(record, why, was_running=place < self._concurrency)
            for place, record in enumerate(held)
        ]
        return [*(one for one in decided if one), *self._redistribute([worker])]

    def blame_notice(self, worker: WorkerRecord) -> Notice | None:
        """Before `worker_died`: count the death for the notice that its agent was to hear next.

        Returns the notice when it is dropped: the worker has died of it too often, and had no
        task then that it might have died of.
        """
        blamed = worker.next_notice
        if blamed is None or self._retries.survives(blamed.tries, was_running=not worker.held):
            return None
        del worker.notices[blamed.notice.number]
        return blamed.notice

    def worker_back(self, worker: WorkerRecord) -> list[Decided]:
        """The new process of `worker` is ready."""
        worker.begin()
        worker.is_coming_back = False
        worker.restarts += 1
        return self._redistribute([one for one in self.roster if not one.takes_tasks])

    def worker_gone(self, worker: WorkerRecord) -> list[Decided]:
        """No new process of `worker` could be had; what it was to hear is dropped."""
        worker.is_coming_back = False
        worker.notices.clear()
        return self._redistribute([worker])

    # Time

    def wake(self) -> tuple[list[Decided], float | None]:
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
            decided = self._come_back(record)
            if decided is not None:
                ended.append(decided)
        for gate in self.roster.gates:
            gate.wake()
        return ended, self.due_in()

    def due_in(self) -> float | None:
        """Seconds until something goes on by itself; `None` when nothing does."""
        due = [max(0.0, at - self._clock.monotonic()) for at, _, _ in self._waiting[:1]]
        for gate in self.roster.gates:
            opens_in = gate.opens_in()
            due += [] if opens_in is None else [opens_in]
        return max(SHORTEST_WAIT, min(due)) if due else None

    @property
    def waits(self) -> bool:
        """Whether something goes on by itself after a time: `wake` says when."""
        return self.due_in() is not None

    def has_work_up_to(self, worker: WorkerRecord, number: int) -> bool:
        """Whether `worker` has unfinished work that was accepted as `number` or before."""
        first = worker.line.first_number()
        return (
            (first is not None and first <= number)
            or any(held <= number for held in worker.held)
            or any(waiting <= number for waiting in worker.waiting)
            or any(True for _ in _notices_up_to(worker, number))
        )

    def _note_halt(self, worker: WorkerRecord, outcome: Outcome) -> None:
        tells_of_halt = outcome.halt is not None or outcome.is_returned
        if not worker.is_resumed_early and worker.is_healthy and tells_of_halt:
            worker.halted = outcome.halt or worker.halted or HANDS_BACK
        elif outcome.halt is not None:
            worker.is_resumed_early = False

    def _let_go(
        self, worker: WorkerRecord, number: int, outcome: Outcome | None = None
    ) -> TaskRecord | None:
        """The task of that number, which `worker` holds no longer; `None` when it holds none."""
        record = worker.held.pop(number, None)
        if record is not None:
            worker.gate.settle(record, outcome)
            record.reserved = None
        return record

    def _take_singly(self, worker: WorkerRecord, room: int) -> list[TaskRecord]:
        """At most `room` tasks, such that each may have its company, and capacity is there."""
        taken: list[TaskRecord] = []
        is_open = worker.gate.is_wide_open
        most = min(map(self._company, worker.held.values()), default=math.inf)
        while len(taken) < room and (first := worker.line.first()) is not None:
            most = min(most, self._company(first))
            if len(worker.held) + len(taken) >= most:
                break
            if not is_open and not worker.gate.reserve(first):
                break
            taken += worker.line.take(1)
        return taken

    def _company(self, record: TaskRecord) -> float:
        return self._retries.company(record.tries, self._concurrency)

    def _place(self, record: TaskRecord) -> Decided | None:
        """Put a task into a worker's line; its ending when nobody can have it."""
        if record.worker is not None:
            self.roster[record.worker].waiting.pop(record.number, None)
        worker = self._choose(record)
        if worker is None:
            return Decided(record, self._end_without_worker(record))
        record.worker = worker.name
        worker.line.add(record)
        return None

    def _stand_by(self, record: TaskRecord) -> Ending | None:
        """Have a task wait for its session's turn, on the worker that has the session."""
        name = self.sessions.worker_of(record)
        worker = self._choose(record) if name is None else self.roster[name]
        if worker is None:
            return self._end_without_worker(record)
        record.worker = worker.name
        worker.waiting[record.number] = record
        return None

    def _choose(self, record: TaskRecord) -> WorkerRecord | None:
        task = record.task
        if task.worker is not None and task.worker in self.roster:
            pinned = self.roster[task.worker]
            return pinned if pinned.may_take_tasks else None
        workers = self.roster.choice(task.role)
        if not workers:
            return None
        owner = self.sessions.worker_of(record) if task.session is not None else None
        if owner is not None and self.roster[owner] in workers:
            return self.roster[owner]
        worker = self._routing.choose(task, workers)
        if task.session is not None:
            self.sessions.move(record, worker.name)
        return worker

    def _redistribute(self, workers: list[WorkerRecord]) -> list[Decided]:
        """Give what waits in the lines of these workers to whoever may have it now."""
        self.roster.sort()
        waiting = [record for worker in workers for record in worker.line.clear()]
        waiting.sort(key=lambda record: record.number)
        return [decided for record in waiting if (decided := self._place(record)) is not None]

    def _complete(self, record: TaskRecord, outcome: Outcome, answer: Answer) -> Decided:
        added, turns = outcome.conversation, outcome.turns
        fields = of_answer(answer)
        return Decided(
            record, self._end(record, "completed", turns=turns, conversation=added, **fields)
        )

    def _settle_failure(
        self, worker: WorkerRecord, record: TaskRecord, outcome: Outcome, failure: Failure
    ) -> Decided | Delayed:
        delay = self._retries.delay(record.tries, failure)
        if record.is_cancelled:
            return Decided(record, self._end(record, "cancelled"))
        if delay is None:
            ending = self._end(record, "failed", turns=outcome.turns, **of_failure(failure))
            return Decided(record, ending)
        worker.waiting[record.number] = record
        due = self._clock.monotonic() + delay
        heapq.heappush(self._waiting, (due, record.number, record))
        return Delayed(record, failure, delay)

    def _come_back(self, record: TaskRecord) -> Decided | None:
        assert record.worker is not None
        worker = self.roster[record.worker]
        if not worker.takes_tasks:
            return self._place(record)
        del worker.waiting[record.number]
        worker.line.add(record)
        return None

    def _after_death(self, record: TaskRecord, why: str, *, was_running: bool) -> Decided | None:
        if record.is_cancelled:
            return Decided(record, self._end(record, "cancelled"))
        if not self._retries.survives(record.tries, was_running=was_running):
            record.tries.attempts += 1
            return Decided(record, self._end(record, "failed", **of_death(why)))
        self._outlived.add(record.number)
        return self._place(record)

    def _end_without_worker(self, record: TaskRecord) -> Ending:
        role = record.task.role
        every = "every worker" if role is None else f"every worker with the role {role!r}"
        if record.task.worker is not None:
            every = f"worker {record.task.worker!r}, which alone may run the task,"
            return self._end(record, "failed", **of_death(f"{every} has died"))
        return self._end(record, "failed", **of_death(f"{every} of the pool has died"))

    def _end(self, record: TaskRecord, state: EndState, **fields: Any) -> Ending:
        record.has_ended = True
        self._outlived.discard(record.number)
        if record.worker is not None:
            worker = self.roster[record.worker]
            worker.completed += state == "completed"
            worker.failed += state == "failed"
        return ending_of(record, state, self._clock.time(), **fields)


def _notices_up_to(worker: WorkerRecord, number: int) -> Iterator[Notice]:
    """Notices sent as `number` or before, and all that agents have sent: those led to them."""
    for record in worker.notices.values():
        if record.notice.number <= number or record.notice.is_from_agent:
            yield record.notice
