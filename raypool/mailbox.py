"""What waits inside a worker for one of its slots: notices, and tasks of started envelopes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

from raypool.agent import Prompt
from raypool.messages import Assignment, Notice, Outcome
from raypool.outbox import Envelope


class Letter(NamedTuple):
    """A notice, and where its outcome is awaited."""

    notice: Notice
    outcome: Future[Outcome]


class Wish(NamedTuple):
    """What the agent decided to ask when it heard a notice."""

    letter: Letter
    prompt: Prompt


class Parcel(NamedTuple):
    """A task, and the envelope that brought it."""

    work: Assignment
    envelope: Envelope


Item: TypeAlias = Letter | Wish | Parcel


class Mailbox:
    """Gives each slot what comes first: what notices have led to, then notices, then tasks.

    While it is shut or held, only notices come out; while a turn runs in another slot, none do:
    they are heard at its end. Belongs to one event loop.

    Args:
        is_busy: whether a turn runs.
    """

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._wishes: deque[Wish] = deque()
        self._letters: deque[Letter] = deque()
        self._parcels: deque[Parcel] = deque()
        self._slots: deque[asyncio.Future[None]] = deque()
        self.is_shut = False
        self._is_held = False

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._parcels)

    def put(self, item: Item) -> None:
        """Add at the end of its line."""
        if isinstance(item, Parcel):
            self._parcels.append(item)
        elif isinstance(item, Letter):
            self._letters.append(item)
        else:
            self._wishes.append(item)
        self._wake()

    async def get(self) -> Item:
        """The next item, as soon as there is one."""
        while (item := self._next()) is None:
            free = asyncio.get_running_loop().create_future()
            self._slots.append(free)
            await free
        return item

    @property
    def letters(self) -> int:
        """How many notices wait."""
        return len(self._letters)

    def next_letter(self) -> Letter | None:
        """The next notice, if one waits."""
        return self._letters.popleft() if self._letters else None

    def shut(self) -> list[Parcel]:
        """Give out nothing but notices; returns the tasks that wait."""
        self.is_shut = True
        parcels = list(self._parcels)
        self._parcels.clear()
        return parcels

    def open(self) -> None:
        """Give out everything again that is not held."""
        self.is_shut = False
        self._wake_all()

    def hold(self) -> None:
        """Give out nothing but notices for now; what waits stays, and what comes waits."""
        self._is_held = True

    def release(self) -> None:
        """Hold nothing any longer."""
        self._is_held = False
        self._wake_all()

    def take_unreserved(self) -> list[Parcel]:
        """Remove and return the tasks that no capacity is reserved for."""
        unreserved = [parcel for parcel in self._parcels if parcel.work.exchanges is None]
        self._parcels = deque(one for one in self._parcels if one.work.exchanges is not None)
        return unreserved

    def drop_parcels(self) -> None:
        """Forget the tasks; notices, and what they have led to, stay."""
        self._parcels.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._wishes.clear()
        self._letters.clear()
        self._parcels.clear()

    def _next(self) -> Item | None:
        begins = not (self.is_shut or self._is_held)
        if self._wishes and begins:
            return self._wishes.popleft()
        if self._letters and not self._is_busy():
            return self._letters.popleft()
        if self._parcels and begins:
            return self._parcels.popleft()
        return None

    def _wake_all(self) -> None:
        for _ in range(len(self._slots)):
            self._wake()

    def _wake(self) -> None:
        while self._slots:
            slot = self._slots.popleft()
            if not slot.done():
                slot.set_result(None)
                return
