"""Budgets, fatal errors in a row and rate limits, as users of a pool meet with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raypool import (
    Agent,
    AgentStart,
    Budget,
    Pool,
    PoolStartError,
    PoolStatus,
    RateLimit,
    Response,
    RetryPolicy,
    SessionOptions,
    TaskFailed,
    TaskFuture,
    WaitTimeout,
)
from raypool.agent import Prompt, Turn
from raypool.backends import AnthropicBackend, FunctionBackend
from raypool.config import Price
from raypool.task import Content
from raypool.testing import Call, Fault, MessagesServer
from tests.conftest import StartPool

MODEL = "a-model-of-ours"
PRICE = Price(input_mtok=1_000.0, output_mtok=10_000.0)
TEN_WORDS = "one two three four five six seven eight nine ten"
FREELY = RateLimit(adaptive=False)


class Chaining(Agent):
    """Asks on until a task has taken as many turns as it says."""

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(max_tokens=20)

    def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
        wanted = (turn.task.metadata or {}).get("turns", 1)
        return Prompt(f"more {turn.number}") if turn.number < wanted else None

    def handle_event(self, event: str) -> Prompt:
        return Prompt(event)


class Provider:
    """A server that answers in ten words, and whose key can be taken away."""

    def __init__(self) -> None:
        self.has_key = True
        self.server = MessagesServer(TEN_WORDS, latency=0.01, faults=self._fault)

    @property
    def tokens(self) -> int:
        """What it has answered so far, in tokens."""
        traffic = self.server.traffic()
        return traffic.input_tokens + traffic.output_tokens

    @property
    def usd(self) -> float:
        traffic = self.server.traffic()
        return traffic.input_tokens / 1_000 + traffic.output_tokens / 100

    def _fault(self, call: Call) -> Fault | None:
        return None if self.has_key else Fault.status(401, message="invalid x-api-key")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    provider = Provider()
    with provider.server:
        yield provider


@pytest.fixture(scope="module")
def shared_pool(local_ray: None, provider: Provider) -> Iterator[Pool]:
    """Two workers of four slots, that speak to the provider."""
    with Pool.start(
        2,
        agent=Chaining,
        backend=AnthropicBackend(MODEL, base_url=provider.server.url, api_key="test-key"),
        concurrency=4,
        rate_limit=FREELY,
        prices={MODEL: PRICE},
        retry=RetryPolicy(max_attempts=2, initial_seconds=0.01),
    ) as pool:
        yield pool


@pytest.fixture
def pool(shared_pool: Pool, provider: Provider) -> Iterator[Pool]:
    """Without a budget, and with nothing to do; each test leaves it so."""
    provider.has_key = True
    yield shared_pool
    provider.has_key = True
    shared_pool.set_budget(None)
    shared_pool.resume_sending()
    shared_pool.wait_for_all(timeout=60)


def wait_until(pool: Pool, holds: Callable[[PoolStatus], bool]) -> PoolStatus:
    """The status, once something holds of it; the test's time limit is the end."""
    while not holds(status := pool.status()):
        pass
    return status


def is_blocked(status: PoolStatus) -> bool:
    """Nothing is sent, nothing runs, and nothing is on its way to a worker."""
    is_under_way = status.budget is not None and status.budget.reserved_tokens > 0
    return status.blocked is not None and status.running == 0 and not is_under_way


def is_blocked_and_recorded(status: PoolStatus) -> bool:
    """So it is, and what the budget has spent is in the endings of tasks."""
    recorded = status.input_tokens + status.output_tokens
    is_recorded = status.budget is not None and status.budget.spent_tokens == recorded
    return is_blocked(status) and is_recorded


def done_of(futures: list[TaskFuture], *, at_least: int) -> int:
    """How many are done; a client hears of an end a moment after the pool has recorded it."""
    while (done := sum(future.done() for future in futures)) < at_least:
        pass
    return done


def spent_tokens(pool: Pool) -> int:
    """What the pool has spent since it began."""
    status = pool.status()
    return status.input_tokens + status.output_tokens


