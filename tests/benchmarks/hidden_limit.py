"""A provider's hidden limit: how much of it is used, and how many requests it refuses."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import anthropic

from raypool import Pool
from raypool.backends import AnthropicBackend
from raypool.testing import Call, MessagesServer, ServerLimits, Traffic
from tests.benchmarks.measure import Scenario

LIMITS = ServerLimits(
    requests_per_minute=600, tokens_per_minute=100_000, tells=False, retry_after=False
)
PER_SECOND = 10.0
WORKERS, CONCURRENCY = 2, 32
FIXED_CONCURRENCIES = (4, 5, 6, 8)
PAUSE_SECONDS = 1.0


class Use(NamedTuple):
    """What came of a limit.

    Attributes:
        used: how much of it was used, in percent.
        answered: how many requests it let through, in percent of those sent.
    """

    used: float
    answered: float


def latency(_call: Call) -> float:
    """Turns take half a second, ± 50 %."""
    return random.uniform(0.25, 0.75)


@contextmanager
def scenarios(warm_up: float, seconds: float) -> Iterator[list[Scenario]]:
    """A limit of 600 requests a minute, measured for so many `seconds` after `warm_up`."""
    with MessagesServer(latency=latency, limits=LIMITS) as server:
        trial = Trial(server, warm_up, seconds)
        yield [
            trial.scenario("use of a hidden limit, 64 slots", "used", "≥ 95 %"),
            trial.scenario("requests that it let through", "answered", "> 99 %"),
        ]


class Trial:
    """Sends as much as a server lets through, under a key of its own each time."""

    def __init__(self, server: MessagesServer, warm_up: float, seconds: float) -> None:
        self._server = server
        self._warm_up = warm_up
        self._seconds = seconds
        self._keys = 0
        self.pool, self.semaphores = cache(self._pool), cache(self._semaphores)

    def scenario(self, name: str, figure: str, goal: str) -> Scenario:
        """One figure of a pool, and of a program that sends so many at a time."""
        ours, theirs = itertools.count(), itertools.count()
        return Scenario(
            name,
            "%",
            goal,
            lambda: float(getattr(self.pool(next(ours)), figure)),
            lambda: float(getattr(self.semaphores(next(theirs)), figure)),
            f"asyncio + semaphore, the best of {FIXED_CONCURRENCIES}",
        )

    def _pool(self, _turn: int) -> Use:
        """A pool that knows nothing of the limit."""
        key = self._new_key()
        backend = AnthropicBackend(base_url=self._server.url, api_key=key)
        many = int((self._warm_up + self._seconds) * PER_SECOND * 3) + 100
        with (
            warnings.catch_warnings(action="ignore"),
            Pool.start(WORKERS, concurrency=CONCURRENCY, backend=backend) as pool,
        ):
            pool.submit("to begin with").result()
            pool.submit_many(f"question {n}" for n in range(many))
            time.sleep(self._warm_up)
            before = self._server.traffic(key)
            time.sleep(self._seconds)
            return self._use(before, self._server.traffic(key))

    def _semaphores(self, _turn: int) -> Use:
        """A program that sends so many at a time and pauses after a refusal, at its best."""
        return max(asyncio.run(self._semaphore(size)) for size in FIXED_CONCURRENCIES)

    async def _semaphore(self, size: int) -> Use:
        key, until = self._new_key(), time.monotonic() + self._seconds
        client = anthropic.AsyncAnthropic(base_url=self._server.url, api_key=key, max_retries=0)
        slots = asyncio.Semaphore(size)

        async def ask() -> None:
            async with slots:
                try:
                    await client.messages.create(
                        model="claude-haiku-5-5",
                        max_tokens=100,
                        messages=[{"role": "user", "content": "question"}],
                    )
                except anthropic.RateLimitError:
                    await asyncio.sleep(PAUSE_SECONDS)

        async def keep_asking() -> None:
            while time.monotonic() < until:
                await ask()

        await asyncio.gather(*(keep_asking() for _ in range(size)))
        await client.close()
        return self._use(Traffic(), self._server.traffic(key))

    def _new_key(self) -> str:
        self._keys += 1
        return f"a-key-of-its-own-{self._keys}"

    def _use(self, before: Traffic, after: Traffic) -> Use:
        admitted = after.admitted - before.admitted
        sent = admitted + after.refused - before.refused
        allowed = PER_SECOND * self._seconds
        return Use(100 * admitted / allowed, 100 * admitted / max(sent, 1))
