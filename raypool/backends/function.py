"""Any model of any library, as a function."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.backends.dialogue import Message, MissingToolResults, continued
from raypool.backends.faults import error_event
from raypool.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolResultEvent,
    ToolUseEvent,
    Verdict,
)
from raypool.response import Response
from raypool.task import Content

logger = logging.getLogger(__name__)

Function: TypeAlias = Callable[[Content, SessionOptions], Awaitable[str | Response]]
Retryable: TypeAlias = Callable[[Exception], bool]

TOOL_USE = "tool_use"


class FunctionBackend(Backend):
    """Answers with `await fn(prompt, options)`, a `str` or a `Response`.

    `fn` gets the prompt as the task has it, and the whole conversation as a list of messages
    where there is one before it. What it raises fails the turn; `retryable` tells whether
    another attempt may help. Without it, an exception with a `status_code` (as most client
    libraries raise) is judged by that, and every other gets its attempts.

    A model that calls tools: `raypool.tools.tool_schema` gives the JSON of each of
    `options.tools`, and `fn` returns `Response(text=…, stop_reason="tool_use", events=(
    ToolUseEvent(id, name, input), …))`. raypool runs the tools, and calls `fn` again with the
    conversation, which then ends with their `tool_result` blocks. `options.output_type` is for
    `raypool.output_type.output_schema(options)`; raypool checks the answer in any case.
    """

    name = "function"

    def __init__(self, fn: Function, *, retryable: Retryable | None = None) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(f"fn must be an async function of (prompt, options), got {fn!r}")
        self.fn = fn
        self.retryable = retryable

    async def start(self, options: SessionOptions) -> Session:
        return _FunctionSession(self, options)


class _FunctionSession(Session):
    messages: list[Message]

    def __init__(self, backend: FunctionBackend, options: SessionOptions) -> None:
        self.messages = list(options.messages)
        self._backend = backend
        self._options = msgspec.structs.replace(options, messages=())

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        try:
            asked = continued(self.messages, prompt)
        except MissingToolResults as error:
            yield ErrorEvent("invalid", type(error).__name__, str(error))
            return
        try:
            answer: Any = await self._backend.fn(asked if self.messages else prompt, self._options)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            yield self._failure(error)
            return
        if isinstance(answer, str):
            answer = Response(text=answer)
        if (problem := _problem(answer)) is not None:
            yield ErrorEvent("invalid", "TypeError", problem)
            return
        for event in _spoken(answer):
            yield event
        self.messages = [*asked, {"role": "assistant", "content": _content(answer)}]
        yield ResultEvent(
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )

    def _failure(self, error: Exception) -> ErrorEvent:
        if self._backend.retryable is None:
            return error_event(error)
        try:
            verdict: Verdict = "transient" if self._backend.retryable(error) else "invalid"
        except Exception:
            logger.exception("retryable raised for %s, which is retried", type(error).__name__)
            verdict = "transient"
        return error_event(error, verdict)


def _problem(answer: Any) -> str | None:
    """Why what the function returned is no answer."""
    if not isinstance(answer, Response):
        return f"fn must return a str or a Response, got {type(answer).__name__}"
    if answer.stop_reason == TOOL_USE and not _calls(answer):
        return (
            "fn's Response has stop_reason='tool_use', and no events that name a tool; "
            "return Response(…, events=(ToolUseEvent(id, name, input),))"
        )
    if answer.stop_reason != TOOL_USE and _calls(answer):
        return (
            f"fn's Response asks for a tool that has no result, and has "
            f"stop_reason={answer.stop_reason!r}; return Response(…, stop_reason='tool_use')"
        )
    return None


def _calls(answer: Response) -> list[ToolUseEvent]:
    """The tools that raypool is to run: those that the function has not run itself."""
    run = {event.id for event in answer.events if isinstance(event, ToolResultEvent)}
    return [
        event for event in answer.events if isinstance(event, ToolUseEvent) and event.id not in run
    ]


def _spoken(answer: Response) -> list[Event]:
    """The text, and the tools that were used or are asked for."""
    text = [TextEvent(answer.text)] if answer.text else []
    tools = [event for event in answer.events if isinstance(event, ToolUseEvent | ToolResultEvent)]
    return [*text, *tools]


def _content(answer: Response) -> str | list[dict[str, Any]]:
    """The answer as the conversation has it; tools that the function has run are its own."""
    if not (calls := _calls(answer)):
        return answer.text
    text = [{"type": "text", "text": answer.text}] if answer.text else []
    return text + [
        {"type": TOOL_USE, "id": call.id, "name": call.name, "input": call.input} for call in calls
    ]
