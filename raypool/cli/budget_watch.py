"""A run whose budget is spent ends: nothing would come of waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raypool.cli.figures import dollars
from raypool.errors import RaypoolError

if TYPE_CHECKING:
    from raypool.pool import Pool

SECONDS_BETWEEN_LOOKS = 1.0


class BudgetWatch:
    """Looks at the budget of a pool now and then, if it has one, and stops it once that is spent.

    Attributes:
        why: why the pool was stopped; empty while it was not.
    """

    def __init__(
        self,
        pool: Pool,
        stop_reading: Callable[[], None] = lambda: None,
        *,
        budget_usd: float | None,
        seconds: float = SECONDS_BETWEEN_LOOKS,
    ) -> None:
        self.why = ""
        self._is_needed = budget_usd is not None
        self._pool = pool
        self._stop_reading = stop_reading
        self._seconds = seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="budget-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._is_needed:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._is_needed:
            self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(self._seconds):
            try:
                status = self._pool.status()
            except RaypoolError:
                return
            budget = status.budget
            is_under_way = status.running or (budget is not None and budget.reserved_usd)
            if budget is not None and budget.is_spent and not is_under_way:
                self.why = (
                    f"the budget is spent ({dollars(budget.spent_usd)} of "
                    f"{dollars(budget.usd or 0.0)}); --budget-usd raises it"
                )
                self._stop_reading()
                self._pool.stop()
                return
