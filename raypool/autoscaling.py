"""How many workers a role should have, by what waits for them and what they can be fed."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple, Protocol

from raypool.clock import Clock
from raypool.config import Autoscale

SPARE = 2.0
"""So many times the workers that a rate limit feeds may be there before some are too many."""


class Load(NamedTuple):
    """What the workers of a role have to do.

    Attributes:
        size: the workers there are and those that are coming, without those that leave.
        tasks: tasks that run or wait for a worker.
        concurrency: how many turns each worker runs at once.
        blocked: why nothing at all is sent; `None` while something is.
    """

    size: int
    tasks: int
    concurrency: int = 1
    blocked: str | None = None


class Feed(Protocol):
    """What a rate limit lets through."""

    @property
    def turns_per_second(self) -> float:
        """How many turns may begin in a second; infinite when nothing limits them."""

    @property
    def mean_turn_seconds(self) -> float | None:
        """How long a turn takes; `None` while none has ended."""


class Wanted(NamedTuple):
    """How many workers there should be.

    Attributes:
        size: so many.
        held_back: why there are not to be as many as what waits would ask for; `None` when
            there are.
    """

    size: int
    held_back: str | None = None


class Autoscaler:
    """Decides the size of one role; asked every now and then, at least once in each delay.

    More workers are wanted when more than `target_queued_per_worker` tasks wait for each, fewer
    when not even all tasks at once would keep them busy; between the two nothing changes. The
    size follows what was wanted for the whole of `up_delay`, or of `down_delay`: the least in
    the one, the most in the other (the stabilisation windows of Kubernetes' horizontal pod
    autoscaler). So it never goes up and down within the delays.

    It grows no further than the rate limit can feed by Little's law: as many turns run at once
    as begin in the time that one takes.
    """

    def __init__(self, settings: Autoscale, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget what was wanted: somebody has set the size."""
        self._least = _Window(self._settings.up_delay, self._clock, highest=False)
        self._most = _Window(self._settings.down_delay, self._clock, highest=True)

    def wanted(self, load: Load, feed: Feed | None = None) -> Wanted:
        """How many workers there should be now."""
        settings = self._settings
        per_worker = load.concurrency + settings.target_queued_per_worker
        asked = self._clamped(load.tasks / per_worker)
        fed = _workers_fed(feed, load)
        least = int(min(asked, max(fed, settings.min_size)))
        most = max(least, min(self._clamped(load.tasks / load.concurrency), SPARE * fed))
        self._least.add(least)
        self._most.add(most)
        held_back = _held_back(load, fed, asked) if fed < asked and load.size >= least else None
        return Wanted(self._size(load, least), held_back)

    def _size(self, load: Load, least: int) -> int:
        if load.size < self._settings.min_size or (load.size == 0 and least > 0):
            return least
        lowest, highest = self._least.extreme(), self._most.extreme()
        if lowest is not None and lowest > load.size:
            return int(lowest)
        if highest is not None and highest < load.size:
            return math.ceil(highest)
        return load.size

    def _clamped(self, workers: float) -> int:
        return max(self._settings.min_size, min(math.ceil(workers), self._settings.max_size))


class _Window:
    """The extreme of a value over the last `seconds`; it holds from one `add` to the next."""

    def __init__(self, seconds: float, clock: Clock, *, highest: bool) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sign = 1.0 if highest else -1.0
        self._begun_at = clock.monotonic()
        self._until: deque[tuple[float, float]] = deque()
        self._last: float | None = None

    def add(self, value: float) -> None:
        """The value from now on."""
        now = self._clock.monotonic()
        if self._last is not None:
            self._note(now, self._last)
        self._last = value * self._sign
        while self._until and self._until[0][0] <= now - self._seconds:
            self._until.popleft()

    def extreme(self) -> float | None:
        """The highest or lowest value in the window; `None` until it was watched for so long."""
        if self._last is None or self._clock.monotonic() - self._begun_at < self._seconds:
            return None
        past = self._until[0][1] if self._until else self._last
        return max(past, self._last) * self._sign

    def _note(self, until: float, value: float) -> None:
        """Keep only what may still be the extreme: values that fall, by when they ended."""
        while self._until and self._until[-1][1] <= value:
            self._until.pop()
        self._until.append((until, value))


def _workers_fed(feed: Feed | None, load: Load) -> float:
    """How many workers a rate limit keeps busy, at least one; those there are until it is known."""
    if load.blocked is None and (feed is None or math.isinf(feed.turns_per_second)):
        return math.inf
    if load.blocked is not None or feed is None or feed.mean_turn_seconds is None:
        return max(1, load.size)
    at_once = feed.turns_per_second * feed.mean_turn_seconds
    return max(1, math.ceil(at_once / load.concurrency))


def _held_back(load: Load, fed: float, asked: int) -> str:
    if load.blocked is not None:
        return f"what waits would ask for {asked} workers, but {load.blocked}"
    workers = "1 worker" if fed == 1 else f"{fed:g} workers"
    return f"the rate limit feeds {workers}; what waits would ask for {asked}"
