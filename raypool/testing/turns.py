"""Turns with a backend under test, on an event loop of their own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

from raypool.backends.base import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent
from raypool.task import Content


class Suite(Protocol):
    """A test class.

    Attributes:
        timeout: the longest that one test may take, in seconds.
    """

    timeout: ClassVar[float]


Owner = TypeVar("Owner", bound=Suite)
Options = ParamSpec("Options")


def with_open_backend(
    test: Callable[Concatenate[Owner, Backend, Options], Awaitable[None]],
) -> Callable[Concatenate[Owner, Backend, Options], None]:
    """Run `test` on an event loop of its own, with the backend prepared and open."""

    def run(self: Owner, backend: Backend, *args: Options.args, **options: Options.kwargs) -> None:
        async def scenario() -> None:
            async with asyncio.timeout(self.timeout), opened(backend.prepare()) as ready:
                await test(self, ready, *args, **options)

        asyncio.run(scenario())

    functools.update_wrapper(run, test)
    return run  # type: ignore[return-value]  # pytest gives the backend by its name


@asynccontextmanager
async def opened(backend: Backend) -> AsyncIterator[Backend]:
    """The backend, open until the block ends."""
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def turn_of(session: Session, prompt: Content) -> list[Event]:
    """All events of one turn."""
    return [event async for event in session.prompt(prompt)]


def count_of_ends(events: list[Event]) -> int:
    """How often a turn has ended; once is right."""
    return sum(isinstance(event, ResultEvent | ErrorEvent) for event in events)
