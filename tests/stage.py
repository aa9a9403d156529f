"""A scheduler on a stage: its clock and its workers at hand, and whatever may happen to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from raypool.accounts import Accounts
from raypool.capacity.gate import ClosingGate, Gate
from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.events import Verdict
from raypool.messages import Answer, Failure, Notice, Outcome
from raypool.records import AcceptedTask, Conversation, Ending
from raypool.retries import Retries
from raypool.roster import NoticeRecord, Roster, WorkerRecord
from raypool.routing import RoundRobin, Routing
from raypool.scheduler import Scheduler
from raypool.settling import Decided
from raypool.task_record import TaskRecord
from raypool.window import Window

POLICY = RetryPolicy(max_attempts=3, max_deaths=3, initial_seconds=1.0, max_seconds=8.0)
LONGEST_WAIT = 8.0


class Stage:
    """A scheduler with its clock and its workers at hand.

    Attributes:
        a, b: the first and the last worker.
        endings: how tasks have ended, by number.
    """

    def __init__(
        self,
        roles: Iterable[str] = ("chemist", "chemist"),
        *,
        concurrency: int = 1,
        policy: RetryPolicy = POLICY,
        routing: Routing | None = None,
        role_routing: Mapping[str, Routing] | None = None,
        tenants: Mapping[str, float] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.clock = FakeClock(start=1_000.0)
        window = partial(Window, concurrency)
        self.gate = gate or ClosingGate(self.clock)
        self.workers = [
            WorkerRecord(f"crew-{number}", role, window, self.gate)
            for number, role in enumerate(roles, start=1)
        ]
        self.scheduler = Scheduler(
            Roster(self.workers, Accounts(tenants)),
            routing or RoundRobin(),
            Retries(policy),
            self.clock,
            role_routing=role_routing,
        )
        self.a, self.b = self.workers[0], self.workers[-1]
        self.endings: dict[int, Ending] = {}

    def reserve(
        self,
        number: int,
        role: str | None = None,
        **asked: Any,
    ) -> TaskRecord:
        task = AcceptedTask(number, f"task-{number}", "why?", role, **asked)
        record = TaskRecord(task)
        self.scheduler.reserve(record)
        return record

    def accept(
        self,
        *numbers: int,
        role: str | None = None,
        **asked: Any,
    ) -> list[TaskRecord]:
        """Tasks that are committed and were given to a worker, or to whoever has room."""
        records = [self.reserve(n, role, **asked) for n in numbers]
        for record in records:
            assert self.scheduler.assign(record) is None
        return records

    def notify(self, worker: WorkerRecord, *numbers: int) -> None:
        """Have a worker be sent notices with these numbers."""
        for number in numbers:
            worker.notices[number] = NoticeRecord(Notice(number, "news"))

    def take(self, worker: WorkerRecord) -> list[int]:
        return [record.number for record in self.scheduler.take(worker)]

    def send(self) -> dict[str, list[int]]:
        """What is sent now, by worker."""
        sent = self.scheduler.envelopes()
        assert len({worker.name for worker, _ in sent}) == len(sent)
        return {worker.name: [one.number for one in records] for worker, records in sent}

    def join(self, number: int, role: str = "chemist") -> WorkerRecord:
        """A new worker is ready."""
        window = partial(Window, self.a.concurrency)
        worker = WorkerRecord(f"crew-{number}", role, window, self.gate)
        self.workers.append(worker)
        self._note(self.scheduler.join(worker))
        return worker

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> Ending | None:
        """Have an attempt end; the task's ending when it was the last."""
        settled = self.scheduler.settle(worker, outcome)
        return self._note([settled])[0] if isinstance(settled, Decided) else None

    def fail(
        self,
        worker: WorkerRecord,
        number: int,
        verdict: Verdict = "transient",
        retry_after: float | None = None,
        *,
        turn: int = 1,
    ) -> Ending | None:
        failure = Failure("BackendError", verdict, "Error", "no", 12.5, retry_after, turn=turn)
        return self.settle(worker, Outcome(number, failure=failure))

    def answer(self, worker: WorkerRecord, number: int) -> Ending | None:
        record = self.scheduler.get(f"task-{number}")
        session = record.task.session if record else None
        added = Conversation(session, []) if session else None
        return self.settle(worker, Outcome(number, Answer("42", 7.5), conversation=added))

    def hand_back(self, worker: WorkerRecord, *numbers: int) -> None:
        """Have a worker return tasks that it will not start."""
        for number in numbers:
            assert self.settle(worker, Outcome(number, is_returned=True)) is None

    def release(self, number: int, *, is_recorded: bool = True) -> Ending | None:
        """The ending is committed, or cannot be; that of the next task of its session."""
        record = self.scheduler.get(f"task-{number}")
        assert record is not None
        has_grown = is_recorded and self.endings[number].conversation is not None
        decided = self.scheduler.release(record, has_grown=has_grown)
        return None if decided is None else self._note([decided])[0]

    def halt(self, worker: WorkerRecord, reason: str = "for review") -> list[Ending]:
        return self._note(self.scheduler.halt(worker, reason))

    def resume(self, worker: WorkerRecord) -> list[Ending]:
        return self._note(self.scheduler.resume(worker))

    def die(self, worker: WorkerRecord, *, comes_back: bool = True) -> list[Ending]:
        """Have a worker's process die; what ended because of it."""
        return self._note(
            self.scheduler.worker_died(worker, "it was killed", is_coming_back=comes_back)
        )

    def come_back(self, worker: WorkerRecord) -> list[Ending]:
        return self._note(self.scheduler.worker_back(worker))

    def give_up(self, worker: WorkerRecord) -> list[Ending]:
        """Have no new process of a worker be had."""
        return self._note(self.scheduler.worker_gone(worker))

    def wait(self, seconds: float) -> list[Ending]:
        """Let time pass; what ended because of it."""
        self.clock.advance(seconds)
        ended, _ = self.scheduler.wake()
        return self._note(ended)

    def _note(self, decided: Iterable[Decided]) -> list[Ending]:
        endings = []
        for record, ending in decided:
            assert ending.number == record.number
            assert ending.number not in self.endings
            self.endings[ending.number] = ending
            endings.append(ending)
        return endings
