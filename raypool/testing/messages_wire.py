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
        content: a text, or the content blocks themselves. A tool call whose `input` is a text
            is streamed as it stands: JSON that was cut off, or is broken.
        stop_reason: why the model stopped; `None` means `tool_use` when it asks for tools by
            `tool_use`, else `end_turn`.
        usage: tokens spent; `None` counts each word of the request and of the answer as one.
        model: the model that answers; `None` means the one that was asked for.
        tool_use: the tools that it asks for after its content, by name and input; each call
            gets an id of its own.
    """

    content: str | Sequence[Block] = ""
    stop_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    tool_use: Sequence[tuple[str, Mapping[str, Any]]] = ()

    @property
    def reason(self) -> str:
        """Why the model stopped."""
        return self.stop_reason or ("tool_use" if self.tool_use else "end_turn")

    def blocks(self, call: Call) -> list[Block]:
        """The content as blocks, in the answer to `call`."""
        blocks = blocks_of(self.content) if self.content or not self.tool_use else []
        for place, (name, arguments) in enumerate(self.tool_use, start=1):
            call_id = f"toolu_{call.number}_{place}"
            blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": arguments})
        return blocks

    def counted(self, call: Call, asked: Usage) -> Answer:
        """This answer with its usage, where the request is `asked`."""
        if self.usage is not None:
            return self
        words = sum(words_in(block) for block in self.blocks(call))
        return msgspec.structs.replace(self, usage=asked + Usage(output_tokens=words))


def blocks_of(content: str | Sequence[Block]) -> list[Block]:
    """A message's content as blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(content: str | Sequence[Block]) -> str:
    """The text in a message's content, that of tool results included."""
    texts = [_text_of_block(block) for block in blocks_of(content)]
    return "\n".join(text for text in texts if text is not None)


def _text_of_block(block: Block) -> str | None:
    if block.get("type") == "tool_result":
        return text_of(block.get("content", ""))
    return block.get("text")


def words_in(block: Block) -> int:
    """The tokens of a block, where a word is a token; pictures, calls and tools have none."""
    return len((_text_of_block(block) or "").split())


def count_words(body: Mapping[str, Any]) -> int:
    """The tokens of a request, where a word is a token."""
    contents = [body.get("system") or "", *(one["content"] for one in body.get("messages", []))]
    return sum(words_in(block) for content in contents for block in blocks_of(content))


def json_answer(call: Call, answer: Answer) -> list[bytes]:
    """The answer as one JSON body, in two halves."""
    message = _message(call, answer) | {
        "content": answer.blocks(call),
        "stop_reason": answer.reason,
        "usage": _usage(answer.usage or Usage()),
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
    spent = answer.usage or Usage()
    begun = msgspec.structs.replace(spent, output_tokens=1)
    yield {"type": "message_start", "message": _message(call, answer) | {"usage": _usage(begun)}}
    for index, block in enumerate(answer.blocks(call)):
        start, deltas = _opened(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": answer.reason, "stop_sequence": None},
        "usage": {"output_tokens": spent.output_tokens},
    }
    yield {"type": "message_stop"}


def _opened(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """A block as a stream starts it, and the deltas that complete it."""
    kind = block["type"]
    if kind == "text":
        pieces = _WORDS.findall(block["text"])
        return {"type": kind, "text": ""}, [{"type": "text_delta", "text": p} for p in pieces]
    if kind.endswith("tool_use"):
        given = block["input"]
        text = given if isinstance(given, str) else json.dumps(given)
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


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }
