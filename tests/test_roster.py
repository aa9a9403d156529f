"""Which workers there are."""

from __future__ import annotations

import pytest

from raypool.backlog import TaskRecord
from raypool.records import AcceptedTask
from raypool.roster import Roster, WorkerRecord
from raypool.window import Window


def roster(**roles: str) -> Roster:
    """A worker of each name, with its role."""
    return Roster(WorkerRecord(name, role, Window(1)) for name, role in roles.items())


def names(workers: list[WorkerRecord]) -> list[str]:
    return [worker.name for worker in workers]


def record(number: int) -> TaskRecord:
    return TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))


def test_workers_come_in_the_order_of_their_numbers() -> None:
    crew = roster(a="chemist", b="historian", c="chemist")

    assert names(list(crew)) == ["a", "b", "c"]
    assert names(crew.healthy(None)) == ["a", "b", "c"]
    assert names(crew.healthy("chemist")) == ["a", "c"]


def test_role_that_nobody_has_has_no_workers() -> None:
    assert roster(a="chemist").healthy("historian") == []


def test_worker_is_found_by_its_name() -> None:
    assert roster(a="chemist", b="historian")["b"].role == "historian"


def test_unknown_name_is_no_worker() -> None:
    with pytest.raises(KeyError):
        roster(a="chemist")["z"]


def test_dead_worker_is_known_but_not_healthy() -> None:
    crew = roster(a="chemist", b="chemist")

    crew.mark_dead(crew["a"])

    assert not crew["a"].is_healthy
    assert names(crew.healthy("chemist")) == ["b"]
    assert names(list(crew)) == ["a", "b"]


def test_role_whose_last_worker_died_has_no_workers() -> None:
    crew = roster(a="chemist", b="historian")

    crew.mark_dead(crew["a"])

    assert crew.healthy("chemist") == []
    assert names(crew.healthy(None)) == ["b"]


def test_unfinished_tasks_are_those_in_line_held_and_waiting() -> None:
    worker = roster(a="chemist")["a"]
    worker.line.add(record(1))
    worker.line.add(record(2))
    worker.held[3] = record(3)
    worker.waiting[4] = record(4)

    assert worker.unfinished == 4
