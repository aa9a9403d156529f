"""The Messages API on the wire: requests as they come, answers as JSON or as events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from raypool.usage import Usage

Block: TypeAlias = Mapping[str, Any]

_WORDS = re.compile(r"\s*\S+|\s+")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request to `/v1/messages`, as it came.

    Attributes:
        number: its place in the order of arrival, from 1.
        headers: by their names in lower case.
        body: the request's JSON.
    """

    number: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return text_of(self.body["messages"][-1]["content"])

    @property
    def conversation(self) -> str:
        """The text of all messages, one a line."""
        return "\n".join(text_of(message["content"]) for message in self.body["messages"])


class Answer(msgspec.Struct, frozen=True):
    """What the model says to one request.

    Attributes:
        content: a text, or the content blocks themselves.
        stop_reason: why the model stopped.
        usage: tokens spent; `None` counts each word of the request and of the answer as one.
        model: the model that answers; `None` means the one that was asked for.
    """

    content: str | Sequence[Block]
    stop_reason: str = "end_turn"
    usage: Usage | None = None
    model: str | None = None

    @property
    def blocks(self) -> list[Block]:
        """The content as blocks."""
        if isinstance(self.content, str):
            return [{"type": "text", "text": self.content}]
        return list(self.content)


def text_of(content: str | Sequence[Block]) -> str:
    """The text in a message's content."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def count_words(body: Mapping[str, Any]) -> int:
    """The tokens of a request, where a word is a token."""
    messages = body.get("messages", [])
    texts = [
        text_of(body.get("system") or ""),
        *(text_of(message["content"]) for message in messages),
    ]
    return sum(len(text.split()) for text in texts)


def json_answer(call: Call, answer: Answer) -> list[bytes]:
    """The answer as one JSON body, in two halves."""
    message = _message(call, answer) | {
        "content": answer.blocks,
        "stop_reason": answer.stop_reason,
        "usage": _usage(_spent(call, answer)),
    }
    body = json.dumps(message).encode()
    return [body[: len(body) // 2], body[len(body) // 2 :]]


def event_stream(call: Call, answer: Answer) -> list[bytes]:
    """The answer as server-sent events, one a chunk."""
    return [encode_event(event) for event in _events(call, answer)]


def encode_event(event: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def error_body(
    kind: str, message: str, *, error_code: str | None = None, request_id: str | None = None
) -> dict[str, Any]:
    """An error as the API words it, for a JSON body and for an `error` event."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if error_code is not None:
        error["details"] = {"error_code": error_code}
    return {"type": "error", "error": error, "request_id": request_id}


def _message(call: Call, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or call.body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _events(call: Call, answer: Answer) -> Iterator[dict[str, Any]]:
    spent = _spent(call, answer)
    begun = msgspec.structs.replace(spent, output_tokens=1)
    yield {"type": "message_start", "message": _message(call, answer) | {"usage": _usage(begun)}}
    for index, block in enumerate(answer.blocks):
        start, deltas = _opened(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": answer.stop_reason, "stop_sequence": None},
        "usage": {"output_tokens": spent.output_tokens},
    }
    yield {"type": "message_stop"}


def _opened(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """A block as a stream starts it, and the deltas that complete it."""
    kind = block["type"]
    if kind == "text":
        pieces = _WORDS.findall(block["text"])
        return {"type": kind, "text": ""}, [{"type": "text_delta", "text": p} for p in pieces]
    if kind == "tool_use":
        text = json.dumps(block["input"])
        pieces = [text[: len(text) // 2], text[len(text) // 2 :]]
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces]
        return {**block, "input": {}}, deltas
    if kind == "thinking":
        deltas = [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
        return {"type": kind, "thinking": "", "signature": ""}, deltas
    return block, []


def _spent(call: Call, answer: Answer) -> Usage:
    if answer.usage is not None:
        return answer.usage
    return Usage(count_words(call.body), len(text_of(answer.blocks).split()))


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }
