"""Keeping workers busy through their links, and knowing when all is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import pytest

from raypool.capacity.gate import ClosingGate, Gate
from raypool.clock import SystemClock
from raypool.config import RetryPolicy
from raypool.desk import Desks
from raypool.errors import LedgerError, UnknownWorker
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.ledger import Progress, Totals
from raypool.link import WorkerGone
from raypool.messages import (
    Answer,
    Asked,
    Assignment,
    Batch,
    Failure,
    Notice,
    Outcome,
    Piece,
    TicketText,
    WorkerReport,
)
from raypool.recorder import Ended
from raypool.records import AcceptedTask, Conversation, Death, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import NextFree, RoundRobin, Routing
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast
from raypool.window import Window

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]

QUICK = RetryPolicy(max_attempts=3, initial_seconds=0.001, max_seconds=0.001)


def answered(number: int) -> Outcome:
    return Outcome(number, Answer("42", 1.0))


def failed(number: int, verdict: Any = "transient", retry_after: float | None = None) -> Outcome:
    return Outcome(number, failure=Failure("BackendError", verdict, "E", "no", 1.0, retry_after))


class FakeLink:
    """A worker as a sender sees it; it answers what it is let through.

    Attributes:
        envelopes: the numbers in each envelope that was sent.
        cancelled: the numbers of each cancellation.
        called_back: the counts of tasks that were called back.
        asked: the counts that `finished` was asked for.
        replies: by number, the outcomes of its attempts in order; an answer when there is none.
        gate: attempts wait for it; a reply that asks to wait closes it for so long.
        pieces: by number, what is generated before its outcome.
        not_started: the tasks that it promises not to start when they are cancelled.
        heard: the numbers of the notices that were sent, in order.
        notices: the notices.
        news: by number, the outcome of hearing a notice; nothing when there is none.
        door: notices wait for it.
        halted: why it takes no tasks: it returns those that come, and says so when it is asked.
        is_silent: it does not answer when it is asked how it is.
        goodbye: what the worker dies of, as soon as it is set.
        confirmed: the tasks whose end it knows to be dealt with.
    """

    def __init__(self) -> None:
        self.confirmed: list[int] = []
        self.envelopes: list[list[int]] = []
        self.cancelled: list[list[int]] = []
        self.called_back: list[int] = []
        self.asked: list[int] = []
        self.replies: dict[int, list[Outcome]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.pieces: dict[int, list[str]] = {}
        self.not_started: set[int] = set()
        self.heard: list[int] = []
        self.notices: list[Notice] = []
        self.news: dict[int, Outcome] = {}
        self.door = asyncio.Event()
        self.door.set()
        self.halted: str | None = None
        self.is_silent = False
        self.questions = 0
        self.kills = 0
        self.goodbye: BaseException | None = None
        self._ended = self._received = 0
        self._changed = asyncio.Condition()

    async def send(self, assignments: list[Assignment]) -> AsyncIterator[Batch]:
        self.envelopes.append([one.number for one in assignments])
        first = self._received + 1
        self._received += len(assignments)
        for place, one in enumerate(assignments, start=first):
            await self._let_through()
            for text in self.pieces.get(one.number, []):
                yield Batch([], [Piece(one.number, text)])
            async with self._changed:
                self._ended += 1
                self._changed.notify_all()
            if place <= max(self.called_back, default=0):
                yield Batch([Outcome(one.number, is_returned=True, is_called_back=True)])
                continue
            reply = self._reply(one.number)
            if reply.failure is not None and reply.failure.retry_after:
                self.gate.clear()
                asyncio.get_running_loop().call_later(reply.failure.retry_after, self.gate.set)
            yield Batch([reply])

    def confirm(self, numbers: Iterable[int]) -> None:
        self.confirmed += numbers

    async def take_over(self, numbers: list[int]) -> AsyncIterator[Batch]:
        async for batch in self.send([Assignment(n, f"task-{n}", "why?") for n in numbers]):
            yield batch

    async def answered(self, notice: Notice) -> Outcome:
        return await self.notify(notice)

    async def call_back(self, count: int) -> None:
        if self.goodbye is not None:
            raise self.goodbye
        self.called_back.append(count)
        self.gate.set()

    async def notify(self, notice: Notice) -> Outcome:
        self.heard.append(notice.number)
        self.notices.append(notice)
        await self.door.wait()
        if self.goodbye is not None:
            raise self.goodbye
        return self.news.get(notice.number) or Outcome(notice.number)

    async def status(self) -> WorkerReport | None:
        await asyncio.sleep(0)
        self.questions += 1
        if self.is_silent or self.goodbye is not None:
            return None
        return WorkerReport("node", 1, [], 0, self._ended, self.halted)

    async def finished(self, count: int) -> None:
        self.asked.append(count)
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended >= count or self.goodbye is not None)
        if self.goodbye is not None:
            raise self.goodbye

    def has_finished(self, count: int) -> bool:
        return bool(self.asked) and self._ended >= count

    async def cancel(self, numbers: list[int]) -> list[int]:
        if self.goodbye is not None:
            raise self.goodbye
        self.cancelled.append(numbers)
        return [number for number in numbers if number in self.not_started]

    def kill(self) -> None:
        self.kills += 1

    async def die(self, why: str = "killed") -> None:
        self.goodbye = WorkerGone(why)
        self.gate.set()
        self.door.set()
        async with self._changed:
            self._changed.notify_all()

    async def _let_through(self) -> None:
        await self.gate.wait()
        if self.goodbye is not None:
            raise self.goodbye

    def _reply(self, number: int) -> Outcome:
        if self.halted is not None:
            return Outcome(number, is_returned=True)
        replies = self.replies.get(number)
        return replies.pop(0) if replies else answered(number)


class FakeRecorder:
    """Records at once; keeps what ended, in order."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.endings: dict[int, Ending] = {}
        self.deaths: list[Death] = []
        self.sent: dict[int, Any] = {}
        self.took_back: list[int] = []
        self.failures: list[LedgerError] = []
        self.maybe_billed = 0
        self.snapshots: dict[str, str] = {}
        self.is_behind = False
        self.on_failure: Callable[[], None] = lambda: None
        self.on_recovery: Callable[[], None] = lambda: None
        self._scheduler = scheduler

    async def note(self, progress: Progress) -> None:
        self.deaths += progress.deaths
        self.sent.update(progress.sent)
        self.took_back += [number for number, worker in progress.sent.items() if worker is None]

    async def note_sent(self, worker: str, numbers: Iterable[int]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.sent.update(dict.fromkeys(numbers, worker))

    def cut_short(self, turns: int) -> None:
        self.maybe_billed += turns

    def keep(self, record: TaskRecord, outcome: Outcome) -> None:
        return None

    async def record(self, ended: list[Ended], snapshots: dict[str, str]) -> list[Ended]:
        self.snapshots |= snapshots
        followed = []
        for one in ended:
            assert one.record.number not in self.endings
            self.endings[one.record.number] = one.ending
            has_grown = one.ending.conversation is not None
            decided = self._scheduler.release(one.record, has_grown=has_grown)
            if decided is not None:
                followed.append(Ended(*decided))
        return followed

    async def settle(self) -> None:
        return None

    @property
    def states(self) -> dict[int, str]:
        return {number: ending.state for number, ending in self.endings.items()}


class Floor:
    """A sender with two workers.

    Attributes:
        a, b: the workers' links.
        tally: what was spent in vain.
        replaced: the names of the workers that were to be replaced.
        returns: those may come back.
    """

    def __init__(
        self,
        policy: RetryPolicy = QUICK,
        *,
        after: float | None = None,
        routing: Routing | None = None,
        gate: Gate | None = None,
    ) -> None:
        clock = SystemClock()
        self.clock = clock
        gate = gate or ClosingGate(clock)
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(1), gate) for n in (1, 2)
        ]
        roster = Roster(self.workers)
        self.scheduler = Scheduler(roster, routing or RoundRobin(), Retries(policy), clock)
        self.a, self.b = FakeLink(), FakeLink()
        self.recorder = FakeRecorder(self.scheduler)
        self.links: Any = {"crew-1": self.a, "crew-2": self.b}
        self.desks = Desks(clock)
        self.broadcast = Broadcast(clock, "crew")
        self.tally = Tally(Totals())
        self.replaced: list[str] = []
        self.returns = False
        recorder: Any = self.recorder
        self.sender = Sender(
            self.scheduler,
            self.links,
            recorder,
            Hedger(Hedging(clock, after=after), self.scheduler, self.tally, self.broadcast, clock),
            desks=self.desks,
            broadcast=self.broadcast,
            clock=clock,
        )
        self.sender.replace = self._replace

    def bring_back(self, worker: WorkerRecord) -> FakeLink:
        """Have a new process of a dead worker be ready; the link to it."""
        link = self.links[worker.name] = FakeLink()
        decided = self.scheduler.worker_back(worker)
        self.sender.resend_notices(worker)
        self.sender.settled(decided)
        return link

    async def events(self) -> list[tuple[str, str | None]]:
        """The names of what happened since it was watched first, and of the workers."""
        told = await self.broadcast.next("watcher", 0.0)
        return [(event.name, event.worker) for event in told]

    def _replace(self, worker: WorkerRecord) -> bool:
        self.replaced.append(worker.name)
        return self.returns

    def accept(self, *numbers: int, session: str | None = None) -> list[TaskRecord]:
        tasks = [AcceptedTask(n, f"task-{n}", "why?", session=session) for n in numbers]
        records = [TaskRecord(task) for task in tasks]
        for record in records:
            self.scheduler.reserve(record)
            assert self.scheduler.assign(record) is None
        self.sender.pump()
        return records

    async def reach(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until `condition` holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - whatever the condition is made of
                await asyncio.sleep(0)

    async def finish(self, number: int) -> None:
        """Wait until all up to `number` has ended, and its ending is recorded."""
        async with asyncio.timeout(10):
            await self.sender.finish_up_to(number)
            await self.sender.settle_all(10.0)


@pytest.fixture(autouse=True)
def no_defect_is_met(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    yield
    if "logged" not in request.node.name:
        told = caplog.get_records("call")
        assert [one.getMessage() for one in told if one.levelno >= logging.ERROR] == []


async def finishing(floor: Floor, number: int) -> asyncio.Task[None]:
    """A wait that has begun, and has asked whom it had to ask."""
    task = asyncio.create_task(floor.sender.finish_up_to(number))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_every_worker_is_sent_what_it_has_room_for() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.b.gate.clear()

    floor.accept(*range(1, 11))
    await floor.reach(lambda: bool(floor.a.envelopes and floor.b.envelopes))

    assert floor.a.envelopes == [[1, 3, 5]]
    assert floor.b.envelopes == [[2, 4, 6]]


async def test_each_outcome_makes_room_for_the_next_task() -> None:
    floor = Floor()

    floor.accept(*range(1, 101))
    await floor.finish(100)

    assert floor.recorder.states == dict.fromkeys(range(1, 101), "completed")
    for link, numbers in [(floor.a, range(1, 101, 2)), (floor.b, range(2, 101, 2))]:
        assert [n for envelope in link.envelopes for n in envelope] == list(numbers)


async def test_worker_is_told_of_an_end_once_that_is_recorded() -> None:
    floor = Floor()
    recorded, may_record = asyncio.Event(), asyncio.Event()
    record = floor.recorder.record

    async def slowly(ended: list[Ended], snapshots: Any) -> list[Ended]:
        recorded.set()
        await may_record.wait()
        return await record(ended, snapshots)

    floor.recorder.record = slowly  # type: ignore[method-assign]
    floor.accept(1)
    await recorded.wait()
    assert floor.a.confirmed == []

    may_record.set()
    await floor.finish(1)

    assert floor.a.confirmed == [1]


async def test_worker_is_told_at_once_of_an_outcome_that_ends_nothing() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1)]

    floor.accept(1)
    await floor.finish(1)

    assert floor.a.confirmed == [1, 1]


