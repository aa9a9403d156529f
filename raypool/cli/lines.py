"""What a line of the output looks like.

An answered row has `id`, what was asked (`prompt` or `messages`), its other
fields, and then `text, worker, model, stop_reason, usage, cost_usd,
duration_ms, attempts`, and `parsed` when a type was asked for. A failed one
ends in `worker, duration_ms, attempts, error`, a bad one in `error` alone. A
field of the row that has one of these names is kept as `input_<name>`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec
from pydantic_core import to_jsonable_python

from raypool.cli.rows import BadRow, asked_name
from raypool.errors import Cause
from raypool.response import TaskResult

RESERVED = (
    "text",
    "parsed",
    "worker",
    "model",
    "stop_reason",
    "usage",
    "cost_usd",
    "duration_ms",
    "attempts",
    "error",
)
ASKED = ("prompt", "messages")
BAD_ROW = "BadRow"
"""The `error.type` of a row that could not be asked."""

_PREFIX = "input_"


def result_line(result: TaskResult) -> bytes:
    """The line of a row that was asked; its task's metadata are the row's fields."""
    fields = result.metadata
    asked = asked_name(result.prompt)
    line = {**_identity(fields, result.id), asked: result.prompt}
    line |= _kept(fields, (*RESERVED, asked))
    line |= _answer(result) if result.state == "completed" else _failure(result)
    return msgspec.json.encode(line) + b"\n"


def bad_row_line(row: BadRow) -> bytes:
    """The line of a row that could not be asked."""
    line = {**_identity(row.fields, row.id), **_kept(row.fields, RESERVED)}
    line["error"] = {"type": BAD_ROW, "message": row.message}
    return msgspec.json.encode(line) + b"\n"


def input_line(line: bytes, *, is_rendered: bool) -> bytes:
    """The row that a line of the output with an error came from, and its `error`.

    `is_rendered` says that the run makes its prompts of the rows' fields: then what was asked is
    left out, and the same command makes it again.
    """
    written: dict[str, Any] = msgspec.json.decode(line)
    error = written.pop("error")
    for name in RESERVED:
        written.pop(name, None)
    if is_rendered and error.get("type") != BAD_ROW:
        for name in ASKED:
            if name in written:
                del written[name]
                break
    row = {_original_name(name, written): value for name, value in written.items()}
    return msgspec.json.encode(row | {"error": error}) + b"\n"


def _identity(fields: dict[str, Any], row_id: str | None) -> dict[str, Any]:
    given = fields.get("id")
    return {"id": row_id if given is None or given == "" else given}


def _kept(fields: dict[str, Any], reserved: Container[str]) -> dict[str, Any]:
    return {_free_name(name, fields, reserved): fields[name] for name in fields if name != "id"}


def _free_name(name: str, fields: dict[str, Any], reserved: Container[str]) -> str:
    """`name`, unless the output has a field of that name."""
    if name not in reserved:
        return name
    free = f"{_PREFIX}{name}"
    while free in fields:
        free = f"{_PREFIX}{free}"
    return free


def _original_name(name: str, written: dict[str, Any]) -> str:
    """The name that a field had before the output needed it."""
    bare = name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    is_longest = f"{_PREFIX}{name}" not in written
    return bare if bare != name and bare in (*RESERVED, *ASKED) and is_longest else name


def _answer(result: TaskResult) -> dict[str, Any]:
    usage = result.usage
    answer = {
        "text": result.text,
        "worker": result.worker,
        "model": result.model,
        "stop_reason": result.stop_reason,
        "usage": {name: getattr(usage, name) for name in usage.__struct_fields__},
        "cost_usd": result.cost_usd,
        "duration_ms": result.duration_ms,
        "attempts": result.attempts,
    }
    if result.parsed is not None:
        answer["parsed"] = to_jsonable_python(result.parsed)
    return answer


def _failure(result: TaskResult) -> dict[str, Any]:
    cause = result.error or Cause("TaskCancelled", "the task was cancelled")
    return {
        "worker": result.worker,
        "duration_ms": result.duration_ms,
        "attempts": result.attempts,
        "error": {"type": cause.type, "message": cause.message},
    }
