"""A worker whose process has died: brought back with its agent's state, or given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
import pytest_asyncio

from raypool.clock import FakeClock
from raypool.config import PoolConfig, RetryPolicy
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.link import WorkerGone
from raypool.messages import Answer, Assignment, Batch, Notice, Outcome
from raypool.recorder import Recorder
from raypool.records import AcceptedTask
from raypool.replacing import WAITS_SECONDS, Replacer
from raypool.retries import Retries
from raypool.roster import NoticeRecord, Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast
from raypool.window import Window

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]

PROBLEMS: list[BaseException] = [
    WorkerGone("it died at once"),
    ValueError("the agent has no model"),
    LedgerError("the snapshot is lost"),
]


class NewLink:
    """A process of a worker, which answers what it is sent unless it is dead.

    Attributes:
        problem: what it raises as it starts.
        snapshot: the state that its agent was given.
        heard: the numbers of the notices that it was sent.
        gate: its start waits for it.
        is_dead: it answers no more.
    """

    def __init__(self, problem: BaseException | None = None) -> None:
        self.problem = problem
        self.snapshot: str | None = "not started"
        self.heard: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_dead = False

    async def arrive(self) -> str:
        return "node"

    async def start(self, snapshot: str | None) -> None:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        self.snapshot = snapshot

    async def send(self, assignments: list[Assignment]) -> AsyncIterator[Batch]:
        if self.is_dead:
            raise WorkerGone("killed")
        yield Batch([Outcome(one.number, Answer("42", 1.0)) for one in assignments])

    def confirm(self, numbers: Iterable[int]) -> None:
        """Nobody here asks again."""

    async def notify(self, notice: Notice) -> Outcome:
        self.heard.append(notice.number)
        return Outcome(notice.number)

    def kill(self) -> None:
        self.is_dead = True


class NewCrew:
    """Starts processes: those that it was told to, in order, then good ones."""

    def __init__(self) -> None:
        self.coming: list[NewLink | BaseException] = []
        self.started: list[NewLink] = []

    def start(self, name: str) -> NewLink:
        link = self.coming.pop(0) if self.coming else NewLink()
        if isinstance(link, BaseException):
            raise link
        self.started.append(link)
        return link


class House:
    """A pool of two workers, of which the first has died.

    Attributes:
        dead: the worker that has died.
        welcomed: the names of the workers that are back.
    """

    def __init__(self) -> None:
        clock = FakeClock()
        self.file = SqliteLedger()
        self.ledger = GroupCommit(self.file)
        self.workers = [WorkerRecord(f"crew-{n}", "chemist", lambda: Window(1)) for n in (1, 2)]
        self.dead = self.workers[0]
        retries = Retries(RetryPolicy())
        self.scheduler = Scheduler(Roster(self.workers), RoundRobin(), retries, clock)
        self.desks, self.broadcast = Desks(clock), Broadcast(clock, "crew")
        tally = Tally(self.file.totals())
        recorder = Recorder(self.ledger, self.scheduler, self.desks, tally, self.broadcast)
        self.crew = NewCrew()
        self.links: Any = {worker.name: NewLink() for worker in self.workers}
        self.sender = Sender(
            self.scheduler,
            self.links,
            recorder,
            Hedger(Hedging(clock), self.scheduler, tally, self.broadcast, clock),
            desks=self.desks,
            broadcast=self.broadcast,
            clock=clock,
        )
        crew: Any = self.crew
        self.replacer = Replacer(
            PoolConfig(name="crew", size=2),
            crew,
            self.links,
            ledger=self.ledger,
            scheduler=self.scheduler,
            sender=self.sender,
            broadcast=self.broadcast,
            waits=(0.0, 0.001, 0.001),
        )
        self.welcomed: list[str] = []
        self.replacer.on_return = lambda worker: self.welcomed.append(worker.name)

    async def accept(self, *numbers: int, worker: str | None = None) -> None:
        """Have tasks be committed, and given to a worker."""
        tasks = [AcceptedTask(n, f"task-{n}", "why?", worker=worker) for n in numbers]
        await self.ledger.accept(tasks)
        for task in tasks:
            record = TaskRecord(task)
            self.scheduler.reserve(record)
            assert self.scheduler.assign(record) is None

    def die(self) -> None:
        """Have the first worker die, and begin to replace it."""
        self.scheduler.worker_died(self.dead, "it was killed", is_coming_back=True)
        assert self.replacer.replace(self.dead)

    async def reach(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until `condition` holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - whatever the condition is made of
                await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    house.sender.close()
    await house.sender.settle_all(10.0)
    await house.ledger.close()


async def test_new_process_takes_the_place_of_the_dead_one(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.broadcast.subscribe("watcher")
    await house.accept(1, 2, worker="crew-1")

    house.die()
    await house.reach(lambda: house.file.totals().completed == 2)

    assert house.links["crew-1"] is house.crew.started[0]
    assert (house.dead.is_healthy, house.dead.is_coming_back) == (True, False)
    assert (house.dead.restarts, house.welcomed) == (1, ["crew-1"])
    events = await house.broadcast.next("watcher", 0.0)
    assert ("worker.replaced", "crew-1") in [(event.name, event.worker) for event in events]
    assert caplog.messages == []


async def test_agent_of_the_new_process_has_the_state_of_the_dead_one(house: House) -> None:
    await house.ledger.record([], {"crew-1": '{"seen": 1}', "crew-2": "{}"})

    house.die()
    await house.reach(lambda: house.dead.is_healthy)

    assert house.crew.started[0].snapshot == '{"seen": 1}'


async def test_agent_without_a_snapshot_starts_without_one(house: House) -> None:
    house.die()
    await house.reach(lambda: house.dead.is_healthy)

    assert house.crew.started[0].snapshot is None


async def test_ledger_that_cannot_be_read_is_waited_for_however_long(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await house.ledger.record([], {"crew-1": '{"seen": 1}'})
    reads: list[str] = []

    def refuse(worker: str) -> str:
        reads.append(worker)
        raise LedgerError("it is damaged")

    with monkeypatch.context() as broken:
        broken.setattr(house.file, "snapshot", refuse)
        house.die()
        await house.reach(lambda: len(reads) > 5)
        assert house.dead.is_coming_back

    await house.reach(lambda: house.dead.is_healthy)

    assert house.crew.started[0].snapshot == '{"seen": 1}'
    assert caplog.messages == ["worker 'crew-1' waits for its snapshot: it is damaged"]


async def test_new_process_hears_what_the_dead_one_has_not_dealt_with(house: House) -> None:
    for number in (1, 2):
        house.dead.notices[number] = NoticeRecord(Notice(number, "news"))
    house.dead.notices[1].is_heard = True

    house.die()
    await house.reach(lambda: house.dead.is_healthy)
    await house.reach(lambda: list(house.dead.notices) == [1])

    assert house.crew.started[0].heard == [2]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("is_early", [True, False], ids=["as it is asked for", "as it starts"])
async def test_process_that_does_not_start_is_tried_again(
    house: House, problem: BaseException, is_early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    house.crew.coming = [problem if is_early else NewLink(problem)]

    house.die()
    await house.reach(lambda: house.dead.is_healthy)

    *failed, good = house.crew.started
    assert all(link.is_dead for link in failed)
    assert not good.is_dead
    [message] = caplog.messages
    assert message.startswith("worker 'crew-1' did not come back: ")
    assert str(problem) in message


async def test_worker_that_cannot_be_replaced_is_given_up_after_three_attempts(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.crew.coming = [NewLink(ValueError("the agent has no model")) for _ in range(3)]
    house.dead.notices[9] = NoticeRecord(Notice(9, "news"))
    await house.accept(1, worker="crew-1")
    await house.accept(2, 3)

    house.die()
    await house.reach(lambda: house.file.totals().unfinished == 0)

    assert len(house.crew.started) == 3
    assert (house.dead.is_healthy, house.dead.is_coming_back) == (False, False)
    assert house.dead.notices == {}
    endings = {one.task.number: one.ending for one in house.file.ended(0, 9)}
    assert {number: ending.state for number, ending in endings.items()} == {
        1: "failed",
        2: "completed",
        3: "completed",
    }
    assert caplog.messages[-1] == (
        "worker 'crew-1' could not be replaced; the pool goes on without it; events that it had "
        "not heard and that are dropped: 1"
    )


async def test_attempts_are_further_and_further_apart() -> None:
    assert list(WAITS_SECONDS) == sorted(set(WAITS_SECONDS))
    assert len(WAITS_SECONDS) == 3


async def test_nobody_is_brought_back_once_the_pool_stops(house: House) -> None:
    late = NewLink()
    late.gate.clear()
    house.crew.coming = [late]
    await house.accept(1, worker="crew-1")
    house.die()
    await house.reach(lambda: house.crew.started == [late])
    await asyncio.sleep(0.01)

    house.sender.close()
    await house.reach(lambda: late.is_dead)
    late.gate.set()
    await house.sender.settle_all(10.0)

    assert not house.dead.is_healthy
    assert house.links["crew-1"] is not late
    assert house.file.totals().unfinished == 1


async def test_worker_whose_place_was_given_up_meanwhile_is_not_brought_back(house: House) -> None:
    late = NewLink()
    late.gate.clear()
    house.crew.coming = [late]
    house.die()
    await house.reach(lambda: house.crew.started == [late])

    house.sender.settled(house.scheduler.dismiss(house.dead))
    late.gate.set()
    await house.reach(lambda: not house.dead.is_coming_back)

    assert late.is_dead
    assert house.welcomed == []
