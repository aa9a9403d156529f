"""Whatever happens in whatever order: every task ends once, in its order, in one place.

Whoever is sent it, whatever is asked of its priority, and however narrow the gate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raypool.capacity.gate import ClosingGate
from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.events import Verdict
from raypool.messages import Answer, Failure, Notice, Outcome
from raypool.records import AcceptedTask, Ending
from raypool.retries import Retries
from raypool.roster import NoticeRecord, Roster, WorkerRecord
from raypool.routing import LeastLoaded, NextFree, RoundRobin, Routing
from raypool.scheduler import Scheduler
from raypool.settling import Decided, Delayed
from raypool.task_record import TaskRecord
from raypool.window import Window
from tests.gates import NarrowGate

POLICY = RetryPolicy(max_attempts=3, max_deaths=2, initial_seconds=1.0, max_seconds=2.0)
ROLES = ["chemist", "chemist", "historian"]

chances = st.integers(0, 12)
verdicts = st.sampled_from(["transient", "transient", "invalid", "fatal"])
roles = st.sampled_from([None, *ROLES])
sessions = st.sampled_from([None, None, "ann", "bob"])
pins = st.sampled_from([None, None, None, "crew-1", "crew-3"])
priorities = st.sampled_from([0, 0, 0, 1, 5])
tenants = st.sampled_from([None, None, "dan", "eve"])
races = st.sampled_from([None, None, None, "first", "second"])
policies = st.sampled_from([RoundRobin, LeastLoaded, NextFree])
asked = st.fixed_dictionaries(
    {"session": sessions, "worker": pins, "priority": priorities, "tenant": tenants, "race": races}
)
longer_than_any_own_wait = st.floats(2.0, 400.0)


class SchedulerMachine(RuleBasedStateMachine):
    """A scheduler beside a model that knows what each task has been through."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(start=1_000.0)
        self.last_number = 0
        self.joined = 0
        self.records: dict[int, TaskRecord] = {}
        self.uncommitted: list[TaskRecord] = []
        self.unrecorded: list[TaskRecord] = []
        self.endings: dict[int, Ending] = {}
        self.attempts: defaultdict[int, int] = defaultdict(int)
        self.deaths: defaultdict[int, int] = defaultdict(int)
        self.given_first: dict[int, str | None] = {}
        self.started_first: defaultdict[str, list[int]] = defaultdict(list)
        self.started_in_session: defaultdict[str, list[int]] = defaultdict(list)
        self.started: set[int] = set()
        self.moved: set[int] = set()
        self.closed_until = 0.0
        self.workers: list[WorkerRecord] = []
        self.copied: set[int] = set()
        self.narrow: NarrowGate | None = None

    @initialize(
        concurrency=st.integers(1, 4),
        limit=st.none() | st.integers(1, 3),
        count=st.integers(1, 30),
        policy=policies,
        room=st.none() | st.integers(1, 5),
    )
    def start(
        self,
        concurrency: int,
        limit: int | None,
        count: int,
        policy: type[Routing],
        room: int | None,
    ) -> None:
        self.concurrency = concurrency
        self.narrow = None if room is None else NarrowGate(room)
        gate = self.gate = self.narrow or ClosingGate(self.clock)
        self.window = partial(Window, concurrency, limit)
        self.workers = [
            WorkerRecord(f"crew-{number}", role, self.window, gate)
            for number, role in enumerate(ROLES, start=1)
        ]
        roster, retries = Roster(self.workers), Retries(POLICY)
        self.scheduler = Scheduler(roster, policy(), retries, self.clock)
        self.accept(count, role=None, asked={})

    @rule(count=st.integers(1, 12), role=roles, asked=asked)
    def accept(self, count: int, role: str | None, asked: dict[str, Any]) -> None:
        for _ in range(count):
            self.reserve(role, asked)
        self.commit()
        self.take()

    @rule(role=roles, asked=asked)
    def reserve(self, role: str | None, asked: dict[str, Any]) -> None:
        self.last_number += 1
        number = self.last_number
        task = AcceptedTask(number, f"task-{number}", "why?", role, **asked)
        self.uncommitted.append(TaskRecord(task))
        self.scheduler.reserve(self.uncommitted[-1])

    @precondition(lambda self: self.uncommitted)
    @rule()
    def commit(self) -> None:
        for record in self.uncommitted:
            self.records[record.number] = record
            ending = self.scheduler.assign(record)
            self.given_first[record.number] = record.worker
            if ending is not None:
                self.end(Decided(record, ending))
        self.uncommitted.clear()

    @precondition(lambda self: self.uncommitted)
    @rule()
    def lose_the_batch(self) -> None:
        for record in self.uncommitted:
            self.scheduler.forget(record)
        self.uncommitted.clear()

    @rule()
    def take(self) -> None:
        paused = {number for number, record in self.records.items() if record.is_paused}
        in_own_line = {one.number for one in self.records.values() if one.worker is not None}
        for worker, taken in self.scheduler.envelopes():
            for line in (True, False):
                of_line = [one for one in taken if (one.number in in_own_line) == line]
                self.check_order(of_line, paused)
            self.check_taken(worker, taken)
        for worker in self.workers:
            waits_for_company = bool(worker.held) and self.is_anything_outlived
            late = self.scheduler.take(worker) if worker.has_slot else []
            if late and not waits_for_company:
                assert all(one.task.race for one in late), "it was idle, with something to do"
            if late:
                self.check_taken(worker, late)

    def check_order(self, taken: list[TaskRecord], paused: set[int]) -> None:
        """What a worker is sent of one line goes out in the order of that line."""
        fresh = [one.task for one in taken if one.number not in paused and not one.task.race]
        if self.narrow is None:
            urgencies = [-task.priority for task in fresh]
            assert urgencies == sorted(urgencies)
        for key in {(task.priority, task.tenant) for task in fresh}:
            numbers = [task.number for task in fresh if (task.priority, task.tenant) == key]
            assert numbers == sorted(numbers)

    def check_taken(self, worker: WorkerRecord, taken: list[TaskRecord]) -> None:
        assert taken
        assert worker.is_healthy
        assert worker.halted is None
        assert self.clock.monotonic() >= self.closed_until
        assert len(worker.held) <= self.concurrency + worker.window.prefetch
        if not self.copied & set(worker.held):
            most_deaths = max(self.deaths[number] for number in worker.held)
            assert most_deaths < 1 or len(worker.held) == 1
        assert not any(one.tries.deaths for one in worker.notices.values())
        for record in taken:
            task = record.task
            assert not record.has_ended
            pinned = self.scheduler.roster.get(task.worker)
            if pinned is None or pinned.is_leaving:
                assert task.role in (None, worker.role) or task.worker == worker.name
            else:
                assert worker is pinned
            if record.original is None and record.number not in self.started:
                if task.session is not None:
                    self.started_in_session[task.session].append(record.number)
                assert record.assignment().attempt == 1
                self.started.add(record.number)
                is_at_home = self.given_first[record.number] == worker.name
                is_plain = not (task.session or task.priority or task.tenant or task.race)
                if is_at_home and is_plain and record.number not in self.moved:
                    self.started_first[worker.name].append(record.number)

    @precondition(lambda self: self.held)
    @rule(chance=chances)
    def answer(self, chance: int) -> None:
        worker, record = self.held[chance % len(self.held)]
        had_ended = record.has_ended
        self.answer_task(worker, record)
        assert had_ended or self.endings[record.number].state == "completed"
        self.take()

    @precondition(lambda self: self.held)
    @rule(chance=chances, verdict=verdicts)
    def fail(self, chance: int, verdict: Verdict) -> None:
        worker, record = self.held[chance % len(self.held)]
        self.attempts[record.number] += 1
        failure = Failure("BackendError", verdict, "E", "no")
        self.settle(worker, Outcome(record.number, failure=failure))
        is_last = verdict != "transient" or self.attempts[record.number] >= POLICY.max_attempts
        if record.number not in self.copied:
            assert record.has_ended == (is_last or record.is_cancelled)
        self.take()

    @precondition(lambda self: self.held)
    @rule(chance=chances)
    def pause(self, chance: int) -> None:
        worker, record = self.held[chance % len(self.held)]
        goes_on = not (record.is_cancelled or record.has_ended)
        self.settle(worker, Outcome(record.number, is_paused=True))
        assert record.is_paused == goes_on
        assert record.line is (worker.line if goes_on else None)
        self.take()

    @precondition(lambda self: self.held)
    @rule(chance=chances)
    def copy(self, chance: int) -> None:
        holder, record = self.held[chance % len(self.held)]
        worker = None if record.has_ended else self.scheduler.free_worker(record)
        copy = None if worker is None else self.scheduler.copy(record, worker)
        if worker is not None and copy is not None:
            self.copied.add(record.number)
            assert worker is not holder
            assert worker.held[record.number] is copy

    @rule()
    def join(self) -> None:
        if len(self.workers) < 6:
            self.joined += 1
            name = f"crew-{3 + self.joined}"
            worker = WorkerRecord(name, "chemist", self.window, self.gate)
            self.workers.append(worker)
            self.end_all(self.scheduler.join(worker))
            self.take()

    @rule(chance=chances)
    def dismiss(self, chance: int) -> None:
        staying = [one for one in self.workers if not one.is_leaving and one.role == "chemist"]
        if len(staying) > 1:
            self.end_all(self.scheduler.dismiss(staying[chance % len(staying)]))
            self.take()

    @precondition(lambda self: any(one.is_leaving and one.is_empty for one in self.workers))
    @rule()
    def remove(self) -> None:
        worker = next(one for one in self.workers if one.is_leaving and one.is_empty)
        self.workers.remove(worker)
        assert self.scheduler.remove(worker) == []
        self.take()

    @precondition(lambda self: self.held)
    @rule(chance=chances, retry_after=longer_than_any_own_wait)
    def refuse(self, chance: int, retry_after: float) -> None:
        worker, record = self.held[chance % len(self.held)]
        failure = Failure("BackendError", "refused", "E", "no", retry_after=retry_after)
        waits = not record.is_cancelled and record.original is None and self.narrow is None
        self.settle(worker, Outcome(record.number, failure=failure))
        if waits and not record.has_ended:
            self.closed_until = max(self.closed_until, self.clock.monotonic() + retry_after)

    @precondition(lambda self: any(record.is_cancelled for _, record in self.held))
    @rule(is_dropped=st.booleans())
    def interrupt(self, is_dropped: bool) -> None:
        for worker, record in self.held:
            if record.is_cancelled:
                if is_dropped:
                    dropped = self.scheduler.drop(worker, record.number)
                    assert dropped is not None or record.number in self.copied
                    self.end_all([] if dropped is None else [dropped])
                self.settle(worker, Outcome(record.number))
                assert record.has_ended

    @rule(chance=chances)
    def hear_of_a_task_that_is_not_held(self, chance: int) -> None:
        worker = self.workers[chance % len(self.workers)]
        number = chance % (self.last_number + 2)
        if number not in worker.held:
            outcome = Outcome(number, Answer("42", 1.0))
            assert self.scheduler.settle(worker, outcome) is None

    @precondition(lambda self: self.records or self.uncommitted)
    @rule(chance=chances)
    def cancel(self, chance: int) -> None:
        known = [*self.records.values(), *self.uncommitted]
        record = known[chance % len(known)]
        ending = self.scheduler.cancel(record)
        if ending is not None:
            assert ending.state == "cancelled"
            self.end(Decided(record, ending))

    @precondition(lambda self: any(worker.waiting for worker in self.workers))
    @rule(chance=chances)
    def cancel_one_that_waits(self, chance: int) -> None:
        waiting = [one for worker in self.workers for one in worker.waiting.values()]
        record = waiting[chance % len(waiting)]
        ending = self.scheduler.cancel(record)
        assert ending is not None
        self.end(Decided(record, ending))

    @precondition(lambda self: any(worker.is_healthy for worker in self.workers))
    @rule(chance=chances, is_rare=st.integers(0, 2))
    def die(self, chance: int, is_rare: int) -> None:
        healthy = [worker for worker in self.workers if worker.is_healthy]
        worker = healthy[chance % len(healthy)]
        if is_rare:
            return
        held = list(worker.held)
        for number in held:
            self.deaths[number] += 1
        dropped = self.scheduler.blame_notice(worker)
        assert dropped is None or not held
        decided = self.scheduler.worker_died(worker, "it was killed", is_coming_back=True)
        for record, ending in decided:
            if ending.state == "failed" and record.number in self.deaths:
                if record.number in self.copied or not self.may_still_run(record.task):
                    continue
                assert (held, self.deaths[record.number]) == ([record.number], POLICY.max_deaths)
                self.attempts[record.number] += 1
        self.end_all(decided)
        assert not worker.held
        assert not worker.takes_tasks

    def may_still_run(self, task: AcceptedTask) -> bool:
        """Whether there is a worker, now or later, that may be given a task."""
        staying = [one for one in self.workers if one.may_take_tasks and not one.is_leaving]
        if self.scheduler.roster.get(task.worker) is not None:
            return task.worker in [one.name for one in staying]
        return any(task.role in (None, one.role) for one in staying)

    @precondition(lambda self: any(worker.is_coming_back for worker in self.workers))
    @rule(chance=chances, is_rare=st.integers(0, 5))
    def come_back(self, chance: int, is_rare: int) -> None:
        dead = [worker for worker in self.workers if worker.is_coming_back]
        worker = dead[chance % len(dead)]
        if is_rare:
            self.end_all(self.scheduler.worker_back(worker))
            assert worker.takes_tasks
        else:
            self.end_all(self.scheduler.worker_gone(worker))
            assert worker.unfinished == len(worker.waiting)
        self.take()

    @precondition(lambda self: any(worker.takes_tasks for worker in self.workers))
    @rule(chance=chances, returns_all=st.booleans(), tells_late=st.booleans())
    def halt(self, chance: int, returns_all: bool, tells_late: bool) -> None:
        able = [worker for worker in self.workers if worker.takes_tasks]
        worker = able[chance % len(able)]
        held = list(worker.held)
        for number in held if returns_all else held[self.concurrency :]:
            self.settle(worker, Outcome(number, is_returned=True))
            assert self.scheduler.take(worker) == []
        if tells_late:
            self.take()
        self.end_all(self.scheduler.halt(worker, "for review"))
        self.take()

    @precondition(lambda self: any(worker.halted for worker in self.workers))
    @rule(chance=chances)
    def resume(self, chance: int) -> None:
        halted = [worker for worker in self.workers if worker.halted]
        self.end_all(self.scheduler.resume(halted[chance % len(halted)]))
        self.take()

    @rule(chance=chances)
    def notify(self, chance: int) -> None:
        self.last_number += 1
        worker = self.workers[chance % len(self.workers)]
        if worker.may_take_tasks:
            worker.notices[self.last_number] = NoticeRecord(Notice(self.last_number, "news"))

    @precondition(lambda self: any(worker.notices for worker in self.workers))
    @rule(chance=chances)
    def hear(self, chance: int) -> None:
        told = [worker for worker in self.workers if worker.notices and worker.is_healthy]
        for worker in told[chance % (len(told) + 1) :]:
            number = next(iter(worker.notices))
            del worker.notices[number]
            assert self.scheduler.settle(worker, Outcome(number)) is None
        self.take()

    @rule(seconds=st.floats(0.0, 3.0) | st.floats(0.0, 500.0))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        ended, due = self.scheduler.wake()
        self.end_all(ended)
        assert due is None or due > 0
        assert (due is not None) == self.scheduler.waits
        self.take()

    @rule(is_recorded=st.booleans())
    def record_the_endings(self, is_recorded: bool) -> None:
        unrecorded, self.unrecorded = self.unrecorded, []
        for record in unrecorded:
            following = self.scheduler.release(record, has_grown=is_recorded)
            if following is not None:
                assert following.record.task.session == record.task.session
                self.end(following)
        self.take()

    @invariant()
    def counts_add_up(self) -> None:
        if self.last_number:
            copies = sum(record.copy is not None for record in self.records.values())
            given = sum(worker.unfinished for worker in self.workers) - copies
            given += self.scheduler.unassigned
            others = len(self.uncommitted) + len(self.unrecorded)
            assert self.scheduler.unfinished == given + others
            assert given == len(self.records) - len(self.endings)

    @invariant()
    def no_task_is_in_two_places(self) -> None:
        if self.last_number:
            places = [
                (number, worker.name)
                for worker in self.workers
                for number, record in (*worker.held.items(), *worker.waiting.items())
                if record.original is None and not record.has_ended
            ]
            assert len({number for number, _ in places}) == len(places)
            assert all(self.records[number].worker == name for number, name in places)

    @invariant()
    def what_is_set_aside_is_what_workers_hold(self) -> None:
        if self.narrow is not None:
            held = [one for worker in self.workers for one in worker.held.values()]
            set_aside = [one.reserved for one in held]
            assert sorted(map(id, self.narrow.out)) == sorted(map(id, set_aside))

    @invariant()
    def note_what_has_moved(self) -> None:
        for record in self.records.values():
            if record.worker != self.given_first[record.number]:
                self.moved.add(record.number)

    @invariant()
    def tasks_of_a_session_are_out_one_at_a_time_and_in_order(self) -> None:
        out = Counter(one.task.session for _, one in self.held if not one.has_ended)
        assert all(count == 1 for session, count in out.items() if session is not None)
        for numbers in self.started_in_session.values():
            assert numbers == sorted(numbers)

    @invariant()
    def first_attempts_start_in_the_order_of_submission(self) -> None:
        for numbers in self.started_first.values():
            assert numbers == sorted(numbers)

    @invariant()
    def workers_have_work_exactly_while_they_have_unfinished_tasks(self) -> None:
        if self.last_number:
            for worker in self.workers:
                has_work = self.scheduler.has_work_up_to(worker, self.last_number)
                assert has_work == (worker.unfinished > 0 or bool(worker.notices))

    def teardown(self) -> None:
        """Let everything run to its end with workers that answer."""
        if not self.last_number:
            return
        if self.uncommitted:
            self.commit()
        for worker in self.workers:
            if worker.is_coming_back:
                self.end_all(self.scheduler.worker_back(worker))
            if worker.halted:
                self.end_all(self.scheduler.resume(worker))
            for number in list(worker.notices):
                del worker.notices[number]
                assert self.scheduler.settle(worker, Outcome(number)) is None
        rounds = 0
        while self.scheduler.unfinished or self.scheduler.waits:
            rounds += 1
            assert rounds <= 2 * self.last_number + 10, "it does not come to rest"
            for worker, record in self.held:
                self.answer_task(worker, record)
            self.record_the_endings(is_recorded=True)
            self.advance(self.scheduler.wake()[1] or 0.0)

        assert set(self.endings) == set(self.records)
        assert self.scheduler.unfinished == 0

    @property
    def is_anything_outlived(self) -> bool:
        """Whether a worker has died with a task that is unfinished: such a one runs by itself."""
        return any(one.tries.deaths and not one.has_ended for one in self.records.values())

    @property
    def held(self) -> list[tuple[WorkerRecord, TaskRecord]]:
        """What workers hold, those with most attempts behind them first."""
        held = [(worker, record) for worker in self.workers for record in worker.held.values()]
        return sorted(held, key=lambda one: -one[1].tries.attempts)

    def answer_task(self, worker: WorkerRecord, record: TaskRecord) -> None:
        self.attempts[record.number] += 1
        self.settle(worker, Outcome(record.number, Answer("42", 1.0)))

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> None:
        """Tell the scheduler; a loser's outcome ends nothing."""
        worker.window.ended(1, self.clock.monotonic())
        settled = self.scheduler.settle(worker, outcome)
        if isinstance(settled, Decided):
            self.end(settled)
        elif isinstance(settled, Delayed):
            assert settled.record.number in worker.waiting

    def end_all(self, decided: Iterable[Decided]) -> None:
        for one in decided:
            self.end(one)

    def end(self, decided: Decided) -> None:
        record, ending = decided
        assert record.number not in self.endings, "it has ended before"
        assert record.has_ended
        assert ending.number == record.number
        assert ending.worker == record.worker
        if record.number not in self.copied:
            assert ending.attempts == self.attempts[record.number], "a refusal is no attempt"
        self.endings[record.number] = ending
        self.unrecorded.append(record)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
