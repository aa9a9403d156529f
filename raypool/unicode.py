"""Texts that are not Unicode, which no file and no message can hold, made into ones that are.

Surrogate pairs are joined, and lone surrogates become U+FFFD.
"""

from __future__ import annotations

from typing import Any


def is_unicode(value: object) -> bool:
    """Whether a value is a text, and Unicode."""
    return isinstance(value, str) and unicode_text(value) == value


def unicode_text(text: str) -> str:
    """`text` as Unicode; one that is already comes back as it is."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def unicode_value(value: Any) -> Any:
    """What JSON can hold, with every text in it as Unicode, keys included."""
    if isinstance(value, str):
        return unicode_text(value)
    if isinstance(value, (list, tuple)):
        return [unicode_value(item) for item in value]
    if isinstance(value, dict):
        return {unicode_value(key): unicode_value(item) for key, item in value.items()}
    return value