async def test_task_and_notice_that_were_begun_for_another_dispatcher_are_heard_out() -> None:
    floor = Floor()
    worker = floor.workers[0]
    record = TaskRecord(AcceptedTask(1, "task-1", "why?"))
    floor.scheduler.take_over(worker, record, is_kept=False)

    floor.sender.take_over(worker, [1])
    floor.sender.take_over_notice(worker, Notice(2, "news"))
    await floor.finish(2)

    assert floor.recorder.states == {1: "completed"}
    assert floor.a.heard == [2]
    assert worker.is_empty


async def test_task_that_its_worker_keeps_goes_on_there() -> None:
    floor = Floor()
    worker = floor.workers[1]
    record = TaskRecord(AcceptedTask(1, "task-1", "why?"))
    floor.scheduler.take_over(worker, record, is_kept=True)

    floor.sender.pump()
    await floor.finish(1)

    assert floor.b.envelopes == [[1]]
    assert floor.recorder.states == {1: "completed"}


async def test_failed_task_is_sent_again_after_its_wait() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1), failed(1)]

    floor.accept(1)
    await floor.finish(1)

    assert floor.a.envelopes == [[1], [1], [1]]
    assert floor.recorder.endings[1].attempts == 3
    assert floor.recorder.states == {1: "completed"}


