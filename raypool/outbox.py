"""How a worker's outcomes find their way into the calls that brought its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Protocol

from raypool.messages import Outcome

LINGER_SECONDS = 0.005


class Timer(Protocol):
    """What can be called back later: an event loop."""

    def time(self) -> float:
        """Seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        """Call `callback` after `delay` seconds."""


class Envelope:
    """One `turn` call while it runs: it waits for outcomes on the call's thread."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.streams = count > 1
        self._batches: SimpleQueue[list[Outcome] | None] = SimpleQueue()

    def put(self, batch: list[Outcome]) -> None:
        """Hand over a batch."""
        self._batches.put(batch)

    def end(self) -> None:
        """Let the call return: there will be no more batches."""
        self._batches.put(None)

    def batches(self) -> Iterator[list[Outcome]]:
        """The batches as they come, until the envelope is done."""
        while (batch := self._batches.get()) is not None:
            yield batch


class Outbox:
    """Gathers the outcomes of a worker's envelopes into batches.

    An outcome travels with any open envelope of the worker, whichever brought its
    task: the first at once, then at most 5 ms apart. So a batch holds whatever ended
    in the meantime, and there are few of them. Belongs to one event loop.
    """

    def __init__(self, loop: Timer) -> None:
        self._loop = loop
        self._pending: list[Outcome] = []
        self._open: dict[Envelope, None] = {}
        self._last_flush = float("-inf")
        self._flush_is_due = False

    def open(self, envelope: Envelope) -> None:
        """Let an envelope carry outcomes until it is done."""
        self._open[envelope] = None

    def close(self) -> None:
        """Send what there is, and end every envelope with its tasks undone."""
        self._flush()
        for envelope in self._open:
            envelope.end()
        self._open.clear()

    def put(self, envelope: Envelope, outcome: Outcome) -> None:
        """Take the outcome of a task that `envelope` brought."""
        self._pending.append(outcome)
        envelope.left -= 1
        if envelope.left == 0:
            self._hand_to(envelope)
            self._open.pop(envelope, None)
            envelope.end()
        elif not self._flush_is_due:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        wait = self._last_flush + LINGER_SECONDS - self._loop.time()
        if wait <= 0:
            self._flush()
        else:
            self._flush_is_due = True
            self._loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        carrier = next((envelope for envelope in self._open if envelope.streams), None)
        if self._pending and carrier is not None:
            self._hand_to(carrier)

    def _hand_to(self, envelope: Envelope) -> None:
        batch, self._pending = self._pending, []
        self._last_flush = self._loop.time()
        envelope.put(batch)
