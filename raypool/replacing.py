"""Bringing a worker back whose process has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from raypool.config import PoolConfig
from raypool.crew import Crew, await_ready
from raypool.errors import LedgerError, PoolStartError
from raypool.group_commit import GroupCommit
from raypool.link import WorkerGone, WorkerLink
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.telemetry import Broadcast

logger = logging.getLogger(__name__)

WAITS_SECONDS = (0.0, 1.0, 5.0)


class Replacer:
    """Starts a new process for a dead worker, with the state that its agent had.

    Attributes:
        on_return: called with a worker that is back.
    """

    def __init__(
        self,
        config: PoolConfig,
        crew: Crew,
        links: dict[str, WorkerLink],
        *,
        ledger: GroupCommit,
        scheduler: Scheduler,
        sender: Sender,
        broadcast: Broadcast,
        waits: Sequence[float] = WAITS_SECONDS,
    ) -> None:
        self._config = config
        self._crew = crew
        self._links = links
        self._ledger = ledger
        self._scheduler = scheduler
        self._sender = sender
        self._broadcast = broadcast
        self._waits = waits
        self.on_return: Callable[[WorkerRecord], None] | None = None

    def replace(self, worker: WorkerRecord) -> bool:
        """Begin to bring `worker` back; true: it may come back."""
        self._sender.begin(self._bring_back(worker), until_closed=True)
        return True

    async def _bring_back(self, worker: WorkerRecord) -> None:
        for wait in self._waits:
            await asyncio.sleep(wait)
            link = None if worker.is_leaving else await self._start(worker)
            if worker.is_leaving:
                self._drop(worker, link)
                return
            if link is not None:
                self._welcome(worker, link)
                return
        logger.error(
            "worker %r could not be replaced; the pool goes on without it; events that it had "
            "not heard and that are dropped: %d",
            worker.name,
            len(worker.notices),
        )
        self._sender.settled(self._scheduler.worker_gone(worker))

    def _drop(self, worker: WorkerRecord, link: WorkerLink | None) -> None:
        """Its place was given up meanwhile."""
        if link is not None:
            link.kill()
        self._sender.settled(self._scheduler.worker_gone(worker))

    async def _start(self, worker: WorkerRecord) -> WorkerLink | None:
        """A new process that is ready; `None` when there is none, and the log says why."""
        name = worker.name
        snapshot = await self._snapshot(worker)
        try:
            link = await asyncio.to_thread(self._crew.start, name)
            await self._get_ready(name, link, snapshot)
        except (PoolStartError, LedgerError, WorkerGone, ValueError) as error:
            logger.warning("worker %r did not come back: %s", name, error)
            return None
        except Exception:  # whatever it is, the worker must not be waited for in vain
            logger.exception("worker %r did not come back", name)
            return None
        return link

    async def _snapshot(self, worker: WorkerRecord) -> str | None:
        """The state that its agent had; a ledger that cannot be read is waited for."""
        was_told = False
        while not worker.is_leaving:
            try:
                return await self._ledger.read(lambda ledger: ledger.snapshot(worker.name))
            except LedgerError as error:
                if not was_told:
                    logger.warning("worker %r waits for its snapshot: %s", worker.name, error)
                was_told = True
            await asyncio.sleep(self._waits[-1])
        return None

    async def _get_ready(self, name: str, link: WorkerLink, snapshot: str | None) -> None:
        try:
            await await_ready(self._config, {name: link}, {name: snapshot})
        except BaseException:
            link.kill()
            raise

    def _welcome(self, worker: WorkerRecord, link: WorkerLink) -> None:
        self._links[worker.name] = link
        decided = self._scheduler.worker_back(worker)
        self._broadcast.emit(
            "worker.replaced", worker=worker.name, role=worker.role, restarts=worker.restarts
        )
        if self.on_return is not None:
            self.on_return(worker)
        self._sender.resend_notices(worker)
        self._sender.settled(decided)
