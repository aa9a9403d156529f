"""What a provider that cannot be reached means for tasks: they wait, a few are tried, and why."""

from __future__ import annotations

from typing import NamedTuple

from raypool.capacity.alone import LoneShare
from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import BudgetBook
from raypool.capacity.limit_gate import LimitGate
from raypool.capacity.outage import FIRST_PATIENCE_SECONDS, PATIENCE_SECONDS, Outage
from raypool.capacity.usage_log import UsageLog
from raypool.config import RetryPolicy
from raypool.messages import Terms
from raypool.records import StoredCause
from tests.stage import Stage

TASKS = 50
POLICY = RetryPolicy()


class Told(NamedTuple):
    """What became of it all.

    Attributes:
        requests: the seconds at which something was sent, while nobody was there.
        failed: when each failed task failed.
        answered: when each was answered.
    """

    requests: list[float]
    failed: dict[int, float]
    answered: dict[int, float]


class Provider:
    """A stage of two workers whose provider is away between two moments."""

    def __init__(self, away_from: float, away_until: float, *, turn_seconds: float = 1.0) -> None:
        self.stage = Stage(policy=POLICY)
        clock = self.stage.clock
        share = LoneShare(clock)
        self.gate = LimitGate(
            Terms(),
            share,
            BudgetBook(None),
            Breaker(clock),
            Outage(clock, POLICY),
            log=UsageLog(share, clock),
            table={},
        )
        for worker in self.stage.workers:
            worker.gate = self.gate
        self.stage.scheduler.roster.sort()
        self._away = (away_from, away_until)
        self._turn_seconds = turn_seconds

    def run(self, until: float) -> Told:
        """Send what may be sent, let time pass, and so on for so many seconds."""
        told, stage = Told([], {}, {}), self.stage
        started = stage.clock.monotonic()
        while (now := stage.clock.monotonic() - started) < until:
            sent = stage.send()
            for name, numbers in sent.items():
                worker = stage.scheduler.roster[name]
                for number in numbers:
                    if self._away[0] <= now < self._away[1]:
                        told.requests.append(now)
                        if stage.fail(worker, number, "unreachable") is not None:
                            told.failed[number] = now
                    else:
                        stage.answer(worker, number)
                        told.answered[number] = now
            due = stage.scheduler.due_in()
            if not sent and due is None:
                break
            stage.clock.advance(self._turn_seconds if sent else (due or 0.0) + 0.001)
            stage.scheduler.wake()
        return told


def test_minute_without_the_provider_costs_no_task_and_few_requests() -> None:
    provider = Provider(away_from=3.0, away_until=63.0)
    provider.stage.accept(*range(1, TASKS + 1))

    told = provider.run(until=600.0)

    assert sorted(told.answered) == list(range(1, TASKS + 1))
    assert told.failed == {}
    assert len(told.requests) <= 12
    assert max(told.answered.values()) <= 63.0 + POLICY.max_seconds + TASKS


def test_waiting_for_the_provider_is_no_attempt() -> None:
    provider = Provider(away_from=0.0, away_until=100.0)
    provider.stage.accept(1)

    provider.run(until=300.0)

    assert provider.stage.endings[1].attempts == 1


def test_address_where_nobody_ever_was_fails_what_was_tried_and_keeps_the_rest() -> None:
    provider = Provider(away_from=0.0, away_until=10_000.0)
    provider.stage.accept(*range(1, TASKS + 1))

    told = provider.run(until=FIRST_PATIENCE_SECONDS + 2 * POLICY.max_seconds)

    assert told.failed
    assert min(told.failed.values()) >= FIRST_PATIENCE_SECONDS
    assert max(told.failed.values()) <= FIRST_PATIENCE_SECONDS + POLICY.max_seconds
    assert len(told.failed) <= 6
    assert len(told.requests) <= 24
    assert provider.stage.endings[min(told.failed)].cause == StoredCause(
        "BackendError", "Error", "no"
    )


def test_provider_that_was_there_is_waited_for_a_quarter_of_an_hour() -> None:
    provider = Provider(away_from=2.0, away_until=PATIENCE_SECONDS - POLICY.max_seconds)
    provider.stage.accept(*range(1, TASKS + 1))

    told = provider.run(until=2 * PATIENCE_SECONDS)

    assert sorted(told.answered) == list(range(1, TASKS + 1))


def test_long_outage_fails_a_task_in_a_quarter_of_an_hour_at_most() -> None:
    provider = Provider(away_from=2.0, away_until=4 * PATIENCE_SECONDS)
    provider.stage.accept(*range(1, TASKS + 1))

    told = provider.run(until=8 * PATIENCE_SECONDS)

    assert len(told.answered) + len(told.failed) == TASKS
    assert len(told.failed) <= 10


def test_last_try_of_a_task_is_told_to_its_worker() -> None:
    provider = Provider(away_from=0.0, away_until=10_000.0)
    [record] = provider.stage.accept(1)
    provider.run(until=FIRST_PATIENCE_SECONDS - 1.0)
    assert record.assignment().may_miss

    provider.run(until=3 * POLICY.max_seconds)

    assert provider.stage.endings[1].state == "failed"
    assert not record.assignment().may_miss
