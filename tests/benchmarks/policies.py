"""Who gets the next task: each policy beside the ideal, for turns of very different lengths."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from typing import NamedTuple

from raypool import Pool
from raypool.backends import ScriptedBackend
from raypool.config import ROUTING_POLICIES
from tests.benchmarks.measure import Scenario

MEAN_SECONDS = 0.25
SIGMA = 1.5


class Ratios(NamedTuple):
    """A burst of turns beside the same turns under ideal list scheduling.

    Attributes:
        makespan: until the last answer.
        p95_sojourn: until the answer that 95 % of the tasks have before.
    """

    makespan: float
    p95_sojourn: float


def length_of(prompt: str) -> float:
    """How long the turn of `0.43 …` lasts, in seconds."""
    return float(prompt.split(maxsplit=1)[0])


@contextmanager
def scenarios(count: int, workers: int) -> Iterator[list[Scenario]]:
    """A burst of `count` tasks to so many workers of each policy, and to round robin's."""
    with ExitStack() as stack:
        bursts = Bursts(stack, count, workers)
        yield [
            bursts.scenario("next_free", "makespan", "≤ 1.03 of the ideal"),
            bursts.scenario("next_free", "p95_sojourn", "≤ 1.05 of the ideal"),
            bursts.scenario("least_loaded", "makespan", "printed"),
        ]


class Bursts:
    """Runs the same burst by one policy and by another, on workers of its own each."""

    def __init__(self, stack: ExitStack, count: int, workers: int) -> None:
        self._stack = stack
        self._count = count
        self._workers = workers
        self.run = cache(self._run)

    @cached_property
    def _pool(self) -> Pool:
        roles = {policy: {"size": self._workers, "routing": policy} for policy in ROUTING_POLICIES}
        backend = ScriptedBackend(latency=length_of)
        return self._stack.enter_context(Pool.start(roles=roles, backend=backend))

    def scenario(self, policy: str, figure: str, goal: str) -> Scenario:
        """`policy` beside round robin, both in multiples of the ideal."""
        ours, theirs = itertools.count(), itertools.count()
        return Scenario(
            f"{figure.replace('_', ' ')} of {self._count} lognormal turns, {policy}",
            "of the ideal",
            goal,
            lambda: float(getattr(self.run(policy, next(ours)), figure)),
            lambda: float(getattr(self.run("round_robin", next(theirs)), figure)),
            "round robin",
        )

    def _run(self, role: str, seed: int) -> Ratios:
        """One burst, to the workers of that role."""
        pool = self._pool
        lengths = lognormal_lengths(self._count, seed)
        sojourns: list[float] = []
        started = time.perf_counter()
        futures = [
            pool.submit(f"{seconds:.6f} question {n}", role=role)
            for n, seconds in enumerate(lengths)
        ]
        for future in futures:
            future.add_done_callback(lambda _: sojourns.append(time.perf_counter() - started))
        for future in futures:
            future.result()
        ideal = ideal_ends(lengths, self._workers)
        return Ratios(max(sojourns) / max(ideal), p95(sojourns) / p95(ideal))


def lognormal_lengths(count: int, seed: int) -> list[float]:
    """How long each turn lasts, in seconds: most are short, and a few very long."""
    chance = random.Random(seed)
    lengths = [chance.lognormvariate(0.0, SIGMA) for _ in range(count)]
    return [seconds * MEAN_SECONDS / statistics.fmean(lengths) for seconds in lengths]


def ideal_ends(lengths: list[float], workers: int) -> list[float]:
    """When each turn ends if each starts, in order, as soon as a worker is free (Graham 1966)."""
    free_at = [0.0] * workers
    ends = []
    for seconds in lengths:
        ends.append(heapq.heappop(free_at) + seconds)
        heapq.heappush(free_at, ends[-1])
    return ends


def p95(values: list[float]) -> float:
    """What 95 % of the values are below."""
    return statistics.quantiles(values, n=20)[-1]
