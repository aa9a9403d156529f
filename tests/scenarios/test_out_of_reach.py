"""The provider is gone for a while: the pool waits for it, says so, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from raypool import Pool, RetryPolicy, WaitTimeout
from raypool.backends import AnthropicBackend
from raypool.testing import MessagesServer
from tests.scenarios.watching import watching

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(120)]

TASKS = 30
SCALED = RetryPolicy(max_attempts=2, initial_seconds=0.1, max_seconds=0.8)
"""Waits of a hundredth to a fifth of those that users have."""

AWAY = "has been out of reach for 2 s"


@pytest.fixture(scope="module")
def server() -> Iterator[MessagesServer]:
    with MessagesServer(latency=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def pool(local_ray: None, server: MessagesServer) -> Iterator[Pool]:
    backend = AnthropicBackend(base_url=server.url, api_key="a-test-key")
    with Pool.start(2, concurrency=2, backend=backend, retry=SCALED) as pool:
        yield pool


def wait_until_blocked(pool: Pool, words: str) -> str:
    """Wait until the pool says why it sends nothing, with these words."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if words in (why := pool.status().blocked or ""):
            return why
        time.sleep(0.05)
    raise AssertionError(f"not blocked: {pool.status()}")


def test_tasks_wait_for_a_provider_that_is_gone_for_a_while(
    pool: Pool, server: MessagesServer
) -> None:
    with watching(pool) as events:
        pool.submit("is anybody there?").result(30)
        with server.unreachable():
            futures = pool.submit_many(f"question {number}" for number in range(TASKS))
            why = wait_until_blocked(pool, AWAY)
        pool.wait_for_all(timeout=60)

    assert "Connection refused; is a server listening there?" in why
    assert [future.result().text for future in futures] == [
        f"question {number}" for number in range(TASKS)
    ]
    assert {pool.poll(future.id).attempts for future in futures} == {1}
    names = [event.name for event in events]
    assert names.count("breaker.opened") == names.count("breaker.closed") == 1
    assert names.count("limit.refused") <= 20, "few requests look whether it is there again"
    assert pool.status().blocked is None


def test_turns_that_the_provider_takes_along_are_tried_again(
    pool: Pool, server: MessagesServer
) -> None:
    seen = len(server.calls)
    futures = pool.submit_many(f"question {number}" for number in range(TASKS))
    server.wait_for_calls(seen + 10)

    with server.unreachable():
        wait_until_blocked(pool, "out of reach")
    pool.wait_for_all(timeout=60)

    assert [future.result().text for future in futures] == [
        f"question {number}" for number in range(TASKS)
    ]


def test_who_waits_is_told_where_nobody_answers(pool: Pool, server: MessagesServer) -> None:
    with server.unreachable():
        future = pool.submit("is anybody there?")
        wait_until_blocked(pool, "out of reach")
        with pytest.raises(WaitTimeout, match=f"could not connect to {server.url}: Connection"):
            pool.wait_for_all(timeout=0.2)

    assert future.result(30).text == "is anybody there?"
