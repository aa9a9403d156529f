"""How many tasks have ended, and what they cost."""

from __future__ import annotations

from collections import Counter

from raypool.ledger import Totals
from raypool.records import Ending
from raypool.usage import Usage


class Tally:
    """Counts the endings of a pool, on from what its ledger held when it started.

    Attributes:
        extra_turns: turns whose answer was not needed, since the pool started.
        extra_cost_usd: what they cost; `cost_usd` has it, too.
    """

    def __init__(self, totals: Totals) -> None:
        self.ended: Counter[str] = Counter(
            completed=totals.completed, failed=totals.failed, cancelled=totals.cancelled
        )
        self.input_tokens = totals.usage.total_tokens - totals.usage.output_tokens
        self.output_tokens = totals.usage.output_tokens
        self.cost_usd = totals.cost_usd
        self.unpriced = totals.unpriced
        self.extra_turns = 0
        self.extra_cost_usd = 0.0

    def add(self, ending: Ending, *, was_in_vain: bool = False) -> None:
        """Count an ending that is recorded; `was_in_vain` when its task has lost a race."""
        self.ended[ending.state] += 1
        self._spend(ending.usage, ending.cost_usd)
        if ending.cost_usd is None and ending.state == "completed":
            self.unpriced += 1
        if was_in_vain:
            self._count_extra(ending.cost_usd)

    def add_in_vain(self, usage: Usage, cost_usd: float | None) -> None:
        """Count a turn of a task that had ended elsewhere."""
        self._spend(usage, cost_usd)
        self._count_extra(cost_usd)

    def _spend(self, usage: Usage, cost_usd: float | None) -> None:
        self.input_tokens += usage.total_tokens - usage.output_tokens
        self.output_tokens += usage.output_tokens
        self.cost_usd += cost_usd or 0.0

    def _count_extra(self, cost_usd: float | None) -> None:
        self.extra_turns += 1
        self.extra_cost_usd += cost_usd or 0.0
