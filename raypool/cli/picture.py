"""A run as one line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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

    def figures(self) -> dict[str, Any]:
        """The same as numbers, for programs."""
        total = self.total()
        return {
            "rows": self.tally.done,
            "total": None if total is None else total.rows,
            "total_is_exact": total is not None and total.is_exact,
            "rows_per_second": self.tally.rows_per_second(),
            **self.tally.figures(),
        }

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


def expected_rows(
    reader: RowReader, *, limit: int | None = None, sample: int | None = None
) -> ExpectedRows:
    """Counts the rows of an input: an estimate until its end has been read.

    `limit` is the most that are read, and `sample` how many of them are asked.
    """

    def total() -> Total | None:
        size, read = reader.size, reader.bytes
        if reader.at_end:
            found = Total(reader.rows)
        elif not size or not read or reader.rows < ROWS_TO_ESTIMATE_FROM:
            return None
        else:
            found = Total(round(reader.rows * size / min(read, size)), is_exact=False)
        for most in (limit, sample):
            if most is not None and most <= found.rows:
                found = Total(most)
        return found

    return total


def _digits(pace: float) -> str:
    return f"{pace:.3g}" if pace < 100 else f"{pace:,.0f}"
