"""What stays in memory, and what waits in the ledger until there is room."""

from __future__ import annotations

from typing import Any

from raypool.lane import Lane, lane_of
from raypool.records import AcceptedTask
from raypool.shelf import Shelf
from raypool.shelves import Shelves
from raypool.task_record import TaskRecord

LANE = Lane()


def record(number: int, ticket: int | None = None, **asked: Any) -> TaskRecord:
    one = TaskRecord(AcceptedTask(number, f"task-{number}", "why?", **asked))
    one.watchers.append(("mine", number if ticket is None else ticket))
    return one


class Told:
    """Shelves with the tasks that they have let in.

    Attributes:
        low: the lanes of the shelves that more should be read from, as they were told.
        inside: the records in memory.
    """

    def __init__(self, most: int = 4, fewest: int = 2) -> None:
        self.shelves = Shelves(most, fewest)
        self.low: list[Shelf] = []
        self.shelves.on_low = self.low.append
        self.inside: dict[int, TaskRecord] = {}

    def accept(self, *numbers: int, **asked: Any) -> list[int]:
        """Those of the numbers that are shelved."""
        return [n for n in numbers if not self._enter(record(n, **asked))]

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.shelves.leave(self.inside.pop(number))

    def _enter(self, one: TaskRecord) -> bool:
        if self.shelves.put(one):
            return False
        self.shelves.enter(one)
        self.inside[one.number] = one
        return True


def test_lane_is_what_tasks_that_wait_for_one_another_have_in_common() -> None:
    assert lane_of(record(1, role="chemist", tenant="a", priority=3).task) == Lane(
        "chemist", "a", 3
    )
    assert lane_of(record(1, session="chat").task) is None
    assert lane_of(record(1, race="race").task) is None
    assert lane_of(record(1, worker="crew-1").task) is None


def test_what_exceeds_the_room_is_shelved_and_all_that_comes_after_it() -> None:
    told = Told()

    assert told.accept(*range(1, 8)) == [5, 6, 7]
    told.end(1, 2)

    assert told.accept(8) == [8]
    assert told.shelves.count == 4


def test_lanes_share_the_room_and_each_has_some() -> None:
    told = Told(most=4, fewest=2)

    assert told.accept(1, 2, 3, tenant="a") == []
    assert told.accept(4, 5, 6, tenant="b") == [6]
    assert told.accept(7, 8, 9, tenant="c") == [9]
    assert told.accept(10, tenant="a") == [10]


def test_cancelled_and_bound_tasks_are_not_shelved() -> None:
    told = Told()
    told.accept(*range(1, 8))
    cancelled = record(8)
    cancelled.is_cancelled = True

    assert not told.shelves.put(cancelled)
    assert not told.shelves.put(record(9, session="chat"))


def test_shelf_is_low_once_less_than_half_of_the_room_is_used() -> None:
    told = Told()
    told.accept(*range(1, 8))

    told.end(1, 2)
    assert told.low == []
    told.end(3)
    assert [shelf.lane for shelf in told.low] == [LANE]


def test_nothing_is_low_while_a_page_is_on_its_way_but_may_be_after_it() -> None:
    told = Told()
    told.accept(*range(1, 20))
    told.end(1, 2, 3)
    [shelf] = told.low
    shelf.begin_to_read()

    told.end(4)
    assert told.low == [shelf]
    told.shelves.have_read(shelf, 5)
    assert told.low == [shelf, shelf]


def test_shelf_that_an_earlier_run_has_left_holds_all_up_to_its_last_number() -> None:
    shelves = Shelves(4, 2)
    shelves.fill({LANE: 3, Lane("chemist"): 1}, 9)

    assert shelves.count == 4
    assert len(shelves.all_low()) == 2
    assert shelves.holds(record(9).task)
    assert not shelves.holds(record(10).task)
    assert shelves.waiting_for("chemist") == 1
    assert not shelves.put(record(10, role="historian"))


def test_task_that_is_taken_has_its_watchers_and_is_shelved_no_more() -> None:
    told = Told()
    told.accept(*range(1, 8))
    again = TaskRecord(record(6).task)

    assert told.shelves.watch(again.task, ("yours", 1))
    told.shelves.take(again)

    assert again.watchers == [("mine", 6), ("yours", 1)]
    assert not told.shelves.holds(again.task)
    assert not told.shelves.watch(again.task, ("yours", 2))
    assert told.shelves.count == 2


def test_number_that_comes_late_goes_on_in_memory_and_is_never_read() -> None:
    told = Told()
    told.accept(1, 2, 3, 4, 7, 8)

    assert told.accept(6) == []
    assert not told.shelves.holds(record(6).task)
    assert told.shelves.holds(record(7).task)


def test_task_that_was_given_up_is_never_read() -> None:
    told = Told()
    told.accept(*range(1, 8))

    told.shelves.give_up(record(8))
    told.accept(9)

    assert not told.shelves.holds(record(8).task)
    assert told.shelves.holds(record(9).task)


def test_what_went_on_in_memory_is_not_read_once_the_shelf_was_empty() -> None:
    shelf = Shelf(LANE)
    shelf.put(5, ("mine", 5), streams=False)
    shelf.pass_by(9)
    shelf.begin_to_read()
    shelf.have_read(5)
    assert shelf.is_empty

    shelf.put(10, ("mine", 10), streams=False)

    assert not shelf.holds(9)
    assert shelf.holds(10)


def test_shelf_whose_tasks_have_all_ended_is_empty_after_a_page_of_none() -> None:
    shelf = Shelf(LANE)
    for number in (5, 6):
        shelf.put(number, ("mine", number), streams=False)
    shelf.take(5)
    shelf.take(6)
    shelf.begin_to_read()
    shelf.put(7, ("mine", 7), streams=False)

    shelf.have_read(None)

    assert shelf.holds(7)
    assert shelf.count == 1
    shelf.begin_to_read()
    shelf.have_read(7)
    assert shelf.is_empty


def test_lane_without_tasks_is_forgotten() -> None:
    told = Told()
    told.accept(1, tenant="a")
    told.accept(2, tenant="b")

    told.end(1)

    assert len(told.shelves) == 1


def test_lane_that_is_large_has_the_room_that_many_small_ones_leave() -> None:
    told = Told(most=100, fewest=2)
    for number in range(1, 41):
        told.accept(number, tenant=f"tenant {number}")

    assert len(told.accept(*range(41, 141))) == 40
    assert told.shelves.share == 100


def test_task_that_was_sent_and_ends_counts_once() -> None:
    told = Told()
    told.accept(*range(1, 8))
    [one] = [told.inside[1]]

    for _ in range(3):
        told.shelves.leave(one)

    assert told.low == []
    told.end(2, 3)
    assert len(told.low) == 1


def test_how_many_wait_up_to_a_number_is_never_said_to_be_too_few() -> None:
    told = Told()
    told.accept(*range(1, 11))

    assert [told.shelves.count_up_to(n) for n in (4, 5, 7, 10, 99)] == [0, 1, 3, 6, 6]
    assert [told.shelves.has_up_to(n) for n in (4, 5, 99)] == [False, True, True]
