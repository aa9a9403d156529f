"""What a session asks of a Messages API server: the fields of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypool.agent import SessionOptions
from raypool.backends.dialogue import Message
from raypool.backends.session_schemas import answer_schema, tool_schemas

CACHED = {"cache_control": {"type": "ephemeral"}}


class RequestFields:
    """The requests of one session; all but the messages stays as it is.

    With `cache_prompts`, the server is asked to keep what comes again: tools and system
    prompt, with which all tasks of a pool begin, and the conversation once it goes on.

    Args:
        model: the model's name.
        options: how the session was opened.
        extra_body: fields that the user adds, or wants in the place of these.
        cache_prompts: whether requests have `cache_control`.
    """

    def __init__(
        self,
        model: str,
        options: SessionOptions,
        *,
        extra_body: Mapping[str, Any],
        cache_prompts: bool,
    ) -> None:
        self._conversation_mark = CACHED if cache_prompts else {}
        self._fixed: dict[str, Any] = {
            "model": model,
            "max_tokens": options.max_tokens,
            "stream": True,
            **_prefix(options, cache_prompts=cache_prompts),
        }
        if (schema := answer_schema(options)) is not None:
            self._fixed["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if extra_body:
            self._fixed["extra_body"] = dict(extra_body)

    def request(self, messages: list[Message], *, goes_on: bool) -> dict[str, Any]:
        """The request that sends `messages`; `goes_on` when it is not the conversation's first."""
        mark = self._conversation_mark if goes_on else {}
        return {**self._fixed, **mark, "messages": messages}


def _prefix(options: SessionOptions, *, cache_prompts: bool) -> dict[str, Any]:
    """Tools and system prompt, the last of which is marked: the mark holds for all before it."""
    prefix: dict[str, Any] = {}
    if tools := tool_schemas(options):
        prefix["tools"] = tools
    if options.system:
        prefix["system"] = options.system
    if cache_prompts and options.system:
        prefix["system"] = [{"type": "text", "text": options.system, **CACHED}]
    elif cache_prompts and tools:
        tools[-1] |= CACHED
    return prefix
