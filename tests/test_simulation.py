"""An hour of a large pool in a second: 100 workers, 20,000 tasks, and a clock that is told so."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.messages import Answer, Failure, Outcome
from raypool.records import AcceptedTask, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import LeastLoaded, NextFree, RoundRobin, Routing
from raypool.scheduler import Scheduler
from raypool.settling import Decided
from raypool.task_record import TaskRecord
from raypool.window import Window

WORKERS, TASKS = 100, 20_000
FAILURES = 0.02
MEAN_SECONDS = 20.0
POLICY = RetryPolicy(max_attempts=10, initial_seconds=1.0, max_seconds=30.0)


class Simulation:
    """Workers that take a random while for each turn, run by a scheduler on a fake clock.

    Attributes:
        endings: how each task ended, by number.
        first_worker: which worker each task was given to.
        starts: per worker, the numbers of the first attempts in the order of their starts.
        turns: how many turns were run.
    """

    def __init__(self, seed: int, *, concurrency: int, routing: Routing | None = None) -> None:
        self.endings: dict[int, Ending] = {}
        self.first_worker: dict[int, str | None] = {}
        self.starts: dict[str, list[int]] = {}
        self.turns = 0
        self._chance = random.Random(seed)
        self.concurrency = concurrency
        self._clock = FakeClock()
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(concurrency))
            for n in range(WORKERS)
        ]
        self.scheduler = Scheduler(
            Roster(self.workers),
            routing or RoundRobin(),
            Retries(POLICY),
            self._clock,
        )
        self._running: list[tuple[float, int, WorkerRecord, TaskRecord]] = []
        self._mailboxes: dict[str, list[TaskRecord]] = {w.name: [] for w in self.workers}
        self._free = dict.fromkeys(self._mailboxes, concurrency)

    def submit(self, count: int) -> None:
        for number in range(1, count + 1):
            record = TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))
            self.scheduler.reserve(record)
            assert self.scheduler.assign(record) is None
            self.first_worker[number] = record.worker

    def run(self) -> None:
        """Let time pass until nothing is left to do."""
        for worker in self.workers:
            self._send(worker)
        while self._running or self.scheduler.waits:
            self._pass_time()

    @property
    def seconds(self) -> float:
        """How much time has passed."""
        return self._clock.time()

    def _pass_time(self) -> None:
        _, due = self.scheduler.wake()
        turn_ends = self._running[0][0] if self._running else float("inf")
        now = self._clock.monotonic()
        if due is not None and now + due < turn_ends:
            self._clock.advance(due)
            self.scheduler.wake()
            for worker in self.workers:
                self._send(worker)
            return
        ended_at, _, worker, record = heapq.heappop(self._running)
        self._clock.advance(ended_at - now)
        self._free[worker.name] += 1
        self._settle(worker, record)
        self._send(worker)

    def _send(self, worker: WorkerRecord) -> None:
        mailbox = self._mailboxes[worker.name]
        mailbox += self.scheduler.take(worker)
        while mailbox and self._free[worker.name]:
            self._start(worker, mailbox.pop(0))

    def _start(self, worker: WorkerRecord, record: TaskRecord) -> None:
        self._free[worker.name] -= 1
        self.turns += 1
        if record.tries.attempts == 0:
            self.starts.setdefault(worker.name, []).append(record.number)
        seconds = self._chance.expovariate(1 / MEAN_SECONDS)
        ends_at = self._clock.monotonic() + seconds
        heapq.heappush(self._running, (ends_at, self.turns, worker, record))

    def _settle(self, worker: WorkerRecord, record: TaskRecord) -> None:
        if self._chance.random() < FAILURES:
            outcome = Outcome(record.number, failure=Failure("BackendError", "transient", "E", ""))
        else:
            outcome = Outcome(record.number, Answer("42", 1.0))
        worker.window.ended(1, self._clock.monotonic())
        settled = self.scheduler.settle(worker, outcome)
        if isinstance(settled, Decided):
            ended, ending = settled
            assert ended is record
            assert record.number not in self.endings
            self.endings[record.number] = ending
            assert self.scheduler.release(ended, has_grown=False) is None


@pytest.fixture(scope="module", params=[1, 8])
def simulation(request: pytest.FixtureRequest) -> Simulation:
    """One that has run to its end, whose workers run so many turns at once."""
    one = Simulation(seed=7, concurrency=request.param)
    one.submit(TASKS)
    one.run()
    return one


def test_nothing_is_lost_and_nothing_runs_twice(simulation: Simulation) -> None:
    endings = simulation.endings.values()

    assert sorted(simulation.endings) == list(range(1, TASKS + 1))
    assert Counter(ending.state for ending in endings) == {"completed": TASKS}
    assert sum(ending.attempts for ending in endings) == simulation.turns
    assert simulation.turns == pytest.approx(TASKS / (1 - FAILURES), rel=0.01)
    assert simulation.scheduler.unfinished == 0


def test_round_robin_is_exact_and_each_worker_keeps_its_order(simulation: Simulation) -> None:
    names = [worker.name for worker in simulation.workers]

    for number in range(1, TASKS + 1):
        expected = names[(number - 1) % WORKERS]
        assert simulation.first_worker[number] == expected
        assert simulation.endings[number].worker == expected
    for place, name in enumerate(names):
        assert simulation.starts[name] == list(range(place + 1, TASKS + 1, WORKERS))


def test_workers_are_busy_all_the_time(simulation: Simulation) -> None:
    if_all_are_busy = MEAN_SECONDS * simulation.turns / WORKERS / simulation.concurrency

    assert simulation.seconds < 2 * if_all_are_busy


BURST, CREW = 400, 8


def list_scheduling(durations: list[float]) -> float:
    """When the last one ends if each begins, in order, as soon as one of `CREW` is free.

    Graham's list scheduling (SIAM Journal on Applied Mathematics 17(2), 1969).
    """
    free = [0.0] * CREW
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def makespan(routing: Routing, durations: list[float]) -> float:
    """The same with a policy of ours; an envelope is under way for no time."""
    clock = FakeClock()
    workers = [WorkerRecord(f"crew-{n}", "chemist", lambda: Window(1)) for n in range(CREW)]
    scheduler = Scheduler(Roster(workers), routing, Retries(POLICY), clock)
    for number in range(1, len(durations) + 1):
        record = TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))
        scheduler.reserve(record)
        assert scheduler.assign(record) is None
    mailboxes: dict[str, list[int]] = {worker.name: [] for worker in workers}
    running: list[tuple[float, int, WorkerRecord]] = []
    while True:
        for worker, records in scheduler.envelopes():
            mailboxes[worker.name] += [record.number for record in records]
        busy = {worker.name for _, _, worker in running}
        for worker in workers:
            if mailboxes[worker.name] and worker.name not in busy:
                number = mailboxes[worker.name].pop(0)
                ends_at = clock.monotonic() + durations[number - 1]
                heapq.heappush(running, (ends_at, number, worker))
        if not running:
            return clock.monotonic()
        ends_at, number, worker = heapq.heappop(running)
        clock.advance(ends_at - clock.monotonic())
        worker.window.ended(1, clock.monotonic())
        scheduler.settle(worker, Outcome(number, Answer("42", 1.0)))


def ratios(policy: type[Routing], mean_seconds: float) -> list[float]:
    """How much later than list scheduling a burst of lognormal turns ends, for several bursts."""
    chance = random.Random(3)
    found = []
    for _ in range(20):
        draws = [chance.lognormvariate(0.0, 1.5) for _ in range(BURST)]
        durations = [draw * mean_seconds * BURST / sum(draws) for draw in draws]
        found.append(makespan(policy(), durations) / list_scheduling(durations))
    return found


@pytest.mark.parametrize("mean_seconds", [0.005, 0.02, 0.08, 2.0])
def test_late_binding_ends_a_burst_as_soon_as_list_scheduling(mean_seconds: float) -> None:
    found = ratios(NextFree, mean_seconds)

    assert sum(found) / len(found) <= 1.03


@pytest.mark.parametrize("policy", [RoundRobin, LeastLoaded])
def test_early_binding_ends_a_burst_of_uneven_turns_later(policy: type[Routing]) -> None:
    found = ratios(policy, 2.0)

    assert sum(found) / len(found) > 1.1
