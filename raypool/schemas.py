"""The JSON schemas that a model is given, and what does not fit them, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, core_schema

Place: TypeAlias = Iterable[str | int]
"""Where in a JSON value: the keys and indices that lead there."""

MOST_PROBLEMS = 10
LONGEST_PROBLEM = 300


class _SchemaForModels(GenerateJsonSchema):
    """Objects take no more than their properties; a property's title would repeat its name."""

    # A default that JSON cannot hold is left out: only the function or class needs it.
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012 - as the base has it
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        default = super().encode_default(dft)
        try:
            json.dumps(default, allow_nan=False)
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error
        return default

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        return _closed(super().typed_dict_schema(schema))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The JSON schema of what `adapter` validates.

    Objects that do not allow additional properties themselves have
    `additionalProperties: false`, as providers demand.

    Raises:
        pydantic.errors.PydanticInvalidForJsonSchema: the type has values that JSON cannot hold.
    """
    return adapter.json_schema(schema_generator=_SchemaForModels)


def problems_of(error: ValidationError, *, below: int = 0) -> str:
    """What does not fit, for a model to read: place and message; never the value itself.

    Places are told from `below` steps inside what was validated.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return listed((detail["loc"][below:], detail["msg"]) for detail in details)


def listed(problems: Iterable[tuple[Place, str]]) -> str:
    """Problems as lines of `- place: message`, bounded in number and in length."""
    lines = [_line(place, message) for place, message in islice(problems, MOST_PROBLEMS + 1)]
    if len(lines) > MOST_PROBLEMS:
        lines[MOST_PROBLEMS:] = ["- …"]
    return "\n".join(lines)


def _line(place: Place, message: str) -> str:
    where = ".".join(map(str, place))
    line = f"- {where}: {message}" if where else f"- {message}"
    return line if len(line) <= LONGEST_PROBLEM else line[: LONGEST_PROBLEM - 1] + "…"
