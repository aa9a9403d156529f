"""Events that wait to be read: the newest, and how many older ones were lost."""

from __future__ import annotations

from collections import deque

from raypool.clock import Clock
from raypool.telemetry.event import TelemetryEvent, new_event

BUFFERED_EVENTS = 10_000


class EventBuffer:
    """Keeps the newest events until they are taken. Belongs to one thread, or to a lock."""

    def __init__(
        self, clock: Clock, pool: str, where: str, *, limit: int = BUFFERED_EVENTS
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._where = where
        self._limit = limit
        self._events: deque[TelemetryEvent] = deque()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: TelemetryEvent) -> None:
        """Keep an event, in the place of the oldest when there is no room."""
        if len(self._events) == self._limit:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)

    def take(self) -> list[TelemetryEvent]:
        """What there is, in order; begins with `telemetry.dropped` when older ones were lost."""
        taken = list(self._events)
        if self._dropped:
            loss = {"count": self._dropped, "where": self._where}
            taken.insert(0, new_event(self._clock, "telemetry.dropped", loss, pool=self._pool))
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget all that is here."""
        self._events.clear()
        self._dropped = 0
