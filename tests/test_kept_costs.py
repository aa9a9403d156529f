"""What attempts have cost whose task has not ended is in the ledger for a later pool's budget."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from raypool.ledger import Extra, Totals
from raypool.messages import Outcome, Submission
from raypool.usage import Usage
from tests.house import House
from tests.test_sender import answered, failed

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

SPENT = Usage(input_tokens=30, output_tokens=2)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.die()
    await house.ledger.close()


def costing(outcome: Outcome, cost_usd: float = 0.5) -> Outcome:
    return msgspec.structs.replace(outcome, usage=SPENT, cost_usd=cost_usd, requests=1)


def kept(totals: Totals) -> tuple[float, int]:
    return totals.extra.kept_usd, totals.extra.kept_tokens


async def test_cost_of_an_attempt_outlives_a_pool_that_dies_before_the_next(house: House) -> None:
    house.links["crew-1"].replies[1] = [costing(failed(1, retry_after=3_600.0))]
    await house.submit("mine", Submission(1, "task-1", "why?"))

    await house.reach(lambda: kept(house.file.totals()) == (0.5, 32))

    assert house.file.totals().cost_usd == 0.0


async def test_cost_is_that_of_the_ending_alone_once_there_is_one(house: House) -> None:
    paused = costing(Outcome(1, is_paused=True))
    house.links["crew-1"].replies[1] = [paused, paused, costing(answered(1), 0.25)]
    await house.submit("mine", Submission(1, "task-1", "why?"))

    await house.finish()

    totals = house.file.totals()
    assert kept(totals) == (0.0, 0)
    assert totals.cost_usd == 1.25
    assert totals.usage.total_tokens == 3 * 32


async def test_cost_of_a_task_that_is_cancelled_while_it_waits_is_counted_once(
    house: House,
) -> None:
    house.links["crew-1"].replies[1] = [costing(failed(1, retry_after=3_600.0))]
    await house.submit("mine", Submission(1, "task-1", "why?"))
    await house.reach(lambda: bool(house.workers[0].waiting))

    house.unshelving.cancel_all(["task-1"])
    await house.finish()

    totals = house.file.totals()
    assert (totals.cancelled, totals.cost_usd) == (1, 0.5)
    assert totals.extra == Extra()
