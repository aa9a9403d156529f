"""From a decided ending to a recorded one, and only then to the clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from raypool.backlog import TaskRecord
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.events import Event
from raypool.group_commit import GroupCommit
from raypool.messages import Delivery
from raypool.records import Ending
from raypool.scheduler import Scheduler
from raypool.tally import Tally


class Ended(NamedTuple):
    """A task whose ending is decided, and what its clients get beside what is recorded."""

    record: TaskRecord
    ending: Ending
    events: list[Event] | None = None
    exception: bytes | None = None
    parsed: bytes | None = None

    def delivery(self, ticket: int) -> Delivery:
        """What the client with that ticket gets; the conversation stays in the ledger."""
        ending = self.ending
        if ending.conversation is not None:
            ending = msgspec.structs.replace(ending, conversation=None)
        return Delivery(
            ticket,
            ending,
            self.events,
            self.exception,
            parsed=self.parsed,
            output_type=self.record.task.output_type,
        )


class Recorder:
    """Commits endings, then tells every client that waits for them."""

    def __init__(
        self, ledger: GroupCommit, scheduler: Scheduler, desks: Desks, tally: Tally
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._desks = desks
        self._tally = tally

    async def record(self, ended: list[Ended], snapshots: Mapping[str, str] = {}) -> None:
        """Commit, with the `snapshots` of the workers, and deliver.

        What cannot be committed stays unfinished in the ledger.
        """
        try:
            await self._ledger.record([one.ending for one in ended], snapshots)
        except LedgerError as error:
            for one in ended:
                self._scheduler.forget(one.record)
                for client, ticket in one.record.watchers:
                    self._desks.put(client, Delivery(ticket, None, ledger_error=str(error)))
            return
        for one in ended:
            self._scheduler.forget(one.record)
            self._tally.add(one.ending)
            for client, ticket in one.record.watchers:
                self._desks.put(client, one.delivery(ticket))
