"""Having the ends of tasks delivered to clients that did not submit them, or were away."""

from __future__ import annotations

from raypool.group_commit import GroupCommit
from raypool.intake import Intake
from raypool.messages import Delivery, Found
from raypool.scheduler import Scheduler
from raypool.sender import Sender


class Watching:
    """Adds clients to those who wait for tasks, wherever these are."""

    def __init__(
        self, ledger: GroupCommit, scheduler: Scheduler, intake: Intake, sender: Sender
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._intake = intake
        self._sender = sender

    async def watch(self, client: str, ticket: int, task_id: str) -> Found | None:
        """Have the end of a task delivered to this client too, under `ticket`.

        Returns what is known now; a task that has ended is not delivered again.
        """
        was_nowhere = False
        while (found := self._watch_live(client, ticket, task_id)) is None:
            found = await self.find_ended(task_id)
            if found is None or found.ending is not None:
                return found
            if self._scheduler.get(task_id) is not None:
                continue
            if self._scheduler.shelves.watch(found.task, (client, ticket)):
                return found
            if was_nowhere:
                self._sender.record(await self._intake.resume([found.task]))
                self._sender.pump()
            was_nowhere = True  # unless it has gone on and ended while the ledger was read
        return found

    async def watch_all(self, client: str, asked: list[tuple[int, str]]) -> list[Delivery]:
        """Have the ends of tasks delivered to this client, by ticket; those that have ended.

        One that the ledger does not know was never accepted, and is left out.
        """
        away = [one for one in asked if self._watch_live(client, *one) is None]
        ids = [task_id for _, task_id in away]
        known = await self._ledger.read(lambda ledger: ledger.find_all(ids)) if ids else {}
        deliveries = []
        for ticket, task_id in away:
            found = known.get(task_id)
            if found is None:
                continue
            if found.ending is not None:
                output_type = found.task.output_type
                deliveries.append(Delivery(ticket, found.ending, output_type=output_type))
            elif self._scheduler.get(task_id) is not None or not self._scheduler.shelves.watch(
                found.task, (client, ticket)
            ):
                late = await self.watch(client, ticket, task_id)
                if late is not None and late.ending is not None:
                    deliveries.append(
                        Delivery(ticket, late.ending, output_type=late.task.output_type)
                    )
        return deliveries

    async def find_ended(self, task_id: str) -> Found | None:
        """A task as the ledger has it; `None` when it has none of that id."""
        known = await self._ledger.read(lambda ledger: ledger.find(task_id))
        if known is None or known.ending is None:
            return None if known is None else Found(known.task)
        ending = known.ending
        return Found(known.task, ending, ending.state, ending.worker, ending.attempts)

    def _watch_live(self, client: str, ticket: int, task_id: str) -> Found | None:
        record = self._scheduler.get(task_id)
        if record is None:
            return None
        if (client, ticket) not in record.watchers:
            record.watchers.append((client, ticket))
        return Found(record.task, worker=record.worker)
