"""The scheduler when two workers run one task: the first to answer ends it."""

from __future__ import annotations

import pytest

from raypool.config import RetryPolicy
from raypool.messages import Answer, Failure, Outcome
from raypool.routing import LeastLoaded, NextFree
from raypool.settling import InVain
from raypool.task_record import TaskRecord
from raypool.usage import Usage
from tests.gates import NarrowGate
from tests.stage import LONGEST_WAIT, Stage


class Twins:
    """A task that `crew-1` runs, and a copy of it that `crew-2` runs."""

    def __init__(self, gate: NarrowGate | None = None) -> None:
        self.stage = Stage(["chemist"] * 3, gate=gate)
        self.a, self.b, _ = self.stage.workers
        [self.record] = self.stage.accept(1)
        self.stage.send()
        copy = self.stage.scheduler.copy(self.record, self.b)
        assert copy is not None
        self.copy = copy


@pytest.fixture
def twins() -> Twins:
    return Twins()


def paid(answer: str | None = None, verdict: str | None = None) -> Outcome:
    failure = Failure("BackendError", verdict, "E", "no") if verdict else None  # type: ignore[arg-type]
    given = Answer(answer, 1.0) if answer else None
    return Outcome(1, given, failure, Usage(1, 2), 0.25, is_returned=not (answer or verdict))


def test_copy_is_sent_as_the_same_task(twins: Twins) -> None:
    assert twins.copy.assignment() == twins.record.assignment()
    assert twins.b.held == {1: twins.copy}
    assert (twins.a.unfinished, twins.b.unfinished, twins.b.sent) == (1, 1, 1)


def test_answer_of_the_copy_ends_the_task_on_its_worker(twins: Twins) -> None:
    ending = twins.stage.settle(twins.b, paid("42"))

    assert ending is not None
    assert (ending.state, ending.worker, ending.attempts) == ("completed", "crew-2", 1)
    assert (ending.usage, ending.cost_usd) == (Usage(1, 2), 0.25)
    assert (twins.b.completed, twins.a.completed) == (1, 0)
    assert twins.record.loser == "crew-1"
    assert (twins.a.unfinished, twins.b.unfinished) == (0, 0)


@pytest.mark.parametrize("verdict", [None, "transient", "fatal"])
def test_what_the_loser_says_later_is_spent_in_vain(twins: Twins, verdict: str | None) -> None:
    twins.stage.settle(twins.a, paid("42"))

    settled = twins.stage.scheduler.settle(
        twins.b, paid("43" if verdict is None else None, verdict)
    )

    assert twins.record.loser == "crew-2"
    assert settled == InVain(twins.record, Usage(1, 2), 0.25)
    assert not twins.b.held
    assert twins.stage.wait(LONGEST_WAIT) == []


@pytest.mark.parametrize("verdict", [None, "transient", "refused", "fatal"])
def test_copy_that_fails_leaves_the_task_to_the_other(twins: Twins, verdict: str | None) -> None:
    assert twins.stage.scheduler.settle(twins.b, paid(verdict=verdict)) is None

    ending = twins.stage.settle(twins.a, paid("42"))
    assert ending is not None
    assert (ending.worker, ending.usage) == ("crew-1", Usage(2, 4))
    assert twins.record.loser is None


@pytest.mark.parametrize("verdict", [None, "transient", "refused", "fatal"])
def test_task_that_fails_while_it_has_a_copy_is_left_to_that(
    twins: Twins, verdict: str | None
) -> None:
    assert twins.stage.scheduler.settle(twins.a, paid(verdict=verdict)) is None
    assert twins.record.worker == "crew-2"
    assert not twins.a.held

    ending = twins.stage.settle(twins.b, paid("42"))

    assert ending is not None
    assert (ending.worker, ending.usage) == ("crew-2", Usage(2, 4))
    assert ending.attempts == (2 if verdict in ("transient", "fatal") else 1)


@pytest.mark.parametrize("who", ["a", "b"])
def test_worker_that_dies_leaves_the_task_to_the_other(twins: Twins, who: str) -> None:
    dead, other = (twins.a, twins.b) if who == "a" else (twins.b, twins.a)

    assert twins.stage.die(dead) == []

    assert twins.record.worker == other.name
    assert twins.stage.send() == {}
    ending = twins.stage.answer(other, 1)
    assert ending is not None
    assert ending.worker == other.name


