"""Parquet made of the lines of an output: twice read, never whole in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from raypool.cli.parquet_table import import_pyarrow
from raypool.cli.problem import Problem

ROWS_IN_A_GROUP = 20_000


def write_parquet(lines: Path, path: Path) -> None:
    """Write the lines of `lines` to `path`, a row each, in one step.

    A column has the type that all its values have; where they have none in common, it has them
    as JSON texts.

    Raises:
        Problem: it cannot be written.
    """
    arrow = import_pyarrow()
    temporary = path.with_name(f"{path.name}.new")
    try:
        columns = _Columns(arrow)
        for rows in _batches(lines):
            columns.learn(rows)
        schema = columns.schema()
        with arrow.parquet.ParquetWriter(str(temporary), schema) as writer:
            for rows in _batches(lines):
                writer.write_table(columns.table(rows, schema))
        temporary.replace(path)
    except (OSError, arrow.ArrowException) as error:
        raise Problem(f"cannot write {path}: {error}; its rows are in {lines}") from error
    finally:
        temporary.unlink(missing_ok=True)


class _Columns:
    """The types of the columns of all rows, learnt batch by batch."""

    def __init__(self, arrow: ModuleType) -> None:
        self._arrow = arrow
        self._types: dict[str, Any] = {}
        self._texts: set[str] = set()

    def learn(self, rows: list[dict[str, Any]]) -> None:
        for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
            if name not in self._texts:
                self._learn_column(name, [row.get(name) for row in rows])

    def schema(self) -> Any:
        arrow = self._arrow
        for name, found in self._types.items():
            if arrow.types.is_null(found) or _has_empty_object(arrow, found):
                self._texts.add(name)
        return arrow.schema(
            [
                arrow.field(name, arrow.string() if name in self._texts else found)
                for name, found in self._types.items()
            ]
        )

    def table(self, rows: list[dict[str, Any]], schema: Any) -> Any:
        columns = [self._array(field, [row.get(field.name) for row in rows]) for field in schema]
        return self._arrow.table(columns, schema=schema)

    def _array(self, field: Any, values: list[Any]) -> Any:
        if field.name in self._texts:
            values = [None if value is None else _text(value) for value in values]
        return self._arrow.array(values, type=field.type)

    def _learn_column(self, name: str, values: list[Any]) -> None:
        arrow = self._arrow
        known = self._types.get(name, arrow.null())
        try:
            found = arrow.array(values).type
            both = [arrow.schema([arrow.field(name, one)]) for one in (known, found)]
            merged = arrow.unify_schemas(both, promote_options="permissive").field(name).type
        except (arrow.ArrowException, TypeError, OverflowError):
            self._texts.add(name)
            merged = arrow.string()
        self._types[name] = merged


def _has_empty_object(arrow: ModuleType, found: Any) -> bool:
    """Whether a type has objects without fields in it, which Parquet cannot hold."""
    parts = [found.field(place).type for place in range(found.num_fields)]
    is_empty = arrow.types.is_struct(found) and not parts
    return is_empty or any(_has_empty_object(arrow, part) for part in parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _batches(lines: Path) -> Iterator[list[dict[str, Any]]]:
    with lines.open("rb") as stream:
        rows: Iterable[dict[str, Any]] = map(msgspec.json.Decoder(dict[str, Any]).decode, stream)
        while batch := list(itertools.islice(rows, ROWS_IN_A_GROUP)):
            yield batch
