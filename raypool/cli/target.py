"""Deciding where a run writes, and what it goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from raypool.cli.checkpoints import Checkpoint, Checkpoints
from raypool.cli.failed_file import FailedFile, failed_beside
from raypool.cli.output import Output, OutputFile
from raypool.cli.parquet_table import import_pyarrow
from raypool.cli.problem import Problem, in_one_line
from raypool.cli.restart import move_aside
from raypool.cli.results import Results, index_beside
from raypool.cli.resume import keep_settings, ledger_beside
from raypool.cli.rows import RowReader
from raypool.cli.states import State
from raypool.cli.tally import Tally
from raypool.errors import LedgerError
from raypool.ledgers import find_ledger, open_found
from raypool.postgres_place import is_postgres, without_password

STREAM = "-"
PARQUET = ".parquet"
_STDOUT = (STREAM, "/dev/stdout")


class Run(NamedTuple):
    """What a run asks, as far as going on from an earlier one is concerned.

    Attributes:
        settings: what its answers depend on.
        reader: its rows.
        tally: where rows are counted that an earlier run has finished.
        retry_failed: failed rows are asked again.
        is_sample: not all rows that are read are asked.
    """

    settings: Mapping[str, Any]
    reader: RowReader
    tally: Tally
    retry_failed: bool = False
    is_sample: bool = False


class Target:
    """An output with what an earlier run has left.

    Attributes:
        name: the output, as the user calls it.
        results: where rows are written.
        ledger: what a later run goes on from; `None` when nothing can.
        failed: the file of failed rows; `None` when the output is a stream.
    """

    def __init__(
        self,
        name: str,
        ledger: str | None,
        stdout: int,
        *,
        is_rendered: bool = False,
        restart: bool = False,
    ) -> None:
        """Open what the command line names; `stdout` is the descriptor of the real one.

        `is_rendered` says that prompts are made of the rows' fields; `restart` moves what
        earlier runs have left aside.

        Raises:
            Problem: it cannot be written.
        """
        is_stdout = name in _STDOUT
        self.name = "stdout" if is_stdout else name
        self.ledger = ledger
        self.failed: Path | None = None
        self.moved: list[str] = []
        self._path = Path(name)
        self._lines = _lines_beside(self._path)
        if restart:
            self.moved = self._start_over(is_stdout)
        self._output = Output(stdout, self.name) if is_stdout else _open(self._lines)
        self._checkpoints = Checkpoints(index_beside(self._path))
        self._failures: FailedFile | None = None
        if isinstance(self._output, OutputFile):
            self.ledger = ledger or str(ledger_beside(self._path))
            self._failures = FailedFile(self._path, is_rendered=is_rendered)
            self.failed = self._failures.path
        self.results = Results(self._output, self._failures)
        self._ledger_is_new = _is_new(self.ledger)

    def go_on(self, run: Run) -> None:
        """Find out what is done, and bring output and ledger into agreement.

        Failed rows leave the output before they are queued again in the ledger: whenever this
        is cut off, the output never has the error of a row that may still be answered.

        Raises:
            Problem: the output or the ledger belongs to something else.
        """
        if self.ledger is None:
            return
        self._check_pair()
        with in_one_line(LedgerError), closing(open_found(find_ledger(self.ledger))) as ledger:
            keep_settings(ledger, run.settings, self._ways_on())
            if isinstance(self._output, OutputFile):
                self._agree(self._output, run)
            if run.retry_failed:
                ledger.requeue_failed()

    def finish(self) -> None:
        """Make of the lines what the output is to be, now that they are all there.

        Raises:
            Problem: it cannot be written.
        """
        self.results.close()
        if self._path != self._lines and not _is_newer(self._path, self._lines):
            from raypool.cli.parquet_output import write_parquet  # noqa: PLC0415 - an extra

            write_parquet(self._lines, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the output; after a `Problem` nothing was asked, and nothing new stays."""
        self.results.close()
        if isinstance(error, Problem):
            self._discard()
        self._output.close()

    def _agree(self, output: OutputFile, run: Run) -> None:
        stamp = None if run.is_sample else run.reader.stamp(run.settings)
        if stamp is not None and not run.retry_failed:
            checkpoint = self._checkpoints.load(stamp)
            if checkpoint and self._go_on_from(checkpoint, output, run):
                self.results.keep_checkpoints(self._checkpoints, run.reader)
                return
        self.results.know(output.agree(drop_failed=run.retry_failed))
        if self._failures is not None:
            self._failures.restore(0, output.failed_lines())
        if stamp is None:
            self._checkpoints.discard()
        else:
            self._checkpoints.begin(stamp)
            self.results.keep_checkpoints(self._checkpoints, run.reader)

    def _go_on_from(self, checkpoint: Checkpoint, output: OutputFile, run: Run) -> bool:
        """Leave out what a checkpoint says is done; whether the files are as it has them."""
        sizes = checkpoint.sizes
        if self._failures is None or self._failures.size < sizes.failed:
            return False
        written = output.agree_after(sizes.output)
        if written is None:
            return False
        self._failures.restore(sizes.failed, output.failed_lines(sizes.output))
        run.reader.ids.table.load(self._checkpoints.ids(len(checkpoint.finished)))
        run.reader.begin_at(checkpoint.beginning)
        for states in checkpoint.finished:
            failed = states.count(State.FAILED) + states.count(State.REFUSED)
            run.tally.add_finished(states.count(State.ANSWERED), failed)
        for chunk, unfinished in checkpoint.unfinished.items():
            self.results.states.load(chunk, unfinished)
        self.results.know(written)
        return True

    def _discard(self) -> None:
        if isinstance(self._output, OutputFile):
            self._output.discard()
            if self._failures is not None and self._output.is_empty:
                self._failures.restore(0, ())
        if self._ledger_is_new:
            self._checkpoints.discard()
        if self._ledger_is_new and not is_postgres(self.ledger):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.ledger}{suffix}").unlink(missing_ok=True)

    def _start_over(self, is_stdout: bool) -> list[str]:
        if is_postgres(self.ledger):
            raise Problem("--restart keeps files under other names; choose another --ledger")
        paths = [] if self.ledger is None else [Path(self.ledger)]
        if not is_stdout:
            if self._lines.is_file():
                OutputFile(self._lines).close()
            paths = paths or [ledger_beside(self._path)]
            paths += [self._lines, failed_beside(self._path), index_beside(self._path)]
            paths += [self._path] if self._path != self._lines else []
        with in_one_line(OSError):
            return move_aside(paths)

    def _check_pair(self) -> None:
        is_file = isinstance(self._output, OutputFile)
        if is_file and self._ledger_is_new and self._lines.stat().st_size:
            shown = without_password(self.ledger or "")
            raise Problem(
                f"{self.name} exists, but its ledger {shown} does not, so it cannot be "
                f"continued; choose another output (-o), or --restart, which keeps {self.name} "
                "under another name and starts over"
            )

    def _ways_on(self) -> str:
        other = "another output (-o)" if self.failed else "another --ledger"
        return f"choose {other}, or --restart, which keeps the old files and starts over"


def files_of(name: str) -> list[Path]:
    """The files that a run writes rows to, by what the user calls its output."""
    if name in ("", *_STDOUT):
        return []
    output = Path(name)
    return [output, output.with_name(f"{output.name}.jsonl"), failed_beside(output)]


def _lines_beside(output: Path) -> Path:
    """Where the lines are written: in the output, or beside one that is made of them."""
    if output.suffix.lower() != PARQUET:
        return output
    import_pyarrow()
    return output.with_name(f"{output.name}.jsonl")


def _is_newer(path: Path, other: Path) -> bool:
    """Whether a file was written after another."""
    return path.exists() and path.stat().st_mtime_ns > other.stat().st_mtime_ns


def _is_new(ledger: str | None) -> bool:
    if is_postgres(ledger):
        with in_one_line(LedgerError):
            return not find_ledger(ledger).is_there
    return ledger is not None and not Path(ledger).exists()


def _open(path: Path) -> Output:
    if path.exists() and not path.is_file() and not path.is_dir():
        with in_one_line(OSError):
            return Output(os.open(path, os.O_WRONLY), str(path))
    return OutputFile(path)
