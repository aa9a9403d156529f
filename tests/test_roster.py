"""Which workers there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raypool.messages import Notice
from raypool.records import AcceptedTask
from raypool.roster import NoticeRecord, Roster, WorkerRecord
from raypool.task_record import TaskRecord
from raypool.window import Window


def roster(**roles: str) -> Roster:
    """A worker of each name, with its role."""
    return Roster(WorkerRecord(name, role, lambda: Window(1)) for name, role in roles.items())


def names(workers: list[WorkerRecord]) -> list[str]:
    return [worker.name for worker in workers]


def record(number: int) -> TaskRecord:
    return TaskRecord(AcceptedTask(number, f"task-{number}", "why?"))


def test_workers_come_in_the_order_of_their_numbers() -> None:
    crew = roster(a="chemist", b="historian", c="chemist")

    assert names(list(crew)) == ["a", "b", "c"]
    assert names(crew.choice(None)) == ["a", "b", "c"]
    assert names(crew.choice("chemist")) == ["a", "c"]


def test_role_that_nobody_has_has_no_workers() -> None:
    assert roster(a="chemist").choice("historian") == []


def test_worker_is_found_by_its_name() -> None:
    assert roster(a="chemist", b="historian")["b"].role == "historian"


def test_unknown_name_is_no_worker() -> None:
    with pytest.raises(KeyError):
        roster(a="chemist")["z"]


def halt(crew: Roster, name: str) -> None:
    crew[name].halted = "for review"
    crew.sort()


def die(crew: Roster, name: str, *, is_coming_back: bool = False) -> None:
    crew[name].is_healthy = False
    crew[name].is_coming_back = is_coming_back
    crew.sort()


@pytest.mark.parametrize("event", [halt, die])
def test_worker_that_takes_no_tasks_is_known_but_not_chosen(
    event: Callable[[Roster, str], None],
) -> None:
    crew = roster(a="chemist", b="chemist", c="historian")

    event(crew, "a")

    assert not crew["a"].takes_tasks
    assert names(crew.choice("chemist")) == ["b"]
    assert names(crew.choice(None)) == ["b", "c"]
    assert names(list(crew)) == ["a", "b", "c"]


def test_those_that_take_tasks_later_are_the_choice_when_nobody_does_now() -> None:
    crew = roster(a="chemist", b="chemist", c="chemist", d="historian")

    halt(crew, "a")
    die(crew, "b", is_coming_back=True)
    die(crew, "c")

    assert names(crew.choice("chemist")) == ["a", "b"]
    assert names(crew.choice(None)) == ["d"]


def test_role_whose_last_worker_died_has_no_workers() -> None:
    crew = roster(a="chemist", b="historian")

    die(crew, "a")

    assert crew.choice("chemist") == []
    assert names(crew.choice(None)) == ["b"]


def test_new_process_of_a_worker_starts_afresh_and_goes_on_counting() -> None:
    crew = roster(a="chemist")
    worker = crew["a"]
    worker.sent, worker.completed, worker.failed = 7, 5, 2
    halt(crew, "a")
    die(crew, "a", is_coming_back=True)
    window = worker.window

    worker.begin()

    assert worker.takes_tasks
    assert worker.sent == 0
    assert worker.window is not window
    assert (worker.completed, worker.failed) == (5, 2)


def test_next_notice_is_the_first_that_is_not_heard() -> None:
    worker = roster(a="chemist")["a"]
    assert worker.next_notice is None

    for number in (4, 5):
        worker.notices[number] = NoticeRecord(Notice(number, "news"))
    worker.notices[4].is_heard = True

    assert worker.next_notice is worker.notices[5]
