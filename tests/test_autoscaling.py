"""How many workers there should be: bounds, delays, limits, and no to and fro."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypool.autoscaling import Autoscaler, Load, Wanted
from raypool.clock import FakeClock
from raypool.config import Autoscale

TICK = 0.25
SETTINGS = Autoscale(min_size=1, max_size=10, up_delay=1.0, down_delay=60.0)


class Limit(NamedTuple):
    """A rate limit that lets so much through."""

    turns_per_second: float = math.inf
    mean_turn_seconds: float | None = None


class Role:
    """Workers that come and go as they are wanted, at once.

    Attributes:
        changes: (when, size before, size after) of every change.
    """

    def __init__(
        self, scale: Autoscale = SETTINGS, size: int | None = None, concurrency: int = 1
    ) -> None:
        self.clock = FakeClock(100.0)
        self.autoscaler = Autoscaler(scale, self.clock)
        self.size = scale.min_size if size is None else size
        self.concurrency = concurrency
        self.changes: list[tuple[float, int, int]] = []
        self.limit: Limit | None = None
        self.blocked: str | None = None
        self.last = Wanted(self.size)

    def run(self, tasks: int, seconds: float) -> int:
        """Have so many tasks for so long; the size after that."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() <= end:
            self.step(tasks)
        return self.size

    def step(self, tasks: int) -> None:
        load = Load(self.size, tasks, self.concurrency, self.blocked)
        self.last = self.autoscaler.wanted(load, self.limit)
        if self.last.size != self.size:
            self.changes.append((self.clock.monotonic(), self.size, self.last.size))
            self.size = self.last.size
        self.clock.advance(TICK)


def test_size_grows_until_no_more_wait_for_each_than_may() -> None:
    assert Role().run(tasks=12, seconds=5) == 4
    assert Role(concurrency=4).run(tasks=12, seconds=5) == 2


def test_size_grows_only_after_more_were_wanted_for_the_delay() -> None:
    role = Role()

    assert role.run(tasks=12, seconds=0.75) == 1
    assert role.run(tasks=12, seconds=0.5) == 4


def test_short_rush_changes_nothing() -> None:
    role = Role()

    for _ in range(20):
        role.run(tasks=12, seconds=0.5)
        role.run(tasks=3, seconds=0.25)

    assert role.changes == []


def test_size_shrinks_only_after_fewer_were_wanted_for_the_delay() -> None:
    role = Role(size=6)

    assert role.run(tasks=2, seconds=59.5) == 6
    assert role.run(tasks=2, seconds=1.0) == 2


def test_busy_minute_in_between_begins_the_delay_again() -> None:
    role = Role(size=6)

    role.run(tasks=2, seconds=40)
    role.run(tasks=6, seconds=1)

    assert role.run(tasks=2, seconds=58) == 6
    assert role.run(tasks=2, seconds=3) == 2


def test_workers_that_are_all_busy_stay_though_fewer_would_do() -> None:
    assert Role(size=6).run(tasks=6, seconds=300) == 6


@pytest.mark.parametrize("tasks", [0, 1_000_000])
def test_size_stays_within_its_bounds(tasks: int) -> None:
    role = Role(Autoscale(min_size=2, max_size=5), size=3)

    assert role.run(tasks=tasks, seconds=120) == (5 if tasks else 2)


def test_size_below_the_least_is_mended_at_once() -> None:
    role = Role(Autoscale(min_size=3, max_size=5), size=2)

    role.step(0)

    assert role.size == 3


def test_last_worker_goes_when_none_need_stay() -> None:
    role = Role(Autoscale(min_size=0, max_size=5), size=2)

    assert role.run(tasks=0, seconds=59) == 2
    assert role.run(tasks=0, seconds=2) == 0


def test_first_task_has_workers_come_at_once_where_there_are_none() -> None:
    role = Role(Autoscale(min_size=0, max_size=5, up_delay=30.0))

    role.step(1)

    assert role.size == 1


def test_somebody_who_sets_the_size_begins_the_delays_again() -> None:
    role = Role(size=6)
    role.run(tasks=2, seconds=59)

    role.size = 5
    role.autoscaler.begin()

    assert role.run(tasks=2, seconds=59) == 5
    assert role.run(tasks=2, seconds=2) == 2


def test_size_grows_no_further_than_the_rate_limit_feeds_and_says_so() -> None:
    role = Role()
    role.limit = Limit(turns_per_second=2.0, mean_turn_seconds=1.5)

    assert role.run(tasks=1_000, seconds=5) == 3
    assert role.last.held_back == "the rate limit feeds 3 workers; what waits would ask for 10"


def test_worker_that_runs_many_turns_at_once_is_fed_by_more_of_the_limit() -> None:
    role = Role(concurrency=4)
    role.limit = Limit(turns_per_second=2.0, mean_turn_seconds=6.0)

    assert role.run(tasks=1_000, seconds=5) == 3


