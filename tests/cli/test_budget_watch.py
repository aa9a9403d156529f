"""A run whose budget is spent ends by itself."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from raypool import Pool, PoolStatus, PoolStopped
from raypool.cli.budget_watch import BudgetWatch
from raypool.status import BudgetStatus
from tests.statuses import status_of


class Spending:
    """A pool whose budget is spent, while so many turns run as `running` says, one after another.

    Attributes:
        has_stopped: is set once somebody stops it.
    """

    def __init__(self, *running: int, is_spent: bool = True, reserved_usd: float = 0.0) -> None:
        self.has_stopped = threading.Event()
        self.was_asked = threading.Event()
        self._running = [*running]
        self._is_spent = is_spent
        self._reserved_usd = reserved_usd

    def status(self) -> PoolStatus:
        if not self._running:
            self.was_asked.set()
            raise PoolStopped("stopped")
        budget = BudgetStatus(
            usd=1.0,
            tokens=None,
            spent_usd=0.99,
            spent_tokens=5,
            reserved_usd=self._reserved_usd,
            reserved_tokens=0,
            is_spent=self._is_spent,
        )
        return status_of(
            queued=3,
            running=self._running.pop(0),
            completed=1,
            input_tokens=2,
            output_tokens=3,
            cost_usd=0.99,
            budget=budget,
        )

    def stop(self) -> None:
        self.has_stopped.set()


def watch(pool: Spending, stop_reading: Any = lambda: None) -> BudgetWatch:
    return BudgetWatch(cast(Pool, pool), stop_reading, budget_usd=1.0, seconds=0.001)


@pytest.mark.parametrize("running", [(0,), (2, 1, 0)], ids=str)
def test_pool_is_stopped_once_the_budget_is_spent_and_nothing_runs(
    running: tuple[int, ...],
) -> None:
    pool, has_stopped_reading = Spending(*running), threading.Event()

    with watch(pool, has_stopped_reading.set) as watching:
        assert pool.has_stopped.wait(timeout=60)

    assert has_stopped_reading.is_set()
    assert watching.why == "the budget is spent ($0.99 of $1.00); --budget-usd raises it"


@pytest.mark.parametrize(
    "pool",
    [Spending(0, 0, is_spent=False), Spending(0, 0, reserved_usd=0.5)],
    ids=["not spent", "a turn is on its way to its worker"],
)
def test_pool_that_may_spend_more_goes_on(pool: Spending) -> None:
    with watch(pool) as watching:
        assert pool.was_asked.wait(timeout=60)

    assert not pool.has_stopped.is_set()
    assert watching.why == ""
