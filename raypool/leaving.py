"""Letting workers go: without a task, or once the turn that runs has ended."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from raypool.group_commit import GroupCommit
from raypool.link import WorkerGone, WorkerLink
from raypool.listening import Listening
from raypool.membership import keep_members
from raypool.naming import Naming
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.telemetry import Broadcast

REASON = "scaled down"


class Leaving:
    """Ends workers whose place is given up; no turn is interrupted, no task is lost."""

    def __init__(
        self,
        naming: Naming,
        links: dict[str, WorkerLink],
        *,
        ledger: GroupCommit,
        scheduler: Scheduler,
        sender: Sender,
        broadcast: Broadcast,
        listening: Listening,
    ) -> None:
        self._naming = naming
        self._links = links
        self._ledger = ledger
        self._scheduler = scheduler
        self._sender = sender
        self._broadcast = broadcast
        self._listening = listening

    def dismiss(self, workers: Collection[WorkerRecord]) -> None:
        """Give `workers` no more tasks; others get those that wait here for them."""
        for worker in workers:
            worker.is_leaving = True
        for worker in workers:
            self._sender.settled(self._scheduler.dismiss(worker))

    async def see_off(self, worker: WorkerRecord) -> None:
        """Return when a dismissed worker is gone.

        Others get what it was sent and has not started; what runs ends first. Its agent's
        `terminate_agent` then runs, and its last snapshot stays in the ledger.
        """
        link = self._links[worker.name]
        await self._sender.recall(worker)
        await self._sender.finish(worker)
        if worker.is_healthy:
            with suppress(WorkerGone):  # it has died meanwhile, and is as gone as it was to be
                await link.stop(0.0, REASON)
        await self.bury(worker)

    async def bury(self, worker: WorkerRecord) -> None:
        """Forget a worker that has nothing left to do; its name is free again."""
        worker.is_leaving = True
        await self._listening.leave(worker.name)
        link = self._links.pop(worker.name)
        decided = self._scheduler.remove(worker)
        self._naming.give_back(worker.name)
        link.kill()
        self._broadcast.emit("worker.stopped", worker=worker.name, role=worker.role, reason=REASON)
        self._sender.settled(decided)
        await keep_members(self._ledger, self._links)
