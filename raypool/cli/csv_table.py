"""CSV and TSV, record by record: a quoted field may have line ends in it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from raypool.cli import records
from raypool.cli.byte_lines import ByteLines
from raypool.cli.figures import count
from raypool.cli.problem import Problem
from raypool.cli.records import START, Place, Reader, Record

DELIMITERS = {"csv": ",", "tsv": "\t"}
_IDS = ("id", "custom_id")
"""Columns in which an empty text is none."""


class CsvTable(Reader):
    """A table whose first record names the columns; blank lines are no records.

    Raises:
        Problem: the names cannot be read, or two columns have the same.
    """

    def __init__(self, stream: BinaryIO, name: str, delimiter: str) -> None:
        csv.field_size_limit(records.MAX_RECORD_BYTES)
        self._lines = ByteLines(stream, records.MAX_RECORD_BYTES)
        self._has_long_line = False
        self._delimiter = delimiter
        self._columns = self._header(name)
        self._place = self._lines.place

    @property
    def columns(self) -> list[str]:
        return self._columns

    @property
    def place(self) -> Place:
        return self._place

    @property
    def amount(self) -> int:
        return self._lines.place.offset

    def records(self, start: Place = START) -> Iterator[Record]:
        if start != START:
            self._lines.start_at(start)
        for line, values in self._values():
            self._place = self._lines.place
            if isinstance(values, str):
                yield Record(line, {}, values)
            elif values:
                yield self._record(line, values)

    def close(self) -> None:
        self._lines.close()

    def _record(self, line: int, values: list[str]) -> Record:
        if len(values) != len(self._columns):
            found = count(len(values), "field")
            return Record(line, {}, f"{found}, and the header has {len(self._columns)}")
        for name, value in zip(self._columns, values, strict=True):
            if not value.isascii() and _is_not_utf8(value):
                return Record(line, {}, f"not valid UTF-8 in column {name!r}")
        fields: dict[str, Any] = dict(zip(self._columns, values, strict=True))
        for name in _IDS:
            if fields.get(name) == "":
                fields[name] = None
        return Record(line, fields)

    def _values(self) -> Iterator[tuple[int, list[str] | str]]:
        """Each record's first line with its values, or with what is wrong with it."""
        reader = csv.reader(self._texts(), delimiter=self._delimiter, strict=True)
        while True:
            line = self._lines.place.line + 1
            self._has_long_line = False
            try:
                values: list[str] | str = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                values = f"not valid CSV: {error}"
            if self._has_long_line:
                values = f"longer than {records.MAX_RECORD_BYTES:,} bytes"
            yield line, values

    def _texts(self) -> Iterator[str]:
        for line in self._lines:
            self._has_long_line |= line is None
            # What is not UTF-8 becomes a lone surrogate, which UTF-8 never has.
            yield "\n" if line is None else line.decode("utf-8", "surrogateescape")

    def _header(self, name: str) -> list[str]:
        for _, values in self._values():
            if isinstance(values, str):
                raise Problem(f"cannot read the header of {name}: {values}")
            if any(map(_is_not_utf8, values)):
                raise Problem(f"cannot read the header of {name}: not valid UTF-8")
            repeated = [column for column, number in Counter(values).items() if number > 1]
            if repeated:
                raise Problem(f"{name} has more than one column {repeated[0]!r}")
            if values:
                return values
        return []


def _is_not_utf8(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
