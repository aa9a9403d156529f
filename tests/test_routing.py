"""Which worker gets a task: the policies, by themselves."""

from __future__ import annotations

import pickle
import random

import pytest

from raypool.errors import PoolStartError
from raypool.records import AcceptedTask
from raypool.roster import Roster, WorkerRecord
from raypool.routing import (
    LeastLoaded,
    NextFree,
    RoundRobin,
    Routing,
    make_routing,
    make_routings,
)
from raypool.window import Window


def workers(count: int, role: str = "chemist") -> list[WorkerRecord]:
    names = [f"{role}-{number}" for number in range(1, count + 1)]
    return [WorkerRecord(name, role, lambda: Window(1)) for name in names]


def task(number: int, role: str | None = None) -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", "why?", role)


def chosen(routing: Routing, task: AcceptedTask, crew: list[WorkerRecord]) -> str:
    worker = routing.choose(task, crew)
    assert worker is not None
    return worker.name


def test_tasks_go_around_the_workers_in_their_order() -> None:
    routing, crew = RoundRobin(), workers(3)

    names = [chosen(routing, task(number), crew) for number in range(7)]

    assert names == [f"chemist-{number}" for number in (1, 2, 3, 1, 2, 3, 1)]


def test_each_role_has_a_round_of_its_own_and_tasks_without_a_role_another() -> None:
    general, by_role = make_routings(
        "round_robin", {"chemist": "round_robin", "historian": "round_robin"}
    )
    chemists, historians = workers(2, "chemist"), workers(3, "historian")

    names = [
        chosen(by_role["chemist"], task(1, "chemist"), chemists),
        chosen(general, task(2), [*chemists, *historians]),
        chosen(by_role["historian"], task(3, "historian"), historians),
        chosen(by_role["chemist"], task(4, "chemist"), chemists),
        chosen(general, task(5), [*chemists, *historians]),
        chosen(by_role["historian"], task(6, "historian"), historians),
    ]

    assert names == [
        "chemist-1",
        "chemist-1",
        "historian-1",
        "chemist-2",
        "chemist-2",
        "historian-2",
    ]


def test_pool_of_one_role_has_one_policy_for_all_its_tasks() -> None:
    general, by_role = make_routings("round_robin", {"chemist": "least_loaded"})

    assert isinstance(general, LeastLoaded)
    assert by_role == {}


def test_roles_share_a_policy_of_the_users_own() -> None:
    own = pickle.dumps(LeastLoaded())

    general, by_role = make_routings(own, {"chemist": own, "historian": "next_free"})

    assert by_role["chemist"] is general
    assert isinstance(by_role["historian"], NextFree)


def test_round_goes_on_over_the_workers_that_are_left() -> None:
    routing, crew = RoundRobin(), workers(3)
    for number in range(3):
        routing.choose(task(number), crew)

    names = [chosen(routing, task(number), crew[:2]) for number in range(3, 7)]

    assert sorted(names) == ["chemist-1", "chemist-1", "chemist-2", "chemist-2"]


def test_least_loaded_is_the_worker_with_the_fewest_unfinished_tasks() -> None:
    routing, crew = LeastLoaded(), workers(3)
    for worker, load in zip(crew, (2, 0, 1), strict=True):
        worker.unfinished = load

    assert chosen(routing, task(1), crew) == "chemist-2"


def test_workers_with_the_same_load_take_turns() -> None:
    routing, crew = LeastLoaded(), workers(3)

    names = [chosen(routing, task(number), crew) for number in range(6)]

    assert names == [f"chemist-{number}" for number in (1, 2, 3, 1, 2, 3)]


def test_least_loaded_goes_on_when_workers_have_left() -> None:
    routing, crew = LeastLoaded(), workers(3)
    for number in range(3):
        routing.choose(task(number), crew)

    assert chosen(routing, task(4), crew[:1]) == "chemist-1"


def test_least_loaded_follows_the_loads_of_the_workers_that_the_roster_has() -> None:
    crew = workers(4)
    roster, plain, kept = Roster(crew), LeastLoaded(), LeastLoaded()
    chance = random.Random(1)

    for number in range(1, 1_001):
        if number == 500:
            crew[1].is_leaving = True
            roster.sort()
        choice = roster.choice(None)
        expected = plain.choose(task(number), choice)
        worker = choice[kept.choose_place(roster.loads(None))]
        assert worker is expected
        worker.unfinished += 1
        for one in chance.sample(crew, chance.randint(0, 2)):
            one.unfinished -= one.unfinished > 0


def test_next_free_chooses_nobody() -> None:
    assert NextFree().choose(task(1), workers(3)) is None


@pytest.mark.parametrize(
    ("name", "policy"),
    [("round_robin", RoundRobin), ("least_loaded", LeastLoaded), ("next_free", NextFree)],
)
def test_policies_have_names(name: str, policy: type) -> None:
    assert type(make_routing(name)) is policy


def test_policy_of_the_users_own_travels_packed() -> None:
    assert isinstance(make_routing(pickle.dumps(LeastLoaded())), LeastLoaded)


def test_policy_that_cannot_be_unpacked_is_told_as_the_pool_starts() -> None:
    with pytest.raises(PoolStartError, match="routing cannot be unpickled in the dispatcher"):
        make_routing(b"nonsense")
