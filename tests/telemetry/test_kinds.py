"""The list of events: whole, and without anything that is nobody's business."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

import raypool
from raypool.telemetry import EVENTS, FIELDS, EventName
from raypool.telemetry.kinds import Unit

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(raypool.__file__).parent
EMIT = "emit"
ABOUT = {"worker", "role", "task"}


class Emitted(NamedTuple):
    """A call in the source that tells of an event, or of one of several."""

    where: str
    names: set[str]
    fields: set[str]


def emitted() -> Iterator[Emitted]:
    """Every `….emit("name", field=…)` of the package whose name is written there."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_emit(node):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg} - ABOUT
                names = set(_texts(node.args[0]))
                yield Emitted(f"{path.name}:{node.lineno}", names, fields)


def _is_emit(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == EMIT and bool(call.args)


def _texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def table() -> str:
    """The list as README shows it."""
    events = [
        f"| `{name}` | {kind.meaning} | {', '.join(f'`{field}`' for field in kind.fields)} |"
        for name, kind in EVENTS.items()
    ]
    fields = [f"| `{name}` | {one.unit} | {one.meaning} |" for name, one in FIELDS.items()]
    return "\n".join(
        [
            "| event | what has happened | fields |",
            "| --- | --- | --- |",
            *events,
            "",
            "| field | unit | meaning |",
            "| --- | --- | --- |",
            *fields,
        ]
    )


def test_every_name_has_its_kind() -> None:
    assert tuple(EVENTS) == get_args(EventName)


def test_every_field_has_its_meaning_and_every_meaning_a_field() -> None:
    assert {field for kind in EVENTS.values() for field in kind.fields} == set(FIELDS)


def test_fields_are_listed_by_name() -> None:
    assert list(FIELDS) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_field_is_a_count_a_duration_money_a_name_or_a_reason(name: str) -> None:
    assert FIELDS[name].unit in get_args(Unit)


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_is_called_what_holds_content_or_keys(name: str) -> None:
    words = {"prompt", "text", "content", "message", "input", "output", "answer", "key", "metadata"}

    assert name not in words
    assert FIELDS[name].unit == "count" or not words & set(name.split("_"))


@pytest.mark.parametrize(
    ("ending", "unit"), [("_ms", "ms"), ("_seconds", "seconds"), ("_usd", "USD")]
)
def test_field_with_a_unit_in_its_name_has_that_unit(ending: str, unit: str) -> None:
    named = {name for name in FIELDS if name.endswith(ending)}

    assert named == {name for name, field in FIELDS.items() if field.unit == unit}


def test_readme_lists_every_event_and_field() -> None:
    assert table() in (ROOT / "README.md").read_text(), f"README must have:\n{table()}"


def test_what_the_package_tells_is_on_the_list() -> None:
    kinds = {str(name): set(kind.fields) for name, kind in EVENTS.items()}

    told = [one for one in emitted() if one.names]

    assert [one for one in told if not one.names <= set(kinds)] == []
    assert [
        one
        for one in told
        if not one.fields <= {field for name in one.names for field in kinds[name]}
    ] == []