def test_spent_budget_stops_sending_keeps_the_queue_and_goes_on_when_it_is_raised(
    pool: Pool, provider: Provider
) -> None:
    before = provider.tokens
    pool.set_budget(Budget(tokens=spent_tokens(pool) + 1_000))

    futures = pool.submit_many([f"question {n}" for n in range(200)])
    status = wait_until(pool, is_blocked_and_recorded)

    spent = provider.tokens - before
    assert 900 <= spent <= 1_000
    assert status.queued > 0
    assert done_of(futures, at_least=200 - status.queued) == 200 - status.queued
    assert status.budget is not None
    assert status.budget.is_spent
    assert status.budget.reserved_tokens == 0
    assert status.budget.spent_tokens == spent_tokens(pool)
    assert "the budget is spent" in repr(pool)
    with pytest.raises(WaitTimeout, match=r"the budget is spent: .* tokens.*set_budget\("):
        pool.wait_for_all(timeout=0.2)

    pool.set_budget(Budget(tokens=1_000_000))

    pool.wait_for_all(timeout=60)
    assert [future.result().text for future in futures] == [TEN_WORDS] * 200
    assert pool.status().blocked is None
    assert provider.server.traffic().admitted == len(
        {call.number for call in provider.server.calls}
    )


def test_budget_in_usd_is_kept_by_the_users_prices(pool: Pool, provider: Provider) -> None:
    before = provider.usd
    pool.set_budget(Budget(usd=pool.status().cost_usd + 2.0))

    pool.submit_many([f"question {n}" for n in range(60)])
    status = wait_until(pool, is_blocked_and_recorded)

    assert 1.5 <= provider.usd - before <= 2.0
    assert status.budget is not None
    assert status.budget.spent_usd == pytest.approx(status.cost_usd)
    assert "$" in repr(pool)


def test_long_chain_stops_between_two_turns_and_goes_on_where_it_was(
    pool: Pool, provider: Provider
) -> None:
    before, calls = provider.tokens, len(provider.server.calls)
    limit = 6_000
    pool.set_budget(Budget(tokens=spent_tokens(pool) + limit))

    future = pool.submit("begin", metadata={"turns": 30})
    wait_until(pool, is_blocked)

    assert not future.done()
    asked = len(provider.server.calls) - calls
    assert 3 <= asked < 30
    assert provider.tokens - before <= limit
    pool.set_budget(None)
    future.result(timeout=30)
    assert pool.poll(future.id).turns == 30
    assert len(provider.server.calls) - calls == 30


def test_turns_that_events_ask_for_wait_for_the_budget_too(pool: Pool, provider: Provider) -> None:
    before, done = provider.tokens, pool.status().completed
    pool.set_budget(Budget(tokens=spent_tokens(pool) + 300))

    for number in range(40):
        pool.notify(f"{pool.name}-{1 + number % 2}", f"question {number}")
    status = wait_until(pool, is_blocked)

    assert 0 < provider.tokens - before <= 300
    assert status.completed < done + 40
    pool.set_budget(None)
    pool.wait_for_all(timeout=60)
    assert pool.status().completed == done + 40


def test_fatal_errors_in_a_row_stop_the_sending_until_it_is_resumed(
    pool: Pool, provider: Provider
) -> None:
    provider.has_key = False

    futures = pool.submit_many([f"question {n}" for n in range(40)])
    status = wait_until(pool, is_blocked)

    assert done_of(futures, at_least=3) == 3
    assert status.queued == 37
    assert status.blocked is not None
    assert "fatal errors in a row" in status.blocked
    assert "invalid x-api-key" in status.blocked
    with pytest.raises(WaitTimeout, match=r"fatal errors in a row.*pool\.resume_sending\(\)"):
        pool.wait_for_all(timeout=0.2)

    provider.has_key = True
    pool.resume_sending()

    pool.wait_for_all(timeout=60)
    failed = [future for future in futures if future.exception() is not None]
    assert len(failed) == 3
    with pytest.raises(TaskFailed, match="invalid x-api-key"):
        failed[0].result()
    assert pool.status().blocked is None


def test_key_that_is_still_bad_stops_the_sending_again(pool: Pool, provider: Provider) -> None:
    provider.has_key = False
    futures = pool.submit_many([f"question {n}" for n in range(20)])
    wait_until(pool, is_blocked)

    pool.resume_sending()

    wait_until(pool, lambda status: status.failed >= 6 and is_blocked(status))
    assert done_of(futures, at_least=6) == 6


