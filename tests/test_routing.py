"""Round robin: task k of a role goes to worker k mod N of that role."""

from __future__ import annotations

from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.routing import RoundRobin
from raypool.window import Window


def workers(count: int, role: str = "chemist") -> list[WorkerRecord]:
    names = [f"{role}-{number}" for number in range(1, count + 1)]
    return [WorkerRecord(name, role, lambda: Window(1)) for name in names]


def task(number: int, role: str | None = None) -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", "why?", role)


def test_tasks_go_around_the_workers_in_their_order() -> None:
    routing, crew = RoundRobin(), workers(3)

    chosen = [routing.choose(task(number), crew).name for number in range(7)]

    assert chosen == [f"chemist-{number}" for number in (1, 2, 3, 1, 2, 3, 1)]


def test_each_role_has_a_round_of_its_own() -> None:
    routing = RoundRobin()
    crews = {"chemist": workers(2, "chemist"), "historian": workers(3, "historian")}
    roles = ["chemist", "historian", "historian", "chemist", "chemist", "historian"]

    chosen = [routing.choose(task(n, role), crews[role]).name for n, role in enumerate(roles)]

    assert chosen == [
        "chemist-1",
        "historian-1",
        "historian-2",
        "chemist-2",
        "chemist-1",
        "historian-3",
    ]


def test_round_goes_on_over_the_workers_that_are_left() -> None:
    routing, crew = RoundRobin(), workers(3)
    for number in range(3):
        routing.choose(task(number), crew)

    chosen = [routing.choose(task(number), crew[:2]).name for number in range(3, 7)]

    assert sorted(chosen) == ["chemist-1", "chemist-1", "chemist-2", "chemist-2"]
