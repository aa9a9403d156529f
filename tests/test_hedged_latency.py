"""What hedging is for: with a few turns far slower than the rest, the slowest tasks end sooner.

A simulation of workers that serve one line, first come, first served.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from functools import partial

import pytest

from raypool.clock import FakeClock
from raypool.hedging import After, Hedging
from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord
from raypool.window import Window

WORKERS = 50
TASKS = 10_000
SLOW_SHARE = 0.05
SLOW_FACTOR = 20.0
LOAD = 0.5


class Simulation:
    """Tasks that arrive by chance, and turns of which some are slow wherever they run.

    Attributes:
        sojourns: seconds from the arrival of each task to its answer.
        copies: how many second copies were started.
    """

    def __init__(self, after: After | None, share: float = 0.05, *, seed: int = 4) -> None:
        self.clock = FakeClock()
        self.hedging = Hedging(self.clock, after=after, share=share)
        self.workers = [
            WorkerRecord(f"crew-{n}", "any", partial(Window, 1)) for n in range(WORKERS)
        ]
        self.sojourns: list[float] = []
        self.copies = 0
        self._random = random.Random(seed)
        self._free = deque(self.workers)
        self._line: deque[tuple[float, TaskRecord]] = deque()
        self._arrived: dict[int, float] = {}
        self._who: dict[int, list[WorkerRecord]] = {}
        self._events: list[tuple[float, int, WorkerRecord | None, TaskRecord | None]] = []
        self._ties = itertools.count()
        self._looks_at = math.inf

    def run(self) -> None:
        mean = 1.0 + SLOW_SHARE * (SLOW_FACTOR - 1)
        at = 0.0
        for number in range(1, TASKS + 1):
            at += self._random.expovariate(LOAD * WORKERS / mean)
            record = TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))
            self._at(at, None, record)
        while self._events:
            now, _, worker, asked = heapq.heappop(self._events)
            self.clock.advance(now - self.clock.monotonic())
            if asked is None:
                self._looks_at = math.inf
            elif worker is None:
                self._line.append((now, asked))
            else:
                self._answer(worker, asked)
            self._serve()

    def percentile(self, percent: int) -> float:
        """Seconds that so many percent of the tasks did not exceed."""
        return sorted(self.sojourns)[len(self.sojourns) * percent // 100]

    def _serve(self) -> None:
        while self._line and self._free:
            arrived, record = self._line.popleft()
            self._arrived[record.number] = arrived
            worker = self._free.popleft()
            self._begin(worker, record)
            self.hedging.sent(worker, [record])
        seconds = self.hedging.look()
        for run, worker in self.hedging.matches(list(self._free)):
            self._free.remove(worker)
            self._begin(worker, run.record)
            self.hedging.copied(run, worker)
            self.copies += 1
        if seconds is not None and self.clock.monotonic() + seconds < self._looks_at:
            self._looks_at = self.clock.monotonic() + seconds
            self._at(self._looks_at, None, None)

    def _begin(self, worker: WorkerRecord, record: TaskRecord) -> None:
        worker.held[record.number] = record
        self._who.setdefault(record.number, []).append(worker)
        seconds = self._random.lognormvariate(-0.045, 0.3)
        if self._random.random() < SLOW_SHARE:
            seconds *= SLOW_FACTOR
        self._at(self.clock.monotonic() + seconds, worker, record)

    def _answer(self, worker: WorkerRecord, record: TaskRecord) -> None:
        if record.number not in worker.held:
            return  # it was interrupted
        for one in self._who.pop(record.number):
            del one.held[record.number]
            self.hedging.left(one, record.number, has_run=True)
            self._free.append(one)
        self.sojourns.append(self.clock.monotonic() - self._arrived.pop(record.number))

    def _at(self, at: float, worker: WorkerRecord | None, record: TaskRecord | None) -> None:
        """At that time a worker answers, or a task arrives, or it is looked who is late."""
        heapq.heappush(self._events, (at, next(self._ties), worker, record))


def simulated(after: After | None, share: float = 0.05) -> Simulation:
    simulation = Simulation(after, share)
    simulation.run()
    assert len(simulation.sojourns) == TASKS
    return simulation


@pytest.mark.parametrize("after", ["p95", 3.0])
def test_slowest_tasks_end_far_sooner_for_a_few_more_turns(after: After) -> None:
    without, hedged = simulated(None), simulated(after)

    print(
        f"after {after}: p50 {without.percentile(50):.2f} -> {hedged.percentile(50):.2f} s, "
        f"p99 {without.percentile(99):.1f} -> {hedged.percentile(99):.1f} s, "
        f"{hedged.copies / TASKS:.2%} more turns"
    )
    assert hedged.percentile(99) < without.percentile(99) / 2
    assert hedged.percentile(50) < 1.1 * without.percentile(50)
    assert 0.02 < hedged.copies / TASKS <= 0.05 + 1 / TASKS


def test_share_that_is_larger_does_not_copy_what_is_not_late() -> None:
    assert simulated("p95", share=1.0).copies < 0.08 * TASKS