async def test_refusal_calls_back_what_was_sent_ahead_to_every_worker_behind_the_gate() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1, "refused", retry_after=0.05)]
    floor.b.gate.clear()
    loop = asyncio.get_running_loop()

    floor.accept(*range(1, 9))
    await floor.reach(lambda: len(floor.a.called_back) == len(floor.b.called_back) == 1)
    await floor.reach(lambda: not any(worker.held for worker in floor.workers))
    begun = loop.time()
    assert [worker.halted for worker in floor.workers] == [None, None]
    assert [len(worker.line) for worker in floor.workers] == [3, 4]
    await floor.finish(8)

    assert loop.time() - begun > 0.03
    assert (floor.a.called_back, floor.b.called_back) == ([3], [3])
    assert list(chain.from_iterable(floor.a.envelopes)) == [1, 3, 5, 1, 3, 5, 7]
    assert list(chain.from_iterable(floor.b.envelopes)) == [2, 4, 6, 2, 4, 6, 8]
    assert {ending.attempts for ending in floor.recorder.endings.values()} == {1}
    assert floor.recorder.states == dict.fromkeys(range(1, 9), "completed")


async def test_worker_that_dies_as_it_is_called_back_is_lost() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1, "refused", retry_after=0.05)]
    floor.b.gate.clear()
    floor.b.goodbye = WorkerGone("killed")

    floor.accept(1, 2)
    await floor.reach(lambda: floor.replaced == ["crew-2"])
    floor.b.gate.set()
    await floor.finish(2)

    assert floor.recorder.states == {1: "completed", 2: "completed"}


async def test_failed_task_whose_wait_is_over_at_once_is_sent_again() -> None:
    floor = Floor(RetryPolicy(max_attempts=9, initial_seconds=1e-12, max_seconds=1e-12))
    floor.a.replies[1] = [failed(1) for _ in range(8)]
    floor.b.replies[2] = [failed(2) for _ in range(8)]

    floor.accept(1, 2)
    await floor.finish(2)

    assert floor.a.envelopes == [[1]] * 9
    assert floor.recorder.states == {1: "completed", 2: "completed"}


async def test_task_whose_wait_ends_as_another_worker_is_settled_is_sent_again() -> None:
    floor = Floor(RetryPolicy(max_attempts=9, initial_seconds=0.001, max_seconds=0.001))
    floor.b.gate.clear()
    floor.a.replies[1] = [failed(1)]
    floor.b.replies[2] = [failed(2, retry_after=600.0)]
    floor.accept(1, 2)
    await floor.reach(lambda: floor.scheduler.waits)
    time.sleep(0.01)  # noqa: ASYNC251 - so that the wait is over before its timer is heard

    floor.b.gate.set()
    await floor.reach(lambda: 1 in floor.recorder.endings)

    floor.sender.close()


