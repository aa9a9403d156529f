"""How long a burst of turns of very different lengths takes, beside the ideal.

The ideal is list scheduling: each turn starts, in order, as soon as a worker is free (Graham,
"Bounds for certain multiprocessing anomalies", 1966).
"""

from __future__ import annotations

import heapq
import random
import statistics

import pytest

from tests.large_pool import LargePool

WORKERS, TASKS, SEEDS = 8, 400, 50
MESSAGE_SECONDS = 0.004


def lognormal_lengths(seed: int) -> list[float]:
    """How long each turn takes, in seconds: most are short, and a few very long."""
    chance = random.Random(seed)
    return [chance.lognormvariate(0.0, 1.5) for _ in range(TASKS)]


def ideal_makespan(lengths: list[float]) -> float:
    free_at = [0.0] * WORKERS
    for seconds in lengths:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def makespan(routing: str, lengths: list[float]) -> float:
    pool = LargePool(
        WORKERS,
        lambda number: lengths[number - 1],
        routing=routing,
        message_seconds=MESSAGE_SECONDS,
    )
    pool.submit(TASKS)
    pool.run()
    return pool.clock.monotonic()


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """The makespan of each policy as a multiple of the ideal: the median of many bursts."""
    bursts = [lognormal_lengths(seed) for seed in range(SEEDS)]
    return {
        routing: statistics.median(makespan(routing, one) / ideal_makespan(one) for one in bursts)
        for routing in ("round_robin", "least_loaded", "next_free")
    }


def test_late_binding_is_within_three_percent_of_the_ideal(ratios: dict[str, float]) -> None:
    assert ratios["next_free"] <= 1.03


def test_binding_at_submit_takes_longer(ratios: dict[str, float]) -> None:
    assert ratios["round_robin"] > 1.2
    assert ratios["least_loaded"] > ratios["next_free"]
