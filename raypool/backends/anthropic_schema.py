"""Which output schemas the Messages API can enforce, and how it wants them written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anthropic import transform_schema


def enforceable(schema: dict[str, Any]) -> dict[str, Any] | None:
    """`schema` as the API takes it; limits that it cannot enforce have become descriptions.

    `None` when an answer that fits could not be told at all: the API knows no objects with
    keys of the answer's own, no values of any type, and no types that contain themselves.
    """
    if _is_recursive(schema) or any(map(_is_open_object, _nodes(schema))):
        return None
    try:
        return transform_schema(schema)
    except ValueError:
        return None


def _is_open_object(node: dict[str, Any]) -> bool:
    return node.get("type") == "object" and node.get("additionalProperties") is not False


def _is_recursive(schema: dict[str, Any]) -> bool:
    definitions = schema.get("$defs", {})
    top = {key: value for key, value in schema.items() if key != "$defs"}

    def meets_again(node: dict[str, Any], above: tuple[str, ...]) -> bool:
        return any(
            name in above or meets_again(definitions[name], (*above, name))
            for name in _references(node)
            if name in definitions
        )

    return meets_again(top, ())


def _references(schema: dict[str, Any]) -> set[str]:
    texts = [node.get("$ref") for node in _nodes(schema)]
    return {text.removeprefix("#/$defs/") for text in texts if isinstance(text, str)}


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a schema, the schema itself included."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)
