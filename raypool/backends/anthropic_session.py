"""A conversation with a Messages API server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeAlias

from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent

from raypool.backends.anthropic_answer import Answer
from raypool.backends.anthropic_errors import Endpoint, UnusableAnswer, error_event
from raypool.backends.anthropic_limits import limits_in
from raypool.backends.anthropic_request import RequestFields
from raypool.backends.anthropic_turn import AnthropicTurn
from raypool.backends.base import Session
from raypool.backends.dialogue import (
    Message,
    MissingToolResults,
    continued,
    has_tool_results,
    without_open_question,
)
from raypool.events import ErrorEvent, Event
from raypool.task import Content
from raypool.usage import Usage

_Stream: TypeAlias = AsyncStream[RawMessageStreamEvent]


class AnthropicSession(Session):
    """Keeps its messages, and sends them all with each turn.

    Each turn that is answered ends in a `result`; by its stop reason:

    | stop reason | the turn | the conversation |
    | --- | --- | --- |
    | `end_turn`, `stop_sequence` | is over | has it |
    | `tool_use` | ends with a `tool_use` event for each tool | waits for their results |
    | `max_tokens`, `model_context_window_exceeded` | ends with the text so far | has it, without tool calls and closing thoughts, which were cut off |
    | `pause_turn` | goes on: the server is asked to continue, up to 10 times | has it as one answer |
    | `refusal` | ends with the text so far | forgets the question, with the tools it asked for |

    An answer of which nothing is left to remember is forgotten with its question, for the API
    would refuse the conversation; only what tools gave is kept. Where tools were asked for, a
    prompt without their results gives their question up.
    """  # noqa: E501 - a table

    messages: list[Message]

    def __init__(
        self,
        client: AsyncAnthropic,
        fields: RequestFields,
        endpoint: Endpoint,
        messages: list[Message],
    ) -> None:
        self.messages = messages
        self._client = client
        self._fields = fields
        self._endpoint = endpoint
        self._turn: AnthropicTurn | None = None

    @property
    def usage_so_far(self) -> Usage | None:  # type: ignore[override]
        return None if self._turn is None else self._turn.usage

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        try:
            asked = continued(self.messages, prompt)
        except MissingToolResults as error:
            yield ErrorEvent("invalid", type(error).__name__, str(error))
            return
        turn = self._turn = AnthropicTurn(asked, self._endpoint.model)
        while turn.is_open:
            async with aclosing(self._ask(turn)) as pieces:
                async for piece in pieces:
                    yield piece
        if turn.failure is None:
            self.messages = turn.remembered() or without_open_question(self.messages)
        for last in turn.last_events():
            yield last

    async def _ask(self, turn: AnthropicTurn) -> AsyncGenerator[Event]:
        """Send one request and pass its text on; the turn gets the answer."""
        answer = Answer(may_be_empty=has_tool_results(turn.messages[-1]))
        turn.expect(answer)
        is_answering = False
        try:
            async with await self._begin(turn) as stream:
                is_answering = True
                _check_is_event_stream(stream)
                turn.limits = limits_in(stream.response.headers)
                async for raw in stream:
                    event = answer.take(raw)
                    if event is not None:
                        yield event
            answer.check_is_complete()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the provider
            if not answer.is_complete:  # a cut after the whole answer costs nothing
                turn.failure = error_event(error, self._endpoint, is_answering=is_answering)
        turn.add(answer)

    async def _begin(self, turn: AnthropicTurn) -> _Stream:
        """Send the request; returns as the server begins to answer."""
        goes_on = bool(self.messages) or turn.is_paused
        request = self._fields.request(turn.messages, goes_on=goes_on)
        stream: _Stream = await self._client.messages.create(**request)
        return stream


def _check_is_event_stream(stream: _Stream) -> None:
    """The SDK takes any body for a stream, and finds no events in a page of HTML."""
    kind = stream.response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise UnusableAnswer(
            f"answered with {kind or 'no content type'} instead of a stream of events; "
            "is it a Messages API server?"
        )
