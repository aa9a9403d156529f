"""One `raypool run`, from what it goes on from to what it says at the end."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raypool.cli.ahead import Ahead
from raypool.cli.asking import Asking
from raypool.cli.figures import count
from raypool.cli.interrupt import Interrupts
from raypool.cli.options import PoolOptions, start_pool
from raypool.cli.output import OutputLost
from raypool.cli.picture import Picture, expected_rows
from raypool.cli.problem import ANSWERED, INTERRUPTED, SOME_FAILED, in_one_line
from raypool.cli.progress import progress_of
from raypool.cli.resume import resume_command
from raypool.cli.rows import RowReader
from raypool.cli.source import Source
from raypool.cli.summary import failures, summary
from raypool.cli.tally import Tally
from raypool.cli.target import Target
from raypool.errors import RaypoolError
from raypool.task import Task

if TYPE_CHECKING:
    from raypool.backends import Backend

MAX_PENDING = 10_000
"""Rows read ahead: enough to keep every turn busy, few enough to keep memory flat."""

_NO_LEDGER = "without a ledger there is nothing to resume from; -o FILE or --ledger FILE keeps one"


class Job:
    """Reads rows, has them answered, and reports."""

    def __init__(
        self,
        source: Source,
        target: Target,
        options: PoolOptions,
        backend: Backend,
        *,
        is_quiet: bool,
    ) -> None:
        self._target = target
        self._options = options
        self._backend = backend
        self._is_quiet = is_quiet
        self._reader = RowReader(source.stream, source.format)
        self._rows = Ahead(self._reader) if source.size is None else self._reader
        self._tally = Tally()
        self._picture = Picture(self._tally, expected_rows(self._reader, source.size))
        self._progress = progress_of(self._picture, quiet=is_quiet)
        self._trouble = ""

    def run(self, *, retry_failed: bool) -> int:
        """Answer every row; the exit status.

        Raises:
            Problem: nothing could be asked, and why.
        """
        self._target.go_on(self._options.settings(self._backend), retry_failed=retry_failed)
        if self._target.ledger is None and not self._is_quiet:
            _say(f"raypool: {_NO_LEDGER}")
        with self._progress, Interrupts(self._progress) as interrupts:
            self._ask_all(interrupts)
        self._report(was_interrupted=interrupts.count > 0)
        return self._status(was_interrupted=interrupts.count > 0)

    def _ask_all(self, interrupts: Interrupts) -> None:
        asking = Asking(self._target.output, self._target.written, self._tally)
        tasks = asking.tasks(self._rows)
        try:
            first = next(tasks, None)
            asking.check()
            if first is not None:
                self._answer(asking, itertools.chain([first], tasks), interrupts)
        except KeyboardInterrupt:
            interrupts.count += 1
        except (OutputLost, RaypoolError, OSError) as error:
            if not interrupts.count:
                self._trouble = str(error)

    def _answer(self, asking: Asking, tasks: Iterator[Task], interrupts: Interrupts) -> None:
        self._progress.begin(f"starting {count(self._options.size, 'worker')}")
        ledger = self._target.ledger
        with in_one_line(RaypoolError, ValueError, TypeError):
            pool = start_pool(self._options, self._backend, ledger=ledger, max_pending=MAX_PENDING)
        with pool:
            interrupts.watch(pool, self._rows.stop)
            self._tally.maybe_billed = pool.status().maybe_billed
            self._progress.begin("")
            self._tally.begin_pace()
            asking.answer(pool, tasks)

    def _status(self, *, was_interrupted: bool) -> int:
        if was_interrupted:
            return INTERRUPTED
        return SOME_FAILED if self._tally.failed or self._trouble else ANSWERED

    def _report(self, *, was_interrupted: bool) -> None:
        is_whole = not (was_interrupted or self._trouble)
        if self._trouble:
            _say(f"raypool: {self._trouble}")
        if not self._is_quiet:
            _say(*summary(self._tally, self._target.name))
        elif self._tally.failed:
            _say(f"raypool: {count(self._tally.failed, 'row')} failed", *failures(self._tally))
        if not is_whole:
            _say(f"raypool: {self._way_on()}")

    def _way_on(self) -> str:
        if self._target.ledger is None:
            return _NO_LEDGER
        return f"to finish the rest: {resume_command(sys.argv[1:])}"


def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)
