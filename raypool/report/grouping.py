"""Ended tasks by role and model, added up piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from raypool.report.figures import Group
from raypool.report.latency import Durations
from raypool.usage import Usage

MOST_GROUPS = 200
OTHERS = "(others)"


class _Row(NamedTuple):
    """What `queries.GROUPS` gives."""

    role: str | None
    model: str | None
    state: str
    duration_ms: float | None
    tasks: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float
    unpriced: int


class Groups:
    """Adds up tasks by role and model: 200 groups at most, and one of all others."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str | None, str | None], _Sum] = {}

    def add(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Add what `queries.GROUPS` gives; how many of the tasks have a duration."""
        timed = 0
        for row in map(_Row._make, rows):
            self._sum(row.role, row.model).add(row)
            timed += row.tasks if row.duration_ms is not None else 0
        return timed

    def durations(self) -> Durations:
        """How long the last turns of all completed tasks took."""
        whole = Durations()
        for one in self._sums.values():
            whole += one.durations
        return whole

    def groups(self) -> Iterator[Group]:
        """The most expensive first, then those with the most tokens."""
        groups = [one.group(*key) for key, one in self._sums.items()]
        return iter(sorted(groups, key=lambda it: (-it.cost_usd, -it.usage.total_tokens)))

    def _sum(self, role: str | None, model: str | None) -> _Sum:
        key = (role, model)
        if key not in self._sums and len(self._sums) >= MOST_GROUPS:
            key = (OTHERS, OTHERS)
        return self._sums.setdefault(key, _Sum())


class _Sum:
    """The tasks of one group so far."""

    def __init__(self) -> None:
        self.durations = Durations()
        self._counts: Counter[str] = Counter()
        self._usage = Usage()
        self._cost_usd = 0.0
        self._unpriced = 0

    def add(self, row: _Row) -> None:
        self._counts[row.state] += row.tasks
        self._usage += Usage(
            row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens
        )
        self._cost_usd += row.cost_usd
        if row.state == "completed":
            self._unpriced += row.unpriced
            if row.duration_ms is not None:
                self.durations.add(row.duration_ms, row.tasks)

    def group(self, role: str | None, model: str | None) -> Group:
        return Group(
            role=role,
            model=model,
            completed=self._counts["completed"],
            failed=self._counts["failed"],
            cancelled=self._counts["cancelled"],
            usage=self._usage,
            cost_usd=self._cost_usd,
            unpriced=self._unpriced,
            latency=self.durations.latency(),
        )
