"""What runs under a limit in a worker, as the event loop and other threads look at it."""

from __future__ import annotations

import time

from raypool.watchdog import Limit, Watchdog


class Limits:
    """The turns that run, and the callbacks after and between them, by the task's number.

    Turns can be interrupted; the callbacks after them only run out of time.
    """

    def __init__(self) -> None:
        self._watchdog = Watchdog()
        self._turns: dict[int, Limit] = {}
        self._callbacks: dict[int, Limit] = {}

    def turn(self, number: int, seconds: float) -> Limit:
        """A limit for a turn; raises `TimeoutError` when the turn was cut short."""
        return Limit(self._watchdog, seconds, self._turns, number)

    def callbacks(self, number: int, seconds: float) -> Limit:
        """A limit for callbacks; raises `TimeoutError` when they were cut short."""
        return Limit(self._watchdog, seconds, self._callbacks, number)

    def interrupt(self, number: int | None = None) -> int:
        """Interrupt the running turn of a task, or of all; how many."""
        numbers = list(self._turns) if number is None else [number]
        running = [limit for one in numbers if (limit := self._turns.get(one)) is not None]
        for limit in running:
            limit.interrupt()
        return len(running)

    def is_interrupted(self, number: int) -> bool:
        """Whether the task's running turn was interrupted, or is to be."""
        limit = self._turns.get(number)
        return limit is not None and (limit.is_interrupted or limit.is_marked)

    def mark_interrupted(self, number: int | None = None) -> None:
        """Note that turns are to end now, whatever the event loop does; from any thread."""
        now = time.monotonic()
        for running, limit in self._turns.copy().items():
            if number in (None, running):
                limit.mark_interrupted(now)

    def overdue(self, grace: float) -> list[int]:
        """What still runs `grace` seconds after it was cut short; from any thread."""
        limits = [*self._turns.copy().items(), *self._callbacks.copy().items()]
        now = time.monotonic()
        return [number for number, limit in limits if limit.cut_at + grace < now]
