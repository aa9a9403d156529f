"""A client of one model server, by whichever of its endpoints a turn needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import msgspec

from raypool.agent import SessionOptions
from raypool.backends.anthropic import CONNECT_TIMEOUT_SECONDS, AnthropicBackend
from raypool.backends.anthropic_errors import Endpoint
from raypool.backends.dialogue import Message
from raypool.backends.local_chat import ChatClient
from raypool.events import Event

if TYPE_CHECKING:
    from raypool.backends.model_server import ServerAddress

IDLE_TIMEOUT_SECONDS = 3600.0


class ServerClient:
    """Sends turns to the server at one address."""

    def __init__(self, address: ServerAddress, model: str) -> None:
        self.address = address
        self._messages = AnthropicBackend(
            model,
            api_key=address.key,
            base_url=address.url,
            idle_timeout=IDLE_TIMEOUT_SECONDS,
            cache_prompts=False,
            extra_body={"temperature": 0},
        )
        endpoint = Endpoint(
            url=address.url,
            model=model,
            idle_timeout=IDLE_TIMEOUT_SECONDS,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            secrets=(address.key,),
        )
        self._chat = ChatClient(endpoint, address.key)

    async def open(self) -> None:
        """Connect."""
        await self._messages.open()

    async def turn(
        self, messages: list[Message], options: SessionOptions, schema: dict[str, Any] | None
    ) -> AsyncGenerator[Event]:
        """The events of the turn that asks `messages`, answered as `schema` wants, if any."""
        if schema is not None:
            answer = self._chat.turn(messages, options, schema)
        else:
            plain = msgspec.structs.replace(options, messages=(), tools=(), output_type=None)
            session = await self._messages.start(plain)
            answer = cast("AsyncGenerator[Event]", session.prompt(messages))
        async with aclosing(answer) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Close every connection."""
        await self._messages.close()
        await self._chat.close()
