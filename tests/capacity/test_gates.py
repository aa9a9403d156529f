"""The gates of a pool: what they share, what they tell, and what they say at the start."""

from __future__ import annotations

from typing import Any

import pytest

from raypool.capacity.alone import LoneShare
from raypool.capacity.budget import BudgetBook
from raypool.capacity.gates import Gates
from raypool.capacity.limit_gate import LimitGate
from raypool.capacity.share import Share
from raypool.capacity.standstill import Standstill
from raypool.clock import FakeClock
from raypool.config import Budget, RateLimit
from raypool.messages import Answer, Failure, Outcome, Terms
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord
from raypool.telemetry import EventName
from raypool.usage import Usage

PRICED = Terms("https://api", "key", "a-model", max_tokens=100, is_priced=True)
UNPRICED = Terms("https://api", "key", "their-model", max_tokens=100)
FREELY = RateLimit(adaptive=False)


class Pool:
    """The gates of a pool, and what they told."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.clock = FakeClock()
        self.book = BudgetBook(budget)
        self.shares: list[Share] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.standstill = Standstill()
        self.gates = Gates(
            self.book,
            self.clock,
            prices={},
            has_memory=False,
            new_share=self._new_share,
            tell=self._tell,
            standstill=self.standstill,
        )

    def gate(self, role: str, terms: Terms = PRICED, limit: RateLimit = FREELY) -> LimitGate:
        return self.gates.of(role, terms, limit)

    def _tell(self, name: EventName, /, **fields: Any) -> None:
        self.told.append((name, fields))

    def _new_share(self, terms: Terms, rate_limit: RateLimit) -> Share:
        self.shares.append(LoneShare(self.clock, rate_limit))
        return self.shares[-1]


def task(number: int = 1) -> TaskRecord:
    return TaskRecord(AcceptedTask(number, str(number), "a question"))


def fail(gate: LimitGate, times: int = 3) -> None:
    failure = Failure("BackendError", "fatal", "authentication_error", "invalid x-api-key")
    for _ in range(times):
        gate.settle(task(), Outcome(1, failure=failure, requests=1))


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_workers_of_a_role_stand_behind_one_gate(pool: Pool) -> None:
    assert pool.gate("chemist") is pool.gate("chemist")
    assert pool.gate("chemist") is not pool.gate("historian")


def test_roles_with_one_key_and_model_share_limits_and_breaker(pool: Pool) -> None:
    chemist, historian = pool.gate("chemist"), pool.gate("historian")
    other = pool.gate("poet", UNPRICED)

    fail(chemist)

    assert chemist.share is historian.share
    assert historian.is_broken
    assert not other.is_broken
    assert len(pool.shares) == 2


def test_roles_with_one_provider_share_its_outages(pool: Pool) -> None:
    chemist, poet = pool.gate("chemist"), pool.gate("poet", UNPRICED)
    nobody = Failure("BackendError", "unreachable", "ConnectError", "nobody is there")

    chemist.settle(task(), Outcome(1, failure=nobody, requests=1))

    assert not poet.is_wide_open
    assert pool.told == [("breaker.opened", {"error_type": "ConnectError"})]
    assert "nobody is there" in str(pool.gates.why)
    pool.gates.resume_sending()
    assert poet.is_wide_open
    assert pool.told[1:] == [("breaker.closed", {})]


def test_roles_whose_backends_have_no_provider_share_nothing(pool: Pool) -> None:
    chemist, historian = pool.gate("chemist", Terms()), pool.gate("historian", Terms())

    fail(chemist)

    assert chemist.share is not historian.share
    assert not historian.is_broken


def test_all_roles_spend_one_budget() -> None:
    pool = Pool(Budget(tokens=150))
    assert pool.gate("chemist").reserve(task())

    assert not pool.gate("poet", UNPRICED).reserve(task())


def test_opened_breaker_is_told_with_the_kind_of_error_and_not_its_words(pool: Pool) -> None:
    fail(pool.gate("chemist"))
    assert pool.told == [("breaker.opened", {"error_type": "authentication_error"})]
    assert pool.gates.why is not None
    assert "invalid x-api-key" in pool.gates.why

    pool.gates.resume_sending()

    assert pool.told[1:] == [("breaker.closed", {})]
    assert pool.gates.why is None


def test_spent_budget_is_told_with_what_was_spent() -> None:
    pool = Pool(Budget(usd=0.0))

    assert not pool.gate(
        "a", Terms("https://api", "key", "claude-haiku-5-5", 100, 0, True)
    ).reserve(task())

    assert pool.told == [("limit.spent", {"budget": "usd", "cost_usd": 0.0})]


def test_budget_in_usd_cannot_be_kept_where_a_price_is_not_known(pool: Pool) -> None:
    pool.gate("chemist")
    pool.gate("poet", UNPRICED)

    problem = pool.gates.problem(Budget(usd=1.0))

    assert problem is not None
    assert "that of 'their-model' is not known: pass prices=" in problem
    assert "or Budget(tokens=…)" in problem
    assert pool.gates.problem(Budget(tokens=1_000)) is None
    assert pool.gates.problem(None) is None


def test_backend_without_a_model_is_told_to_budget_tokens(pool: Pool) -> None:
    pool.gate("chemist", Terms())

    assert pool.gates.problem(Budget(usd=1.0)) == (
        "a budget in USD needs a price, and the backend names no model that could have one: "
        "pass Budget(tokens=…) instead"
    )


def test_unknown_price_is_remarked_once_for_all_roles(pool: Pool) -> None:
    pool.gate("chemist", UNPRICED)
    pool.gate("poet", UNPRICED)
    pool.gate("singer", Terms())

    [remark] = pool.gates.remarks()

    assert "'their-model' is not known" in remark


def test_unknown_max_tokens_are_remarked_where_a_budget_needs_them() -> None:
    terms = Terms("https://api", "key", "a-model", is_priced=True)
    pool = Pool(Budget(tokens=10_000))
    pool.gate("chemist", terms)

    [remark] = pool.gates.remarks()

    assert "role 'chemist' sets no max_tokens: the budget sets aside 4,096" in remark
    free = Pool()
    free.gate("chemist", terms)
    assert free.gates.remarks() == []


def test_status_has_what_limits_and_how_much_of_it_was_used(pool: Pool) -> None:
    limit = RateLimit(requests_per_minute=600, input_tokens_per_minute=60_000, adaptive=False)
    gate = pool.gate("chemist", limit=limit)
    for number in range(240):
        record = task(number)
        assert gate.reserve(record)
        gate.settle(record, Outcome(1, Answer("yes", 10.0), usage=Usage(10, 5), requests=1))
        record.reserved = None
        pool.clock.advance(0.25)

    [status] = pool.gates.limits()

    assert (status.provider, status.model) == ("https://api", "a-model")
    assert status.requests_per_minute == 600
    assert status.input_tokens_per_minute == 60_000
    assert status.output_tokens_per_minute is None
    assert status.tightest == "requests_per_minute"
    assert status.used == pytest.approx(0.4, rel=0.05)


def test_status_forgets_what_was_used_more_than_a_minute_ago(pool: Pool) -> None:
    gate = pool.gate("chemist", limit=RateLimit(requests_per_minute=60, adaptive=False))
    record = task()
    assert gate.reserve(record)
    gate.settle(record, Outcome(1, Answer("yes", 10.0), usage=Usage(10, 5), requests=1))
    pool.clock.advance(61.0)
    gate.settle(task(2), Outcome(2, is_returned=True))

    pool.clock.advance(61.0)

    [status] = pool.gates.limits()
    assert status.used == 0.0


def test_status_without_limits_says_how_often_the_provider_has_refused(pool: Pool) -> None:
    refused = Failure("BackendError", "refused", "overloaded_error", "no")
    pool.gate("chemist").settle(task(), Outcome(1, failure=refused, requests=1))

    [status] = pool.gates.limits()

    assert (status.used, status.tightest, status.refused) == (None, None, 1)


def test_standstill_closes_every_gate_and_is_the_first_reason() -> None:
    pool = Pool(Budget(tokens=0))
    chemist, poet = pool.gate("chemist"), pool.gate("poet", UNPRICED)
    pool.standstill.why = "the disk is full"

    assert [gate.is_wide_open for gate in (chemist, poet)] == [False, False]
    assert [gate.reserve(task()) for gate in (chemist, poet)] == [False, False]
    assert chemist.why == poet.why == pool.gates.why == "the disk is full"
    assert chemist.opens_in() is None


def test_gate_is_as_before_once_the_standstill_is_over(pool: Pool) -> None:
    gate = pool.gate("chemist")
    pool.standstill.why = "the disk is full"
    pool.standstill.why = None

    assert gate.is_wide_open
    assert gate.why is pool.gates.why is None
