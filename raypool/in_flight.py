"""What an earlier dispatcher had sent when it died, and may have to be paid for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from raypool.capacity.budget import PICO, BudgetBook
from raypool.capacity.gates import Gates
from raypool.group_commit import GroupCommit
from raypool.ledger import Extra, Progress
from raypool.naming import number_of
from raypool.scheduler import Scheduler
from raypool.tally import Tally

logger = logging.getLogger(__name__)


async def count_in_flight(
    ledger: GroupCommit,
    scheduler: Scheduler,
    gates: Gates,
    book: BudgetBook,
    tally: Tally,
    *,
    present: Iterable[str],
) -> None:
    """Count the turns that nobody will tell of; a budget keeps what they may have cost at most.

    Their tasks run again. What a worker that is `present` has not begun, or runs for this
    dispatcher, is not counted: it has told.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    sent = await ledger.read(lambda it: it.sent())
    over = [one for one in sent if scheduler.get(one.task.id) is None]
    if not over:
        return
    told = set(map(number_of, present))
    lost = [one.task for one in over if one.worker not in told]
    costs = [gates.most(task) for task in lost]
    usd = sum(cost.pico_usd for cost in costs) / PICO
    tokens = sum(cost.tokens for cost in costs)
    extra = Extra(kept_usd=usd, kept_tokens=tokens, maybe_billed=len(lost))
    await ledger.note(Progress(sent={one.task.number: None for one in over}), extra)
    book.spend(usd, tokens)
    tally.maybe_billed += len(lost)
    if lost:
        logger.warning(
            "%d turns were cut short as the pool ended last: they may have been billed, and run "
            "again; status().maybe_billed counts them",
            len(lost),
        )
