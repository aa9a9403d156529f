"""Whenever the dispatcher, its workers or all of them die: what was accepted ends once.

A real ledger file, the classes that decide, and workers that are told what to do. What the ledger
is to write waits until a rule lets it, so that a crash finds everything else between two steps.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.desk import Desks
from raypool.fingerprints import Fingerprints
from raypool.group_commit import GroupCommit
from raypool.intake import Intake
from raypool.messages import (
    Answer,
    Assignment,
    Failure,
    HeldTask,
    Outcome,
    Receipt,
    Submission,
)
from raypool.recorder import Ended, Recorder
from raypool.records import Conversation, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.settling import Decided
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast
from raypool.window import Window

T = TypeVar("T")

POLICY = RetryPolicy(max_attempts=3, max_deaths=3, initial_seconds=1.0, max_seconds=2.0)
NAMES = ("crew-1", "crew-2")
CONCURRENCY = 2
MANY = 10_000
TICKS = 30
LONG_ENOUGH = 60.0

chances = st.integers(0, 12)
fates = st.sampled_from(["lost", "committed"])
ids = st.sampled_from([f"task-{number}" for number in range(14)])
prompts = st.sampled_from(["why?", "why?", "why?", "how?"])
batches = st.lists(st.tuples(ids, prompts), min_size=1, max_size=6)


class SteppedLoop(asyncio.SelectorEventLoop):
    """Reads are done at once; what is to be written waits in `writes` for `write`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    def run_in_executor(  # type: ignore[override]  # what it returns can be awaited
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        if func.__name__ == "write":
            self.writes.append((lambda: func(*args), done))
        else:
            _do(lambda: func(*args), done)
        return done

    def write(self) -> None:
        """Have the next group committed, and its callers hear of it."""
        _do(*self.writes.popleft())
        self.settle()

    def settle(self) -> None:
        """Run until nothing goes on by itself."""
        self.run_until_complete(_ticks())


class Worker:
    """A worker's process: what it was sent, runs, and has told without hearing of the commit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: deque[Assignment] = deque()
        self.running: dict[int, Assignment] = {}
        self.told: dict[int, tuple[Assignment, Outcome]] = {}

    def begun(self) -> list[Assignment]:
        """What a dispatcher that comes after another must not have run again."""
        return [*self.running.values(), *(work for work, _ in self.told.values())]

    def forget(self, number: int) -> None:
        """Its end is recorded, or not wanted."""
        self.running.pop(number, None)
        self.told.pop(number, None)


class Dispatcher:
    """What a dispatcher holds in memory, which a crash takes from it."""

    def __init__(self, loop: SteppedLoop, path: Path, clock: FakeClock, client: str) -> None:
        self.file = SqliteLedger(path)
        self.client = client
        self.ledger = GroupCommit(self.file)
        self.desks = Desks(clock)
        self.workers = [
            WorkerRecord(name, "chemist", lambda: Window(CONCURRENCY)) for name in NAMES
        ]
        retries = Retries(POLICY)
        self.scheduler = Scheduler(Roster(self.workers), RoundRobin(), retries, clock)
        totals = self.file.totals()
        fingerprints = Fingerprints()
        fingerprints.know("chemist", "a-model")
        broadcast = Broadcast(clock, "crew")
        self.recorder = Recorder(self.ledger, self.scheduler, self.desks, Tally(totals), broadcast)
        self.intake = Intake(
            self.ledger,
            self.scheduler,
            self.desks,
            broadcast,
            last_number=totals.last_number,
            fingerprints=fingerprints,
        )
        self._loop = loop
        self._tasks: list[asyncio.Task[Any]] = []
        self.desks.of(client)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have it go as far as it goes before the next write."""
        task = self._loop.create_task(work)
        self._tasks.append(task)
        self._loop.settle()
        return task

    def record(self, ended: list[Ended], confirm: Callable[[], None] = lambda: None) -> None:
        """Record, and `confirm` once it is."""
        if ended:
            self.begin(self._record(ended, confirm))

    async def _record(self, ended: list[Ended], confirm: Callable[[], None]) -> None:
        following = await self.recorder.record(ended)
        confirm()
        while following:
            following = await self.recorder.record(following)

    def crash(self) -> None:
        """Lose the memory, and the hold on the file."""
        for task in self._tasks:
            task.cancel()
        self._loop.settle()
        self._loop.writes.clear()
        self.file.close()

    def check(self) -> None:
        """Raise what has gone wrong unheard."""
        for task in self._tasks:
            if task.done():
                task.result()


class CrashMachine(RuleBasedStateMachine):
    """A pool that crashes at every boundary, beside what its clients and workers have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "run.db")
        self.clock = FakeClock(start=1_000.0)
        self.loop = SteppedLoop()
        self.processes = {name: Worker(name) for name in NAMES}
        self.life = 0
        self.last_ticket = 0
        self.asked: defaultdict[str, set[str]] = defaultdict(set)
        self.tickets: dict[int, tuple[str, str]] = {}
        self.receipts: list[asyncio.Task[tuple[Receipt, list[Ended]]]] = []
        self.accepted: set[str] = set()
        self.unwanted: set[str] = set()
        self.endings: dict[str, Ending] = {}
        self.runs: Counter[str] = Counter()
        self.may_run: Counter[str] = Counter()
        self.dispatcher = self.new_dispatcher()

    def new_dispatcher(self) -> Dispatcher:
        self.life += 1
        return Dispatcher(self.loop, self.path, self.clock, f"client-{self.life}")

    # What clients do

    @rule(batch=batches, session=st.sampled_from([None, None, "ann", "bob"]))
    def submit(self, batch: list[tuple[str, str]], session: str | None) -> None:
        submissions = []
        for name, prompt in batch:
            self.last_ticket += 1
            task_id = name if session is None else f"{name}-of-{session}"
            self.tickets[self.last_ticket] = (task_id, prompt)
            self.asked[task_id].add(prompt)
            submissions.append(Submission(self.last_ticket, task_id, prompt, session=session))
        dispatcher = self.dispatcher
        accepting = dispatcher.begin(dispatcher.intake.accept(dispatcher.client, submissions))
        self.receipts.append(accepting)
        self.hear()

    @precondition(lambda self: self.unfinished)
    @rule(chance=chances)
    def cancel(self, chance: int) -> None:
        record = self.unfinished[chance % len(self.unfinished)]
        holder = record.worker
        self.unwanted.add(record.task.id)
        ending = self.dispatcher.scheduler.cancel(record)
        if ending is not None:
            self.dispatcher.record([Ended(record, ending)])
        elif holder is not None and not record.has_ended:
            worker, process = self.record_of(holder), self.processes[holder]
            waiting = [one for one in process.sent if one.number == record.number]
            if waiting:
                process.sent.remove(waiting[0])
                self.end(self.dispatcher.scheduler.drop(worker, record.number))
            elif record.number in process.running:
                self.tell(process, Outcome(record.number))
        self.hear()

    # What the ledger does

    @precondition(lambda self: self.loop.writes)
    @rule()
    def write(self) -> None:
        self.loop.write()
        self.hear()

    # What workers do

    @rule(steps=st.integers(1, 12), chance=chances)
    def go_on(self, steps: int, chance: int) -> None:
        for _ in range(steps):
            self.step(chance)

    @rule()
    def send(self) -> None:
        for worker, records in self.dispatcher.scheduler.envelopes():
            for record in records:
                self.processes[worker.name].sent.append(record.assignment())

    @precondition(lambda self: self.startable)
    @rule(chance=chances)
    def begin_turn(self, chance: int) -> None:
        process = self.startable[chance % len(self.startable)]
        work = process.sent.popleft()
        known = self.dispatcher.file.find(work.id)
        assert known is not None, "it runs, and was never accepted"
        assert known.ending is None, "it runs, and its end is committed"
        self.check_turn_in_session(work)
        self.runs[work.id] += 1
        process.running[work.number] = work

    @precondition(lambda self: self.busy)
    @rule(chance=chances)
    def answer(self, chance: int) -> None:
        process = self.busy[chance % len(self.busy)]
        work = process.running[sorted(process.running)[chance % len(process.running)]]
        text = answer_to(work.id, str(work.prompt))
        added = None
        if work.session is not None:
            added = Conversation(work.session, [{"role": "assistant", "content": work.id}])
        self.tell(process, Outcome(work.number, Answer(text, 1.0), conversation=added))

    @precondition(lambda self: self.busy)
    @rule(chance=chances, verdict=st.sampled_from(["transient", "transient", "invalid"]))
    def fail(self, chance: int, verdict: Literal["transient", "invalid"]) -> None:
        process = self.busy[chance % len(self.busy)]
        work = process.running[sorted(process.running)[chance % len(process.running)]]
        self.may_run[work.id] += 1
        failure = Failure("BackendError", verdict, "E", "no")
        self.tell(process, Outcome(work.number, failure=failure))

    @rule(seconds=st.floats(0.0, 5.0))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.end_all(self.dispatcher.scheduler.wake()[0])

    # What dies

    @rule(
        what=st.sampled_from(["crew-1", "crew-2", "dispatcher", "everything", "twice"]), fate=fates
    )
    def die(self, what: str, fate: str) -> None:
        if what in NAMES:
            worker = self.record_of(what)
            self.lose(what)
            decided = self.dispatcher.scheduler.worker_died(worker, "killed", is_coming_back=True)
            self.end_all(decided)
            self.end_all(self.dispatcher.scheduler.worker_back(worker))
            return
        self.crash(fate)
        if what != "dispatcher":
            for name in NAMES:
                self.lose(name)
        if what == "twice":
            self.dispatcher = self.new_dispatcher()
            tasks = self.dispatcher.file.unfinished(0, MANY)
            self.dispatcher.begin(self.dispatcher.intake.resume(tasks[: len(tasks) // 2]))
            self.crash(fate)
        self.come_back()

    # What must hold

    @invariant()
    def nothing_went_wrong_unheard(self) -> None:
        self.dispatcher.check()

    @invariant()
    def ends_stay_and_belong_to_their_questions(self) -> None:
        found = self.dispatcher.file.ended(0, MANY)
        assert len({one.task.id for one in found}) == len(found), "it has ended twice"
        ended = {one.task.id: one.ending for one in found}
        for one in found:
            assert one.task.prompt in self.asked[one.task.id]
            if one.ending.state == "completed":
                assert one.ending.text == answer_to(one.task.id, str(one.task.prompt))
        for task_id, ending in self.endings.items():
            assert ended[task_id] == ending
        self.endings = ended

    @invariant()
    def what_is_accepted_stays(self) -> None:
        unfinished = {task.id for task in self.dispatcher.file.unfinished(0, MANY)}
        assert not unfinished & set(self.endings)
        assert self.accepted <= unfinished | set(self.endings)

    @invariant()
    def turns_of_a_session_end_in_order(self) -> None:
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for one in self.dispatcher.file.ended(0, MANY):
            if one.task.session is not None and one.task.id not in self.unwanted:
                numbers[one.task.session].append(one.task.number)
        assert all(line == sorted(line) for line in numbers.values())

    @invariant()
    def no_turn_runs_needlessly(self) -> None:
        for task_id, count in self.runs.items():
            assert count <= 1 + self.may_run[task_id]

    def teardown(self) -> None:
        """Let everything run to its end, then leave nothing behind."""
        try:
            self.finish()
        finally:
            self.dispatcher.crash()
            self.loop.close()
            self.directory.cleanup()

    def finish(self) -> None:
        """Every task ends, and every client has heard of it."""
        for _ in range(MANY):
            if not self.step(0):
                break
        self.ends_stay_and_belong_to_their_questions()
        self.no_turn_runs_needlessly()
        assert self.dispatcher.file.unfinished(0, MANY) == []
        assert self.accepted <= set(self.endings)
        assert self.dispatcher.scheduler.unfinished == 0

    # The machinery

    def step(self, chance: int) -> bool:
        """Do what can be done, one thing at a time; false when there is nothing."""
        self.send()
        if self.startable:
            self.begin_turn(chance)
        elif self.loop.writes:
            self.write()
        elif self.busy:
            self.answer(chance)
        elif self.dispatcher.scheduler.waits:
            self.advance(LONG_ENOUGH)
        else:
            return False
        return True

    @property
    def unfinished(self) -> list[TaskRecord]:
        known = map(self.dispatcher.scheduler.get, sorted(self.asked))
        return [record for record in known if record is not None]

    @property
    def startable(self) -> list[Worker]:
        processes = self.processes.values()
        return [one for one in processes if one.sent and len(one.running) < CONCURRENCY]

    @property
    def busy(self) -> list[Worker]:
        return [one for one in self.processes.values() if one.running]

    def record_of(self, name: str) -> WorkerRecord:
        return self.dispatcher.scheduler.roster[name]

    def check_turn_in_session(self, work: Assignment) -> None:
        """Only what somebody has cancelled may be overtaken."""
        if work.session is not None and work.id not in self.unwanted:
            unfinished = self.dispatcher.file.unfinished(0, MANY)
            line = [task for task in unfinished if task.session == work.session]
            first = next(task for task in line if task.id not in self.unwanted)
            assert work.number == first.number, "an earlier task of its session has not ended"

    def tell(self, process: Worker, outcome: Outcome) -> None:
        """Have the dispatcher hear of an outcome, which its worker keeps until it is recorded."""
        work = process.running.pop(outcome.number)
        process.told[outcome.number] = (work, outcome)
        self.pass_on(process, outcome)

    def pass_on(self, process: Worker, outcome: Outcome) -> None:
        worker = self.record_of(process.name)
        worker.window.ended(1, self.clock.monotonic())
        settled = self.dispatcher.scheduler.settle(worker, outcome)
        if isinstance(settled, Decided):
            self.end(settled, lambda: process.forget(outcome.number))
        else:
            process.forget(outcome.number)

    def end(self, decided: Decided | None, confirm: Callable[[], None] = lambda: None) -> None:
        if decided is not None:
            self.dispatcher.record([Ended(*decided)], confirm)

    def end_all(self, decided: list[Decided]) -> None:
        for one in decided:
            self.end(one)

    def lose(self, name: str) -> None:
        """A worker's process is killed: what it has begun may be run again."""
        for work in self.processes[name].begun():
            self.may_run[work.id] += 1
        self.processes[name] = Worker(name)

    def crash(self, fate: str) -> None:
        """The write under way is rolled back, or is committed and nobody hears of it."""
        if self.loop.writes and fate == "committed":
            write, _ = self.loop.writes.popleft()
            write()
        self.dispatcher.crash()
        self.receipts.clear()

    def come_back(self) -> None:
        """Another dispatcher goes on with the ledger and the workers that are left."""
        dispatcher = self.dispatcher = self.new_dispatcher()
        for process in self.processes.values():
            process.sent.clear()
            begun = [HeldTask.of(work) for work in process.begun()]
            taking = dispatcher.begin(
                dispatcher.intake.take_over(self.record_of(process.name), begun, [])
            )
            for number in taking.result()[1]:
                process.forget(number)
        resuming = dispatcher.begin(dispatcher.intake.resume(dispatcher.file.unfinished(0, MANY)))
        dispatcher.record(resuming.result())
        for process in self.processes.values():
            for _, outcome in list(process.told.values()):
                self.pass_on(process, outcome)

    def hear(self) -> None:
        """What clients have been told is in the ledger."""
        for accepting in [one for one in self.receipts if one.done()]:
            self.receipts.remove(accepting)
            receipt, ended = accepting.result()
            self.dispatcher.record(ended)
            for ticket, _ in receipt.workers:
                task_id, prompt = self.tickets[ticket]
                found = self.dispatcher.file.find(task_id)
                assert found is not None, "it is accepted, and not committed"
                assert found.task.prompt == prompt, "another question is accepted under its id"
                self.accepted.add(task_id)
        desk = self.dispatcher.desks.of(self.dispatcher.client)
        for told in self.loop.run_until_complete(desk.collect(0.0)):
            task_id, prompt = self.tickets[told.ticket]
            known = self.dispatcher.file.find(task_id)
            assert known is not None
            assert known.task.prompt == prompt, "its client has another question's answer"
            assert known.ending is not None, "its client has heard of an end that is not committed"
            assert told.ending is not None
            assert told.ending.text == known.ending.text


def answer_to(task_id: str, prompt: str) -> str:
    return f"answer of {task_id} to {prompt}"


def _do(work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it belongs to who waits
        done.set_exception(error)


async def _ticks() -> None:
    for _ in range(TICKS):
        await asyncio.sleep(0)


TestCrashes = CrashMachine.TestCase
TestCrashes.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
