"""The JSON schemas of what a session was opened with; pydantic is loaded where there are any."""

from __future__ import annotations

from typing import Any

from raypool.agent import SessionOptions


def tool_schemas(options: SessionOptions) -> list[dict[str, Any]]:
    """What the model is told of each tool: `name`, `description`, `input_schema`."""
    if not options.tools:
        return []
    from raypool.tools import tool_schema  # noqa: PLC0415 - pydantic takes a tenth of a second

    return [tool_schema(function) for function in options.tools]


def answer_schema(options: SessionOptions) -> dict[str, Any] | None:
    """What every answer must be; `None` means text."""
    if options.output_type is None:
        return None
    from raypool.output_type import output_schema  # noqa: PLC0415 - as above

    return output_schema(options)
