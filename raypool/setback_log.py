"""Keeping in the ledger how often turns had to be asked again."""

from __future__ import annotations

import asyncio
import logging

from raypool.clock import Clock
from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.setbacks import Setback, SetbackTally
from raypool.settling import Delayed

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0


class SetbackLog:
    """Counts what is asked again, and has the ledger keep the counts.

    One transaction every 5 seconds at most, and none while nothing is asked again. A dispatcher
    that dies takes the counts of its last 5 seconds along.
    """

    def __init__(self, ledger: GroupCommit, clock: Clock) -> None:
        self._ledger = ledger
        self._tally = SetbackTally(clock)
        self._timer: asyncio.TimerHandle | None = None

    def note(self, delayed: Delayed) -> None:
        """Count a task that will be tried again."""
        failure = delayed.failure
        self._tally.add("refused" if failure.verdict == "refused" else "retried", failure.type)
        self._flush_soon()

    def flush(self) -> None:
        """Have what was counted be written; what cannot be is written with what comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken = self._tally.take()
        if not taken:
            return
        try:
            writing = self._ledger.write(lambda ledger: ledger.add_setbacks(taken))
        except LedgerError:
            return  # it is closed, and what is not in it by now never will be
        writing.add_done_callback(lambda done: self._written(done, taken))

    def _flush_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(FLUSH_SECONDS, self.flush)

    def _written(self, done: asyncio.Future[None], taken: list[Setback]) -> None:
        error = done.exception()
        if error is not None:
            logger.info("%d counts of what was asked again wait: %s", len(taken), error)
            self._tally.put_back(taken)
            self._flush_soon()
