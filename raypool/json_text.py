"""JSON in a text that a model wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

FENCE = re.compile(r"^[ \t]*```(\w*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)


class JsonText(NamedTuple):
    """A JSON value and the text that it was read from."""

    text: str
    value: Any


def json_in(text: str) -> JsonText:
    """The JSON that a text is, has in its only fence, or has as an object amid prose.

    Raises:
        ValueError: there is none, or more than one, or it holds `NaN` or half a character.
    """
    problem: ValueError | None = None
    for candidate in _candidates(text):
        try:
            return JsonText(candidate, from_json(candidate.encode(), allow_inf_nan=False))
        except ValueError as error:
            problem = error
    raise ValueError(str(problem)) from problem


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    fenced = [body for language, body in FENCE.findall(text) if language.lower() in ("", "json")]
    if len(fenced) == 1:
        yield fenced[0].strip()
    if "{" in text and "}" in text:
        yield text[text.find("{") : text.rfind("}") + 1]
