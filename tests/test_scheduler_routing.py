"""The scheduler and its policies: late binding, roles, races, and policies of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raypool.records import AcceptedTask, Ending
from raypool.roster import WorkerRecord
from raypool.routing import Chosen, LeastLoaded, NextFree, RoundRobin, make_routings
from tests.stage import LONGEST_WAIT, Stage


class Own:
    """A policy of the user's own, as a function of the task and the workers."""

    def __init__(self, choose: Callable[[AcceptedTask, Sequence[Any]], Any]) -> None:
        self._choose = choose

    def choose(self, task: AcceptedTask, workers: Sequence[Chosen]) -> Chosen | None:
        chosen: Chosen | None = self._choose(task, workers)
        return chosen


def late(*roles: str, concurrency: int = 1, **options: Any) -> Stage:
    return Stage(
        roles or ("chemist", "chemist"), concurrency=concurrency, routing=NextFree(), **options
    )


# Late binding


def test_task_is_given_to_a_worker_as_one_is_free() -> None:
    stage = late()
    records = stage.accept(1, 2, 3, 4)

    assert [record.worker for record in records] == [None] * 4
    assert stage.send() == {"crew-1": [1], "crew-2": [2]}
    stage.answer(stage.b, 2)
    assert stage.send() == {"crew-2": [3]}
    assert [record.worker for record in records] == ["crew-1", "crew-2", "crew-2", None]


def test_worker_is_sent_nothing_more_while_another_is_free() -> None:
    stage = late(concurrency=8)

    stage.accept(*range(1, 7))

    assert sorted(map(len, stage.send().values())) == [3, 3]


def test_task_that_comes_finds_the_worker_that_is_free() -> None:
    stage = late()
    stage.accept(1, 2)
    stage.send()
    stage.answer(stage.b, 2)
    stage.send()

    stage.accept(3)

    assert stage.send() == {"crew-2": [3]}


def test_worker_that_halts_while_it_is_free_is_passed_by() -> None:
    stage = late()
    stage.send()
    stage.halt(stage.a)

    stage.accept(1)

    assert stage.send() == {"crew-2": [1]}


def test_what_waits_for_any_worker_is_unfinished_under_no_name() -> None:
    stage = late("chemist")
    stage.accept(1, 2, 3)
    stage.send()

    assert stage.scheduler.unfinished_up_to(2) == {"crew-1": 1, None: 1}
    assert stage.scheduler.unassigned == 2
    assert stage.scheduler.has_unassigned_up_to(2)
    assert not stage.scheduler.has_unassigned_up_to(1)


def test_task_that_waits_for_any_worker_is_cancelled_at_once() -> None:
    stage = late("chemist")
    _, record = stage.accept(1, 2)
    stage.send()

    ending = stage.scheduler.cancel(record)

    assert ending is not None
    assert (ending.state, ending.worker) == ("cancelled", None)
    stage.answer(stage.a, 1)
    assert stage.send() == {}
    assert stage.scheduler.unassigned == 0


def test_retry_of_a_late_task_stays_with_its_worker() -> None:
    stage = late()
    stage.accept(1, 2, 3)
    stage.send()
    stage.fail(stage.a, 1)
    stage.send()
    stage.wait(LONGEST_WAIT)
    stage.answer(stage.a, 3)

    assert stage.send() == {"crew-1": [1]}


def test_tasks_of_a_dead_worker_go_to_the_next_that_is_free() -> None:
    stage = late()
    first, _ = stage.accept(1, 2)
    stage.send()

    stage.die(stage.a)
    assert first.worker is None
    stage.answer(stage.b, 2)

    assert stage.send() == {"crew-2": [1]}


def test_what_waits_fails_when_no_worker_of_its_role_is_left() -> None:
    stage = late("chemist", "historian")
    stage.accept(1, 2, role="historian")
    stage.accept(3)
    stage.send()
    stage.die(stage.b)

    ended = stage.give_up(stage.b)

    assert [(ending.number, ending.state) for ending in ended] == [(1, "failed"), (2, "failed")]


