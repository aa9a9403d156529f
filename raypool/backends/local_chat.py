"""Answers that fit a schema: llama.cpp enforces one at its chat endpoint only."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx2

from raypool.agent import SessionOptions
from raypool.backends.anthropic_errors import (
    Endpoint,
    UnusableAnswer,
    error_event,
    says_context_is_full,
)
from raypool.backends.dialogue import Message, text_of
from raypool.backends.faults import verdict_of_status
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, UsageEvent
from raypool.usage import Usage

PATH = "/v1/chat/completions"
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class ChatClient:
    """A client of one server's chat endpoint."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint = endpoint
        self._http = httpx2.AsyncClient(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(
                endpoint.idle_timeout, connect=endpoint.connect_timeout, pool=None
            ),
            # llama.cpp closes a connection that rests, just as the next turn would take it.
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=False,
        )

    async def turn(
        self, messages: list[Message], options: SessionOptions, schema: dict[str, Any]
    ) -> AsyncGenerator[Event]:
        """The events of one turn whose answer fits `schema`, unless it is cut off."""
        answer = _ChatAnswer()
        is_answering = False
        try:
            request = self._request(messages, options, schema)
            async with self._http.stream("POST", PATH, json=request) as response:
                if response.status_code != httpx2.codes.OK:
                    yield await self._refusal(response)
                    return
                is_answering = True
                async for chunk in _chunks(response):
                    if text := answer.take(chunk):
                        yield TextEvent(text)
            result = answer.result(self._endpoint.model)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the server
            if answer.usage != Usage():
                yield UsageEvent(answer.usage)
            yield error_event(error, self._endpoint, is_answering=is_answering)
            return
        yield result

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _request(
        self, messages: list[Message], options: SessionOptions, schema: dict[str, Any]
    ) -> dict[str, Any]:
        said = [{"role": one["role"], "content": text_of(one["content"])} for one in messages]
        output = {"name": "answer", "schema": schema, "strict": True}
        return {
            "model": self._endpoint.model,
            "max_tokens": options.max_tokens,
            "temperature": 0,
            "messages": [{"role": "system", "content": options.system}, *said],
            "response_format": {"type": "json_schema", "json_schema": output},
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def _refusal(self, response: httpx2.Response) -> ErrorEvent:
        await response.aread()
        kind, text = _error_in(response)
        message = f"{self._endpoint.url} answered {response.status_code}: {kind}: {text}"
        return ErrorEvent(
            verdict=verdict_of_status(response.status_code),
            error_type=kind,
            message=self._endpoint.masked(message),
            is_context_full=says_context_is_full(kind, text),
        )


class _ChatAnswer:
    """What has come of an answer so far."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._finish_reason: str | None = None

    def take(self, chunk: dict[str, Any]) -> str:
        """Add a piece of the stream; returns the text in it."""
        if "error" in chunk:
            raise UnusableAnswer(f"broke off: {chunk['error'].get('message')}")
        if counted := chunk.get("usage"):
            cached = counted.get("prompt_tokens_details", {}).get("cached_tokens", 0)
            read = counted["prompt_tokens"] - cached
            self.usage = Usage(read, counted["completion_tokens"], cached)
        text = ""
        for choice in chunk["choices"]:
            self._finish_reason = choice["finish_reason"] or self._finish_reason
            text += choice["delta"].get("content") or ""
        return text

    def result(self, model: str) -> ResultEvent:
        """How the turn ended; raises `UnusableAnswer` when it ended early."""
        if self._finish_reason is None:
            raise UnusableAnswer("ended its answer in the middle")
        reason = STOP_REASONS.get(self._finish_reason, self._finish_reason)
        return ResultEvent(model=model, stop_reason=reason, usage=self.usage)


async def _chunks(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if data not in (line, "[DONE]"):
            yield json.loads(data)


def _error_in(response: httpx2.Response) -> tuple[str, str]:
    """Type and text of an error's body, which may be anything."""
    try:
        error = response.json()["error"]
        return str(error["type"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"status_{response.status_code}", response.reason_phrase
