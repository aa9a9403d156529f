"""What the Messages API refuses in a request, in its words as far as they are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from raypool.testing.messages_wire import Block, blocks_of

Body: TypeAlias = Mapping[str, Any]

FIELDS = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "system",
        "stream",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
        "metadata",
        "service_tier",
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "speed",
        "user_profile_id",
        "workspace_id",
    ]
)
ROLES = ("user", "assistant")
THOUGHTS = ("thinking", "redacted_thinking")
MOST_CACHE_MARKS = 4
NOT_ENFORCED = ("minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems")


def objection(body: Body) -> str | None:
    """Why the API answers `body` with a 400; `None` when it takes it."""
    for find in (_unknown_field, _system, _messages, _tools, _tool_results, _marks, _output_config):
        if (found := find(body)) is not None:
            return found
    return None


def _unknown_field(body: Body) -> str | None:
    unknown = sorted(body.keys() - FIELDS)
    return f"{unknown[0]}: Extra inputs are not permitted" if unknown else None


def _system(body: Body) -> str | None:
    for block in blocks_of(body.get("system") or []):
        if block.get("type") != "text" or not block.get("text"):
            return "system: text content blocks must be non-empty"
    return None


def _messages(body: Body) -> str | None:
    messages = body.get("messages", [])
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    for place, message in enumerate(messages):
        if (found := _message(message)) is not None:
            return f"messages.{place}{found}"
    if messages and messages[0]["role"] != "user":
        return 'messages: first message must use the "user" role'
    return None


def _message(message: Any) -> str | None:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        return ".role: Input should be 'user' or 'assistant'"
    blocks = blocks_of(message.get("content") or [])
    if not blocks:
        return ": all messages must have non-empty content"
    if any(map(_is_empty_text, blocks)):
        return ": text content blocks must be non-empty"
    if message["role"] == "assistant" and blocks[-1]["type"] in THOUGHTS:
        return ": The final block in an assistant message cannot be `thinking`"
    return None


def _is_empty_text(block: Block) -> bool:
    return block.get("type") == "text" and not block.get("text")


def _tools(body: Body) -> str | None:
    names = []
    for place, tool in enumerate(body.get("tools", [])):
        schema = tool.get("input_schema", {"type": "object"} if "type" in tool else {})
        if schema.get("type") != "object":
            return f"tools.{place}.custom.input_schema.type: Field required"
        names.append(tool.get("name"))
    if not all(names) or len(set(names)) < len(names):
        return "tools: Tool names must be unique."
    return None


def _tool_results(body: Body) -> str | None:
    """Each call has its result in the message after it, and each result its call before it."""
    open_calls: list[str] = []
    for place, message in enumerate(body.get("messages", [])):
        blocks = blocks_of(message["content"])
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if unexpected := [one for one in results if one not in open_calls]:
            return (
                f"messages.{place}.content.0: unexpected `tool_use_id` found in `tool_result` "
                f"blocks: {unexpected[0]}. Each `tool_result` block must have a corresponding "
                "`tool_use` block in the previous message."
            )
        if missing := [one for one in open_calls if one not in results]:
            return (
                f"messages.{place - 1}: `tool_use` ids were found without `tool_result` blocks "
                f"immediately after: {', '.join(missing)}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(open_calls)) < len(open_calls):
            return f"messages.{place}: `tool_use` ids must be unique"
    if open_calls:
        return f"messages: `tool_use` ids were found without `tool_result` blocks: {open_calls[0]}"
    return None


def _marks(body: Body) -> str | None:
    parts = [body, *body.get("tools", []), *blocks_of(body.get("system") or [])]
    for message in body.get("messages", []):
        parts += blocks_of(message["content"])
    marks = sum("cache_control" in part for part in parts)
    if marks > MOST_CACHE_MARKS:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {marks}."
    return None


def _output_config(body: Body) -> str | None:
    output_format = body.get("output_config", {}).get("format")
    if output_format is None:
        return None
    where = "output_config.format"
    if output_format.get("type") != "json_schema" or not output_format.get("schema"):
        return f"{where}.schema: Field required"
    for node in _nodes(output_format["schema"]):
        kind = node.get("type")
        if kind == "object" and node.get("additionalProperties") is not False:
            return (
                f"{where}.schema: For 'object' type, 'additionalProperties' must be explicitly "
                "set to false"
            )
        if isinstance(kind, str) and (found := [name for name in NOT_ENFORCED if name in node]):
            return f"{where}.schema: For '{kind}' type, property '{found[0]}' is not supported"
    return None


def _nodes(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _nodes(inner)
