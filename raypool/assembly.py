"""A pool put together: its workers started, and joined to what gives them work."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import cloudpickle

from raypool.accounts import Accounts
from raypool.capacity.budget import BudgetBook, Cost
from raypool.capacity.gates import Gates
from raypool.capacity.standstill import Standstill
from raypool.clock import Clock
from raypool.config import PoolConfig
from raypool.crew import Crew, await_ready
from raypool.desk import Desks
from raypool.errors import LedgerError, PoolStartError
from raypool.fingerprints import Fingerprints
from raypool.governor_link import GovernorLinks
from raypool.group_commit import GroupCommit
from raypool.hedger import Hedger
from raypool.hedging import Hedging
from raypool.in_flight import count_in_flight
from raypool.intake import Intake
from raypool.joining import Joining
from raypool.leaving import Leaving
from raypool.ledger import POOL_NAME, WORKER_ROLES, WORKERS, Ledger
from raypool.ledgers import open_ledger
from raypool.link import WorkerLink
from raypool.listening import Listening
from raypool.membership import begin_budget, begin_epoch, members
from raypool.messages import Rejoined
from raypool.naming import Naming
from raypool.overview import Overview
from raypool.recorder import Recorder
from raypool.rejoining import Rejoining, rejoin_all
from raypool.replacing import Replacer
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import make_routings
from raypool.scaling import Scaler
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.setback_log import SetbackLog
from raypool.tally import Tally
from raypool.telemetry import Broadcast, EventHandler, HandlerThread
from raypool.unshelving import Unshelving
from raypool.watching import Watching
from raypool.window import Window


@dataclass(frozen=True, slots=True)
class Parts:
    """What a running pool consists of; each part knows those that it works with."""

    links: dict[str, WorkerLink]
    governors: GovernorLinks
    desks: Desks
    broadcast: Broadcast
    handler_thread: HandlerThread | None
    ledger: GroupCommit
    scheduler: Scheduler
    gates: Gates
    book: BudgetBook
    intake: Intake
    sender: Sender
    setbacks: SetbackLog
    unshelving: Unshelving
    watching: Watching
    recorder: Recorder
    listening: Listening
    scaler: Scaler
    overview: Overview


class Assembly:
    """Starts the workers of a pool, then makes its parts and joins them.

    Attributes:
        links: the workers that have been started, by name.
        naming: the names of all that there ever were on the ledger, once that is open.
        crew: what starts them, from then on.
        epoch: how many dispatchers have worked with the ledger, this one included.
    """

    naming: Naming
    crew: Crew
    epoch: int
    _tally: Tally

    def __init__(
        self,
        config: PoolConfig,
        payloads: dict[str, bytes],
        handler: bytes | None,
        *,
        clock: Clock,
        on_lease: Callable[[], None],
        goes_on: bool = False,
    ) -> None:
        """Work by `config`.

        `payloads` are what the workers of each role unpack, `handler` is what is told of every
        event, packed; `on_lease` is called when more may be sent than before. It `goes_on` with
        the workers of a dispatcher that has died.
        """
        self._goes_on = goes_on
        self._config = config
        self._payloads = payloads
        self._handler = handler
        self._clock = clock
        self._governors = GovernorLinks(clock, on_lease)
        self._desks = Desks(clock)
        self._fingerprints = Fingerprints(config.by_role)
        self._broadcast = Broadcast(clock, config.name)
        self.links: dict[str, WorkerLink] = {}

    async def start(self) -> Parts:
        """Open the ledger, start the workers, and go on with what is unfinished.

        Raises:
            PoolStartError: with the first cause; nothing is left running.
        """
        try:
            ledger = await asyncio.to_thread(self._open_ledger)
        except LedgerError as error:
            raise PoolStartError(str(error)) from error
        try:
            self._open_crew(ledger)
            rejoined = await self._find_workers(ledger) if self._goes_on else {}
            await self._start_workers(ledger, rejoined)
            parts = self._join(ledger)
            if self._goes_on:
                await self._rejoining(parts).take_over(rejoined)
            await count_in_flight(
                parts.ledger,
                parts.scheduler,
                parts.gates,
                parts.book,
                self._tally,
                present=rejoined,
            )
            await parts.unshelving.start()
            parts.sender.pump()
            parts.scaler.begin()
        except BaseException as error:
            await self._governors.close()
            for link in self.links.values():
                link.kill()
            with suppress(LedgerError):
                ledger.close()
            if isinstance(error, LedgerError):
                raise PoolStartError(str(error)) from error
            raise
        return parts

    def _open_ledger(self) -> Ledger:
        ledger = open_ledger(self._config, goes_on=self._goes_on)
        try:
            ledger.set_meta(POOL_NAME, self._config.name)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _open_crew(self, ledger: Ledger) -> None:
        config = self._config
        self.epoch = begin_epoch(ledger)
        had = ledger.meta(WORKER_ROLES)
        self.naming = Naming(config.name, json.loads(had) if had else (), config.by_role)
        self.crew = Crew(config, self._payloads, self.naming, self.epoch)

    async def _find_workers(self, ledger: Ledger) -> dict[str, Rejoined]:
        """What the workers have that are still there; others of this pool are ended."""
        names = members(ledger)
        found = await asyncio.to_thread(self.crew.find, [name for name, _ in self.naming])
        rejoined = await rejoin_all({name: found[name] for name in names if name in found})
        self.links = {name: found.pop(name) for name in rejoined}
        await asyncio.to_thread(self.crew.end_all, found)
        return rejoined

    async def _start_workers(self, ledger: Ledger, present: Collection[str] = ()) -> None:
        """Return when all are ready, under the names that those of an earlier run had.

        Of a pool that goes on, those that are `present` are ready.
        """
        config = self._config
        if self._goes_on:
            missing = [name for name in members(ledger) if name not in present]
            for name in (*present, *missing):
                self.naming.claim(name)
        else:
            missing = [self.naming.take(role) for role in config.crew]
        started = await asyncio.to_thread(self.crew.start_all, missing)
        self.links |= started
        ledger.set_meta(WORKER_ROLES, json.dumps(self.naming.by_number))
        snapshots = {name: ledger.snapshot(name) for name in started}
        await await_ready(config, started, snapshots)
        ledger.set_meta(WORKERS, json.dumps(list(self.links)))

    def _rejoining(self, parts: Parts) -> Rejoining:
        return Rejoining(self.links, parts.scheduler, parts.sender, parts.intake)

    def _join(self, ledger: Ledger) -> Parts:
        config = self._config
        totals = ledger.totals()
        tally = self._tally = Tally(totals)
        kept, told = totals.extra, totals.usage.total_tokens
        spent = Cost.of(totals.cost_usd + kept.kept_usd, told + kept.kept_tokens)
        budget = begin_budget(ledger, config.budget, goes_on=self._goes_on)
        book = BudgetBook(budget, spent)
        book.on_kept = tally.keep
        standstill = Standstill()
        gates = self._new_gates(book, standstill)
        scheduler = self._new_scheduler(gates)
        scheduler.shelves.fill(ledger.lanes(), totals.last_number)
        commits = GroupCommit(ledger)
        recorder = Recorder(
            commits, scheduler, self._desks, tally, self._broadcast, standstill=standstill
        )
        sender = Sender(
            scheduler,
            self.links,
            recorder,
            self._new_hedger(scheduler, tally),
            desks=self._desks,
            broadcast=self._broadcast,
            clock=self._clock,
        )
        intake = Intake(
            commits,
            scheduler,
            self._desks,
            self._broadcast,
            last_number=totals.last_number,
            fingerprints=self._fingerprints,
            deaths=ledger.deaths(),
        )
        sender.adopt = intake.adopt
        setbacks = SetbackLog(commits, self._clock)
        sender.on_delay = setbacks.note
        listening = Listening(self.links, self._broadcast)
        handler_thread = self._begin_telemetry(scheduler.roster)
        scaler = self._join_crew(commits, scheduler, sender, listening, gates)
        overview = Overview(
            config.name,
            self.links,
            scheduler=scheduler,
            gates=gates,
            book=book,
            scaler=scaler,
            tally=tally,
            recorder=recorder,
        )
        return Parts(
            links=self.links,
            governors=self._governors,
            desks=self._desks,
            broadcast=self._broadcast,
            handler_thread=handler_thread,
            ledger=commits,
            scheduler=scheduler,
            gates=gates,
            book=book,
            intake=intake,
            sender=sender,
            setbacks=setbacks,
            unshelving=Unshelving(commits, scheduler, intake, sender),
            watching=Watching(commits, scheduler, intake, sender),
            recorder=recorder,
            listening=listening,
            scaler=scaler,
            overview=overview,
        )

    def _new_gates(self, book: BudgetBook, standstill: Standstill) -> Gates:
        config = self._config
        return Gates(
            book,
            self._clock,
            prices=config.prices,
            has_memory=config.memory == "worker",
            new_share=self._governors.share,
            tell=self._broadcast.emit,
            retry=config.retry,
            standstill=standstill,
        )

    def _new_scheduler(self, gates: Gates) -> Scheduler:
        """With the workers that are ready; raises `PoolStartError` for a budget none can keep."""
        config = self._config
        workers = [self._new_record(gates, name) for name in self.links]
        problem = gates.problem(config.budget)
        if problem is not None:
            raise PoolStartError(problem)
        routing, role_routing = make_routings(
            config.routing, {role: one.routing for role, one in config.by_role.items()}
        )
        return Scheduler(
            Roster(workers, Accounts(config.tenants)),
            routing,
            Retries(config.retry),
            self._clock,
            role_routing=role_routing,
        )

    def _new_record(self, gates: Gates, name: str) -> WorkerRecord:
        """A worker that is ready, as the scheduler knows it."""
        role = self.naming.role_of(name)
        settings = self._config.by_role[role]
        window = functools.partial(Window, settings.concurrency, settings.mailbox_limit)
        terms = self.links[name].terms
        self._fingerprints.know(role, terms.answers)
        gate = gates.of(role, terms, settings.rate_limit)
        return WorkerRecord(name, role, window, gate)

    def _new_hedger(self, scheduler: Scheduler, tally: Tally) -> Hedger:
        """What starts second copies; none where each worker remembers what it has run."""
        config = self._config
        share = 0.0 if config.memory == "worker" else config.hedge_share
        hedging = Hedging(self._clock, after=config.hedge_after, share=share)
        return Hedger(hedging, scheduler, tally, self._broadcast, self._clock)

    def _begin_telemetry(self, workers: Roster) -> HandlerThread | None:
        thread = None
        if self._handler is not None:
            handler: EventHandler = cloudpickle.loads(self._handler)
            thread = HandlerThread(handler, self._clock, self._config.name)
            self._broadcast.attach(thread)
        for worker in workers:
            self._broadcast.emit(
                "worker.started", worker=worker.name, role=worker.role, restarts=worker.restarts
            )
        return thread

    def _join_crew(
        self,
        ledger: GroupCommit,
        scheduler: Scheduler,
        sender: Sender,
        listening: Listening,
        gates: Gates,
    ) -> Scaler:
        """Join the parts by which workers come and go."""
        replacer = Replacer(
            self._config,
            self.crew,
            self.links,
            ledger=ledger,
            scheduler=scheduler,
            sender=sender,
            broadcast=self._broadcast,
        )
        replacer.on_return = lambda worker: listening.join(worker.name)
        sender.replace = replacer.replace
        joining = Joining(
            self._config,
            self.crew,
            self.naming,
            self.links,
            ledger=ledger,
            scheduler=scheduler,
            sender=sender,
            broadcast=self._broadcast,
            listening=listening,
            new_record=functools.partial(self._new_record, gates),
        )
        leaving = Leaving(
            self.naming,
            self.links,
            ledger=ledger,
            scheduler=scheduler,
            sender=sender,
            broadcast=self._broadcast,
            listening=listening,
        )
        return Scaler(
            self._config,
            scheduler=scheduler,
            joining=joining,
            leaving=leaving,
            broadcast=self._broadcast,
            clock=self._clock,
        )
