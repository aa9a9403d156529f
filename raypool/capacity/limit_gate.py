"""The gate of the workers of one role: what may hold up its sending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import NOTHING, BudgetBook, Cost
from raypool.capacity.estimates import Estimates, Need, Size
from raypool.capacity.gate import Reservation
from raypool.capacity.outage import Outage
from raypool.capacity.share import SettleVerdict, Share, Ticket
from raypool.capacity.standstill import Standstill
from raypool.capacity.usage_log import UsageLog
from raypool.config import Price
from raypool.messages import Answer, Outcome, Terms
from raypool.prices import cost_usd, most_usd
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord
from raypool.usage import Usage

UNTOLD = ("TurnTimeout", "Interrupted")
"""Kinds of failures after which the provider may count more than it has told."""

BACKEND_ERROR = "BackendError"

WORTH_TELLING_SECONDS = 1.0


class Tariff:
    """What turns cost that are held on some terms.

    Attributes:
        is_known: whether anybody can say.
    """

    def __init__(self, terms: Terms, table: Mapping[str, Price]) -> None:
        self._model = terms.model or ""
        self._table = table
        self.is_known = terms.is_priced

    def most(self, need: Need) -> Cost:
        """What an exchange costs at most; nothing in USD where no price is known."""
        usd = most_usd(self._model, *need, self._table)
        return Cost.of(usd or 0.0, sum(need))

    def told(self, outcome: Outcome) -> Cost:
        """What an attempt has cost, as far as it tells."""
        return Cost.of(self.usd(outcome), outcome.usage.total_tokens)

    def usd(self, outcome: Outcome) -> float:
        """What an attempt has cost in USD, as far as it tells; 0 where no price is known."""
        usd = outcome.cost_usd
        if usd is None:
            usd = cost_usd(self._model, outcome.usage, self._table)
        return usd or 0.0


@dataclass(slots=True, kw_only=True)
class Held(Reservation):
    """What is set aside for one exchange.

    Attributes:
        size: what was known of it.
        cost: what the budget keeps for it; `None` while there is none.
        ticket: what the share of the provider's limits keeps for it; likewise.
    """

    size: Size
    cost: Cost | None
    ticket: Ticket | None


class LimitGate:
    """Lets an exchange go when breaker, budget and the provider's limits do, and it is there.

    Args:
        terms: what the workers' turns are limited and priced by.
        share: the pool's share of the provider's limits.
        book: the pool's budget, which all its gates share.
        breaker: stops the sending when no request can succeed.
        outage: stops it while the provider cannot be reached.
        log: notes what the share has sent.
        table: what models cost, by the user.
        has_memory: each worker has one conversation for its whole life.
        standstill: closes all gates of the pool.
    """

    def __init__(
        self,
        terms: Terms,
        share: Share,
        book: BudgetBook,
        breaker: Breaker,
        outage: Outage,
        *,
        log: UsageLog,
        table: Mapping[str, Price],
        has_memory: bool = False,
        standstill: Standstill | None = None,
    ) -> None:
        self.terms = terms
        self.share = share
        self.breaker = breaker
        self.outage = outage
        self.tariff = Tariff(terms, table)
        self._book = book
        self._log = log
        self._estimates = Estimates(terms)
        self._has_memory = has_memory
        self._standstill = standstill or Standstill()
        self._waits_for_share = False
        self._waits_for_probe = False

    @property
    def is_wide_open(self) -> bool:
        is_limited = self.share.is_limiting or self._book.is_limiting or self._is_probing
        return not is_limited and self._standstill.why is None

    @property
    def is_broken(self) -> bool:
        """Whether the breaker is open, so that no task fails for what others have met."""
        return self.breaker.is_open

    @property
    def why(self) -> str | None:
        return (
            self._standstill.why
            or self.breaker.why
            or self.outage.why
            or self._why_unpriced()
            or self._book.why
            or self._why_share()
        )

    def reserve(self, record: TaskRecord) -> bool:
        if self._lacks_price or self._standstill.why is not None:
            return False
        is_probe = self._is_probing
        is_last_call = is_probe and self.outage.exhausts(record.tries.unreached_since)
        if is_probe and self._probes_in(is_last_call=is_last_call) != 0:
            self._waits_for_probe = True
            return False
        size = self._estimates.size(record.task, self._conversation(record))
        cost = self._most(size) if self._book.is_limiting else None
        if cost is not None and not self._book.reserve(cost):
            return False
        ticket = None
        if self.share.is_limiting:
            ticket = self.share.take(*self._estimates.likely(size))
            if ticket is None:
                self._waits_for_share = True
                if cost is not None:
                    self._book.settle(cost, NOTHING)
                return False
        if self.breaker.is_open:
            self.breaker.begin_probe()
        if self.outage.is_open:
            self.outage.begin_probe()
        record.tries.is_last_call = is_last_call
        record.reserved = Held(is_probe=is_probe, size=size, cost=cost, ticket=ticket)
        return True

    def hold(self, record: TaskRecord) -> None:
        """Set aside of the budget what an exchange may cost that an earlier dispatcher has sent."""
        if not self._book.is_limiting:
            return
        size = self._estimates.size(record.task, self._conversation(record))
        cost = self._most(size)
        self._book.set_aside(cost)
        record.reserved = Held(size=size, cost=cost, ticket=None)

    def most(self, task: AcceptedTask) -> Cost:
        """What an exchange of a task may cost at most."""
        return self.tariff.most(self._estimates.most(self._estimates.size(task, task.session)))

    def opens_in(self) -> float | None:
        if not (self._waits_for_share or self._waits_for_probe):
            return None
        waits = [
            self.share.opens_in() if self._waits_for_share else None,
            self._probes_in() if self._waits_for_probe else None,
        ]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def wake(self) -> None:
        self._waits_for_share = self._waits_for_probe = False
        self.outage.wake()

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        if record.reserved is None and outcome is not None and outcome.limits is None:
            answer = outcome.answer
            if answer is not None:
                self._count_answer(record, outcome, answer)
                return
        held = record.reserved if isinstance(record.reserved, Held) else None
        self._settle_breaker(held, outcome)
        self._settle_outage(held, outcome)
        may_tell_less = outcome is None or _is_untold(outcome)
        self._settle_budget(held, outcome, may_tell_less=may_tell_less)
        self._settle_share(held, outcome, may_tell_less=may_tell_less)
        self._learn(record, held, outcome)

    def _count_answer(self, record: TaskRecord, outcome: Outcome, answer: Answer) -> None:
        """Settle an answer for which nothing was set aside: where nothing limits, nearly all."""
        usage = outcome.usage
        self.breaker.succeed()
        self.outage.reach()
        tokens = usage.total_tokens
        if tokens or outcome.cost_usd:
            self._book.spend(self.tariff.usd(outcome), tokens)
        self.share.count_answer(
            usage.input_tokens + usage.cache_write_tokens,
            usage.output_tokens,
            requests=outcome.requests,
            seconds=answer.duration_ms / 1000,
        )
        self._log.note()
        if record.task.session is not None or self._has_memory:
            self._learn(record, None, outcome)
        else:
            self._estimates.forget(record.number)

    def _settle_breaker(self, held: Held | None, outcome: Outcome | None) -> None:
        failure = None if outcome is None else outcome.failure
        is_probe = held is not None and held.is_probe
        if failure is not None and failure.verdict == "fatal":
            self.breaker.fail(failure.type, failure.message, is_probe=is_probe)
        elif outcome is not None and _is_answered(outcome):
            self.breaker.succeed()
        elif is_probe:
            self.breaker.end_probe()

    def _settle_outage(self, held: Held | None, outcome: Outcome | None) -> None:
        failure = None if outcome is None else outcome.failure
        is_probe = held is not None and held.is_probe
        if failure is not None and failure.verdict == "unreachable":
            self.outage.miss(failure.type, failure.message, is_probe=is_probe)
        elif outcome is not None and _has_reached(outcome):
            self.outage.reach(is_probe=is_probe)
        elif is_probe:
            self.outage.end_probe()

    def _settle_budget(
        self, held: Held | None, outcome: Outcome | None, *, may_tell_less: bool
    ) -> None:
        reserved = None if held is None else held.cost
        told = NOTHING if outcome is None else self.tariff.told(outcome)
        if reserved is not None and may_tell_less:
            self._book.keep(reserved, told)
        else:
            self._book.settle(reserved, told)

    def _settle_share(
        self, held: Held | None, outcome: Outcome | None, *, may_tell_less: bool
    ) -> None:
        ticket = None if held is None else held.ticket
        usage = Usage() if outcome is None else outcome.usage
        read, written = usage.input_tokens + usage.cache_write_tokens, usage.output_tokens
        if ticket is not None and may_tell_less:
            read = max(read, round(ticket.amounts.input_tokens))
            written = max(written, round(ticket.amounts.output_tokens))
        failure = None if outcome is None else outcome.failure
        self.share.settle(
            ticket,
            input_tokens=read,
            output_tokens=written,
            requests=1 if outcome is None else outcome.requests,
            verdict=_verdict(outcome),
            retry_after=failure.retry_after if failure is not None else None,
            limits=None if outcome is None else outcome.limits,
            seconds=_seconds(outcome),
        )
        self._log.note()

    def _learn(self, record: TaskRecord, held: Held | None, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.requests == 1 and _is_answered(outcome):
            usage = outcome.usage
            if held is not None and usage.total_tokens:
                self._estimates.learn(held.size, usage)
            conversation = self._conversation(record)
            if outcome.is_paused:
                self._estimates.remember(record.number, usage.total_tokens)
                return
            if conversation is not None:
                self._estimates.remember(conversation, usage.total_tokens)
        self._estimates.forget(record.number)

    def _conversation(self, record: TaskRecord) -> str | None:
        """The conversation that a task continues, by a name; `None` for one of its own."""
        if record.task.session is None and self._has_memory:
            return record.worker
        return record.task.session

    def _most(self, size: Size) -> Cost:
        need = self._estimates.most(size)
        return self.tariff.most(need) if self._book.counts_usd else Cost(0, sum(need))

    @property
    def _is_probing(self) -> bool:
        """Whether nothing but a probe may go."""
        return self.breaker.is_open or self.outage.is_open

    def _probes_in(self, *, is_last_call: bool = False) -> float | None:
        """Seconds until a probe may go; `None` while the one that is out must tell first.

        One that has waited long enough for a provider that is away may go beside others.
        """
        seconds = self.breaker.opens_in()
        if seconds is None or is_last_call:
            return seconds
        return max(seconds, self.outage.opens_in())

    @property
    def _lacks_price(self) -> bool:
        return self._book.counts_usd and not self.tariff.is_known

    def _why_unpriced(self) -> str | None:
        return unknown_price(self.terms) if self._lacks_price else None

    def _why_share(self) -> str | None:
        seconds = self.share.opens_in() if self._waits_for_share else None
        if seconds is None or seconds < WORTH_TELLING_SECONDS:
            return None
        who = self.terms.model or "the backend"
        return f"the rate limit of {who} lets nothing through for another {seconds:.0f} s"


def unknown_price(terms: Terms) -> str:
    """Why a budget in USD cannot be kept on these terms, and what to do."""
    if terms.model is None:
        return (
            "a budget in USD needs a price, and the backend names no model that could have one: "
            "pass Budget(tokens=…) instead"
        )
    return (
        f"a budget in USD needs a price, and that of {terms.model!r} is not known: pass "
        f'prices={{"{terms.model}": Price(input_mtok=…, output_mtok=…)}}, or Budget(tokens=…)'
    )


def _is_answered(outcome: Outcome) -> bool:
    return outcome.answer is not None or (outcome.is_paused and outcome.requests > 0)


def _has_reached(outcome: Outcome) -> bool:
    """Whether somebody is there: an answer, or an error that an unreachable one cannot give."""
    failure = outcome.failure
    return _is_answered(outcome) or (failure is not None and failure.kind == BACKEND_ERROR)


def _is_untold(outcome: Outcome) -> bool:
    """Whether the provider may count more than the outcome tells."""
    if not outcome.requests or outcome.is_returned or outcome.skipped is not None:
        return False
    failure, has_usage = outcome.failure, outcome.usage.total_tokens > 0
    if failure is None:
        return not (_is_answered(outcome) and has_usage)
    return failure.kind in UNTOLD or (failure.verdict == "transient" and has_usage)


def _verdict(outcome: Outcome | None) -> SettleVerdict:
    if outcome is None:
        return "failed"
    if outcome.failure is not None and outcome.failure.verdict == "refused":
        return "refused"
    return "answered" if _is_answered(outcome) else "failed"


def _seconds(outcome: Outcome | None) -> float | None:
    if outcome is None or outcome.answer is None:
        return None
    return outcome.answer.duration_ms / 1000
