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

    Args:
        may_be_empty: whether the model may have nothing to say, as after the results of tools.

    Attributes:
        model: the model that answers, as the server names it.
        stop_reason: why it stopped; `None` while it has not.
        is_complete: whether the server has said that this is all.
    """

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self.model: str | None = None
        self.stop_reason: str | None = None
        self.is_complete = False
        self._may_be_empty = may_be_empty
        self._has_broken_input = False
        self._counts: dict[str, int] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        return Usage(**self._counts)

    def take(self, event: RawMessageStreamEvent) -> Event | None:
        """Add an event of the stream; returns the text that there is to pass on.

        Raises:
            UnusableAnswer: the answer has ended, and cannot be used.
        """
        match event.type:
            case "content_block_delta":
                return self._extend_block(event)
            case "content_block_start":
                return self._start_block(event)
            case "content_block_stop":
                self._finish_block(event)
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
        return [block for block in self._in_order() if block.get("text") != ""]

    def tool_calls(self) -> list[ToolUseEvent]:
        """The tools that the model asks for."""
        return [
            ToolUseEvent(block["id"], block["name"], block["input"])
            for block in self._in_order()
            if block["type"] == "tool_use"
        ]

    def _in_order(self) -> list[dict[str, Any]]:
        return [self._blocks[index] for index in sorted(self._blocks)]

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

    def _finish_block(self, event: RawContentBlockStopEvent) -> None:
        block = self._blocks[event.index]
        whole = "".join(self._pieces[event.index])
        kind = block["type"]
        if kind in ("text", "thinking"):
            block[kind] = whole
        elif whole:
            self._set_input(block, whole)

    def _set_input(self, block: dict[str, Any], text: str) -> None:
        """The model can be cut off in the middle: only its stop reason tells, and that is next."""
        try:
            block["input"] = json.loads(text)
        except ValueError:
            self._has_broken_input = True

    def _complete(self) -> None:
        if self.stop_reason == "tool_use":
            self._check_tool_calls()
        elif not (self._blocks or self._may_be_empty) and self.stop_reason in (None, "end_turn"):
            raise UnusableAnswer("answered without any content")
        self.is_complete = True

    def _check_tool_calls(self) -> None:
        if self._has_broken_input:
            raise UnusableAnswer("asked for a tool with broken JSON")
        if not self.tool_calls():
            raise UnusableAnswer("stopped for tools without asking for one")

    def _count(self, usage: object) -> None:
        for ours, theirs in USAGE_FIELDS.items():
            tokens = getattr(usage, theirs, None)
            if tokens is not None:
                self._counts[ours] = tokens
