"""A conversation with a Messages API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent

from raypool.backends.anthropic_answer import Answer
from raypool.backends.anthropic_errors import Endpoint, UnusableAnswer, error_event
from raypool.backends.base import Session
from raypool.events import ErrorEvent, Event, ResultEvent, UsageEvent
from raypool.prices import cost_usd
from raypool.task import Content
from raypool.usage import Usage

_Stream: TypeAlias = AsyncStream[RawMessageStreamEvent]


class AnthropicSession(Session):
    """Keeps its messages, and sends them all with each turn.

    An answer without text or other content (a refusal may be one) is not
    remembered, nor is its prompt: the API would refuse the conversation.
    """

    def __init__(self, client: AsyncAnthropic, request: dict[str, Any], endpoint: Endpoint) -> None:
        self._client = client
        self._request = request
        self._endpoint = endpoint
        self._history: list[dict[str, Any]] = []

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        messages = [*self._history, *_as_messages(prompt)]
        answer = Answer()
        failure: ErrorEvent | None = None
        is_answering = False
        try:
            async with await self._begin(messages) as stream:
                is_answering = True
                _check_is_event_stream(stream)
                async for raw in stream:
                    event = answer.take(raw)
                    if event is not None:
                        yield event
            answer.check_is_complete()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the provider
            failure = error_event(error, self._endpoint, is_answering=is_answering)
        for last in self._conclude(messages, answer, failure):
            yield last

    async def _begin(self, messages: list[dict[str, Any]]) -> _Stream:
        """Send the request; returns as the server begins to answer."""
        request: Any = {**self._request, "messages": messages, "stream": True}
        stream: _Stream = await self._client.messages.create(**request)
        return stream

    def _conclude(
        self, messages: list[dict[str, Any]], answer: Answer, failure: ErrorEvent | None
    ) -> list[Event]:
        """The last events; a connection that is cut after the whole answer costs nothing."""
        if failure is not None and not answer.is_complete:
            return [UsageEvent(answer.usage), failure] if answer.usage != Usage() else [failure]
        if content := answer.content():
            self._history = [*messages, {"role": "assistant", "content": content}]
        model = answer.model or self._endpoint.model
        return [
            ResultEvent(
                model=model,
                stop_reason=answer.stop_reason,
                usage=answer.usage,
                cost_usd=cost_usd(model, answer.usage),
            )
        ]


def _as_messages(prompt: Content) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _check_is_event_stream(stream: _Stream) -> None:
    """The SDK takes any body for a stream, and finds no events in a page of HTML."""
    kind = stream.response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise UnusableAnswer(
            f"answered with {kind or 'no content type'} instead of a stream of events; "
            "is it a Messages API server?"
        )
