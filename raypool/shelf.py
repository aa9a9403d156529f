"""The tasks of one lane that wait in the ledger only."""

from __future__ import annotations

from raypool.lane import Lane
from raypool.shelf_watchers import ShelfWatchers, Watcher


class Shelf:
    """What the dispatcher knows of a lane's tasks that are in the ledger only: which, not what.

    Those are the lane's unfinished tasks with numbers above `read_to`, up to `last`, but for a few
    that were taken out one by one. They are read again in the order of their numbers, a page at a
    time.

    Attributes:
        lane: whose tasks they are.
        count: how many there are.
        waiting: how many tasks of the lane are in memory and were never sent to a worker.
        read_to: the number up to which all are in memory, or have ended.
        last: the highest number on the shelf, and of those that have been there.
        is_being_read: a page is on its way.
    """

    __slots__ = (
        "_last_when_read",
        "_out",
        "_watchers",
        "count",
        "is_being_read",
        "lane",
        "last",
        "read_to",
        "waiting",
    )

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.count = 0
        self.waiting = 0
        self.read_to = 0
        self.last = 0
        self.is_being_read = False
        self._last_when_read = 0
        self._out: set[int] = set()
        self._watchers = ShelfWatchers()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to read."""
        return self.read_to >= self.last

    def fill(self, count: int, last: int) -> None:
        """Have everything on the shelf that an earlier run has left, up to the number `last`."""
        self.count, self.last = count, last

    def holds(self, number: int) -> bool:
        """Whether the unfinished task of the lane with that number is on the shelf.

        One that is being accepted must not be asked for.
        """
        return self.read_to < number <= self.last and number not in self._out

    def fits(self, number: int) -> bool:
        """Whether a task with that number comes after all that were taken in or put here."""
        return number > self.last and number > self.read_to

    def put(self, number: int, watcher: Watcher, *, streams: bool) -> None:
        """Put a task, which must fit, behind the others."""
        after = self.last if not self.is_empty else 0
        self._watchers.add(number, watcher, after=after, streams=streams)
        self.last = number
        self.count += 1

    def watch(self, number: int, watcher: Watcher, *, streams: bool = False) -> None:
        """Have `watcher` be told of the end of a task that is here."""
        self._watchers.watch(number, watcher, streams=streams)

    def take(self, number: int) -> tuple[list[Watcher], bool]:
        """Take out a task that is here; its watchers, and whether one wants its text meanwhile."""
        self._out.add(number)
        self.count -= 1
        return self._watchers.of(number)

    def pass_by(self, number: int) -> None:
        """Note that the task with that number goes on in memory, or is not to go on."""
        if number <= self.read_to:
            return
        if self.is_empty:
            self.read_to = number
        else:
            self._out.add(number)

    def begin_to_read(self) -> None:
        """The ledger is asked for the next page."""
        self.is_being_read = True
        self._last_when_read = self.last

    def have_read(self, number: int | None) -> None:
        """All up to `number` were taken in; `None` when the ledger had nothing more."""
        self.is_being_read = False
        self.read_to = max(self.read_to, self._last_when_read if number is None else number)
        if self.is_empty:
            self.read_to = max(self.read_to, *self._out) if self._out else self.read_to
            self._out.clear()
            self.count = 0
        else:
            self._out = {one for one in self._out if one > self.read_to}
        self._watchers.forget_up_to(self.read_to)

    def count_up_to(self, number: int) -> int:
        """How many tasks with that number, or one before, are here at most."""
        if number >= self.last:
            return self.count
        return max(0, min(self.count, number - self.read_to))