async def test_nothing_is_sent_until_the_provider_has_capacity_again() -> None:
    floor = Floor()
    loop = asyncio.get_running_loop()
    floor.a.replies[1] = [failed(1, "refused", retry_after=0.05)]
    floor.accept(1)
    await floor.reach(lambda: floor.scheduler.waits)
    refused = loop.time()

    floor.accept(2)
    await asyncio.sleep(0)
    assert floor.b.envelopes == []
    await floor.finish(2)

    assert loop.time() - refused >= 0.04
    assert floor.recorder.states == {1: "completed", 2: "completed"}


async def test_task_in_line_is_cancelled_without_a_word_to_its_worker() -> None:
    floor = Floor()
    floor.a.gate.clear()
    records = floor.accept(*range(1, 11))

    floor.sender.cancel(records[6:])
    await floor.reach(lambda: len(floor.recorder.endings) == 4)

    assert floor.recorder.states == dict.fromkeys(range(7, 11), "cancelled")
    assert floor.a.cancelled == floor.b.cancelled == []


async def test_tasks_that_workers_hold_are_cancelled_in_one_message_each() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.b.gate.clear()
    records = floor.accept(1, 2, 3, 4)
    floor.a.replies = {1: [Outcome(1)], 3: [Outcome(3)]}

    floor.sender.cancel(records)
    await floor.reach(lambda: bool(floor.a.cancelled and floor.b.cancelled))
    floor.a.gate.set()
    floor.b.gate.set()
    await floor.finish(4)

    assert (floor.a.cancelled, floor.b.cancelled) == ([[1, 3]], [[2, 4]])
    assert floor.recorder.states == {
        1: "cancelled",
        2: "completed",
        3: "cancelled",
        4: "completed",
    }


async def test_task_that_its_worker_will_never_start_is_cancelled_at_once() -> None:
    floor = Floor()
    floor.a.gate.clear()
    records = floor.accept(1, 2, 3, 4, 5)
    floor.a.not_started = {3, 5}
    await floor.reach(lambda: 2 in floor.recorder.endings)

    floor.sender.cancel([records[2], records[4]])
    await floor.reach(lambda: len(floor.recorder.endings) == 4)

    assert floor.recorder.states[3] == floor.recorder.states[5] == "cancelled"
    floor.a.replies = {3: [Outcome(3)], 5: [Outcome(5)]}
    floor.a.gate.set()
    await floor.finish(5)
    assert floor.recorder.states[1] == "completed"


async def test_place_of_a_task_that_will_never_start_goes_to_the_next_in_line() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.b.gate.clear()
    records = floor.accept(*range(1, 11))
    floor.a.not_started = {3}
    await floor.reach(lambda: bool(floor.a.envelopes))

    floor.sender.cancel([records[2]])
    await floor.reach(lambda: len(floor.a.envelopes) == 2)

    assert floor.a.envelopes == [[1, 3, 5], [7]]
    floor.a.gate.set()
    floor.b.gate.set()
    await floor.finish(10)


async def test_lost_workers_tasks_run_again_on_the_others() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(*range(1, 9))
    await floor.reach(lambda: bool(floor.a.envelopes))
    floor.broadcast.subscribe("watcher")

    await floor.a.die("out of memory")
    await floor.finish(8)

    assert (floor.a.kills, floor.b.kills) == (1, 0)
    assert floor.replaced == ["crew-1"]
    assert floor.recorder.states == dict.fromkeys(range(1, 9), "completed")
    assert [one for one in floor.b.envelopes if set(one) & {1, 3, 5}] == [[1], [3], [5]]
    assert ("worker.died", "crew-1") in await floor.events()
    assert [(one.number, one.worker, one.reason) for one in floor.recorder.deaths] == [
        (number, "crew-1", "out of memory") for number in (1, 3, 5)
    ]


async def test_ledger_knows_what_may_cost_money_before_it_is_sent() -> None:
    floor = Floor()
    floor.recorder.failures.append(LedgerError("the disk is full"))
    floor.a.gate.clear()
    floor.accept(1, 2)

    await floor.reach(lambda: len(floor.a.envelopes) == 1)

    assert floor.recorder.sent == {1: "crew-1", 2: "crew-2"}
    floor.a.gate.set()
    await floor.finish(2)


async def test_ledger_that_fails_for_long_is_logged_once_for_what_waits_to_be_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("raypool.sender.ASK_AGAIN_SECONDS", 0.0)
    floor = Floor()
    floor.recorder.failures += [LedgerError("the disk is full") for _ in range(20)]
    floor.accept(1)

    await floor.finish(1)

    assert caplog.messages == ["nothing is sent to worker 'crew-1' for now: the disk is full"]


async def test_nothing_is_sent_to_a_worker_that_has_died_before_the_ledger_knew() -> None:
    floor = Floor()
    floor.recorder.failures.append(LedgerError("the disk is full"))
    floor.accept(1)
    await floor.reach(lambda: not floor.recorder.failures)

    await floor.a.die()
    floor.sender.notify(floor.scheduler.roster["crew-1"], Notice(2, "news"))
    await floor.finish(1)

    assert floor.a.envelopes == []
    assert floor.b.envelopes == [[1]]
    assert floor.recorder.deaths == []
    assert floor.recorder.maybe_billed == 0


async def test_task_that_is_returned_unbegun_is_taken_back_in_the_ledger() -> None:
    floor = Floor()
    floor.a.replies[1] = [Outcome(1, is_returned=True, halt="enough")]
    floor.b.gate.clear()
    floor.accept(1)

    await floor.reach(lambda: floor.recorder.sent == {1: "crew-2"})

    assert floor.a.envelopes == [[1]]
    assert floor.recorder.took_back == [1]
    floor.b.gate.set()
    await floor.finish(1)


async def test_death_of_a_worker_counts_what_it_ran_as_maybe_billed() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(*range(1, 9))
    await floor.reach(lambda: bool(floor.a.envelopes))

    await floor.a.die("out of memory")
    await floor.finish(8)

    assert floor.recorder.maybe_billed == 1
    assert set(floor.recorder.took_back) == {1, 3, 5}
    assert set(floor.recorder.sent.values()) == {"crew-2"}


async def test_task_fails_with_what_its_workers_died_of() -> None:
    floor = Floor(RetryPolicy(max_deaths=1))
    floor.a.gate.clear()
    floor.accept(1)
    await floor.reach(lambda: bool(floor.a.envelopes))

    await floor.a.die("out of memory")
    await floor.finish(1)

    cause = floor.recorder.endings[1].cause
    assert cause is not None
    assert cause.message.startswith("its worker has died with the task:\n20")
    assert cause.message.endswith("+00:00 worker 'crew-1' died: out of memory")


async def test_tasks_wait_for_a_worker_that_is_replaced() -> None:
    floor = Floor()
    floor.returns = True
    floor.accept(*range(1, 9))
    for link in (floor.a, floor.b):
        await link.die()
    await floor.reach(lambda: floor.replaced == ["crew-1", "crew-2"])
    waiting = await finishing(floor, 8)

    again = floor.bring_back(floor.workers[1])
    await waiting
    await floor.finish(8)

    assert floor.recorder.states == dict.fromkeys(range(1, 9), "completed")
    assert again.envelopes[0] == [1]


async def test_what_a_dead_process_still_says_changes_nothing_for_the_new_one() -> None:
    floor = Floor()
    floor.returns = True
    floor.a.gate.clear()
    floor.accept(1)
    await floor.reach(lambda: bool(floor.a.envelopes))
    [worker, _] = floor.workers
    await floor.b.die()
    floor.accept(2)
    floor.sender.settled(floor.scheduler.worker_died(worker, "killed", is_coming_back=True))

    again = floor.bring_back(worker)
    again.gate.clear()
    floor.a.gate.set()
    for _ in range(10):
        await asyncio.sleep(0)

    assert floor.recorder.states == {}
    again.gate.set()
    await floor.finish(2)


async def test_worker_that_dies_as_its_pool_stops_leaves_its_tasks_unfinished() -> None:
    floor = Floor(RetryPolicy(max_deaths=9))
    for link in (floor.a, floor.b):
        link.gate.clear()
    floor.accept(*range(1, 11))
    await floor.reach(lambda: bool(floor.a.envelopes and floor.b.envelopes))

    floor.sender.close()
    await floor.a.die()
    await floor.b.die()
    await floor.sender.settle_all(10.0)

    assert floor.replaced == []
    assert floor.recorder.states == {}
    assert floor.scheduler.unfinished == 10


async def test_worker_is_lost_once_however_many_of_its_envelopes_fail() -> None:
    floor = Floor()
    floor.accept(*range(1, 40))
    await floor.reach(lambda: len(floor.a.envelopes) >= 3)

    await floor.a.die()
    await floor.finish(39)

    assert floor.a.kills == 1


async def test_worker_that_is_gone_when_a_task_is_cancelled_is_lost() -> None:
    floor = Floor()
    floor.a.gate.clear()
    [record] = floor.accept(1)
    floor.a.goodbye = WorkerGone("killed")

    floor.sender.cancel([record])
    await floor.reach(lambda: floor.a.kills > 0)
    floor.a.gate.set()
    await floor.finish(1)

    assert floor.recorder.states == {1: "cancelled"}


async def test_tasks_fail_when_no_worker_is_left() -> None:
    floor = Floor()
    for link in (floor.a, floor.b):
        link.gate.clear()
    floor.accept(*range(1, 11))

    await floor.a.die()
    await floor.b.die()
    await floor.finish(10)

    assert floor.recorder.states == dict.fromkeys(range(1, 11), "failed")


async def test_defect_of_a_link_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    floor = Floor()
    floor.a.goodbye = ValueError("not a message")

    floor.accept(1)
    await floor.reach(lambda: bool(caplog.records))

    assert caplog.messages == ["raypool's dispatcher met a defect of its own"]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is floor.a.goodbye


async def test_nothing_to_finish_is_finished_at_once() -> None:
    floor = Floor()

    await floor.finish(0)

    assert floor.a.asked == floor.b.asked == []


async def test_finishing_asks_each_worker_that_was_sent_the_last_of_its_tasks() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(1, 2, 3)
    waiting = await finishing(floor, 3)

    assert floor.a.asked == [2]
    floor.a.gate.set()
    await waiting
    await floor.sender.settle_all(10.0)

    assert floor.recorder.states == dict.fromkeys((1, 2, 3), "completed")


async def test_finishing_asks_no_worker_that_has_not_been_sent_the_last_of_its_tasks() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(*range(1, 11))

    waiting = await finishing(floor, 10)
    asked_before = list(floor.a.asked)
    floor.a.gate.set()
    await waiting
    await floor.sender.settle_all(10.0)

    assert asked_before == []
    assert floor.a.asked in ([], [5])


