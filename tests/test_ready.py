"""Who waits at a gate: the worker with the most urgent task is first, at little cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raypool.accounts import Account, Accounts
from raypool.backlog import Backlog
from raypool.line import Line
from raypool.ready import Crowd
from raypool.records import AcceptedTask
from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord
from raypool.window import Window
from tests.gates import NarrowGate
from tests.stage import Stage

WORKERS = 3


class CountingLine(Line):
    """A line that counts how often it is asked for the first task of a tenant."""

    looks = 0

    def first_of(self, account: Account | None) -> int | None:
        type(self).looks += 1
        return super().first_of(account)


class Waiting:
    """A crowd, and what its workers have in line."""

    def __init__(self) -> None:
        self.accounts = Accounts({"big": 3.0})
        self.backlog = Backlog(self.accounts)
        self.crowd = Crowd()
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(1)) for n in range(WORKERS)
        ]
        for worker in self.workers:
            worker.line = Line(self.accounts)

    def line_up(self, worker: WorkerRecord, record: TaskRecord) -> None:
        worker.line.add(record)
        self.crowd.add(worker)

    def serve_first(self) -> TaskRecord | None:
        """Take the task of who is first out of its line, after a look at all lines."""
        ranks = [rank for one in self.crowd if (rank := one.line.rank()) is not None]
        first = self.crowd.first(self.backlog)
        assert (None if first is None else first.line.rank()) == min(ranks, default=None)
        return None if first is None else first.line.take(1)[0]


@given(st.data())
def test_first_of_a_crowd_is_the_worker_with_the_most_urgent_task_of_all(
    data: st.DataObject,
) -> None:
    waiting = Waiting()
    workers = st.sampled_from(waiting.workers)
    served: list[tuple[WorkerRecord, TaskRecord]] = []
    for number in range(1, data.draw(st.integers(1, 60)) + 1):
        match data.draw(st.sampled_from(["line up", "serve", "leave", "return", "open"])):
            case "line up":
                tenant = data.draw(st.sampled_from([None, "big", "small", "tiny"]))
                priority = data.draw(st.integers(0, 1))
                task = AcceptedTask(number, str(number), "why?", priority=priority, tenant=tenant)
                waiting.line_up(data.draw(workers), TaskRecord(task))
            case "serve":
                worker = waiting.crowd.first(waiting.backlog)
                record = waiting.serve_first()
                if worker is not None and record is not None:
                    served.append((worker, record))
            case "leave":
                waiting.crowd.forget(data.draw(workers))
            case "return" if served:
                worker, record = served.pop(data.draw(st.integers(0, len(served) - 1)))
                record.is_paused = data.draw(st.booleans())
                waiting.line_up(worker, record)
            case "open":
                for worker in waiting.crowd.clear():
                    waiting.crowd.add(worker)

    for worker in waiting.workers:
        waiting.crowd.add(worker)
    left = sum(len(worker.line) for worker in waiting.workers)
    assert sum(1 for _ in iter(waiting.serve_first, None)) == left


def test_looks_at_a_closed_gate_do_not_grow_with_the_number_of_tenants() -> None:
    gate = NarrowGate(room=1)
    stage = Stage(gate=gate)
    CountingLine.looks = 0
    for worker in stage.workers:
        worker.line = CountingLine(stage.scheduler.roster.accounts)
    for number in range(1, 2_001):
        stage.accept(number, tenant=f"tenant-{number}")
    stage.send()
    assert CountingLine.looks >= 1_000

    CountingLine.looks = 0
    for number in range(1, 101):
        stage.answer(stage.workers[(number - 1) % 2], number)
        assert stage.send() == {f"crew-{number % 2 + 1}": [number + 1]}

    assert CountingLine.looks <= 100 * 10
