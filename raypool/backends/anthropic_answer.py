"""The answer of a Messages API server, put together from the events of its stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from raypool.backends.anthropic_errors import UnusableAnswer
from raypool.events import Event, TextEvent, ToolUseEvent
from raypool.usage import Usage

if TYPE_CHECKING:
    from anthropic.types import (
        RawContentBlockDeltaEvent,
        RawContentBlockStartEvent,
        RawContentBlockStopEvent,
        RawMessageStreamEvent,
    )

USAGE_FIELDS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}


class Answer:
    """What has come of an answer so far.

    Attributes:
        model: the model that answers, as the server names it.
        stop_reason: why it stopped; `None` while it has not.
        is_complete: whether the server has said that this is all.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self.stop_reason: str | None = None
        self.is_complete = False
        self._counts: dict[str, int] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        return Usage(**self._counts)

    def take(self, event: RawMessageStreamEvent) -> Event | None:
        """Add an event of the stream; returns what there is to pass on.

        Raises:
            UnusableAnswer: the answer has ended, and says nothing.
        """
        match event.type:
            case "content_block_delta":
                return self._extend_block(event)
            case "content_block_start":
                return self._start_block(event)
            case "content_block_stop":
                return self._finish_block(event)
            case "message_start":
                self.model = event.message.model
                self._count(event.message.usage)
            case "message_delta":
                self.stop_reason = event.delta.stop_reason
                self._count(event.usage)
            case "message_stop":
                self._complete()
        return None

    def check_is_complete(self) -> None:
        """Refuse an answer that ended early.

        Raises:
            UnusableAnswer: it did.
        """
        if not self.is_complete:
            raise UnusableAnswer("ended its answer in the middle")

    def content(self) -> list[dict[str, Any]]:
        """The blocks as the next request repeats them; the API takes no empty text."""
        blocks = (self._blocks[index] for index in sorted(self._blocks))
        return [block for block in blocks if block.get("text") != ""]

    def _start_block(self, event: RawContentBlockStartEvent) -> Event | None:
        block = event.content_block
        self._blocks[event.index] = block.to_dict()
        self._pieces[event.index] = []
        return self._add_text(event.index, block.text) if block.type == "text" else None

    def _extend_block(self, event: RawContentBlockDeltaEvent) -> Event | None:
        delta, index = event.delta, event.index
        match delta.type:
            case "text_delta":
                return self._add_text(index, delta.text)
            case "input_json_delta":
                self._pieces[index].append(delta.partial_json)
            case "thinking_delta":
                self._pieces[index].append(delta.thinking)
            case "signature_delta":
                self._blocks[index]["signature"] = delta.signature
        return None

    def _add_text(self, index: int, text: str) -> Event | None:
        if not text:
            return None
        self._pieces[index].append(text)
        return TextEvent(text)

    def _finish_block(self, event: RawContentBlockStopEvent) -> Event | None:
        block = self._blocks[event.index]
        whole = "".join(self._pieces[event.index])
        kind = block["type"]
        if kind in ("text", "thinking"):
            block[kind] = whole
        elif whole:
            block["input"] = json.loads(whole)
        if kind != "tool_use":
            return None
        return ToolUseEvent(block["id"], block["name"], block["input"])

    def _complete(self) -> None:
        if not self._blocks and self.stop_reason in (None, "end_turn"):
            raise UnusableAnswer("answered without any content")
        self.is_complete = True

    def _count(self, usage: object) -> None:
        for ours, theirs in USAGE_FIELDS.items():
            tokens = getattr(usage, theirs, None)
            if tokens is not None:
                self._counts[ours] = tokens