async def test_finishing_does_not_wait_for_later_tasks() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(1, 2)
    waiting = await finishing(floor, 2)
    floor.b.gate.clear()
    floor.accept(3, 4)

    floor.a.gate.set()
    await waiting

    assert 4 not in floor.recorder.endings
    floor.b.gate.set()
    await floor.finish(4)


async def test_finishing_waits_for_retries() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1), failed(1)]
    floor.accept(1)

    await floor.finish(1)

    assert floor.recorder.states == {1: "completed"}


PATIENT = RetryPolicy(max_attempts=3, initial_seconds=600.0, max_seconds=600.0)


async def waiting_for_another_attempt(floor: Floor) -> TaskRecord:
    floor.a.replies[1] = [failed(1, retry_after=600.0)]
    [record] = floor.accept(1)
    await floor.reach(lambda: floor.scheduler.waits)
    return record


async def held_back_by_a_refusal(floor: Floor) -> TaskRecord:
    floor.a.replies[1] = [failed(1, "refused", retry_after=600.0)]
    [record] = floor.accept(1)
    await floor.reach(lambda: floor.scheduler.waits)
    floor.sender.cancel([record])
    await floor.reach(lambda: 1 in floor.recorder.endings)
    [record] = floor.accept(2)
    return record


@pytest.mark.parametrize("place", [waiting_for_another_attempt, held_back_by_a_refusal])
async def test_finishing_ends_when_the_last_task_is_cancelled(
    place: Callable[[Floor], Awaitable[TaskRecord]],
) -> None:
    floor = Floor(PATIENT)
    record = await place(floor)
    waiting = await finishing(floor, record.number)

    floor.sender.cancel([record])

    async with asyncio.timeout(5):
        await waiting
    floor.sender.close()


async def test_finishing_follows_a_task_that_waits_to_another_worker() -> None:
    floor = Floor(RetryPolicy(initial_seconds=0.001, max_seconds=0.001))
    floor.a.replies[1] = [failed(1, retry_after=0.05)]
    floor.accept(1)
    await floor.reach(lambda: floor.scheduler.waits)
    floor.a.gate.clear()
    floor.accept(2, 3)
    waiting = await finishing(floor, 1)

    await floor.a.die()

    async with asyncio.timeout(5):
        await waiting
    await floor.sender.settle_all(10.0)
    assert floor.recorder.endings[1].worker == "crew-2"
    assert floor.recorder.states == dict.fromkeys((1, 2, 3), "completed")


async def test_finishing_ends_though_no_worker_is_left_for_a_task_that_waits() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1, retry_after=0.05)]
    floor.accept(1)
    await floor.reach(lambda: floor.scheduler.waits)
    waiting = await finishing(floor, 1)
    for link in (floor.a, floor.b):
        link.gate.clear()
    floor.accept(2, 3)

    await floor.a.die()
    await floor.b.die()

    async with asyncio.timeout(5):
        await waiting
    await floor.sender.settle_all(10.0)
    assert floor.recorder.states == dict.fromkeys((1, 2, 3), "failed")


async def test_many_may_wait_at_once() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(1, 2, 3)
    waits = [await finishing(floor, number) for number in (1, 3, 3)]

    floor.a.gate.set()

    async with asyncio.timeout(5):
        await asyncio.gather(*waits)


async def test_closed_sender_sends_nothing_more() -> None:
    floor = Floor()
    floor.sender.close()

    floor.accept(1)
    await asyncio.sleep(0)

    assert floor.a.envelopes == []


async def test_closed_sender_settles_what_is_under_way_and_retries_nothing() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.a.replies[1] = [failed(1)]
    floor.accept(1, 3)
    await floor.reach(lambda: bool(floor.a.envelopes))

    floor.sender.close()
    floor.a.gate.set()
    await floor.sender.settle_all(10.0)

    assert floor.a.envelopes == [[1]]
    assert floor.scheduler.unfinished == 1
    assert floor.recorder.states == {3: "completed"}


async def test_deaf_sender_takes_no_killed_worker_for_lost_and_records_nothing() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(1, 3, 5)
    await floor.reach(lambda: bool(floor.a.envelopes))

    floor.sender.close()
    floor.sender.deafen()
    await floor.a.die()
    await floor.sender.settle_all(10.0)

    assert floor.a.kills == 0
    assert floor.recorder.endings.keys() <= {3}
    assert floor.scheduler.unfinished >= 2


async def test_settling_has_an_end() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(1)

    await floor.sender.settle_all(0.01)

    assert floor.recorder.endings == {}
    floor.a.gate.set()
    await floor.finish(1)


# Halts


async def test_tasks_that_a_halted_worker_returns_go_to_another() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(*range(1, 11))
    await floor.reach(lambda: bool(floor.a.envelopes))

    floor.a.halted = "for review"
    floor.a.gate.set()
    await floor.finish(10)

    assert floor.recorder.states == dict.fromkeys(range(1, 11), "completed")
    assert {ending.worker for ending in floor.recorder.endings.values()} == {"crew-2"}
    assert floor.a.envelopes == [[1, 3, 5]]
    assert floor.workers[0].halted == "for review"


