"""Rows that are requests for a batch API: OpenAI's (`body`) and Anthropic's (`params`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from raypool.cli.json_lines import kind_of
from raypool.errors import InvalidTask
from raypool.task import Content

_CHAT = ("/chat/completions", "/messages")
_IRRELEVANT = ("metadata", "user", "store", "service_tier")
_MAX_TOKENS = ("max_tokens", "max_completion_tokens")
_REQUEST = ("method", "url", "body", "params", "prompt", "messages")


class RunTerms(NamedTuple):
    """How every row of a run is asked.

    Attributes:
        model: the model that answers; `None` when it has no name.
        system: the system prompt.
        max_tokens: the longest answer.
    """

    model: str | None = None
    system: str | None = None
    max_tokens: int | None = None


def prompt_of_batch_row(fields: dict[str, Any], terms: RunTerms) -> tuple[Content, dict[str, Any]]:
    """The messages that a row asks, and its fields beside the request.

    `model`, `max_tokens` and the system prompt of a row must be those of the run.

    Raises:
        InvalidTask: the row asks for something else; says what to type.
    """
    where = "params" if fields.get("params") is not None else "body"
    request = fields[where]
    if not isinstance(request, dict):
        raise InvalidTask(f"{where!r} must be an object, got {kind_of(request)}")
    _check_address(fields)
    _check_options(where, request, terms)
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise InvalidTask(f"'{where}.messages' must be a list of messages, got {kind_of(messages)}")
    system, rest = _split_system(request.get("system"), messages)
    if system is not None and system != terms.system:
        raise InvalidTask(
            f"the system prompt in {where!r} is not that of the run; give it by --system, and rows "
            "with another in a run of their own"
        )
    return rest, {name: value for name, value in fields.items() if name not in _REQUEST}


def _check_address(fields: dict[str, Any]) -> None:
    url = fields.get("url")
    if url is not None and not (isinstance(url, str) and url.endswith(_CHAT)):
        raise InvalidTask(f"'url' must be that of a chat, as /v1/chat/completions, got {url!r:.80}")


def _check_options(where: str, request: dict[str, Any], terms: RunTerms) -> None:
    for name, value in request.items():
        if name in ("messages", "system", *_IRRELEVANT) or value is None:
            continue
        if name == "model":
            _check_same(f"{where}.{name}", value, terms.model, "--model")
        elif name in _MAX_TOKENS:
            _check_same(f"{where}.{name}", value, terms.max_tokens, "--max-tokens")
        elif not (name == "stream" and value is False) and not (name == "n" and value == 1):
            raise InvalidTask(
                f"'{where}.{name}' has no counterpart here: all rows of a run are asked alike; "
                "take it out of the row"
            )


def _check_same(name: str, value: object, expected: object, option: str) -> None:
    if expected is not None and value != expected:
        raise InvalidTask(
            f"{name!r} is {value!r:.80}, and this run's is {expected!r}; {option} sets it, and "
            "rows with another need a run of their own"
        )


def _split_system(system: Any, messages: list[Any]) -> tuple[str | None, list[Any]]:
    """The system prompt, wherever it is, and the other messages."""
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") in ("system", "developer"):
        return _text_of(first.get("content")), messages[1:]
    return (None if system is None else _text_of(system)), messages


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "".join(texts)
    if not isinstance(content, str):
        raise InvalidTask(f"a system prompt must be a text, got {kind_of(content)}")
    return content