def test_what_stops_the_sending_and_lets_it_go_on_is_told_as_it_happens(
    pool: Pool, provider: Provider
) -> None:
    names: list[str] = []
    watching = threading.Event()

    def watch() -> None:
        events = pool.events()
        watching.set()
        for event in events:
            names.append(event.name)
            if event.name == "breaker.closed":
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    watching.wait()
    pool.set_budget(Budget(tokens=0))
    pool.submit("question").accepted()
    wait_until(pool, is_blocked)
    provider.has_key = False
    pool.set_budget(None)
    pool.submit_many(["question"] * 5)
    wait_until(pool, lambda status: "fatal" in (status.blocked or ""))
    pool.resume_sending()
    watcher.join(30)

    told = [name for name in names if name.partition(".")[0] in ("limit", "breaker")]
    assert told[:3] == ["limit.spent", "breaker.opened", "breaker.closed"]


def test_budget_that_cannot_be_kept_is_refused(pool: Pool) -> None:
    with pytest.raises(TypeError, match="takes a Budget or None, got 3"):
        pool.set_budget(3)  # type: ignore[arg-type]


def test_pool_without_a_price_starts_with_no_budget_in_usd(
    local_ray: None, provider: Provider
) -> None:
    backend = AnthropicBackend("mystery", base_url=provider.server.url, api_key="test-key")

    with pytest.raises(PoolStartError, match=r'prices=\{"mystery": Price\(.*Budget\(tokens=…\)'):
        Pool.start(1, backend=backend, budget=Budget(usd=1.0))


def test_unknown_price_is_said_at_the_start_and_limits_in_the_status(
    start_pool: StartPool, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    backend = AnthropicBackend("mystery", base_url=provider.server.url, api_key="another-key")
    with caplog.at_level(logging.WARNING, "raypool"):
        pool = start_pool(
            1,
            backend=backend,
            rate_limit=RateLimit(requests_per_minute=600, adaptive=False),
            concurrency=4,
        )

    assert "'mystery' is not known" in caplog.text
    assert "prices={'mystery': Price(" in caplog.text
    pool.submit_many([f"question {n}" for n in range(12)])
    pool.wait_for_all(timeout=60)
    [limit] = pool.status().limits
    assert (limit.provider, limit.model) == (provider.server.url, "mystery")
    assert limit.requests_per_minute == 600
    assert limit.used is not None
    assert 0 < limit.used <= 2
    assert repr(pool).endswith("% of 600 rpm")
    with pytest.raises(ValueError, match="needs a price"):
        pool.set_budget(Budget(usd=1.0))


def test_what_earlier_runs_on_the_ledger_have_spent_counts(
    start_pool: StartPool, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "run.db")
    budget = Budget(tokens=300)
    first = start_pool(1, ledger=ledger, budget=budget, agent=Chaining)
    first.submit_many(["ten words " * 5] * 40)
    wait_until(first, is_blocked)
    first.stop()

    second = start_pool(1, ledger=ledger, budget=budget, agent=Chaining)
    status = wait_until(second, is_blocked)

    assert status.completed > 0
    assert status.queued == 40 - status.completed
    assert status.budget is not None
    assert 0 < status.budget.spent_tokens <= 300


async def shout(prompt: Content, options: SessionOptions) -> str:
    return str(prompt).upper()


def test_what_a_budget_kept_for_answers_without_usage_counts_after_a_restart(
    start_pool: StartPool, tmp_path: Path
) -> None:
    options = {
        "ledger": str(tmp_path / "run.db"),
        "backend": FunctionBackend(shout),
        "agent": Chaining,
        "budget": Budget(tokens=1_000),
    }
    first = start_pool(1, **options)
    first.submit_many(["question"] * 100)
    before = wait_until(first, is_blocked)
    first.stop()

    second = start_pool(1, **options)
    after = wait_until(second, is_blocked)

    assert after.budget == before.budget


def test_answers_without_usage_count_as_what_was_set_aside(start_pool: StartPool) -> None:
    pool = start_pool(
        1, backend=FunctionBackend(shout), agent=Chaining, budget=Budget(tokens=1_000)
    )

    pool.submit_many(["question"] * 100)
    status = wait_until(pool, is_blocked)

    assert 0 < status.completed < 100
    assert status.budget is not None
    assert status.budget.spent_tokens > 0
