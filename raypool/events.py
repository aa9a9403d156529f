"""What a backend yields during one turn.

A turn is any number of `text`, `tool_use`, `tool_result` and `usage` events,
and then exactly one `result` or `error`, after which nothing comes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from raypool.provider_limits import ProviderLimits
from raypool.usage import Usage

Verdict: TypeAlias = Literal["refused", "unreachable", "transient", "invalid", "fatal"]
"""What a backend's error means for the task and for the pool.

`refused`: there is no capacity now (429, 529); waited for, not an attempt.
`unreachable`: nobody answers there (connection refused, no such host); waited for, likewise.
`transient`: the same request may succeed (5xx, a connection cut); another attempt.
`invalid`: this request can never succeed (400); the task fails, others go on.
`fatal`: no request can succeed (a bad key, an unknown model); the task fails.
"""

AWAITED: frozenset[Verdict] = frozenset({"refused", "unreachable"})
"""Verdicts that are waited for: what they end was no attempt."""


class TextEvent(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """A piece of the answer's text, in order."""

    type: ClassVar[str] = "text"
    text: str


class ToolUseEvent(msgspec.Struct, frozen=True, tag="tool_use", tag_field="type"):
    """The model asks for a tool."""

    type: ClassVar[str] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class ToolResultEvent(msgspec.Struct, frozen=True, tag="tool_result", tag_field="type"):
    """A tool has answered the model."""

    type: ClassVar[str] = "tool_result"
    id: str
    content: str
    is_error: bool = False


class UsageEvent(msgspec.Struct, frozen=True, tag="usage", tag_field="type"):
    """Tokens counted so far in this turn; a later one replaces it."""

    type: ClassVar[str] = "usage"
    usage: Usage


class ResultEvent(msgspec.Struct, frozen=True, tag="result", tag_field="type"):
    """The turn ended with an answer.

    Attributes:
        model: the model that answered, as the provider names it.
        stop_reason: why it stopped: `end_turn`, `max_tokens`, `stop_sequence`, …
        usage: the tokens of the whole turn; `None` when the last `usage` event holds.
        cost_usd: what the turn cost, in USD; `None` when no price is known.
        limits: what the provider said of its limits; for the pool, which takes it out.
    """

    type: ClassVar[str] = "result"
    model: str | None = None
    stop_reason: str | None = "end_turn"
    usage: Usage | None = None
    cost_usd: float | None = None
    limits: ProviderLimits | None = None


class ErrorEvent(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """The turn ended without an answer.

    Attributes:
        verdict: what the error means for the task and for the pool.
        error_type: the provider's name for it, or the class of the exception.
        message: what happened, and where; never a key.
        retry_after: seconds the provider asked to wait, when it did.
        is_context_full: the conversation is longer than the model's context; raypool shortens
            it from its oldest turns and asks again.
        limits: what the provider said of its limits; for the pool, which takes it out.
        traceback: the traceback as text, where one helps.
        exception: the exception itself; it stays in the worker's process unless it pickles.
    """

    type: ClassVar[str] = "error"
    verdict: Verdict
    error_type: str
    message: str
    retry_after: float | None = None
    traceback: str = ""
    exception: BaseException | None = None
    is_context_full: bool = False
    limits: ProviderLimits | None = None


Event: TypeAlias = (
    TextEvent | ToolUseEvent | ToolResultEvent | UsageEvent | ResultEvent | ErrorEvent
)


def plain_events(text: str, result: ResultEvent) -> tuple[Event, ...]:
    """The events of a turn that gave text and a result, and nothing else."""
    return (TextEvent(text), result)
