"""What a session asks of a Messages API server: the fields of its requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raypool.agent import SessionOptions
from raypool.backends.anthropic_schema import enforceable
from raypool.backends.dialogue import Message
from raypool.backends.session_schemas import answer_schema, tool_schemas

CACHED = {"cache_control": {"type": "ephemeral"}}


class RequestFields:
    """The requests of one session; all but the messages stays as it is.

    With `cache_prompts`, the server is asked to keep what comes again: tools and system
    prompt, with which all tasks of a pool begin, and the conversation once it goes on.

    The API enforces the schema of an answer; one that it cannot, the system prompt asks for.

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
        }
        system = options.system
        if (schema := answer_schema(options)) is not None:
            if (format_schema := enforceable(schema)) is not None:
                output_format = {"type": "json_schema", "schema": format_schema}
                self._fixed["output_config"] = {"format": output_format}
            else:
                system = _asking_for(schema, system)
        self._fixed |= _prefix(tool_schemas(options), system, cache_prompts=cache_prompts)
        if extra_body:
            self._fixed["extra_body"] = dict(extra_body)

    def request(self, messages: list[Message], *, goes_on: bool) -> dict[str, Any]:
        """The request that sends `messages`; `goes_on` when it is not the conversation's first."""
        mark = self._conversation_mark if goes_on else {}
        return {**self._fixed, **mark, "messages": messages}


def _asking_for(schema: dict[str, Any], system: str | None) -> str:
    wanted = "Answer with nothing but JSON that fits this JSON schema:\n" + json.dumps(schema)
    return f"{system}\n\n{wanted}" if system else wanted


def _prefix(
    tools: list[dict[str, Any]], system: str | None, *, cache_prompts: bool
) -> dict[str, Any]:
    """Tools and system prompt, the last of which is marked: the mark holds for all before it."""
    if cache_prompts and tools and not system:
        tools[-1] |= CACHED
    prefix: dict[str, Any] = {"tools": tools} if tools else {}
    if system:
        marked = [{"type": "text", "text": system, **CACHED}]
        prefix["system"] = marked if cache_prompts else system
    return prefix
