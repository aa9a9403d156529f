"""The line before a worker: its order, whatever comes back and whatever drops out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.line import Line
from raypool.messages import Assignment
from raypool.records import AcceptedTask
from raypool.retries import Tries
from raypool.task_record import TaskRecord
from raypool.usage import Usage


def record(number: int) -> TaskRecord:
    return TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))


def line_of(*numbers: int) -> tuple[Line, dict[int, TaskRecord]]:
    """A line with `numbers`, and its tasks by number."""
    line = Line()
    records = {number: record(number) for number in numbers}
    for one in records.values():
        line.add(one)
    return line, records


def numbers(records: list[TaskRecord]) -> list[int]:
    return [one.number for one in records]


def end(line: Line, record: TaskRecord) -> None:
    """What a cancellation does to a task in line."""
    record.has_ended = True
    line.discard(record)


def test_tasks_leave_in_the_order_in_which_they_came() -> None:
    line, _ = line_of(1, 2, 3, 4)

    assert numbers(line.take(3)) == [1, 2, 3]
    assert numbers(line.take(3)) == [4]
    assert line.take(3) == []


def test_task_that_comes_back_takes_the_place_it_had() -> None:
    line, _ = line_of(1, 2, 3, 4)
    first, second, _ = line.take(3)

    line.add(second)
    line.add(first)

    assert numbers(line.clear()) == [1, 2, 4]


def test_task_added_after_younger_ones_takes_the_place_of_its_number() -> None:
    line, _ = line_of(5, 6)

    line.add(record(2))

    assert numbers(line.clear()) == [2, 5, 6]


def test_ended_tasks_are_not_taken() -> None:
    line, records = line_of(1, 2, 3, 4)

    end(line, records[1])
    end(line, records[3])

    assert len(line) == 2
    assert numbers(line.take(2)) == [2, 4]


def test_ended_task_among_those_that_came_back_is_not_taken() -> None:
    line, records = line_of(1, 2, 3)
    for one in line.take(2):
        line.add(one)

    end(line, records[1])

    assert not line.has_up_to(1)
    assert numbers(line.clear()) == [2, 3]


def test_taking_nothing_leaves_the_line_as_it_is() -> None:
    line, _ = line_of(1)

    assert line.take(0) == []
    assert line.take(-3) == []
    assert len(line) == 1


def test_cleared_line_is_empty() -> None:
    line, _ = line_of(1, 2)

    assert numbers(line.clear()) == [1, 2]
    assert len(line) == 0
    assert line.first() is None


def test_only_ended_tasks_are_discarded() -> None:
    line, records = line_of(1)

    with pytest.raises(AssertionError):
        line.discard(records[1])


def test_first_in_line_is_the_one_that_is_taken_next() -> None:
    line, records = line_of(1, 2, 3)
    assert line.first() is records[1]

    line.take(2)
    line.add(records[2])
    assert line.first() is records[2]
    end(line, records[2])
    assert line.first() is records[3]
    end(line, records[3])
    assert line.first() is None


def test_assignment_says_all_that_the_worker_must_know() -> None:
    task = AcceptedTask(
        7, "a", "why?", "chemist", {"row": 1}, 5.0, "user-42", "crew-1", "sha256:abc"
    )
    one = TaskRecord(task)
    one.tries = Tries(turn=2, attempts=2, earlier=1, refused_seconds=900.0)
    one.session_turns, one.streams = 4, True

    assert one.assignment() == Assignment(
        number=7,
        id="a",
        prompt="why?",
        attempt=3,
        role="chemist",
        metadata={"row": 1},
        timeout=5.0,
        session="user-42",
        session_turns=4,
        output_type="sha256:abc",
        streams=True,
        may_wait=False,
    )


@given(
    spent=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=5
    )
)
def test_spendings_are_summed_and_an_unknown_cost_makes_the_sum_unknown(
    spent: list[tuple[int, int, int | None]],
) -> None:
    one = record(1)

    for tokens_in, tokens_out, cost in spent:
        one.spend(Usage(tokens_in, tokens_out), cost)

    costs = [cost for _, _, cost in spent]
    assert one.usage == Usage(sum(one[0] for one in spent), sum(one[1] for one in spent))
    assert one.cost_usd == (None if None in costs else sum(cost or 0 for cost in costs))


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "put back", "end"]), st.integers(0))))
def test_any_history_leaves_the_line_in_the_order_of_numbers(
    history: list[tuple[str, int]],
) -> None:
    line = Line()
    waiting: dict[int, TaskRecord] = {}
    away: list[TaskRecord] = []
    for step, (action, chance) in enumerate(history):
        if action == "add":
            waiting[step] = record(step)
            line.add(waiting[step])
        elif action == "take":
            taken = line.take(chance % 3)
            assert numbers(taken) == sorted(waiting)[: chance % 3]
            away += [waiting.pop(one.number) for one in taken]
        elif action == "put back" and away:
            back = away.pop(chance % len(away))
            waiting[back.number] = back
            line.add(back)
        elif action == "end" and waiting:
            end(line, waiting.pop(sorted(waiting)[chance % len(waiting)]))
        assert len(line) == len(waiting)
        first = min(waiting, default=None)
        assert line.has_up_to(step) == (first is not None)
        assert first is None or not line.has_up_to(first - 1)

    assert numbers(line.clear()) == sorted(waiting)
