"""How a worker's outcomes find their way into the calls that brought its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Protocol

from raypool.messages import Batch, Outcome, Piece
from raypool.unicode import unicode_text

LINGER_SECONDS = 0.005
TEXT_LINGER_SECONDS = 0.05


class Timer(Protocol):
    """What can be called back later: an event loop."""

    def time(self) -> float:
        """Seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        """Call `callback` after `delay` seconds."""


class Envelope:
    """One `turn` call while it runs: it waits for outcomes on the call's thread.

    Args:
        count: how many tasks it brought.
        streams: the call gives batches as they come, not all at its end.
    """

    def __init__(self, count: int, *, streams: bool = True) -> None:
        self.left = count
        self.streams = streams
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()

    def put(self, batch: Batch) -> None:
        """Hand over a batch."""
        self._batches.put(batch)

    def end(self) -> None:
        """Let the call return: there will be no more batches."""
        self._batches.put(None)

    def batches(self) -> Iterator[Batch]:
        """The batches as they come, until the envelope is done."""
        while (batch := self._batches.get()) is not None:
            yield batch


class Outbox:
    """Gathers the outcomes of a worker's envelopes into batches.

    An outcome travels with any open envelope of the worker, whichever brought its
    task: the first at once, then at most 5 ms apart. So a batch holds whatever ended
    in the meantime, and there are few of them. Text that a task streams lingers for 50 ms,
    unless an outcome takes it along. An envelope that does not stream carries its own
    outcomes alone. Belongs to one event loop.
    """

    def __init__(self, loop: Timer) -> None:
        self._loop = loop
        self._outcomes: list[Outcome] = []
        self._texts: dict[int, list[str]] = {}
        self._open: dict[Envelope, None] = {}
        self._last_flush = float("-inf")
        self._flush_is_due = False
        self._text_flush_is_due = False

    def open(self, envelope: Envelope) -> None:
        """Let an envelope carry outcomes until it is done."""
        self._open[envelope] = None

    def close(self) -> None:
        """Send what there is, and end every envelope with its tasks undone."""
        self._flush()
        for envelope in self._open:
            envelope.end()
        self._open.clear()

    def abandon(self) -> None:
        """End every envelope, since nobody hears of it any more; what was not sent is dropped."""
        self._outcomes.clear()
        self._texts.clear()
        for envelope in self._open:
            envelope.end()
        self._open.clear()

    def put(self, envelope: Envelope, outcome: Outcome) -> None:
        """Take the outcome of a task that `envelope` brought, unless that was abandoned."""
        if envelope not in self._open:
            return
        envelope.left -= 1
        if envelope.streams:
            self._outcomes.append(outcome)
        else:
            envelope.put(Batch([outcome]))
        if envelope.left == 0:
            if envelope.streams:
                self._hand_to(envelope)
            self._open.pop(envelope, None)
            envelope.end()
        elif envelope.streams and not self._flush_is_due:
            self._schedule_flush()

    def put_text(self, number: int, text: str) -> None:
        """Take a piece of the text that a task streams."""
        self._texts.setdefault(number, []).append(text)
        if not self._text_flush_is_due:
            self._text_flush_is_due = True
            self._loop.call_later(TEXT_LINGER_SECONDS, self._flush_texts)

    def give_up(self, envelope: Envelope, outcomes: list[Outcome]) -> None:
        """Send these outcomes, and those that wait, whatever becomes of the event loop.

        May be called from any thread; the process is about to end.
        """
        waiting, self._outcomes = self._outcomes, []
        envelope.put(Batch([*waiting, *outcomes]))
        if not envelope.streams:
            envelope.end()

    def _schedule_flush(self) -> None:
        wait = self._last_flush + LINGER_SECONDS - self._loop.time()
        if wait <= 0:
            self._flush()
        else:
            self._flush_is_due = True
            self._loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        self._send()

    def _flush_texts(self) -> None:
        self._text_flush_is_due = False
        self._send()

    def _send(self) -> None:
        carrier = next((envelope for envelope in self._open if envelope.streams), None)
        if (self._outcomes or self._texts) and carrier is not None:
            self._hand_to(carrier)

    def _hand_to(self, envelope: Envelope) -> None:
        outcomes, self._outcomes = self._outcomes, []
        pieces = [
            Piece(number, unicode_text("".join(texts))) for number, texts in self._texts.items()
        ]
        self._texts.clear()
        self._last_flush = self._loop.time()
        envelope.put(Batch(outcomes, pieces))
