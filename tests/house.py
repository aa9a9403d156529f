"""A pool without Ray: a real ledger, all that decides and connects, and workers that are played."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from raypool.capacity.gate import OpenGate
from raypool.clock import SystemClock
from raypool.config import RetryPolicy
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.fingerprints import Fingerprints
from raypool.group_commit import GroupCommit
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.intake import Intake
from raypool.lane import Lane
from raypool.ledger import KnownTask
from raypool.messages import Receipt, Submission
from raypool.recorder import Recorder
from raypool.records import AcceptedTask
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin, Routing
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.shelves import Shelves
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.telemetry import Broadcast
from raypool.unshelving import Unshelving
from raypool.watching import Watching
from raypool.window import Window
from tests.test_sender import FakeLink

PATIENCE = 20.0


class SlowLedger(SqliteLedger):
    """A ledger whose pages wait for a gate, or fail as often as they are told to.

    Attributes:
        gate: pages wait for it.
        failures: how many reads of pages will fail.
        pages: how many were read.
        single_gate: what is found of a single task waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.single_gate = threading.Event()
        self.single_gate.set()
        self.failures = 0
        self.pages = 0

    def find(self, task_id: str) -> KnownTask | None:
        found = super().find(task_id)
        self.single_gate.wait(PATIENCE)
        return found

    def unfinished_in(self, lane: Lane | None, after: int, limit: int) -> list[AcceptedTask]:
        page = super().unfinished_in(lane, after, limit)
        self.gate.wait(PATIENCE)
        if self.failures:
            self.failures -= 1
            raise LedgerError("the disk is away")
        self.pages += 1
        return page


class House:
    """A dispatcher's parts with two workers of one slot each.

    Attributes:
        file: the ledger.
        delivered: by client and ticket, the numbers of the tasks whose ends were delivered.
    """

    def __init__(
        self,
        *,
        most: int = 6,
        fewest: int = 2,
        file: SlowLedger | None = None,
        routing: Routing | None = None,
    ) -> None:
        self.file = file or SlowLedger()
        self.ledger = GroupCommit(self.file)
        clock = SystemClock()
        self.desks = Desks(clock)
        self.broadcast = Broadcast(clock, "crew")
        gate = OpenGate()
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(1), gate) for n in (1, 2)
        ]
        self.scheduler = Scheduler(
            Roster(self.workers),
            routing or RoundRobin(),
            Retries(RetryPolicy()),
            clock,
            shelves=Shelves(most, fewest),
        )
        totals = self.file.totals()
        self.scheduler.shelves.fill(self.file.lanes(), totals.last_number)
        tally = Tally(totals)
        recorder = Recorder(self.ledger, self.scheduler, self.desks, tally, self.broadcast)
        self.links = {worker.name: FakeLink() for worker in self.workers}
        links: Any = self.links
        self.sender = Sender(
            self.scheduler,
            links,
            recorder,
            Hedger(Hedging(clock), self.scheduler, tally, self.broadcast, clock),
            desks=self.desks,
            broadcast=self.broadcast,
            clock=clock,
        )
        self.intake = Intake(
            self.ledger,
            self.scheduler,
            self.desks,
            self.broadcast,
            last_number=totals.last_number,
            fingerprints=Fingerprints(),
        )
        self.unshelving = Unshelving(
            self.ledger, self.scheduler, self.intake, self.sender, again_seconds=0.001
        )
        self.watching = Watching(self.ledger, self.scheduler, self.intake, self.sender)
        self.delivered: defaultdict[tuple[str, int], list[int]] = defaultdict(list)

    async def submit(self, client: str, *submissions: Submission) -> Receipt:
        self.desks.of(client)
        receipt, ended = await self.intake.accept(client, list(submissions))
        self.sender.record(ended)
        self.sender.pump()
        return receipt

    async def resume(self) -> None:
        """Go on with what an earlier house has left, as a pool does that starts."""
        await self.unshelving.start()
        self.sender.pump()

    async def restart(self) -> House:
        """Die with what is being committed; another house on the same ledger."""
        await self.die()
        shelves = self.scheduler.shelves
        return House(most=shelves.most, fewest=shelves.fewest, file=self.file)

    async def die(self) -> None:
        """Hear and do nothing more."""
        self.sender.deafen()
        self.sender.close()
        self.file.gate.set()
        for link in self.links.values():
            link.gate.set()
        await self.sender.settle_all(PATIENCE)
        await self.ledger.write(lambda _: None)
        await self.ledger.read(lambda _: None)

    async def finish(self) -> None:
        """Wait until all that was accepted so far has ended, and its ending is recorded."""
        async with asyncio.timeout(PATIENCE):
            await self.sender.finish_up_to(self.intake.last_assigned)
            await self.sender.settle_all(PATIENCE)

    async def reach(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until `condition` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - whatever the condition is made of
                await asyncio.sleep(0.001)

    async def collect(self, client: str) -> dict[int, list[int]]:
        """By ticket, the numbers of the tasks whose ends were delivered to a client so far."""
        for one in await self.desks.of(client).collect(0.0):
            assert one.ending is not None
            self.delivered[client, one.ticket].append(one.ending.number)
        return {ticket: ends for (to, ticket), ends in self.delivered.items() if to == client}

    @property
    def shelved(self) -> int:
        return self.scheduler.shelves.count

    def sent(self) -> list[int]:
        """The numbers of the tasks that were sent, in order for each worker."""
        envelopes = [link.envelopes for link in self.links.values()]
        return [number for sent in envelopes for envelope in sent for number in envelope]
