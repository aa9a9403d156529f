"""Reading the input: one row per line, good or bad, whatever the bytes are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, TypeAlias

import msgspec

from raypool.errors import InvalidTask
from raypool.task import Content, Task, check_task

Format: TypeAlias = Literal["jsonl", "text"]

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_NESTING = 100
_BOM = b"\xef\xbb\xbf"
_TOO_DEEP = f"nested more than {MAX_NESTING} levels deep"


class Row(msgspec.Struct, frozen=True):
    """A row that can be asked.

    Attributes:
        line: its line in the input, from 1.
        id: its `id` or `custom_id`, else its request's digest and occurrence: `9f2c…-1`.
        prompt: what to ask.
        digest: stands for what is asked; two rows with the same one ask the same.
        fields: everything else that the row has.
    """

    line: int
    id: str
    prompt: Content
    digest: str
    fields: dict[str, Any]

    def refused(self, reason: str) -> BadRow:
        """The same row as one that cannot be asked."""
        asked = {"prompt" if isinstance(self.prompt, str) else "messages": self.prompt}
        return BadRow(self.line, reason, self.id, asked | self.fields)


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be asked.

    Attributes:
        line: its line in the input, from 1.
        reason: what is wrong with it.
        id: its `id` or `custom_id`, where it has one.
        fields: what the row has, where it could be read.
    """

    line: int
    reason: str
    id: str | None = None
    fields: dict[str, Any] = {}


def request_digest(prompt: Content) -> str:
    """The same for the same question, in every run and on every machine."""
    return hashlib.blake2b(msgspec.json.encode(prompt, order="sorted"), digest_size=12).hexdigest()


class RowReader:
    """The rows of a stream, in order, read as they are asked for.

    Every line that is not blank gives exactly one row, and no input makes it
    raise: what cannot be asked is a `BadRow`. Lines end with a line feed; a
    carriage return before it and a byte order mark at the start are dropped.

    Attributes:
        rows: how many rows were read so far.
        bytes: how many bytes were read so far.
        at_end: whether there are no more.
    """

    def __init__(self, stream: BinaryIO, row_format: Format) -> None:
        self.rows = 0
        self.bytes = 0
        self.at_end = False
        self._stream = stream
        self._parse = _jsonl_row if row_format == "jsonl" else _text_row
        self._ids = _Ids()
        self._has_stopped = False

    def stop(self) -> None:
        """Give no more rows; any thread may call."""
        self._has_stopped = True

    def __iter__(self) -> Iterator[Row | BadRow]:
        for number, line in enumerate(self._lines(), start=1):
            if line is None:
                row: Row | BadRow = BadRow(number, f"longer than {MAX_LINE_BYTES:,} bytes")
            elif not line or line.isspace():
                continue
            else:
                row = self._read(number, line)
            self.rows += 1
            yield row
            if self._has_stopped:
                return
        self.at_end = True

    def _read(self, number: int, line: bytes) -> Row | BadRow:
        row = self._parse(number, line)
        if isinstance(row, Row):
            row = self._ids.give(row)
        return _checked(row) if isinstance(row, Row) else row

    def _lines(self) -> Iterator[bytes | None]:
        """Each line without its end; `None` for one that is too long to be read."""
        is_first = True
        while piece := self._stream.readline(MAX_LINE_BYTES + 1):
            self.bytes += len(piece)
            if len(piece) > MAX_LINE_BYTES and not piece.endswith(b"\n"):
                self._skip_line()
                yield None
            else:
                piece = piece.removesuffix(b"\n").removesuffix(b"\r")
                yield piece.removeprefix(_BOM) if is_first else piece
            is_first = False

    def _skip_line(self) -> None:
        while piece := self._stream.readline(MAX_LINE_BYTES):
            self.bytes += len(piece)
            if piece.endswith(b"\n"):
                return


