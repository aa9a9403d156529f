"""A run as one line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raypool.cli.figures import count, dollars, duration, short
from raypool.cli.rows import RowReader
from raypool.cli.tally import Tally

ROWS_TO_ESTIMATE_FROM = 1_000


class Total(NamedTuple):
    """How many rows an input has: `2,000`, or `~2,100` by what was read of it."""

    rows: int
    is_exact: bool = True

    def __str__(self) -> str:
        return f"{self.rows:,}" if self.is_exact else f"~{self.rows:,}"


ExpectedRows = Callable[[], Total | None]


class Picture:
    """What a run has done, how fast it goes, and how long it will take.

    Attributes:
        phase: what goes on besides answering; empty when that is all.
        tally: what was done.
        total: how many rows there are; `None` while nobody can know.
    """

    def __init__(self, tally: Tally, total: ExpectedRows) -> None:
        self.phase = ""
        self.tally = tally
        self.total = total

    def __str__(self) -> str:
        """`1,240/10,000 rows, 2 failed · 41.2 rows/s · 57.9k tokens · $0.31 · 3 min 32 s left`."""
        pace = self.tally.rows_per_second()
        parts = [self.phase, self._rows()]
        if pace:
            parts += [f"{_digits(pace)} rows/s", *self._spent(), self._left(pace)]
        return " · ".join(filter(None, parts))

    def _rows(self) -> str:
        tally, total = self.tally, self.total()
        done = count(tally.done, "row") if total is None else f"{tally.done:,}/{total} rows"
        return f"{done}, {tally.failed:,} failed" if tally.failed else done

    def _spent(self) -> list[str]:
        tally = self.tally
        cost = dollars(tally.cost_usd) if tally.unpriced < tally.answered else ""
        priced = f"{cost} + unknown prices" if cost and tally.unpriced else cost
        return [f"{short(tally.usage.total_tokens)} tokens", priced]

    def _left(self, pace: float) -> str:
        total = self.total()
        if total is None or total.rows <= self.tally.done:
            return ""
        return f"{duration((total.rows - self.tally.done) / pace)} left"


def expected_rows(reader: RowReader, size: int | None) -> ExpectedRows:
    """Counts the rows of an input of `size` bytes: an estimate until its end has been read."""

    def total() -> Total | None:
        if reader.at_end:
            return Total(reader.rows)
        if not size or reader.rows < ROWS_TO_ESTIMATE_FROM:
            return None
        return Total(round(reader.rows * size / min(reader.bytes, size)), is_exact=False)

    return total


def _digits(pace: float) -> str:
    return f"{pace:.3g}" if pace < 100 else f"{pace:,.0f}"
