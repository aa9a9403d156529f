"""A worker's events on their way to its dispatcher."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from raypool.clock import Clock
from raypool.telemetry.buffer import BUFFERED_EVENTS, EventBuffer
from raypool.telemetry.event import encode_events, new_event
from raypool.telemetry.kinds import EventName

LINGER_SECONDS = 0.05


class EventLog:
    """Takes events from any thread of a worker; does nothing while nobody watches.

    It keeps the newest 10,000. What is lost is reported as `telemetry.dropped`.
    """

    def __init__(
        self, clock: Clock, *, pool: str, worker: str, role: str, limit: int = BUFFERED_EVENTS
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._worker = worker
        self._role = role
        self._buffer = EventBuffer(clock, pool, "worker", limit=limit)
        self._changed = threading.Condition()
        self._is_watched = False
        self._is_closed = False
        self._readers = 0

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches."""
        return self._is_watched

    def watch(self, is_watched: bool) -> None:
        """Begin to take events, or forget what is here and take no more."""
        with self._changed:
            self._is_watched = is_watched
            if not is_watched:
                self._buffer.clear()

    def emit(self, name: EventName, *, task: str | None = None, **fields: Any) -> None:
        """Note that something has happened, to the task with that id where it is about one."""
        if not self._is_watched:
            return
        event = new_event(
            self._clock,
            name,
            fields,
            pool=self._pool,
            worker=self._worker,
            role=self._role,
            task=task,
        )
        with self._changed:
            if not self._is_watched:
                return
            self._buffer.put(event)
            self._changed.notify_all()

    def batches(self) -> Iterator[bytes]:
        """Encoded lists of events, each as of 50 ms after its first; ends when the log is closed.

        The newest call gets the events; it ends those before it.
        """
        with self._changed:
            self._readers += 1
            self._changed.notify_all()
            return self._read(self._readers)

    def close(self) -> None:
        """End the batches, after what is here."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _read(self, reader: int) -> Iterator[bytes]:
        def is_over() -> bool:
            return self._is_closed or self._readers != reader

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or is_over())
                self._changed.wait_for(is_over, LINGER_SECONDS)
                if self._readers != reader:
                    return
                batch = self._buffer.take()
            if batch:
                yield encode_events(batch)
            elif self._is_closed:
                return
