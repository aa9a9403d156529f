"""The figures of a ledger, read beside a pool that may be writing it."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from raypool.clock import Clock, SystemClock
from raypool.errors import LedgerError
from raypool.ledger import POOL_NAME, WORKER_ROLES
from raypool.naming import worker_name
from raypool.report import queries
from raypool.report.figures import ErrorCount, Figures, Line, Listing, Moment
from raypool.report.grouping import Groups
from raypool.report.lines import read_lines
from raypool.report.timeline import Timeline
from raypool.setbacks import SPAN_MS
from raypool.sqlite_file import ledger_errors, open_beside
from raypool.sqlite_ledger import read_setbacks, read_totals
from raypool.sqlite_rows import READ_META
from raypool.sqlite_statements import only_value, value_or_none

PIECE = 50_000
MOST_LINES = 1_000
MOST_ERRORS = 50

OnProgress = Callable[[int, int], None]


def gather(
    path: Path,
    *,
    content: bool = False,
    on_progress: OnProgress | None = None,
    clock: Clock | None = None,
) -> Figures:
    """The figures of the ledger at `path`, also while a pool has it.

    Takes as much memory for 10 million tasks as for 10 thousand. `content` adds prompts, answers
    and messages of errors to the tasks that are listed. `on_progress` is called now and then with
    how many endings were read, and how many there are.

    Raises:
        LedgerError: there is no ledger at `path`, or it cannot be read.
    """
    path = path.absolute()
    with ledger_errors(path):
        if not path.exists():
            raise LedgerError(f"there is no ledger {str(path)!r}; give the path of one")
        with closing(open_beside(path)) as reader:
            return _Gathering(reader, content).figures(
                path, on_progress or _nobody, clock or SystemClock()
            )


def _nobody(done: int, total: int) -> None:
    """Nobody wants to know."""


class _Gathering:
    """One reading of a ledger."""

    def __init__(self, reader: sqlite3.Connection, content: bool) -> None:
        self._reader = reader
        self._content = content
        self._last = only_value(reader, queries.LAST_POSITION)
        self._timeline = Timeline()
        self._groups = Groups()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._slowest: list[tuple[float, int]] = []
        self._timed = 0

    def figures(self, path: Path, on_progress: OnProgress, clock: Clock) -> Figures:
        self._keep_roles()
        for piece in self._pieces():
            self._read(piece)
            on_progress(piece["upto"], self._last)
        self._timeline.add(Moment(since) for (since,) in self._setback_edges())
        moments = tuple(self._timeline.moments())
        step = self._timeline.step_ms
        whole = self._groups.durations()
        return Figures(
            pool=self._meta(POOL_NAME) or "",
            ledger=path.name,
            made_at=int(clock.time() * 1000),
            totals=read_totals(self._reader),
            step_ms=step,
            moments=moments,
            latency=whole.latency(),
            bars=tuple(whole.bars()),
            groups=tuple(self._groups.groups()),
            setback_step_ms=max(step, SPAN_MS),
            setbacks=tuple(read_setbacks(self._reader, max(step, SPAN_MS))),
            errors=tuple(self._most_frequent_errors()),
            slowest=self._listing([position for _, position in self._slowest], self._timed),
            failed=self._last_failed(),
            has_content=self._content,
        )

    def _keep_roles(self) -> None:
        """Have the roles of all workers there ever were at hand for SQL."""
        pool, roles = self._meta(POOL_NAME), self._meta(WORKER_ROLES)
        self._reader.execute(queries.KEEP_ROLES)
        for number, role in enumerate(json.loads(roles) if pool and roles else (), 1):
            self._reader.execute(queries.ADD_ROLE, (worker_name(pool or "", number), role))

    def _pieces(self) -> Iterator[dict[str, int]]:
        for after in range(0, self._last, PIECE):
            yield {"after": after, "upto": min(after + PIECE, self._last)}

    def _read(self, piece: dict[str, int]) -> None:
        read = self._reader.execute
        step = self._timeline.step_ms
        self._timeline.add(Moment(*row) for row in read(queries.MOMENTS, {**piece, "step": step}))
        timed = self._groups.add(read(queries.GROUPS, piece))
        self._timed += timed
        for kind, error_type, count in read(queries.ERRORS, piece):
            self._errors[kind or "", error_type or ""] += count
        if timed:
            self._read_slowest(piece)

    def _read_slowest(self, piece: dict[str, int]) -> None:
        is_full = len(self._slowest) == MOST_LINES
        least = self._slowest[-1][0] if is_full else 0.0
        found = self._reader.execute(
            queries.SLOWEST, {**piece, "least": least, "limit": MOST_LINES}
        ).fetchall()
        merged = heapq.merge(self._slowest, found, key=lambda row: -row[0])
        self._slowest = [row for row, _ in zip(merged, range(MOST_LINES), strict=False)]

    def _most_frequent_errors(self) -> list[ErrorCount]:
        ordered = sorted(self._errors.items(), key=lambda it: (-it[1], it[0]))
        return [ErrorCount(*names, count) for names, count in ordered[:MOST_ERRORS]]

    def _last_failed(self) -> Listing:
        rows = self._reader.execute(
            queries.LAST_FAILED, {"upto": self._last, "limit": MOST_LINES}
        ).fetchall()
        return self._listing([position for (position,) in rows], self._errors.total())

    def _listing(self, positions: list[int], count: int) -> Listing:
        lines: list[Line] = list(read_lines(self._reader, positions, content=self._content))
        return Listing(tuple(lines), count)

    def _setback_edges(self) -> list[tuple[int]]:
        return self._reader.execute(queries.SETBACK_EDGES).fetchall()

    def _meta(self, key: str) -> str | None:
        value: str | None = value_or_none(self._reader, READ_META, (key,))
        return value
