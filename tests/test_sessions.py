"""Sessions: one task at a time, in order, on the worker that has the conversation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.messages import Outcome
from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.sessions import Sessions
from raypool.task_record import TaskRecord
from tests.stage import LONGEST_WAIT, Stage


def record(number: int, session: str = "user-42") -> TaskRecord:
    return TaskRecord(AcceptedTask(number, f"task-{number}", "why?", session=session))


@pytest.fixture
def stage() -> Stage:
    """Three workers."""
    return Stage(["chemist"] * 3)


def take_all(stage: Stage) -> list[int]:
    return [number for worker in stage.workers for number in stage.take(worker)]


def holder(stage: Stage, number: int) -> WorkerRecord:
    return next(worker for worker in stage.workers if number in worker.held)


def test_next_task_of_a_session_goes_once_the_end_of_the_one_before_is_recorded(
    stage: Stage,
) -> None:
    stage.accept(1, 2, session="user-42")

    assert take_all(stage) == [1]
    stage.answer(stage.a, 1)
    assert take_all(stage) == []
    stage.release(1)
    assert take_all(stage) == [2]


def test_session_stays_with_the_worker_that_has_it(stage: Stage) -> None:
    stage.accept(1, session="user-42")
    for number in range(2, 8):
        stage.accept(number, session="user-42")
        assert stage.take(stage.a) == [number - 1]
        stage.answer(stage.a, number - 1)
        stage.release(number - 1)

    assert {ending.worker for ending in stage.endings.values()} == {"crew-1"}


def test_session_that_has_rested_goes_on_with_its_worker(stage: Stage) -> None:
    stage.accept(1, session="user-42")
    stage.take(stage.a)
    stage.answer(stage.a, 1)
    stage.release(1)

    [record] = stage.accept(2, session="user-42")

    assert record.worker == "crew-1"


def test_sessions_run_side_by_side(stage: Stage) -> None:
    for number, session in enumerate(["ann", "bob", "cid", "ann", "bob", "cid"], start=1):
        stage.accept(number, session=session)

    assert take_all(stage) == [1, 2, 3]


def test_each_task_is_told_how_many_its_session_has_behind_it(stage: Stage) -> None:
    stage.scheduler.sessions.add("user-42", 5)
    records = stage.accept(1, 2, 3, session="user-42")
    stage.take(stage.a)
    stage.answer(stage.a, 1)
    stage.release(1)
    stage.take(stage.a)
    stage.fail(stage.a, 2, "invalid")
    stage.release(2)

    assert [record.assignment().session_turns for record in records] == [5, 6, 6]


def test_session_has_not_grown_by_what_the_ledger_does_not_have(stage: Stage) -> None:
    _, second = stage.accept(1, 2, session="user-42")
    stage.take(stage.a)
    stage.answer(stage.a, 1)

    stage.release(1, is_recorded=False)

    assert second.assignment().session_turns == 0
    assert take_all(stage) == [2]


def test_retry_of_a_task_holds_its_session_back(stage: Stage) -> None:
    stage.accept(1, 2, session="user-42")
    take_all(stage)

    stage.fail(stage.a, 1)
    assert take_all(stage) == []
    stage.wait(LONGEST_WAIT)

    assert take_all(stage) == [1]


def test_cancelled_tasks_in_a_sessions_line_are_passed_over(stage: Stage) -> None:
    records = stage.accept(1, 2, 3, 4, session="user-42")
    take_all(stage)
    for cancelled in records[1:3]:
        ending = stage.scheduler.cancel(cancelled)
        assert ending is not None
        stage.scheduler.release(cancelled, has_grown=False)
    assert stage.a.unfinished == 2

    stage.answer(stage.a, 1)
    stage.release(1)

    assert take_all(stage) == [4]


def test_cancelled_first_task_lets_the_next_go(stage: Stage) -> None:
    first, _ = stage.accept(1, 2, session="user-42")
    ending = stage.scheduler.cancel(first)
    assert ending is not None

    stage.scheduler.release(first, has_grown=False)

    assert take_all(stage) == [2]


@pytest.mark.parametrize("event", ["halt", "die"])
def test_session_moves_when_its_worker_halts_or_dies(stage: Stage, event: str) -> None:
    stage.accept(1, 2, 3, session="user-42")
    stage.take(stage.a)
    if event == "halt":
        stage.hand_back(stage.a, 1)
        stage.halt(stage.a)
    else:
        stage.die(stage.a)

    assert take_all(stage) == [1]
    second = holder(stage, 1)
    stage.answer(second, 1)
    stage.release(1)

    assert second is not stage.a
    assert stage.take(second) == [2]
    assert stage.a.unfinished + second.unfinished == 2


def test_session_moves_with_its_next_task_when_the_one_that_runs_ends_on_a_halted_worker(
    stage: Stage,
) -> None:
    _, second = stage.accept(1, 2, session="user-42")
    stage.take(stage.a)
    stage.halt(stage.a)
    stage.answer(stage.a, 1)
    assert second.worker == "crew-1"

    stage.release(1)

    assert second.worker != "crew-1"
    assert stage.a.unfinished == 0
    assert take_all(stage) == [2]


def test_session_stays_with_its_worker_while_no_other_takes_tasks() -> None:
    stage = Stage(["chemist"])
    stage.accept(1, 2, session="user-42")
    stage.take(stage.a)

    stage.die(stage.a)
    stage.come_back(stage.a)

    assert stage.take(stage.a) == [1]


def test_task_of_another_role_takes_its_session_along() -> None:
    stage = Stage(["chemist", "historian"])
    stage.accept(1, session="user-42", role="chemist")
    [second] = stage.accept(2, session="user-42", role="historian")
    stage.take(stage.a)
    stage.answer(stage.a, 1)

    stage.release(1)

    assert second.worker == "crew-2"
    assert stage.take(stage.b) == [2]


def test_tasks_of_a_session_end_one_after_the_other_when_nobody_can_have_them() -> None:
    stage = Stage(["chemist"])
    stage.accept(1, 2, 3, session="user-42")
    stage.die(stage.a)

    ended = [ending.number for ending in stage.give_up(stage.a)]
    for number in (1, 2):
        following = stage.release(number)
        assert following is not None
        ended.append(following.number)

    assert ended == [1, 2, 3]
    assert {ending.state for ending in stage.endings.values()} == {"failed"}


def test_task_that_is_dropped_after_its_cancellation_lets_the_next_go(stage: Stage) -> None:
    first, _ = stage.accept(1, 2, session="user-42")
    take_all(stage)
    stage.scheduler.cancel(first)

    dropped = stage.scheduler.drop(stage.a, 1)
    assert dropped is not None
    stage.scheduler.release(first, has_grown=False)

    assert take_all(stage) == [2]
    assert stage.settle(stage.a, Outcome(1)) is None


def test_sessions_that_rest_are_forgotten_when_they_are_too_many() -> None:
    sessions = Sessions(most_resting=2)

    for number, name in enumerate(["ann", "bob", "cid"], start=1):
        sessions.add(name, number)

    assert [sessions.turns_of(name) for name in ("ann", "bob", "cid")] == [None, 2, 3]


def test_session_with_tasks_is_not_forgotten() -> None:
    sessions = Sessions(most_resting=1)
    sessions.add("user-42", 7)
    first = record(1)
    sessions.enter(first)

    for number in range(10):
        sessions.add(f"other-{number}", 1)

    assert sessions.turns_of("user-42") == 7
    assert sessions.leave(first, has_grown=True) is None
    assert sessions.turns_of("user-42") == 8


def test_session_that_is_known_is_not_told_otherwise() -> None:
    sessions = Sessions()
    sessions.add("user-42", 7)

    sessions.add("user-42", 0)

    assert sessions.turns_of("user-42") == 7


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.booleans()), max_size=40))
def test_any_history_lets_every_task_have_its_turn_in_order(
    history: list[tuple[str, bool]],
) -> None:
    sessions = Sessions()
    current: dict[str, TaskRecord] = {}
    waiting: dict[str, list[int]] = {"ann": [], "bob": []}
    had_their_turn: dict[str, list[int]] = {"ann": [], "bob": []}
    for number, (name, comes) in enumerate(history):
        if comes:
            task = record(number, name)
            if sessions.enter(task):
                assert name not in current
                current[name] = task
            else:
                waiting[name].append(number)
        elif name in current:
            ended = current.pop(name)
            had_their_turn[name].append(ended.number)
            following = sessions.leave(ended, has_grown=True)
            if following is not None:
                assert following.number == waiting[name].pop(0)
                assert following.session_turns == len(had_their_turn[name])
                current[name] = following
        assert (name in current) or not waiting[name]

    for numbers in had_their_turn.values():
        assert numbers == sorted(numbers)
