"""Sending through a gate: as soon as there is room, and nothing while there is none."""

from __future__ import annotations

import asyncio

import pytest

from raypool.capacity.alone import LoneShare
from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import BudgetBook
from raypool.capacity.limit_gate import LimitGate
from raypool.capacity.outage import Outage
from raypool.capacity.standstill import Standstill
from raypool.capacity.usage_log import UsageLog
from raypool.clock import SystemClock
from raypool.config import Budget, RateLimit
from raypool.messages import Answer, Asked, Notice, Outcome, Terms
from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord
from raypool.usage import Usage
from tests.test_sender import Floor, failed

pytestmark = pytest.mark.asyncio

TERMS = Terms("https://api", "key", "a-model", max_tokens=100, is_priced=True)
FREELY = RateLimit(adaptive=False)


class Turnstile:
    """A floor behind a gate with a budget, a rate limit and a breaker."""

    def __init__(self, budget: Budget | None = None, limit: RateLimit = FREELY) -> None:
        clock = SystemClock()
        share = LoneShare(clock, limit)
        self.book = BudgetBook(budget)
        self.breaker = Breaker(clock)
        log = UsageLog(share, clock)
        self.standstill = Standstill()
        self.gate = LimitGate(
            TERMS,
            share,
            self.book,
            self.breaker,
            Outage(clock),
            log=log,
            table={},
            standstill=self.standstill,
        )
        self.floor = Floor(gate=self.gate)

    @property
    def sent(self) -> int:
        """How many envelopes have gone to the workers."""
        return len(self.floor.a.envelopes) + len(self.floor.b.envelopes)


def answered(number: int, tokens: int) -> Outcome:
    return Outcome(number, Answer("yes", 1.0), usage=Usage(tokens), requests=1)


async def test_rate_limit_sends_on_when_it_has_room_though_nothing_else_happens() -> None:
    turnstile = Turnstile(limit=RateLimit(requests_per_minute=240, adaptive=False))
    floor, loop = turnstile.floor, asyncio.get_running_loop()
    for number in range(1, 7):
        link = floor.a if number % 2 else floor.b
        link.replies[number] = [answered(number, 10)]
    begun = loop.time()

    floor.accept(*range(1, 7))
    await floor.finish(6)

    assert loop.time() - begun >= 2 / 4 - 0.05
    assert set(floor.recorder.states.values()) == {"completed"}


async def test_what_one_worker_has_not_spent_goes_to_another_at_once() -> None:
    turnstile = Turnstile(Budget(tokens=200))
    floor = turnstile.floor
    floor.a.replies[1] = [answered(1, 10)]
    floor.b.replies[2] = [answered(2, 10)]
    floor.a.gate.clear()
    floor.accept(1, 2)
    await floor.reach(lambda: turnstile.sent == 1)
    assert floor.b.envelopes == []

    floor.a.gate.set()
    await floor.finish(2)

    assert floor.b.envelopes == [[2]]


async def test_spent_budget_sends_nothing_until_it_is_raised() -> None:
    turnstile = Turnstile(Budget(tokens=150))
    floor = turnstile.floor
    floor.a.replies[1] = [answered(1, 100)]
    floor.accept(1, 2, 3)
    await floor.reach(lambda: 1 in floor.recorder.endings)
    assert turnstile.sent == 1
    assert turnstile.book.why is not None

    turnstile.book.set(None)
    floor.sender.pump()
    await floor.finish(3)

    assert set(floor.recorder.states.values()) == {"completed"}


async def test_ledger_that_fails_lets_nothing_start_and_what_runs_end() -> None:
    turnstile = Turnstile()
    floor = turnstile.floor
    floor.a.gate.clear()
    floor.b.gate.clear()
    floor.accept(*range(1, 9))
    await floor.reach(lambda: turnstile.sent == 2)

    turnstile.standstill.why = "the disk is full"
    floor.recorder.on_failure()
    await floor.reach(lambda: bool(floor.a.called_back and floor.b.called_back))
    floor.a.gate.set()
    floor.b.gate.set()
    await floor.reach(lambda: not held(floor))
    sent = turnstile.sent
    ended = len(floor.recorder.endings)
    floor.sender.pump()
    assert (turnstile.sent, len(floor.recorder.endings)) == (sent, ended)
    assert ended < 8

    turnstile.standstill.why = None
    floor.recorder.on_recovery()
    await floor.finish(8)

    assert set(floor.recorder.states.values()) == {"completed"}


async def test_fatal_failures_in_a_row_fail_three_tasks_and_keep_the_others() -> None:
    turnstile = Turnstile()
    floor = turnstile.floor
    for number in range(1, 9):
        link = floor.a if number % 2 else floor.b
        link.replies[number] = [failed(number, "fatal")]
    floor.accept(*range(1, 9))
    await floor.reach(lambda: turnstile.breaker.is_open and not held(floor))
    assert sorted(floor.recorder.states.values()) == ["failed"] * 3

    turnstile.breaker.close()
    for link in (floor.a, floor.b):
        link.replies.clear()
    floor.sender.pump()
    await floor.finish(8)

    assert sorted(floor.recorder.states.values()) == ["completed"] * 5 + ["failed"] * 3


async def test_turn_that_an_event_asks_for_waits_for_the_budget() -> None:
    turnstile = Turnstile(Budget(tokens=150))
    floor = turnstile.floor

    async def adopt(worker: WorkerRecord, outcome: Outcome) -> None:
        assert outcome.asked is not None
        task = AcceptedTask(outcome.number, "a", outcome.asked.prompt, worker=worker.name)
        record = TaskRecord(task)
        floor.scheduler.reserve(record)
        assert floor.scheduler.assign(record) is None

    floor.sender.adopt = adopt
    floor.a.replies[1] = [answered(1, 100)]
    floor.a.replies[2] = [answered(2, 10)]
    floor.a.news[2] = Outcome(2, asked=Asked("a", "what is new?"), is_paused=True)
    floor.accept(1)
    await floor.reach(lambda: 1 in floor.recorder.endings)

    floor.sender.notify(floor.workers[0], Notice(2, "news"))
    await floor.reach(lambda: not floor.workers[0].notices)
    assert [notice.exchanges for notice in floor.a.notices] == [0]
    assert (floor.a.envelopes, turnstile.book.why is not None) == ([[1]], True)

    turnstile.book.set(None)
    floor.sender.notify(floor.workers[0], Notice(3, "more news"))
    await floor.finish(3)

    assert floor.a.envelopes == [[1], [2]]
    assert [notice.exchanges for notice in floor.a.notices] == [0, None]


def held(floor: Floor) -> int:
    """How many tasks the workers hold."""
    return sum(len(worker.held) for worker in floor.workers)


async def test_provider_out_of_reach_calls_back_what_was_sent_ahead_and_is_tried_by_one() -> None:
    turnstile = Turnstile()
    floor = turnstile.floor
    floor.a.replies[1] = [failed(1, "unreachable"), failed(1, "unreachable")]
    floor.b.gate.clear()

    floor.accept(*range(1, 9))
    await floor.reach(lambda: len(floor.a.called_back) == len(floor.b.called_back) == 1)
    floor.b.gate.set()
    await floor.finish(8)

    assert set(floor.recorder.states.values()) == {"completed"}
    assert {ending.attempts for ending in floor.recorder.endings.values()} == {1}
    assert turnstile.gate.why is None
