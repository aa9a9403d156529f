"""Turns with an `AnthropicBackend`, each on an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raypool.agent import SessionOptions
from raypool.backends import AnthropicBackend
from raypool.events import Event
from raypool.task import Content


@pytest.fixture
def converse() -> Callable[..., list[list[Event]]]:
    """A function of (url, *prompts) that gives the events of each turn of one session."""

    def run(
        url: str, *prompts: Content, options: SessionOptions | None = None, **settings: Any
    ) -> list[list[Event]]:
        backend = AnthropicBackend(base_url=url, **{"api_key": "a-test-key"} | settings)
        return asyncio.run(_turns(backend, options or SessionOptions(), prompts))

    return run


async def _turns(
    backend: AnthropicBackend, options: SessionOptions, prompts: tuple[Content, ...]
) -> list[list[Event]]:
    await backend.open()
    try:
        session = await backend.start(options)
        return [[event async for event in session.prompt(prompt)] for prompt in prompts]
    finally:
        await backend.close()
