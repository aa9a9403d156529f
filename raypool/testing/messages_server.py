"""A stand-in for the Messages API that answers over real HTTP, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeAlias

from aiohttp import web

from raypool.clock import SystemClock
from raypool.testing.messages_cache import PromptCache
from raypool.testing.messages_faults import KINDS, Exchange, Fault
from raypool.testing.messages_rules import objection
from raypool.testing.messages_wire import Answer, Call, count_words, error_body
from raypool.testing.server_limits import Limiter, LimitRefusal, ServerLimits, Traffic
from raypool.usage import Usage

Reply: TypeAlias = str | Answer | Callable[[Call], str | Answer] | None
Faults: TypeAlias = Sequence[Fault | None] | Callable[[Call], Fault | None]

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64 << 20
BACKLOG = 4096
START_TIMEOUT_SECONDS = 10.0
SHUTDOWN_SECONDS = 0.05
NEVER_REACHED = ServerLimits(
    requests_per_minute=60e6, input_tokens_per_minute=60e9, output_tokens_per_minute=60e9
)
LEAST_CACHED_WORDS = 1024
REQUIRED = ("model", "max_tokens", "messages")


class MessagesServer:
    """Speaks the Messages API on a free port of 127.0.0.1, in a thread of its own.

    `with MessagesServer(reply="Paris") as server:` serves at `server.url` until
    the block ends; requests that still hang then are dropped. What the API would refuse in a
    request is refused with a 400 that says why.

    Args:
        reply: the answer to every request, or a function of the `Call` that
            gives it; it runs on the server's thread. `None` echoes the prompt.
        latency: seconds before an answer or a fault, or a function of the `Call`.
        faults: what goes wrong: one item a request in the order of arrival
            (`None` answers well, as do requests after the last item), or a function of the `Call`.
        api_key: requests without this key get a 401; `None` takes any.
        models: requests for another model get a 404; `None` takes any.
        context_words: a request with more words is too long for the model; `None` takes any.
        least_cached_words: what requests mark with `cache_control` is kept, and counted as read
            from the cache when it comes again, if it has so many words.
        limits: what it lets through under each key; what is more gets a 429, at once. `None` sets
            limits that nobody reaches.
    """

    def __init__(
        self,
        reply: Reply = None,
        *,
        latency: float | Callable[[Call], float] = 0.0,
        faults: Faults = (),
        api_key: str | None = None,
        models: Sequence[str] | None = None,
        context_words: int | None = None,
        least_cached_words: int = LEAST_CACHED_WORDS,
        limits: ServerLimits | None = None,
    ) -> None:
        self._reply = reply
        self._latency = latency
        self._faults = faults
        self._api_key = api_key
        self._models = models
        self._context_words = context_words
        self._cache = PromptCache(least_cached_words)
        self._limiter = Limiter(limits or NEVER_REACHED, SystemClock())
        self._calls: list[Call] = []
        self._peers: set[tuple[str, int]] = set()
        self._in_flight = 0
        self._peak = 0
        self._changed = threading.Condition()
        self._started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="messages-server", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, as a `base_url`."""
        return self._started.result(START_TIMEOUT_SECONDS)

    @property
    def calls(self) -> list[Call]:
        """Every request to `/v1/messages` so far, in the order of arrival."""
        with self._changed:
            return list(self._calls)

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self._in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were being answered at one time."""
        return self._peak

    @property
    def connections(self) -> int:
        """How many connections the requests came over."""
        return len(self._peers)

    @property
    def limits(self) -> ServerLimits:
        """What it lets through under each key; can be set while it runs."""
        return self._limiter.limits

    @limits.setter
    def limits(self, limits: ServerLimits) -> None:
        self._limiter.change(limits)

    def traffic(self, key: str | None = None) -> Traffic:
        """What it has let through, and refused for its limits, under a key or in all."""
        return self._limiter.traffic(key)

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` requests have arrived in all.

        Raises:
            TimeoutError: they have not within `timeout` seconds.
        """
        self._wait(lambda: len(self._calls) >= count, f"{count} requests", timeout)

    def wait_until_idle(self, timeout: float = 10.0) -> None:
        """Wait until no request is being answered; one whose client has gone ends.

        Raises:
            TimeoutError: one still is after `timeout` seconds.
        """
        self._wait(lambda: self._in_flight == 0, "the last request to end", timeout)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """While the block runs nobody listens at `url`, and who was connected is so no more."""
        self._call(self._shut())
        try:
            yield
        finally:
            self._call(self._listen())

    def __enter__(self) -> MessagesServer:
        self._thread.start()
        self._started.result(START_TIMEOUT_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._runner, self._port = runner, 0
        await self._listen()
        self._port = runner.addresses[0][1]
        self._started.set_result(f"http://{HOST}:{self._port}")
        await self._stopping.wait()
        await runner.cleanup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(
            self._runner, HOST, self._port, backlog=BACKLOG, reuse_address=True
        )
        await self._site.start()

    async def _shut(self) -> None:
        await self._site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the server's thread, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_SECONDS)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.add_routes(
            [
                web.post("/v1/messages", self._answer_messages),
                web.post("/v1/messages/count_tokens", self._answer_count_tokens),
                web.get("/v1/models", self._answer_models),
            ]
        )
        return application

    async def _answer_messages(self, request: web.Request) -> web.StreamResponse:
        body = await _read_body(request)
        refusal = self._refusal(request, body)
        if refusal is not None:
            return refusal
        with self._logged(request, body) as call:
            key, words = _key_of(request), count_words(body)
            if (exceeded := self._limiter.admit(key, words)) is not None:
                return self._limited(call, key, exceeded)
            if seconds := self._latency_of(call):
                await asyncio.sleep(seconds)
            answer = self._answer_to(call)
            used = answer.usage or Usage()
            read = used.input_tokens + used.cache_write_tokens - words
            self._limiter.spend(key, input_tokens=read, output_tokens=used.output_tokens)
            exchange = Exchange(request, call, answer, self._headers(call, key))
            fault = self._fault_for(call)
            return await (fault.serve(exchange) if fault else exchange.begin())

    async def _answer_count_tokens(self, request: web.Request) -> web.StreamResponse:
        body = await _read_body(request)
        return self._refusal(request, body, required=("model", "messages")) or web.json_response(
            {"input_tokens": count_words(body)}
        )

    async def _answer_models(self, request: web.Request) -> web.StreamResponse:
        models = [
            {"type": "model", "id": name, "display_name": name} for name in self._models or ()
        ]
        return self._refusal(request, {}, required=()) or web.json_response(
            {"data": models, "has_more": False, "first_id": None, "last_id": None}
        )

    def _refusal(
        self, request: web.Request, body: dict[str, Any], required: Sequence[str] = REQUIRED
    ) -> web.Response | None:
        """The error that the request gets for what it is, if it does."""
        if self._api_key is not None and self._api_key not in _keys_of(request):
            return _error(401, "invalid x-api-key")
        for name in required:
            if not body.get(name):
                return _error(400, f"{name}: Field required")
        if self._models is not None and "model" in required and body["model"] not in self._models:
            return _error(404, f"model: {body['model']}")
        if (problem := objection(body)) is not None:
            return _error(400, problem)
        words, most = count_words(body), self._context_words
        if most is not None and words > most:
            return _error(400, f"prompt is too long: {words} tokens > {most} maximum")
        return None

    def _limited(self, call: Call, key: str, exceeded: LimitRefusal) -> web.Response:
        """What a request gets that exceeds a limit."""
        headers = self._headers(call, key)
        if self.limits.retry_after:
            headers["retry-after"] = str(math.ceil(exceeded.seconds))
        body = error_body(KINDS[429], exceeded.message, request_id=headers["request-id"])
        return web.json_response(body, status=429, headers=headers)

    def _headers(self, call: Call, key: str) -> dict[str, str]:
        """The headers of every answer."""
        return {"request-id": f"req_{call.number}", **self._limiter.headers(key)}

    @contextmanager
    def _logged(self, request: web.Request, body: dict[str, Any]) -> Iterator[Call]:
        headers = {name.lower(): text for name, text in request.headers.items()}
        with self._changed:
            call = Call(number=len(self._calls) + 1, headers=headers, body=body)
            self._calls.append(call)
            if request.transport is not None:
                self._peers.add(request.transport.get_extra_info("peername"))
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
            self._changed.notify_all()
        try:
            yield call
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _latency_of(self, call: Call) -> float:
        return self._latency(call) if callable(self._latency) else self._latency

    def _answer_to(self, call: Call) -> Answer:
        reply = self._reply(call) if callable(self._reply) else self._reply
        if not isinstance(reply, Answer):
            reply = Answer(call.prompt if reply is None else reply)
        return reply.counted(call, self._cache.usage(call.body))

    def _fault_for(self, call: Call) -> Fault | None:
        if callable(self._faults):
            return self._faults(call)
        return self._faults[call.number - 1] if call.number <= len(self._faults) else None

    def _wait(self, is_so: Callable[[], bool], what: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(is_so, timeout):
                raise TimeoutError(
                    f"waited {timeout:g} s for {what}: "
                    f"{len(self._calls)} have arrived, {self._in_flight} are being answered"
                )


async def _read_body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _keys_of(request: web.Request) -> tuple[str, str]:
    authorization = request.headers.get("authorization", "")
    return authorization.removeprefix("Bearer "), request.headers.get("x-api-key", "")


def _key_of(request: web.Request) -> str:
    """The key that limits are counted by; empty when there is none."""
    bearer, key = _keys_of(request)
    return key or bearer


def _error(status: int, message: str) -> web.Response:
    body = error_body(KINDS[status], message, request_id="req_refused")
    return web.json_response(body, status=status, headers={"request-id": "req_refused"})