def test_cancelled_task_ends_once_and_its_copy_runs_in_vain(twins: Twins) -> None:
    assert twins.stage.scheduler.cancel(twins.record) is None

    ending = twins.stage.settle(twins.a, Outcome(1))

    assert ending is not None
    assert ending.state == "cancelled"
    assert twins.record.loser == "crew-2"
    assert twins.stage.scheduler.drop(twins.b, 1) is None
    assert twins.b.is_empty


def test_copy_that_was_not_started_is_dropped(twins: Twins) -> None:
    assert twins.stage.scheduler.drop(twins.b, 1) is None

    assert twins.record.copy is None
    assert twins.stage.answer(twins.a, 1) is not None


@pytest.mark.parametrize("first", ["a", "b"])
def test_both_give_back_what_was_set_aside(first: str) -> None:
    gate = NarrowGate(2)
    twins = Twins(gate)
    assert gate.room == 0

    for worker in (twins.a, twins.b) if first == "a" else (twins.b, twins.a):
        twins.stage.scheduler.settle(worker, paid("42"))

    assert gate.room == 2
    assert gate.out == []


def test_paused_copy_goes_on_until_the_task_ends() -> None:
    gate = NarrowGate(2)
    twins = Twins(gate)
    twins.stage.settle(twins.b, Outcome(1, is_paused=True))
    assert twins.stage.send() == {"crew-2": [1]}
    twins.stage.settle(twins.b, Outcome(1, is_paused=True))

    twins.stage.answer(twins.a, 1)

    assert twins.record.loser == "crew-2"
    assert len(twins.b.line) == 0
    assert twins.stage.send() == {}


def test_task_of_a_worker_that_fails_goes_on_where_its_copy_is_paused() -> None:
    twins = Twins(NarrowGate(2))
    twins.stage.settle(twins.b, Outcome(1, is_paused=True))
    twins.stage.fail(twins.a, 1)

    assert twins.stage.send() == {"crew-2": [1]}
    assert twins.b.held == {1: twins.record}


def test_copy_is_made_only_where_there_is_room_for_it() -> None:
    stage = Stage(["chemist"] * 2)
    [record] = stage.accept(1)
    stage.accept(2)
    stage.send()

    assert stage.scheduler.copy(record, stage.a) is None
    assert stage.scheduler.copy(record, stage.b) is None
    assert stage.scheduler.free_worker(record) is None
    stage.answer(stage.b, 2)
    assert stage.scheduler.free_worker(record) is stage.b


def test_copy_is_not_made_beside_what_must_go_by_itself() -> None:
    stage = Stage(concurrency=2, policy=RetryPolicy(max_deaths=2), routing=LeastLoaded())
    stage.accept(1, 2)
    stage.send()
    stage.die(stage.a)
    stage.come_back(stage.a)
    stage.answer(stage.b, 2)
    assert stage.send() == {"crew-2": [1]}
    [record] = stage.accept(3)
    assert stage.send() == {"crew-1": [3]}

    assert stage.scheduler.free_worker(record) is None
    assert stage.scheduler.copy(record, stage.b) is None
    stage.answer(stage.b, 1)
    assert stage.scheduler.free_worker(record) is stage.b
    stage.notify(stage.b, 9)
    stage.b.notices[9].tries.deaths = 1
    assert stage.scheduler.copy(record, stage.b) is None


def test_copy_is_not_made_when_the_gate_has_no_room() -> None:
    gate = NarrowGate(1)
    stage = Stage(gate=gate)
    [record] = stage.accept(1)
    stage.send()

    assert stage.scheduler.copy(record, stage.b) is None
    assert record.copy is None
    assert stage.b.is_empty


def waiting(stage: Stage) -> TaskRecord:
    return stage.accept(1)[0]


def of_a_session(stage: Stage) -> TaskRecord:
    [record] = stage.accept(1, session="user-42")
    stage.send()
    return record


def pinned(stage: Stage) -> TaskRecord:
    [record] = stage.accept(1, worker="crew-1")
    stage.send()
    return record


def ended(stage: Stage) -> TaskRecord:
    [record] = stage.accept(1)
    stage.send()
    stage.answer(stage.a, 1)
    return record


@pytest.mark.parametrize("make", [waiting, of_a_session, pinned, ended])
def test_copy_is_made_of_no_task_that_cannot_have_one(make: object) -> None:
    stage = Stage(routing=NextFree())

    record = make(stage)  # type: ignore[operator]

    assert stage.scheduler.copy(record, stage.b) is None


def test_task_has_one_copy_at_a_time(twins: Twins) -> None:
    third = twins.stage.workers[2]

    assert twins.stage.scheduler.copy(twins.record, third) is None
    assert twins.stage.scheduler.copy(twins.copy, third) is None
