"""The scheduler: what it says to do after each thing that it is told."""

from __future__ import annotations

import pytest

from raypool.events import Verdict
from raypool.messages import Answer, Failure, Outcome
from raypool.records import Conversation, Ending, StoredCause
from raypool.settling import Decided, Delayed
from raypool.usage import Usage
from tests.stage import LONGEST_WAIT, POLICY, Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_tasks_go_around_the_workers_and_leave_in_their_order(stage: Stage) -> None:
    records = stage.accept(1, 2, 3, 4)

    assert [record.worker for record in records] == ["crew-1", "crew-2"] * 2
    assert stage.take(stage.a) == [1, 3]
    assert stage.take(stage.b) == [2, 4]


def test_worker_holds_what_its_window_allows_and_gets_more_as_it_ends_them(stage: Stage) -> None:
    stage.accept(*range(1, 11))

    assert stage.take(stage.a) == [1, 3, 5]
    assert stage.take(stage.a) == []
    stage.answer(stage.a, 1)
    assert stage.take(stage.a) == [7]


def test_task_of_a_role_goes_to_its_workers_only() -> None:
    stage = Stage(["chemist", "historian"])

    records = stage.accept(1, 2, 3, role="historian")

    assert {record.worker for record in records} == {"crew-2"}


def test_answer_completes_the_task_with_all_it_says(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.clock.advance(2.0)
    answer = Answer("42", 7.5, "model", "end_turn", "session")
    added = Conversation("session", [{"role": "user", "content": "why?"}])
    outcome = Outcome(1, answer, usage=Usage(1, 2), cost_usd=0.25, turns=3, conversation=added)

    settled = stage.scheduler.settle(stage.a, outcome)

    assert settled == Decided(
        record,
        Ending(
            number=1,
            state="completed",
            worker="crew-1",
            attempts=1,
            completed_at=1_002_000,
            duration_ms=7.5,
            text="42",
            usage=Usage(1, 2),
            model="model",
            stop_reason="end_turn",
            session_id="session",
            cost_usd=0.25,
            turns=3,
            conversation=added,
        ),
    )
    assert record.has_ended
    assert (stage.a.completed, stage.a.failed) == (1, 0)


def test_outcome_of_a_task_that_the_worker_does_not_hold_changes_nothing(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.take(stage.a)
    stage.answer(stage.a, 1)

    assert stage.answer(stage.a, 1) is None
    assert stage.answer(stage.a, 2) is None
    assert stage.a.completed == 1
    assert stage.scheduler.unfinished == 2


def test_failed_task_comes_back_first_in_line_after_its_wait(stage: Stage) -> None:
    stage.accept(1, 2, 3, 4, 5, 6, 7, 8, 9)
    stage.take(stage.a)

    assert stage.fail(stage.a, 1) is None
    assert stage.take(stage.a) == [7]
    assert stage.wait(LONGEST_WAIT) == []
    for number in (3, 5):
        stage.answer(stage.a, number)

    assert stage.take(stage.a) == [1, 9]


def test_task_that_waits_holds_no_place_in_its_workers_window(stage: Stage) -> None:
    stage.accept(*range(1, 12))
    stage.take(stage.a)

    for number in (1, 3, 5):
        stage.fail(stage.a, number)

    assert list(stage.a.waiting) == [1, 3, 5]
    assert stage.take(stage.a) == [7, 9, 11]


def test_each_retry_is_another_attempt(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)

    assert record.assignment().attempt == 1
    stage.fail(stage.a, 1)
    stage.wait(LONGEST_WAIT)
    [again] = stage.scheduler.take(stage.a)

    assert again is record
    assert again.assignment().attempt == 2


def test_task_fails_with_its_last_cause_once_its_attempts_are_used_up(stage: Stage) -> None:
    stage.accept(1)
    endings = []
    for _ in range(POLICY.max_attempts):
        stage.take(stage.a)
        endings.append(stage.fail(stage.a, 1))
        stage.wait(LONGEST_WAIT)

    *before, last = endings
    assert before == [None, None]
    assert last is not None
    assert (last.state, last.attempts, last.worker) == ("failed", 3, "crew-1")
    assert last.duration_ms == 12.5
    assert last.cause == StoredCause("BackendError", "Error", "no")
    assert (stage.a.completed, stage.a.failed) == (0, 1)


@pytest.mark.parametrize("verdict", ["invalid", "fatal"])
def test_failure_that_no_attempt_can_mend_ends_the_task(stage: Stage, verdict: Verdict) -> None:
    stage.accept(1)
    stage.take(stage.a)

    ending = stage.fail(stage.a, 1, verdict)

    assert ending is not None
    assert (ending.state, ending.attempts) == ("failed", 1)


def test_refusal_holds_back_the_whole_pool_until_its_wait_is_over(stage: Stage) -> None:
    stage.accept(1, 2, 3, 4)
    stage.take(stage.a)

    stage.fail(stage.a, 1, "refused", retry_after=30.0)

    assert stage.take(stage.b) == []
    stage.wait(29.0)
    assert stage.take(stage.b) == []
    stage.wait(1.0)
    assert stage.take(stage.b) == [2, 4]
    assert stage.take(stage.a) == [1]


def test_shorter_refusal_does_not_open_the_pool_again(stage: Stage) -> None:
    stage.accept(1, 2, 3, 4)
    stage.take(stage.a)

    stage.fail(stage.a, 1, "refused", retry_after=30.0)
    stage.fail(stage.a, 3, "refused", retry_after=10.0)
    stage.wait(20.0)

    assert stage.take(stage.b) == []


def test_refused_task_has_made_no_attempt(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)

    stage.fail(stage.a, 1, "refused", retry_after=1.0)
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    assert record.assignment().attempt == 1


def test_task_refused_for_fifteen_minutes_fails_with_that_cause_and_closes_nothing(
    stage: Stage,
) -> None:
    [record] = stage.accept(1)
    endings = []
    for _ in range(3):
        [again] = stage.scheduler.take(stage.a)
        assert again.assignment().may_wait == (record.tries.refused_seconds < 900.0)
        endings.append(stage.fail(stage.a, 1, "refused", retry_after=450.0))
        stage.wait(450.0)
    stage.accept(2)

    *before, last = endings
    assert before == [None, None]
    assert last is not None
    assert (last.state, last.attempts) == ("failed", 0)
    assert last.cause == StoredCause("BackendError", "Error", "no")
    assert stage.take(stage.b) == [2]


def test_wake_says_when_the_next_task_is_due(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.take(stage.a)
    stage.take(stage.b)
    stage.fail(stage.a, 1, "transient", retry_after=20.0)
    stage.fail(stage.b, 2, "transient", retry_after=10.0)

    assert stage.scheduler.wake() == ([], 10.0)
    stage.clock.advance(10.0)
    assert stage.scheduler.wake() == ([], 10.0)
    stage.clock.advance(10.0)
    assert stage.scheduler.wake() == ([], None)
    assert not stage.scheduler.waits


def test_wake_says_when_the_pool_opens_again_though_nothing_waits(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.fail(stage.a, 1, "refused", retry_after=10.0)
    stage.scheduler.cancel(record)
    stage.clock.advance(4.0)

    assert stage.scheduler.waits
    _, seconds = stage.scheduler.wake()

    assert seconds == 6.0


def test_task_in_line_is_cancelled_at_once(stage: Stage) -> None:
    first, _ = stage.accept(1, 2)

    ending = stage.scheduler.cancel(first)

    assert ending is not None
    assert (ending.state, ending.attempts, ending.worker) == ("cancelled", 0, "crew-1")
    assert stage.take(stage.a) == []
    assert stage.a.unfinished == 0


def test_task_that_waits_for_another_attempt_is_cancelled_at_once(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.fail(stage.a, 1)

    ending = stage.scheduler.cancel(record)

    assert ending is not None
    assert (ending.state, ending.attempts) == ("cancelled", 1)
    assert stage.a.unfinished == 0
    assert stage.wait(LONGEST_WAIT) == []
    assert stage.take(stage.a) == []


def test_cancellation_of_a_task_that_a_worker_holds_ends_by_that_worker(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)

    assert stage.scheduler.cancel(record) is None
    ending = stage.settle(stage.a, Outcome(1))

    assert ending is not None
    assert ending.state == "cancelled"


def test_cancelled_task_that_its_worker_has_dropped_ends_at_once(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    dropped = stage.scheduler.drop(stage.a, 1)

    assert dropped is not None
    assert dropped[0] is record
    assert (dropped[1].state, dropped[1].attempts) == ("cancelled", 0)
    assert stage.a.unfinished == 0
    assert stage.scheduler.drop(stage.a, 1) is None
    assert stage.scheduler.settle(stage.a, Outcome(1)) is None


def test_answer_that_came_before_the_cancellation_is_kept(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    ending = stage.answer(stage.a, 1)

    assert ending is not None
    assert ending.state == "completed"


@pytest.mark.parametrize("verdict", ["transient", "refused", "invalid"])
def test_failure_of_a_cancelled_task_is_its_cancellation(stage: Stage, verdict: Verdict) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    ending = stage.fail(stage.a, 1, verdict)

    assert ending is not None
    assert ending.state == "cancelled"
    assert stage.a.unfinished == 0


def test_task_cancelled_before_it_is_committed_ends_as_it_is_assigned(stage: Stage) -> None:
    record = stage.reserve(1)

    assert stage.scheduler.cancel(record) is None
    ending = stage.scheduler.assign(record)

    assert ending is not None
    assert (ending.state, ending.worker) == ("cancelled", None)
    assert stage.take(stage.a) == []


def test_task_that_has_ended_cannot_be_cancelled(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.answer(stage.a, 1)

    assert stage.scheduler.cancel(record) is None
    assert not record.is_cancelled


def test_task_that_will_be_tried_again_is_told_of_with_its_wait(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    failure = Failure("BackendError", "transient", "Error", "no", retry_after=20.0)

    settled = stage.scheduler.settle(stage.a, Outcome(1, failure=failure))

    assert settled == Delayed(record, failure, 20.0)


def test_tokens_and_dollars_of_all_attempts_are_summed(stage: Stage) -> None:
    stage.accept(1)
    failure = Failure("BackendError", "transient", "Error", "no")
    stage.take(stage.a)
    stage.settle(stage.a, Outcome(1, failure=failure, usage=Usage(1, 2, 3, 4), cost_usd=0.25))
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)
    stage.settle(stage.a, Outcome(1, failure=failure))
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    ending = stage.settle(stage.a, Outcome(1, Answer("42", 7.5), None, Usage(10, 20), 0.5))

    assert ending is not None
    assert (ending.usage, ending.cost_usd) == (Usage(11, 22, 3, 4), 0.75)


@pytest.mark.parametrize("costs", [(None, 0.5), (0.5, None)], ids=["first", "last"])
def test_cost_is_not_known_once_that_of_an_attempt_is_not(
    stage: Stage, costs: tuple[float | None, float | None]
) -> None:
    stage.accept(1)
    stage.take(stage.a)
    failure = Failure("BackendError", "transient", "Error", "no")
    stage.settle(stage.a, Outcome(1, failure=failure, usage=Usage(1, 2), cost_usd=costs[0]))
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    ending = stage.settle(stage.a, Outcome(1, Answer("42", 7.5), cost_usd=costs[1]))

    assert ending is not None
    assert (ending.usage, ending.cost_usd) == (Usage(1, 2), None)


def test_task_that_fails_tells_what_was_spent_on_it(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.take(stage.a)
    stage.take(stage.b)
    failure = Failure("BackendError", "invalid", "Error", "no", answers=["41", "43"])

    paid = Outcome(1, failure=failure, usage=Usage(1, 2), cost_usd=0.25, turns=2)
    spent = stage.settle(stage.a, paid)
    nothing = stage.settle(stage.b, Outcome(2, failure=failure))

    assert spent is not None
    assert (spent.usage, spent.cost_usd, spent.turns) == (Usage(1, 2), 0.25, 2)
    assert spent.answers == ["41", "43"]
    assert nothing is not None
    assert (nothing.usage, nothing.cost_usd) == (Usage(), None)


def test_each_turn_of_a_chain_has_its_attempts(stage: Stage) -> None:
    [record] = stage.accept(1)
    told = []
    for turn in (1, 1, 2, 2, 3):
        stage.take(stage.a)
        told.append(stage.fail(stage.a, 1, turn=turn))
        stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    assert told == [None] * 5
    assert record.assignment().attempt == 2
    ending = stage.answer(stage.a, 1)
    assert ending is not None
    assert ending.attempts == 6


def test_chain_that_starts_anew_gets_no_more_attempts_than_one_that_goes_on(
    stage: Stage,
) -> None:
    stage.accept(1)
    told = []
    for turn in (2, 1, 2):
        stage.take(stage.a)
        told.append(stage.fail(stage.a, 1, turn=turn))
        stage.wait(LONGEST_WAIT)

    assert [ending is None for ending in told] == [True, True, False]


def test_skipped_task_is_cancelled_with_the_reason(stage: Stage) -> None:
    stage.accept(1)
    stage.take(stage.a)

    ending = stage.settle(stage.a, Outcome(1, skipped="seen before"))

    assert ending is not None
    assert ending.state == "cancelled"
    assert ending.cause == StoredCause("TaskCancelled", "Skip", "seen before")


def test_task_that_an_agent_has_asked_for_by_itself_is_its_workers(stage: Stage) -> None:
    record = stage.reserve(1, "chemist")

    stage.scheduler.adopt(stage.b, record)
    ending = stage.answer(stage.b, 1)

    assert ending is not None
    assert (ending.state, ending.worker) == ("completed", "crew-2")
    assert stage.b.completed == 1
    assert stage.b.sent == 0


def test_ended_task_counts_as_unfinished_until_its_ending_is_committed(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.answer(stage.a, 1)

    assert stage.scheduler.unfinished == 1
    assert stage.scheduler.get("task-1") is record
    stage.scheduler.forget(record)
    assert stage.scheduler.unfinished == 0
    assert stage.scheduler.get("task-1") is None


def test_unfinished_tasks_are_counted_by_worker_up_to_a_number(stage: Stage) -> None:
    stage.accept(1, 2, 3, 4, 5)
    stage.reserve(6)

    assert stage.scheduler.unfinished_up_to(4) == {"crew-1": 2, "crew-2": 2}
    assert stage.scheduler.unfinished_up_to(9) == {"crew-1": 3, "crew-2": 2}


def test_worker_has_work_while_a_task_up_to_a_number_is_in_line_held_or_waiting(
    stage: Stage,
) -> None:
    stage.accept(4, 5, 6, 7)
    has_work = stage.scheduler.has_work_up_to

    assert not has_work(stage.a, 3)
    assert has_work(stage.a, 4)
    stage.take(stage.a)
    assert not has_work(stage.a, 3)
    assert has_work(stage.a, 4)
    stage.fail(stage.a, 4)
    assert not has_work(stage.a, 3)
    assert has_work(stage.a, 4)
    stage.wait(LONGEST_WAIT)
    assert has_work(stage.a, 4)
    stage.take(stage.a)
    stage.answer(stage.a, 4)
    assert not has_work(stage.a, 4)
    assert has_work(stage.a, 6)


def test_worker_has_work_while_a_notice_up_to_a_number_is_not_dealt_with(stage: Stage) -> None:
    stage.notify(stage.a, 4)

    assert not stage.scheduler.has_work_up_to(stage.a, 3)
    assert stage.scheduler.has_work_up_to(stage.a, 4)
    assert not stage.scheduler.has_work_up_to(stage.b, 4)


def test_notices_are_unfinished_too(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.notify(stage.b, 3, 4)

    assert stage.scheduler.unfinished_up_to(3) == {"crew-1": 1, "crew-2": 2}
    assert stage.scheduler.unfinished_up_to(2) == {"crew-1": 1, "crew-2": 1}


def test_attempts_sent_to_a_worker_are_counted(stage: Stage) -> None:
    stage.accept(1, 2, 3)
    stage.take(stage.a)
    stage.fail(stage.a, 1)
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    assert stage.a.sent == 3
