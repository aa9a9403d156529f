"""Where deliveries, and the text of answers that are being generated, wait for the clients."""

from __future__ import annotations

import asyncio

from raypool.clock import Clock
from raypool.messages import Delivery, TicketText

FORGET_SECONDS = 120.0
TEXT_LINGER_SECONDS = 0.05
LONGEST_TEXT = 1_000_000
MOST_FORGOTTEN = 10_000


class Desk:
    """One client's deliveries and texts, in order; belongs to one event loop.

    A delivery lets `collect` return at once. Text does so at most every 50 ms, so that
    one message carries much of it. At most 1,000,000 characters wait for each ticket: of
    one that has more, the rest is dropped, up to its delivery, so that what its client
    has is never without a beginning.
    """

    def __init__(self) -> None:
        self._pending: list[Delivery] = []
        self._texts: dict[int, _Text] = {}
        self._cut: set[int] = set()
        self._has_text_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._texts_taken_at = float("-inf")
        self._news = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """Keep a delivery for the client."""
        self._pending.append(delivery)
        self._cut.discard(delivery.ticket)
        self._news.set()

    def put_text(self, ticket: int, text: str) -> None:
        """Keep text for the stream of the future with that ticket."""
        if ticket in self._cut:
            return
        waiting = self._texts.setdefault(ticket, _Text())
        if not waiting.add(text):
            self._cut.add(ticket)
        self._show_texts_in_time()

    def interrupt(self) -> None:
        """Let a `collect` that waits return with what there is."""
        self._news.set()

    async def collect(self, timeout: float) -> list[Delivery]:
        """What there is, as soon as there is something; nothing after `timeout` seconds.

        Returns nothing, too, when there is text, which `take_texts` then gives.
        """
        if not self._pending and not self._has_text_due:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return []
        pending, self._pending = self._pending, []
        return pending

    def take_texts(self) -> list[TicketText]:
        """What was generated for each ticket, joined, before what `collect` has just returned."""
        if not self._texts:
            return []
        texts = [TicketText(ticket, text.joined()) for ticket, text in self._texts.items()]
        self._texts.clear()
        self._has_text_due = False
        self._texts_taken_at = asyncio.get_running_loop().time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return texts

    def _show_texts_in_time(self) -> None:
        if self._has_text_due or self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        wait = self._texts_taken_at + TEXT_LINGER_SECONDS - loop.time()
        if wait <= 0:
            self._show_texts()
        else:
            self._timer = loop.call_later(wait, self._show_texts)

    def _show_texts(self) -> None:
        self._timer = None
        self._has_text_due = True
        self._news.set()


class _Text:
    """What waits for one ticket."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._room = LONGEST_TEXT

    def add(self, text: str) -> bool:
        """Add a piece, or as much of it as there is room for; false when some was dropped."""
        self._pieces.append(text[: self._room])
        is_whole = len(text) <= self._room
        self._room -= len(self._pieces[-1])
        return is_whole

    def joined(self) -> str:
        return "".join(self._pieces)


class Desks:
    """The desks of all clients, of which those that never come back are cleared away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._desks: dict[str, Desk] = {}
        self._seen: dict[str, float] = {}
        self._forgotten: set[str] = set()

    def of(self, client: str) -> Desk:
        """The desk of a client that has just called."""
        self._seen[client] = self._clock.monotonic()
        if client not in self._desks:
            self._forget_absent()
            self._desks[client] = Desk()
        return self._desks[client]

    def was_forgotten(self, client: str) -> bool:
        """Whether the client was forgotten since it was last asked, and has missed deliveries."""
        was_forgotten = client in self._forgotten
        self._forgotten.discard(client)
        return was_forgotten

    def touch(self, client: str) -> None:
        """Note that a client is here, unless it has left."""
        if client in self._desks:
            self._seen[client] = self._clock.monotonic()

    def put(self, client: str, delivery: Delivery) -> None:
        """Keep a delivery for a client, unless it is long gone."""
        desk = self._present(client)
        if desk is not None:
            desk.put(delivery)

    def put_text(self, client: str, ticket: int, text: str) -> None:
        """Keep text for a client's stream, unless it is long gone."""
        desk = self._present(client)
        if desk is not None:
            desk.put_text(ticket, text)

    def close(self, client: str) -> None:
        """Forget a client that leaves."""
        desk = self._desks.pop(client, None)
        self._seen.pop(client, None)
        if desk is not None:
            desk.interrupt()
            if len(self._forgotten) < MOST_FORGOTTEN:
                self._forgotten.add(client)

    def interrupt(self) -> None:
        """Let every `collect` that waits return."""
        for desk in self._desks.values():
            desk.interrupt()

    def _present(self, client: str) -> Desk | None:
        desk = self._desks.get(client)
        if desk is not None and self._clock.monotonic() - self._seen[client] > FORGET_SECONDS:
            self.close(client)
            return None
        return desk

    def _forget_absent(self) -> None:
        long_ago = self._clock.monotonic() - FORGET_SECONDS
        for client, seen in list(self._seen.items()):
            if seen < long_ago:
                self.close(client)