def test_session_is_bound_as_its_first_task_is_sent() -> None:
    stage = late()
    first, second = stage.accept(1, 2, session="user-42")
    stage.accept(3)
    assert stage.send() == {"crew-1": [1], "crew-2": [3]}
    assert (first.worker, second.worker) == ("crew-1", None)
    assert stage.scheduler.has_unassigned_up_to(2)

    stage.answer(stage.b, 3)
    stage.answer(stage.a, 1)
    stage.release(1)

    assert stage.send() == {"crew-1": [2]}


def test_task_of_a_session_that_waits_for_its_turn_can_be_cancelled() -> None:
    stage = late()
    _, second = stage.accept(1, 2, session="user-42")

    assert stage.scheduler.cancel(second) is not None
    assert stage.scheduler.unassigned == 1


def test_fast_workers_are_sent_some_ahead_and_none_near_the_end() -> None:
    stage = late("chemist", "chemist")
    for worker in stage.workers:
        for tick in range(100):
            worker.window.ended(20, tick / 100)
    stage.accept(*range(1, 401))

    stage.send()
    sizes = []
    while any(worker.held for worker in stage.workers):
        for worker in stage.workers:
            for number in list(worker.held):
                stage.answer(worker, number)
        sizes += [len(numbers) for numbers in stage.send().values()]

    assert max(sizes) > 20
    assert sizes[-1] == 1
    assert len(stage.endings) == 400


# Roles


def test_each_role_goes_by_its_own_policy_and_no_role_by_the_pools() -> None:
    stage = Stage(
        ["chemist", "chemist", "historian", "historian"],
        routing=RoundRobin(),
        role_routing={"chemist": RoundRobin(), "historian": NextFree()},
    )

    records = [
        *stage.accept(1, 2, 3, role="chemist"),
        *stage.accept(4, role="historian"),
        *stage.accept(5, 6, 7),
    ]

    names = [record.worker for record in records]
    assert names == ["crew-1", "crew-2", "crew-1", None, "crew-1", "crew-2", "crew-3"]


def test_in_a_pool_of_one_role_tasks_with_and_without_it_go_one_round() -> None:
    routing, role_routing = make_routings("round_robin", {"chemist": "round_robin"})
    stage = Stage(["chemist"] * 3, routing=routing, role_routing=role_routing)

    records = [
        *stage.accept(1),
        *stage.accept(2, role="chemist"),
        *stage.accept(3, 4),
        *stage.accept(5, role="chemist"),
    ]

    names = [record.worker for record in records]
    assert names == ["crew-1", "crew-2", "crew-3", "crew-1", "crew-2"]


def test_worker_takes_the_older_of_its_roles_tasks_and_of_those_for_anybody() -> None:
    stage = late("chemist")
    stage.accept(1)
    stage.send()
    stage.accept(2)
    stage.accept(3, role="chemist")
    stage.accept(4)
    order = []
    for number in (1, 2, 3):
        stage.answer(stage.a, number)
        order += stage.send()["crew-1"]

    assert order == [2, 3, 4]


def test_tasks_of_a_role_that_may_get_workers_wait_for_the_first() -> None:
    stage = Stage(["chemist"])
    stage.scheduler.roster.may_grow = frozenset({"historian"})
    stage.accept(1, 2, 3, role="historian")
    assert stage.send() == {}

    worker = stage.join(9, "historian")

    assert stage.send() == {"crew-9": [1]}
    assert worker.unfinished == 1


# Policies of the user's own


def test_policy_of_the_users_own_is_asked_about_each_task() -> None:
    stage = Stage(routing=Own(lambda task, workers: workers[-1]))

    records = stage.accept(1, 2)

    assert [record.worker for record in records] == ["crew-2"] * 2


def test_policy_of_the_users_own_may_let_a_task_wait() -> None:
    stage = Stage(routing=Own(lambda task, workers: None))
    [record] = stage.accept(1)

    assert record.worker is None
    assert stage.send() == {"crew-1": [1]}


