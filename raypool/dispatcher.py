"""The dispatcher actor: takes tasks in, has them run, and tells how they ended."""

from __future__ import annotations

import asyncio
import gc

import msgspec

from raypool.assembly import Assembly, Parts
from raypool.clock import SystemClock
from raypool.config import Budget, PoolConfig
from raypool.errors import PoolStopped, UnknownWorker
from raypool.link import WorkerGone
from raypool.membership import keep_budget
from raypool.messages import (
    Collected,
    Found,
    Notice,
    PoolInfo,
    Receipt,
    Refusal,
    Stopped,
    Submission,
    Unfinished,
    decode_submissions,
    encode,
)
from raypool.names import was_restarted
from raypool.naming import number_of
from raypool.pieces import joined
from raypool.roster import WorkerRecord
from raypool.status import PoolStatus
from raypool.stopping import LINGER_SECONDS, Stopping, end_dispatcher
from raypool.telemetry import encode_events

COLLECT_SECONDS = 20.0
GARBAGE_THRESHOLDS = (100_000, 20, 50)


class Dispatcher:
    """The actor that keeps a pool together: one per pool.

    Its methods are what clients and workers may ask for; each has the parts of the pool do it,
    which `Assembly` has put together. All of it runs on one event loop.
    """

    _parts: Parts

    def __init__(self, config: PoolConfig, *pieces: bytes) -> None:
        """Work by `config`; what the workers unpack, and the handler of events, is in `pieces`."""
        payloads, handler = joined(pieces)
        _collect_garbage_rarely()
        self._name = config.name
        self._goes_on = was_restarted()
        self._assembly = Assembly(
            config,
            payloads,
            handler,
            clock=SystemClock(),
            on_lease=self._use_lease,
            goes_on=self._goes_on,
        )
        self._starting: asyncio.Task[Parts] | None = None
        self._is_ready = asyncio.Event()
        self._stopping = Stopping()

    async def start(self) -> PoolInfo:
        """Open the ledger, start the workers, and go on with what is unfinished.

        Raises:
            PoolStartError: with the first cause; nothing is left running.
        """
        self._starting = asyncio.ensure_future(self._start())
        await self._starting
        return await self.info()

    async def info(self) -> PoolInfo:
        """What does not change while the pool runs; waits until it does."""
        await self._running()
        return self._assembly.crew.info

    async def workers(self) -> dict[str, str]:
        """The names of the workers that there are, by number, each with its role.

        Answers before the pool is ready: agents may want to know as they start.
        """
        if self._goes_on:
            await self._running()
        names = sorted(self._assembly.links, key=number_of)
        return {name: self._assembly.naming.role_of(name) for name in names}

    async def workers_ever(self) -> dict[str, str]:
        """The names of all workers that there ever were on this ledger, each with its role."""
        await self._running()
        return dict(self._assembly.naming)

    async def ping(self) -> None:
        """Answer, for who wants to know whether the dispatcher lives."""
        self._go_on()

    async def submit(
        self, client: str, batch: bytes, cancelled: list[str], types: dict[str, bytes]
    ) -> bytes:
        """Accept a batch of submissions, then cancel tasks by id; a `Receipt`.

        `types` are output types, packed, by digest, that the client has not sent before.
        """
        parts = await self._running()
        parts.desks.of(client)
        submissions = decode_submissions(batch)
        if not self._stopping.has_begun:
            receipt, ended = await parts.intake.accept(client, submissions, types)
            parts.sender.record(ended)
        else:
            receipt = Receipt([], [self._refuse(one) for one in submissions])
        receipt.epoch = self._assembly.epoch
        parts.unshelving.cancel_all(cancelled)
        parts.sender.pump()
        return encode(receipt)

    async def collect(self, client: str, epoch: int) -> bytes:
        """What has ended for this client since its last call, as soon as something has.

        The client knows the dispatcher of that `epoch`; none yet if it is 0.
        """
        parts = await self._running()
        here = self._assembly.epoch
        desk = parts.desks.of(client)
        if parts.desks.was_forgotten(client) or epoch not in (0, here):
            return encode(Collected([], was_forgotten=True, epoch=here))
        deliveries = await desk.collect(self._patience)
        parts.desks.touch(client)
        has_stopped = self._stopping.has_ended.is_set() and not deliveries
        return encode(Collected(deliveries, has_stopped, desk.take_texts(), epoch=here))

    async def leave(self, client: str) -> None:
        """Forget a client that has what it wants; its tasks go on."""
        parts = await self._running()
        parts.desks.close(client)

    async def notify(self, worker: str, event: bytes, is_from_agent: bool) -> None:
        """Have the agent of a worker hear an event, packed as MessagePack."""
        parts = await self._running()
        record = self._worker(worker)
        number = parts.intake.take_number()
        notice = Notice(number, msgspec.msgpack.decode(event), is_from_agent)
        parts.sender.notify(record, notice)

    async def interrupt(self, worker: str) -> int:
        """Interrupt the running turns of a worker; how many."""
        parts = await self._running()
        self._worker(worker)
        try:
            return await parts.links[worker].interrupt()
        except WorkerGone:
            return 0

    async def resume(self, worker: str) -> None:
        """Have a halted worker take tasks again."""
        parts = await self._running()
        record = self._worker(worker)
        try:
            was_reported = await parts.links[worker].resume()
        except WorkerGone:
            return
        if record.halted is not None:
            parts.sender.settled(parts.scheduler.resume(record))
        elif was_reported:
            record.is_resumed_early = True

    async def conversation(self, session: str) -> bytes:
        """The messages of a named session, as MessagePack."""
        parts = await self._running()
        messages = await parts.ledger.read(lambda ledger: ledger.conversation(session))
        return msgspec.msgpack.encode(messages)

    async def output_type(self, digest: str) -> bytes:
        """The output type of that digest, packed; from the ledger its schema alone."""
        parts = await self._running()
        return await parts.intake.types.packed(digest)

    async def subscribe(self, client: str) -> None:
        """Keep telemetry for a client; returns when every worker has begun to report."""
        parts = await self._running()
        parts.broadcast.subscribe(client)
        await parts.listening.settle()

    async def telemetry(self, client: str) -> bytes:
        """What has happened since the client's last call, as soon as something has.

        Raises:
            PoolStopped: nothing more will happen.
        """
        parts = await self._running()
        events = await parts.broadcast.next(client, self._patience)
        if not events and self._stopping.has_ended.is_set():
            raise self._has_stopped()
        return encode_events(events)

    async def unsubscribe(self, client: str) -> None:
        """Keep no more telemetry for a client."""
        parts = await self._running()
        parts.broadcast.unsubscribe(client)

    async def wait_for_all(self, timeout: float | None) -> list[Unfinished]:
        """Wait for every task accepted so far, at most `timeout` seconds.

        Returns the workers that have some of them left: none, unless time ran out or
        the pool stopped.
        """
        parts = await self._running()
        last = parts.intake.last_assigned
        waiting = asyncio.ensure_future(parts.sender.finish_up_to(last))
        stopped = asyncio.ensure_future(self._stopping.has_ended.wait())
        try:
            await asyncio.wait(
                {waiting, stopped}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if self._stopping.has_ended.is_set():
                raise self._has_stopped()
            if not waiting.done():
                return parts.overview.unfinished_up_to(last)
            await waiting
        finally:
            waiting.cancel()
            stopped.cancel()
        return []

    async def watch(self, client: str, ticket: int, task_id: str) -> Found | None:
        """Have the end of a task delivered to this client too, under `ticket`.

        Returns what is known now; a task that has ended is not delivered again.
        """
        parts = await self._running()
        parts.desks.of(client)
        return await parts.watching.watch(client, ticket, task_id)

    async def watch_all(self, client: str, asked: list[tuple[int, str]]) -> bytes:
        """Have the ends of tasks delivered to this client, by ticket; those that have ended.

        One that the ledger does not know was never accepted, and is left out.
        """
        parts = await self._running()
        parts.desks.of(client)
        return encode(await parts.watching.watch_all(client, asked))

    async def find(self, task_id: str) -> bytes | None:
        """One task as it is now, as `Found`; `None` when the ledger has none of that id."""
        parts = await self._running()
        record = parts.scheduler.get(task_id)
        finding = parts.overview.find(record) if record else parts.watching.find_ended(task_id)
        found = await finding
        return None if found is None else encode(found)

    async def ended(self, after: int, limit: int) -> bytes:
        """Tasks that have ended, in order of completion, from the first position after `after`."""
        parts = await self._running()
        return encode(await parts.ledger.read(lambda ledger: ledger.ended(after, limit)))

    async def status(self) -> PoolStatus:
        """The pool as it is now; every worker is asked."""
        parts = await self._running()
        return await parts.overview.status()

    async def remarks(self) -> list[str]:
        """What a user should know before money is spent."""
        parts = await self._running()
        return parts.gates.remarks()

    async def set_budget(self, budget: Budget | None) -> str | None:
        """Have another budget from now on; why it cannot be kept, if so."""
        parts = await self._running()
        problem = parts.gates.problem(budget)
        if problem is None:
            parts.book.set(budget)
            await keep_budget(parts.ledger, budget)
            parts.sender.pump()
        return problem

    async def resume_sending(self) -> None:
        """Send again after fatal errors."""
        parts = await self._running()
        parts.gates.resume_sending()
        parts.sender.pump()

    async def scale(self, sizes: dict[str, int]) -> None:
        """Have each of these roles have so many workers; see `Scaler.scale`.

        Raises:
            PoolStopped: the pool stops, and changes no size any more.
        """
        parts = await self._running()
        try:
            if not self._stopping.has_begun:
                await parts.scaler.scale(sizes)
        except asyncio.CancelledError:
            raise self._has_stopped() from None
        if self._stopping.has_begun:
            raise self._has_stopped()

    async def stop(self, drain: bool, grace: float) -> Stopped:
        """Stop the pool and end its workers; what is left unfinished.

        With `drain` every accepted task is finished first; otherwise running turns have
        `grace` seconds. A later call with neither ends the wait of an earlier one.
        """
        parts = await self._running()
        return await self._stopping.stop(parts, drain, grace)

    @property
    def _patience(self) -> float:
        """For how many seconds a call may wait for something to happen."""
        return 0.0 if self._stopping.has_ended.is_set() else COLLECT_SECONDS

    async def _start(self) -> Parts:
        try:
            self._parts = await self._assembly.start()
        except BaseException:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, end_dispatcher)
            raise
        self._is_ready.set()
        self._use_lease()
        return self._parts

    async def _running(self) -> Parts:
        """The parts of the pool, once it runs."""
        self._go_on()
        if not self._is_ready.is_set():
            if self._goes_on and self._starting is not None:
                return await asyncio.shield(self._starting)
            await self._is_ready.wait()
        return self._parts

    def _go_on(self) -> None:
        """Begin to go on where a dispatcher that has died has left the pool."""
        if self._goes_on and self._starting is None:
            self._starting = asyncio.ensure_future(self._start())

    def _use_lease(self) -> None:
        """More may be sent than before."""
        if self._is_ready.is_set():
            self._parts.sender.pump()

    def _worker(self, name: str) -> WorkerRecord:
        roster = self._parts.scheduler.roster
        if name not in roster:
            workers = ", ".join(repr(worker.name) for worker in roster)
            raise UnknownWorker(f"pool {self._name!r} has no worker {name!r}; it has: {workers}")
        return roster[name]

    def _has_stopped(self) -> PoolStopped:
        return PoolStopped(f"pool {self._name!r} has stopped")

    def _refuse(self, submission: Submission) -> Refusal:
        message = f"pool {self._name!r} is stopping and takes no more tasks"
        return Refusal(submission.ticket, PoolStopped.__name__, message)


def _collect_garbage_rarely() -> None:
    """Tasks are many and make no cycles; looking for some took a third of the loop's time."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
