"""Tables: CSV and TSV with what may stand in quotes, and Parquet."""

from __future__ import annotations

import csv
import datetime
import io
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from raypool.cli import parquet_table, records
from raypool.cli.csv_table import DELIMITERS, CsvTable
from raypool.cli.parquet_table import ParquetTable
from raypool.cli.problem import Problem
from raypool.cli.records import Record

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
tables = st.lists(st.tuples(texts, texts), max_size=6)


def table_of(data: bytes | str, delimiter: str = ",") -> CsvTable:
    raw = data.encode() if isinstance(data, str) else data
    return CsvTable(io.BytesIO(raw), "in.csv", delimiter)


def read(data: bytes | str) -> list[Record]:
    return list(table_of(data).records())


class TestCsv:
    def test_fields_may_have_line_ends_delimiters_and_quotes(self) -> None:
        found = read('id,body\r\n1,"one,\r\n""two"""\r\n\r\n2,x\r\n')

        assert found == [
            Record(2, {"id": "1", "body": 'one,\r\n"two"'}),
            Record(5, {"id": "2", "body": "x"}),
        ]

    def test_byte_order_mark_is_no_part_of_a_name(self) -> None:
        assert table_of(b"\xef\xbb\xbfid,body\n").columns == ["id", "body"]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"1,2,3", "3 fields, and the header has 2"),
            (b"1", "1 field, and the header has 2"),
            (b'"x"y,2', "not valid CSV"),
            (b"\xff,2", "not valid UTF-8 in column 'id'"),
        ],
    )
    def test_bad_record_is_said_and_the_next_is_read(self, line: bytes, problem: str) -> None:
        bad, good = read(b"id,body\n" + line + b"\nb,c\n")

        assert bad.line == 2
        assert bad.problem is not None
        assert problem in bad.problem
        assert good == Record(3, {"id": "b", "body": "c"})

    def test_quote_that_is_never_closed_is_said(self) -> None:
        *_, last = read('id,body\n1,"x\n2,y\n')

        assert last.problem is not None
        assert "unexpected end of data" in last.problem

    def test_field_that_is_too_long_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "MAX_RECORD_BYTES", 10)

        found = read("id,body\n1,12345678901234567890\n2,y\n")

        assert found[0].problem is not None
        assert found[-1] == Record(3, {"id": "2", "body": "y"})

    @pytest.mark.parametrize(
        ("header", "said"),
        [
            (b"id,id\n", "more than one column 'id'"),
            (b"\xff,id\n", "not valid UTF-8"),
            (b'"x"y\n', "cannot read the header"),
        ],
    )
    def test_header_that_names_no_columns_is_refused(self, header: bytes, said: str) -> None:
        with pytest.raises(Problem, match=said):
            table_of(header)

    def test_empty_file_has_no_records(self) -> None:
        assert read(b"") == []

    @given(rows=tables, delimiter=st.sampled_from(sorted(DELIMITERS.values())))
    def test_what_was_written_is_read(self, rows: list[tuple[str, str]], delimiter: str) -> None:
        written = io.StringIO(newline="")
        writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])

        found = list(table_of(written.getvalue(), delimiter).records())

        assert [one.fields for one in found] == [{"a": a, "b": b} for a, b in rows]

    @given(rows=tables, place=st.integers(0, 5))
    def test_reading_goes_on_where_a_record_begins(
        self, rows: list[tuple[str, str]], place: int
    ) -> None:
        written = io.StringIO(newline="")
        csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
        table = table_of(written.getvalue())
        records_read = table.records()
        before = [one for _, one in zip(range(place), records_read, strict=False)]

        after = list(table_of(written.getvalue()).records(table.place))

        assert [*before, *after] == read(written.getvalue())

    @given(data=st.binary(max_size=80))
    def test_any_bytes_are_records_or_a_problem(self, data: bytes) -> None:
        try:
            found = read(data)
        except Problem:
            return
        assert [one.line for one in found] == sorted({one.line for one in found})


def write_parquet(path: Path, columns: dict[str, list[Any]], group: int = 3) -> str:
    parquet.write_table(arrow.table(columns), path, row_group_size=group)
    return str(path)


class TestParquet:
    def test_values_become_what_json_can_hold(self, tmp_path: Path) -> None:
        path = write_parquet(
            tmp_path / "in.parquet",
            {
                "day": [datetime.date(2026, 12, 1)],
                "price": [Decimal("1.50")],
                "tags": [["a", "b"]],
                "raw": [b"x"],
                "none": [None],
            },
        )

        (row,) = ParquetTable(path).records()

        assert row.fields == {
            "day": "2026-12-01",
            "price": "1.50",
            "tags": ["a", "b"],
            "raw": "eA==",
            "none": None,
        }

    @given(rows=st.integers(0, 10), start=st.integers(0, 10))
    def test_reading_goes_on_at_any_row(
        self, tmp_path_factory: pytest.TempPathFactory, rows: int, start: int
    ) -> None:
        start = min(rows, start)
        path = write_parquet(tmp_path_factory.mktemp("p") / "in.parquet", {"n": [*range(rows)]})
        table = ParquetTable(path)

        found = list(table.records(records.Place(0, start)))

        assert [(one.line, one.fields["n"]) for one in found] == [
            (number + 1, number) for number in range(start, rows)
        ]
        assert (table.rows, table.amount) == (rows, rows)

    def test_file_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "in.parquet"
        path.write_text("hello")

        with pytest.raises(Problem, match=r"cannot read .*in\.parquet"):
            ParquetTable(str(path))

    def test_missing_package_is_said_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        with pytest.raises(Problem, match=r"pip install 'raypool\[parquet\]'"):
            parquet_table.import_pyarrow()
