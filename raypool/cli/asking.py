"""One pass over an input: every row ends in one line of the output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from raypool.cli.lines import bad_row_line, result_line
from raypool.cli.output import Output, OutputLost, Written
from raypool.cli.rows import BadRow, Row
from raypool.cli.tally import Tally
from raypool.task import Task

if TYPE_CHECKING:
    from raypool.pool import Pool


class Asking:
    """Asks what is not written yet and writes what comes of it."""

    def __init__(self, output: Output, written: Written, tally: Tally) -> None:
        self._output = output
        self._written = written
        self._tally = tally
        self._trouble: OSError | OutputLost | None = None

    def tasks(self, rows: Iterable[Row | BadRow]) -> Iterator[Task]:
        """The rows that a pool must answer; the others are written or counted on the way.

        Ends when the input or the output fails, and raises nothing, since a
        pool cancels for good what it has when its input raises; `answer` does.
        """
        try:
            for row in rows:
                if isinstance(row, BadRow):
                    self._refuse(row)
                elif row.id not in self._written.digests:
                    yield Task(row.prompt, id=row.id, metadata=row.fields)
                elif row.digest == self._written.digests[row.id]:
                    self._tally.add_earlier(failed=row.id in self._written.failed)
                else:
                    self._refuse(row.refused(f"the id {row.id!r} was asked something else before"))
        except (OSError, OutputLost) as error:
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
                self._output.write(result_line(result))
                self._tally.add(result)
            self.check()
        except BaseException:
            pool.stop()
            raise

    def check(self) -> None:
        """Raise what ended the tasks early, if anything did."""
        if self._trouble is not None:
            raise self._trouble

    def _refuse(self, row: BadRow) -> None:
        self._output.write(bad_row_line(row))
        self._tally.add_bad_row(row.line, row.reason)
