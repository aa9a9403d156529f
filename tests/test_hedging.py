"""When a second copy of a running task is due, and how many there may be."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.clock import FakeClock
from raypool.hedging import CREDIT_TURNS, After, Hedging
from raypool.quantiles import FEWEST_VALUES
from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord
from raypool.window import Window


class Crew:
    """Workers of which some are sent tasks, with a clock.

    Attributes:
        a, b, other: two chemists and a historian.
        is_hedged: some share of the turns may be copies.
    """

    def __init__(
        self, *, after: After | None = 2.0, share: float = 1.0, concurrency: int = 1
    ) -> None:
        self.clock = FakeClock(start=1_000.0)
        self.hedging = Hedging(self.clock, after=after, share=share)
        window = partial(Window, concurrency)
        self.a = WorkerRecord("crew-1", "chemist", window)
        self.b = WorkerRecord("crew-2", "chemist", window)
        self.other = WorkerRecord("crew-3", "historian", window)
        self.is_hedged = share > 0
        self._last = 0

    def send(self, worker: WorkerRecord, *records: TaskRecord) -> None:
        for record in records:
            worker.held[record.number] = record
        self.hedging.sent(worker, records)

    def tasks(self, count: int = 1, *, streams: bool = False, **options: Any) -> list[TaskRecord]:
        records = []
        for _ in range(count):
            self._last += 1
            task = AcceptedTask(self._last, f"task-{self._last}", "why?", **options)
            record = TaskRecord(task)
            record.streams = streams
            records.append(record)
        return records

    def end(
        self, worker: WorkerRecord, record: TaskRecord, *, has_run: bool = True
    ) -> float | None:
        del worker.held[record.number]
        return self.hedging.left(worker, record.number, has_run=has_run)

    def run(self, worker: WorkerRecord, seconds: float) -> None:
        """Have a worker answer a task in so many seconds."""
        [record] = self.tasks()
        self.send(worker, record)
        self.clock.advance(seconds)
        self.end(worker, record)

    def late(self, role: str = "chemist", *, after: float = 0.0) -> list[TaskRecord]:
        """What is late in so many seconds."""
        self.clock.advance(after)
        self.hedging.look()
        return [run.record for run in self.hedging.late(role)]

    def copy(self, *workers: WorkerRecord) -> list[tuple[TaskRecord, WorkerRecord]]:
        """Have free ones of these workers be sent copies of what is late; which, and who."""
        copies = []
        for run, worker in self.hedging.matches(workers):
            worker.held[run.record.number] = run.record
            self.hedging.copied(run, worker)
            copies.append((run.record, worker))
        return copies


def test_turn_is_late_when_it_has_run_for_so_long() -> None:
    crew = Crew(after=2.0)
    [record] = crew.tasks()
    crew.send(crew.a, record)

    assert crew.late(after=1.9) == []
    assert crew.hedging.look() == pytest.approx(0.1)
    assert crew.late(after=0.1) == [record]
    assert crew.late("historian") == []
    assert crew.hedging.look() is None


def test_time_is_counted_from_when_the_turn_begins_not_from_when_it_is_sent() -> None:
    crew = Crew(after=2.0)
    first, second = crew.tasks(2)
    crew.send(crew.a, first, second)
    crew.clock.advance(1.5)

    crew.end(crew.a, first)

    assert crew.late(after=1.9) == []
    assert crew.late(after=0.1) == [second]


def test_as_many_turns_run_at_once_as_the_worker_has_slots() -> None:
    crew = Crew(after=2.0, concurrency=2)
    records = crew.tasks(4)
    crew.send(crew.a, *records)

    assert crew.late(after=2.0) == records[:2]
    crew.end(crew.a, records[1])
    assert crew.late() == records[:1]
    assert crew.late(after=2.0) == [records[0], records[2]]


def test_task_that_was_dropped_while_it_waited_takes_no_slot() -> None:
    crew = Crew(after=2.0)
    first, dropped, third = crew.tasks(3)
    crew.send(crew.a, first, dropped, third)

    assert crew.end(crew.a, dropped, has_run=False) is None
    assert crew.end(crew.a, first) == 0.0

    assert crew.late(after=2.0) == [third]


def test_task_says_when_it_is_late_before_the_pool_does() -> None:
    crew = Crew(after=2.0)
    [patient], [usual], [hasty] = (
        crew.tasks(hedge_after=9.0),
        crew.tasks(),
        crew.tasks(hedge_after=0.5),
    )
    for worker, record in ((crew.a, patient), (crew.b, usual), (crew.other, hasty)):
        crew.send(worker, record)

    assert crew.hedging.look() == pytest.approx(0.5)
    assert crew.late("historian", after=0.5) == [hasty]
    assert crew.late(after=1.5) == [usual]
    assert crew.late(after=7.0) == [usual, patient]


def test_task_alone_may_ask_for_it_while_others_run() -> None:
    crew = Crew(after=None)
    first, second = crew.tasks(2)
    crew.send(crew.a, first, second)
    [hedged] = crew.tasks(hedge_after=1.0)
    crew.send(crew.a, hedged)

    assert crew.late(after=5.0) == []
    crew.end(crew.a, first)
    assert crew.late(after=5.0) == []
    crew.end(crew.a, second)
    assert crew.late(after=1.0) == [hedged]


def test_nothing_is_late_where_nobody_asked_for_it() -> None:
    crew = Crew(after=None)
    crew.send(crew.a, *crew.tasks(3))

    assert crew.late(after=1e6) == []
    assert crew.hedging.look() is None


@pytest.mark.parametrize(
    "options",
    [{"session": "s"}, {"race": "r"}, {"worker": "crew-1"}, {"streams": True}],
    ids=lambda options: next(iter(options)),
)
def test_task_that_is_bound_is_not_hedged(options: dict[str, Any]) -> None:
    crew = Crew(after=2.0)
    crew.send(crew.a, *crew.tasks(**options))

    assert crew.late(after=100.0) == []


def test_turn_has_one_copy_which_has_none() -> None:
    crew = Crew(after=2.0)
    [record] = crew.tasks()
    crew.send(crew.a, record)
    assert crew.late(after=2.0) == [record]

    assert crew.copy(crew.a, crew.b) == [(record, crew.b)]

    assert crew.late(after=100.0) == []
    assert crew.end(crew.b, record) == 100.0
    assert crew.end(crew.a, record) == 102.0


def test_turn_that_has_ended_or_whose_worker_has_died_is_not_late() -> None:
    crew = Crew(after=2.0)
    first, second = crew.tasks(2)
    crew.send(crew.a, first)
    crew.send(crew.b, second)
    assert crew.late(after=2.0) == [first, second]

    crew.end(crew.a, first)
    crew.hedging.lost(crew.b)

    assert crew.late() == []
    assert crew.hedging.left(crew.b, second.number, has_run=False) is None


def test_percentile_counts_the_turns_of_a_role_once_there_are_enough() -> None:
    crew = Crew(after="p95")
    for seconds in range(1, FEWEST_VALUES):
        crew.run(crew.a, float(seconds))
    [early] = crew.tasks()
    crew.send(crew.b, early)
    assert crew.late(after=1_000.0) == []
    assert crew.hedging.look() is None

    crew.run(crew.a, float(FEWEST_VALUES))
    assert crew.late() == [early]

    [record] = crew.tasks()
    crew.send(crew.a, record)
    assert crew.late(after=18.9) == [early]
    assert crew.late(after=0.1) == [early, record]
    crew.send(crew.other, *crew.tasks())
    assert crew.late("historian", after=1e6) == []


def test_percentile_follows_the_turns() -> None:
    crew = Crew(after="p50")
    for _ in range(FEWEST_VALUES):
        crew.run(crew.a, 10.0)
    for _ in range(2 * FEWEST_VALUES):
        crew.run(crew.a, 1.0)
    [record] = crew.tasks()
    crew.send(crew.b, record)

    assert crew.late(after=0.9) == []
    assert crew.late(after=0.1) == [record]


def test_turn_that_did_not_come_to_its_end_does_not_count_into_the_percentile() -> None:
    crew = Crew(after="p50")
    for _ in range(FEWEST_VALUES - 1):
        crew.run(crew.a, 1.0)
    [failed], [record] = crew.tasks(), crew.tasks()
    crew.send(crew.a, failed)
    crew.end(crew.a, failed, has_run=False)
    crew.send(crew.b, record)

    assert crew.late(after=100.0) == []


def test_copy_goes_to_a_free_worker_of_the_same_role_alone() -> None:
    crew = Crew(after=2.0)
    late, busy = crew.tasks(2)
    crew.send(crew.a, late)
    crew.clock.advance(2.0)
    crew.send(crew.b, busy)
    assert crew.late() == [late]

    assert crew.copy(crew.a, crew.b, crew.other) == []
    crew.end(crew.b, busy)
    crew.b.halted = "for review"
    assert crew.copy(crew.b) == []
    crew.b.halted = None
    crew.b.is_leaving = True
    assert crew.copy(crew.b) == []
    crew.b.is_leaving = False
    [waiting] = crew.tasks()
    crew.b.line.add(waiting)
    assert crew.copy(crew.b) == []
    crew.b.line.take(1)
    assert crew.copy(crew.b) == [(late, crew.b)]


def test_what_is_late_first_is_copied_first_and_each_once() -> None:
    crew = Crew(after=2.0, concurrency=4)
    records = crew.tasks(3)
    for record in records:
        crew.send(crew.a, record)
        crew.clock.advance(1.0)
    assert crew.late(after=5.0) == records

    assert crew.copy(crew.b, crew.b) == [(records[0], crew.b), (records[1], crew.b)]
    assert crew.late() == records[2:]


def test_no_more_is_copied_than_the_share_allows() -> None:
    crew = Crew(after=2.0, share=0.05, concurrency=4)
    records = crew.tasks(3)
    crew.send(crew.a, *records)
    assert crew.late(after=5.0) == records

    assert crew.copy(crew.b, crew.b, crew.b) == [(records[0], crew.b)]
    assert not crew.hedging.may_copy


def hedge_everything(crew: Crew, turns: int) -> int:
    """Have a worker run turns that are all late; how many may be copied."""
    copies = 0
    for record in crew.tasks(turns):
        crew.send(crew.a, record)
        assert crew.late(after=10.0) == [record][: crew.is_hedged]
        if crew.copy(crew.b):
            crew.end(crew.b, record)
            copies += 1
        crew.end(crew.a, record)
    return copies


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.05, 11), (0.5, 101), (1.0, 200)])
def test_copies_are_a_share_of_the_turns_and_one_more(share: float, most: int) -> None:
    assert hedge_everything(Crew(share=share), 200) == most


def test_what_was_not_used_of_the_share_is_kept_for_so_many_turns_alone() -> None:
    crew = Crew(share=0.05)
    for _ in range(10 * CREDIT_TURNS):
        crew.run(crew.a, 0.1)

    assert hedge_everything(crew, 100) in (54, 55)


@given(st.lists(st.booleans(), max_size=200), st.floats(0, 1))
def test_there_are_never_more_copies_than_the_share_allows(turns: list[bool], share: float) -> None:
    crew = Crew(share=share)
    copies = 0
    for count, is_late in enumerate(turns, start=1):
        if is_late:
            copies += hedge_everything(crew, 1)
        else:
            crew.run(crew.a, 0.1)

        assert copies <= 1 + share * count + 1e-6
