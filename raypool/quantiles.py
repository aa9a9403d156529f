"""What most of the last values are below."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

LAST_VALUES = 1_000
FEWEST_VALUES = 20


class RecentQuantiles:
    """Quantiles of the last 1,000 values; unknown while there are fewer than 20."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Count a value, in place of the oldest when there are enough."""
        if len(self._values) == LAST_VALUES:
            oldest = self._values.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._values.append(value)
        insort(self._sorted, value)

    def quantile(self, share: float) -> float | None:
        """The least value that at least `share` of them do not exceed: the nearest rank."""
        if len(self._sorted) < FEWEST_VALUES:
            return None
        rank = math.ceil(round(share * len(self._sorted), 6))
        return self._sorted[max(rank, 1) - 1]
