"""What was in flight when a pool died is counted once, and kept within the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from raypool.accounts import Accounts
from raypool.capacity.alone import LoneShare
from raypool.capacity.budget import BudgetBook
from raypool.capacity.gates import Gates
from raypool.clock import FakeClock
from raypool.config import Budget, Price, RateLimit, RetryPolicy
from raypool.group_commit import GroupCommit
from raypool.in_flight import count_in_flight
from raypool.ledger import Extra, Progress
from raypool.messages import Terms
from raypool.records import AcceptedTask
from raypool.retries import Retries
from raypool.roster import Roster
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.task_record import TaskRecord

TERMS = Terms("https://api", "key", "a-model", max_tokens=100, is_priced=True)
PRICES = {"a-model": Price(input_mtok=0.0, output_mtok=1_000.0)}
USD_EACH = 0.1


class Successor:
    """What comes after a dispatcher that had sent some tasks to workers."""

    def __init__(self, *sent_to: int) -> None:
        self.file = SqliteLedger()
        numbers = range(1, len(sent_to) + 3)
        self.tasks = [AcceptedTask(n, f"task-{n}", "why?") for n in numbers]
        progress = Progress(sent=dict(enumerate(sent_to, start=1)))
        self.file.write(self.tasks, [], progress=progress)
        clock = FakeClock()
        self.book = BudgetBook(Budget(usd=1.0))
        self.gates = Gates(
            self.book,
            clock,
            prices=PRICES,
            has_memory=False,
            new_share=lambda terms, limit: LoneShare(clock, limit),
            tell=lambda *told, **fields: None,
        )
        self.gates.of("chemist", TERMS, RateLimit())
        self.scheduler = Scheduler(
            Roster([], Accounts({})), RoundRobin(), Retries(RetryPolicy()), clock
        )
        self.tally = Tally(self.file.totals())

    def count(self, *present: str) -> None:
        async def count() -> None:
            ledger = GroupCommit(self.file)
            await count_in_flight(
                ledger, self.scheduler, self.gates, self.book, self.tally, present=present
            )

        asyncio.run(count())

    @property
    def spent_usd(self) -> float:
        status = self.book.status()
        assert status is not None
        return status.spent_usd


@pytest.fixture
def successor() -> Iterator[Successor]:
    successor = Successor(1, 1, 2)
    yield successor
    successor.file.close()


def test_what_nobody_will_tell_of_is_counted_once_and_kept_for_the_budget(
    successor: Successor, caplog: pytest.LogCaptureFixture
) -> None:
    successor.count()
    successor.count()

    assert successor.tally.maybe_billed == 3
    assert successor.file.totals().extra.maybe_billed == 3
    assert successor.file.totals().extra.kept_usd == pytest.approx(3 * USD_EACH)
    assert successor.spent_usd == pytest.approx(3 * USD_EACH)
    assert successor.file.sent() == []
    assert len(successor.file.unfinished(0, 9)) == 5
    assert [one.message.partition(":")[0] for one in caplog.records] == [
        "3 turns were cut short as the pool ended last"
    ]


def test_what_a_worker_has_told_of_is_not_counted(
    successor: Successor, caplog: pytest.LogCaptureFixture
) -> None:
    running = TaskRecord(successor.tasks[0])
    successor.scheduler.reserve(running)

    successor.count("crew-1", "crew-2")

    assert successor.tally.maybe_billed == 0
    assert successor.file.totals().extra == Extra()
    assert [one.task.number for one in successor.file.sent()] == [1]
    assert caplog.records == []


def test_what_a_lost_worker_had_is_counted_beside_one_that_is_there(successor: Successor) -> None:
    successor.count("crew-1")

    assert successor.tally.maybe_billed == 1
    assert successor.spent_usd == pytest.approx(USD_EACH)