class _Ids:
    """Gives every row of a file an id of its own."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}
        self._repeats: dict[str, int] = {}

    def give(self, row: Row) -> Row | BadRow:
        """The row with its id; a `BadRow` when another row has that id already."""
        if not row.id:
            row = msgspec.structs.replace(row, id=self._next_id(row.digest))
        elif first := self._lines.get(row.id):
            return row.refused(f"the id {row.id!r} is that of line {first}")
        self._lines[row.id] = row.line
        return row

    def _next_id(self, digest: str) -> str:
        occurrence = self._repeats.get(digest, 1)
        while f"{digest}-{occurrence}" in self._lines:
            occurrence += 1
            self._repeats[digest] = occurrence
        return f"{digest}-{occurrence}"


def _text_row(number: int, line: bytes) -> Row | BadRow:
    try:
        prompt = _decoded(line)
    except InvalidTask as error:
        return BadRow(number, str(error))
    return Row(number, "", prompt, request_digest(prompt), {})


def _jsonl_row(number: int, line: bytes) -> Row | BadRow:
    fields: dict[str, Any] = {}
    row_id = None
    try:
        fields = _parsed(_decoded(line))
        row_id = _given_id(fields)
        prompt = _given_prompt(fields)
    except InvalidTask as error:
        return BadRow(number, str(error), row_id, fields)
    others = {name: fields[name] for name in fields if name not in ("prompt", "messages")}
    return Row(number, row_id or "", prompt, request_digest(prompt), others)


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} in column {error.start + 1}"
        raise InvalidTask(f"not valid UTF-8 ({byte})") from None


def _parsed(line: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except msgspec.MsgspecError as error:
        raise InvalidTask(_not_json(line, error)) from None
    except RecursionError:
        raise InvalidTask(_TOO_DEEP) from None
    if _is_too_deep(line, fields):
        raise InvalidTask(_TOO_DEEP)
    if not isinstance(fields, dict):
        raise InvalidTask(f"a row must be a JSON object, got {_kind(fields)}")
    return fields


def _is_too_deep(line: str, value: object) -> bool:
    """Whether some later reader, deeper in its own calls, might not manage `value`."""
    if line.count("[") + line.count("{") <= MAX_NESTING:
        return False
    level = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _parts(outer)]
    return bool(level)


def _parts(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _given_id(fields: dict[str, Any]) -> str | None:
    for name in ("id", "custom_id"):
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise InvalidTask(f"{name!r} must be a text or a whole number, got {_kind(value)}")
        return str(value)
    return None


def _given_prompt(fields: dict[str, Any]) -> Content:
    given = [name for name in ("prompt", "messages") if fields.get(name) is not None]
    if len(given) != 1:
        got = "both" if given else ", ".join(map(repr, fields)) or "no fields"
        raise InvalidTask(f"a row must have a 'prompt' or 'messages', got {got}")
    prompt: Content = fields[given[0]]
    expected = str if given[0] == "prompt" else list
    if not isinstance(prompt, expected):
        kind = "a text" if expected is str else "a list of messages"
        raise InvalidTask(f"{given[0]!r} must be {kind}, got {_kind(prompt)}")
    return prompt


def _checked(row: Row) -> Row | BadRow:
    try:
        check_task(Task(row.prompt, id=row.id, metadata=row.fields))
    except InvalidTask as error:
        return row.refused(str(error))
    return row


def _not_json(line: str, error: msgspec.MsgspecError) -> str:
    reason = str(error).removeprefix("JSON is malformed: ")
    if "\\ud" in line.lower():
        reason += "; a \\ud800 to \\udfff escape must be half of a pair"
    return f"not valid JSON: {reason}"


def _kind(value: object) -> str:
    """What kind of thing came, in JSON's words, without showing what is in it."""
    names = {dict: "an object", list: "an array", bool: "true or false", type(None): "null"}
    if value == "":
        return "an empty text"
    return names.get(type(value), "a text" if isinstance(value, str) else "a number")
