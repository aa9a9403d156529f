"""The limits of a provider, for `MessagesServer` to keep: token buckets, one set for each key."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from raypool.clock import Clock

HEADER = "anthropic-ratelimit"
ALMOST = 1e-9


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server lets through under one key, in a minute; `None` sets no limit.

    A bucket fills all the time, and a request is refused when it finds too little in one. Input
    is taken from it as the request comes, output as it is answered, even if there is less.

    Attributes:
        requests_per_minute: requests.
        input_tokens_per_minute: tokens read, those found in the prompt cache left out.
        output_tokens_per_minute: tokens written.
        tokens_per_minute: both together.
        burst_seconds: how many seconds' worth a bucket holds; one request at least.
        tells: each answer tells the limits in its headers.
        retry_after: a refusal tells how long to wait, in whole seconds.
    """

    requests_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst_seconds: float = 1.0
    tells: bool = True
    retry_after: bool = True


class Traffic(msgspec.Struct, frozen=True):
    """What a server has let through and refused.

    Attributes:
        admitted: requests that were answered, or are being answered.
        refused: requests that found too little in a bucket.
        input_tokens: tokens read, those found in the prompt cache left out.
        output_tokens: tokens written.
    """

    admitted: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.admitted + other.admitted,
            self.refused + other.refused,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


class LimitRefusal(msgspec.Struct, frozen=True):
    """Why a request is refused.

    Attributes:
        message: which limit it would exceed.
        seconds: when the same request would find enough.
    """

    message: str
    seconds: float


class Limiter:
    """Keeps the limits, and counts; its methods may be called from any thread."""

    def __init__(self, limits: ServerLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, _Bucket]] = {}
        self._traffic: dict[str, Traffic] = {}

    @property
    def limits(self) -> ServerLimits:
        """The limits as they are now."""
        return self._limits

    def change(self, limits: ServerLimits) -> None:
        """Keep other limits from now on; what the buckets hold stays, as far as it fits."""
        with self._lock:
            self._limits = limits
            now = self._clock.monotonic()
            for key, before in self._buckets.items():
                self._buckets[key] = self._new_buckets(now)
                for name, bucket in self._buckets[key].items():
                    if name in before:
                        bucket.level = min(bucket.size, before[name].fill(now))

    def admit(self, key: str, input_tokens: int) -> LimitRefusal | None:
        """Let a request in, and take what it needs; why not, where it finds too little."""
        needs = {"requests": 1, "input-tokens": input_tokens, "tokens": input_tokens}
        with self._lock:
            buckets, now = self._of(key), self._clock.monotonic()
            waits = {
                name: bucket.seconds_until(needs.get(name, 1), now)
                for name, bucket in buckets.items()
            }
            name = max(waits, key=lambda name: waits[name], default="")
            if name and waits[name] > 0:
                self._count(key, Traffic(refused=1))
                limit = f"{buckets[name].rate * 60:g} {name.replace('-', ' ')} per minute"
                message = f"This request would exceed your organization's rate limit of {limit}"
                return LimitRefusal(message, waits[name])
            for name, bucket in buckets.items():
                bucket.level -= needs.get(name, 0)
            self._count(key, Traffic(admitted=1, input_tokens=input_tokens))
            return None

    def spend(self, key: str, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Take what an answer has needed beyond what was taken as its request came."""
        needs = {
            "input-tokens": input_tokens,
            "output-tokens": output_tokens,
            "tokens": input_tokens + output_tokens,
        }
        with self._lock:
            now = self._clock.monotonic()
            for name, bucket in self._of(key).items():
                bucket.level = bucket.fill(now) - needs.get(name, 0)
            self._count(key, Traffic(input_tokens=input_tokens, output_tokens=output_tokens))

    def traffic(self, key: str | None = None) -> Traffic:
        """What has come under a key; `None` means all keys."""
        with self._lock:
            if key is not None:
                return self._traffic.get(key, Traffic())
            return sum(self._traffic.values(), Traffic())

    def headers(self, key: str) -> dict[str, str]:
        """What an answer tells of the limits."""
        with self._lock:
            return dict(self._headers(key)) if self._limits.tells else {}

    def _headers(self, key: str) -> Iterator[tuple[str, str]]:
        now, time = self._clock.monotonic(), self._clock.time()
        for name, bucket in self._of(key).items():
            level = bucket.fill(now)
            full_at = datetime.fromtimestamp(time + (bucket.size - level) / bucket.rate, UTC)
            yield f"{HEADER}-{name}-limit", f"{bucket.rate * 60:.0f}"
            yield f"{HEADER}-{name}-remaining", str(max(0, math.floor(level + ALMOST)))
            yield f"{HEADER}-{name}-reset", full_at.isoformat(timespec="milliseconds")

    def _of(self, key: str) -> dict[str, _Bucket]:
        if key not in self._buckets:
            self._buckets[key] = self._new_buckets(self._clock.monotonic())
        return self._buckets[key]

    def _new_buckets(self, now: float) -> dict[str, _Bucket]:
        """Full buckets, by what the headers call what they hold."""
        limits = self._limits
        rates = {
            "requests": limits.requests_per_minute,
            "input-tokens": limits.input_tokens_per_minute,
            "output-tokens": limits.output_tokens_per_minute,
            "tokens": limits.tokens_per_minute,
        }
        return {
            name: _Bucket(rate / 60, limits.burst_seconds, now)
            for name, rate in rates.items()
            if rate is not None
        }

    def _count(self, key: str, more: Traffic) -> None:
        self._traffic[key] = self._traffic.get(key, Traffic()) + more


class _Bucket:
    """What may be used of one thing; it can run into debt.

    Attributes:
        rate: how much comes in, in a second.
        size: how much it holds.
        level: how much was there when it was last filled.
    """

    def __init__(self, rate: float, burst_seconds: float, now: float) -> None:
        self.rate = rate
        self.size = self.level = max(1.0, rate * burst_seconds)
        self._filled_at = now

    def fill(self, now: float) -> float:
        """How much is there now."""
        self.level = min(self.size, self.level + (now - self._filled_at) * self.rate)
        self._filled_at = now
        return self.level

    def seconds_until(self, amount: float, now: float) -> float:
        """When so much is there, or the bucket is full; 0 when that is so."""
        lacking = min(amount, self.size) - self.fill(now)
        return lacking / self.rate if lacking > ALMOST else 0.0
