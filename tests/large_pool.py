"""A large pool on a clock of its own: what decides is real, workers and provider are played."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from raypool.accounts import Accounts
from raypool.capacity.alone import LoneShare
from raypool.capacity.budget import BudgetBook
from raypool.capacity.gates import Gates
from raypool.clock import FakeClock
from raypool.config import Budget, RateLimit, RetryPolicy
from raypool.messages import Answer, Failure, Outcome, Terms
from raypool.records import AcceptedTask
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import make_routing
from raypool.scheduler import Scheduler
from raypool.settling import Decided
from raypool.task_record import TaskRecord
from raypool.telemetry import EventName
from raypool.usage import Usage
from raypool.window import Window

POLICY = RetryPolicy(max_attempts=10, max_deaths=10, initial_seconds=1.0, max_seconds=30.0)
MAX_TOKENS = 500
TERMS = Terms("https://api", "key", "a-model", max_tokens=MAX_TOKENS, is_priced=True)
UNLIMITED = RateLimit(adaptive=False)
ANSWER = Answer("42", 1.0)
FAILED = Failure("BackendError", "transient", "APIConnectionError", "no")
REFUSED = Failure("BackendError", "refused", "RateLimitError", "no", retry_after=1.0)
REFUSAL_SECONDS = 0.05
BATCH, MAX_PENDING = 500, 20_000
NEVER = math.inf

Event: TypeAlias = Callable[[Any, Any], None]


class Faults(NamedTuple):
    """What goes wrong; all times are means, in seconds.

    Attributes:
        failures: which part of the turns fails, and may succeed the next time.
        overloads: between two times at which the provider refuses whatever is sent.
        overload_seconds: how long it does.
        deaths: between two deaths of workers.
        absence_seconds: until a dead one is back.
    """

    failures: float = 0.0
    overloads: float = NEVER
    overload_seconds: float = 2.0
    deaths: float = NEVER
    absence_seconds: float = 15.0


NO_FAULTS = Faults()


class Process:
    """What runs in a worker's process, until it dies.

    Attributes:
        worker: the worker whose process it is.
        mailbox: tasks that have come and were not started.
        running: how many turns run.
        is_alive: it has not died.
    """

    __slots__ = ("is_alive", "mailbox", "running", "worker")

    def __init__(self, worker: WorkerRecord) -> None:
        self.worker = worker
        self.mailbox: deque[TaskRecord] = deque()
        self.running = 0
        self.is_alive = True


class LargePool:
    """Workers that take a random while for each turn, and all that decides who runs what.

    As it runs, it asserts that no task ends twice, and that each ends after as many attempts as
    it had turns that were neither refused nor lost with their worker.

    Args:
        size: how many workers it has.
        seconds: tells how long a turn of the task with that number takes.
        message_seconds: how long it takes to send tasks, and to hear what became of them.

    Attributes:
        clock: what time it is.
        scheduler: the decisions.
        book: the budget.
        states: how many tasks have ended in which state.
        turns: how many turns have begun.
        deaths: how many workers have died.
        refused: how many requests the provider has refused.
        billed: how many tokens the provider has counted, from the beginning of a turn on.
        sent_at: when each request was sent.
        begun: the tasks whose first turn has begun, in order.
        begun_by: the same of each worker.
        ended: the tasks that have ended, in order.
    """

    def __init__(
        self,
        size: int,
        seconds: Callable[[int], float],
        *,
        message_seconds: float = 0.0,
        routing: str = "next_free",
        concurrency: int = 1,
        rate_limit: RateLimit = UNLIMITED,
        budget: Budget | None = None,
        faults: Faults = NO_FAULTS,
        seed: int = 1,
    ) -> None:
        self.clock = FakeClock()
        self.book = BudgetBook(budget)
        self.states: Counter[str] = Counter()
        self.turns = self.deaths = self.refused = self.billed = self.submitted = 0
        self.sent_at = array("d")
        self.begun = array("l")
        self.begun_by: defaultdict[str, array[int]] = defaultdict(partial(array, "l"))
        self.ended = array("l")
        self._left = 0
        self._attempts = bytearray(1)
        self._has_ended = bytearray(1)
        self._seconds = seconds
        self._message_seconds = message_seconds
        self._faults = faults
        self._concurrency = concurrency
        self._chance = random.Random(seed)
        self._counter = itertools.count()
        self._events: list[tuple[float, int, Event, Any, Any]] = []
        self._under_way = 0
        self._wakes_at = NEVER
        self._overloaded_until = 0.0
        gates = Gates(
            self.book,
            self.clock,
            prices={},
            has_memory=False,
            new_share=lambda _, limit: LoneShare(self.clock, limit),
            tell=_tell_nobody,
        )
        gate = gates.of("chemist", TERMS, rate_limit)
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(concurrency), gate)
            for n in range(1, size + 1)
        ]
        self.scheduler = Scheduler(
            Roster(self.workers, Accounts()), make_routing(routing), Retries(POLICY), self.clock
        )
        self._processes = {worker.name: Process(worker) for worker in self.workers}
        self._later(self._about(faults.deaths), self._kill_somebody)
        self._later(self._about(faults.overloads), self._overload)

    def submit(self, count: int, *, priority: int = 0, tenant: str | None = None) -> range:
        """Hand over tasks in one batch; their numbers."""
        first = self.submitted + 1
        self.submitted += count
        self._attempts.extend(bytes(count))
        self._has_ended.extend(bytes(count))
        numbers = range(first, self.submitted + 1)
        scheduler = self.scheduler
        for number in numbers:
            task = AcceptedTask(number, str(number), "why?", priority=priority, tenant=tenant)
            record = TaskRecord(task)
            scheduler.reserve(record)
            assert scheduler.assign(record) is None
        self._pump()
        return numbers

    def run(self, *, until: float = NEVER, feed: int = 0) -> None:
        """Let time pass until all has ended, or nothing moves any more.

        Meanwhile `feed` tasks are handed over, no more than `MAX_PENDING` at a time.
        """
        self._left += feed
        while self.clock.monotonic() < until:
            if self._left and self.scheduler.unfinished <= MAX_PENDING - BATCH:
                count = min(BATCH, self._left)
                self._left -= count
                self.submit(count)
            elif not self.scheduler.unfinished or not (self._under_way or self._wakes_at < NEVER):
                return
            else:
                self._pass_time()

    def set_budget(self, budget: Budget) -> None:
        """Have another budget from now on, as `Pool.set_budget` does."""
        self.book.set(budget)
        self._pump()

    # What happens when

    def _pass_time(self) -> None:
        if self._wakes_at < self._events[0][0]:
            self.clock.advance(self._wakes_at - self.clock.monotonic())
            self._wakes_at = NEVER
            decided, _ = self.scheduler.wake()
            self._end_all(decided)
            self._pump()
            return
        at, _, happen, one, other = heapq.heappop(self._events)
        self.clock.advance(at - self.clock.monotonic())
        happen(one, other)

    def _later(self, seconds: float, event: Event, one: Any = None, other: Any = None) -> None:
        at = self.clock.monotonic() + seconds
        heapq.heappush(self._events, (at, next(self._counter), event, one, other))

    def _about(self, seconds: float) -> float:
        return self._chance.expovariate(1 / seconds) if seconds < NEVER else NEVER

    # What is sent

    def _pump(self) -> None:
        for worker, records in self.scheduler.envelopes():
            assert worker.is_healthy
            self._deliver(self._arrive, self._processes[worker.name], records)
        due = self.scheduler.due_in()
        if due is not None:
            self._wakes_at = min(self._wakes_at, self.clock.monotonic() + due)

    def _deliver(self, event: Event, process: Process, content: object) -> None:
        if self._message_seconds:
            self._later(self._message_seconds, event, process, content)
            self._under_way += 1
        else:
            event(process, content)

    def _arrive(self, process: Process, records: list[TaskRecord]) -> None:
        self._under_way -= self._message_seconds > 0
        process.mailbox.extend(records)
        self._start_turns(process)

    def _start_turns(self, process: Process) -> None:
        while process.mailbox and process.running < self._concurrency:
            record = process.mailbox.popleft()
            process.running += 1
            self.turns += 1
            self._under_way += 1
            self.sent_at.append(self.clock.monotonic())
            if not record.tries.was_tried:
                self.begun.append(record.number)
                self.begun_by[process.worker.name].append(record.number)
            if self.clock.monotonic() < self._overloaded_until:
                self._later(REFUSAL_SECONDS, self._refuse, process, record)
            else:
                usage = Usage(9, 1 + int(MAX_TOKENS * self._chance.random()))
                self.billed += usage.total_tokens
                outcome = Outcome(record.number, ANSWER, usage=usage, turns=1, requests=1)
                self._later(self._seconds(record.number), self._answer, process, outcome)

    # What comes back

    def _answer(self, process: Process, outcome: Outcome) -> None:
        if self._chance.random() < self._faults.failures:
            usage = outcome.usage
            outcome = Outcome(outcome.number, failure=FAILED, usage=usage, requests=1)
        self._end_turn(process, outcome)

    def _refuse(self, process: Process, record: TaskRecord) -> None:
        self.refused += 1
        self._end_turn(process, Outcome(record.number, failure=REFUSED, requests=1))

    def _end_turn(self, process: Process, outcome: Outcome) -> None:
        self._under_way -= 1
        if process.is_alive:
            process.running -= 1
            self._start_turns(process)
            self._deliver(self._settle, process, outcome)

    def _settle(self, process: Process, outcome: Outcome) -> None:
        self._under_way -= self._message_seconds > 0
        if not process.is_alive:
            return
        worker = process.worker
        self._attempts[outcome.number] += outcome.failure is not REFUSED
        worker.window.ended(1, self.clock.monotonic())
        settled = self.scheduler.settle(worker, outcome)
        if isinstance(settled, Decided):
            self._end(settled)
        self._pump()

    def _end_all(self, decided: Iterable[Decided]) -> None:
        for one in decided:
            self._end(one)

    def _end(self, decided: Decided) -> None:
        number, ending = decided.record.number, decided.ending
        assert not self._has_ended[number], "it has ended before"
        assert ending.attempts == self._attempts[number], "only an answered turn is an attempt"
        self._has_ended[number] = True
        self.states[ending.state] += 1
        self.ended.append(number)
        assert self.scheduler.release(decided.record, has_grown=False) is None

    # What goes wrong

    def _overload(self, _one: Any, _other: Any) -> None:
        seconds = self._about(self._faults.overload_seconds)
        self._overloaded_until = self.clock.monotonic() + seconds
        self._later(self._about(self._faults.overloads), self._overload)

    def _kill_somebody(self, _one: Any, _other: Any) -> None:
        worker = self._chance.choice(self.workers)
        if worker.is_healthy:
            self.deaths += 1
            self._under_way += 1
            self._processes[worker.name].is_alive = False
            self._end_all(self.scheduler.worker_died(worker, "killed", is_coming_back=True))
            self._later(self._about(self._faults.absence_seconds), self._bring_back, worker)
            self._pump()
        self._later(self._about(self._faults.deaths), self._kill_somebody)

    def _bring_back(self, worker: WorkerRecord, _other: Any) -> None:
        self._under_way -= 1
        self._processes[worker.name] = Process(worker)
        self._end_all(self.scheduler.worker_back(worker))
        self._pump()


def lognormal(mean: float, sigma: float, seed: int = 1) -> Callable[[int], float]:
    """Draws times of that mean, most of which are shorter, and some much longer."""
    chance, centre = random.Random(seed), math.log(mean) - sigma**2 / 2
    return lambda _: chance.lognormvariate(centre, sigma)


def most_within(times: array[float], seconds: float) -> int:
    """How many of `times`, which ascend, are in the fullest window of that length."""
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def _tell_nobody(_name: EventName, /, **_fields: Any) -> None:
    pass
