"""The size of a pool: who comes, who goes, and what is said when it cannot be so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
import pytest_asyncio

from raypool.capacity.gate import OpenGate
from raypool.clock import FakeClock
from raypool.config import Autoscale, PoolConfig, RetryPolicy
from raypool.desk import Desks
from raypool.errors import PoolStartError
from raypool.group_commit import GroupCommit
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.joining import Joining
from raypool.leaving import Leaving
from raypool.ledger import WORKER_ROLES
from raypool.link import WorkerGone
from raypool.listening import Listening
from raypool.messages import Answer, Assignment, Batch, Outcome, Terms
from raypool.naming import Naming
from raypool.recorder import Recorder
from raypool.records import AcceptedTask
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scaling import AGAIN_SECONDS, LATE_SECONDS, Scaler
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast
from raypool.window import Window

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]


class Process:
    """A worker's process, which answers once it may.

    Attributes:
        place: it is placed once this is set.
        may_answer: its turns end once this is set.
        problem: what it raises as it starts.
        snapshot: the state that its agent was given.
        started: the numbers of the tasks whose turn has begun.
        said: why it was told to end.
        is_dead: it answers no more.
    """

    def __init__(self) -> None:
        self.place, self.may_answer = asyncio.Event(), asyncio.Event()
        self.place.set()
        self.may_answer.set()
        self.terms = Terms()
        self.problem: Exception | None = None
        self.snapshot: str | None = None
        self.started: list[int] = []
        self.said: str | None = None
        self.is_dead = False

    def confirm(self, numbers: Iterable[int]) -> None:
        """Nobody here asks again."""

    async def arrive(self) -> str:
        await self.place.wait()
        return "node"

    async def start(self, snapshot: str | None) -> None:
        if self.problem is not None:
            raise self.problem
        self.snapshot = snapshot

    async def send(self, assignments: list[Assignment]) -> AsyncIterator[Batch]:
        for one in assignments:
            if self.started.count(-one.number):
                continue
            self.started.append(one.number)
            await self.may_answer.wait()
            if self.is_dead:
                raise WorkerGone("killed")
            yield Batch([Outcome(one.number, Answer("42", 1.0))])

    async def recall(self, numbers: list[int]) -> list[int]:
        recalled = [number for number in numbers if number not in self.started]
        self.started += [-number for number in recalled]
        return recalled

    async def stop(self, grace: float, reason: str) -> None:
        if self.is_dead:
            raise WorkerGone("killed")
        self.said = reason

    def kill(self) -> None:
        self.is_dead = True


class Street:
    """Where processes come from: prepared ones first, then good ones.

    Attributes:
        processes: every process that was asked for, the last of each name.
        is_open: who asks waits until this is set.
    """

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.coming: list[Process] = []
        self.processes: dict[str, Process] = {}
        self.count = 0

    def start_all(self, names: Iterable[str]) -> dict[str, Process]:
        links = {name: self._start(name) for name in names}
        self.is_open.wait()
        return links

    def end_all(self, links: dict[str, Process]) -> None:
        for link in links.values():
            link.kill()

    def _start(self, name: str) -> Process:
        self.count += 1
        self.processes[name] = self.coming.pop(0) if self.coming else Process()
        return self.processes[name]


class FaultyGate(OpenGate):
    """A gate that is open, and says so unless it has a `fault`.

    Attributes:
        asked: how often it was asked why nothing is sent.
    """

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked = 0

    @property
    def why(self) -> None:  # type: ignore[override]
        self.asked += 1
        if self.fault is not None:
            raise self.fault


class Pool:
    """The parts of a pool by which workers come and go."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.gate = FaultyGate()
        self.config = PoolConfig(name="crew", **options)
        self.file = SqliteLedger()
        self.ledger = GroupCommit(self.file)
        self.naming, self.street = Naming("crew"), Street()
        self.links: Any = {}
        retries = Retries(RetryPolicy())
        self.scheduler = Scheduler(Roster([]), RoundRobin(), retries, self.clock)
        self.desks, self.broadcast = Desks(self.clock), Broadcast(self.clock, "crew")
        tally = Tally(self.file.totals())
        recorder = Recorder(self.ledger, self.scheduler, self.desks, tally, self.broadcast)
        self.sender = Sender(
            self.scheduler,
            self.links,
            recorder,
            Hedger(Hedging(self.clock), self.scheduler, tally, self.broadcast, self.clock),
            desks=self.desks,
            broadcast=self.broadcast,
            clock=self.clock,
        )
        crew: Any = self.street
        listening = Listening(self.links, self.broadcast)
        self.joining = Joining(
            self.config,
            crew,
            self.naming,
            self.links,
            ledger=self.ledger,
            scheduler=self.scheduler,
            sender=self.sender,
            broadcast=self.broadcast,
            listening=listening,
            new_record=lambda name: WorkerRecord(
                name, self.naming.role_of(name), lambda: Window(1), self.gate
            ),
        )
        leaving = Leaving(
            self.naming,
            self.links,
            ledger=self.ledger,
            scheduler=self.scheduler,
            sender=self.sender,
            broadcast=self.broadcast,
            listening=listening,
        )
        self.scaler = Scaler(
            self.config,
            scheduler=self.scheduler,
            joining=self.joining,
            leaving=leaving,
            broadcast=self.broadcast,
            clock=self.clock,
            tick=0.001,
        )
        self.numbers = 0

    @property
    def workers(self) -> list[str]:
        return [worker.name for worker in self.scheduler.roster]

    def worker(self, name: str) -> WorkerRecord:
        return self.scheduler.roster[name]

    async def accept(self, count: int, role: str | None = None) -> list[TaskRecord]:
        """Have tasks be committed, given to workers and sent."""
        first = self.numbers + 1
        self.numbers += count
        tasks = [AcceptedTask(n, f"task-{n}", "why?", role) for n in range(first, first + count)]
        await self.ledger.accept(tasks)
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
                await asyncio.sleep(0.001)