def broken(task: AcceptedTask, workers: Sequence[Any]) -> Any:
    raise LookupError("no such tier")


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        pytest.param(broken, "the policy raised LookupError: no such tier", id="raises"),
        pytest.param(
            lambda task, workers: workers[0].name, "one of the workers, or None", id="a name"
        ),
        pytest.param(
            lambda task, workers: WorkerRecord("z", "chemist", workers[0]._new_window),
            "one of the workers, or None",
            id="another worker",
        ),
    ],
)
def test_task_that_the_users_policy_gives_to_nobody_fails_with_the_cause(
    choose: Callable[[AcceptedTask, Sequence[Any]], Any], says: str
) -> None:
    stage = Stage(routing=Own(choose))

    ending = stage.scheduler.assign(stage.reserve(1))

    assert isinstance(ending, Ending)
    assert ending.cause is not None
    assert ending.cause.kind == "TaskFailed"
    assert "no worker was chosen by the pool's routing, Own: " in ending.cause.message
    assert says in ending.cause.message
    assert stage.send() == {}


# Races


@pytest.mark.parametrize("policy", [RoundRobin, LeastLoaded, NextFree])
def test_tasks_of_a_race_run_on_different_workers(policy: type) -> None:
    stage = Stage(["chemist"] * 3, concurrency=4, routing=policy())
    stage.accept(1, 2)
    stage.send()

    racers = stage.accept(3, 4, 5, race="first")
    stage.send()

    assert {record.worker for record in racers} == {"crew-1", "crew-2", "crew-3"}


def test_worker_passes_by_a_task_whose_race_it_has_run() -> None:
    stage = late()
    stage.accept(1, 2, race="first")
    stage.accept(3)
    stage.accept(4)
    assert stage.send() == {"crew-1": [1], "crew-2": [2]}
    stage.accept(5, race="second")
    stage.accept(6, race="second")
    for number in (1, 3, 4):
        stage.answer(stage.a, number)
        stage.send()
    assert stage.a.held.keys() == {5}
    stage.answer(stage.a, 5)

    assert stage.send() == {}
    stage.answer(stage.b, 2)
    assert stage.send() == {"crew-2": [6]}


def test_race_with_more_tasks_than_workers_runs_all_the_same() -> None:
    stage = late()
    stage.accept(1, 2, 3, race="first")

    assert stage.send() == {"crew-1": [1], "crew-2": [2]}
    stage.answer(stage.a, 1)
    assert stage.send() == {"crew-1": [3]}


def test_race_is_forgotten_with_its_last_task() -> None:
    stage = Stage(["chemist"] * 2)
    for number in (1, 2):
        stage.accept(number, race="first")
        stage.send()
    for worker, number in ((stage.a, 1), (stage.b, 2)):
        stage.answer(worker, number)
        stage.release(number)

    [record] = stage.accept(3, race="first")

    assert record.worker == "crew-1"


# Workers that join and leave


def test_new_worker_gets_its_part_of_what_was_not_sent_in_order() -> None:
    stage = Stage(["chemist", "chemist"])
    stage.accept(*range(1, 61))
    stage.send()

    worker = stage.join(3)

    sizes = [one.unfinished for one in stage.workers]
    assert sum(sizes) == 60
    assert max(sizes) - min(sizes) <= 3
    stage.send()
    taken = list(worker.held)
    assert taken == sorted(taken)


def test_new_worker_is_left_alone_by_sessions_and_tasks_of_one_worker() -> None:
    stage = Stage(["chemist"])
    stage.accept(*range(1, 20), worker="crew-1")
    for number in range(20, 30):
        stage.accept(number, session=f"user-{number}")
    stage.send()

    assert stage.join(2).unfinished == 0


def test_users_policy_is_asked_again_when_a_worker_joins() -> None:
    stage = Stage(["chemist"], routing=Own(lambda task, workers: workers[0]))
    stage.accept(*range(1, 20))
    stage.send()

    assert stage.join(2).unfinished == 0
    assert stage.a.unfinished == 19


def test_round_robin_counts_a_new_worker_in() -> None:
    stage = Stage(["chemist", "chemist"])
    stage.join(3)

    records = stage.accept(1, 2, 3, 4)

    assert [record.worker for record in records] == ["crew-1", "crew-2", "crew-3", "crew-1"]


def test_dismissed_worker_ends_what_it_was_sent_and_others_get_the_rest() -> None:
    stage = Stage()
    stage.accept(*range(1, 11))
    stage.send()

    assert stage.scheduler.dismiss(stage.a) == []

    assert stage.a.unfinished == 3
    assert [record.worker for record in stage.accept(11, 12)] == ["crew-2"] * 2
    for number in list(stage.a.held):
        stage.answer(stage.a, number)
    assert stage.a.is_empty
    assert "crew-1" not in stage.send()


