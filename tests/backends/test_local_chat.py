"""The chat endpoint of a model server, when it does not answer as it should; no model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from raypool.agent import SessionOptions
from raypool.backends.anthropic_errors import Endpoint
from raypool.backends.local_chat import PATH, ChatClient
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, UsageEvent
from raypool.usage import Usage

KEY = "a-secret-key"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
WORD = {"choices": [{"finish_reason": None, "delta": {"content": "{}"}}]}
STOP = {"choices": [{"finish_reason": "stop", "delta": {}}]}
COUNTED = {
    "choices": [],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server whose chat endpoint is `handler`."""
    application = web.Application()
    application.add_routes([web.post(PATH, handler)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def ask(handler: Handler) -> list[Event]:
    """The events of one turn."""

    async def run() -> list[Event]:
        async with serving(handler) as url:
            client = ChatClient(Endpoint(url, "smol", 0.3, 5.0, (KEY,)), KEY)
            messages: list[dict[str, Any]] = [
                {"role": "user", "content": [{"type": "text", "text": "Hello?"}]}
            ]
            options = SessionOptions(system="Be brief.", max_tokens=7)
            events = [event async for event in client.turn(messages, options, SCHEMA)]
            await client.close()
            return events

    return asyncio.run(run())


def streaming(*chunks: dict[str, Any] | str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
        body = "".join(f"data: {text}\n\n" for text in texts)
        return web.Response(text=body, content_type="text/event-stream")

    return handler


def answering(status: int, body: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status, content_type="application/json")

    return handler


async def never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


def test_the_request_has_the_conversation_the_schema_and_the_key() -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.extend([request.headers["authorization"], await request.json()])
        return await streaming(WORD, STOP, COUNTED, "[DONE]")(request)

    events = ask(handler)

    assert events == [
        TextEvent("{}"),
        ResultEvent(model="smol", stop_reason="end_turn", usage=Usage(5, 2, cache_read_tokens=4)),
    ]
    assert seen[0] == f"Bearer {KEY}"
    assert seen[1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    assert seen[1]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (seen[1]["max_tokens"], seen[1]["temperature"]) == (7, 0)


@pytest.mark.parametrize(
    ("handler", "verdict", "words"),
    [
        (streaming(WORD), "transient", "ended its answer in the middle"),
        (streaming(WORD, "{oops"), "transient", "what is not"),
        (streaming({"error": {"message": "out of memory"}}), "transient", "out of memory"),
        (answering(500, '{"error": {"type": "server_error", "message": "no"}}'), "transient", "no"),
        (
            answering(401, '{"error": {"type": "key", "message": "not a-secret-key"}}'),
            "fatal",
            "***",
        ),
        (answering(502, "<html>"), "transient", "answered 502: status_502: Bad Gateway"),
        (never, "transient", "sent nothing for 0.3 s"),
    ],
    ids=["cut", "broken JSON", "broke off", "500", "401", "page", "hang"],
)
def test_what_goes_wrong_ends_the_turn_with_an_error(
    handler: Handler, verdict: str, words: str
) -> None:
    *_, error = ask(handler)

    assert isinstance(error, ErrorEvent)
    assert error.verdict == verdict
    assert words in error.message
    assert KEY not in repr(error)


def test_what_an_answer_without_an_end_has_cost_is_told() -> None:
    events = ask(streaming(WORD, COUNTED))

    assert events[1] == UsageEvent(Usage(5, 2, cache_read_tokens=4))
    assert isinstance(events[2], ErrorEvent)
