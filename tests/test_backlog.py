"""Tasks that no worker has been given, by role."""

from __future__ import annotations

from raypool.accounts import Accounts
from raypool.backlog import Backlog
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord


def record(number: int, role: str | None = None, priority: int = 0) -> TaskRecord:
    task = AcceptedTask(number, f"task-{number}", "why?", role, priority=priority)
    return TaskRecord(task)


def backlog_of(*records: TaskRecord) -> Backlog:
    backlog = Backlog(Accounts())
    for one in records:
        backlog.add(one)
    return backlog


def test_worker_may_have_what_waits_for_its_role_and_for_anybody() -> None:
    backlog = backlog_of(record(1), record(2, "chemist"), record(3, "historian"))

    chemists = [line.first() for line in backlog.lines_for("chemist")]
    others = [line.first() for line in backlog.lines_for("poet")]

    assert [one.number for one in chemists if one] == [2, 1]
    assert [one.number for one in others if one] == [1]
    assert len(backlog) == 3


def test_empty_lines_are_not_told_of() -> None:
    backlog = backlog_of(record(1, "chemist"))
    for line in backlog.lines_for("chemist"):
        line.take(1)

    assert list(backlog) == []
    assert backlog.lines_for("chemist") == []
    assert len(backlog) == 0


def test_backlog_knows_whether_it_has_a_task_up_to_a_number() -> None:
    backlog = backlog_of(record(7, "chemist"), record(5), record(9, priority=3))

    assert backlog.has_up_to(5)
    assert not backlog.has_up_to(4)


def test_first_task_that_a_worker_may_have_tells_the_rank_of_its_role() -> None:
    backlog = backlog_of(record(1), record(2, "chemist", priority=3))

    chemists, poets = backlog.rank_for("chemist"), backlog.rank_for("poet")

    assert chemists is not None
    assert poets is not None
    assert chemists < poets
    assert backlog_of().rank_for("poet") is None
