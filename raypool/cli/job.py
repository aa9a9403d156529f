"""One `raypool run`, from what it goes on from to what it says at the end."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raypool.cli.ahead import Ahead
from raypool.cli.asking import Asking
from raypool.cli.budget_watch import BudgetWatch
from raypool.cli.figures import count
from raypool.cli.interrupt import Interrupts
from raypool.cli.options import PoolOptions, start_pool
from raypool.cli.output import OutputLost
from raypool.cli.picture import Picture, expected_rows
from raypool.cli.problem import ANSWERED, INTERRUPTED, SOME_FAILED, Problem, in_one_line
from raypool.cli.progress import progress_of
from raypool.cli.resume import resume_command
from raypool.cli.rows import AnyRow, RowReader
from raypool.cli.run_options import RunOptions
from raypool.cli.sample import Sample, Stoppable
from raypool.cli.saying import Saying, say, say_json
from raypool.cli.summary import failures, summary
from raypool.cli.tally import Tally
from raypool.cli.target import Run, Target
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
        reader: RowReader,
        target: Target,
        options: PoolOptions,
        backend: Backend,
        *,
        given: RunOptions,
        output_type: Any = None,
    ) -> None:
        self._reader = reader
        self._target = target
        self._options = options
        self._backend = backend
        self._given = given
        self._output_type = output_type
        self._saying = Saying(is_quiet=given.quiet, is_json=given.json)
        self._rows = rows_of(reader, given)
        self._tally = Tally()
        self._picture = Picture(
            self._tally, expected_rows(reader, limit=given.limit, sample=given.sample)
        )
        self._progress = progress_of(self._picture, quiet=given.quiet, json=given.json)
        self._trouble = ""

    def run(self, settings: Mapping[str, Any]) -> int:
        """Answer every row; the exit status. The answers depend on `settings`.

        Raises:
            Problem: nothing could be asked, and why.
        """
        run = Run(
            settings,
            self._reader,
            self._tally,
            retry_failed=self._given.retry_failed,
            is_sample=self._given.sample is not None,
        )
        self._target.go_on(run)
        if self._target.moved:
            self._saying.remark(f"starting over; kept: {', '.join(self._target.moved)}")
        if self._target.ledger is None:
            self._saying.remark(_NO_LEDGER)
        with self._progress, Interrupts(self._progress) as interrupts:
            self._ask_all(interrupts)
            if not (interrupts.count or self._trouble):
                self._finish()
        was_interrupted = interrupts.count > 0
        status = self._status(was_interrupted=was_interrupted)
        self._report(status, was_interrupted=was_interrupted)
        return status

    def _ask_all(self, interrupts: Interrupts) -> None:
        asking = Asking(self._target.results, self._tally, self._output_type)
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
                self._trouble = self._trouble or str(error)

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
            budget_usd = self._options.budget_usd
            with BudgetWatch(pool, self._rows.stop, budget_usd=budget_usd) as watch:
                try:
                    asking.answer(pool, tasks)
                finally:
                    self._trouble = watch.why

    def _finish(self) -> None:
        try:
            self._target.finish()
        except Problem as error:
            self._trouble = self._trouble or str(error)

    def _status(self, *, was_interrupted: bool) -> int:
        if was_interrupted:
            return INTERRUPTED
        return SOME_FAILED if self._tally.failed or self._trouble else ANSWERED

    def _report(self, status: int, *, was_interrupted: bool) -> None:
        is_whole = not (was_interrupted or self._trouble)
        way_on = "" if is_whole else self._way_on()
        if self._given.json:
            self._report_json(status, way_on)
            return
        if self._trouble:
            self._saying.trouble(self._trouble)
        if not self._given.quiet:
            say(*summary(self._tally, self._target.name, self._target.failed))
        elif self._tally.failed:
            say(f"raypool: {count(self._tally.failed, 'row')} failed", *failures(self._tally))
        if way_on:
            self._saying.trouble(way_on)

    def _report_json(self, status: int, way_on: str) -> None:
        failed = self._target.failed
        say_json(
            "summary",
            exit_status=status,
            **self._tally.figures(),
            reasons=self._tally.reasons,
            results=self._target.name,
            failed_rows=str(failed) if failed and self._tally.failed else None,
            trouble=self._trouble or None,
            resume=way_on or None,
        )

    def _way_on(self) -> str:
        if self._target.ledger is None:
            return _NO_LEDGER
        return f"to finish the rest: {resume_command(sys.argv[1:])}"


def rows_of(reader: RowReader, given: RunOptions) -> Stoppable:
    """The rows that a run asks; a stream is read ahead, since it may be slow."""
    rows: Stoppable = Ahead[AnyRow](reader) if reader.size is None else reader
    return rows if given.sample is None else Sample(rows, given.sample, given.seed)
