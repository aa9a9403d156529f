"""Where deliveries wait until the clients collect them."""

from __future__ import annotations

import asyncio

from raypool.clock import Clock
from raypool.messages import Delivery

FORGET_SECONDS = 120.0


class Desk:
    """One client's deliveries, in order; belongs to one event loop."""

    def __init__(self) -> None:
        self._pending: list[Delivery] = []
        self._news = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """Keep a delivery for the client."""
        self._pending.append(delivery)
        self._news.set()

    def interrupt(self) -> None:
        """Let a `collect` that waits return with what there is."""
        self._news.set()

    async def collect(self, timeout: float) -> list[Delivery]:
        """What there is, as soon as there is something; nothing after `timeout` seconds."""
        if not self._pending:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return []
        pending, self._pending = self._pending, []
        return pending


class Desks:
    """The desks of all clients, of which those that never come back are cleared away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._desks: dict[str, Desk] = {}
        self._seen: dict[str, float] = {}

    def of(self, client: str) -> Desk:
        """The desk of a client that has just called."""
        self._seen[client] = self._clock.monotonic()
        if client not in self._desks:
            self._forget_absent()
            self._desks[client] = Desk()
        return self._desks[client]

    def touch(self, client: str) -> None:
        """Note that a client is here, unless it has left."""
        if client in self._desks:
            self._seen[client] = self._clock.monotonic()

    def put(self, client: str, delivery: Delivery) -> None:
        """Keep a delivery for a client, unless it is long gone."""
        desk = self._desks.get(client)
        if desk is None:
            return
        if self._clock.monotonic() - self._seen[client] > FORGET_SECONDS:
            self.close(client)
        else:
            desk.put(delivery)

    def close(self, client: str) -> None:
        """Forget a client that leaves."""
        desk = self._desks.pop(client, None)
        self._seen.pop(client, None)
        if desk is not None:
            desk.interrupt()

    def interrupt(self) -> None:
        """Let every `collect` that waits return."""
        for desk in self._desks.values():
            desk.interrupt()

    def _forget_absent(self) -> None:
        long_ago = self._clock.monotonic() - FORGET_SECONDS
        for client, seen in list(self._seen.items()):
            if seen < long_ago:
                self.close(client)
