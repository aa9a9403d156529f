"""How many tasks have ended, and what they cost."""

from __future__ import annotations

from collections import Counter

from raypool.ledger import Totals
from raypool.records import Ending
from raypool.usage import Usage


class Tally:
    """Counts the endings of a pool, on from what its ledger held when it started."""

    def __init__(self, totals: Totals) -> None:
        self.ended: Counter[str] = Counter(
            completed=totals.completed, failed=totals.failed, cancelled=totals.cancelled
        )
        self.input_tokens = totals.usage.total_tokens - totals.usage.output_tokens
        self.output_tokens = totals.usage.output_tokens
        self.cost_usd = totals.cost_usd
        self.unpriced = totals.unpriced

    def add(self, ending: Ending) -> None:
        """Count an ending that is recorded."""
        usage: Usage = ending.usage
        self.ended[ending.state] += 1
        self.input_tokens += usage.total_tokens - usage.output_tokens
        self.output_tokens += usage.output_tokens
        if ending.cost_usd is not None:
            self.cost_usd += ending.cost_usd
        elif ending.state == "completed":
            self.unpriced += 1
