"""The user's `on_event` handler, on a thread of its own."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from raypool.clock import Clock
from raypool.telemetry.buffer import BUFFERED_EVENTS, EventBuffer
from raypool.telemetry.event import TelemetryEvent

logger = logging.getLogger(__name__)

EventHandler: TypeAlias = Callable[[TelemetryEvent], object]
"""What `on_event` may be: a function that is called with each event, one at a time."""

CLOSE_SECONDS = 5.0


def check_handler(handler: object) -> None:
    """Refuse what cannot be an `on_event` handler.

    Raises:
        TypeError: says what it must be, and what came.
    """
    if not callable(handler):
        raise TypeError(
            f"on_event must be a function that takes an event, got {type(handler).__name__}"
        )
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        raise TypeError(
            "on_event must be a plain function, since it runs on a thread of its own: "
            "write `def`, not `async def`"
        )


class HandlerThread:
    """Calls a handler with every event, in order, and never keeps waiting who puts them.

    A handler that falls 10,000 events behind loses the oldest, and gets a
    `telemetry.dropped`. One that raises is detached, which is logged with its traceback.
    """

    def __init__(
        self, handler: EventHandler, clock: Clock, pool: str, *, limit: int = BUFFERED_EVENTS
    ) -> None:
        self._handler = handler
        self._pool = pool
        self._buffer = EventBuffer(clock, pool, "handler", limit=limit)
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_detached = False
        self._thread = threading.Thread(target=self._run, name="raypool-on-event", daemon=True)
        self._thread.start()

    @property
    def is_detached(self) -> bool:
        """It has raised, or was closed, and is called no more."""
        return self._is_detached or self._is_closed

    def put(self, event: TelemetryEvent) -> None:
        """Have the handler called with an event, soon."""
        with self._changed:
            if not self.is_detached:
                self._buffer.put(event)
                self._changed.notify_all()

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Take no more, and wait until the handler has had all; false when time ran out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while events := self._await_events():
            for event in events:
                try:
                    self._handler(event)
                except BaseException:  # noqa: BLE001 - a handler may raise anything
                    self._detach(event)
                    return

    def _await_events(self) -> list[TelemetryEvent]:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._is_closed)
            return self._buffer.take()

    def _detach(self, event: TelemetryEvent) -> None:
        with self._changed:
            self._is_detached = True
            self._buffer.clear()
        logger.exception(
            "the on_event handler of pool %r raised for %r and is detached: it is called no more",
            self._pool,
            event,
        )
