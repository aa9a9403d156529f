"""What the readers of all formats give: one record after another, and where each came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

Format: TypeAlias = Literal["jsonl", "text", "csv", "tsv", "parquet"]

MAX_RECORD_BYTES = 64 * 1024 * 1024


class Place(NamedTuple):
    """Where in an input the next record begins.

    Attributes:
        offset: the bytes before it; 0 in Parquet.
        line: the lines before it; in Parquet the rows.
    """

    offset: int = 0
    line: int = 0


START = Place()


class Record(NamedTuple):
    """One record of an input.

    Attributes:
        line: the line where it begins, from 1; in Parquet the row.
        fields: what it has, by name; nothing when it could not be read.
        problem: why it could not be read; `None` when it could.
    """

    line: int
    fields: dict[str, Any]
    problem: str | None = None


class Origin(NamedTuple):
    """An input, as messages name it.

    Attributes:
        name: its file, or `stdin`.
        unit: what its records are counted by: `line` or `row`.
    """

    name: str
    unit: str = "line"

    def where(self, line: int) -> str:
        """`data/a.jsonl, line 7`."""
        return f"{self.name}, {self.unit} {line}"


class Reader(Protocol):
    """One input that is open.

    Every record that is not blank gives exactly one `Record`, and no content makes it raise.

    Attributes:
        columns: the names that every record has; `None` when each has its own.
        place: where the next record begins.
        amount: how much was read so far: bytes, of Parquet rows.
    """

    @property
    def columns(self) -> list[str] | None: ...

    @property
    def place(self) -> Place: ...

    @property
    def amount(self) -> int: ...

    def records(self, start: Place = START) -> Iterator[Record]:
        """The records from `start` on, which was a `place` of such a reader.

        Raises:
            OSError: the input can no longer be read.
        """

    def close(self) -> None:
        """Let go of the input."""
