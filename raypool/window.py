"""How many tasks a worker may hold: as many as it runs, and a few to go on with."""

from __future__ import annotations

import math

PREFETCH_SECONDS = 0.1
LATE_PREFETCH_SECONDS = 0.02
LATE_PARTS = 4
MIN_PREFETCH = 2
MAX_PREFETCH = 512
_SAMPLE_SECONDS = 0.005
_LONGEST_SAMPLE = 3 * PREFETCH_SECONDS
_WEIGHT_OF_NEW = 0.3


class Window:
    """Tells how many tasks to send to one worker now.

    A worker may hold `concurrency` tasks and, beyond them, what it ends in 100 ms
    (at least 2, at most 512 or `mailbox_limit`): so slow turns are given out one at
    a time, as late as possible, and fast ones in large envelopes.

    Attributes:
        concurrency: how many tasks the worker runs at once.
        prefetch: how many it may hold beyond those.
    """

    def __init__(self, concurrency: int, mailbox_limit: int | None = None) -> None:
        self.concurrency = concurrency
        self._most = MAX_PREFETCH if mailbox_limit is None else min(mailbox_limit, MAX_PREFETCH)
        self._count, self._seconds = 0.0, PREFETCH_SECONDS
        self.prefetch = self._prefetch()
        self._ended = 0
        self._since: float | None = None

    def room(self, held: int, *, prefetches: bool = True) -> int:
        """How many tasks to send to a worker that holds `held`; 0 until it pays to send.

        Unless it `prefetches`, a worker is sent no more than it runs at once.
        """
        if not prefetches:
            return max(0, self.concurrency - held)
        prefetch = self.prefetch
        room = self.concurrency + prefetch - held
        return room if room * 2 >= prefetch else 0

    def late_prefetch(self, waiting: int, workers: int) -> int:
        """The same of tasks that any of so many workers may have, while so many wait.

        What the worker ends while a message comes and goes, and none when a turn takes much
        longer than that: a task that is sent ahead may stand behind a long turn while others are
        free. For the same reason none near the end: of what waits, a worker takes no more than
        a quarter of an even part (as factoring takes a half: Hummel, Schonberg and Flynn,
        CACM 35(8), 1992).
        """
        rate = self._count / self._seconds
        if rate * PREFETCH_SECONDS < self.concurrency:
            return 0
        prefetch = math.ceil(rate * LATE_PREFETCH_SECONDS)
        return min(prefetch, self._most, waiting // (LATE_PARTS * workers))

    def ended(self, count: int, now: float) -> None:
        """Note that the worker has ended `count` tasks; `now` in monotonic seconds."""
        if self._since is None:
            self._since = now
            return
        self._ended += count
        elapsed = now - self._since
        if elapsed >= _SAMPLE_SECONDS:
            # The mean of times, not of rates: one short turn among long ones says little.
            self._count += _WEIGHT_OF_NEW * (self._ended - self._count)
            self._seconds += _WEIGHT_OF_NEW * (min(elapsed, _LONGEST_SAMPLE) - self._seconds)
            self.prefetch = self._prefetch()
            self._ended = 0
            self._since = now

    def rest(self) -> None:
        """Note that the worker has nothing to do: how long that lasts says nothing of it."""
        self._ended, self._since = 0, None

    def _prefetch(self) -> int:
        return max(1, min(max(MIN_PREFETCH, self._ended_meanwhile()), self._most))

    def _ended_meanwhile(self) -> int:
        """How many tasks the worker ends in `PREFETCH_SECONDS`."""
        return int(self._count / self._seconds * PREFETCH_SECONDS)
