"""How long turns took: what most of them are below, and how they are spread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MOST_BARS, FEWEST_BARS = 48, 9
BARS_PER_DECADE = (40, 20, 10, 5, 3, 2, 1)
SHORTEST_MS = 0.01
_SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Latency:
    """What so many durations are below, in milliseconds and to three digits; 0 when there are none.

    Attributes:
        count: how many there are.
        p50, p90, p95, p99: the least duration that at least so many percent do not exceed.
        longest: the longest.
    """

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True)
class Bar:
    """How many durations are at least `low` and less than `high` milliseconds."""

    low: float
    high: float
    count: int


class Durations:
    """Durations to three digits, and how often each came: bounded, whatever their number.

    Rounding keeps order, so that a quantile of what is rounded is the rounded quantile.
    """

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def add(self, milliseconds: float, count: int) -> None:
        """Count a duration that is rounded already."""
        self._counts[milliseconds] += count

    def __iadd__(self, other: Durations) -> Durations:
        self._counts.update(other._counts)
        return self

    def latency(self) -> Latency:
        """What most of them are below."""
        if not self._counts:
            return Latency()
        ordered = sorted(self._counts.items())
        count = sum(self._counts.values())
        p50, p90, p95, p99 = (_quantile(ordered, count, share) for share in _SHARES)
        return Latency(count, p50, p90, p95, p99, longest=ordered[-1][0])

    def bars(self) -> list[Bar]:
        """How they are spread: 9 to 48 bars of equal ratio, of which some may be empty."""
        if not self._counts:
            return []
        shortest = max(min(self._counts), SHORTEST_MS)
        longest = max(self._counts)
        for per_decade in BARS_PER_DECADE:
            first, last = _place(shortest, per_decade), _place(longest, per_decade)
            if last - first < MOST_BARS:
                break
        missing = max(FEWEST_BARS - (last - first + 1), 0)
        first, last = first - missing // 2, last + missing - missing // 2
        counts = [0] * (last - first + 1)
        for milliseconds, count in self._counts.items():
            counts[max(_place(milliseconds, per_decade) - first, 0)] += count
        return [
            Bar(10 ** (place / per_decade), 10 ** ((place + 1) / per_decade), count)
            for place, count in enumerate(counts, start=first)
        ]


def _place(milliseconds: float, per_decade: int) -> int:
    return math.floor(round(math.log10(max(milliseconds, SHORTEST_MS)) * per_decade, 6))


def _quantile(ordered: Iterable[tuple[float, int]], count: int, share: float) -> float:
    """The nearest rank, as `raypool.quantiles` has it."""
    rank = max(math.ceil(round(share * count, 6)), 1)
    for milliseconds, times in ordered:
        rank -= times
        if rank <= 0:
            return milliseconds
    raise AssertionError("the rank is within the count")
