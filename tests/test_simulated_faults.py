"""A bad day of a pool in a second: workers die, halt and come back, and some tasks are poison."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import pytest

from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.messages import Answer, Failure, Outcome
from raypool.records import AcceptedTask, Conversation, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.settling import Decided, Delayed
from raypool.task_record import TaskRecord
from raypool.window import Window

WORKERS, TASKS, SESSIONS = 12, 4_000, 150
POISON = frozenset(range(100, TASKS, 800))
POLICY = RetryPolicy(max_attempts=20, max_deaths=10, initial_seconds=1.0, max_seconds=30.0)
MEAN_SECONDS = 2.0
FAILURES = 0.05
TOLD_AFTER, RECORDED_AFTER = 0.005, 0.01
BETWEEN_DEATHS, BETWEEN_HALTS = 60.0, 45.0

Event: TypeAlias = Callable[[], None]


class Process:
    """What runs in a worker's process, until it dies.

    Attributes:
        mailbox: tasks that have come and were not started.
        running: tasks whose turn runs.
        is_alive: it has not died.
    """

    def __init__(self) -> None:
        self.mailbox: list[TaskRecord] = []
        self.running: set[int] = set()
        self.is_alive = True


class BadDay:
    """A pool whose workers die and halt at random times.

    Outcomes are told a little after a turn has ended, and a death in between loses them;
    endings are recorded a little later still.

    Attributes:
        endings: how each task ended, by number.
        recorded: of each session, the numbers of its tasks in the order of their recording.
        deaths: how many workers died of poison, by the number of the task.
        died: how many workers died, of whatever it was.
    """

    def __init__(self, seed: int, *, concurrency: int) -> None:
        self.endings: dict[int, Ending] = {}
        self.recorded: defaultdict[str, list[int]] = defaultdict(list)
        self.deaths: Counter[int] = Counter()
        self.died = 0
        self.concurrency = concurrency
        self._chance = random.Random(seed)
        self._clock = FakeClock()
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(concurrency))
            for n in range(1, WORKERS + 1)
        ]
        self.scheduler = Scheduler(
            Roster(self.workers),
            RoundRobin(),
            Retries(POLICY),
            self._clock,
        )
        self._processes = {worker.name: Process() for worker in self.workers}
        self._events: list[tuple[float, int, Event]] = []
        self._count = 0
        self._out_of_session: dict[str, int] = {}

    def run(self) -> None:
        """Submit everything, and let time pass until all has ended and is recorded."""
        for number in range(1, TASKS + 1):
            record = TaskRecord(self._task(number))
            self.scheduler.reserve(record)
            assert self.scheduler.assign(record) is None
        self._later(0.0, self._send_all)
        self._later(BETWEEN_DEATHS, self._kill_somebody)
        self._later(BETWEEN_HALTS, self._halt_somebody)
        while self.scheduler.unfinished:
            at, _, happen = heapq.heappop(self._events)
            self._clock.advance(at - self._clock.monotonic())
            happen()

    def _task(self, number: int) -> AcceptedTask:
        chance = self._chance.random()
        session = worker = None
        if number not in POISON and chance < 0.4:
            session = f"user-{self._chance.randrange(SESSIONS)}"
        elif chance < 0.5:
            worker = self._chance.choice(self.workers).name
        return AcceptedTask(number, f"task-{number}", "why?", session=session, worker=worker)

    def _later(self, seconds: float, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._events, (self._clock.monotonic() + seconds, self._count, event))

    def _about(self, seconds: float) -> float:
        return self._chance.expovariate(1 / seconds)

    def _send_all(self) -> None:
        ended, _ = self.scheduler.wake()
        self._end_all(ended)
        for worker in self.workers:
            self._send(worker)

    def _send(self, worker: WorkerRecord) -> None:
        process = self._processes[worker.name]
        records = self.scheduler.take(worker)
        if records:
            assert process.is_alive
            assert worker.halted is None
        for record in records:
            assert record.task.worker in (None, worker.name)
            self._leave_session_to(record)
        process.mailbox += records
        self._start_turns(worker, process)

    def _leave_session_to(self, record: TaskRecord) -> None:
        session = record.task.session
        if session is not None:
            assert self._out_of_session.get(session, record.number) == record.number
            self._out_of_session[session] = record.number

    def _start_turns(self, worker: WorkerRecord, process: Process) -> None:
        while process.mailbox and len(process.running) < self.concurrency:
            record = process.mailbox.pop(0)
            process.running.add(record.number)
            end = self._poison if record.number in POISON else self._end_turn
            self._later(self._about(MEAN_SECONDS), partial(end, worker, process, record))

    def _poison(self, worker: WorkerRecord, process: Process, record: TaskRecord) -> None:
        if process.is_alive:
            self.deaths[record.number] += 1
            self._die(worker)

    def _end_turn(self, worker: WorkerRecord, process: Process, record: TaskRecord) -> None:
        if process.is_alive:
            process.running.discard(record.number)
            self._later(TOLD_AFTER, partial(self._tell, worker, process, record))
            self._start_turns(worker, process)

    def _tell(self, worker: WorkerRecord, process: Process, record: TaskRecord) -> None:
        if not process.is_alive:
            return
        if self._chance.random() < FAILURES:
            outcome = Outcome(record.number, failure=Failure("BackendError", "transient", "E", ""))
        else:
            session = record.task.session
            added = None if session is None else Conversation(session, [])
            outcome = Outcome(record.number, Answer("42", 1.0), conversation=added)
        worker.window.ended(1, self._clock.monotonic())
        settled = self.scheduler.settle(worker, outcome)
        assert isinstance(settled, (Decided, Delayed))
        if isinstance(settled, Decided):
            self._end_all([settled])
        else:
            self._later(settled.seconds, self._send_all)
        self._send(worker)

    def _kill_somebody(self) -> None:
        alive = [worker for worker in self.workers if worker.is_healthy]
        if alive:
            self._die(self._chance.choice(alive))
        self._later(self._about(BETWEEN_DEATHS), self._kill_somebody)

    def _die(self, worker: WorkerRecord) -> None:
        self.died += 1
        self._processes[worker.name].is_alive = False
        self._end_all(self.scheduler.worker_died(worker, "killed", is_coming_back=True))
        self._later(self._about(10.0), partial(self._come_back, worker))
        self._send_all()

    def _come_back(self, worker: WorkerRecord) -> None:
        self._processes[worker.name] = Process()
        self._end_all(self.scheduler.worker_back(worker))
        self._send_all()

    def _halt_somebody(self) -> None:
        able = [worker for worker in self.workers if worker.takes_tasks]
        if able:
            self._halt(self._chance.choice(able))
        self._later(self._about(BETWEEN_HALTS), self._halt_somebody)

    def _halt(self, worker: WorkerRecord) -> None:
        process = self._processes[worker.name]
        returned, process.mailbox = process.mailbox, []
        for record in returned:
            assert self.scheduler.settle(worker, Outcome(record.number, is_returned=True)) is None
            assert self.scheduler.take(worker) == []
        self._end_all(self.scheduler.halt(worker, "for review"))
        self._later(self._about(60.0), partial(self._resume, worker))
        self._send_all()

    def _resume(self, worker: WorkerRecord) -> None:
        self._end_all(self.scheduler.resume(worker))
        self._send_all()

    def _end_all(self, decided: Iterable[Decided]) -> None:
        for one in decided:
            assert one.record.number not in self.endings, "it has ended before"
            self.endings[one.record.number] = one.ending
            self._later(RECORDED_AFTER, partial(self._record, one.record))

    def _record(self, record: TaskRecord) -> None:
        session = record.task.session
        if session is not None:
            self.recorded[session].append(record.number)
            del self._out_of_session[session]
        has_grown = self.endings[record.number].conversation is not None
        following = self.scheduler.release(record, has_grown=has_grown)
        assert following is None
        if session is not None:
            self._send_all()


@pytest.fixture(scope="module", params=[1, 4], ids=["one turn at once", "four turns at once"])
def day(request: pytest.FixtureRequest) -> BadDay:
    """One that has run to its end, whose workers run so many turns at once."""
    one = BadDay(seed=11, concurrency=request.param)
    one.run()
    return one


def test_every_task_ends_once_and_only_poison_fails(day: BadDay) -> None:
    failed = {number for number, ending in day.endings.items() if ending.state == "failed"}

    assert sorted(day.endings) == list(range(1, TASKS + 1))
    assert failed == POISON
    assert Counter(ending.state for ending in day.endings.values()) == {
        "completed": TASKS - len(POISON),
        "failed": len(POISON),
    }


def test_poison_kills_no_more_workers_than_the_policy_says(day: BadDay) -> None:
    assert set(day.deaths) == POISON
    assert max(day.deaths.values()) <= POLICY.max_deaths
    assert sum(day.deaths.values()) <= day.died


def test_every_worker_that_died_is_back_or_on_its_way(day: BadDay) -> None:
    coming_back = [worker for worker in day.workers if worker.is_coming_back]

    assert sum(worker.restarts for worker in day.workers) + len(coming_back) == day.died


def test_tasks_of_each_session_ran_one_after_the_other_in_order(day: BadDay) -> None:
    assert len(day.recorded) == SESSIONS
    for numbers in day.recorded.values():
        assert numbers == sorted(numbers)


def test_everybody_is_back_at_work_with_nothing_left_to_do(day: BadDay) -> None:
    assert [worker.unfinished for worker in day.workers] == [0] * WORKERS
    assert sum(worker.completed for worker in day.workers) == TASKS - len(POISON)
