"""Deciding where a run writes, and what it goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raypool.cli.output import Output, OutputFile, Written
from raypool.cli.problem import Problem, in_one_line
from raypool.cli.resume import keep_settings, ledger_beside
from raypool.errors import LedgerError
from raypool.ledgers import find_ledger, open_found
from raypool.postgres_place import is_postgres, without_password

STREAM = "-"
_STDOUT = (STREAM, "/dev/stdout")


class Target:
    """An output with what an earlier run has left.

    Attributes:
        name: the output, as the user calls it.
        output: where lines are written.
        written: the rows that it has already.
        ledger: what a later run goes on from; `None` when nothing can.
    """

    def __init__(self, name: str, ledger: str | None, stdout: int) -> None:
        """Open what the command line names; `stdout` is the descriptor of the real one.

        Raises:
            Problem: it cannot be written.
        """
        self.name = "stdout" if name in _STDOUT else name
        self.ledger = ledger
        self.written = Written()
        self.output = Output(stdout, self.name) if name in _STDOUT else _open(Path(name))
        if ledger is None and isinstance(self.output, OutputFile):
            self.ledger = str(ledger_beside(Path(name)))
        self._ledger_is_new = _is_new(self.ledger)

    def go_on(self, settings: Mapping[str, Any], *, retry_failed: bool) -> None:
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
            keep_settings(ledger, settings, self._start_over())
            if isinstance(self.output, OutputFile):
                self.written = self.output.agree(drop_failed=retry_failed)
            if retry_failed:
                ledger.requeue_failed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the output; after a `Problem` nothing was asked, and nothing new stays."""
        if isinstance(error, Problem):
            self._discard()
        self.output.close()

    def _discard(self) -> None:
        if isinstance(self.output, OutputFile):
            self.output.discard()
        if self._ledger_is_new and not is_postgres(self.ledger):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.ledger}{suffix}").unlink(missing_ok=True)

    def _check_pair(self) -> None:
        if isinstance(self.output, OutputFile) and not self.output.is_empty and self._ledger_is_new:
            raise Problem(
                f"{self.name} exists, but its ledger {self._shown} does not, so it cannot be "
                f"continued; choose another output (-o), or remove {self.name} to start over"
            )

    def _start_over(self) -> str:
        if isinstance(self.output, OutputFile):
            others = f"another output (-o), or remove {self.name} and {self._shown}"
        else:
            others = f"another --ledger, or remove {self._shown}"
        return f"choose {others} to start over"

    @property
    def _shown(self) -> str:
        return without_password(self.ledger or "")


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
