"""`--sample N`: some rows of an input, by lot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Protocol

from raypool.cli.rows import AnyRow, SkippedRow


class Stoppable(Protocol):
    """Rows that can be told to end."""

    def __iter__(self) -> Iterator[AnyRow]: ...

    def stop(self) -> None:
        """Give no more rows; any thread may call."""


class Sample:
    """`size` of the rows that are not skipped, in their order; a seed always draws the same.

    All rows are read before the first is given, and `size` of them kept in memory.
    """

    def __init__(self, rows: Stoppable, size: int, seed: int) -> None:
        self._rows = rows
        self._size = size
        self._seed = seed
        self._has_stopped = False

    def stop(self) -> None:
        """Give no more rows; any thread may call."""
        self._has_stopped = True
        self._rows.stop()

    def __iter__(self) -> Iterator[AnyRow]:
        for row in sorted(self._drawn(), key=lambda row: row.number):
            if self._has_stopped:
                return
            yield row

    def _drawn(self) -> list[AnyRow]:
        lot = random.Random(self._seed)  # noqa: S311 - no secret depends on it
        drawn: list[AnyRow] = []
        seen = 0
        for row in self._rows:
            if isinstance(row, SkippedRow):
                continue
            seen += 1
            if len(drawn) < self._size:
                drawn.append(row)
            elif (place := lot.randrange(seen)) < self._size:
                drawn[place] = row
        return drawn
