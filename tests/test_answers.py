"""What became of notices: told once to a dispatcher that lives, again to one that comes after."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from raypool.answers import Answers
from raypool.messages import Notice, Outcome


def answered(answers: Answers, *numbers: int) -> None:
    for number in numbers:
        outcome: Future[Outcome] = Future()
        answers.expect(Notice(number, "event"), outcome)
        outcome.set_result(Outcome(number))


def numbers_of(outcomes: list[Outcome]) -> list[int]:
    return [outcome.number for outcome in outcomes]


def test_each_outcome_is_taken_once() -> None:
    answers = Answers()

    answered(answers, 1, 2)
    first = answers.take()
    answered(answers, 3)

    assert numbers_of(first) == [1, 2]
    assert numbers_of(answers.take()) == [3]


def test_what_was_taken_last_is_told_again_to_another_who_asks() -> None:
    answers = Answers()
    answered(answers, 1)
    answers.take()
    answered(answers, 2)
    answers.take()

    notices = answers.begin_again()

    assert [notice.number for notice in notices] == [2]
    assert numbers_of(answers.take()) == [2]


def test_another_who_asks_is_told_of_notices_that_have_no_outcome_yet() -> None:
    answers = Answers()
    outcome: Future[Outcome] = Future()
    answers.expect(Notice(1, {"what": "an event"}), outcome)

    assert answers.begin_again() == [Notice(1, {"what": "an event"})]
    outcome.set_result(Outcome(1))
    assert numbers_of(answers.take()) == [1]


def test_who_waits_gets_nothing_once_another_asks() -> None:
    answers = Answers()
    taken: list[list[Outcome]] = []
    waiting = threading.Thread(target=lambda: taken.append(answers.take()))
    waiting.start()

    while waiting.is_alive():
        answers.begin_again()
        waiting.join(0.01)

    assert taken == [[]]