async def test_tasks_do_not_go_to_and_fro_between_a_halted_worker_and_its_line() -> None:
    floor = Floor()
    floor.a.halted = floor.b.halted = "for review"
    floor.accept(*range(1, 11))
    await floor.reach(lambda: floor.a.questions + floor.b.questions == 2)
    for _ in range(50):
        await asyncio.sleep(0)

    assert len(floor.a.envelopes) == len(floor.b.envelopes) == 1
    assert [worker.halted for worker in floor.workers] == ["for review"] * 2
    assert floor.scheduler.unfinished == 10


async def test_worker_that_was_resumed_before_its_halt_was_heard_of_goes_on() -> None:
    floor = Floor()
    [worker, _] = floor.workers
    await floor.b.die()
    floor.a.replies[1] = [Outcome(1, Answer("42", 1.0), halt="for review")]

    floor.accept(1, 3, 5, 7, 9)
    await floor.finish(9)

    assert worker.halted is None
    assert floor.recorder.states == dict.fromkeys((1, 3, 5, 7, 9), "completed")


async def test_worker_that_does_not_say_whether_it_has_halted_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raypool.sender.ASK_AGAIN_SECONDS", 0.001)
    floor = Floor()
    floor.a.is_silent = True
    floor.a.replies[1] = [Outcome(1, Answer("42", 1.0), halt="for review")]
    floor.accept(1)
    await floor.reach(lambda: floor.a.questions >= 3)
    assert floor.workers[0].halted == "for review"

    floor.a.is_silent = False

    await floor.reach(lambda: floor.workers[0].halted is None)


async def test_resumed_worker_is_sent_what_waited_for_it() -> None:
    floor = Floor()
    floor.a.halted = floor.b.halted = "for review"
    floor.accept(*range(1, 5))
    await floor.reach(lambda: all(w.halted == "for review" for w in floor.workers))
    waiting = await finishing(floor, 4)

    floor.a.halted = None
    floor.sender.settled(floor.scheduler.resume(floor.workers[0]))
    await waiting
    await floor.finish(4)

    assert {ending.worker for ending in floor.recorder.endings.values()} == {"crew-1"}


# Sessions and texts


async def test_tasks_of_a_session_follow_one_another() -> None:
    floor = Floor()
    for number in range(1, 6):
        added = Conversation("user-42", [])
        floor.a.replies[number] = [Outcome(number, Answer("42", 1.0), conversation=added)]

    floor.accept(1, 2, 3, 4, 5, session="user-42")
    await floor.finish(5)

    assert floor.a.envelopes == [[1], [2], [3], [4], [5]]
    assert floor.b.envelopes == []


async def test_tasks_of_a_session_end_one_after_the_other_when_nobody_is_left() -> None:
    floor = Floor(RetryPolicy(max_deaths=1))
    floor.accept(1, 2, 3, session="user-42")

    await floor.b.die()
    await floor.a.die()
    floor.accept(4)
    await floor.finish(4)

    assert floor.recorder.states == dict.fromkeys(range(1, 5), "failed")


async def test_text_goes_to_every_client_that_waits_for_its_task() -> None:
    floor = Floor()
    floor.a.pieces[1] = ["for", "ty-two"]
    floor.a.gate.clear()
    [record] = floor.accept(1)
    record.watchers += [("mine", 5), ("yours", 7)]
    mine, yours = floor.desks.of("mine"), floor.desks.of("yours")

    floor.a.gate.set()
    await floor.finish(1)

    assert mine.take_texts() == [TicketText(5, "forty-two")]
    assert yours.take_texts() == [TicketText(7, "forty-two")]


async def test_snapshots_are_recorded_with_the_outcomes_that_brought_them() -> None:
    floor = Floor()
    floor.a.replies[1] = [Outcome(1, Answer("42", 1.0), snapshot='{"seen": 1}')]

    floor.accept(1)
    await floor.finish(1)

    assert floor.recorder.snapshots == {"crew-1": '{"seen": 1}'}


async def test_retries_and_refusals_are_told_to_those_who_watch() -> None:
    floor = Floor()
    floor.broadcast.subscribe("watcher")
    verdicts: list[str] = []
    floor.sender.on_delay = lambda delayed: verdicts.append(delayed.failure.verdict)
    floor.a.replies[1] = [failed(1), failed(1, "refused")]

    floor.accept(1)
    await floor.finish(1)

    told = [event for event in await floor.events() if event[0] != "task.completed"]
    assert told == [("task.retried", "crew-1"), ("limit.refused", "crew-1")]
    assert verdicts == ["transient", "refused"]


# Notices


async def test_notices_are_heard_in_order_and_waited_for() -> None:
    floor = Floor()
    floor.a.door.clear()
    for number in (1, 2):
        floor.sender.notify(floor.workers[0], Notice(number, "news"))
    waiting = await finishing(floor, 2)

    floor.a.door.set()
    await waiting

    assert floor.a.heard == [1, 2]
    assert floor.workers[0].notices == {}


async def test_waiting_does_not_wait_for_later_notices() -> None:
    floor = Floor()
    floor.a.door.clear()
    floor.sender.notify(floor.workers[0], Notice(5, "news"))

    await floor.sender.finish_up_to(4)

    floor.a.door.set()
    await floor.finish(5)


