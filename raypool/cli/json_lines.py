"""Inputs of one record a line: JSON objects, or texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from raypool.cli import records
from raypool.cli.byte_lines import ByteLines, utf8_problem, without_end
from raypool.cli.records import START, Place, Reader, Record
from raypool.errors import InvalidTask

MAX_NESTING = 100
_TOO_DEEP = f"nested more than {MAX_NESTING} levels deep"


class LineReader(Reader):
    """Records that are lines; blank lines are none."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = ByteLines(stream, records.MAX_RECORD_BYTES)

    @property
    def columns(self) -> list[str] | None:
        return None

    @property
    def place(self) -> Place:
        return self._lines.place

    @property
    def amount(self) -> int:
        return self._lines.place.offset

    def records(self, start: Place = START) -> Iterator[Record]:
        self._lines.start_at(start)
        for line in self._lines:
            number = self._lines.place.line
            if line is None:
                yield Record(number, {}, f"longer than {records.MAX_RECORD_BYTES:,} bytes")
            elif not line.isspace() and (text := without_end(line)):
                yield self._record(number, text)

    def close(self) -> None:
        self._lines.close()

    def _record(self, number: int, line: bytes) -> Record:
        try:
            return Record(number, self._fields(line.decode()))
        except UnicodeDecodeError as error:
            return Record(number, {}, utf8_problem(error))
        except InvalidTask as error:
            return Record(number, {}, str(error))

    def _fields(self, line: str) -> dict[str, Any]:
        raise NotImplementedError


class TextLines(LineReader):
    """Each line is a prompt."""

    @property
    def columns(self) -> list[str]:
        return ["prompt"]

    def _fields(self, line: str) -> dict[str, Any]:
        return {"prompt": line}


class JsonLines(LineReader):
    """Each line is a JSON object."""

    def _fields(self, line: str) -> dict[str, Any]:
        try:
            fields = msgspec.json.decode(line)
        except msgspec.MsgspecError as error:
            raise InvalidTask(_not_json(line, error)) from None
        except RecursionError:
            raise InvalidTask(_TOO_DEEP) from None
        if _is_too_deep(line, fields):
            raise InvalidTask(_TOO_DEEP)
        if not isinstance(fields, dict):
            raise InvalidTask(f"a row must be a JSON object, got {kind_of(fields)}")
        return fields


def kind_of(value: object) -> str:
    """What kind of thing came, in JSON's words, without showing what is in it."""
    names = {dict: "an object", list: "an array", bool: "true or false", type(None): "null"}
    if value == "":
        return "an empty text"
    return names.get(type(value), "a text" if isinstance(value, str) else "a number")


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


def _not_json(line: str, error: msgspec.MsgspecError) -> str:
    reason = str(error).removeprefix("JSON is malformed: ")
    if "\\ud" in line.lower():
        reason += "; a \\ud800 to \\udfff escape must be half of a pair"
    return f"not valid JSON: {reason}"
