"""Rows of bytes that are at hand."""

from __future__ import annotations

import io

from raypool.cli.batch_form import RunTerms
from raypool.cli.inputs import Input
from raypool.cli.question import OwnPrompt
from raypool.cli.records import Format
from raypool.cli.rows import BadRow, Row, RowReader, SkippedRow


def reader_of(data: bytes, row_format: Format = "jsonl") -> RowReader:
    """A reader of `data` as stdin."""
    return RowReader([Input("-", row_format, io.BytesIO(data))], OwnPrompt(RunTerms()))


def read_rows(data: bytes, row_format: Format = "jsonl") -> list[Row | BadRow]:
    """The rows of `data`, none of which is left out."""
    return [row for row in reader_of(data, row_format) if not isinstance(row, SkippedRow)]
