"""How much of a share was used in the last minute."""

from __future__ import annotations

from collections import deque

from raypool.capacity.buckets import NOTHING, Rates
from raypool.capacity.share import Share
from raypool.clock import Clock
from raypool.status import LimitStatus

MINUTE = 60.0
SAMPLE_SECONDS = 1.0


class UsageLog:
    """Notes once a second what a share has sent since it began."""

    def __init__(self, share: Share, clock: Clock) -> None:
        self._share = share
        self._clock = clock
        self._samples = deque([(clock.monotonic(), NOTHING)])

    def note(self) -> None:
        """Something was sent, or has ended."""
        now = self._clock.monotonic()
        if now < self._samples[-1][0] + SAMPLE_SECONDS:
            return
        self._samples.append((now, self._share.status().sent))
        while now - self._samples[1][0] >= MINUTE:
            self._samples.popleft()

    def status(self, provider: str, model: str | None) -> LimitStatus:
        """The limits that hold now, and which part of the tightest was used."""
        share = self._share.status()
        limits = {
            f"{name}_per_minute": limit * MINUTE
            for name, limit in zip(Rates._fields, share.limit, strict=True)
            if limit < float("inf")
        }
        used = self._used(share.sent)
        parts = {
            name: getattr(used, name.removesuffix("_per_minute")) / limit
            for name, limit in limits.items()
            if limit > 0
        }
        tightest = max(parts, key=lambda name: parts[name], default=None)
        return LimitStatus(
            provider=provider,
            model=model,
            **limits,
            used=None if tightest is None else parts[tightest],
            tightest=tightest,
            refused=share.refused,
        )

    def _used(self, sent: Rates) -> Rates:
        """What was sent in the last minute; in the first one, what so many seconds would give."""
        now = self._clock.monotonic()
        since, before = next(
            (sample for sample in self._samples if now - sample[0] <= MINUTE), self._samples[-1]
        )
        seconds = max(SAMPLE_SECONDS, now - since)
        return Rates(
            *((one - other) * MINUTE / seconds for one, other in zip(sent, before, strict=True))
        )
