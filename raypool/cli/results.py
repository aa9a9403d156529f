"""What becomes of rows: their lines written, and kept in mind for the next run."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from raypool.cli.checkpoints import Checkpoints, Sizes
from raypool.cli.failed_file import FailedFile
from raypool.cli.output import Output, OutputLost
from raypool.cli.rows import Beginning, Row, RowReader
from raypool.cli.states import CHUNK, State, States
from raypool.cli.written import Written
from raypool.clock import Clock, SystemClock

SECONDS_BETWEEN_CHECKPOINTS = 2.0


class Results:
    """The lines of a run; any thread may write.

    Attributes:
        states: what became of rows, by their numbers.
    """

    def __init__(self, output: Output, failed: FailedFile | None = None) -> None:
        self.states = States()
        self._written = Written()
        self._unplaced = 0
        self._is_sure = True
        self._output = output
        self._failed = failed
        self._checkpoints: _Keeper | None = None
        self._lock = threading.Lock()

    def state(self, row: Row) -> State:
        """What became of a row in this run or an earlier one."""
        with self._lock:
            known = self.states.of(row.number)
            if known is State.NEW:
                known = self._written.state(row.id, row.digest)
                self._unplaced -= known is not State.NEW
            return known

    def know(self, written: Written) -> None:
        """Take in the rows that an earlier run has written and that `states` does not know.

        No checkpoint is saved before each of them was met: it would not know of their lines.
        """
        self._written = written
        self._unplaced = len(written)

    def is_settled(self, number: int) -> bool:
        """Whether the row of that number has been dealt with, as far as numbers tell."""
        with self._lock:
            return self.states.of(number) is not State.NEW

    def write(self, number: int, state: State, line: bytes) -> None:
        """Write the line of a row, which is dealt with by that.

        Raises:
            OutputLost: it cannot be written.
        """
        with self._lock:
            self._is_sure = False
            self._output.write(line)
            if state is not State.ANSWERED and self._failed is not None:
                self._failed.write(line)
            self._is_sure = True
            self._note(number, state)

    def note(self, number: int, state: State) -> None:
        """Note that a row is dealt with, and has its line or needs none."""
        with self._lock:
            self._note(number, state)

    def keep_checkpoints(self, checkpoints: Checkpoints, reader: RowReader) -> None:
        """Keep in `checkpoints` from now on how far the run has come."""
        self._checkpoints = _Keeper(checkpoints, reader)
        reader.before_row = self._begin_row

    def close(self) -> None:
        """Keep how far the run has come, and let go of everything but the output."""
        with self._lock:
            if self._checkpoints is not None:
                with suppress(OutputLost):
                    self._save(self._checkpoints)
                self._checkpoints.close()
                self._checkpoints = None
            if self._failed is not None:
                self._failed.close()

    def _note(self, number: int, state: State) -> None:
        keeper = self._checkpoints
        if keeper is None:
            return
        self.states.set(number, state)
        if keeper.is_due():
            self._save(keeper)

    def _begin_row(self, beginning: Beginning) -> None:
        if beginning.number % CHUNK == 0 and self._checkpoints is not None:
            with self._lock:
                self._checkpoints.begin(beginning)

    def _save(self, keeper: _Keeper) -> None:
        """Save, unless there may be lines whose rows are not noted."""
        if not self._is_sure or (self._unplaced > 0 and not keeper.has_met_all):
            return
        self._output.sync()
        failed = 0 if self._failed is None else self._failed.size
        keeper.save(Sizes(self._output.size, failed), self.states)


class _Keeper:
    """Saves what has changed every few seconds."""

    def __init__(
        self, checkpoints: Checkpoints, reader: RowReader, clock: Clock | None = None
    ) -> None:
        self._checkpoints = checkpoints
        self._reader = reader
        self._hashes = reader.ids.table.hashes
        self._clock = clock or SystemClock()
        self._saved_at = self._clock.monotonic()
        self._beginnings: dict[int, Beginning] = {}
        self._read: set[int] = set()

    @property
    def has_met_all(self) -> bool:
        """Whether all rows of the input were read."""
        return self._reader.at_end and not self._reader.is_limited

    def is_due(self) -> bool:
        return self._clock.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS

    def begin(self, beginning: Beginning) -> None:
        """Note where a chunk begins, before which all rows were read."""
        chunk = beginning.number // CHUNK
        self._beginnings[chunk] = beginning
        if chunk:
            self._read.add(chunk - 1)

    def save(self, sizes: Sizes, states: States) -> None:
        changes = states.take_changes(self._reader.rows)
        self._checkpoints.save(sizes, self._beginnings, map(self._ids, self._read), changes)
        self._beginnings.clear()
        self._read.clear()
        self._saved_at = self._clock.monotonic()

    def _ids(self, chunk: int) -> tuple[int, bytes]:
        return chunk, self._hashes[chunk * CHUNK : (chunk + 1) * CHUNK].tobytes()

    def close(self) -> None:
        self._checkpoints.close()


def index_beside(output: Path) -> Path:
    """Where the index of an output is."""
    return output.with_name(f"{output.name}.index")
