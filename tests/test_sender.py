"""Keeping workers busy through their links, and knowing when all is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from raypool.backlog import TaskRecord
from raypool.clock import SystemClock
from raypool.config import RetryPolicy
from raypool.link import WorkerGone
from raypool.messages import Answer, Assignment, Failure, Outcome
from raypool.recorder import Ended
from raypool.records import AcceptedTask, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.usage import Usage
from raypool.window import Window

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]

QUICK = RetryPolicy(max_attempts=3, initial_seconds=0.001, max_seconds=0.001)


def answered(number: int) -> Outcome:
    return Outcome(number, Answer("42", Usage(), 1.0))


def failed(number: int, verdict: Any = "transient", retry_after: float | None = None) -> Outcome:
    return Outcome(number, failure=Failure("BackendError", verdict, "E", "no", 1.0, retry_after))


class FakeLink:
    """A worker as a sender sees it; it answers what it is let through.

    Attributes:
        envelopes: the numbers in each envelope that was sent.
        cancelled: the numbers of each cancellation.
        asked: the counts that `finished` was asked for.
        replies: by number, the outcomes of its attempts in order; an answer when there is none.
        gate: attempts wait for it.
        not_started: the tasks that it promises not to start when they are cancelled.
        goodbye: what the worker dies of, as soon as it is set.
    """

    def __init__(self) -> None:
        self.envelopes: list[list[int]] = []
        self.cancelled: list[list[int]] = []
        self.asked: list[int] = []
        self.replies: dict[int, list[Outcome]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.not_started: set[int] = set()
        self.kills = 0
        self.goodbye: BaseException | None = None
        self._ended = 0
        self._changed = asyncio.Condition()

    async def send(self, assignments: list[Assignment]) -> AsyncIterator[list[Outcome]]:
        self.envelopes.append([one.number for one in assignments])
        for one in assignments:
            await self._let_through()
            async with self._changed:
                self._ended += 1
                self._changed.notify_all()
            yield [self._reply(one.number)]

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
        async with self._changed:
            self._changed.notify_all()

    async def _let_through(self) -> None:
        await self.gate.wait()
        if self.goodbye is not None:
            raise self.goodbye

    def _reply(self, number: int) -> Outcome:
        replies = self.replies.get(number)
        return replies.pop(0) if replies else answered(number)


class FakeRecorder:
    """Records at once; keeps what ended, in order."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.endings: dict[int, Ending] = {}
        self._scheduler = scheduler

    async def record(self, ended: list[Ended]) -> None:
        for one in ended:
            assert one.record.number not in self.endings
            self.endings[one.record.number] = one.ending
            self._scheduler.forget(one.record)

    @property
    def states(self) -> dict[int, str]:
        return {number: ending.state for number, ending in self.endings.items()}


class Floor:
    """A sender with two workers.

    Attributes:
        a, b: the workers' links.
    """

    def __init__(self, policy: RetryPolicy = QUICK) -> None:
        clock = SystemClock()
        self.workers = [WorkerRecord(f"crew-{n}", "chemist", Window(1)) for n in (1, 2)]
        self.scheduler = Scheduler(Roster(self.workers), RoundRobin(), Retries(policy), clock)
        self.a, self.b = FakeLink(), FakeLink()
        self.recorder = FakeRecorder(self.scheduler)
        links: Any = {"crew-1": self.a, "crew-2": self.b}
        recorder: Any = self.recorder
        self.sender = Sender(self.scheduler, links, recorder, clock)

    def accept(self, *numbers: int) -> list[TaskRecord]:
        records = [TaskRecord(AcceptedTask(n, f"task-{n}", "why?")) for n in numbers]
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
    if "defect" not in request.node.name:
        assert caplog.messages == []


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


async def test_failed_task_is_sent_again_after_its_wait() -> None:
    floor = Floor()
    floor.a.replies[1] = [failed(1), failed(1)]

    floor.accept(1)
    await floor.finish(1)

    assert floor.a.envelopes == [[1], [1], [1]]
    assert floor.recorder.endings[1].attempts == 3
    assert floor.recorder.states == {1: "completed"}


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


async def test_lost_workers_tasks_fail_and_its_line_goes_to_the_others() -> None:
    floor = Floor()
    floor.a.gate.clear()
    floor.accept(*range(1, 9))

    await floor.a.die("out of memory")
    await floor.finish(8)

    assert (floor.a.kills, floor.b.kills) == (1, 0)
    assert floor.recorder.states == {
        **dict.fromkeys([2, 4, 6, 7, 8], "completed"),
        **dict.fromkeys([1, 3, 5], "failed"),
    }
    cause = floor.recorder.endings[1].cause
    assert cause is not None
    assert cause.message == "worker 'crew-1' died: out of memory"


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


async def test_defect_in_a_link_is_logged(caplog: pytest.LogCaptureFixture) -> None:
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
    assert floor.recorder.states == {1: "completed", 2: "completed", 3: "failed"}


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
