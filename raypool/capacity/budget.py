"""What a pool may spend, has spent, and has set aside for the turns that run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from raypool.config import Budget
from raypool.status import BudgetStatus

PICO = 1_000_000_000_000
"""Money is counted in whole trillionths of a USD, so that sums are exact in any order."""

Limit: TypeAlias = Literal["usd", "tokens"]


class Cost(NamedTuple):
    """What turns cost, or may cost at most.

    Attributes:
        pico_usd: in trillionths of a USD.
        tokens: input and output tokens together.
    """

    pico_usd: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, usd: float, tokens: int) -> Cost:
        """That many USD, and tokens."""
        return cls(round(usd * PICO), tokens)

    def greater(self, other: Cost) -> Cost:
        """The greater of each."""
        return Cost(max(self.pico_usd, other.pico_usd), max(self.tokens, other.tokens))


NOTHING = Cost()


class _Sum:
    """What costs add up to."""

    __slots__ = ("pico_usd", "tokens")

    def __init__(self, first: Cost) -> None:
        self.pico_usd, self.tokens = first

    def add(self, cost: Cost) -> None:
        self.pico_usd += cost.pico_usd
        self.tokens += cost.tokens

    def subtract(self, cost: Cost) -> None:
        self.pico_usd -= cost.pico_usd
        self.tokens -= cost.tokens


class BudgetBook:
    """Keeps a pool within its budget: what is spent and what is set aside never exceed it.

    That holds as long as no turn costs more than was set aside for it.

    Attributes:
        on_spent: is told which limit of the budget is spent, once for each budget.
        on_kept: is told what counts as spent though nobody said so, in USD and in tokens.
        is_limiting: there is a limit.
        counts_usd: there is a limit in USD, so that every turn must have a price.
    """

    def __init__(self, budget: Budget | None, spent: Cost = NOTHING) -> None:
        self.on_spent: Callable[[Limit], None] | None = None
        self.on_kept: Callable[[float, int], None] | None = None
        self._spent = _Sum(spent)
        self._reserved = _Sum(NOTHING)
        self._under_way = 0
        self.set(budget)

    def set(self, budget: Budget | None) -> None:
        """Have another budget from now on; what is spent stays so."""
        self._budget = budget
        self._usd = None if budget is None or budget.usd is None else round(budget.usd * PICO)
        self._tokens = None if budget is None else budget.tokens
        self.counts_usd = self._usd is not None
        self.is_limiting = self.counts_usd or self._tokens is not None
        self._short: tuple[Limit, Cost] | None = None
        self._has_told = False

    def reserve(self, most: Cost) -> bool:
        """Set aside what a turn may cost at most; `False` when the budget has not so much left."""
        lacking = self._lacking(most)
        if lacking is not None:
            if not self._under_way:
                self._run_short(lacking, most)
            return False
        self.set_aside(most)
        return True

    def set_aside(self, most: Cost) -> None:
        """Set aside what a turn may cost that is under way, whatever is left."""
        self._short = None
        self._reserved.add(most)
        self._under_way += 1

    def settle(self, reserved: Cost | None, spent: Cost) -> None:
        """Give back what was set aside for a turn, and count what it has cost.

        `reserved` is `None` for a turn that nothing was set aside for.
        """
        self._spent.add(spent)
        if reserved is not None:
            self._reserved.subtract(reserved)
            self._under_way -= 1

    def spend(self, usd: float, tokens: int) -> None:
        """Count what a turn has cost that nothing was set aside for."""
        self._spent.tokens += tokens
        if usd:
            self._spent.pico_usd += round(usd * PICO)

    def keep(self, reserved: Cost, told: Cost) -> None:
        """Count what was set aside for a turn that may have cost more than it told.

        What it told counts where that is more.
        """
        spent = told.greater(reserved)
        self.settle(reserved, spent)
        if self.on_kept is not None and spent != told:
            usd = (spent.pico_usd - told.pico_usd) / PICO
            self.on_kept(usd, spent.tokens - told.tokens)

    @property
    def why(self) -> str | None:
        """Why nothing more is sent; `None` while something may be.

        The budget is spent when not even one turn fits into it though none is under way.
        """
        if self._short is None:
            return None
        lacking, most = self._short
        if lacking == "usd":
            return (
                f"the budget is spent: ${self._spent.pico_usd / PICO:.4g} of "
                f"${(self._usd or 0) / PICO:.4g}, and the next turn may cost "
                f"${most.pico_usd / PICO:.2g}; pool.set_budget(Budget(usd=…)) raises it"
            )
        return (
            f"the budget is spent: {self._spent.tokens:,} of {self._tokens or 0:,} tokens, and the "
            f"next turn may take {most.tokens:,}; pool.set_budget(Budget(tokens=…)) raises it"
        )

    def status(self) -> BudgetStatus | None:
        """The budget as it is now; `None` when there is none."""
        if self._budget is None:
            return None
        return BudgetStatus(
            usd=self._budget.usd,
            tokens=self._budget.tokens,
            spent_usd=self._spent.pico_usd / PICO,
            spent_tokens=self._spent.tokens,
            reserved_usd=self._reserved.pico_usd / PICO,
            reserved_tokens=self._reserved.tokens,
            is_spent=self._short is not None,
        )

    def _lacking(self, most: Cost) -> Limit | None:
        spent, reserved, usd, tokens = self._spent, self._reserved, self._usd, self._tokens
        if usd is not None and spent.pico_usd + reserved.pico_usd + most.pico_usd > usd:
            return "usd"
        if tokens is not None and spent.tokens + reserved.tokens + most.tokens > tokens:
            return "tokens"
        return None

    def _run_short(self, lacking: Limit, most: Cost) -> None:
        self._short = lacking, most
        if not self._has_told and self.on_spent is not None:
            self._has_told = True
            self.on_spent(lacking)
