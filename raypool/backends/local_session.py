"""Conversations with the model server of this node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from ray.exceptions import RayError

from raypool.agent import SessionOptions
from raypool.backends.base import Session
from raypool.backends.dialogue import Message, as_messages
from raypool.backends.faults import error_event
from raypool.backends.local_client import ServerClient
from raypool.backends.model_file import ModelFile
from raypool.backends.model_server import ServerSettings
from raypool.backends.server_lease import ServerLease
from raypool.backends.session_schemas import answer_schema
from raypool.errors import PoolStartError
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, Verdict
from raypool.task import Content

NEUTRAL_SYSTEM = "You are a helpful assistant."
CONTEXT_ERROR = "exceed_context_size_error"
SERVER_ERROR = "server_error"


class NodeModel:
    """The model of this node, found again when its server has been replaced."""

    def __init__(self, name: str, lease: ServerLease, idle_timeout: float) -> None:
        self.name = name
        self.idle_timeout = idle_timeout
        self._lease = lease
        self._lock = asyncio.Lock()
        self._client: ServerClient | None = None

    async def client(self) -> ServerClient:
        """An open client of the server; starts the server when there is none.

        Raises:
            PoolStartError: the server cannot start on this node; says why.
        """
        async with self._lock:
            address = await asyncio.to_thread(self._lease.address)
            if self._client is None or address != self._client.address:
                await self._disconnect()
                self._client = ServerClient(address, self.name)
                await self._client.open()
            return self._client

    def session(self, options: SessionOptions) -> LocalSession:
        """A new conversation."""
        return LocalSession(self, options)

    async def doubt(self, client: ServerClient) -> None:
        """Look the server up again before the next turn: `client` got no answer."""
        if client is self._client:
            await asyncio.to_thread(self._lease.doubt, client.address)

    async def close(self) -> None:
        """Give the server back; it ends with its last user."""
        async with self._lock:
            await self._disconnect()
        await asyncio.to_thread(self._lease.release)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def connect(
    model: ModelFile, slots: int, context_tokens: int, idle_timeout: float
) -> NodeModel:
    """The model, with its server running on this node.

    Raises:
        PoolStartError: the server cannot start on this node; says why.
    """
    lease = ServerLease(ServerSettings(model, slots, context_tokens))
    node_model = NodeModel(model.name, lease, idle_timeout)
    await node_model.client()
    return node_model


class LocalSession(Session):
    """One conversation; it outlives the server, which keeps nothing of it."""

    messages: list[Message]

    def __init__(self, model: NodeModel, options: SessionOptions) -> None:
        self._model = model
        self._wanted = options.model
        self._options = msgspec.structs.replace(
            options, model=model.name, system=options.system or NEUTRAL_SYSTEM
        )
        self._schema = answer_schema(options)
        self.messages = list(options.messages)

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        asked = [*self.messages, *as_messages(prompt)]
        refusal = self._refusal(asked)
        if refusal is not None:
            yield refusal
            return
        answer = ""
        async with aclosing(self._turn(asked)) as events:
            async for event in events:
                if isinstance(event, TextEvent):
                    answer += event.text
                if isinstance(event, ResultEvent) and answer:
                    self.messages = [*asked, {"role": "assistant", "content": answer}]
                yield event

    def _refusal(self, asked: list[Message]) -> ErrorEvent | None:
        if self._wanted not in (None, self._model.name):
            return ErrorEvent(
                verdict="fatal",
                error_type="not_found_error",
                message=f"the local model is {self._model.name!r}, there is no {self._wanted!r}",
            )
        if self._options.tools:
            return ErrorEvent(
                verdict="fatal",
                error_type="tools_not_supported",
                message=f"the local model {self._model.name!r} cannot call tools: LocalBackend "
                "has none; for an agent with tools use AnthropicBackend(), with base_url=… for a "
                "server of your own whose model can",
            )
        if any(map(_has_image, asked)):
            return ErrorEvent(
                verdict="invalid",
                error_type="invalid_request_error",
                message=f"the prompt has an image, and {self._model.name!r} takes no images",
            )
        return None

    async def _turn(self, asked: list[Message]) -> AsyncGenerator[Event]:
        try:
            client = await self._model.client()
        except PoolStartError as error:
            yield error_event(error, "fatal")
            return
        except RayError as error:
            yield error_event(error, "transient")
            return
        async with (
            aclosing(client.turn(asked, self._options, self._schema)) as answer,
            aclosing(_without_gaps(answer, self._model.idle_timeout, client)) as events,
        ):
            async for event in events:
                if isinstance(event, ResultEvent):
                    yield msgspec.structs.replace(event, cost_usd=0.0)
                elif isinstance(event, ErrorEvent):
                    yield await self._judged(event, client)
                else:
                    yield event

    async def _judged(self, event: ErrorEvent, client: ServerClient) -> ErrorEvent:
        """What an error of this server means: it repeats what it said, or it is not there."""
        if event.error_type == CONTEXT_ERROR:
            return _with(event, "invalid", "; LocalBackend(context_tokens=…) sets the size")
        if event.verdict == "invalid" or event.error_type == SERVER_ERROR:
            return _with(event, "invalid")
        await self._model.doubt(client)
        return _with(event, "transient")


async def _without_gaps(
    events: AsyncGenerator[Event], seconds: float, client: ServerClient
) -> AsyncGenerator[Event]:
    """The events, up to a silence of so many seconds after the first: that is an error."""
    longest = None
    while True:
        try:
            async with asyncio.timeout(longest):
                event = await anext(events, None)
        except TimeoutError:
            yield ErrorEvent(
                verdict="transient",
                error_type="ReadTimeout",
                message=f"{client.address.url} sent nothing for {seconds:g} s in the middle of an "
                "answer; LocalBackend(idle_timeout=…) sets how long it may",
            )
            return
        if event is None:
            return
        longest = seconds
        yield event


def _has_image(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block["type"] == "image" for block in content)


def _with(event: ErrorEvent, verdict: Verdict, advice: str = "") -> ErrorEvent:
    return msgspec.structs.replace(event, verdict=verdict, message=event.message + advice)