def test_retry_of_a_dismissed_worker_runs_there_and_then_it_may_go() -> None:
    stage = Stage()
    stage.accept(1)
    stage.send()
    stage.fail(stage.a, 1)
    stage.scheduler.dismiss(stage.a)
    assert not stage.a.is_empty
    stage.wait(LONGEST_WAIT)

    assert stage.send() == {"crew-1": [1]}
    stage.answer(stage.a, 1)
    assert stage.a.is_empty


def test_dismissed_worker_takes_nothing_that_waits_for_any() -> None:
    stage = late()
    stage.send()
    stage.scheduler.dismiss(stage.a)

    stage.accept(1, 2)

    assert stage.send() == {"crew-2": [1]}


def test_session_of_a_removed_worker_goes_on_elsewhere() -> None:
    stage = Stage()
    stage.accept(1, 2, session="user-42")
    stage.send()
    stage.answer(stage.a, 1)
    stage.scheduler.dismiss(stage.a)
    stage.release(1)
    assert stage.a.is_empty

    stage.scheduler.remove(stage.a)

    assert stage.send() == {"crew-2": [2]}
    assert "crew-1" not in stage.scheduler.roster


def test_task_pinned_to_a_worker_that_has_left_goes_to_any() -> None:
    stage = Stage()
    stage.accept(1, 2, 3, 4, worker="crew-1")
    stage.send()
    stage.scheduler.dismiss(stage.a)
    for number in list(stage.a.held):
        stage.answer(stage.a, number)
    stage.scheduler.remove(stage.a)

    [late_one] = stage.accept(5, worker="crew-1")

    assert late_one.worker == "crew-2"
    assert stage.send() == {"crew-2": [4, 5]}


def test_last_worker_of_a_role_that_may_grow_leaves_its_tasks_waiting() -> None:
    stage = Stage(["chemist"])
    stage.scheduler.roster.may_grow = frozenset({"chemist"})
    stage.accept(*range(1, 9))
    stage.send()
    stage.scheduler.dismiss(stage.a)
    for number in list(stage.a.held):
        stage.answer(stage.a, number)
    stage.scheduler.remove(stage.a)

    assert stage.scheduler.unassigned == 5
    stage.join(2)
    assert stage.send() == {"crew-2": [4]}


def test_what_waits_fails_when_its_last_worker_is_to_leave_for_good() -> None:
    stage = late("chemist")
    stage.accept(1, 2)
    stage.send()

    ended = stage.scheduler.dismiss(stage.a)

    assert stage.answer(stage.a, 1) is not None
    assert [(one.record.number, one.ending.state) for one in ended] == [(2, "failed")]


def test_task_that_is_cancelled_as_its_worker_is_recalled_ends() -> None:
    stage = Stage()
    _, _, cancelled, *_ = stage.accept(1, 2, 3, 4, 5)
    assert stage.take(stage.a) == [1, 3, 5]
    assert stage.scheduler.cancel(cancelled) is None
    stage.scheduler.dismiss(stage.a)

    decided = stage.scheduler.take_back(stage.a, [3])

    assert [(one.record.number, one.ending.state) for one in decided] == [(3, "cancelled")]


def test_retry_of_a_worker_that_is_lost_as_it_leaves_is_waited_for_and_runs_elsewhere() -> None:
    stage = Stage()
    stage.accept(1)
    stage.send()
    stage.fail(stage.a, 1)
    stage.notify(stage.a, 2)
    stage.scheduler.dismiss(stage.a)
    stage.scheduler.worker_died(stage.a, "killed")

    stage.scheduler.remove(stage.a)

    assert not stage.scheduler.has_work_up_to(stage.a, 2)
    assert stage.scheduler.has_unassigned_up_to(1)
    assert stage.scheduler.unfinished_up_to(1) == {None: 1}
    stage.wait(LONGEST_WAIT)
    assert stage.send() == {"crew-2": [1]}
    assert not stage.scheduler.has_unassigned_up_to(1)
