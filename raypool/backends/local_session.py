"""Conversations with the model server of this node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import msgspec
from ray.exceptions import RayError

from raypool.agent import SessionOptions
from raypool.backends.anthropic import AnthropicBackend
from raypool.backends.base import Session
from raypool.backends.faults import error_event
from raypool.backends.model_file import ModelFile
from raypool.backends.model_server import ServerAddress, ServerSettings
from raypool.backends.server_lease import ServerLease
from raypool.errors import PoolStartError
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, Verdict
from raypool.task import Content

NEUTRAL_SYSTEM = "You are a helpful assistant."
IDLE_TIMEOUT_SECONDS = 3600.0
CONTEXT_ERROR = "exceed_context_size_error"
SERVER_ERROR = "server_error"

_BODY = {"temperature": 0}


class NodeModel:
    """The model of this node, found again when its server has been replaced."""

    def __init__(self, name: str, lease: ServerLease) -> None:
        self.name = name
        self._lease = lease
        self._lock = asyncio.Lock()
        self._address: ServerAddress | None = None
        self._client: AnthropicBackend | None = None

    async def client(self) -> AnthropicBackend:
        """An open client of the server; starts the server when there is none.

        Raises:
            PoolStartError: the server cannot start on this node; says why.
        """
        async with self._lock:
            address = await asyncio.to_thread(self._lease.address)
            if self._client is None or address != self._address:
                await self._disconnect()
                self._client = _client_of(address, self.name)
                await self._client.open()
                self._address = address
            return self._client

    def session(self, options: SessionOptions) -> LocalSession:
        """A new conversation."""
        return LocalSession(self, options)

    async def doubt(self, client: AnthropicBackend) -> None:
        """Look the server up again before the next turn: `client` got no answer."""
        if client is self._client and self._address is not None:
            await asyncio.to_thread(self._lease.doubt, self._address)

    async def close(self) -> None:
        """Give the server back; it ends with its last user."""
        async with self._lock:
            await self._disconnect()
        await asyncio.to_thread(self._lease.release)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def connect(model: ModelFile, slots: int, context_tokens: int) -> NodeModel:
    """The model, with its server running on this node.

    Raises:
        PoolStartError: the server cannot start on this node; says why.
    """
    lease = ServerLease(ServerSettings(model, slots, context_tokens))
    node_model = NodeModel(model.name, lease)
    await node_model.client()
    return node_model


class LocalSession(Session):
    """One conversation; it outlives the server, which keeps nothing of it."""

    def __init__(self, model: NodeModel, options: SessionOptions) -> None:
        self._model = model
        self._wanted = options.model
        self._options = msgspec.structs.replace(
            options, model=model.name, system=options.system or NEUTRAL_SYSTEM
        )
        self._history: list[dict[str, Any]] = []

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        added = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        asked = [*self._history, *added]
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
                    self._history = [*asked, {"role": "assistant", "content": answer}]
                yield event

    def _refusal(self, asked: list[dict[str, Any]]) -> ErrorEvent | None:
        if self._wanted not in (None, self._model.name):
            return ErrorEvent(
                verdict="fatal",
                error_type="not_found_error",
                message=f"the local model is {self._model.name!r}, there is no {self._wanted!r}",
            )
        if any(map(_has_image, asked)):
            return ErrorEvent(
                verdict="invalid",
                error_type="invalid_request_error",
                message=f"the prompt has an image, and {self._model.name!r} takes no images",
            )
        return None

    async def _turn(self, asked: list[dict[str, Any]]) -> AsyncGenerator[Event]:
        try:
            client = await self._model.client()
        except PoolStartError as error:
            yield error_event(error, "fatal")
            return
        except RayError as error:
            yield error_event(error, "transient")
            return
        session = await client.start(self._options)
        answer = cast("AsyncGenerator[Event]", session.prompt(asked))
        async with aclosing(answer) as events:
            async for event in events:
                if isinstance(event, ResultEvent):
                    yield msgspec.structs.replace(event, cost_usd=0.0)
                elif isinstance(event, ErrorEvent):
                    yield await self._judged(event, client)
                else:
                    yield event

    async def _judged(self, event: ErrorEvent, client: AnthropicBackend) -> ErrorEvent:
        """What an error of this server means: it repeats what it said, or it is not there."""
        if event.error_type == CONTEXT_ERROR:
            return _with(event, "invalid", "; LocalBackend(context_tokens=…) sets the size")
        if event.verdict == "invalid" or event.error_type == SERVER_ERROR:
            return _with(event, "invalid")
        await self._model.doubt(client)
        return _with(event, "transient")


def _client_of(address: ServerAddress, model: str) -> AnthropicBackend:
    return AnthropicBackend(
        model,
        api_key=address.key,
        base_url=address.url,
        idle_timeout=IDLE_TIMEOUT_SECONDS,
        cache_prompts=False,
        extra_body=_BODY,
    )


def _has_image(message: dict[str, Any]) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block["type"] == "image" for block in content)


def _with(event: ErrorEvent, verdict: Verdict, advice: str = "") -> ErrorEvent:
    return msgspec.structs.replace(event, verdict=verdict, message=event.message + advice)