NONE_AT_FIRST = Autoscale(min_size=0, max_size=3, up_delay=1.0, down_delay=10.0)
Start = Callable[..., Pool]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    pools: list[Pool] = []

    def make(**options: Any) -> Pool:
        pool = Pool(**options)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.scaler.close()
        pool.sender.close()
        await pool.sender.settle_all(10.0)
        await pool.ledger.close()


async def test_new_workers_take_their_part_of_what_waits(start: Start) -> None:
    pool = start(size=1)
    slow = Process()
    slow.may_answer.clear()
    pool.street.coming = [slow]
    await pool.scaler.scale({"research assistant": 1})
    records = await pool.accept(8)

    await pool.scaler.scale({"research assistant": 2})
    await pool.reach(lambda: pool.file.totals().completed >= 2)
    slow.may_answer.set()
    await pool.reach(lambda: pool.file.totals().completed == 8)

    assert {record.worker for record in records} == {"crew-1", "crew-2"}
    assert pool.file.meta(WORKER_ROLES) == '["research assistant", "research assistant"]'


async def test_busy_worker_leaves_once_its_turn_has_ended(start: Start) -> None:
    pool = start(size=2)
    await pool.scaler.scale({"research assistant": 2})
    for process in pool.street.processes.values():
        process.may_answer.clear()
    await pool.accept(6)
    await pool.reach(lambda: all(one.started for one in pool.street.processes.values()))

    await pool.scaler.scale({"research assistant": 1})
    is_there = "crew-2" in pool.workers
    for process in pool.street.processes.values():
        process.may_answer.set()
    await pool.reach(lambda: pool.file.totals().completed == 6)
    await pool.reach(lambda: pool.workers == ["crew-1"])

    gone = pool.street.processes["crew-2"]
    assert is_there
    assert (gone.said, gone.is_dead) == ("scaled down", True)
    assert len([number for number in gone.started if number > 0]) == 1


