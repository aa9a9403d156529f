"""Token buckets: how much of one thing may go out now, at so much a second."""

from __future__ import annotations

import math
from typing import NamedTuple

REMEMBERED = 32
ALMOST = 1 - 1e-9
"""What is short of an amount by rounding alone is enough."""


class Rates(NamedTuple):
    """Of each thing that providers count, how much in a second; or a plain amount of each.

    Attributes:
        requests: exchanges with the backend.
        input_tokens: tokens read.
        output_tokens: tokens written.
        tokens: both together.
    """

    requests: float = math.inf
    input_tokens: float = math.inf
    output_tokens: float = math.inf
    tokens: float = math.inf

    @classmethod
    def of_turn(cls, input_tokens: float, output_tokens: float, requests: float = 1.0) -> Rates:
        """What turns of that size take of each."""
        return cls(requests, input_tokens, output_tokens, input_tokens + output_tokens)


NOTHING = Rates(0.0, 0.0, 0.0, 0.0)
UNLIMITED = Rates()


class Bucket:
    """Holds one second's worth of its rate, and fills at it.

    An amount may be taken when all of it is there, or, when it is larger than the bucket,
    when the bucket is full: it then runs into debt. So in any window of w seconds at most
    w + 1 seconds' worth goes out, plus what the last amount has beyond the size of the bucket.

    Attributes:
        rate: how much comes in a second.
        size: the most that it holds.
        level: what it held at `filled_at`; less than nothing is debt.
        last: the number of the last taking, also where there was no limit to take from.
    """

    __slots__ = ("_rooms", "_since", "filled_at", "last", "level", "rate", "size")

    def __init__(self, rate: float, now: float, *, size: float | None = None) -> None:
        self.rate = rate
        self.size = rate if size is None else size
        self.level = self.size
        self.filled_at = now
        self.last = self._since = 0
        # How much it had room for, after which taking; each is more than the one before.
        self._rooms: list[tuple[float, float]] = []

    def fill(self, now: float) -> float:
        """The level as it is now."""
        if now > self.filled_at:
            if self.rate < math.inf:
                self.level = min(self.size, self.level + self.rate * (now - self.filled_at))
            self.filled_at = now
        return self.level

    def has(self, amount: float, now: float) -> bool:
        """Whether that much may be taken now."""
        if self.rate == math.inf:
            return True
        level, size = self.fill(now), self.size
        return size > 0 and (level >= amount or level >= min(amount, size) * ALMOST)

    def take(self, amount: float, number: int, now: float) -> None:
        """Take what it `has`, as the taking of that number: each is higher than the last."""
        if self.rate < math.inf:
            self._note_room(number, now)
            self.level -= amount
        self.last = number

    def settle(self, amount: float, number: int, now: float) -> None:
        """Give back what the taking of that number has not used, or take what it has beyond.

        What would have overflowed since, had it never been taken, is lost: otherwise it would
        go out on top of a full bucket. What is taken beyond may run into debt.
        """
        if self.rate == math.inf or number <= self._since:
            return
        if amount <= 0:
            self._note_room(self.last + 0.5, now)
            self.level += amount
            return
        fits = min(amount, self.size - self.fill(now))
        for when, room in self._rooms:
            if room >= fits:
                break
            if when > number:
                fits = room
                break
        self.level += fits

    def opens_in(self, amount: float, now: float) -> float | None:
        """Seconds until it has that much; `None` when it never will at this rate."""
        if self.has(amount, now):
            return 0.0
        if self.rate <= 0 or self.size <= 0:
            return None
        pause = max(0.0, self.filled_at - now)
        return pause + (min(amount, self.size) - self.level) / self.rate

    def change(self, rate: float, now: float, *, size: float | None = None) -> None:
        """Fill at another rate from now on; what does not fit into the new size is lost."""
        size = rate if size is None else size
        if rate == self.rate and size == self.size:
            return
        was_endless = self.rate == math.inf
        self.fill(now)
        self.rate, self.size = rate, size
        if was_endless:
            self.level, self._since = 0.0, self.last
            self._rooms.clear()
        self.level = min(self.level, size)
        self._note_room(self.last + 0.5, now)

    def pour(self, amount: float, now: float) -> float:
        """Add what fits of an amount; how much did."""
        if self.rate == math.inf:
            return 0.0
        poured = max(0.0, min(amount, self.size - self.fill(now)))
        self.level += poured
        return poured

    def drain(self, now: float) -> None:
        """Let go of what is there; debt stays."""
        self.level = min(self.fill(now), 0.0)

    def pause(self, until: float, now: float) -> None:
        """Let nothing in before that time, whatever an earlier pause was to be."""
        self.fill(now)
        self.filled_at = max(now, until)

    def _note_room(self, number: float, now: float) -> None:
        room = self.size - self.fill(now)
        rooms = self._rooms
        while rooms and rooms[-1][1] >= room:
            rooms.pop()
        rooms.append((number, room))
        if len(rooms) > REMEMBERED:
            # The oldest counts for longer than it was true, so that less is given back.
            rooms[:2] = [(rooms[1][0], rooms[0][1])]
