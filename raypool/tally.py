"""How many tasks have ended, and what they cost."""

from __future__ import annotations

from collections import Counter

from raypool.ledger import NO_EXTRA, Extra, Totals
from raypool.records import Ending
from raypool.usage import Usage


class Tally:
    """Counts the endings of a pool, on from what its ledger held when it started.

    Attributes:
        extra_turns: turns whose answer was not needed.
        extra_cost_usd: what they cost; `cost_usd` has it, too.
        maybe_billed: turns that a death has cut short.
    """

    def __init__(self, totals: Totals) -> None:
        self.ended: Counter[str] = Counter(
            completed=totals.completed, failed=totals.failed, cancelled=totals.cancelled
        )
        self.input_tokens = totals.usage.total_tokens - totals.usage.output_tokens
        self.output_tokens = totals.usage.output_tokens
        self.cost_usd = totals.cost_usd
        self.unpriced = totals.unpriced
        self.extra_turns = totals.extra.turns
        self.extra_cost_usd = totals.extra.turns_usd
        self.maybe_billed = totals.extra.maybe_billed
        self._unrecorded = NO_EXTRA

    def add(self, ending: Ending, *, was_in_vain: bool = False) -> None:
        """Count an ending that is recorded; `was_in_vain` when its task has lost a race."""
        self.ended[ending.state] += 1
        self._spend(ending.usage, ending.cost_usd)
        if ending.cost_usd is None and ending.state == "completed":
            self.unpriced += 1
        if was_in_vain:
            self._count_extra(ending.cost_usd)

    def add_in_vain(self, usage: Usage, cost_usd: float | None) -> None:
        """Count a turn of a task that had ended elsewhere; the ledger is to hear of it."""
        self._spend(usage, cost_usd)
        self._count_extra(cost_usd)
        usd = cost_usd or 0.0
        self._unrecorded += Extra(turns=1, turns_usd=usd, usage=usage, usage_usd=usd)

    def keep(self, usd: float, tokens: int) -> None:
        """Have the ledger hear what the budget counts beside what attempts have told."""
        self._unrecorded += Extra(kept_usd=usd, kept_tokens=tokens)

    def cut_short(self, turns: int) -> None:
        """Count turns whose worker has died; the ledger is to hear of it."""
        self.maybe_billed += turns
        self._unrecorded += Extra(maybe_billed=turns)

    @property
    def has_unrecorded(self) -> bool:
        """Whether the ledger is to hear of something that is in no ending."""
        return self._unrecorded is not NO_EXTRA

    def take_unrecorded(self) -> Extra:
        """What the ledger is to hear of; it is told once."""
        extra, self._unrecorded = self._unrecorded, NO_EXTRA
        return extra

    def put_back(self, extra: Extra) -> None:
        """The ledger could not be told: it is to hear of it with what comes next."""
        self._unrecorded = extra if self._unrecorded is NO_EXTRA else self._unrecorded + extra

    def _spend(self, usage: Usage, cost_usd: float | None) -> None:
        self.input_tokens += usage.total_tokens - usage.output_tokens
        self.output_tokens += usage.output_tokens
        self.cost_usd += cost_usd or 0.0

    def _count_extra(self, cost_usd: float | None) -> None:
        self.extra_turns += 1
        self.extra_cost_usd += cost_usd or 0.0
