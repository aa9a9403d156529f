"""Pools that share a provider with limits that they are not told, on a clock of their own."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import NamedTuple

from raypool.capacity.governing import Governing
from raypool.capacity.leases import Lease
from raypool.capacity.share import Share, Ticket
from raypool.clock import FakeClock
from raypool.config import RateLimit
from raypool.provider_limits import Allowance, ProviderLimits

CALL_SECONDS = 0.002
"""How long a message to the governor takes, each way."""

LATENCY_SECONDS = 0.02
"""How long a request takes to the provider, each way."""


class World:
    """A clock, and what happens when."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        due = self.clock.monotonic() + max(0.0, seconds)
        heapq.heappush(self._events, (due, next(self._numbers), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            due, _, event = heapq.heappop(self._events)
            self.clock.advance(due - self.clock.monotonic())
            event()
        self.clock.advance(until - self.clock.monotonic())


class Hidden(NamedTuple):
    """What a provider allows.

    Attributes:
        requests: in a minute.
        tokens: input and output together, in a minute.
        depth: how many seconds' worth its buckets hold.
        tells_retry_after: a refusal says when to come again.
        tells_limits: an answer has headers.
    """

    requests: float = 600.0
    tokens: float = math.inf
    depth: float = 60.0
    tells_retry_after: bool = False
    tells_limits: bool = False


class Provider:
    """Refuses what its buckets have no room for; they fill all the time."""

    def __init__(self, clock: FakeClock, hidden: Hidden) -> None:
        self._clock = clock
        self.hidden = hidden
        self._levels = [hidden.requests / 60 * hidden.depth, hidden.tokens / 60 * hidden.depth]
        self._filled_at = clock.monotonic()

    def admit(self, tokens: float) -> tuple[bool, float | None, ProviderLimits | None]:
        """Whether a request is let in; what a refusal and what an answer tells."""
        self._fill()
        wanted = (1.0, tokens)
        sizes, rates = self._sizes(), self._rates()
        lacks = [
            max(0.0, min(amount, size) - level) / rate
            for amount, size, level, rate in zip(wanted, sizes, self._levels, rates, strict=True)
            if rate < math.inf
        ]
        lack = max(lacks, default=0.0)
        if lack > 1e-9:
            return False, lack if self.hidden.tells_retry_after else None, self._told()
        self._levels = [level - amount for level, amount in zip(self._levels, wanted, strict=True)]
        return True, None, self._told()

    def change(self, hidden: Hidden) -> None:
        """Allow something else from now on."""
        self._fill()
        self.hidden = hidden
        self._fill()

    def _rates(self) -> tuple[float, float]:
        return self.hidden.requests / 60, self.hidden.tokens / 60

    def _sizes(self) -> list[float]:
        return [max(1.0, rate * self.hidden.depth) for rate in self._rates()]

    def _fill(self) -> None:
        now = self._clock.monotonic()
        seconds, self._filled_at = now - self._filled_at, now
        self._levels = [
            size if size == math.inf else min(size, level + rate * seconds)
            for level, rate, size in zip(self._levels, self._rates(), self._sizes(), strict=True)
        ]

    def _told(self) -> ProviderLimits | None:
        if not self.hidden.tells_limits:
            return None
        allowances = [
            None
            if rate == math.inf
            else Allowance(
                limit=rate * 60,
                remaining=math.floor(max(0.0, level)),
                reset_at=self._clock.time() + (size - level) / rate,
            )
            for rate, level, size in zip(self._rates(), self._levels, self._sizes(), strict=True)
        ]
        return ProviderLimits(requests=allowances[0], tokens=allowances[1])


class Turns(NamedTuple):
    """How long turns take, and how many tokens: means of lognormal distributions."""

    seconds: float = 0.5
    tokens: float = 120.0
    spread: float = 0.5

    def draw(self, chance: random.Random) -> tuple[float, float]:
        """Seconds and tokens of one turn."""
        centre = -(self.spread**2) / 2
        return (
            self.seconds * chance.lognormvariate(centre, self.spread),
            self.tokens * chance.lognormvariate(centre, self.spread),
        )


class Count(NamedTuple):
    """What a pool's turns came to in a stretch of time."""

    answered: int = 0
    refused: int = 0
    tokens: float = 0.0

    @property
    def refused_part(self) -> float:
        return self.refused / max(1, self.answered + self.refused)


class SimulatedPool:
    """Slots that always have something to send, and a share that says when they may."""

    def __init__(
        self,
        world: World,
        provider: Provider,
        governing: Governing,
        *,
        name: str = "pool",
        slots: int = 64,
        turns: Turns,
        rate_limit: RateLimit | None = None,
        seed: int = 0,
    ) -> None:
        self.world, self.provider, self.governing = world, provider, governing
        self.name, self.free, self.turns = name, slots, turns
        self.share = Share(world.clock, rate_limit, urge=self.renew_soon)
        self.crowd = [self]
        self.sent: list[tuple[float, float]] = []
        self.ends: list[tuple[float, bool, float]] = []
        self._chance = random.Random(seed)
        self._mean_tokens = turns.tokens
        self._is_renewing = self._is_waking = False
        self._next: tuple[float, float] | None = None
        self.renew_soon()

    def count(self, start: float, end: float) -> Count:
        """What was answered and refused between two times."""
        ends = [one for one in self.ends if start <= one[0] < end]
        answered = [tokens for _, is_answered, tokens in ends if is_answered]
        return Count(len(answered), len(ends) - len(answered), sum(answered))

    def pump(self) -> None:
        """Send what may be sent."""
        while self.free:
            seconds, tokens = self._next = self._next or self.turns.draw(self._chance)
            ticket = self.share.take(tokens / 2, self.turns.tokens / 2)
            if ticket is None:
                self._wake_later()
                return
            self._next = None
            self._send(ticket, seconds, tokens)

    def _send(self, ticket: Ticket, seconds: float, tokens: float) -> None:
        self.free -= 1
        self.sent.append((self.world.clock.monotonic(), tokens))
        latency = LATENCY_SECONDS * self._chance.uniform(0.5, 1.5)
        self.world.after(latency, lambda: self._arrive(ticket, seconds, tokens))

    def _arrive(self, ticket: Ticket, seconds: float, tokens: float) -> None:
        is_in, retry_after, told = self.provider.admit(tokens)
        if is_in:
            self.world.after(seconds, lambda: self._answered(ticket, seconds, tokens, told))
        else:
            self.world.after(LATENCY_SECONDS, lambda: self._refused(ticket, retry_after, told))

    def _answered(
        self, ticket: Ticket, seconds: float, tokens: float, told: ProviderLimits | None
    ) -> None:
        self.free += 1
        self.ends.append((self.world.clock.monotonic(), True, tokens))
        half = tokens / 2
        self.share.settle(
            ticket, input_tokens=half, output_tokens=half, limits=told, seconds=seconds
        )
        self.pump()

    def _refused(
        self, ticket: Ticket, retry_after: float | None, told: ProviderLimits | None
    ) -> None:
        self.free += 1
        self.ends.append((self.world.clock.monotonic(), False, 0.0))
        self.share.settle(ticket, verdict="refused", retry_after=retry_after, limits=told)
        self.pump()

    def _wake_later(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            wait = self.share.opens_in()
            self.world.after(max(0.001, 0.05 if wait is None else min(wait, 0.5)), self._wake)

    def _wake(self) -> None:
        self._is_waking = False
        self.pump()

    # The lease, as over a network

    def renew_soon(self) -> None:
        if not self._is_renewing:
            self._is_renewing = True
            self.world.after(0.0, self._ask)

    def _ask(self) -> None:
        report = self.share.report()

        def arrive() -> None:
            lease = self.governing.renew(self.name, report)
            self.world.after(CALL_SECONDS, lambda: self._renewed(lease))
            for pool in self.crowd:
                if pool.name in self.governing.called:
                    self.world.after(CALL_SECONDS, pool.renew_soon)

        self.world.after(CALL_SECONDS, arrive)

    def _renew_what_is_due(self) -> None:
        if self.share.renews_in < CALL_SECONDS:
            self.renew_soon()

    def _renewed(self, lease: Lease) -> None:
        self._is_renewing = False
        self.share.renew(lease)
        self.world.after(lease.renew_in, self._renew_what_is_due)
        self.pump()


def simulate(
    hidden: Hidden,
    *,
    seconds: float,
    pools: int = 1,
    slots: int = 64,
    turns: Turns,
    rate_limit: RateLimit | None = None,
    seed: int = 0,
    changes: dict[float, Hidden] | None = None,
) -> list[SimulatedPool]:
    """Run pools against a provider that changes at the times of `changes`."""
    world = World()
    provider = Provider(world.clock, hidden)
    governing = Governing(world.clock)
    crowd = [
        SimulatedPool(
            world,
            provider,
            governing,
            name=f"pool-{number}",
            slots=slots,
            turns=turns,
            rate_limit=rate_limit,
            seed=seed * 100 + number,
        )
        for number in range(pools)
    ]
    for pool in crowd:
        pool.crowd = crowd
    for when, limits in (changes or {}).items():
        world.after(when, functools.partial(provider.change, limits))
    world.run(seconds)
    return crowd
