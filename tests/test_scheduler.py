"""The scheduler: what it says to do after each thing that it is told."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from raypool.backlog import TaskRecord
from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.events import Verdict
from raypool.messages import Answer, Failure, Outcome
from raypool.records import AcceptedTask, Ending, StoredCause
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.usage import Usage
from raypool.window import Window

POLICY = RetryPolicy(max_attempts=3, initial_seconds=1.0, max_seconds=8.0)
LONGEST_WAIT = 8.0


class Stage:
    """A scheduler with its clock and its workers at hand.

    Attributes:
        a, b: the first two workers.
    """

    def __init__(
        self, roles: Iterable[str] = ("chemist", "chemist"), *, concurrency: int = 1
    ) -> None:
        self.clock = FakeClock(start=1_000.0)
        self.workers = [
            WorkerRecord(f"crew-{number}", role, Window(concurrency))
            for number, role in enumerate(roles, start=1)
        ]
        self.scheduler = Scheduler(Roster(self.workers), RoundRobin(), Retries(POLICY), self.clock)
        self.a, self.b = self.workers[0], self.workers[-1]

    def reserve(self, number: int, role: str | None = None) -> TaskRecord:
        record = TaskRecord(AcceptedTask(number, f"task-{number}", "why?", role))
        self.scheduler.reserve(record)
        return record

    def accept(self, *numbers: int, role: str | None = None) -> list[TaskRecord]:
        """Tasks that are committed and were given to a worker."""
        records = [self.reserve(number, role) for number in numbers]
        for record in records:
            assert self.scheduler.assign(record) is None
        return records

    def take(self, worker: WorkerRecord) -> list[int]:
        return [record.number for record in self.scheduler.take(worker)]

    def fail(
        self,
        worker: WorkerRecord,
        number: int,
        verdict: Verdict = "transient",
        retry_after: float | None = None,
    ) -> Ending | None:
        """Have an attempt fail; the task's ending when it was the last."""
        failure = Failure("BackendError", verdict, "Error", "no", 12.5, retry_after)
        settled = self.scheduler.settle(worker, Outcome(number, failure=failure))
        return settled[1] if settled else None

    def answer(self, worker: WorkerRecord, number: int) -> Ending | None:
        settled = self.scheduler.settle(worker, Outcome(number, Answer("42", Usage(1, 2), 7.5)))
        return settled[1] if settled else None

    def wait(self, seconds: float) -> list[Ending]:
        """Let time pass; what ended because of it."""
        self.clock.advance(seconds)
        ended, _ = self.scheduler.wake()
        return [ending for _, ending in ended]


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
    answer = Answer("42", Usage(1, 2), 7.5, "model", "end_turn", "session", 0.25)

    settled = stage.scheduler.settle(stage.a, Outcome(1, answer))

    assert settled == (
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


def test_task_refused_for_too_long_fails_with_that_cause_and_closes_nothing(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.take(stage.a)

    ending = stage.fail(stage.a, 1, "refused", retry_after=3_600.0)

    assert ending is not None
    assert (ending.state, ending.attempts) == ("failed", 0)
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
    settled = stage.scheduler.settle(stage.a, Outcome(1))

    assert settled is not None
    assert settled[1].state == "cancelled"


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


def test_dead_workers_held_tasks_fail_and_its_line_goes_to_the_others(stage: Stage) -> None:
    stage.accept(*range(1, 11))
    stage.take(stage.a)

    ended = stage.scheduler.worker_died(stage.a, "it was killed")

    assert [(record.number, ending.state) for record, ending in ended] == [
        (1, "failed"),
        (3, "failed"),
        (5, "failed"),
    ]
    assert {ending.attempts for _, ending in ended} == {1}
    assert {ending.cause for _, ending in ended} == {
        StoredCause("WorkerDied", "WorkerDied", "it was killed")
    }
    assert stage.take(stage.a) == []
    assert stage.take(stage.b) == [2, 4, 6]
    for number in (2, 4, 6):
        stage.answer(stage.b, number)
    assert stage.take(stage.b) == [7, 8, 9]


def test_cancelled_task_whose_worker_died_is_cancelled(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    [(_, ending)] = stage.scheduler.worker_died(stage.a, "it was killed")

    assert ending.state == "cancelled"


def test_late_outcome_of_a_dead_worker_changes_nothing(stage: Stage) -> None:
    stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.worker_died(stage.a, "it was killed")

    assert stage.answer(stage.a, 1) is None


def test_task_that_waits_as_its_worker_dies_comes_back_on_another(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.fail(stage.a, 1)

    assert stage.scheduler.worker_died(stage.a, "it was killed") == []
    assert stage.wait(LONGEST_WAIT) == []

    assert stage.take(stage.b) == [1]
    assert record.worker == "crew-2"
    assert stage.a.unfinished == 0


def test_tasks_fail_when_the_last_worker_of_their_role_has_died() -> None:
    stage = Stage(["chemist", "historian"])
    stage.accept(1, 2, role="historian")
    stage.accept(3, role="chemist")
    waiting = stage.scheduler.take(stage.b)[0]
    stage.fail(stage.b, waiting.number)

    ended = stage.scheduler.worker_died(stage.b, "it was killed")
    late = stage.wait(LONGEST_WAIT)
    fresh = stage.scheduler.assign(stage.reserve(4, role="historian"))

    assert [record.number for record, _ in ended] == [2]
    assert [ending.number for ending in late] == [1]
    assert fresh is not None
    assert fresh.worker is None
    for ending in (*late, fresh):
        assert ending.cause is not None
        assert ending.cause.kind == "WorkerDied"
        assert ending.cause.message == (
            "every worker with the role 'historian' of the pool has died"
        )
    assert stage.take(stage.a) == [3]


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


def test_attempts_sent_to_a_worker_are_counted(stage: Stage) -> None:
    stage.accept(1, 2, 3)
    stage.take(stage.a)
    stage.fail(stage.a, 1)
    stage.wait(LONGEST_WAIT)
    stage.take(stage.a)

    assert stage.a.sent == 3
