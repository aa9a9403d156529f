"""Parquet, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from raypool.cli.problem import Problem
from raypool.cli.records import START, Place, Reader, Record
from raypool.errors import InvalidTask
from raypool.task import check_json

if TYPE_CHECKING:
    from types import ModuleType

ROWS_AT_ONCE = 1_000
NEEDS_PYARROW = "Parquet needs pyarrow: pip install 'raypool[parquet]'"


def import_pyarrow() -> ModuleType:
    """The `pyarrow` package, with its `parquet` module.

    Raises:
        Problem: it is not installed; names the extra.
    """
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise Problem(NEEDS_PYARROW) from error
    module: ModuleType = pyarrow
    return module


class ParquetTable(Reader):
    """The rows of a Parquet file; dates and the like become texts, as in JSON.

    Raises:
        Problem: it is no Parquet file, or pyarrow is not installed.
    """

    def __init__(self, path: str) -> None:
        arrow = import_pyarrow()
        try:
            self._file = arrow.parquet.ParquetFile(path)
        except (arrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise Problem(f"cannot read {path}: {reason}") from error
        self._errors: tuple[type[Exception], ...] = (arrow.ArrowException,)
        self._columns: list[str] = list(self._file.schema_arrow.names)
        self._row = 0
        self._groups = [
            self._file.metadata.row_group(group).num_rows
            for group in range(self._file.num_row_groups)
        ]

    @property
    def columns(self) -> list[str]:
        return self._columns

    @property
    def place(self) -> Place:
        return Place(0, self._row)

    @property
    def amount(self) -> int:
        return self._row

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(self._groups)

    def records(self, start: Place = START) -> Iterator[Record]:
        first, skipped = self._group_of(start.line)
        self._row = start.line
        groups = list(range(first, len(self._groups)))
        try:
            for batch in self._file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups):
                for fields in batch.to_pylist()[skipped:]:
                    self._row += 1
                    yield _record(self._row, fields)
                skipped = max(0, skipped - batch.num_rows)
        except self._errors as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        self._file.close()

    def _group_of(self, row: int) -> tuple[int, int]:
        """The row group of a row, and how many rows of the group come before it."""
        for group, rows in enumerate(self._groups):
            if row < rows:
                return group, row
            row -= rows
        return len(self._groups), 0


def _record(number: int, fields: dict[str, Any]) -> Record:
    try:
        plain: dict[str, Any] = msgspec.to_builtins(fields)
        check_json(plain, "the row")
    except (TypeError, ValueError, OverflowError, InvalidTask) as error:
        return Record(number, {}, f"not what JSON can hold: {error}")
    return Record(number, plain)
