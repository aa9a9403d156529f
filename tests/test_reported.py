"""What a worker keeps of ended tasks until its dispatcher has dealt with them."""

from __future__ import annotations

from raypool.messages import Assignment, HeldTask, Outcome
from raypool.reported import Reported


def noted(*numbers: int, most: int = 10) -> Reported:
    reported = Reported(most)
    for number in numbers:
        reported.note(Assignment(number, f"task-{number}", "?", attempt=2), Outcome(number))
    return reported


def test_outcome_can_be_had_again_until_it_is_confirmed() -> None:
    reported = noted(1, 2)

    reported.confirm([1, 7])

    assert reported.again(1) is None
    assert reported.again(2) == Outcome(2)
    assert reported.unconfirmed == [HeldTask(2, "task-2", 2)]


def test_task_has_ended_here_also_when_that_is_confirmed() -> None:
    reported = noted(1)

    reported.confirm([1])

    assert 1 in reported
    assert 7 not in reported


def test_only_the_last_ones_are_kept() -> None:
    reported = noted(1, 2, 3, most=2)

    assert [one.number for one in reported.unconfirmed] == [2, 3]
