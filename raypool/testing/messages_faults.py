"""What can go wrong with a request to the Messages API, to be played by `MessagesServer`."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import web

from raypool.testing.messages_wire import (
    Answer,
    Call,
    encode_event,
    error_body,
    event_stream,
    json_answer,
)

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

Headers: TypeAlias = Mapping[str, str]

_ABORTS_WITH_RESET = struct.pack("ii", 1, 0)


class Exchange:
    """One request with the answer that it would get: what a fault works with.

    Attributes:
        call: the request.
        chunks: the answer in pieces: the events of a stream, or the halves of a JSON body.
    """

    def __init__(self, request: web.Request, call: Call, answer: Answer, headers: Headers) -> None:
        self.call = call
        self.is_stream = bool(call.body.get("stream"))
        self.chunks = (event_stream if self.is_stream else json_answer)(call, answer)
        self._request = request
        self._headers = headers

    async def begin(self, chunks: int | None = None) -> web.StreamResponse:
        """Send the head and the first `chunks` pieces; `None` means all."""
        kind = "text/event-stream" if self.is_stream else "application/json"
        response = web.StreamResponse(headers={**self._headers, "content-type": kind})
        await response.prepare(self._request)
        if body := b"".join(self.chunks[:chunks]):
            await response.write(body)
        return response

    def error(
        self, status: int, kind: str | None, message: str, error_code: str | None, headers: Headers
    ) -> web.Response:
        """An error as the API words it."""
        kind = kind or KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        request_id = self._headers["request-id"]
        body = error_body(kind, message or kind, error_code=error_code, request_id=request_id)
        return web.json_response(body, status=status, headers={**self._headers, **headers})

    def drop(self, *, resets: bool = False) -> None:
        """Close the connection, with a TCP reset if asked to."""
        transport = self._request.transport
        if transport is None:
            return
        if resets:
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTS_WITH_RESET)
        transport.abort()


Serve: TypeAlias = Callable[[Exchange], Awaitable[web.StreamResponse]]


class Fault:
    """One way to answer badly; each class method makes one.

    `after` counts the pieces of the answer that still arrive: events of a
    stream (the first three come before its second word), or halves of a JSON body.
    """

    def __init__(self, name: str, serve: Serve) -> None:
        self.name = name
        self.serve = serve

    def __repr__(self) -> str:
        return f"Fault({self.name!r})"

    @classmethod
    def status(
        cls,
        status: int,
        *,
        message: str = "",
        kind: str | None = None,
        error_code: str | None = None,
        **headers: str | float,
    ) -> Fault:
        """An HTTP status with an error body.

        `headers` have underscores in their names: `retry_after` (seconds, or an
        HTTP date), `retry_after_ms`, …
        """
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}

        async def serve(exchange: Exchange) -> web.StreamResponse:
            return exchange.error(status, kind, message, error_code, named)

        return cls(f"status {status}", serve)

    @classmethod
    def rate_limited(cls, retry_after: float | str = 1) -> Fault:
        """429, to be tried again after seconds or at an HTTP date."""
        return cls.status(429, message="Too many requests", retry_after=retry_after)

    @classmethod
    def overloaded(cls) -> Fault:
        """529."""
        return cls.status(529, message="Overloaded")

    @classmethod
    def body(cls, text: str, content_type: str = "application/json", *, status: int = 200) -> Fault:
        """A response with `text` as it stands."""

        async def serve(_: Exchange) -> web.StreamResponse:
            return web.Response(text=text, content_type=content_type, status=status)

        return cls(f"body {text[:20]!r}", serve)

    @classmethod
    def garbage(cls) -> Fault:
        """Status 200 with JSON that is broken."""
        return cls.body('{"oops')

    @classmethod
    def empty(cls) -> Fault:
        """Status 200 with nothing in it."""
        return cls.body("")

    @classmethod
    def html(cls) -> Fault:
        """Status 200 with a page, as a proxy or a wrong address gives it."""
        return cls.body("<html><body>Welcome</body></html>", "text/html")

    @classmethod
    def hang(cls) -> Fault:
        """Never answers."""

        async def serve(_: Exchange) -> web.StreamResponse:
            return await _never()

        return cls("hang", serve)

    @classmethod
    def stall(cls, after: int = 3) -> Fault:
        """Starts to answer, and sends nothing more."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            await exchange.begin(after)
            return await _never()

        return cls("stall", serve)

    @classmethod
    def reset(cls) -> Fault:
        """A TCP reset instead of an answer."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            exchange.drop(resets=True)
            return web.Response()

        return cls("reset", serve)

    @classmethod
    def disconnect(cls) -> Fault:
        """Closes the connection instead of answering."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            exchange.drop()
            return web.Response()

        return cls("disconnect", serve)

    @classmethod
    def cut(cls, after: int = 3) -> Fault:
        """Closes the connection in the middle of the answer."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            response = await exchange.begin(after)
            exchange.drop()
            return response

        return cls("cut", serve)

    @classmethod
    def truncated(cls, after: int = 3) -> Fault:
        """Ends the answer properly, but too early."""

        async def serve(exchange: Exchange) -> web.StreamResponse:
            return await exchange.begin(after)

        return cls("truncated", serve)

    @classmethod
    def error_event(cls, kind: str = "overloaded_error", after: int = 3) -> Fault:
        """An `error` event inside a stream that began with status 200."""
        return cls._last_words(f"{kind} event", encode_event(error_body(kind, kind)), after)

    @classmethod
    def garbage_event(cls, after: int = 3) -> Fault:
        """An event with broken JSON inside a stream that began well."""
        return cls._last_words(
            "garbage event", b'event: content_block_delta\ndata: {"oops\n\n', after
        )

    @classmethod
    def _last_words(cls, name: str, words: bytes, after: int) -> Fault:
        async def serve(exchange: Exchange) -> web.StreamResponse:
            response = await exchange.begin(after)
            await response.write(words)
            return response

        return cls(name, serve)


async def _never() -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets was set")
