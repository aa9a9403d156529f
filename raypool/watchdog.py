"""Limits on how long coroutines may take, with one timer for all of them."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType


class Watchdog:
    """Gives limits to the coroutines of one event loop.

    `asyncio.timeout` sets and cancels a timer for each, which costs a short turn as much
    as all the rest of it.
    """

    def __init__(self) -> None:
        self._limits: dict[Limit, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_bark = math.inf

    def limit(self, seconds: float) -> Limit:
        """A context that is cancelled after `seconds`, and then raises `TimeoutError`."""
        return Limit(self, seconds)

    def watch(self, limit: Limit) -> None:
        """Cancel `limit` at its deadline."""
        self._limits[limit] = None
        if limit.deadline < self._next_bark:
            self._set_timer(limit.deadline)

    def leave(self, limit: Limit) -> None:
        """Forget a limit that was left in time; the timer may run out for nothing."""
        self._limits.pop(limit, None)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._bark)
        self._next_bark = when

    def _bark(self) -> None:
        self._timer = None
        self._next_bark = math.inf
        now = asyncio.get_running_loop().time()
        late = [limit for limit in self._limits if limit.deadline <= now]
        for limit in sorted(late, key=lambda limit: limit.deadline):
            del self._limits[limit]
            limit.expire()
        if self._limits:
            self._set_timer(min(limit.deadline for limit in self._limits))


class Limit:
    """One coroutine's limit: a context that is cancelled, and then raises `TimeoutError`.

    While something runs in it, it is `listed` under its `number`.

    Attributes:
        deadline: when it ends, on the loop's clock.
        cut_at: when it ends, or was to be interrupted, on the monotonic clock.
        has_expired: the deadline came before the end.
        is_interrupted: somebody interrupted it before its deadline and its end.
        is_marked: somebody wants it interrupted; the event loop may not know yet.
    """

    __slots__ = (
        "_cancelling",
        "_listed",
        "_number",
        "_seconds",
        "_task",
        "_watchdog",
        "cut_at",
        "deadline",
        "has_expired",
        "is_interrupted",
        "is_marked",
    )

    def __init__(
        self,
        watchdog: Watchdog,
        seconds: float,
        listed: dict[int, Limit] | None = None,
        number: int = 0,
    ) -> None:
        self._watchdog = watchdog
        self._seconds = seconds
        self._listed = listed
        self._number = number
        self._task: asyncio.Task[object] | None = None
        self.deadline = self.cut_at = 0.0
        self.has_expired = False
        self.is_interrupted = False
        self.is_marked = False

    @property
    def was_cut(self) -> bool:
        """Whether it was cancelled before its end, for either reason."""
        return self.has_expired or self.is_interrupted

    def __enter__(self) -> Limit:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.deadline = loop.time() + self._seconds
        self.cut_at = time.monotonic() + self._seconds
        self._watchdog.watch(self)
        if self._listed is not None:
            self._listed[self._number] = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.leave(self)
        if self._listed is not None:
            del self._listed[self._number]
        task, self._task = self._task, None
        if not (self.has_expired or self.is_interrupted):
            return
        assert task is not None
        is_mine = task.uncancel() <= self._cancelling
        if is_mine and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel what runs under this limit, since its time is up."""
        self.has_expired = True
        self._cancel()

    def interrupt(self) -> None:
        """Cancel what runs under this limit, now, unless that has happened."""
        if self._task is not None and not self.was_cut:
            self.is_interrupted = True
            self._watchdog.leave(self)
            self._cancel()

    def mark_interrupted(self, now: float) -> None:
        """Note that it is to end `now`, on the monotonic clock; from any thread."""
        if not self.has_expired:
            self.is_marked = True
            self.cut_at = min(self.cut_at, now)

    def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
