"""`--template "Summarise: {title}"`: a prompt made of a row's columns, and nothing evaluated."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from raypool.cli.json_lines import kind_of
from raypool.cli.problem import Problem
from raypool.cli.question import Asked, Question, digest_of, no_column
from raypool.errors import InvalidTask

_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
_MISSING = object()


class Template(Question):
    """Text with `{column}` in it, `{{` and `}}` for braces; `{author.name}` reads within objects.

    Texts go in as they are, all else as JSON.

    Raises:
        click.UsageError: it has something else in braces, or no column.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._parts = _parsed(text)
        self._columns = list(dict.fromkeys(name for _, name in self._parts if name is not None))
        if not self._columns:
            raise click.UsageError(
                "--template names no column: all rows would ask the same; write {column} where "
                "the text of a column goes"
            )

    def of(self, fields: dict[str, Any]) -> Asked:
        return Asked("".join(self._pieces(fields)), fields)

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        for column in self._columns:
            if column not in columns and column.partition(".")[0] not in columns:
                raise Problem(f"--template: {name} has {no_column(column, columns)}")

    def settings(self) -> dict[str, Any]:
        return {"template": digest_of(self._text)}

    def _pieces(self, fields: dict[str, Any]) -> list[str]:
        pieces = []
        for text, name in self._parts:
            pieces.append(text)
            if name is not None:
                pieces.append(_shown(name, _value(name, fields)))
        return pieces


def with_escapes(text: str) -> str:
    r"""A text of the command line, where `\n` and `\t` are what they are in most languages."""
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPES[found[0]], text)


def _parsed(text: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise click.UsageError(f"--template: {error}; write {{{{ or }}}} for a brace") from error
    for _, name, form, conversion in parts:
        if name is not None and (not name.strip() or form or conversion or set(name) & set("[]")):
            written = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise click.UsageError(
                f"--template: {{{written}}} is no column; only {{column}} and {{object.field}} are "
                "filled in, and a brace is written {{ or }}"
            )
    return [(literal, name) for literal, name, _, _ in parts]


def _value(name: str, fields: dict[str, Any]) -> Any:
    """The column of that name, else what its parts lead to."""
    if name in fields:
        return fields[name]
    found: Any = fields
    for part in name.split("."):
        found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
    if found is _MISSING:
        raise InvalidTask(no_column(name, fields))
    return found


def _shown(name: str, value: Any) -> str:
    if value is None:
        raise InvalidTask(f"column {name!r} is {kind_of(value)}")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
