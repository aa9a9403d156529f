"""SQL for any number of rows or values, without a statement to prepare for each number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

_MOST_ROWS = 512
_MOST_TEXTS = 2048


class Insert(NamedTuple):
    """A statement that inserts any number of rows.

    Attributes:
        table: where they go.
        columns: what each row has, in its order.
        on_conflict: what to do with a row that is there already.
    """

    table: str
    columns: tuple[str, ...]
    on_conflict: str = ""

    def sql(self, columns: Sequence[str], rows: int) -> str:
        """The statement for as many rows that have only `columns`."""
        values = ", ".join([row_of(len(columns))] * rows)
        into = f"{self.table} ({', '.join(columns)})"
        return f"INSERT INTO {into} VALUES {values} {self.on_conflict}"  # noqa: S608 - all is ours


def row_of(values: int) -> str:
    """The place of one row of so many values."""
    return f"({', '.join('?' * values)})"


def insert(writer: sqlite3.Connection, statement: Insert, table: Sequence[tuple[Any, ...]]) -> None:
    """Insert in pieces whose sizes are powers of two, so that few statements are ever prepared.

    A column that is NULL in every row is left out, since a NULL takes as long to bind as a text.
    """
    if not table:
        return
    names, columns = _filled(statement.columns, table)
    start, size = 0, _MOST_ROWS
    while start < len(table):
        while size > len(table) - start:
            size //= 2
        piece = zip(*(column[start : start + size] for column in columns), strict=True)
        writer.execute(statement.sql(names, size), list(chain.from_iterable(piece)))
        start += size


def change(writer: sqlite3.Connection, statement: str, table: Sequence[tuple[Any, ...]]) -> None:
    """Run `statement` with pieces of `table` for its `{rows}`."""
    for start in range(0, len(table), _MOST_ROWS):
        piece = table[start : start + _MOST_ROWS]
        places = ", ".join([row_of(len(piece[0]))] * len(piece))
        writer.execute(statement.format(rows=places), list(chain.from_iterable(piece)))


def _filled(
    names: Sequence[str], table: Sequence[tuple[Any, ...]]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names and the values of the columns of `table` that are not NULL throughout."""
    filled: list[str] = []
    columns: list[tuple[Any, ...]] = []
    for name, column in zip(names, zip(*table, strict=True), strict=True):
        if column[0] is not None or column.count(None) < len(column):
            filled.append(name)
            columns.append(column)
    return filled, columns


def only_value(connection: sqlite3.Connection, query: str, parameters: Any = ()) -> Any:
    """The single value that `query` gives."""
    return connection.execute(query, parameters).fetchone()[0]


def value_or_none(connection: sqlite3.Connection, query: str, parameters: Any = ()) -> Any:
    """The single value that `query` gives; `None` when it gives no row."""
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None


def in_pieces(texts: Sequence[str]) -> Iterator[list[str | None]]:
    """`texts` in pieces whose sizes are powers of two, as `insert` has them; the rest is `None`.

    JSON would carry them in one parameter, but SQLite cuts its texts at a NUL.
    """
    for start in range(0, len(texts), _MOST_TEXTS):
        piece = texts[start : start + _MOST_TEXTS]
        size = 1 << (len(piece) - 1).bit_length()
        yield [*piece, *[None] * (size - len(piece))]
