"""Going on with the workers of a dispatcher that has died, and with what they run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from raypool.intake import Intake
from raypool.link import WorkerGone, WorkerLink
from raypool.messages import Rejoined
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.sender import Sender

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 15.0


async def rejoin_all(links: Mapping[str, WorkerLink]) -> dict[str, Rejoined]:
    """Have every worker work for this dispatcher; what each has, by name.

    One that is dead, has no agent yet or does not answer in 15 s is left out.
    """
    answers = await asyncio.gather(*map(_rejoin, links.values()))
    return {name: one for name, one in zip(links, answers, strict=True) if one is not None}


async def _rejoin(link: WorkerLink) -> Rejoined | None:
    try:
        return await asyncio.wait_for(link.rejoin(), ANSWER_SECONDS)
    except (WorkerGone, TimeoutError):
        return None


class Rejoining:
    """Takes over what workers have begun, so that it is neither lost nor run twice."""

    def __init__(
        self, links: Mapping[str, WorkerLink], scheduler: Scheduler, sender: Sender, intake: Intake
    ) -> None:
        self._links = links
        self._scheduler = scheduler
        self._sender = sender
        self._intake = intake

    async def take_over(self, rejoined: Mapping[str, Rejoined]) -> None:
        """Go on with what these workers have.

        Raises:
            LedgerError: it cannot be read.
        """
        for name, report in rejoined.items():
            self._intake.count_from(report.last_number)
            worker = self._scheduler.roster[name]
            worker.halted = report.halted
            await self._take_over(worker, report)
        running = sum(len(worker.held) for worker in self._scheduler.roster)
        logger.warning(
            "the dispatcher has died and is back: %d workers go on, with %d tasks that they had "
            "begun",
            len(rejoined),
            running,
        )

    async def _take_over(self, worker: WorkerRecord, report: Rejoined) -> None:
        taken, dropped = await self._intake.take_over(worker, report.begun, report.kept)
        if taken:
            self._sender.take_over(worker, taken)
        if dropped:
            self._sender.begin(self._drop(worker, dropped))
        for notice in report.notices:
            self._sender.take_over_notice(worker, notice)

    async def _drop(self, worker: WorkerRecord, numbers: list[int]) -> None:
        """What has ended, or runs elsewhere, is not wanted here; a dead worker has it no more."""
        link = self._links[worker.name]
        link.confirm(numbers)
        try:
            await link.cancel(numbers)
        except WorkerGone:
            return
