"""The scenarios, in groups that need the same pools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.benchmarks import (
    gate_cost,
    hidden_limit,
    ledgers,
    many_tasks,
    policies,
    scenarios,
)
from tests.benchmarks.measure import Scenario


@dataclass(frozen=True)
class Sizes:
    """How much each scenario does.

    Attributes:
        basics: how many tasks.
        burst: how many turns of very different lengths.
        burst_workers: how many workers of each policy there are for it.
        warm_up: for how long a pool looks for a limit, in seconds.
        limited: for how long it then keeps it.
        slow_turns: how many turns the cost of a dispatcher is measured over.
        waiting: how many tasks wait at once, where there are many.
        kept: how many tasks are written to each ledger.
    """

    basics: scenarios.Sizes
    burst: int = 400
    burst_workers: int = 8
    warm_up: float = 60.0
    limited: float = 60.0
    slow_turns: int = 2_000
    waiting: int = 1_000_000
    kept: int = 40_000

    @classmethod
    def scaled(cls, scale: float) -> Sizes:
        """The usual sizes times `scale`."""
        return cls(
            basics=scenarios.Sizes.scaled(scale),
            burst=max(8, int(cls.burst * scale)),
            burst_workers=max(1, min(cls.burst_workers, round(cls.burst_workers * scale))),
            warm_up=max(1.0, cls.warm_up * scale),
            limited=max(1.0, cls.limited * scale),
            slow_turns=max(8, int(cls.slow_turns * scale)),
            waiting=max(8, int(cls.waiting * scale)),
            kept=max(8, int(cls.kept * scale)),
        )


def groups(sizes: Sizes) -> Iterator[AbstractContextManager[list[Scenario]]]:
    """One group after the other, so that the pools of one do not disturb another."""
    yield scenarios.scenarios(sizes.basics)
    yield policies.scenarios(sizes.burst, sizes.burst_workers)
    yield hidden_limit.scenarios(sizes.warm_up, sizes.limited)
    yield gate_cost.scenarios(sizes.slow_turns)
    yield many_tasks.scenarios(sizes.waiting)
    yield ledgers.scenarios(sizes.kept)
