"""One pool's share of what a provider allows under one key: may this turn be sent now?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from raypool.capacity.buckets import NOTHING, UNLIMITED, Bucket, Rates
from raypool.capacity.leases import Lease, Report
from raypool.clock import Clock
from raypool.config import RateLimit
from raypool.provider_limits import Allowance, ProviderLimits

URGE_SECONDS = 0.02
"""How soon after a lease was renewed its renewal may be urged again."""

SettleVerdict = Literal["answered", "refused", "failed"]


class Ticket(NamedTuple):
    """Leave to send one exchange, and what it takes of the share until it is settled.

    Attributes:
        number: its place among all that the share gave out.
        epoch: the epoch of the lease under which it is sent.
        amounts: what is set aside for it.
    """

    number: int
    epoch: int
    amounts: Rates


class ShareStatus(NamedTuple):
    """How a share stands.

    Attributes:
        limit: what all pools under the key may send together, in a second.
        rates: what this one may.
        sent: what it has sent since it began.
        refused: how many exchanges the provider has refused.
        closed_for: for how many seconds nothing may be sent.
        has_lease: its governor has answered lately.
        is_short: more would have been sent since the last lease, had there been more.
        answered: how many exchanges were answered.
        seconds: how long these took together.
    """

    limit: Rates
    rates: Rates
    sent: Rates
    refused: int
    closed_for: float
    has_lease: bool
    is_short: bool
    answered: int
    seconds: float


class Share:
    """Spends the lease of one pool by local buckets, so that no turn needs to ask anybody.

    `urge` is called when the lease should be renewed at once: the share is short, or the provider
    has refused a turn. It may renew the lease before it returns.
    """

    def __init__(
        self,
        clock: Clock,
        rate_limit: RateLimit | None = None,
        *,
        urge: Callable[[], None] = lambda: None,
    ) -> None:
        rate_limit = rate_limit or RateLimit()
        self.urge = urge
        self._clock = clock
        self._limit = per_second(rate_limit)
        self._is_adaptive = rate_limit.adaptive
        now = clock.monotonic()
        self._buckets = [Bucket(0.0, now) for _ in Rates._fields]
        self._limiting = list(enumerate(self._buckets))
        self._lease: Lease | None = None
        self._asked_at = now
        self._expires_at = self._due_at = self._urged_at = -math.inf
        self._closed_until = -math.inf
        self._told = UNLIMITED
        self._wanted = NOTHING
        self._short: set[Bucket] = set()
        self._was_short = False
        self._number = 0
        self._sent = [0.0] * len(Rates._fields)
        self._refused = self._answered = 0
        self._refused_tokens = 0.0
        self._refused_epoch = -1
        self._open_epoch = 0
        self._seconds = 0.0

    @property
    def is_limiting(self) -> bool:
        """Whether `take` may say no before the lease is due: it has a rate, or is closed."""
        if self._limiting:
            return True
        now = self._clock.monotonic()
        return now < self._closed_until or now >= self._due_at

    def take(self, input_tokens: float, output_tokens: float) -> Ticket | None:
        """Leave to send an exchange of about that size now; `None` when there is none."""
        amounts = Rates.of_turn(input_tokens, output_tokens)
        now = self._clock.monotonic()
        if now >= self._due_at:
            self._urge(now)
        if self._is_open_for(amounts, now):
            return self._give_out(amounts, now)
        if self._gains_by_asking and self._urge(now) and self._is_open_for(amounts, now):
            return self._give_out(amounts, now)
        return None

    def opens_in(self) -> float | None:
        """Seconds until `take` may give leave again; `None` when its lease must change first."""
        now = self._clock.monotonic()
        waits = [bucket.opens_in(self._wanted[k], now) for k, bucket in enumerate(self._buckets)]
        waits.append(max(0.0, self._closed_until - now))
        due = max(0.0, self._due_at - now)
        if now >= self._expires_at or None in waits:
            return due or None
        return max(wait for wait in waits if wait is not None)

    def settle(
        self,
        ticket: Ticket | None,
        *,
        input_tokens: float = 0.0,
        output_tokens: float = 0.0,
        requests: float = 1.0,
        verdict: SettleVerdict = "answered",
        retry_after: float | None = None,
        limits: ProviderLimits | None = None,
        seconds: float | None = None,
    ) -> None:
        """What became of an exchange, in place of what was set aside for it.

        Args:
            ticket: `None` for what was sent without one while nothing was limited.
            input_tokens: what it took, as the provider counts it.
            output_tokens: likewise.
            requests: how many requests it took; 0 when it was never sent.
            verdict: `"refused"` when the provider had no capacity for it (429, 529).
            retry_after: for how long the provider wants nothing sent.
            limits: what the provider said of its limits.
            seconds: how long the exchange took.
        """
        now = self._clock.monotonic()
        used = Rates.of_turn(input_tokens, output_tokens, requests)
        self._put_right(ticket, used, now)
        if limits is not None:
            self._hear(limits, now)
        if verdict == "answered":
            self._answered += 1
            self._seconds += seconds or 0.0
        elif verdict == "refused":
            self._note_refusal(ticket, retry_after, now)

    def count_answer(
        self, input_tokens: float, output_tokens: float, *, requests: float, seconds: float
    ) -> None:
        """Count an exchange that was sent without a ticket and answered; as `settle` does."""
        sent = self._sent
        sent[0] += requests
        sent[1] += input_tokens
        sent[2] += output_tokens
        sent[3] += input_tokens + output_tokens
        self._answered += 1
        self._seconds += seconds

    # The lease

    def report(self) -> Report:
        """What the governor is to know; it is asked now for another lease."""
        now = self._asked_at = self._clock.monotonic()
        has_lease = self._lease is not None and now < self._expires_at
        return Report(
            limit=self._limit,
            is_adaptive=self._is_adaptive,
            told=self._told,
            held=self._lease.rates if self._lease is not None and has_lease else NOTHING,
            levels=Rates(
                *(0.0 if one.rate == math.inf else one.fill(now) for one in self._buckets)
            ),
            is_short=tuple(one in self._short for one in self._buckets),  # type: ignore[arg-type]
            sent=Rates(*self._sent),
            refused=self._refused,
            refused_tokens=self._refused_tokens,
            refused_epoch=self._refused_epoch,
            answered=self._answered,
            seconds=self._seconds,
            closed_for=max(0.0, self._closed_until - now),
            epoch=self._lease.epoch if self._lease is not None else 0,
            found=self._lease.found if self._lease is not None else math.inf,
        )

    def renew(self, lease: Lease) -> None:
        """Go on with what the governor has answered to the last `report`."""
        now = self._clock.monotonic()
        has_new_epoch = self._lease is not None and lease.epoch > self._lease.epoch
        self._lease = lease
        self._expires_at = self._asked_at + lease.seconds
        self._due_at = self._asked_at + lease.renew_in
        self._was_short = bool(self._short)
        self._short.clear()
        for k, bucket in enumerate(self._buckets):
            bucket.last = self._number
            size = lease.request_size if k == 0 else None
            bucket.change(lease.rates[k], now, size=size)
            bucket.pour(lease.credit[k], now)
            if has_new_epoch:
                bucket.drain(now)
        self._limiting = [
            (k, bucket) for k, bucket in enumerate(self._buckets) if bucket.rate < math.inf
        ]
        if not self._limiting:
            self._open_epoch = lease.epoch
        if lease.closed_for > 0:
            self._close_until(now + lease.closed_for, now)

    @property
    def _has_never_closed(self) -> bool:
        return self._closed_until == -math.inf

    @property
    def renews_in(self) -> float:
        """Seconds until the lease is to be renewed."""
        return max(0.0, self._due_at - self._clock.monotonic())

    def status(self) -> ShareStatus:
        """How it stands."""
        now = self._clock.monotonic()
        lease = self._lease
        return ShareStatus(
            limit=lease.limit if lease else UNLIMITED,
            rates=lease.rates if lease else NOTHING,
            sent=Rates(*self._sent),
            refused=self._refused,
            closed_for=max(0.0, self._closed_until - now),
            has_lease=now < self._expires_at,
            is_short=bool(self._short),
            answered=self._answered,
            seconds=self._seconds,
        )

    # Steps

    @property
    def _gains_by_asking(self) -> bool:
        """A share that has just become short may get more at once, and one that still grows."""
        lease = self._lease
        if lease is None or not self._was_short:
            return True
        return lease.epoch == 0 and lease.found <= lease.limit.requests

    def _is_open_for(self, amounts: Rates, now: float) -> bool:
        if now < self._closed_until or now >= self._expires_at:
            self._wanted = amounts
            return False
        for k, bucket in self._limiting:
            if not bucket.has(amounts[k], now):
                self._short.add(bucket)
                self._wanted = amounts
                return False
        return True

    def _give_out(self, amounts: Rates, now: float) -> Ticket:
        assert self._lease is not None
        self._number += 1
        for k, bucket in self._limiting:
            bucket.take(amounts[k], self._number, now)
        self._count(amounts)
        if self._buckets[0].rate == 0:
            self._urge(now)
        return Ticket(self._number, self._lease.epoch, amounts)

    def _put_right(self, ticket: Ticket | None, used: Rates, now: float) -> None:
        if ticket is None:
            self._count(used)
            return
        self._count(used, but=ticket.amounts)
        for k, bucket in self._limiting:
            unused = ticket.amounts[k] - used[k]
            if unused:
                bucket.settle(unused, ticket.number, now)

    def _count(self, amounts: Rates, *, but: Rates = NOTHING) -> None:
        sent = self._sent
        sent[0] += amounts[0] - but[0]
        sent[1] += amounts[1] - but[1]
        sent[2] += amounts[2] - but[2]
        sent[3] += amounts[3] - but[3]

    def _note_refusal(self, ticket: Ticket | None, retry_after: float | None, now: float) -> None:
        self._refused += 1
        if ticket is not None:
            self._refused_tokens += ticket.amounts.tokens
        sent_in = ticket.epoch if ticket is not None else self._open_epoch
        is_news = sent_in > self._refused_epoch
        self._refused_epoch = max(self._refused_epoch, sent_in)
        if retry_after is not None:
            is_news |= now + retry_after > self._closed_until
            self._close_until(now + retry_after, now)
        if is_news:
            self._urged_at = -math.inf
            self._urge(now)

    def _hear(self, limits: ProviderLimits, now: float) -> None:
        allowances: list[Allowance | None] = [getattr(limits, name) for name in Rates._fields]
        told = Rates(
            *(
                known if one is None else one.limit / 60
                for one, known in zip(allowances, self._told, strict=True)
            )
        )
        wall = self._clock.time()
        spent = [one.reset_at - wall for one in allowances if one and one.remaining <= 0]
        until = now + max(spent, default=0.0)
        is_news = told != self._told or until > max(now, self._closed_until)
        self._told = told
        if until > now:
            self._close_until(until, now)
        if is_news:
            self._urge(now)

    def _close_until(self, until: float, now: float) -> None:
        """Send nothing before then, one request at that time, and no burst after it."""
        self._closed_until = max(self._closed_until, until)
        rate = self._buckets[0].rate
        filling = max(now, self._closed_until - (1 / rate if rate else 0.0))
        for _, bucket in self._limiting:
            bucket.pause(filling, now)

    def _urge(self, now: float) -> bool:
        """Have the lease renewed, unless that was urged just now; whether it was not."""
        if now < self._urged_at + URGE_SECONDS:
            return False
        self._urged_at = now
        self.urge()
        return True


def per_second(limit: RateLimit) -> Rates:
    """What a pool's own limit allows in a second."""
    return Rates(
        *(
            math.inf if minute is None else minute / 60
            for minute in (
                limit.requests_per_minute,
                limit.input_tokens_per_minute,
                limit.output_tokens_per_minute,
            )
        )
    )
