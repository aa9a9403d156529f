"""The gates of a pool: one for each role, on one budget, with the limits of its provider."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import NOTHING, BudgetBook, Cost, Limit
from raypool.capacity.estimates import FALLBACK_MAX_TOKENS
from raypool.capacity.limit_gate import LimitGate, unknown_price
from raypool.capacity.outage import Outage
from raypool.capacity.share import Share
from raypool.capacity.standstill import Standstill
from raypool.capacity.usage_log import UsageLog
from raypool.clock import Clock
from raypool.config import Budget, Price, RateLimit, RetryPolicy
from raypool.messages import Terms
from raypool.records import AcceptedTask
from raypool.status import LimitStatus

logger = logging.getLogger(__name__)

Account: TypeAlias = tuple[str, str, str | None]
NewShare: TypeAlias = Callable[[Terms, RateLimit], Share]
Tell: TypeAlias = Callable[..., None]
"""Is told of each event in the pool: its name, and its fields by theirs."""


class Gates:
    """Makes the gate of each role as its first worker is ready.

    Roles whose turns go to one provider, under one key and to one model, share its limits and
    one breaker; those of one provider share its outages.

    Args:
        book: the pool's budget.
        clock: what time it is.
        prices: what models cost, by the user.
        has_memory: each worker has one conversation for its whole life.
        new_share: makes the pool's share of the limits that such turns have.
        retry: how long a provider that cannot be reached is left alone.
        tell: is told when the budget is spent, and when sending stops and goes on.
        standstill: closes them all.
    """

    def __init__(
        self,
        book: BudgetBook,
        clock: Clock,
        *,
        prices: Mapping[str, Price],
        has_memory: bool,
        new_share: NewShare,
        tell: Tell,
        retry: RetryPolicy | None = None,
        standstill: Standstill | None = None,
    ) -> None:
        self._book = book
        self._clock = clock
        self._prices = prices
        self._has_memory = has_memory
        self._new_share = new_share
        self._tell = tell
        self._retry = retry
        self._standstill = standstill or Standstill()
        self._gates: dict[tuple[str, Terms], LimitGate] = {}
        self._breakers: dict[Account, Breaker] = {}
        self._outages: dict[str, Outage] = {}
        self._shares: dict[tuple[Account, RateLimit], Share] = {}
        self._logs: dict[Share, tuple[Terms, UsageLog]] = {}
        book.on_spent = self._tell_of_budget

    def of(self, role: str, terms: Terms, rate_limit: RateLimit) -> LimitGate:
        """The gate of the workers of a role, whose turns have these terms."""
        gate = self._gates.get((role, terms))
        if gate is None:
            gate = self._gates[role, terms] = self._new_gate(role, terms, rate_limit)
        return gate

    def most(self, task: AcceptedTask) -> Cost:
        """What an exchange of a task may cost at most, whichever worker has it."""
        roles = self._gates.items()
        costs = [gate.most(task) for (role, _), gate in roles if task.role in (None, role)]
        return functools.reduce(Cost.greater, costs, NOTHING)

    def problem(self, budget: Budget | None) -> str | None:
        """Why a budget cannot be kept; `None` when it can."""
        if budget is None or budget.usd is None:
            return None
        unpriced = (gate.terms for gate in self._gates.values() if not gate.tariff.is_known)
        return next(map(unknown_price, unpriced), None)

    def resume_sending(self) -> None:
        """Send again, whatever has failed."""
        for breaker in self._breakers.values():
            breaker.close()
        for outage in self._outages.values():
            outage.close()

    @property
    def why(self) -> str | None:
        """Why nothing is sent of a role, or of all; `None` while something is."""
        reasons = (gate.why for gate in self._gates.values())
        return self._standstill.why or next(filter(None, reasons), None)

    def limits(self) -> list[LimitStatus]:
        """What limits the sending now."""
        return [log.status(terms.provider, terms.model) for terms, log in self._logs.values()]

    def remarks(self) -> list[str]:
        """What a user should know before money is spent."""
        remarks = []
        for role, terms in self._gates:
            if terms.provider and not terms.is_priced:
                remarks.append(
                    f"the price of model {terms.model!r} is not known, so what it costs is not "
                    f"counted: pass prices={{{terms.model!r}: Price(input_mtok=…, output_mtok=…)}}"
                )
            if self._book.is_limiting and terms.max_tokens is None:
                remarks.append(
                    f"the agent of role {role!r} sets no max_tokens: the budget sets aside "
                    f"{FALLBACK_MAX_TOKENS:,} output tokens for each of its turns; "
                    "SessionOptions(max_tokens=…) says how many it may be"
                )
        return list(dict.fromkeys(remarks))

    def _new_gate(self, role: str, terms: Terms, rate_limit: RateLimit) -> LimitGate:
        account = (terms.provider, terms.key or ("" if terms.provider else role), terms.model)
        breaker = self._breakers.get(account)
        if breaker is None:
            breaker = self._breakers[account] = Breaker(self._clock)
            breaker.on_change = self._tell_of_breaker
        provider = terms.provider or role
        outage = self._outages.get(provider)
        if outage is None:
            outage = self._outages[provider] = Outage(self._clock, self._retry)
            outage.on_change = self._tell_of_outage
        share = self._shares.get((account, rate_limit))
        if share is None:
            share = self._shares[account, rate_limit] = self._new_share(terms, rate_limit)
            self._logs[share] = terms, UsageLog(share, self._clock)
        return LimitGate(
            terms,
            share,
            self._book,
            breaker,
            outage,
            log=self._logs[share][1],
            table=self._prices,
            has_memory=self._has_memory,
            standstill=self._standstill,
        )

    def _tell_of_budget(self, limit: Limit) -> None:
        status = self._book.status()
        self._tell("limit.spent", budget=limit, cost_usd=status.spent_usd if status else None)
        logger.warning("%s", self._book.why)

    def _tell_of_breaker(self, error_type: str | None) -> None:
        if error_type is None:
            self._tell("breaker.closed")
            logger.info("sending goes on")
            return
        self._tell("breaker.opened", error_type=error_type)
        logger.error(
            "sending has stopped: no request succeeds any more (%s); what waits stays. Mend the "
            "cause and call pool.resume_sending(); a task is tried now and then",
            error_type,
        )

    def _tell_of_outage(self, error_type: str | None) -> None:
        if error_type is None:
            self._tell("breaker.closed")
            logger.info("the provider can be reached again: sending goes on")
            return
        self._tell("breaker.opened", error_type=error_type)
        why = (outage.why for outage in self._outages.values() if outage.is_open)
        logger.warning("sending has stopped: %s", next(why, error_type))
