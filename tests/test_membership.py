"""What a dispatcher that comes back finds in the ledger is what its own pool had."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from raypool.config import Budget
from raypool.group_commit import GroupCommit
from raypool.membership import begin_budget, keep_budget
from raypool.sqlite_ledger import SqliteLedger

SMALL, LARGE = Budget(usd=1.0), Budget(usd=10.0)


@pytest.fixture
def ledger() -> Iterator[SqliteLedger]:
    ledger = SqliteLedger()
    yield ledger
    ledger.close()


def set_while_it_runs(ledger: SqliteLedger, budget: Budget | None) -> None:
    async def keep() -> None:
        await keep_budget(GroupCommit(ledger), budget)

    asyncio.run(keep())


@pytest.mark.parametrize("budget", [SMALL, None])
def test_dispatcher_that_comes_back_has_the_budget_that_its_pool_was_started_with(
    ledger: SqliteLedger, budget: Budget | None
) -> None:
    assert begin_budget(ledger, budget, goes_on=False) == budget

    assert begin_budget(ledger, budget, goes_on=True) == budget


@pytest.mark.parametrize("budget", [LARGE, None])
def test_dispatcher_that_comes_back_has_the_budget_that_was_set_meanwhile(
    ledger: SqliteLedger, budget: Budget | None
) -> None:
    begin_budget(ledger, SMALL, goes_on=False)
    set_while_it_runs(ledger, budget)

    assert begin_budget(ledger, SMALL, goes_on=True) == budget


@pytest.mark.parametrize("earlier", [LARGE, None])
def test_budget_that_an_earlier_pool_was_given_is_forgotten(
    ledger: SqliteLedger, earlier: Budget | None
) -> None:
    begin_budget(ledger, SMALL, goes_on=False)
    set_while_it_runs(ledger, earlier)

    assert begin_budget(ledger, SMALL, goes_on=False) == SMALL

    assert begin_budget(ledger, SMALL, goes_on=True) == SMALL
