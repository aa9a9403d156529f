"""Reading a pool's events while a test goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raypool import Pool
from raypool.telemetry import TelemetryEvent

PATIENCE_SECONDS = 20.0


@contextmanager
def watching(pool: Pool) -> Iterator[list[TelemetryEvent]]:
    """The events of the pool, from the beginning of the block, in a list that grows."""
    events: list[TelemetryEvent] = []
    stream = pool.events()
    is_over = threading.Event()

    def read() -> None:
        for event in stream:
            events.append(event)
            if is_over.is_set():
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield events
    finally:
        is_over.set()
        pool.submit("that was all")
        reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()


def wait_for_event(
    events: list[TelemetryEvent], name: str, *, task: str | None = None
) -> TelemetryEvent:
    """The first event of that name, about that task if one is named, once it has come.

    Raises:
        TimeoutError: it has not within 20 seconds.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for event in list(events):
            if event.name == name and task in (None, event.task):
                return event
        time.sleep(0.01)
    raise TimeoutError(f"there was no {name!r} among {sorted({one.name for one in events})}")
