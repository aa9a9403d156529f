"""What happens in a pool, told to everybody who watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from raypool.clock import Clock
from raypool.telemetry.buffer import BUFFERED_EVENTS, EventBuffer
from raypool.telemetry.event import TelemetryEvent, new_event
from raypool.telemetry.kinds import EventName

FORGET_SECONDS = 120.0
LINGER_SECONDS = 0.05


class Listener(Protocol):
    """Who is given every event, in the dispatcher's own process."""

    @property
    def is_detached(self) -> bool:
        """It takes no more."""

    def put(self, event: TelemetryEvent) -> None:
        """Take an event; must not block."""


class Broadcast:
    """Gives every event to every reader and listener. Belongs to one event loop.

    A reader, who comes back to ask for what is new, may fall 10,000 events behind; of more,
    the oldest are dropped and reported as `telemetry.dropped`. One that stays away for 120
    seconds is forgotten.
    """

    def __init__(self, clock: Clock, pool: str, *, limit: int = BUFFERED_EVENTS) -> None:
        self._clock = clock
        self._pool = pool
        self._on_watched: Callable[[bool], None] | None = None
        self._limit = limit
        self._readers: dict[str, _Reader] = {}
        self._listeners: list[Listener] = []
        self._was_watched = False

    @property
    def is_watched(self) -> bool:
        """Whether events are of interest to anybody."""
        return bool(self._readers or self._listeners)

    def when_watched(self, tell: Callable[[bool], None]) -> None:
        """Have `tell` called when somebody begins to watch, and when nobody does any more."""
        self._on_watched = tell
        if self._was_watched:
            tell(True)

    def attach(self, listener: Listener) -> None:
        """Give every event to `listener` from now on, until it is detached."""
        self._listeners.append(listener)
        self._tell_if_watched()

    def subscribe(self, reader: str) -> None:
        """Keep what happens from now on for the reader of that id."""
        if reader not in self._readers:
            self._readers[reader] = self._new_reader()
            self._tell_if_watched()

    def unsubscribe(self, reader: str) -> None:
        """Forget a reader that leaves; a `next` that waits returns."""
        gone = self._readers.pop(reader, None)
        if gone is not None:
            gone.news.set()
            self._tell_if_watched()

    def emit(
        self,
        name: EventName,
        *,
        worker: str | None = None,
        role: str | None = None,
        task: str | None = None,
        **fields: Any,
    ) -> None:
        """Tell of something that happened in the dispatcher; does nothing while nobody watches."""
        if self._was_watched:
            pool = self._pool
            event = new_event(
                self._clock, name, fields, pool=pool, worker=worker, role=role, task=task
            )
            self.put([event])

    def put(self, events: Iterable[TelemetryEvent]) -> None:
        """Give events to everybody who watches."""
        self._forget_absent()
        for event in events:
            for reader in self._readers.values():
                reader.put(event)
            for listener in self._listeners:
                listener.put(event)

    async def next(self, reader: str, timeout: float) -> list[TelemetryEvent]:
        """What is new to a reader, as soon as there is something; nothing after `timeout` seconds.

        A reader that is not known, since it was forgotten, is told so with a
        `telemetry.dropped` without a count, and is subscribed again.
        """
        known = self._readers.get(reader)
        if known is None:
            self.subscribe(reader)
            loss = {"where": "reader"}
            return [new_event(self._clock, "telemetry.dropped", loss, pool=self._pool)]
        known.waiting += 1
        try:
            return await known.collect(timeout)
        finally:
            known.waiting -= 1
            known.seen = self._clock.monotonic()

    async def settle(self, timeout: float) -> None:
        """Return when every reader has taken what there is for it, or after `timeout` seconds."""
        behind = [
            asyncio.ensure_future(reader.is_up_to_date.wait()) for reader in self._readers.values()
        ]
        if behind:
            _, late = await asyncio.wait(behind, timeout=timeout)
            for waiting in late:
                waiting.cancel()

    def _new_reader(self) -> _Reader:
        buffer = EventBuffer(self._clock, self._pool, "reader", limit=self._limit)
        return _Reader(buffer, self._clock.monotonic())

    def _forget_absent(self) -> None:
        long_ago = self._clock.monotonic() - FORGET_SECONDS
        for name, reader in list(self._readers.items()):
            if not reader.waiting and reader.seen < long_ago:
                del self._readers[name]
        self._listeners = [one for one in self._listeners if not one.is_detached]
        self._tell_if_watched()

    def _tell_if_watched(self) -> None:
        if self.is_watched != self._was_watched:
            self._was_watched = self.is_watched
            if self._on_watched is not None:
                self._on_watched(self._was_watched)


class _Reader:
    """What waits for one reader.

    Attributes:
        waiting: how many of its calls wait now.
        seen: when it was here last, on the clock's seconds.
        news: it is worth looking.
        is_up_to_date: it has taken all there is.
    """

    def __init__(self, buffer: EventBuffer, now: float) -> None:
        self._buffer = buffer
        self.waiting = 0
        self.seen = now
        self.news = asyncio.Event()
        self.is_up_to_date = asyncio.Event()
        self.is_up_to_date.set()

    def put(self, event: TelemetryEvent) -> None:
        self._buffer.put(event)
        self.news.set()
        self.is_up_to_date.clear()

    async def collect(self, timeout: float) -> list[TelemetryEvent]:
        if not self._buffer:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), timeout)
                await asyncio.sleep(min(LINGER_SECONDS, timeout))
            except TimeoutError:
                return []
        self.is_up_to_date.set()
        return self._buffer.take()
