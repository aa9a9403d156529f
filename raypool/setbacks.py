"""How often turns had to be asked again, and when: counts, without saying which tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from raypool.clock import Clock

SPAN_MS = 10_000
"""The spans that setbacks are counted by, in milliseconds, from the epoch on."""

SetbackKind: TypeAlias = Literal["refused", "retried"]


class Setback(msgspec.Struct, frozen=True):
    """How many turns had to be asked again in a span of time, and why.

    Attributes:
        since: when the span began, in milliseconds since the epoch.
        kind: `refused` for want of capacity (429, 529), or `retried` after an error.
        type: the class of the error, or the provider's name for it.
        count: how many.
    """

    since: int
    kind: SetbackKind
    type: str
    count: int


class SetbackTally:
    """Counts setbacks until they are taken; its size grows with time and kinds, not with tasks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counter[tuple[int, SetbackKind, str]] = Counter()

    def add(self, kind: SetbackKind, error_type: str) -> None:
        """Count one that has come now."""
        now = int(self._clock.time() * 1000)
        self._counts[now - now % SPAN_MS, kind, error_type] += 1

    def take(self) -> list[Setback]:
        """What was counted since the last time."""
        taken = [Setback(*key, count) for key, count in self._counts.items()]
        self._counts.clear()
        return taken

    def put_back(self, taken: Iterable[Setback]) -> None:
        """Have what could not be kept be taken with what comes next."""
        for one in taken:
            self._counts[one.since, one.kind, one.type] += one.count
