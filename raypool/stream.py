"""One stream of results for `for` and for `async for`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Stream(Generic[T], Iterator[T], AsyncIterator[T]):
    """Wraps a generator so that coroutines can read it too, each step on a thread.

    Readers and those who close it take turns: a step whose coroutine was cancelled goes on
    to its end first.

    `ready`, where there is one, is awaited before each step of a coroutine, so that the
    thread need not wait for the item, however many streams are read at once.
    """

    def __init__(
        self,
        generator: Generator[T, None, None],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._generator = generator
        self._ready = ready
        self._turn = threading.Lock()

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        with self._turn:
            return next(self._generator)

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        if self._ready is not None:
            await self._ready()
        item = await asyncio.to_thread(next, self, _END)
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Read no further."""
        with self._turn:
            self._generator.close()

    async def aclose(self) -> None:
        """Read no further."""
        await asyncio.to_thread(self.close)
