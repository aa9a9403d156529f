"""The scheduler when workers halt, die and come back: who runs what they had."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from raypool.config import RetryPolicy
from raypool.messages import Outcome
from raypool.records import Ending, StoredCause
from raypool.roster import WorkerRecord
from raypool.routing import NextFree
from tests.gates import NarrowGate
from tests.stage import LONGEST_WAIT, Stage

KILLED_THREE_TIMES = "3 workers have died with the task:\n"


def assert_killed(ending: Ending) -> None:
    assert ending.cause is not None
    assert ending.cause.kind == "WorkerDied"
    assert ending.cause.message.startswith(KILLED_THREE_TIMES)
    assert ending.cause.message.count("it was killed") == 3


@pytest.fixture
def stage() -> Stage:
    return Stage()


def workers_of(stage: Stage, *numbers: int) -> list[str | None]:
    records = [stage.scheduler.get(f"task-{number}") for number in numbers]
    return [record.worker if record else None for record in records]


# Halts


def test_what_a_halted_worker_has_not_started_goes_to_the_others_in_order(stage: Stage) -> None:
    stage.accept(*range(1, 12))
    stage.take(stage.a)
    stage.hand_back(stage.a, 3, 5)

    stage.halt(stage.a)

    assert workers_of(stage, 3, 5, 7, 9, 11) == ["crew-2"] * 5
    assert stage.take(stage.a) == []
    assert stage.take(stage.b) == [2, 3, 4]
    for number in (2, 3, 4):
        stage.answer(stage.b, number)
    assert stage.take(stage.b) == [5, 6, 7]


def test_running_turn_of_a_halted_worker_ends_there(stage: Stage) -> None:
    stage.accept(1)
    stage.take(stage.a)
    stage.halt(stage.a)

    ending = stage.answer(stage.a, 1)

    assert ending is not None
    assert (ending.state, ending.worker) == ("completed", "crew-1")


def test_new_tasks_pass_a_halted_worker_by(stage: Stage) -> None:
    stage.halt(stage.a)

    stage.accept(1, 2, 3)

    assert stage.take(stage.b) == [1, 2, 3]


def test_tasks_wait_for_a_resume_when_every_worker_has_halted(stage: Stage) -> None:
    stage.accept(1, 2)
    stage.halt(stage.a)
    stage.halt(stage.b)
    stage.accept(3, 4)
    assert stage.take(stage.a) == stage.take(stage.b) == []

    stage.resume(stage.b)

    assert stage.take(stage.a) == []
    assert stage.take(stage.b) == [1, 2, 3]
    assert stage.b.unfinished == 4


def test_worker_that_halts_before_a_turn_has_that_task_first_when_it_is_resumed() -> None:
    stage = Stage(["chemist"])
    stage.accept(1, 2, 3, 4)
    stage.take(stage.a)
    stage.settle(stage.a, Outcome(1, is_returned=True, halt="for review"))
    stage.hand_back(stage.a, 2, 3)
    stage.halt(stage.a)

    stage.resume(stage.a)

    assert stage.take(stage.a) == [1, 2, 3]


def test_worker_that_returns_a_task_is_sent_none_though_its_halt_is_not_told(
    stage: Stage,
) -> None:
    stage.accept(1, 3)
    stage.take(stage.a)

    stage.hand_back(stage.a, 1)

    assert stage.a.halted == "it hands back the tasks that it is sent"
    assert stage.take(stage.a) == []


def test_outcome_that_tells_of_a_halt_stops_its_worker(stage: Stage) -> None:
    stage.accept(1, 2, 3, 4, 5, 6, 7)
    stage.take(stage.a)

    stage.settle(stage.a, Outcome(99, halt="enough"))

    assert stage.a.halted == "enough"
    assert stage.take(stage.a) == []


def test_halt_that_is_told_after_its_resume_stops_nobody(stage: Stage) -> None:
    stage.accept(1, 3, 5, 7, 9)
    stage.take(stage.a)
    stage.a.is_resumed_early = True

    stage.hand_back(stage.a, 1)
    stage.settle(stage.a, Outcome(98, halt="enough"))
    assert stage.a.halted is None
    stage.settle(stage.a, Outcome(99, halt="enough again"))

    assert stage.a.halted == "enough again"


def test_returned_task_that_was_cancelled_ends_and_runs_nowhere(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    ending = stage.settle(stage.a, Outcome(1, is_returned=True))

    assert ending is not None
    assert ending.state == "cancelled"
    assert stage.halt(stage.a) == []
    assert stage.take(stage.b) == []


def test_task_that_waits_for_another_attempt_as_its_worker_halts_comes_back_on_another(
    stage: Stage,
) -> None:
    stage.accept(1)
    stage.take(stage.a)
    stage.fail(stage.a, 1)

    stage.halt(stage.a)
    stage.wait(LONGEST_WAIT)

    assert stage.take(stage.b) == [1]
    assert stage.a.unfinished == 0


# Tasks of one worker


def test_pinned_task_runs_on_its_worker_alone(stage: Stage) -> None:
    stage.accept(1, 2, 3, worker="crew-2")

    assert stage.take(stage.a) == []
    assert stage.take(stage.b) == [1, 2, 3]


@pytest.mark.parametrize("event", ["halt", "die"])
def test_pinned_task_waits_for_its_worker(stage: Stage, event: str) -> None:
    stage.accept(1, 2, worker="crew-2")
    stage.take(stage.b)
    if event == "halt":
        stage.hand_back(stage.b, 1, 2)
        stage.halt(stage.b)
        stage.accept(3, worker="crew-2")
        assert stage.take(stage.a) == stage.take(stage.b) == []
        stage.resume(stage.b)
    else:
        stage.die(stage.b)
        stage.accept(3, worker="crew-2")
        assert stage.take(stage.a) == stage.take(stage.b) == []
        stage.come_back(stage.b)

    taken = stage.take(stage.b)

    assert taken == ([1, 2, 3] if event == "halt" else [1])


def test_pinned_task_fails_when_its_worker_is_gone_for_good(stage: Stage) -> None:
    stage.accept(1, 2, worker="crew-2")
    stage.die(stage.b)

    ended = stage.give_up(stage.b)
    late = stage.scheduler.assign(stage.reserve(3, worker="crew-2"))

    assert late is not None
    why = "worker 'crew-2', which alone may run the task, has died"
    assert [ending.number for ending in ended] == [1, 2]
    assert {ending.cause for ending in (*ended, late)} == {
        StoredCause("WorkerDied", "WorkerDied", why)
    }


# Deaths


def test_dead_workers_tasks_run_again_on_the_others(stage: Stage) -> None:
    stage.accept(*range(1, 11))
    stage.take(stage.a)

    assert stage.die(stage.a) == []

    assert stage.a.unfinished == 0
    assert workers_of(stage, 1, 3, 5, 7, 9) == ["crew-2"] * 5
    assert len(stage.b.line) == 10


def test_tasks_wait_while_the_only_worker_is_replaced() -> None:
    stage = Stage(["chemist"])
    stage.accept(1, 2)
    stage.take(stage.a)

    assert stage.die(stage.a) == []
    stage.accept(3)
    assert stage.take(stage.a) == []
    stage.come_back(stage.a)

    assert stage.take(stage.a) == [1]
    assert (stage.a.restarts, stage.a.sent) == (1, 1)


def test_tasks_that_waited_for_a_halted_worker_go_to_one_that_comes_back(stage: Stage) -> None:
    stage.die(stage.a)
    stage.halt(stage.b)
    stage.accept(1, 2)

    stage.come_back(stage.a)

    assert stage.take(stage.a) == [1, 2]


def test_tasks_of_a_worker_that_cannot_be_replaced_go_to_one_that_may_be_resumed(
    stage: Stage,
) -> None:
    stage.halt(stage.b)
    stage.accept(1, 2, 3)
    stage.die(stage.a)

    assert stage.give_up(stage.a) == []

    assert stage.b.unfinished == 3
    stage.resume(stage.b)
    assert stage.take(stage.b) == [1, 2, 3]


def test_tasks_fail_when_no_worker_of_their_role_can_be_replaced() -> None:
    stage = Stage(["chemist", "historian"])
    stage.accept(1, 2, role="historian")
    stage.accept(3, role="chemist")
    stage.take(stage.b)
    stage.fail(stage.b, 1)

    stage.die(stage.b)
    ended = stage.give_up(stage.b)
    late = stage.wait(LONGEST_WAIT)
    fresh = stage.scheduler.assign(stage.reserve(4, role="historian"))

    assert [ending.number for ending in ended] == [2]
    assert [ending.number for ending in late] == [1]
    assert fresh is not None
    assert fresh.worker is None
    for ending in (*ended, *late, fresh):
        assert ending.cause is not None
        assert ending.cause.kind == "WorkerDied"
        assert ending.cause.message == (
            "every worker with the role 'historian' of the pool has died"
        )
    assert stage.take(stage.a) == [3]


def test_cancelled_task_whose_worker_died_is_cancelled(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.scheduler.cancel(record)

    [ending] = stage.die(stage.a)

    assert ending.state == "cancelled"


def test_late_outcome_of_a_dead_worker_changes_nothing(stage: Stage) -> None:
    stage.accept(1)
    stage.take(stage.a)
    stage.die(stage.a)

    assert stage.answer(stage.a, 1) is None
    assert stage.settle(stage.a, Outcome(1, is_returned=True, halt="enough")) is None
    assert stage.a.halted is None


def test_task_that_waits_as_its_worker_dies_comes_back_on_another(stage: Stage) -> None:
    [record] = stage.accept(1)
    stage.take(stage.a)
    stage.fail(stage.a, 1)

    assert stage.die(stage.a) == []
    assert stage.wait(LONGEST_WAIT) == []

    assert stage.take(stage.b) == [1]
    assert record.worker == "crew-2"
    assert record.tries.deaths == 0


def test_task_of_a_dead_worker_goes_alone_before_the_others() -> None:
    stage = Stage(["chemist"])
    stage.accept(1, 2, 3, 4)
    stage.take(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)

    envelopes = []
    while taken := stage.take(stage.a):
        envelopes.append(taken)
        for number in taken:
            stage.answer(stage.a, number)

    assert envelopes == [[1], [2], [3], [4]]
    assert {ending.state for ending in stage.endings.values()} == {"completed"}


def test_tasks_of_a_dead_worker_go_with_as_many_as_run_at_once_and_the_last_time_alone() -> None:
    stage = Stage(["chemist"], concurrency=3)
    stage.accept(1, 2, 3, 4, 5, 6)

    first = stage.take(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)
    second = stage.take(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)
    third = stage.take(stage.a)

    assert (first, second, third) == ([1, 2, 3, 4, 5], [1, 2, 3], [1])


def test_task_that_never_died_waits_until_one_that_must_be_alone_has_ended() -> None:
    stage = Stage(["chemist"])
    stage.accept(1)
    stage.take(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)
    stage.accept(2)

    assert stage.take(stage.a) == [1]
    assert stage.take(stage.a) == []
    stage.answer(stage.a, 1)
    assert stage.take(stage.a) == [2]


@pytest.mark.parametrize("room", [None, 5])
def test_worker_passed_over_for_a_task_that_must_be_alone_is_sent_the_next_at_once(
    room: int | None,
) -> None:
    stage = Stage(
        ["chemist"] * 3,
        concurrency=2,
        policy=RetryPolicy(max_deaths=2),
        routing=NextFree(),
        gate=None if room is None else NarrowGate(room),
    )
    stage.accept(1, 2, 3, 4, 5)
    assert stage.send() == {"crew-1": [1, 4], "crew-2": [2, 5], "crew-3": [3]}
    stage.answer(stage.a, 4)
    stage.answer(stage.workers[1], 5)
    stage.answer(stage.b, 3)
    stage.die(stage.a)
    stage.accept(6)

    assert stage.send() == {"crew-3": [1], "crew-2": [6]}


def test_task_whose_workers_all_die_fails_in_the_end() -> None:
    stage = Stage(["chemist"])
    stage.accept(1)
    ended: list[list[Ending]] = []
    for _ in range(3):
        assert stage.take(stage.a) == [1]
        ended.append(stage.die(stage.a))
        stage.come_back(stage.a)

    assert ended[:2] == [[], []]
    [ending] = ended[2]
    assert (ending.state, ending.attempts) == ("failed", 1)
    assert_killed(ending)


def test_single_death_is_enough_where_the_policy_says_so() -> None:
    stage = Stage(["chemist"], policy=RetryPolicy(max_deaths=1))
    stage.accept(1, 2)
    stage.take(stage.a)

    [ending] = stage.die(stage.a)

    assert (ending.number, ending.state) == (1, "failed")
    stage.come_back(stage.a)
    assert stage.take(stage.a) == [2]


class Murder:
    """Workers that run quick tasks and die of one; what they had ended is often not told.

    Attributes:
        stage: where it happens.
        deaths: how many workers the poison has killed.
    """

    def __init__(self, seed: int, *, workers: int, concurrency: int, poison: int) -> None:
        self.stage = Stage(["chemist"] * workers, concurrency=concurrency)
        self.deaths = 0
        self._poison = poison
        self._concurrency = concurrency
        self._chance = random.Random(seed)

    def run(self, count: int) -> None:
        """Have so many tasks run to their end."""
        self.stage.accept(*range(1, count + 1))
        while len(self.stage.endings) < count:
            for worker in self.stage.workers:
                self.stage.take(worker)
                self._work(worker)

    def _work(self, worker: WorkerRecord) -> None:
        held = list(worker.held)
        if self._poison not in held:
            for number in held:
                self.stage.answer(worker, number)
            return
        begun = held.index(self._poison) + self._chance.randrange(self._concurrency)
        told = self._chance.randint(0, held.index(self._poison))
        for number in held[: min(told, begun)]:
            self.stage.answer(worker, number)
        self.deaths += 1
        self.stage.die(worker)
        self.stage.come_back(worker)


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_poison_fails_after_so_many_deaths_wherever_it_is_and_nothing_else_does(
    seed: int, workers: int, concurrency: int
) -> None:
    poison = random.Random(seed).randint(1, 40)
    murder = Murder(seed, workers=workers, concurrency=concurrency, poison=poison)

    murder.run(40)

    endings = murder.stage.endings
    assert_killed(endings[poison])
    assert Counter(ending.state for ending in endings.values()) == {"completed": 39, "failed": 1}
    assert murder.deaths == 3


# Notices


def test_notice_that_kills_its_worker_each_time_is_dropped() -> None:
    stage = Stage(["chemist"])
    stage.notify(stage.a, 1, 2)

    dropped = []
    for _ in range(3):
        dropped.append(stage.scheduler.blame_notice(stage.a))
        stage.die(stage.a)
        stage.come_back(stage.a)

    assert [notice and notice.number for notice in dropped] == [None, None, 1]
    assert list(stage.a.notices) == [2]


def test_notice_is_not_dropped_for_what_a_task_may_have_done() -> None:
    stage = Stage(["chemist"])
    stage.notify(stage.a, 9)
    for number in range(1, 6):
        stage.accept(number)
        stage.a.notices[9].tries.deaths = 0
        stage.take(stage.a)
        stage.a.notices[9].tries.deaths = 5
        assert stage.scheduler.blame_notice(stage.a) is None
        stage.die(stage.a)
        stage.come_back(stage.a)

    assert list(stage.a.notices) == [9]


def test_worker_that_is_back_hears_what_it_may_have_died_of_before_it_gets_tasks(
    stage: Stage,
) -> None:
    stage.notify(stage.a, 1, 2)
    stage.scheduler.blame_notice(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)
    stage.accept(3, worker="crew-1")

    assert stage.take(stage.a) == []
    stage.a.notices.pop(1)

    assert stage.take(stage.a) == [3]


def test_notice_that_is_heard_is_blamed_for_nothing(stage: Stage) -> None:
    stage.notify(stage.a, 1, 2)
    stage.a.notices[1].is_heard = True

    stage.scheduler.blame_notice(stage.a)

    assert [record.tries.deaths for record in stage.a.notices.values()] == [0, 1]


def test_notices_of_a_worker_that_cannot_be_replaced_are_dropped(stage: Stage) -> None:
    stage.notify(stage.a, 1)
    stage.die(stage.a)
    assert list(stage.a.notices) == [1]

    stage.give_up(stage.a)

    assert not stage.scheduler.has_work_up_to(stage.a, 1)


def test_worker_that_has_heard_what_it_may_have_died_of_is_sent_tasks(stage: Stage) -> None:
    stage.notify(stage.a, 1)
    stage.scheduler.blame_notice(stage.a)
    stage.die(stage.a)
    stage.come_back(stage.a)
    stage.accept(2, worker="crew-1")
    assert stage.send() == {}

    del stage.a.notices[1]
    stage.settle(stage.a, Outcome(1))

    assert stage.send() == {"crew-1": [2]}
