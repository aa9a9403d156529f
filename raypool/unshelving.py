"""Reading shelved tasks from the ledger: a page as room is made for it, one to cancel it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.intake import Intake
from raypool.ledger import Ledger
from raypool.records import AcceptedTask
from raypool.scheduler import Scheduler
from raypool.sender import Sender
from raypool.shelf import Shelf

logger = logging.getLogger(__name__)

PAGE = 2_000
AGAIN_SECONDS = 1.0

T = TypeVar("T")


class Unshelving:
    """Has the tasks of a shelf go on in memory once few of their lane are there.

    What cannot be read is asked for again after `again_seconds`, until the pool stops.
    """

    def __init__(
        self,
        ledger: GroupCommit,
        scheduler: Scheduler,
        intake: Intake,
        sender: Sender,
        *,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._shelves = scheduler.shelves
        self._intake = intake
        self._sender = sender
        self._again_seconds = again_seconds

    async def start(self) -> None:
        """Take in what is bound, all of it, then the first page of each lane.

        No page is read before: it would have what workers run for an earlier dispatcher, whose
        tasks are to be taken over by then.

        Raises:
            LedgerError: it cannot be read.
        """
        self._shelves.on_low = self._begin_to_read
        last = 0
        while bound := await self._bound_after(last):
            self._sender.record(await self._intake.resume(bound))
            last = bound[-1].number
        for shelf in self._shelves.all_low():
            if self._shelves.is_low(shelf):  # else it was seen to as another one was read
                shelf.begin_to_read()
                self._take_in(shelf, await self._ledger.read(self._page_of(shelf)))

    def cancel_all(self, task_ids: Sequence[str]) -> None:
        """Cancel tasks by id: those in memory at once, those that are shelved once they are read.

        Ids of tasks that have ended, or never were, are ignored.
        """
        records = [self._scheduler.get(task_id) for task_id in task_ids]
        self._sender.cancel([record for record in records if record is not None])
        away = [
            task_id
            for task_id, record in zip(task_ids, records, strict=True)
            if record is None or not record.is_accepted
        ]
        if away and not self._shelves.is_empty:
            self._sender.begin(self._cancel_shelved(away), until_closed=True)

    async def _cancel_shelved(self, task_ids: Sequence[str]) -> None:
        for start in range(0, len(task_ids), PAGE):
            await self._cancel_page(task_ids[start : start + PAGE])

    async def _cancel_page(self, task_ids: Sequence[str]) -> None:
        known = await self._until_read(lambda ledger: ledger.find_all(task_ids))
        live = [record for task_id in task_ids if (record := self._scheduler.get(task_id))]
        self._sender.cancel([record for record in live if record.is_accepted])
        unfinished = [found.task for found in known.values() if found.ending is None]
        self._sender.record(self._intake.unshelve(unfinished, cancels=True))
        self._sender.settled(())

    async def _bound_after(self, number: int) -> list[AcceptedTask]:
        return await self._ledger.read(lambda it: it.unfinished_in(None, number, PAGE))

    def _begin_to_read(self, shelf: Shelf) -> None:
        shelf.begin_to_read()
        self._sender.begin(self._read_on(shelf), until_closed=True)

    async def _read_on(self, shelf: Shelf) -> None:
        self._take_in(shelf, await self._until_read(self._page_of(shelf)))

    def _take_in(self, shelf: Shelf, page: list[AcceptedTask]) -> None:
        self._sender.record(self._intake.unshelve(page))
        self._shelves.have_read(shelf, page[-1].number if page else None)
        self._sender.settled(())

    def _page_of(self, shelf: Shelf) -> Callable[[Ledger], list[AcceptedTask]]:
        lane, after, limit = shelf.lane, shelf.read_to, self._shelves.page_of(shelf, PAGE)
        return lambda ledger: ledger.unfinished_in(lane, after, limit)

    async def _until_read(self, question: Callable[[Ledger], T]) -> T:
        is_told = False
        while True:
            try:
                return await self._ledger.read(question)
            except LedgerError as error:
                if not is_told:
                    logger.warning("tasks wait that cannot be read, and are asked for: %s", error)
                is_told = True
                await asyncio.sleep(self._again_seconds)
