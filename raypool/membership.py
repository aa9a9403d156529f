"""What a ledger knows of a pool that runs, for who comes after its dispatcher."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from raypool.config import Budget
from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.ledger import BUDGET, EPOCH, WORKERS, Ledger

logger = logging.getLogger(__name__)


async def keep_members(ledger: GroupCommit, names: Iterable[str]) -> None:
    """Keep who there is from now on; when that cannot be, a log line says so."""
    await _keep(ledger, WORKERS, json.dumps(list(names)))


async def keep_budget(ledger: GroupCommit, budget: Budget | None) -> None:
    """Keep the budget that the pool has from now on; when that cannot be, a log line says so."""
    await _keep(ledger, BUDGET, _json_of(budget))


def begin_budget(ledger: Ledger, configured: Budget | None, *, goes_on: bool) -> Budget | None:
    """The budget of a dispatcher that starts: the one that is configured, kept from now on.

    One that `goes_on` has what the pool had last. What an earlier pool was given on the same
    ledger is forgotten.
    """
    if not goes_on:
        ledger.set_meta(BUDGET, _json_of(configured))
        return configured
    kept = ledger.meta(BUDGET)
    if kept is None:
        return configured
    return None if kept == "null" else Budget.model_validate_json(kept)


def _json_of(budget: Budget | None) -> str:
    return "null" if budget is None else budget.model_dump_json()


async def _keep(ledger: GroupCommit, key: str, value: str) -> None:
    try:
        await ledger.write(lambda it: it.set_meta(key, value))
    except LedgerError as error:
        logger.warning("the ledger does not know the pool's %s as they are now: %s", key, error)


def members(ledger: Ledger) -> list[str]:
    """Who there was when that was last kept."""
    names: list[str] = json.loads(ledger.meta(WORKERS) or "[]")
    return names


def begin_epoch(ledger: Ledger) -> int:
    """Count one more dispatcher that works with the ledger; how many there have been."""
    epoch = int(ledger.meta(EPOCH) or 0) + 1
    ledger.set_meta(EPOCH, str(epoch))
    return epoch
