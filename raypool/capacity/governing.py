"""Parting what a provider allows under one key among the pools that use it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from raypool.capacity.adaptive import FIRST_RATE, Adaptive
from raypool.capacity.allocation import fair_parts
from raypool.capacity.binding import Binding
from raypool.capacity.buckets import UNLIMITED, Bucket, Rates
from raypool.capacity.leases import Lease, Report
from raypool.clock import Clock

LEASE_SECONDS = 5.0
"""How long a share goes on without its governor, and what it held is kept for it."""

RENEW_SECONDS = 1.0
TOLD_PART = 0.98
"""How much of what a provider says that it allows is used: its clock is not ours."""

SOON_SECONDS = 0.05
NEWS_SECONDS = 0.01
SPARE = 1.3
"""A share that is not short is given more than it uses, so that it is not short soon."""

MEMORY_SECONDS = 2.0

_KINDS = range(len(Rates._fields))
_TOKENS = Rates._fields.index("tokens")


class _User:
    """What the governor knows of one share.

    Attributes:
        rates: what it was last leased.
        request_size: how many requests it may hold.
        expires_at: when its lease runs out.
        is_present: it has not left; what a share owes that has left is still being paid.
        served_at: when it was last handed a single request.
    """

    def __init__(self, report: Report, now: float) -> None:
        self.report = report
        self.seen_at = now
        self.rates = report.held
        self.request_size = max(1.0, report.held.requests) if report.held.requests else 0.0
        self.expires_at = now + LEASE_SECONDS
        self.is_present = True
        self.served_at = -math.inf
        self._sums = [0.0] * len(_KINDS)
        self._weight = 0.0

    def hear(self, report: Report, now: float) -> None:
        """Take in another report."""
        seconds = now - self.seen_at
        fading = math.exp(-seconds / MEMORY_SECONDS)
        for kind in _KINDS:
            sent = report.sent[kind] - self.report.sent[kind]
            self._sums[kind] = (self._sums[kind] + sent / MEMORY_SECONDS) * fading
        self._weight = self._weight * fading + 1 - fading
        self.report = report
        self.seen_at = now

    @property
    def has_history(self) -> bool:
        """It has been known for long enough to tell what it sends in a second."""
        return self._weight > 0.1

    def usage(self, kind: int) -> float:
        """How much of a thing it has lately sent in a second."""
        return max(0.0, self._sums[kind] / self._weight) if self._weight else 0.0

    def demand(self, kind: int) -> float:
        """How much of a thing it could send in a second."""
        if self.report.is_short[kind]:
            return math.inf
        usage = self.usage(kind) * SPARE
        return max(usage, 1.0) if kind == 0 and usage > 0.01 else usage


class Governing:
    """Leases rates to the shares of one key, whose sum never exceeds its limit.

    The limit is the strictest of what the pools that are present were configured with, what the
    provider's headers tell, and what its refusals have shown. A share grows only by what the
    others have given back, or by what was leased to one that has not been heard of for
    `LEASE_SECONDS`.

    What nobody is leased fills a reserve here; the reserve and the buckets of all shares
    together never hold more than one second's worth of the limit, or one request. Where that is
    less than a request a second for each share, single requests are handed around.

    Attributes:
        called: the shares that should renew their leases before these are due.
    """

    def __init__(
        self, clock: Clock, *, is_replacement: bool = False, first_rate: float = FIRST_RATE
    ) -> None:
        self._clock = clock
        self._adaptive = Adaptive(first_rate)
        self._binding = Binding()
        self._users: dict[str, _User] = {}
        now = clock.monotonic()
        self._reserve: list[Bucket | None] = [None for _ in _KINDS]
        self._is_replacement = is_replacement
        self._told = UNLIMITED
        self._closed_until = -math.inf
        self._settled_at = now + LEASE_SECONDS if is_replacement else now
        self._accepted = 0.0  # in turns, as `Binding` counts them
        self.called: set[str] = set()

    @property
    def users(self) -> int:
        """How many shares have a lease that has not run out."""
        self._forget_the_lost(self._clock.monotonic())
        return len(self._users)

    @property
    def limit(self) -> Rates:
        """What all shares together may send in a second."""
        reports = [user.report for user in self._users.values() if user.is_present]
        adaptive = UNLIMITED
        if self._is_adaptive:
            told = Rates(*(one * TOLD_PART for one in self._told))
            adaptive = _least([told, self._binding.rates(self._adaptive.rate)])
        return _least([adaptive, *(report.limit for report in reports)])

    @property
    def _is_adaptive(self) -> bool:
        users = self._users.values()
        return any(user.report.is_adaptive for user in users if user.is_present)

    def renew(self, name: str, report: Report) -> Lease:
        """Hear what a share has done and wants; the lease that it has from now on."""
        now = self._clock.monotonic()
        self._forget_the_lost(now)
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = _User(report, now)
            self._adaptive.adopt(report.epoch, report.found)
        self.called.discard(name)
        self._learn(user, report, now)
        return self._grant(user, now)

    def leave(self, name: str, report: Report) -> None:
        """A share is not used any more; what it owes is paid before others get its part."""
        now = self._clock.monotonic()
        user = self._users.get(name)
        if user is None:
            return
        self._learn(user, report, now)
        owed = [
            -level / rate for level, rate in zip(report.levels, user.rates, strict=True) if rate
        ]
        user.is_present = False
        user.expires_at = now + max(0.0, *owed)
        self._forget_the_lost(now)
        self._call(user)

    # What reports tell

    def _learn(self, user: _User, report: Report, now: float) -> None:
        before = user.report
        self._told = _latest(self._told, report.told, before.told)
        seconds = now - user.seen_at
        accepted = (report.sent.requests - report.refused) - (before.sent.requests - before.refused)
        tokens = report.sent.tokens - before.sent.tokens
        self._accepted += self._binding.turns(accepted, tokens)
        self._binding.accept(accepted, tokens)
        answered = report.answered - before.answered
        user.hear(report, now)
        self._note_closing(user, now)
        self._trust_what_is_stated()
        if report.is_short[self._binding.kind] and seconds > 0:
            self._speed_up(seconds, answered, report.seconds - before.seconds)
        refused = report.refused - before.refused
        if not refused or not self._is_adaptive:
            return
        tokens = report.refused_tokens - before.refused_tokens
        if report.refused_epoch >= self._adaptive.epoch:
            self._slow_down(user, now)
            if self._binding.refuse(refused, tokens):
                self._adaptive.doubt()
        else:
            self._adaptive.refuse_more(self._binding.turns(refused, tokens))

    def _trust_what_is_stated(self) -> None:
        limits = [user.report.limit for user in self._users.values() if user.is_present]
        configured, told = _least([UNLIMITED, *limits]), self._told.requests
        if min(*configured, told) < math.inf:
            self._adaptive.trust(min(configured.requests, told))

    def _note_closing(self, user: _User, now: float) -> None:
        seconds = user.report.closed_for
        until = now + seconds if seconds else -math.inf
        if until > self._closed_until + NEWS_SECONDS:
            self._call(user)
        self._closed_until = max(self._closed_until, until)

    def _slow_down(self, user: _User, now: float) -> None:
        is_known = any(user.has_history for user in self._users.values())
        recent = sum(self._turns_sent_by(user) for user in self._users.values())
        self._adaptive.refuse(now, self._accepted, recent if is_known else None)
        if now >= self._closed_until:
            self._closed_until = now + self._adaptive.pause_seconds
        for bucket in self._reserve:
            if bucket is not None:
                bucket.drain(now)
        self._call(user)

    def _turns_sent_by(self, user: _User) -> float:
        return self._binding.turns(user.usage(0), user.usage(_TOKENS))

    def _speed_up(self, seconds: float, answered: int, took: float) -> None:
        kind = self._binding.kind
        if self._binding.rates(self._adaptive.rate)[kind] > self.limit[kind]:
            return
        shorts = sum(one.report.is_short[kind] for one in self._users.values())
        self._adaptive.grow(seconds / shorts, answered, took / answered if answered else 0.0)

    def _call(self, but: _User) -> None:
        self.called.update(name for name, user in self._users.items() if user is not but)

    def _call_those_with_more(self, but: _User, limit: Rates) -> None:
        """Have those give back early who hold more than their fair part."""
        for name, user in self._users.items():
            if user is not but and any(
                user.rates[kind] > 1.05 * self._fair_part(kind, limit[kind], user)
                for kind in _KINDS
                if limit[kind] < math.inf and user.is_present
            ):
                self.called.add(name)

    def _forget_the_lost(self, now: float) -> None:
        for name, user in list(self._users.items()):
            if now >= user.expires_at:
                del self._users[name]
                self.called.discard(name)

    # What leases give

    def _grant(self, user: _User, now: float) -> Lease:
        limit = self.limit
        fair = Rates(*(self._fair_part(kind, limit[kind], user) for kind in _KINDS))
        rates = Rates(*(self._part(kind, fair[kind], limit[kind], user, now) for kind in _KINDS))
        is_deprived = any(rates[kind] < 0.95 * fair[kind] for kind in _KINDS)
        user.request_size = max(1.0, rates.requests)
        if rates.requests < 1 and len(self._users) > 1:
            rates, user.request_size = rates._replace(requests=0.0), 0.0
        user.rates = rates
        self._open_reserve(limit, now)
        credit = [self._credit(kind, user, now) for kind in _KINDS]
        if rates.requests == 0:
            credit[0] = self._hand_single(user, now)
        self._fit_reserve(limit, now)
        user.expires_at = now + LEASE_SECONDS
        if is_deprived:
            self._call_those_with_more(user, limit)
        return Lease(
            epoch=self._adaptive.epoch,
            rates=rates,
            request_size=user.request_size,
            credit=Rates(*credit),
            seconds=LEASE_SECONDS,
            renew_in=self._renew_in(user, is_deprived=is_deprived),
            closed_for=max(0.0, self._closed_until - now),
            limit=limit,
            found=self._adaptive.rate,
        )

    def _fair_part(self, kind: int, limit: float, user: _User) -> float:
        if limit == math.inf:
            return math.inf
        present = [one for one in self._users.values() if one.is_present]
        return fair_parts(limit, [one.demand(kind) for one in present])[present.index(user)]

    def _part(self, kind: int, fair: float, limit: float, user: _User, now: float) -> float:
        """What can be leased of a fair part: what the others have not got."""
        if limit == math.inf:
            return math.inf
        part = min(fair, max(0.0, limit - self._others(kind, user)))
        return min(part, user.report.held[kind]) if now < self._settled_at else part

    def _others(self, kind: int, user: _User) -> float:
        return sum(one.rates[kind] for one in self._users.values() if one is not user)

    def _open_reserve(self, limit: Rates, now: float) -> None:
        for kind in _KINDS:
            if self._reserve[kind] is None and limit[kind] < math.inf:
                reserve = Bucket(limit[kind], now, size=_size(kind, limit[kind]))
                self._reserve[kind] = reserve
                reserve.level = 0.0 if self._is_replacement else max(1.0, reserve.level / 2)

    def _credit(self, kind: int, user: _User, now: float) -> float:
        """What a share's bucket has room for, as far as the reserve has it."""
        reserve = self._reserve[kind]
        if reserve is None or user.rates[kind] in (0.0, math.inf):
            return 0.0
        room = _size(kind, user.rates[kind]) - max(0.0, user.report.levels[kind])
        return _take_out(reserve, max(0.0, min(room, reserve.fill(now))))

    def _hand_single(self, user: _User, now: float) -> float:
        """A request by itself, when there is one and no other share has waited for longer."""
        if user.report.levels.requests >= 1:
            user.request_size = float(user.report.is_short[0])
            return 0.0
        reserve = self._reserve[0]
        if reserve is None or not user.report.is_short[0] or not reserve.has(1.0, now):
            return 0.0
        if any(one.served_at < user.served_at for one in self._waiting(now)):
            return 0.0
        user.served_at = now
        user.request_size = 1.0
        return _take_out(reserve, 1.0)

    def _waiting(self, now: float) -> Iterable[_User]:
        """The shares that ask for single requests."""
        for user in self._users.values():
            is_short = user.report.is_short[0] and user.rates.requests == 0
            if is_short and user.is_present and now < user.seen_at + 2 * RENEW_SECONDS:
                yield user

    def _fit_reserve(self, limit: Rates, now: float) -> None:
        """Have the reserve hold, and fill at, what the shares have not got."""
        for kind, reserve in enumerate(self._reserve):
            if reserve is None:
                continue
            rate, size = limit[kind], _size(kind, limit[kind])
            if rate < math.inf:
                users = self._users.values()
                rate -= sum(user.rates[kind] for user in users)
                size -= sum(user.rates[kind] if kind else user.request_size for user in users)
            reserve.change(max(0.0, rate), now, size=max(0.0, size))

    def _renew_in(self, user: _User, *, is_deprived: bool) -> float:
        if is_deprived:
            return SOON_SECONDS
        reserve = self._reserve[0]
        if user.rates.requests == 0 and user.report.is_short[0] and reserve is not None:
            wait = reserve.opens_in(1.0, self._clock.monotonic())
            return min(max(wait or 0.0, SOON_SECONDS), RENEW_SECONDS)
        return RENEW_SECONDS


def _size(kind: int, rate: float) -> float:
    """One second's worth, and of requests at least one."""
    return max(1.0, rate) if kind == 0 else rate


def _take_out(reserve: Bucket, amount: float) -> float:
    reserve.level -= amount
    return amount


def _least(rates: Iterable[Rates]) -> Rates:
    return Rates(*(min(kinds) for kinds in zip(*rates, strict=True)))


def _latest(known: Rates, told: Rates, before: Rates) -> Rates:
    """What was told last: a share repeats what it has heard until it hears something else."""
    return Rates(
        *(
            new if new != old or was == math.inf else was
            for was, new, old in zip(known, told, before, strict=True)
        )
    )