def test_size_waits_for_the_first_turn_where_a_limit_is_set() -> None:
    role = Role()
    role.limit = Limit(turns_per_second=100.0)
    assert role.run(tasks=1_000, seconds=5) == 1

    role.limit = Limit(turns_per_second=100.0, mean_turn_seconds=0.05)

    assert role.run(tasks=1_000, seconds=5) == 5
    assert role.last.held_back is not None


def test_nothing_holds_back_where_no_limit_is_set() -> None:
    role = Role()
    role.limit = Limit()

    assert role.run(tasks=1_000, seconds=5) == 10
    assert role.last.held_back is None


def test_size_does_not_grow_while_nothing_is_sent_and_says_why() -> None:
    role = Role()
    role.blocked = "the budget is spent"

    assert role.run(tasks=1_000, seconds=60) == 1
    assert role.last.held_back == "what waits would ask for 10 workers, but the budget is spent"


def test_limit_that_wavers_moves_nobody() -> None:
    role = Role()
    role.limit = Limit(turns_per_second=4.0, mean_turn_seconds=1.0)
    role.run(tasks=1_000, seconds=5)
    before = list(role.changes)

    for _ in range(200):
        role.limit = Limit(turns_per_second=2.5, mean_turn_seconds=1.0)
        role.run(tasks=1_000, seconds=0.75)
        role.limit = Limit(turns_per_second=4.0, mean_turn_seconds=1.0)
        role.run(tasks=1_000, seconds=0.75)

    assert role.changes == before


def test_workers_that_a_lower_limit_cannot_feed_go_after_the_delay() -> None:
    role = Role(size=10)
    role.limit = Limit(turns_per_second=1.0, mean_turn_seconds=2.0)

    assert role.run(tasks=1_000, seconds=59) == 10
    assert role.run(tasks=1_000, seconds=3) == 4


SCALES = st.builds(
    lambda low, more, target, up, down: Autoscale(
        min_size=low,
        max_size=max(1, low + more),
        target_queued_per_worker=target,
        up_delay=up,
        down_delay=down,
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    st.sampled_from([0.0, 0.25, 1.0, 5.0]),
    st.sampled_from([0.0, 1.0, 10.0]),
)
LIMITS = st.none() | st.builds(
    Limit,
    st.sampled_from([0.1, 1.0, 10.0, math.inf]),
    st.none() | st.sampled_from([0.1, 1.0, 10.0]),
)
STEPS = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 40), LIMITS), max_size=20)


@given(scale=SCALES, steps=STEPS, concurrency=st.integers(1, 4))
def test_size_keeps_its_bounds_and_never_turns_back_within_a_delay(
    scale: Autoscale, steps: list[tuple[int, int, Limit | None]], concurrency: int
) -> None:
    role = Role(scale, concurrency=concurrency)

    for tasks, count, role.limit in steps:
        for _ in range(count):
            role.step(tasks)
            assert scale.min_size <= role.size <= scale.max_size

    for (at, before, size), (later, again, after) in zip(
        role.changes, role.changes[1:], strict=False
    ):
        assert size == again
        if before < size > after:
            assert later - at >= scale.down_delay
        if before > size < after and size > 0:
            assert later - at >= scale.up_delay


@given(scale=SCALES, tasks=st.integers(0, 200), start=st.integers(0, 25), limit=LIMITS)
def test_steady_load_comes_to_a_steady_size(
    scale: Autoscale, tasks: int, start: int, limit: Limit | None
) -> None:
    start = max(scale.min_size, min(start, scale.max_size))
    role = Role(scale, size=start)
    role.limit = limit
    role.run(tasks, scale.up_delay + scale.down_delay + 2 * TICK)
    settled = len(role.changes)

    role.run(tasks, 3 * (scale.up_delay + scale.down_delay))

    assert role.changes[settled:] == []
    assert all(size > before for _, before, size in role.changes) or all(
        size < before for _, before, size in role.changes
    )


@settings(max_examples=50)
@given(
    scale=SCALES,
    loads=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=10),
)
def test_more_to_do_never_leads_to_fewer_workers(
    scale: Autoscale, loads: list[tuple[int, int]]
) -> None:
    little, much = Role(scale), Role(scale)

    for tasks, more in loads:
        for _ in range(8):
            little.step(tasks)
            much.step(tasks + more)
            assert much.size >= little.size


def test_hours_of_random_load_changes_the_size_seldom() -> None:
    chance = random.Random(20261123)
    role = Role(Autoscale(min_size=1, max_size=50))
    hours, tasks = 6, 0.0
    for _ in range(hours * 60):
        tasks = max(0.0, tasks + chance.gauss(0.0, 6.0))
        for _ in range(240):
            role.step(max(0, round(chance.gauss(tasks, 3.0))))

    ups = sum(after > before for _, before, after in role.changes)

    assert 1 <= role.size <= 50
    assert ups < hours * 12
