"""Bringing new workers into a pool that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from raypool.config import PoolConfig
from raypool.crew import Crew, await_ready
from raypool.group_commit import GroupCommit
from raypool.ledger import WORKER_ROLES
from raypool.link import WorkerLink
from raypool.listening import Listening
from raypool.membership import keep_members
from raypool.naming import Naming
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.telemetry import Broadcast

Started = asyncio.Future[dict[str, WorkerLink]]


class Joining:
    """Starts workers and gives them their part of the work.

    Args:
        new_record: makes the record of a worker that is ready and has a link.
    """

    def __init__(
        self,
        config: PoolConfig,
        crew: Crew,
        naming: Naming,
        links: dict[str, WorkerLink],
        *,
        ledger: GroupCommit,
        scheduler: Scheduler,
        sender: Sender,
        broadcast: Broadcast,
        listening: Listening,
        new_record: Callable[[str], WorkerRecord],
    ) -> None:
        self._config = config
        self._crew = crew
        self._naming = naming
        self._links = links
        self._ledger = ledger
        self._scheduler = scheduler
        self._sender = sender
        self._broadcast = broadcast
        self._listening = listening
        self._new_record = new_record
        self._undoing: set[asyncio.Task[None]] = set()

    async def bring(self, roles: Sequence[str], *, waits_for_place: bool = False) -> None:
        """Return when there is a new worker of each of `roles`; all of them come, or none.

        Raises:
            PoolStartError: with the first cause; the pool is as it was. With `waits_for_place`
                it is no cause that Ray has no room for them yet.
            LedgerError: the ledger cannot be read or written; likewise.
        """
        names = [self._naming.take(role) for role in roles]
        starting: Started | None = None
        try:
            snapshots = await self._prepare(names)
            starting = asyncio.ensure_future(asyncio.to_thread(self._crew.start_all, names))
            links = await asyncio.shield(starting)
            await await_ready(self._config, links, snapshots, waits_for_place=waits_for_place)
            await keep_members(self._ledger, [*self._links, *links])
        except BaseException:
            undoing = asyncio.ensure_future(self._undo(names, starting))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            await asyncio.shield(undoing)
            raise
        self._links |= links
        for name in names:
            self._welcome(self._new_record(name))

    async def _undo(self, names: list[str], starting: Started | None) -> None:
        """Give the names back, once nobody has them any more who was or is still asked for."""
        try:
            if starting is not None:
                await asyncio.wait([starting])
                if starting.exception() is None:
                    await asyncio.to_thread(self._crew.end_all, starting.result())
        finally:
            for name in names:
                self._naming.give_back(name)

    async def _prepare(self, names: list[str]) -> dict[str, str | None]:
        """Keep whose the names are; the state that their agents had."""
        roles = json.dumps(self._naming.by_number)
        await self._ledger.write(lambda ledger: ledger.set_meta(WORKER_ROLES, roles))
        return await self._ledger.read(
            lambda ledger: {name: ledger.snapshot(name) for name in names}
        )

    def _welcome(self, worker: WorkerRecord) -> None:
        decided = self._scheduler.join(worker)
        self._broadcast.emit("worker.started", worker=worker.name, role=worker.role, restarts=0)
        self._listening.join(worker.name)
        self._sender.settled(decided)
