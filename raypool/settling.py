"""What the end of an attempt means: the task has ended, waits to be tried again, or goes on."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, NamedTuple

from raypool.clock import Clock
from raypool.copies import Copies
from raypool.endings import ending_of, of_answer, of_deaths, of_failure, of_skip
from raypool.events import AWAITED
from raypool.messages import Answer, Failure, Outcome
from raypool.places import Places, Unplaced
from raypool.ready import Ready
from raypool.records import Death, Ending, EndState
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.task_record import TaskRecord
from raypool.usage import Usage

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


class InVain(NamedTuple):
    """What a worker has spent on a task that had ended elsewhere."""

    record: TaskRecord
    usage: Usage
    cost_usd: float | None


class Settling:
    """Settles attempts, and ends tasks.

    Args:
        outlived: the numbers of the unfinished tasks that a worker has died with.
    """

    def __init__(
        self,
        roster: Roster,
        places: Places,
        copies: Copies,
        ready: Ready,
        *,
        outlived: set[int],
        retries: Retries,
        clock: Clock,
    ) -> None:
        self._roster = roster
        self._places = places
        self._copies = copies
        self._ready = ready
        self._outlived = outlived
        self._retries = retries
        self._clock = clock
        self._waiting: list[tuple[float, int, TaskRecord]] = []

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> Decided | Delayed | InVain | None:
        """What an attempt's outcome means; `None` when the task is not held, or is in line again.

        An outcome may tell that the worker has halted. It then takes no more tasks; `halt`
        gives those in its line to others.
        """
        failure = outcome.failure
        self._note_halt(worker, outcome)
        is_spared = failure is not None and self._is_spared(worker, failure, outcome.number)
        record = self.let_go(worker, outcome.number, outcome)
        if record is None:
            return None
        if record.has_ended:
            in_vain = InVain(record.original or record, outcome.usage, outcome.cost_usd)
            return None if outcome.is_returned else in_vain
        if record.original is not None:
            record.original.spend(outcome.usage, outcome.cost_usd)
            return self._settle_copy(worker, record, outcome)
        record.spend(outcome.usage, outcome.cost_usd)
        is_lost = failure is not None or outcome.is_returned
        if not record.is_cancelled and is_lost and self._leave_to_copy(record, failure):
            return None
        if (outcome.is_returned or outcome.is_paused or is_spared) and not record.is_cancelled:
            record.is_paused = outcome.is_paused
            self._places.line_up(worker, record)
            return None
        return self._settle_task(worker, record, outcome)

    def drop(self, worker: WorkerRecord, number: int) -> Decided | None:
        """End a cancelled task that `worker` holds and has promised not to start."""
        record = self.let_go(worker, number, Outcome(number, is_returned=True))
        if record is None or record.has_ended:
            return None
        if record.original is not None:
            self._copies.drop(record)
            return None
        return Decided(record, self.end(record, "cancelled"))

    def died(
        self, worker: WorkerRecord, record: TaskRecord, why: str, *, was_running: bool
    ) -> Decided | None:
        """What the death of the worker that held a task means for it; nothing if it was unsent."""
        if record.has_ended:
            return None
        if record.original is not None:
            self._copies.drop(record)
            return None
        survives = True
        if record.number not in worker.unsent:
            survives = self._retries.survives(record.tries, was_running=was_running)
            now = int(self._clock.time() * 1000)
            record.deaths += (Death(record.number, worker.name, now, why),)
            self._outlived.add(record.number)
        if record.is_cancelled:
            return Decided(record, self.end(record, "cancelled"))
        if not survives:
            record.tries.attempts += 1
            return Decided(record, self.end(record, "failed", cause=of_deaths(record.deaths)))
        if self._copies.take_over(record):
            return None
        return self.decide(self._places.place(record))

    def wake(self) -> list[Decided]:
        """Put back in line what has waited long enough; what ended, since nobody can have it."""
        now = self._clock.monotonic()
        ended = []
        while self._waiting and self._waiting[0][0] <= now:
            record = heapq.heappop(self._waiting)[2]
            if record.has_ended:
                continue
            decided = self.decide(self._come_back(record))
            if decided is not None:
                ended.append(decided)
        return ended

    def due_in(self) -> list[float]:
        """Seconds until the next task has waited long enough, if one waits."""
        return [max(0.0, at - self._clock.monotonic()) for at, _, _ in self._waiting[:1]]

    def let_go(
        self, worker: WorkerRecord, number: int, outcome: Outcome | None = None
    ) -> TaskRecord | None:
        """The task of that number, which `worker` holds no longer; `None` when it holds none."""
        self._ready.mark(worker)
        record = worker.held.pop(number, None)
        if record is not None:
            worker.gate.settle(record, outcome)
            record.reserved = None
        return record

    def decide(self, unplaced: Unplaced | None) -> Decided | None:
        """End a task that nobody can have, if there is one."""
        ending = self.end_unplaced(unplaced)
        return None if unplaced is None or ending is None else Decided(unplaced.record, ending)

    def decide_all(self, unplaced: Iterable[Unplaced]) -> list[Decided]:
        """End the tasks that nobody can have."""
        return [decided for one in unplaced if (decided := self.decide(one)) is not None]

    def end_unplaced(self, unplaced: Unplaced | None) -> Ending | None:
        """The ending of a task that nobody can have, if there is one."""
        if unplaced is None:
            return None
        return self.end(unplaced.record, "failed", cause=unplaced.cause)

    def end(self, record: TaskRecord, state: EndState, **fields: Any) -> Ending:
        """End a task, wherever it is; `fields` are those of its ending."""
        record.has_ended = True
        worker = self._places.leave(record)
        if record.copy is not None:
            self._copies.lose(record)
        self._outlived.discard(record.number)
        if worker is not None:
            worker.completed += state == "completed"
            worker.failed += state == "failed"
        return ending_of(record, state, self._clock.time(), **fields)

    def _is_spared(self, worker: WorkerRecord, failure: Failure, number: int) -> bool:
        """Whether a task waits though it has failed for good, since none could have succeeded.

        A probe does so once: what no probe succeeds with does not hold up the others for ever.
        """
        record = worker.held.get(number)
        if failure.verdict != "fatal" or record is None:
            return False
        if not worker.gate.is_broken or record.reserved is None or not record.reserved.is_probe:
            return worker.gate.is_broken
        was_spared, record.was_spared = record.was_spared, True
        return not was_spared

    def _note_halt(self, worker: WorkerRecord, outcome: Outcome) -> None:
        is_handed_back = (
            outcome.is_returned and not outcome.is_called_back and outcome.number in worker.held
        )
        if outcome.halt is None and not is_handed_back:
            return
        if not worker.is_resumed_early and worker.is_healthy:
            worker.halted = outcome.halt or worker.halted or HANDS_BACK
        elif outcome.halt is not None:
            worker.is_resumed_early = False

    def _come_back(self, record: TaskRecord) -> Unplaced | None:
        worker = self._roster.get(record.worker)
        if worker is None or not worker.takes_tasks:
            return self._places.place(record)
        self._places.line_up(worker, record)
        return None

    def _settle_task(
        self, worker: WorkerRecord, record: TaskRecord, outcome: Outcome
    ) -> Decided | Delayed:
        if outcome.answer is not None:
            return self._complete(record, outcome, outcome.answer)
        if outcome.failure is not None:
            return self._settle_failure(worker, record, outcome, outcome.failure)
        return Decided(record, self.end(record, "cancelled", **of_skip(outcome.skipped)))

    def _settle_copy(
        self, worker: WorkerRecord, copy: TaskRecord, outcome: Outcome
    ) -> Decided | None:
        if outcome.is_paused:
            copy.is_paused = True
            self._places.line_up(worker, copy)
            return None
        if outcome.answer is None:
            self._copies.drop(copy)
            return None
        return self._complete(self._copies.win(copy), outcome, outcome.answer)

    def _leave_to_copy(self, record: TaskRecord, failure: Failure | None) -> bool:
        """Whether another worker has a copy, which goes on in the place of a lost attempt."""
        if not self._copies.take_over(record):
            return False
        if failure is not None and failure.verdict not in AWAITED:
            record.tries.earlier += 1
        return True

    def _complete(self, record: TaskRecord, outcome: Outcome, answer: Answer) -> Decided:
        record.tries.attempts += 1
        added, turns = outcome.conversation, outcome.turns
        fields = of_answer(answer)
        return Decided(
            record, self.end(record, "completed", turns=turns, conversation=added, **fields)
        )

    def _settle_failure(
        self, worker: WorkerRecord, record: TaskRecord, outcome: Outcome, failure: Failure
    ) -> Decided | Delayed:
        now = self._clock.monotonic()
        delay = self._retries.delay(record.tries, failure, now)
        if record.is_cancelled:
            return Decided(record, self.end(record, "cancelled"))
        if delay is None:
            ending = self.end(record, "failed", turns=outcome.turns, **of_failure(failure))
            return Decided(record, ending)
        worker.waiting[record.number] = record
        heapq.heappush(self._waiting, (now + delay, record.number, record))
        return Delayed(record, failure, delay)
