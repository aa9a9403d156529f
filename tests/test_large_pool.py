"""A million tasks for a thousand workers, and what holds of every one of them."""

from __future__ import annotations

import pytest

from raypool.config import Budget, RateLimit
from tests.large_pool import Faults, LargePool, lognormal, most_within

WORKERS = 1_000
BAD_DAYS = Faults(failures=0.01, overloads=600.0, deaths=20.0)


@pytest.mark.timeout(900)
def test_million_tasks_all_end_once_whatever_goes_wrong() -> None:
    pool = LargePool(WORKERS, lognormal(10.0, 1.5), faults=BAD_DAYS)

    pool.run(feed=1_000_000)

    assert pool.states == {"completed": 1_000_000}
    assert pool.scheduler.unfinished == 0
    assert min(pool.deaths, pool.refused) > 100
    assert pool.turns >= 1_000_000 / (1 - BAD_DAYS.failures)


def test_each_worker_keeps_the_order_of_round_robin_though_turns_fail() -> None:
    faults = Faults(failures=0.05, overloads=100.0)
    pool = LargePool(WORKERS, lognormal(10.0, 1.5), routing="round_robin", faults=faults)

    pool.submit(20_000)
    pool.run()

    assert pool.states == {"completed": 20_000}
    assert pool.refused > 100
    for place in range(WORKERS):
        expected = list(range(place + 1, 20_001, WORKERS))
        assert list(pool.begun_by[f"crew-{place + 1}"]) == expected


def test_more_urgent_tasks_are_begun_before_all_that_wait() -> None:
    pool = LargePool(WORKERS, lognormal(10.0, 1.5), faults=Faults(failures=0.05))
    usual = pool.submit(10_000)
    pool.run(until=30.0)
    was_begun = len(pool.begun)

    low, high = pool.submit(1_000, priority=1), pool.submit(1_000, priority=2)
    pool.run()

    assert list(pool.begun[was_begun : was_begun + 2_000]) == [*high, *low]
    assert sorted(pool.begun) == [*usual, *low, *high]


@pytest.mark.parametrize("routing", ["round_robin", "least_loaded", "next_free"])
def test_tenant_with_ten_tasks_is_not_starved_by_one_with_a_hundred_thousand(routing: str) -> None:
    pool = LargePool(100, lognormal(10.0, 0.5), routing=routing)
    pool.submit(100_000, tenant="big")
    pool.run(until=100.0)

    few = pool.submit(10, tenant="small")
    pool.run(until=200.0)

    assert set(few) <= set(pool.ended)
    assert len(pool.ended) < 3_000


def test_late_binding_begins_tasks_of_two_tenants_in_turn() -> None:
    pool = LargePool(WORKERS, lognormal(10.0, 1.5))
    pool.submit(20_000, tenant="big")
    was_begun = len(pool.begun)

    few = pool.submit(10, tenant="small")
    pool.run(until=30.0)

    places = [pool.begun.index(number) - was_begun for number in few]
    assert places == sorted(places)
    assert max(places) < 20


@pytest.mark.parametrize("routing", ["round_robin", "next_free"])
def test_no_window_of_a_long_run_has_more_requests_than_the_limit_lets_through(
    routing: str,
) -> None:
    limit = RateLimit(requests_per_minute=3_000, adaptive=False)
    faults = Faults(failures=0.01, overloads=300.0, deaths=20.0)
    pool = LargePool(
        WORKERS, lognormal(10.0, 1.0), routing=routing, rate_limit=limit, faults=faults
    )

    pool.run(feed=15_000)

    assert pool.states == {"completed": 15_000}
    for window in (0.01, 0.1, 1.0, 7.0, 60.0, 200.0):
        assert most_within(pool.sent_at, window) <= 50 * (window + 1)
    assert most_within(pool.sent_at, 200.0) > 0.98 * 50 * 200


def test_budget_is_never_exceeded_and_what_waits_goes_on_when_it_is_raised() -> None:
    faults = Faults(failures=0.05, overloads=100.0, deaths=5.0)
    pool = LargePool(WORKERS, lognormal(10.0, 1.5), budget=Budget(tokens=1_000_000), faults=faults)

    pool.run(feed=10_000)

    status = pool.book.status()
    assert status is not None
    assert status.is_spent
    assert status.reserved_tokens == 0
    assert pool.billed <= status.spent_tokens <= 1_000_000
    assert status.spent_tokens > 1_000_000 - 600
    assert 0 < pool.states["completed"] == 10_000 - pool.scheduler.unfinished

    pool.set_budget(Budget(tokens=10_000_000))
    pool.run()

    assert pool.states == {"completed": 10_000}
    assert pool.billed <= 10_000_000
