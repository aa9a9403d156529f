"""Reading the inputs: one row per record, good or bad, whatever is in them."""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from raypool.cli.ids import Ids
from raypool.cli.inputs import Input
from raypool.cli.json_lines import kind_of
from raypool.cli.question import Asked, Question
from raypool.cli.records import START, Origin, Place, Reader, Record
from raypool.errors import InvalidTask
from raypool.task import Content, Task, check_task


class Row(msgspec.Struct, frozen=True):
    """A row that can be asked.

    Attributes:
        number: its place among all rows of all inputs, from 0.
        origin: its input.
        line: where it begins there, from 1.
        id: its `id` or `custom_id`, else its request's digest and occurrence: `9f2c…-1`.
        prompt: what to ask.
        digest: stands for what is asked; two rows with the same one ask the same.
        fields: everything else that the row has.
    """

    number: int
    origin: Origin
    line: int
    id: str
    prompt: Content
    digest: str
    fields: dict[str, Any]

    def refused(self, reason: str) -> BadRow:
        """The same row as one that cannot be asked."""
        asked = {asked_name(self.prompt): self.prompt}
        return BadRow(self.number, self.origin, self.line, reason, self.id, asked | self.fields)


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be asked.

    Attributes:
        number: its place among all rows of all inputs, from 0.
        origin: its input.
        line: where it begins there, from 1.
        reason: what is wrong with it.
        id: its `id` or `custom_id`, where it has one.
        fields: what the row has, where it could be read.
    """

    number: int
    origin: Origin
    line: int
    reason: str
    id: str | None = None
    fields: dict[str, Any] = {}

    @property
    def message(self) -> str:
        """Where it is, and what is wrong with it."""
        return f"{self.origin.where(self.line)}: {self.reason}"


class SkippedRow(msgspec.Struct, frozen=True):
    """A row that the mapper leaves out.

    Attributes:
        number: its place among all rows of all inputs, from 0.
    """

    number: int


AnyRow: TypeAlias = Row | BadRow | SkippedRow


class Beginning(NamedTuple):
    """Where reading begins.

    Attributes:
        number: the number of the first row that is read.
        input: which of the inputs it is in, from 0.
        place: where it begins there.
    """

    number: int = 0
    input: int = 0
    place: Place = START


def request_digest(prompt: Content) -> str:
    """The same for the same question, in every run and on every machine."""
    return hashlib.blake2b(msgspec.json.encode(prompt, order="sorted"), digest_size=12).hexdigest()


def asked_name(prompt: Content) -> str:
    """The field that a prompt is written in."""
    return "prompt" if isinstance(prompt, str) else "messages"


class RowReader:
    """The rows of some inputs, in order, read as they are asked for.

    Every record gives exactly one row, and no input makes it raise but by its disk: what cannot
    be asked is a `BadRow`.

    Attributes:
        ids: the ids of the rows that were read, by their numbers.
        rows: how many rows were read so far, those before the beginning included.
        at_end: whether there are no more.
        before_row: is called with the beginning of a row before it is read.
    """

    def __init__(
        self, inputs: Sequence[Input], question: Question, *, limit: int | None = None
    ) -> None:
        self.ids = Ids()
        self.rows = 0
        self.at_end = False
        self.before_row: Callable[[Beginning], None] = _nothing
        self._inputs = inputs
        self._question = question
        self._limit = limit
        self._beginning = Beginning()
        self._read_before = 0
        self._reader: Reader | None = None
        self._firsts: list[_First] = []
        self._has_stopped = False

    @property
    def is_limited(self) -> bool:
        """Whether only the first rows are read."""
        return self._limit is not None

    @property
    def bytes(self) -> int:
        """How many bytes were read so far; of Parquet, rows."""
        return self._read_before + (self._reader.amount if self._reader else 0)

    @property
    def size(self) -> int | None:
        """What `bytes` will be at the end; `None` when nobody can know."""
        sizes = [one.size for one in self._inputs]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def stamp(self, settings: Any) -> Any:
        """What rows and their numbers depend on, as JSON can hold it; `None` for streams."""
        if self.size is None:
            return None
        return [[one.stamp() for one in self._inputs], dict(settings)]

    def begin_at(self, beginning: Beginning) -> None:
        """Leave out what comes before; `ids` must have it."""
        self._beginning = beginning
        self.rows = beginning.number
        self._read_before = sum(one.size or 0 for one in self._inputs[: beginning.input])

    def stop(self) -> None:
        """Give no more rows; any thread may call."""
        self._has_stopped = True

    def __iter__(self) -> Iterator[AnyRow]:
        most = None if self._limit is None else max(0, self._limit - self.rows)
        for row in itertools.islice(self._all_rows(), most):
            yield row
            if self._has_stopped:
                return
        self.at_end = True

    def _all_rows(self) -> Iterator[AnyRow]:
        for place in range(self._beginning.input, len(self._inputs)):
            yield from self._rows_of(place)

    def _rows_of(self, place: int) -> Iterator[AnyRow]:
        source = self._inputs[place]
        start = self._beginning.place if place == self._beginning.input else START
        reader = self._reader = source.open()
        self._question_fits(source, reader)
        first = _First(self.rows, source.origin, start.line == 0)
        self._firsts.append(first)
        try:
            records = reader.records(start)
            self.before_row(Beginning(self.rows, place, start))
            for record in records:
                if record.line != self.rows - first.number + 1:
                    first.is_even = False
                yield self._row(source.origin, record)
                self.before_row(Beginning(self.rows, place, reader.place))
            self._read_before += reader.amount
        finally:
            self._reader = None
            if source.size is not None:
                reader.close()

    def check(self) -> None:
        """Refuse inputs none of whose rows could be asked, before anything is.

        Raises:
            Problem: says which column is missing.
        """
        for source in self._inputs:
            if source.size is not None:
                reader = source.open()
                reader.close()
                self._question_fits(source, reader)

    def _question_fits(self, source: Input, reader: Reader) -> None:
        if reader.columns:
            self._question.check_columns(source.origin.name, reader.columns)

    def _row(self, origin: Origin, record: Record) -> AnyRow:
        number = self.rows
        row = self._made(number, origin, record)
        if isinstance(row, Row):
            self.ids.take(row.id)
        else:
            self.ids.take_none()
        self.rows += 1
        return row

    def _made(self, number: int, origin: Origin, record: Record) -> AnyRow:
        if record.problem is not None:
            return BadRow(number, origin, record.line, record.problem)
        row_id = None
        try:
            _drop_former_error(record.fields)
            row_id = _given_id(record.fields)
            asked = self._question.of(record.fields)
            if asked is None:
                return SkippedRow(number)
            return self._checked(number, origin, record.line, row_id, asked)
        except InvalidTask as error:
            return BadRow(number, origin, record.line, str(error), row_id, record.fields)

    def _checked(
        self, number: int, origin: Origin, line: int, row_id: str | None, asked: Asked
    ) -> Row:
        digest = request_digest(asked.prompt)
        if row_id is None:
            row_id = self.ids.free_id(digest)
        elif (first := self.ids.first_with(row_id)) is not None:
            raise InvalidTask(f"the id {row_id!r} is that of {self._where(first)}")
        check_task(Task(asked.prompt, id=row_id, metadata=asked.fields))
        return Row(number, origin, line, row_id, asked.prompt, digest, asked.fields)

    def _where(self, number: int) -> str:
        """Where a row is that was read before."""
        place = bisect_right(self._firsts, number, key=lambda first: first.number) - 1
        if place < 0:
            return f"row {number + 1}"
        first = self._firsts[place]
        unit = first.origin.unit if first.is_even else "row"
        where = f"{unit} {number - first.number + 1}"
        return where if len(self._inputs) == 1 else f"{where} of {first.origin.name}"


class _First(msgspec.Struct):
    """Where the rows of an input begin.

    Attributes:
        number: the number of its first row that was read.
        origin: the input.
        is_even: each of its rows is a line, from the first line on.
    """

    number: int
    origin: Origin
    is_even: bool


def _drop_former_error(fields: dict[str, Any]) -> None:
    """A row of a file of failed rows is the row that failed, and why it did no longer counts."""
    error = fields.get("error")
    if isinstance(error, dict) and error.keys() == {"type", "message"}:
        del fields["error"]


def _given_id(fields: dict[str, Any]) -> str | None:
    for name in ("id", "custom_id"):
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise InvalidTask(f"{name!r} must be a text or a whole number, got {kind_of(value)}")
        return str(value)
    return None


def _nothing(_beginning: Beginning) -> None:
    """What happens before a row unless somebody wants to know."""