async def test_worker_that_dies_as_it_leaves_loses_no_task(start: Start) -> None:
    pool = start(size=2)
    await pool.scaler.scale({"research assistant": 2})
    leaving = pool.street.processes["crew-2"]
    leaving.may_answer.clear()
    pool.street.processes["crew-1"].may_answer.clear()
    await pool.accept(2)
    await pool.reach(lambda: bool(leaving.started))
    await pool.scaler.scale({"research assistant": 1})

    leaving.is_dead = True
    leaving.may_answer.set()
    pool.street.processes["crew-1"].may_answer.set()
    await pool.reach(lambda: pool.workers == ["crew-1"])
    await pool.reach(lambda: pool.file.totals().completed == 2)

    assert leaving.said is None


async def test_pool_is_as_it_was_when_one_of_the_new_workers_cannot_start(start: Start) -> None:
    pool = start(size=1)
    await pool.scaler.scale({"research assistant": 1})
    good, bad = Process(), Process()
    bad.problem = ValueError("the agent has no model")
    pool.street.coming = [good, bad]

    with pytest.raises(PoolStartError, match=r"'crew-3' could not start: .*has no model"):
        await pool.scaler.scale({"research assistant": 3})
    await pool.reach(lambda: good.is_dead and bad.is_dead)

    assert pool.workers == ["crew-1"]
    await pool.scaler.scale({"research assistant": 2})
    assert pool.workers == ["crew-1", "crew-2"]


async def test_worker_that_was_lost_for_good_makes_room_for_one_with_its_state(
    start: Start,
) -> None:
    pool = start(size=2)
    await pool.scaler.scale({"research assistant": 2})
    await pool.ledger.record([], {"crew-1": '{"seen": 1}'})
    lost = pool.street.processes["crew-1"]
    pool.scheduler.worker_died(pool.worker("crew-1"), "it was killed")

    await pool.scaler.scale({"research assistant": 2})

    assert sorted(pool.workers) == ["crew-1", "crew-2"]
    assert pool.worker("crew-1").is_healthy
    assert pool.street.processes["crew-1"] is not lost
    assert pool.street.processes["crew-1"].snapshot == '{"seen": 1}'


