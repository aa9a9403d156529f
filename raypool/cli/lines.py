"""What a line of the output looks like.

An answered row has `id`, what was asked (`prompt` or `messages`), its other
fields, and then `text, worker, model, stop_reason, usage, cost_usd,
duration_ms, attempts`. A failed one ends in `worker, duration_ms, attempts,
error`, a bad one in `error` alone. A field of the row that has one of these
names is kept as `input_<name>`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.cli.rows import BadRow
from raypool.errors import Cause
from raypool.response import TaskResult
from raypool.task import Content

RESERVED = (
    "text",
    "worker",
    "model",
    "stop_reason",
    "usage",
    "cost_usd",
    "duration_ms",
    "attempts",
    "error",
)
BAD_ROW = "BadRow"
"""The `error.type` of a row that could not be asked."""


def result_line(result: TaskResult) -> bytes:
    """The line of a row that was asked; its task's metadata are the row's fields."""
    fields = result.metadata
    line = {**_identity(fields, result.id), **_asked(result.prompt), **_kept(fields)}
    line |= _answer(result) if result.state == "completed" else _failure(result)
    return msgspec.json.encode(line) + b"\n"


def bad_row_line(row: BadRow) -> bytes:
    """The line of a row that could not be asked."""
    line = {**_identity(row.fields, row.id), **_kept(row.fields)}
    line["error"] = {"type": BAD_ROW, "message": f"line {row.line}: {row.reason}"}
    return msgspec.json.encode(line) + b"\n"


def _identity(fields: dict[str, Any], row_id: str | None) -> dict[str, Any]:
    given = fields.get("id")
    return {"id": row_id if given is None else given}


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {_free_name(name, fields): fields[name] for name in fields if name != "id"}


def _free_name(name: str, fields: dict[str, Any]) -> str:
    """`name`, unless the output has a field of that name."""
    if name not in RESERVED:
        return name
    free = f"input_{name}"
    while free in fields:
        free = f"input_{free}"
    return free


def _asked(prompt: Content) -> dict[str, Content]:
    return {"prompt" if isinstance(prompt, str) else "messages": prompt}


def _answer(result: TaskResult) -> dict[str, Any]:
    usage = result.usage
    return {
        "text": result.text,
        "worker": result.worker,
        "model": result.model,
        "stop_reason": result.stop_reason,
        "usage": {name: getattr(usage, name) for name in usage.__struct_fields__},
        "cost_usd": result.cost_usd,
        "duration_ms": result.duration_ms,
        "attempts": result.attempts,
    }


def _failure(result: TaskResult) -> dict[str, Any]:
    cause = result.error or Cause("TaskCancelled", "the task was cancelled")
    return {
        "worker": result.worker,
        "duration_ms": result.duration_ms,
        "attempts": result.attempts,
        "error": {"type": cause.type, "message": cause.message},
    }
