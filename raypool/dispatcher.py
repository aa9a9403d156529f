"""The dispatcher actor: takes tasks in, has them run, and tells how they ended."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
from collections.abc import Awaitable

import cloudpickle
import msgspec

from raypool.accounts import Accounts
from raypool.capacity.budget import BudgetBook, Cost
from raypool.capacity.gates import Gates
from raypool.clock import SystemClock
from raypool.config import Budget, PoolConfig
from raypool.crew import Crew, await_ready
from raypool.desk import Desks
from raypool.errors import LedgerError, PoolStartError, PoolStopped, UnknownWorker
from raypool.governor_link import GovernorLinks
from raypool.group_commit import GroupCommit
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.intake import Intake
from raypool.joining import Joining
from raypool.leaving import Leaving
from raypool.ledger import POOL_NAME, WORKER_ROLES, Ledger
from raypool.link import WorkerGone, WorkerLink
from raypool.listening import Listening
from raypool.messages import (
    Collected,
    Found,
    Notice,
    PoolInfo,
    Receipt,
    Refusal,
    Submission,
    Unfinished,
    decode_submissions,
    encode,
)
from raypool.naming import Naming, number_of
from raypool.overview import Overview
from raypool.recorder import Recorder
from raypool.records import AcceptedTask
from raypool.replacing import Replacer
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import make_routing
from raypool.scaling import Scaler
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.sqlite_ledger import SqliteLedger
from raypool.status import PoolStatus
from raypool.tally import Tally
from raypool.telemetry import Broadcast, EventHandler, HandlerThread, encode_events
from raypool.window import Window

COLLECT_SECONDS = 20.0
RESUME_PAGE = 5_000
GARBAGE_THRESHOLDS = (100_000, 20, 50)
SETTLE_SECONDS = 5.0
FAREWELL_SECONDS = 1.0
STOP_REASON = "the pool has stopped"


class Dispatcher:
    """The actor that keeps a pool together: one per pool.

    It connects the decisions (`Scheduler`), the ledger, the workers and the clients,
    and decides nothing itself. All of it runs on one event loop.
    """

    def __init__(
        self, config: PoolConfig, payloads: dict[str, bytes], handler: bytes | None = None
    ) -> None:
        _collect_garbage_rarely()
        self._config = config
        self._payloads = payloads
        self._handler = handler
        self._clock = SystemClock()
        self._governors = GovernorLinks(self._clock, self._use_lease)
        self._desks = Desks(self._clock)
        self._broadcast = Broadcast(self._clock, config.name)
        self._links: dict[str, WorkerLink] = {}
        self._stopping: asyncio.Task[int] | None = None
        self._stopped = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_ready = asyncio.Event()
        self._handler_thread: HandlerThread | None = None

    async def start(self) -> PoolInfo:
        """Open the ledger, start the workers, and go on with what is unfinished.

        Raises:
            PoolStartError: with the first cause; nothing is left running.
        """
        try:
            ledger = await asyncio.to_thread(self._open_ledger)
        except LedgerError as error:
            raise PoolStartError(str(error)) from error
        try:
            self._naming = self._named(ledger)
            self._crew = Crew(self._config, self._payloads, self._naming)
            names = [self._naming.take(role) for role in self._config.crew]
            self._links = await asyncio.to_thread(self._crew.start_all, names)
            ledger.set_meta(WORKER_ROLES, json.dumps(self._naming.by_number))
            snapshots = {name: ledger.snapshot(name) for name in self._links}
            await await_ready(self._config, self._links, snapshots)
            await self._connect(ledger)
            self._is_ready.set()
            self._use_lease()
        except BaseException:
            await self._governors.close()
            self._kill_workers()
            ledger.close()
            raise
        return await self.info()

    async def info(self) -> PoolInfo:
        """What does not change while the pool runs; waits until it does."""
        await self._is_ready.wait()
        return self._crew.info

    async def workers(self) -> dict[str, str]:
        """The names of the workers that there are, by number, each with its role.

        Answers before the pool is ready: agents may want to know as they start.
        """
        return {name: self._naming.role_of(name) for name in sorted(self._links, key=number_of)}

    async def workers_ever(self) -> dict[str, str]:
        """The names of all workers that there ever were on this ledger, each with its role."""
        return dict(self._naming)

    async def ping(self) -> None:
        """Answer, for who wants to know whether the dispatcher lives."""

    async def submit(
        self, client: str, batch: bytes, cancelled: list[str], types: dict[str, bytes]
    ) -> bytes:
        """Accept a batch of submissions, then cancel tasks by id; a `Receipt`.

        `types` are output types, packed, by digest, that the client has not sent before.
        """
        self._desks.of(client)
        submissions = decode_submissions(batch)
        if self._stopping is None:
            receipt, ended = await self._intake.accept(client, submissions, types)
            self._sender.record(ended)
        else:
            receipt = Receipt([], [self._refuse(one) for one in submissions])
        records = [self._scheduler.get(task_id) for task_id in cancelled]
        self._sender.cancel([record for record in records if record is not None])
        self._sender.pump()
        return encode(receipt)

    async def collect(self, client: str) -> bytes:
        """What has ended for this client since its last call, as soon as something has."""
        desk = self._desks.of(client)
        if self._desks.was_forgotten(client):
            return encode(Collected([], was_forgotten=True))
        deliveries = await desk.collect(0.0 if self._stopped.is_set() else COLLECT_SECONDS)
        self._desks.touch(client)
        has_stopped = self._stopped.is_set() and not deliveries
        return encode(Collected(deliveries, has_stopped, desk.take_texts()))

    async def leave(self, client: str) -> None:
        """Forget a client that has what it wants; its tasks go on."""
        self._desks.close(client)

    async def notify(self, worker: str, event: bytes, is_from_agent: bool) -> None:
        """Have the agent of a worker hear an event, packed as MessagePack."""
        record = self._worker(worker)
        number = self._intake.take_number()
        notice = Notice(number, msgspec.msgpack.decode(event), is_from_agent)
        self._sender.notify(record, notice)

    async def interrupt(self, worker: str) -> int:
        """Interrupt the running turns of a worker; how many."""
        self._worker(worker)
        try:
            return await self._links[worker].interrupt()
        except WorkerGone:
            return 0

    async def resume(self, worker: str) -> None:
        """Have a halted worker take tasks again."""
        record = self._worker(worker)
        try:
            was_reported = await self._links[worker].resume()
        except WorkerGone:
            return
        if record.halted is not None:
            self._sender.settled(self._scheduler.resume(record))
        elif was_reported:
            record.is_resumed_early = True

    async def conversation(self, session: str) -> bytes:
        """The messages of a named session, as MessagePack."""
        messages = await self._ledger.read(lambda ledger: ledger.conversation(session))
        return msgspec.msgpack.encode(messages)

    async def output_type(self, digest: str) -> bytes:
        """The output type of that digest, packed; from the ledger its schema alone."""
        return await self._intake.types.packed(digest)

    async def subscribe(self, client: str) -> None:
        """Keep telemetry for a client; returns when every worker has begun to report."""
        self._broadcast.subscribe(client)
        await self._listening.settle()

    async def telemetry(self, client: str) -> bytes:
        """What has happened since the client's last call, as soon as something has.

        Raises:
            PoolStopped: nothing more will happen.
        """
        timeout = 0.0 if self._stopped.is_set() else COLLECT_SECONDS
        events = await self._broadcast.next(client, timeout)
        if not events and self._stopped.is_set():
            raise self._has_stopped()
        return encode_events(events)

    async def unsubscribe(self, client: str) -> None:
        """Keep no more telemetry for a client."""
        self._broadcast.unsubscribe(client)

    async def wait_for_all(self, timeout: float | None) -> list[Unfinished]:
        """Wait for every task accepted so far, at most `timeout` seconds.

        Returns the workers that have some of them left: none, unless time ran out or
        the pool stopped.
        """
        last = self._intake.last_assigned
        waiting = asyncio.ensure_future(self._sender.finish_up_to(last))
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait(
                {waiting, stopped}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if self._stopped.is_set():
                raise self._has_stopped()
            if not waiting.done():
                return self._overview.unfinished_up_to(last)
            await waiting
            await self._ledger.record([])
        finally:
            waiting.cancel()
            stopped.cancel()
        return []

    async def watch(self, client: str, ticket: int, task_id: str) -> Found | None:
        """Have the end of a task delivered to this client too, under `ticket`.

        Returns what is known now; a task that has ended is not delivered again.
        """
        self._desks.of(client)
        record = self._scheduler.get(task_id)
        if record is not None:
            if (client, ticket) not in record.watchers:
                record.watchers.append((client, ticket))
            return Found(record.task, worker=record.worker)
        found = await self._overview.find_ended(task_id)
        if found is None or found.ending is not None:
            return found
        if self._scheduler.get(task_id) is None:
            self._sender.record(await self._intake.resume([found.task]))
            self._sender.pump()
        return await self.watch(client, ticket, task_id)

    async def find(self, task_id: str) -> bytes | None:
        """One task as it is now, as `Found`; `None` when the ledger has none of that id."""
        record = self._scheduler.get(task_id)
        overview = self._overview
        found = await (overview.find_ended(task_id) if record is None else overview.find(record))
        return None if found is None else encode(found)

    async def ended(self, after: int, limit: int) -> bytes:
        """Tasks that have ended, in order of completion, from the first position after `after`."""
        return encode(await self._ledger.read(lambda ledger: ledger.ended(after, limit)))

    async def status(self) -> PoolStatus:
        """The pool as it is now; every worker is asked."""
        return await self._overview.status()

    async def remarks(self) -> list[str]:
        """What a user should know before money is spent."""
        return self._gates.remarks()

    async def set_budget(self, budget: Budget | None) -> str | None:
        """Have another budget from now on; why it cannot be kept, if so."""
        problem = self._gates.problem(budget)
        if problem is None:
            self._book.set(budget)
            self._sender.pump()
        return problem

    async def resume_sending(self) -> None:
        """Send again after fatal errors."""
        self._gates.resume_sending()
        self._sender.pump()

    async def scale(self, sizes: dict[str, int]) -> None:
        """Have each of these roles have so many workers; see `Scaler.scale`.

        Raises:
            PoolStopped: the pool stops, and changes no size any more.
        """
        try:
            if self._stopping is None:
                await self._scaler.scale(sizes)
        except asyncio.CancelledError:
            raise self._has_stopped() from None
        if self._stopping is not None:
            raise self._has_stopped()

    async def stop(self, drain: bool, grace: float) -> int:
        """Stop the pool and end its workers; how many tasks are left unfinished.

        With `drain` every accepted task is finished first; otherwise running turns have
        `grace` seconds. A later call with neither ends the wait of an earlier one.
        """
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(drain, grace))
        elif not drain and grace == 0:
            self._hurry.set()
        return await asyncio.shield(self._stopping)

    async def _stop(self, drain: bool, grace: float) -> int:
        if drain:
            await self._unless_hurried(self._sender.finish_up_to(self._intake.last_number))
        self._scaler.close()
        self._sender.close()
        ends = [link.stop(grace, STOP_REASON) for link in self._links.values()]
        ending = asyncio.gather(*ends, return_exceptions=True)
        await self._unless_hurried(ending, grace + SETTLE_SECONDS)
        await self._sender.settle_all(0.0 if self._hurry.is_set() else SETTLE_SECONDS)
        self._sender.deafen()
        unfinished = self._scheduler.unfinished
        await self._listening.finish(FAREWELL_SECONDS)
        await self._governors.close()
        self._kill_workers()
        try:
            await self._ledger.close()
        finally:
            for name in self._links:
                self._broadcast.emit("worker.stopped", worker=name, reason=STOP_REASON)
            await self._broadcast.settle(FAREWELL_SECONDS)
            self._stopped.set()
            self._desks.interrupt()
            if self._handler_thread is not None:
                await asyncio.to_thread(self._handler_thread.close)
        return unfinished

    async def _unless_hurried(self, work: Awaitable[object], timeout: float | None = None) -> None:
        hurry = asyncio.ensure_future(self._hurry.wait())
        waiting = asyncio.ensure_future(work)
        await asyncio.wait({waiting, hurry}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        waiting.cancel()

    def _named(self, ledger: Ledger) -> Naming:
        """The names that workers of an earlier run on the same ledger had, and room for more."""
        had = ledger.meta(WORKER_ROLES)
        return Naming(self._config.name, json.loads(had) if had else (), self._config.by_role)

    def _open_ledger(self) -> Ledger:
        config = self._config
        ledger = SqliteLedger(config.ledger)
        ledger.set_meta(POOL_NAME, config.name)
        return ledger

    async def _connect(self, ledger: Ledger) -> None:
        """Join the parts, and give the workers what an earlier run has left."""
        config = self._config
        totals = ledger.totals()
        spent = Cost.of(totals.cost_usd, totals.usage.total_tokens)
        self._book = BudgetBook(config.budget, spent)
        self._gates = Gates(
            self._book,
            self._clock,
            prices=config.prices,
            has_memory=config.memory == "worker",
            new_share=self._governors.share,
            tell=self._broadcast.emit,
        )
        workers = [self._new_record(name) for name in self._links]
        problem = self._gates.problem(config.budget)
        if problem is not None:
            raise PoolStartError(problem)
        roster = Roster(workers, Accounts(config.tenants))
        self._ledger = GroupCommit(ledger)
        self._tally = Tally(totals)
        self._scheduler = Scheduler(
            roster,
            make_routing(config.routing),
            Retries(config.retry),
            self._clock,
            role_routing={
                role: make_routing(settings.routing)
                for role, settings in config.by_role.items()
                if settings.routing != config.routing
            },
        )
        recorder = Recorder(
            self._ledger, self._scheduler, self._desks, self._tally, self._broadcast
        )
        self._sender = Sender(
            self._scheduler,
            self._links,
            recorder,
            self._new_hedger(),
            desks=self._desks,
            broadcast=self._broadcast,
            clock=self._clock,
        )
        self._intake = Intake(
            self._ledger, self._scheduler, self._desks, self._broadcast, totals.last_number
        )
        self._sender.adopt = self._intake.adopt
        self._listening = Listening(self._links, self._broadcast)
        self._begin_telemetry()
        self._join_crew()
        self._overview = Overview(
            config.name,
            self._links,
            ledger=self._ledger,
            scheduler=self._scheduler,
            gates=self._gates,
            book=self._book,
            scaler=self._scaler,
            tally=self._tally,
        )
        await self._resume()
        self._scaler.begin()

    def _join_crew(self) -> None:
        """Join the parts by which workers come and go."""
        replacer = Replacer(
            self._config,
            self._crew,
            self._links,
            ledger=self._ledger,
            scheduler=self._scheduler,
            sender=self._sender,
            broadcast=self._broadcast,
        )
        replacer.on_return = lambda worker: self._listening.join(worker.name)
        self._sender.replace = replacer.replace
        joining = Joining(
            self._config,
            self._crew,
            self._naming,
            self._links,
            ledger=self._ledger,
            scheduler=self._scheduler,
            sender=self._sender,
            broadcast=self._broadcast,
            listening=self._listening,
            new_record=self._new_record,
        )
        leaving = Leaving(
            self._naming,
            self._links,
            scheduler=self._scheduler,
            sender=self._sender,
            broadcast=self._broadcast,
            listening=self._listening,
        )
        self._scaler = Scaler(
            self._config,
            scheduler=self._scheduler,
            joining=joining,
            leaving=leaving,
            broadcast=self._broadcast,
            clock=self._clock,
        )

    def _begin_telemetry(self) -> None:
        if self._handler is not None:
            handler: EventHandler = cloudpickle.loads(self._handler)
            self._handler_thread = HandlerThread(handler, self._clock, self._config.name)
            self._broadcast.attach(self._handler_thread)
        for worker in self._scheduler.roster:
            self._broadcast.emit(
                "worker.started", worker=worker.name, role=worker.role, restarts=worker.restarts
            )

    def _new_record(self, name: str) -> WorkerRecord:
        """A worker that is ready, as the scheduler knows it."""
        role = self._naming.role_of(name)
        settings = self._config.by_role[role]
        window = functools.partial(Window, settings.concurrency, settings.mailbox_limit)
        gate = self._gates.of(role, self._links[name].terms, settings.rate_limit)
        return WorkerRecord(name, role, window, gate)

    def _use_lease(self) -> None:
        """More may be sent than before."""
        if self._is_ready.is_set():
            self._sender.pump()

    def _new_hedger(self) -> Hedger:
        """What starts second copies; none where each worker remembers what it has run."""
        config = self._config
        share = 0.0 if config.memory == "worker" else config.hedge_share
        hedging = Hedging(self._clock, after=config.hedge_after, share=share)
        return Hedger(hedging, self._scheduler, self._tally, self._broadcast, self._clock)

    def _worker(self, name: str) -> WorkerRecord:
        roster = self._scheduler.roster
        if name not in roster:
            workers = ", ".join(repr(worker.name) for worker in roster)
            raise UnknownWorker(
                f"pool {self._config.name!r} has no worker {name!r}; it has: {workers}"
            )
        return roster[name]

    async def _resume(self) -> None:
        last = 0
        while tasks := await self._unfinished_after(last):
            self._sender.record(await self._intake.resume(tasks))
            last = tasks[-1].number
        self._sender.pump()

    async def _unfinished_after(self, number: int) -> list[AcceptedTask]:
        return await self._ledger.read(lambda ledger: ledger.unfinished(number, RESUME_PAGE))

    def _kill_workers(self) -> None:
        for link in self._links.values():
            link.kill()

    def _has_stopped(self) -> PoolStopped:
        return PoolStopped(f"pool {self._config.name!r} has stopped")

    def _refuse(self, submission: Submission) -> Refusal:
        message = f"pool {self._config.name!r} is stopping and takes no more tasks"
        return Refusal(submission.ticket, PoolStopped.__name__, message)


def _collect_garbage_rarely() -> None:
    """Tasks are many and make no cycles; looking for some took a third of the loop's time."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
