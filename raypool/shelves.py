"""Which tasks are kept in memory, and which in the ledger only until their turn comes closer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raypool.lane import Lane, lane_of
from raypool.records import AcceptedTask
from raypool.shelf import Shelf
from raypool.shelf_watchers import Watcher
from raypool.task_record import TaskRecord

MOST_IN_MEMORY = 50_000
FEWEST_OF_A_LANE = 20


class Shelves:
    """A shelf for each lane that has more tasks than are kept in memory.

    A task for which there is no room in memory is *shelved*: it is in the ledger only, and so are
    those that come after it in its lane, which keeps their order. The lanes with shelved tasks
    share the room evenly, and some of each are in memory, however many lanes there are. What a
    worker was sent takes no room; what is bound to a session, a race or a worker is in no lane and
    always in memory.

    Attributes:
        most: how many tasks that were never sent are kept in memory, about.
        fewest: how many of each lane are.
        on_low: called with a shelf from which more tasks should be read.
    """

    def __init__(self, most: int = MOST_IN_MEMORY, fewest: int = FEWEST_OF_A_LANE) -> None:
        self.most = most
        self.fewest = fewest
        self._shelves: dict[Lane, Shelf] = {}
        self._waiting = 0
        self._crowded = 0
        self.on_low: Callable[[Shelf], None] = lambda _: None

    def __len__(self) -> int:
        """How many lanes there are."""
        return len(self._shelves)

    @property
    def count(self) -> int:
        """How many tasks are shelved."""
        return sum(shelf.count for shelf in self._shelves.values())

    @property
    def is_empty(self) -> bool:
        """Whether no task is shelved."""
        return all(shelf.is_empty for shelf in self._shelves.values())

    @property
    def share(self) -> int:
        """How many tasks of a lane with shelved ones are kept in memory."""
        return max(self.fewest, self.most // max(1, self._crowded))

    def fill(self, unfinished: Mapping[Lane, int], last_number: int) -> None:
        """Have all those shelved that an earlier run has left, up to `last_number`."""
        for lane, count in unfinished.items():
            self._shelf(lane).fill(count, last_number)
        self._crowded = len(unfinished)

    def all_low(self) -> list[Shelf]:
        """The shelves from which more tasks should be read."""
        return [shelf for shelf in self._shelves.values() if self.is_low(shelf)]

    def is_low(self, shelf: Shelf) -> bool:
        """Whether more tasks should be read from a shelf: few are in memory or on their way."""
        is_idle = not (shelf.is_empty or shelf.is_being_read)
        return is_idle and 2 * shelf.waiting < self.share

    def put(self, record: TaskRecord) -> bool:
        """Shelve a task that was just committed; false when it goes on in memory."""
        lane = lane_of(record.task)
        if lane is None or record.is_cancelled:
            return False
        shelf = self._shelf(lane)
        if (shelf.is_empty and self._has_room(shelf)) or not shelf.fits(record.number):
            return False
        self._crowded += shelf.is_empty
        first, *others = record.watchers
        shelf.put(record.number, first, streams=record.streams)
        for watcher in others:
            shelf.watch(record.number, watcher)
        return True

    def holds(self, task: AcceptedTask) -> bool:
        """Whether an unfinished task is shelved; one that is being accepted is not asked for."""
        shelf = self._shelf_of(task)
        return shelf is not None and shelf.holds(task.number)

    def watch(self, task: AcceptedTask, watcher: Watcher, *, streams: bool = False) -> bool:
        """Have `watcher` be told of a shelved task's end; false when it is not shelved."""
        shelf = self._shelf_of(task)
        if shelf is None or not shelf.holds(task.number):
            return False
        shelf.watch(task.number, watcher, streams=streams)
        return True

    def take(self, record: TaskRecord) -> None:
        """Give an unfinished task, as the ledger has it, its watchers, if it is shelved."""
        shelf = self._shelf_of(record.task)
        if shelf is not None and shelf.holds(record.number):
            record.watchers, record.streams = shelf.take(record.number)

    def enter(self, record: TaskRecord) -> None:
        """A task goes on in memory."""
        lane = lane_of(record.task)
        if lane is not None:
            record.shelf = shelf = self._shelf(lane)
            shelf.waiting += 1
            self._waiting += 1
            shelf.pass_by(record.number)

    def leave(self, record: TaskRecord) -> None:
        """A task in memory is sent, or has ended without that."""
        shelf, record.shelf = record.shelf, None
        if shelf is not None:
            shelf.waiting -= 1
            self._waiting -= 1
            self._look_at(shelf)

    def give_up(self, record: TaskRecord) -> None:
        """A task was not accepted, though it may be in the ledger: it does not go on here."""
        shelf = self._shelf_of(record.task)
        if shelf is not None:
            shelf.pass_by(record.number)

    def have_read(self, shelf: Shelf, number: int | None) -> None:
        """All of a shelf up to `number` were taken in; `None` when the ledger had no more."""
        was_empty = shelf.is_empty
        shelf.have_read(number)
        self._crowded -= shelf.is_empty and not was_empty
        self._look_at(shelf)

    def page_of(self, shelf: Shelf, most: int) -> int:
        """How many tasks are read from a shelf at once, `most` of them at most."""
        return max(1, min(most, self.share - shelf.waiting))

    def waiting_for(self, role: str | None) -> int:
        """How many shelved tasks are of a role."""
        return sum(one.count for lane, one in self._shelves.items() if lane.role == role)

    def has_up_to(self, number: int) -> bool:
        """Whether a task accepted as `number` or before may be shelved.

        Where that is not known, it is once more tasks of the lane have been read.
        """
        return any(not one.is_empty and one.read_to < number for one in self._shelves.values())

    def count_up_to(self, number: int) -> int:
        """How many tasks accepted as `number` or before are shelved, at most."""
        return sum(shelf.count_up_to(number) for shelf in self._shelves.values())

    def _shelf(self, lane: Lane) -> Shelf:
        shelf = self._shelves.get(lane)
        if shelf is None:
            shelf = self._shelves[lane] = Shelf(lane)
        return shelf

    def _shelf_of(self, task: AcceptedTask) -> Shelf | None:
        lane = lane_of(task)
        return None if lane is None else self._shelves.get(lane)

    def _has_room(self, shelf: Shelf) -> bool:
        if shelf.waiting < self.fewest:
            return True
        return self._waiting < self.most and shelf.waiting < self.share

    def _look_at(self, shelf: Shelf) -> None:
        """Have more of it read, or forget it, or neither."""
        if self.is_low(shelf):
            self.on_low(shelf)
        elif not shelf.waiting and shelf.is_empty and not shelf.is_being_read:
            del self._shelves[shelf.lane]
