"""A gate for tests: it lets so many tasks through at a time, and watches what is settled."""

from __future__ import annotations

from raypool.capacity.gate import Reservation
from raypool.messages import Outcome
from raypool.task_record import TaskRecord


class Slot(Reservation):
    """Room for one task that is on its way.

    Attributes:
        number: the task's.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class NarrowGate:
    """Lets `room` tasks through, and others only once those are settled.

    Attributes:
        room: how many may pass now.
        out: what is set aside.
        settled: what was told of each attempt, in order.
    """

    is_wide_open = False
    is_broken = False
    why = None

    def __init__(self, room: int) -> None:
        self.room = room
        self.out: list[Slot] = []
        self.settled: list[tuple[int, Outcome | None]] = []

    def reserve(self, record: TaskRecord) -> bool:
        assert record.reserved is None, "it is set aside already"
        if self.room < 1:
            return False
        self.room -= 1
        record.reserved = slot = Slot(record.number)
        self.out.append(slot)
        return True

    def hold(self, record: TaskRecord) -> None:
        self.room -= 1
        record.reserved = slot = Slot(record.number)
        self.out.append(slot)

    def opens_in(self) -> float | None:
        return None

    def wake(self) -> None:
        return None

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        assert isinstance(record.reserved, Slot)
        self.out.remove(record.reserved)
        self.settled.append((record.number, outcome))
        self.room += 1