async def test_notices_that_a_dead_worker_has_not_dealt_with_are_heard_by_the_new_one() -> None:
    floor = Floor()
    floor.returns = True
    floor.a.door.clear()
    for number in (1, 2, 3):
        floor.sender.notify(floor.workers[0], Notice(number, "news"))
    await floor.reach(lambda: len(floor.a.heard) == 3)
    await floor.a.die()
    await floor.reach(lambda: floor.replaced == ["crew-1"])
    floor.sender.notify(floor.workers[0], Notice(4, "more news"))

    again = floor.bring_back(floor.workers[0])
    await floor.finish(4)

    assert floor.a.heard == [1, 2, 3]
    assert again.heard == [1, 2, 3, 4]


async def test_notice_that_kills_its_worker_each_time_is_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    floor = Floor()
    floor.returns = True
    link, [worker, _] = floor.a, floor.workers
    floor.sender.notify(worker, Notice(1, "poison"))
    floor.sender.notify(worker, Notice(2, "news"))
    for died in range(1, 4):
        await link.die()
        await floor.reach(lambda: len(floor.replaced) == died)  # noqa: B023 - awaited here
        link = floor.bring_back(worker)

    await floor.finish(2)

    assert link.heard == [2]
    assert caplog.messages == [
        "event 1 for worker 'crew-1' is dropped: the worker died each time its agent heard it"
    ]


async def test_worker_that_is_gone_for_good_cannot_be_notified() -> None:
    floor = Floor()
    await floor.a.die()
    floor.accept(1)
    await floor.finish(1)

    with pytest.raises(UnknownWorker, match="'crew-1' has died and could not be replaced"):
        floor.sender.notify(floor.workers[0], Notice(2, "news"))

    assert floor.workers[0].notices == {}


async def test_turn_that_a_notice_has_led_to_is_a_task_that_is_waited_for() -> None:
    floor = Floor()
    adopting = asyncio.Event()

    async def adopt(worker: WorkerRecord, outcome: Outcome) -> None:
        await adopting.wait()
        assert outcome.asked is not None
        task = AcceptedTask(outcome.number, outcome.asked.id, outcome.asked.prompt)
        floor.scheduler.adopt(worker, TaskRecord(task))

    floor.sender.adopt = adopt
    floor.a.news[1] = Outcome(1, Answer("42", 1.0), asked=Asked("a", "what is new?"))
    floor.sender.notify(floor.workers[0], Notice(1, "news"))
    waiting = await finishing(floor, 1)

    adopting.set()
    await waiting
    await floor.finish(1)

    assert floor.recorder.states == {1: "completed"}


async def test_answer_to_a_notice_that_cannot_be_recorded_is_logged_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    floor = Floor()

    async def adopt(worker: WorkerRecord, outcome: Outcome) -> None:
        raise LedgerError("the disk is full")

    floor.sender.adopt = adopt
    floor.a.news[1] = Outcome(
        1, Answer("42", 1.0), asked=Asked("a", "what is new?"), halt="for review"
    )
    floor.a.halted = "for review"
    floor.sender.notify(floor.workers[0], Notice(1, "news"))

    await floor.finish(1)

    assert floor.workers[0].halted == "for review"
    assert caplog.messages == [
        "what worker 'crew-1' answered to an event is lost: the disk is full"
    ]


async def test_paused_task_that_cannot_be_recorded_is_dropped_by_its_worker_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    floor = Floor()

    async def adopt(worker: WorkerRecord, outcome: Outcome) -> None:
        raise LedgerError("the disk is full")

    floor.sender.adopt = adopt
    floor.a.news[1] = Outcome(1, asked=Asked("a", "what is new?"), is_paused=True)
    floor.sender.notify(floor.workers[0], Notice(1, "news"))

    await floor.finish(1)

    assert floor.a.cancelled == [[1]]
    assert caplog.messages == [
        "what worker 'crew-1' answered to an event is lost: the disk is full"
    ]


async def test_agent_that_an_event_has_halted_is_sent_no_tasks() -> None:
    floor = Floor()
    floor.a.news[1] = Outcome(1, halt="for review", snapshot="[]")
    floor.a.halted = "for review"
    floor.sender.notify(floor.workers[0], Notice(1, "news"))
    await floor.finish(1)

    floor.accept(2, 3)
    await floor.finish(3)

    assert floor.a.envelopes == []
    assert floor.recorder.snapshots == {"crew-1": "[]"}


async def test_what_is_done_until_the_sender_closes_is_given_up_then() -> None:
    floor = Floor()
    forever = asyncio.Event()
    given_up = asyncio.Event()

    async def work() -> None:
        try:
            await forever.wait()
        finally:
            given_up.set()

    floor.sender.begin(work(), until_closed=True)
    await asyncio.sleep(0)
    floor.sender.close()
    await floor.sender.settle_all(10.0)

    async with asyncio.timeout(5):
        await given_up.wait()


async def test_waiting_waits_for_what_no_worker_has_been_given() -> None:
    floor = Floor(routing=NextFree())
    floor.a.gate.clear()
    floor.b.gate.clear()
    floor.accept(1, 2, 3, 4)
    floor.accept(5)
    waiting = await finishing(floor, 4)
    assert (floor.a.envelopes, floor.b.envelopes) == ([[1]], [[2]])
    assert (floor.a.asked, floor.b.asked) == ([], []), "they have more to come"

    floor.b.gate.set()
    await floor.reach(lambda: 5 in floor.recorder.endings)
    assert not waiting.done()
    floor.a.gate.set()
    await waiting

    assert sorted(floor.recorder.endings) == [1, 2, 3, 4, 5]
    assert floor.b.envelopes == [[2], [3], [4], [5]]
