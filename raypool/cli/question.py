"""What a row asks: its own prompt, one of its columns, a template, or what a function makes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from raypool.cli.batch_form import RunTerms, prompt_of_batch_row
from raypool.cli.json_lines import kind_of
from raypool.cli.problem import Problem
from raypool.errors import InvalidTask
from raypool.task import Content


class Asked(NamedTuple):
    """What is asked of a row.

    Attributes:
        prompt: the prompt.
        fields: what the row has beside it.
    """

    prompt: Content
    fields: dict[str, Any]


class Question(Protocol):
    """Makes prompts of rows."""

    def of(self, fields: dict[str, Any]) -> Asked | None:
        """What a row asks; `None` when it is to be left out.

        Raises:
            InvalidTask: nothing can be asked; says why.
        """

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        """Refuse the input `name`, all of whose rows have `columns`, if none could be asked.

        Raises:
            Problem: says which column is missing.
        """

    def settings(self) -> dict[str, Any]:
        """What prompts depend on; a text is represented by its digest."""


class OwnPrompt(Question):
    """A row has its `prompt`, its `messages`, or a request in the form of a batch API."""

    def __init__(self, terms: RunTerms) -> None:
        self._terms = terms

    def of(self, fields: dict[str, Any]) -> Asked:
        given = [name for name in ("prompt", "messages") if fields.get(name) is not None]
        if not given and ("body" in fields or "params" in fields):
            return Asked(*prompt_of_batch_row(fields, self._terms))
        if len(given) != 1:
            got = "both" if given else ", ".join(map(repr, fields)) or "no fields"
            raise InvalidTask(f"a row must have a 'prompt' or 'messages', got {got}")
        prompt = fields[given[0]]
        expected = str if given[0] == "prompt" else list
        if not isinstance(prompt, expected):
            kind = "a text" if expected is str else "a list of messages"
            raise InvalidTask(f"{given[0]!r} must be {kind}, got {kind_of(prompt)}")
        others = {name: fields[name] for name in fields if name not in ("prompt", "messages")}
        return Asked(prompt, others)

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        if not {"prompt", "messages"}.intersection(columns):
            raise Problem(
                f"{name} has no column 'prompt', it has {_listed(columns)}; name the column with "
                "the prompts by --prompt-column, or make prompts of several by --template"
            )

    def settings(self) -> dict[str, Any]:
        return {}


class ColumnPrompt(Question):
    """A row has its prompt in a column."""

    def __init__(self, column: str) -> None:
        self._column = column

    def of(self, fields: dict[str, Any]) -> Asked:
        if self._column not in fields:
            raise InvalidTask(no_column(self._column, fields))
        prompt = fields[self._column]
        if not isinstance(prompt, str | list):
            raise InvalidTask(f"{self._column!r} must be a text, got {kind_of(prompt)}")
        return Asked(prompt, fields)

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        if self._column not in columns:
            raise Problem(f"{name} has {no_column(self._column, columns)}")

    def settings(self) -> dict[str, Any]:
        return {"prompt_column": self._column}


def no_column(name: str, columns: Sequence[str] | dict[str, Any]) -> str:
    """`no column 'titel'; it has 'title', 'body'`."""
    return f"no column {name!r}; it has {_listed(columns)}"


def digest_of(text: str) -> str:
    """Stands for a text where the text itself must not be."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _listed(columns: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(map(repr, columns)) or "none"