async def test_lost_workers_make_room_once_however_long_their_last_words_take(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    buried = []

    async def listen_on(_self: Listening, name: str) -> None:
        buried.append(name)
        await asyncio.sleep(0.02)

    pool = start(autoscale=Autoscale(min_size=2, max_size=2, up_delay=0.0))
    await pool.scaler.scale({"research assistant": 2})
    monkeypatch.setattr(Listening, "leave", listen_on)
    for name in pool.workers:
        pool.scheduler.worker_died(pool.worker(name), "it was killed")

    pool.scaler.begin()
    await pool.reach(lambda: pool.street.count == 4)
    await pool.reach(lambda: len(pool.workers) == 2)

    assert sorted(pool.workers) == ["crew-1", "crew-2"]
    assert sorted(buried) == ["crew-1", "crew-2"]


async def test_newest_of_the_idle_workers_goes_first_and_a_halted_one_last(start: Start) -> None:
    pool = start(size=3)
    await pool.scaler.scale({"research assistant": 4})
    pool.worker("crew-4").halted = "for review"

    await pool.scaler.scale({"research assistant": 2})

    assert pool.workers == ["crew-1", "crew-4"]


async def test_tasks_of_a_role_that_was_sent_home_wait(start: Start) -> None:
    pool = start(roles={"chemist": 1, "historian": 1})
    await pool.scaler.scale({"chemist": 1, "historian": 1})

    await pool.scaler.scale({"chemist": 0})
    [record] = await pool.accept(1, "chemist")
    waits = not record.has_ended and record.worker is None
    await pool.scaler.scale({"chemist": 1})
    await pool.reach(lambda: pool.file.totals().completed == 1)

    assert waits
    assert record.worker == "crew-1"


async def test_first_task_brings_workers_where_there_are_none(start: Start) -> None:
    pool = start(autoscale=NONE_AT_FIRST)
    pool.scaler.begin()

    await pool.accept(1)
    await pool.reach(lambda: pool.file.totals().completed == 1)

    assert pool.workers == ["crew-1"]
    assert pool.scaler.why is None


async def test_workers_go_when_there_was_nothing_to_do_for_the_delay(start: Start) -> None:
    pool = start(autoscale=NONE_AT_FIRST)
    pool.broadcast.subscribe("watcher")
    pool.scaler.begin()
    await pool.accept(1)
    await pool.reach(lambda: pool.file.totals().completed == 1)
    await asyncio.sleep(0.01)

    for _ in range(12):
        pool.clock.advance(1.0)
        await asyncio.sleep(0.01)
    await pool.reach(lambda: pool.workers == [])

    told = [(one.name, one.fields) for one in await pool.broadcast.next("watcher", 0.0)]
    assert ("scale.up", {"workers": 1, "added": 1, "reason": "1 task run or wait"}) in told
    assert ("scale.down", {"workers": 0, "removed": 1, "reason": "too little to do"}) in told


async def test_worker_without_a_place_is_waited_for_and_named_after_a_while(start: Start) -> None:
    pool = start(autoscale=NONE_AT_FIRST, worker_resources={"num_cpus": 8})
    homeless = Process()
    homeless.place.clear()
    pool.street.coming = [homeless]
    pool.scaler.begin()
    await pool.accept(1)
    await pool.reach(lambda: pool.street.count == 1)

    early = pool.scaler.why
    pool.clock.advance(LATE_SECONDS + 5)
    late = pool.scaler.why
    homeless.place.set()
    await pool.reach(lambda: pool.file.totals().completed == 1)

    assert early is None
    assert late == "1 worker has been awaited for 15 s: each asks for {'num_cpus': 8}"
    assert pool.scaler.why is None


async def test_worker_without_a_place_is_called_off_when_nobody_needs_it(start: Start) -> None:
    pool = start(autoscale=NONE_AT_FIRST)
    homeless = Process()
    homeless.place.clear()
    pool.street.coming = [homeless]
    pool.scaler.begin()
    [record] = await pool.accept(1)
    await pool.reach(lambda: pool.street.count == 1)

    assert pool.scheduler.cancel(record) is not None
    for _ in range(12):
        pool.clock.advance(1.0)
        await asyncio.sleep(0.01)
    await pool.reach(lambda: homeless.is_dead)

    assert pool.scaler.size("research assistant") == 0
    assert pool.naming.take("research assistant") == "crew-1"


async def test_worker_that_does_not_start_is_told_of_and_tried_again_later(start: Start) -> None:
    pool = start(autoscale=NONE_AT_FIRST)
    bad = Process()
    bad.problem = ValueError("the agent has no model")
    pool.street.coming = [bad]
    pool.scaler.begin()
    await pool.accept(1)
    await pool.reach(lambda: pool.scaler.why is not None)

    why = pool.scaler.why
    await asyncio.sleep(0.05)
    count = pool.street.count
    pool.clock.advance(AGAIN_SECONDS)
    await pool.reach(lambda: pool.file.totals().completed == 1)

    assert why is not None
    assert why.startswith("a worker did not come: worker 'crew-1' could not start: ")
    assert count == 1
    assert pool.scaler.why is None


async def test_tick_that_fails_is_told_of_and_the_next_one_goes_on(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    pool = start(autoscale=Autoscale(min_size=1, max_size=3, up_delay=0.0))
    await pool.scaler.scale({"research assistant": 1})
    pool.street.processes["crew-1"].may_answer.clear()
    pool.gate.fault = RuntimeError("no lease can be read")
    pool.scaler.begin()
    await pool.accept(9)
    await pool.reach(lambda: pool.gate.asked >= 3)

    why, size = pool.scaler.why, len(pool.workers)
    pool.gate.fault = None
    await pool.reach(lambda: len(pool.workers) == 3)
    pool.street.processes["crew-1"].may_answer.set()
    await pool.reach(lambda: pool.file.totals().completed == 9)

    [told] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert told.getMessage() == "the size of role 'research assistant' was not adapted"
    assert told.exc_info is not None
    assert why == ("autoscaling fails, and is tried again: RuntimeError('no lease can be read')")
    assert size == 1
    assert pool.scaler.why is None


async def test_ledger_that_fails_once_holds_up_a_worker_and_not_those_after_it(
    start: Start,
) -> None:
    pool = start(autoscale=NONE_AT_FIRST)
    await pool.accept(1)
    await pool.ledger.write(lambda _: pool.file._file.writer.execute("PRAGMA query_only = ON"))
    pool.scaler.begin()
    await pool.reach(lambda: pool.scaler.why is not None)

    why = pool.scaler.why
    await pool.ledger.write(lambda _: pool.file._file.writer.execute("PRAGMA query_only = OFF"))
    pool.clock.advance(AGAIN_SECONDS)
    await pool.reach(lambda: pool.file.totals().completed == 1)

    assert why is not None
    assert why.startswith("a worker did not come: the ledger ")
    assert "it is read-only" in why
    assert pool.workers == ["crew-1"]
    assert pool.scaler.why is None


async def test_name_is_free_again_once_who_was_still_asked_for_under_it_is_gone(
    start: Start,
) -> None:
    pool = start(size=1)
    pool.street.is_open.clear()
    bringing = asyncio.ensure_future(pool.joining.bring(["research assistant"]))
    await pool.reach(lambda: pool.street.count == 1)
    called_off = pool.street.processes["crew-1"]

    bringing.cancel()
    other = asyncio.ensure_future(pool.joining.bring(["research assistant"]))
    await pool.reach(lambda: pool.street.count == 2)
    asked_for = list(pool.street.processes)
    pool.street.is_open.set()
    await other
    with pytest.raises(asyncio.CancelledError):
        await bringing
    await pool.joining.bring(["research assistant"])

    assert asked_for == ["crew-1", "crew-2"]
    assert sorted(pool.workers) == ["crew-1", "crew-2"]
    assert called_off.is_dead
    assert not any(pool.street.processes[name].is_dead for name in pool.workers)


async def test_bringing_that_is_called_off_twice_ends_and_cleans_up_behind_it(
    start: Start,
) -> None:
    pool = start(size=1)
    pool.street.is_open.clear()
    bringing = asyncio.ensure_future(pool.joining.bring(["research assistant"]))
    await pool.reach(lambda: pool.street.count == 1)

    bringing.cancel()
    await asyncio.sleep(0)
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing
    meanwhile = pool.naming.take("research assistant")
    pool.street.is_open.set()
    await pool.reach(lambda: pool.street.processes["crew-1"].is_dead)
    await pool.reach(lambda: not pool.joining._undoing)

    assert meanwhile == "crew-2"
    assert pool.naming.take("research assistant") == "crew-1"


async def test_worker_that_comes_while_the_pool_stops_is_ended(start: Start) -> None:
    pool = start(size=1)
    homeless = Process()
    homeless.place.clear()
    pool.street.coming = [homeless]
    scaling = asyncio.ensure_future(pool.scaler.scale({"research assistant": 1}))
    await pool.reach(lambda: pool.street.count == 1)
    await asyncio.sleep(0.01)

    pool.scaler.close()
    await pool.reach(lambda: homeless.is_dead)

    with pytest.raises(asyncio.CancelledError):
        await scaling
    assert pool.workers == []
