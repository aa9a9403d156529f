"""One pass over the input: every row ends in one line of the output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from raypool.cli.lines import bad_row_line, result_line
from raypool.cli.output import OutputLost
from raypool.cli.problem import Problem
from raypool.cli.results import Results
from raypool.cli.rows import AnyRow, BadRow, Row, SkippedRow
from raypool.cli.states import State
from raypool.cli.tally import Tally
from raypool.response import TaskResult
from raypool.task import Task

if TYPE_CHECKING:
    from raypool.pool import Pool


class Asking:
    """Asks what is not written yet and writes what comes of it; answers have `output_type`."""

    def __init__(self, results: Results, tally: Tally, output_type: Any = None) -> None:
        self._results = results
        self._tally = tally
        self._output_type = output_type
        self._numbers: dict[str, int] = {}
        self._trouble: OSError | OutputLost | Problem | None = None

    def tasks(self, rows: Iterable[AnyRow]) -> Iterator[Task]:
        """The rows that a pool must answer; the others are written or counted on the way.

        Ends when the input or the output fails, and raises nothing, since a
        pool cancels for good what it has when its input raises; `answer` does.
        """
        try:
            for row in rows:
                if isinstance(row, Row):
                    yield from self._task(row)
                elif isinstance(row, BadRow):
                    self._refuse(row)
                else:
                    self._skip(row)
        except (OSError, OutputLost, Problem) as error:
            self._trouble = error

    def answer(self, pool: Pool, tasks: Iterable[Task]) -> None:
        """Have `pool` answer the tasks, and write each row as it completes.

        Whatever is raised, the pool has stopped by then: what is unfinished
        stays in its ledger for a later run.

        Raises:
            OutputLost: the output can no longer be written.
            OSError: the input can no longer be read.
            RaypoolError: the pool cannot go on.
        """
        try:
            for result in pool.map(tasks, ordered=False):
                self.check()
                self._write(result)
            self.check()
        except BaseException:
            pool.stop()
            raise

    def check(self) -> None:
        """Raise what ended the tasks early, if anything did."""
        if self._trouble is not None:
            raise self._trouble

    def _task(self, row: Row) -> Iterator[Task]:
        state = self._results.state(row)
        if state is State.NEW:
            self._numbers[row.id] = row.number
            yield Task(row.prompt, id=row.id, metadata=row.fields, output_type=self._output_type)
        elif state is State.OTHER:
            self._refuse(row.refused(f"the id {row.id!r} was asked something else before"))
        else:
            self._results.note(row.number, state)
            self._tally.add_earlier(failed=state is not State.ANSWERED)

    def _write(self, result: TaskResult) -> None:
        state = State.ANSWERED if result.state == "completed" else State.FAILED
        self._results.write(self._numbers.pop(result.id), state, result_line(result))
        self._tally.add(result)

    def _refuse(self, row: BadRow) -> None:
        if self._results.is_settled(row.number):
            self._tally.add_earlier(failed=True)
            return
        self._results.write(row.number, State.REFUSED, bad_row_line(row))
        self._tally.add_bad_row(row.message)

    def _skip(self, row: SkippedRow) -> None:
        self._results.note(row.number, State.SKIPPED)
        self._tally.add_skipped()
